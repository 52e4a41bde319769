"""Stage 1: the same pixels go through the frozen backbone exactly once.

Features belong to an image's bytes and a box in it. What the cache does not have of a data set is cut into shards; each
finished shard is an immutable file; when all are there, they and what the cache has become the new cache. Whatever
stops the work, the next call does what is missing, and the old cache stays whole until the new one is.
"""

import contextlib
import os
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

from hfc import crops, provenance, store
from hfc.config import ExtractConfig, plain, resolve
from hfc.datasets import read_regions, remote
from hfc.datasets.splits import draw_splits
from hfc.errors import ConfigError, StoreError, check_keywords
from hfc.extract import network
from hfc.extract.call import VIEWS, Call, Outcome, look, make
from hfc.extract.encoder import PREFERRED, Encoder
from hfc.extract.engines import open_engine
from hfc.extract.engines.ray import cluster_gpus
from hfc.extract.plan import Options
from hfc.extract.summary import ExtractSummary, Progress
from hfc.extract.worker import Job, crop_settings, open_encoder
from hfc.hierarchy import canonical, keep_tree, tree_file
from hfc.provenance import followed, make_folder
from hfc.regions import Regions, Strings

CHECKS = ("stat", "content")


def extract(
    source: str | Path,
    out: str | Path,
    config: ExtractConfig | None = None,
    *,
    overwrite: bool = False,
    dry_run: bool = False,
    retry_failures: bool = False,
    check: str = "stat",
    trust_files: bool = False,
    report: Callable[[Progress], None] = lambda progress: None,
    stop: Callable[[], bool] = lambda: False,
    **settings: object,
) -> ExtractSummary | None:
    """Turn a data set's images into a feature cache: `extract("photos", "own.h5", image_size=288)`.

    Args:
        source: a DeepFashion root, a CSV manifest or a folder tree.
        out: the cache to write, or to bring up to date; what an interrupted call left is resumed.
        config: settings in one object; what is left to the machine is resolved here.
        overwrite: drop a cache or shards made under other settings.
        dry_run: do everything but encode and write.
        retry_failures: encode the images again that failed in an earlier call, too.
        check: what tells whether a file has changed: stat, its size and time; or content, its bytes.
        trust_files: keep the features of a cache of schema 1, as if no file had changed.
        report: called after every batch.
        stop: asked before every shard; once it says so, shards in hand are finished and the call ends.
        settings: any of hfc.config.ExtractConfig, in the place of what `config` has.

    Returns:
        What was done; None in a process that only helped another (torchrun's ranks but the first).

    Raises:
        StoppedError: `stop` said so before all was done.
        HfcError: the source, weights, settings or disk do not allow it; nothing is left half written.
    """
    if settings or not config:
        check_keywords(extract, settings, (known.name for known in fields(ExtractConfig)))
        config = resolve(ExtractConfig, plain(config) if config else {}, settings)
    options = _options(overwrite, retry_failures, check, trust_files)
    call = _open(Path(source), followed(Path(out)), config, options, stop, report, dry_run)
    return _dry_run(call) if dry_run else _carry_out(call)


def _open(
    source: Path,
    out: Path,
    config: ExtractConfig,
    options: Options,
    stop: Callable[[], bool],
    report: Callable[[Progress], None],
    dry_run: bool,
) -> Call:
    """Read the rows and open the backbone of a call."""
    started = time.perf_counter()
    engine = open_engine(config.engine)
    regions = _regions(source, remote.Downloads() if dry_run else remote.beside(out), config)
    most = _most_failures(config, len(regions))
    if engine.leads:
        _check_writable(out, options.overwrite)
    job, encoder = _prepare(regions, out, config)
    return Call(job, encoder, engine, source, options, partial(_draw, config), most, stop, report, started)


def _options(overwrite: bool, retry: bool, check: str, trust: bool) -> Options:
    if check not in CHECKS:
        raise ConfigError(f"check: expected {' or '.join(CHECKS)}, found {check!r}")
    if trust and (overwrite or check == "content"):
        other = "overwrite" if overwrite else "check = content"
        raise ConfigError(f"trust_files keeps features without looking at files; leave {other} out")
    return Options(overwrite, retry, by_content=check == "content", trust=trust)


def _dry_run(call: Call) -> ExtractSummary | None:
    """Report what a call would do."""
    return _summary(look(call)) if call.engine.leads else None


def _carry_out(call: Call) -> ExtractSummary | None:
    """Make what is missing of the cache, and report it."""
    out, leads = call.job.out, call.engine.leads
    with store.locked(out) if leads else contextlib.nullcontext():
        outcome = make(call)
        if not leads:
            return None
        if call.job.config.remote:
            remote.beside(out).remove()
        if tree := outcome.plan.regions.tree if outcome.plan else "":
            keep_tree(tree_file(out), tree)
        return _summary(outcome)


def _regions(source: Path, downloads: remote.Downloads, config: ExtractConfig) -> Regions:
    """The rows that the settings take of a data set."""
    regions = read_regions(
        source,
        outside_root=config.outside_root,
        remote=downloads if config.remote else None,
        label_column=config.label_column,
        group=config.group,
        split=config.split,
    )
    return regions.subsample(config.limit) if config.limit else regions


def _draw(config: ExtractConfig, regions: Regions, recorded: Strings) -> Regions:
    """Draw the splits of rows that have none, beside those that are recorded."""
    shares = config.val_fraction, config.test_fraction
    return draw_splits(regions, seed=config.split_seed, shares=shares, recorded=recorded)


def _prepare(regions: Regions, out: Path, config: ExtractConfig) -> tuple[Job, Encoder]:
    if config.engine == "ray":
        config = _for_actors(config)
    encoder = open_encoder(config)
    crop = crop_settings(config, encoder)
    # `auto` is resolved here once: it shapes the features, so every process must take the same.
    config = replace(config, precision=encoder.precision, pool=encoder.pool)
    return Job(regions, crop, config, out, _key_fields(encoder, config)), encoder


def _for_actors(config: ExtractConfig) -> ExtractConfig:
    """Settle what the actors of Ray compute in: they may have GPUs where this process has none."""
    if re.fullmatch(r"cuda:\d+", config.device):
        raise ConfigError(f"--engine ray: an actor sees its own GPU alone; leave --device {config.device} out")
    if config.precision == "auto" and config.device != "cpu" and cluster_gpus():
        return replace(config, precision=PREFERRED[0])  # as every GPU has it
    return config


def _key_fields(encoder: Encoder, config: ExtractConfig) -> store.KeyFields:
    """Collect exactly what changes the features of given pixels. Batch size, workers, device and engine do not."""
    return {
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


def _summary(outcome: Outcome) -> ExtractSummary:
    call, plan, table = outcome.call, outcome.plan, outcome.table
    assert plan
    assert table
    job, counts = call.job, plan.counts
    return ExtractSummary(
        path=job.out,
        key=provenance.digest(job.key_fields),
        rows=len(plan.regions),
        dim=call.encoder.dim,
        failures=[(str(plan.regions.id[row]), reason) for row, reason in table.failures],
        seconds=time.perf_counter() - call.started,
        progress=outcome.progress,
        encoded=len(job.regions),
        kept=counts.kept,
        new=counts.new,
        changed=counts.changed,
        gone=counts.gone,
        splits=dict(Counter(plan.regions.split.tolist())),
        groups=len({*map(canonical, plan.regions.group.tolist())} - {""}),
        resumed=plan.resumed,
        differences=list(outcome.differences),
        updated=plan.former is not None,
        shards=job.shards,
        config=call.config,
        origin=plan.regions.origin,
        feature_map=call.encoder.feature_map,
        written=outcome.written,
        tree=tree_file(job.out) if plan.regions.tree else None,
    )
