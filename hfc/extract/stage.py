"""Stage 1: every region goes through the frozen backbone exactly once.

Regions are cut into shards; each finished shard is an immutable file; when all are there they become one cache.
Whatever stops the work, the next call does the shards that are missing.
"""

import contextlib
import os
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hfc import crops, provenance, store
from hfc.config import ExtractConfig
from hfc.datasets import read_regions, remote
from hfc.datasets.splits import draw_splits
from hfc.errors import ConfigError, StoreError
from hfc.extract import network
from hfc.extract.call import Call, make, retry
from hfc.extract.encoder import Encoder
from hfc.extract.engines import open_engine
from hfc.extract.plan import VIEWS, reuse
from hfc.extract.summary import ExtractSummary, Progress
from hfc.extract.worker import Job, crop_settings, open_encoder
from hfc.hierarchy import keep_tree, tree_file
from hfc.provenance import followed, make_folder
from hfc.regions import Regions


def extract(
    source: Path,
    out: Path,
    config: ExtractConfig,
    *,
    overwrite: bool = False,
    dry_run: bool = False,
    retry_failures: bool = False,
    report: Callable[[Progress], None] = lambda progress: None,
    stop: Callable[[], bool] = lambda: False,
) -> ExtractSummary | None:
    """Turn a data set's images into a feature cache.

    Args:
        source: a DeepFashion root, a CSV manifest or a folder tree.
        out: the cache to write; what an interrupted call left of it is resumed.
        config: the settings; those left to the machine are resolved here.
        overwrite: drop a cache or shards made under other settings.
        dry_run: do everything but encode and write.
        retry_failures: try the rows again that failed in an earlier call, and no others.
        report: called after every batch.
        stop: asked before every shard; once it says so, shards in hand are finished and the call ends.

    Returns:
        What was done; None in a process that only helped another (torchrun's ranks but the first).

    Raises:
        StoppedError: `stop` said so before all was done.
        HfcError: the source, weights, settings or disk do not allow it; nothing is left half written.
    """
    started = time.perf_counter()
    out = followed(out)
    engine = open_engine(config.engine)
    regions = _regions(source, out, config)
    most = _most_failures(config, len(regions))
    if engine.leads:
        _check_writable(out, overwrite)
    job, encoder = _prepare(regions, out, config)
    call = Call(job, encoder, engine, source, most, retry_failures, stop, report, started)
    return _dry_run(call, overwrite) if dry_run else _carry_out(call, overwrite)


def _dry_run(call: Call, overwrite: bool) -> ExtractSummary | None:
    """Report what a call would do."""
    job, rows = call.job, len(call.job.regions)
    if not call.engine.leads:
        return None
    if job.out.exists() and not overwrite:
        failures = reuse(job, relabel=False)
        return _summary(call, Progress(rows, resumed=rows), failures, written=False)
    return _summary(call, Progress(rows), [], written=False)


def _carry_out(call: Call, overwrite: bool) -> ExtractSummary | None:
    """Make what is missing of the cache, and report it."""
    out, leads = call.job.out, call.engine.leads
    with store.locked(out) if leads else contextlib.nullcontext():
        call, progress, written = make(call, overwrite)
        if call.retry and progress.resumed and progress.failed:
            progress, written = retry(call), True
        if not leads:
            return None
        if call.job.config.remote:
            remote.beside(out).remove()
        if call.job.regions.tree:
            keep_tree(tree_file(out), call.job.regions.tree)
        with store.FeatureStore(out) as cache:
            failures = cache.table().failures
        return _summary(call, progress, failures, written=written)


def _regions(source: Path, out: Path, config: ExtractConfig) -> Regions:
    """The rows that the settings take of a data set."""
    regions = read_regions(
        source,
        outside_root=config.outside_root,
        remote=remote.beside(out) if config.remote else None,
        label_column=config.label_column,
        group=config.group,
        split=config.split,
    )
    regions = regions.subsample(config.limit) if config.limit else regions
    shares = config.val_fraction, config.test_fraction
    return draw_splits(regions, seed=config.split_seed, shares=shares, recorded=None)


def _prepare(regions: Regions, out: Path, config: ExtractConfig) -> tuple[Job, Encoder]:
    encoder = open_encoder(config)
    crop = crop_settings(config, encoder)
    # `auto` is resolved here once: it shapes the features, so every process must take the same.
    config = replace(config, precision=encoder.precision, pool=encoder.pool)
    return Job(regions, crop, config, out, _key_fields(regions, encoder, config)), encoder


def _key_fields(regions: Regions, encoder: Encoder, config: ExtractConfig) -> store.KeyFields:
    """Collect exactly what changes the features. Batch size, workers, device, engine, labels and splits do not."""
    return {
        "schema": 1,
        "pixels": crops.PIXELS,
        "numerics": network.NUMERICS,
        "backbone": config.backbone.split(".")[0],
        "weights": encoder.weights_digest,
        "image_size": config.image_size,
        "resize": config.resize,
        "roi_margin": config.roi_margin,
        "mean": list(encoder.mean),
        "std": list(encoder.std),
        "pool": config.pool,
        "views": list(VIEWS[config.views]),
        "precision": config.precision,
        "compile": config.compile,
        "store": config.store,
        "rows": len(regions),
        "regions": regions.digest,
    }


def _check_writable(out: Path, overwrite: bool) -> None:
    """Refuse a place that cannot be written now, not after an hour."""
    probe = out.with_name(f"{out.name}.{os.getpid()}.part")
    try:
        if overwrite:
            store.refuse_other_file(out)
        if out.is_dir():
            raise StoreError(f"{out}: is a folder; --out names the cache file to write, like {out / 'features.h5'}")
        if out.exists() and not out.is_file():
            raise StoreError(f"{out}: is neither file nor folder; --out names the cache file to write")
        make_folder(out.parent)
        probe.touch()
        probe.unlink(missing_ok=True)  # whoever holds the lock may have taken it for a leftover
    except OSError as error:
        raise StoreError(f"{out}: cannot be written: {error.strerror}") from error


def _most_failures(config: ExtractConfig, rows: int) -> int:
    """Return how many failures `max_failures` lets pass among some rows."""
    if not config.max_failures:
        return rows
    match = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?)%", config.max_failures.strip())
    if not match:
        raise ConfigError(f"max_failures: expected a number like 100 or a share like 5%, found {config.max_failures!r}")
    return int(match[1]) if match[1] else int(rows * float(match[2]) / 100)


def _summary(call: Call, progress: Progress, failures: store.Failures, *, written: bool) -> ExtractSummary:
    job = call.job
    return ExtractSummary(
        path=job.out,
        key=provenance.digest(job.key_fields),
        rows=len(job.regions),
        dim=call.encoder.dim,
        failures=[(str(job.regions.id[row]), reason) for row, reason in failures],
        seconds=time.perf_counter() - call.started,
        progress=progress,
        shards=job.shards,
        config=call.config,
        origin=job.regions.origin,
        feature_map=call.encoder.feature_map,
        written=written,
        tree=tree_file(job.out) if job.regions.tree else None,
    )
