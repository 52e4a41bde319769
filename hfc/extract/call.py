"""One call of stage 1: it makes what is missing, or tries again what failed."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hfc import provenance, store
from hfc.config import ExtractConfig, plain
from hfc.errors import DatasetError, StoppedError, StoreError
from hfc.extract.encoder import Encoder
from hfc.extract.engines import Engine
from hfc.extract.plan import RETRY, plan
from hfc.extract.summary import Progress
from hfc.extract.worker import Job, Work, Worker, decoding_threads
from hfc.regions import Regions


@dataclass(frozen=True)
class Call:
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


def make(call: Call, overwrite: bool) -> tuple[Call, Progress, bool]:
    """Make what is missing of a cache.

    Returns:
        The call, with the shard size of the interrupted call it took up; the progress; whether the cache was written.
    """
    todo = call.engine.share(lambda: plan(call.job, call.encoder.dim, overwrite))
    rows = len(call.job.regions)
    progress = Progress(rows, resumed=todo["resumed"], failed=todo["failed"])
    if todo["complete"]:
        return call, progress, False
    job = replace(call.job, config=replace(call.job.config, shard_size=todo["shard_size"]))
    call = replace(call, job=job)
    _work(call, todo["todo"], progress)
    if call.engine.leads:
        if missing := job.missing():
            left = sum(len(job.rows(shard)) for shard in missing)
            raise StoppedError(
                f"{job.out}: interrupted; {rows - left} of {rows} regions are done and kept; "
                "run the same command again to go on"
            )
        _assemble(call, progress)
    elif call.stop():
        raise StoppedError(f"{job.out}: interrupted")
    return call, progress, True


def _work(call: Call, todo: list[int], progress: Progress) -> None:
    """Make shards, count, and stop when too much fails."""
    job, engine = call.job, call.engine
    before = progress.failed
    excused = before if call.retry else 0
    first: tuple[int, str] | None = None
    call.report(progress)
    for work in engine.run(todo, Worker(job, call.encoder), call.stop):
        work = work or Work()
        progress.done, failed = engine.tally(work.rows, len(work.failures))
        progress.failed = before + failed
        for name in ("read_s", "decode_s", "encode_s", "write_s"):
            setattr(progress, name, getattr(progress, name) + getattr(work, name))
        call.report(progress)
        first = first or next(iter(work.failures), None)
        if progress.failed - excused > call.most:
            example = f"; the first: {job.regions.id[first[0]]}: {first[1]}" if first else ""
            raise DatasetError(
                f"{job.out}: stopped: {progress.failed - excused} images failed, more than --max-failures "
                f"{job.config.max_failures}{example}. Finished shards are kept: mend the images and run again, "
                "with --retry-failures"
            )


def _assemble(call: Call, progress: Progress) -> None:
    begun = time.perf_counter()
    job, encoder, config = call.job, call.encoder, call.config
    store.refuse_other_file(job.out)  # one may have been put there since the work began
    shards = [job.file(shard) for shard in range(job.shards)]
    store.assemble(
        job.out,
        *in_order(job.regions, shards, job.key_fields),
        key_fields=job.key_fields,
        config=plain(config),
        provenance={
            "created": provenance.now(),
            "dataset": {
                "source": str(call.source),
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
            "seconds": round(time.perf_counter() - call.started, 3),
            "code": provenance.code(),
            "versions": provenance.versions(),
        },
    )
    store.remove_shards(job.out)
    progress.write_s += time.perf_counter() - begun


def in_order(
    regions: Regions, shards: list[Path], key_fields: store.KeyFields
) -> tuple[store.Table, list[Path], NDArray[np.int64], NDArray[np.int64]]:
    """Say that a cache's rows are those of its shards, one after the other."""
    parts = [store.read_shard_rows(path, key_fields) for path in shards]
    ok = np.concatenate([part.ok for part in parts])
    sizes = [len(part.ok) for part in parts]
    table = store.Table(regions, ok, [failure for part in parts for failure in part.failures])
    return table, shards, np.repeat(np.arange(len(parts)), sizes), np.concatenate([np.arange(size) for size in sizes])


def retry(call: Call) -> Progress:
    """Extract the rows that failed into a cache of their own, and merge it. It is resumable like any other."""
    job, engine = call.job, call.engine
    rows = engine.share(lambda: _failed_rows(job.out))
    places = np.array(rows, dtype=np.int64)
    regions = job.regions.take(places)
    beside = job.out.with_name(job.out.name + RETRY)
    if beside.exists() and not store.is_cache(beside, begun=True):
        raise StoreError(f"{beside}: is in the way: it is no feature cache; move it away and run again")
    keys: store.KeyFields = {**job.key_fields, "rows": len(regions), "regions": regions.digest}
    part = replace(job, regions=regions, out=beside, key_fields=keys)
    # A cache of other rows is useless there: other rows fail now. One of these rows was extracted by a call that could
    # not merge it, as on a full disk.
    _, progress, _ = make(replace(call, job=part), overwrite=not engine.share(lambda: _is_cache_of(part)))
    if engine.leads:
        with store.FeatureStore(job.out) as cache, store.FeatureStore(beside) as retried:
            left = len(retried.table().failures)
            change: store.Retry = {"created": provenance.now(), "rows": len(rows), "failed_again": left}
            origin: store.Provenance = {**cache.provenance, "retries": [*cache.provenance.get("retries", []), change]}
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
