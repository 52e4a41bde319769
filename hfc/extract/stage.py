"""Stage 1: every region goes through the frozen backbone exactly once.

Regions are cut into shards; each finished shard is an immutable file; when all are there they become one cache.
Whatever stops the work, the next call does the shards that are missing.
"""

import contextlib
import logging
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hfc import crops, provenance, store
from hfc.config import ExtractConfig, plain
from hfc.datasets import read_regions
from hfc.errors import ConfigError, DatasetError, StoppedError, StoreError
from hfc.extract import network
from hfc.extract.encoder import Encoder
from hfc.extract.engines import Engine, open_engine
from hfc.extract.plan import RETRY, VIEWS, plan, reuse
from hfc.extract.worker import Job, Work, Worker, crop_settings, decoding_threads, open_encoder
from hfc.hierarchy import keep_tree, tree_file
from hfc.provenance import followed, make_folder
from hfc.regions import Regions

logger = logging.getLogger(__name__)


@dataclass
class Progress:
    """How far stage 1 is, and where its seconds went. Reading and decoding are summed over threads."""

    total: int
    done: int = 0
    """Rows finished in this call, by all processes."""
    resumed: int = 0
    """Rows that an earlier call had finished."""
    failed: int = 0
    """Rows without features, resumed ones among them."""
    read_s: float = 0.0
    decode_s: float = 0.0
    encode_s: float = 0.0
    write_s: float = 0.0


@dataclass(frozen=True)
class ExtractSummary:
    """What stage 1 did."""

    path: Path
    key: str
    rows: int
    dim: int
    failures: list[tuple[str, str]]
    """Id and reason of every region without features."""
    seconds: float
    progress: Progress
    shards: int
    config: ExtractConfig
    """As it was resolved on this machine."""
    origin: str
    feature_map: tuple[int, ...]
    written: bool
    """False after a dry run, or when the cache was there already."""
    tree: Path | None
    """The category tree, where the data set itself has one."""


@dataclass(frozen=True)
class _Stage:
    """One call of `extract`."""

    job: Job
    encoder: Encoder
    engine: Engine
    source: Path
    most: int
    """How many images may fail before the work stops."""
    retry: bool
    """Whether what failed in an earlier call is tried again, and so does not count."""
    stop: Callable[[], bool]
    report: Callable[[Progress], None]
    started: float

    @property
    def config(self) -> ExtractConfig:
        """The settings as they were resolved here."""
        encoder = self.encoder
        return replace(
            self.job.config,
            device=str(encoder.device),
            batch_size=encoder.batch_size,
            workers=self.job.config.workers or decoding_threads(),
        )


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
    regions = read_regions(
        source,
        outside_root=config.outside_root,
        split_seed=config.split_seed,
        val_fraction=config.val_fraction,
        test_fraction=config.test_fraction,
    )
    if config.limit:
        regions = regions.spread(config.limit)
    most = _most_failures(config, len(regions))
    if engine.leads:
        _check_writable(out, overwrite)
    job, encoder = _prepare(regions, out, config)
    stage = _Stage(job, encoder, engine, source, most, retry_failures, stop, report, started)
    if dry_run:
        if not engine.leads:
            return None
        if out.exists() and not overwrite:
            failures = reuse(job, relabel=False)
            return _summary(stage, Progress(len(regions), resumed=len(regions)), failures, written=False)
        return _summary(stage, Progress(len(regions)), [], written=False)
    with store.locked(out) if engine.leads else contextlib.nullcontext():
        stage, progress, written = _run(stage, overwrite)
        if retry_failures and progress.resumed and progress.failed:
            progress, written = _retry(stage), True
        if not engine.leads:
            return None
        if regions.tree:
            keep_tree(tree_file(out), regions.tree)
        with store.FeatureStore(out) as cache:
            failures = cache.table().failures
        return _summary(stage, progress, failures, written=written)


def _prepare(regions: Regions, out: Path, config: ExtractConfig) -> tuple[Job, Encoder]:
    encoder = open_encoder(config)
    crop = crop_settings(config, encoder)
    # `auto` is resolved here once: it shapes the features, so every process must take the same.
    config = replace(config, precision=encoder.precision, pool=encoder.pool)
    return Job(regions, crop, config, out, _key_fields(regions, encoder, config)), encoder


def _key_fields(regions: Regions, encoder: Encoder, config: ExtractConfig) -> dict[str, object]:
    """Exactly what changes the features. Batch size, workers, device, engine, labels and splits do not."""
    return {
        "schema": store.SCHEMA,
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
    """Find out now, not after an hour."""
    probe = out.with_name(f"{out.name}.{os.getpid()}.part")
    try:
        if overwrite:
            store.refuse_other_file(out)
        if out.is_dir():
            raise StoreError(f"{out}: is a folder; --out names the cache file to write, like {out / 'features.h5'}")
        if out.exists() and not out.is_file():
            raise StoreError(f"{out}: is no file; --out names the cache file to write")
        make_folder(out.parent)
        probe.touch()
        probe.unlink(missing_ok=True)  # whoever holds the lock may have taken it for a leftover
    except OSError as error:
        raise StoreError(f"{out}: cannot be written: {error.strerror}") from error


def _most_failures(config: ExtractConfig, rows: int) -> int:
    """How many failures `max_failures` lets pass among some rows."""
    if not config.max_failures:
        return rows
    match = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?)%", config.max_failures.strip())
    if not match:
        raise ConfigError(f"max_failures: expected a number like 100 or a share like 5%, found {config.max_failures!r}")
    return int(match[1]) if match[1] else int(rows * float(match[2]) / 100)


def _run(stage: _Stage, overwrite: bool) -> tuple[_Stage, Progress, bool]:
    """Make what is missing of a cache.

    Returns:
        The stage, with the shard size of the interrupted call it took up; the progress; whether the cache was written.
    """
    todo: dict[str, Any] = stage.engine.share(lambda: plan(stage.job, stage.encoder.dim, overwrite))
    rows = len(stage.job.regions)
    progress = Progress(rows, resumed=todo["resumed"], failed=todo["failed"])
    if todo["complete"]:
        return stage, progress, False
    job = replace(stage.job, config=replace(stage.job.config, shard_size=todo["shard_size"]))
    stage = replace(stage, job=job)
    _work(stage, todo["todo"], progress)
    if stage.engine.leads:
        if missing := job.missing():
            left = sum(len(job.rows(shard)) for shard in missing)
            raise StoppedError(
                f"{job.out}: interrupted; {rows - left} of {rows} regions are done and kept; "
                "run the same command again to go on"
            )
        _assemble(stage, progress)
    elif stage.stop():
        raise StoppedError(f"{job.out}: interrupted")
    return stage, progress, True


def _work(stage: _Stage, todo: list[int], progress: Progress) -> None:
    """Make shards, count, and stop when too much fails."""
    job, engine = stage.job, stage.engine
    before = progress.failed
    excused = before if stage.retry else 0
    first: tuple[int, str] | None = None
    stage.report(progress)
    for work in engine.run(todo, Worker(job, stage.encoder), stage.stop):
        work = work or Work()
        progress.done, failed = engine.tally(work.rows, len(work.failures))
        progress.failed = before + failed
        for name in ("read_s", "decode_s", "encode_s", "write_s"):
            setattr(progress, name, getattr(progress, name) + getattr(work, name))
        stage.report(progress)
        first = first or next(iter(work.failures), None)
        if progress.failed - excused > stage.most:
            example = f"; the first: {job.regions.id[first[0]]}: {first[1]}" if first else ""
            raise DatasetError(
                f"{job.out}: stopped: {progress.failed - excused} images failed, more than --max-failures "
                f"{job.config.max_failures}{example}. Finished shards are kept: mend the images and run again, "
                "with --retry-failures"
            )


def _assemble(stage: _Stage, progress: Progress) -> None:
    begun = time.perf_counter()
    job, encoder, config = stage.job, stage.encoder, stage.config
    store.refuse_other_file(job.out)  # somebody may have put one there since the work began
    store.assemble(
        job.out,
        [job.file(shard) for shard in range(job.shards)],
        job.regions,
        key_fields=job.key_fields,
        config=plain(config),
        provenance={
            "created": provenance.now(),
            "dataset": {
                "source": str(stage.source),
                "root": str(job.regions.root.resolve()),
                "origin": job.regions.origin,
                "rows": len(job.regions),
            },
            "weights": {
                "source": config.weights,
                "digest": encoder.weights_digest,
                "random": config.weights == "random",
            },
            "feature_map": list(encoder.feature_map),
            "device": str(encoder.device),
            "seconds": round(time.perf_counter() - stage.started, 3),
            "code": provenance.code(),
            "versions": provenance.versions(),
        },
    )
    store.remove_shards(job.out)
    progress.write_s += time.perf_counter() - begun


def _retry(stage: _Stage) -> Progress:
    """Extract the rows that failed into a cache of their own, resumable like any other, and merge it."""
    job, engine = stage.job, stage.engine
    rows: list[int] = engine.share(lambda: _failed_rows(job.out))
    places = np.array(rows, dtype=np.int64)
    regions = job.regions.take(places)
    beside = job.out.with_name(job.out.name + RETRY)
    if beside.exists() and not store.is_cache(beside, begun=True):
        raise StoreError(f"{beside}: is in the way: it is no feature cache; move it away and run again")
    keys = job.key_fields | {"rows": len(regions), "regions": regions.digest}
    part = replace(job, regions=regions, out=beside, key_fields=keys)
    # Whatever lies there of other rows is of no use: the rows that fail have changed since. What lies there of these
    # rows was extracted by a call that did not come to merge it, as on a full disk.
    _, progress, _ = _run(replace(stage, job=part), overwrite=not engine.share(lambda: _is_cache_of(part)))
    if engine.leads:
        with store.FeatureStore(job.out) as cache, store.FeatureStore(beside) as retried:
            left = len(retried.table().failures)
            change = {"created": provenance.now(), "rows": len(rows), "failed_again": left}
            history = [*cache.provenance.get("retries", []), change]
            origin = cache.provenance | {"retries": history}
        store.merge(job.out, places, beside, origin)
        beside.unlink()
    return progress


def _is_cache_of(job: Job) -> bool:
    try:
        with store.FeatureStore(job.out) as cache:
            store.refuse_other_key(job.out, cache.key_fields, job.key_fields)
    except StoreError:
        return False
    return True


def _failed_rows(path: Path) -> list[int]:
    with store.FeatureStore(path) as cache:
        return [row for row, _ in cache.table().failures]


def _summary(stage: _Stage, progress: Progress, failures: store.Failures, *, written: bool) -> ExtractSummary:
    job = stage.job
    return ExtractSummary(
        path=job.out,
        key=provenance.digest(job.key_fields),
        rows=len(job.regions),
        dim=stage.encoder.dim,
        failures=[(str(job.regions.id[row]), reason) for row, reason in failures],
        seconds=time.perf_counter() - stage.started,
        progress=progress,
        shards=job.shards,
        config=stage.config,
        origin=job.regions.origin,
        feature_map=stage.encoder.feature_map,
        written=written,
        tree=tree_file(job.out) if job.regions.tree else None,
    )
