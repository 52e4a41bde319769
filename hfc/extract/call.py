"""One call of stage 1: it makes what is missing, and puts it together with what is there.

Dimensions: N rows, V views, D features.
"""

import contextlib
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hfc import provenance, store
from hfc.config import ExtractConfig, plain
from hfc.errors import DatasetError, HfcError, StoppedError
from hfc.extract.encoder import Encoder
from hfc.extract.engines import Engine
from hfc.extract.former import differences
from hfc.extract.plan import Options, Plan, Share, make_plan, rows_of
from hfc.extract.summary import Progress
from hfc.extract.worker import Job, Work, Worker, decoding_threads
from hfc.regions import Regions, Strings

logger = logging.getLogger(__name__)

VIEWS = {"identity": ("identity",), "flip": ("identity", "flip")}


@dataclass(frozen=True)
class Call:
    """One call of `extract`."""

    job: Job
    """Its regions are all rows at first, and those to encode once there is a plan."""
    encoder: Encoder
    engine: Engine
    source: Path
    options: Options
    draw: Callable[[Regions, Strings], Regions]
    """Gives rows without a split one, beside those that are recorded."""
    most: int
    """How many images may fail before the work stops."""
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

    def empty(self) -> store.Features:
        """Return (0, V, D) features as they are stored."""
        views = len(VIEWS[self.job.config.views])
        array: store.Features = np.empty((0, views, self.encoder.dim), dtype=self.job.config.store)
        return array


@dataclass(frozen=True)
class Outcome:
    """What became of a call. Only the process that leads has a plan and a table."""

    call: Call
    """Its regions are those that were to be encoded."""
    progress: Progress
    plan: Plan | None = None
    table: store.Table | None = None
    """The rows of the cache."""
    differences: tuple[str, ...] = ()
    """In what they differ from those of the cache that was there."""
    written: bool = False


def look(call: Call) -> Outcome:
    """Plan a call and change nothing."""
    plan = make_plan(call.job, call.options, call.draw, call.stop)
    share = plan.share()
    call = _with_work(call, share)
    table = plan.contents(call.job, []).table
    decided = plan.known | plan.unreadable.keys()
    table = replace(table, failures=[(row, why) for row, why in table.failures if row in decided])
    differing = tuple(differences(table, plan.former)) if plan.former else ()
    return Outcome(call, _progress(call, plan.regions, share), plan, table, differing)


def make(call: Call) -> Outcome:
    """Make what is missing of a cache.

    Raises:
        StoppedError: the call was asked to stop before all was done.
        HfcError: it cannot be done; what is finished is kept.
    """
    regions = call.job.regions
    plans: list[Plan] = []

    def share() -> Share:
        plans.append(make_plan(call.job, call.options, call.draw, call.stop))
        _make_room(call, plans[0])
        return plans[0].share()

    shared = call.engine.share(share)
    if shared["regions"] != regions.digest:
        raise HfcError(f"{call.source}: this process does not find the same images as the one that leads")
    call = _with_work(call, shared)
    progress = _progress(call, regions, shared)
    _work(call, shared, progress)
    if not call.engine.leads:
        if call.stop():
            raise StoppedError(f"{call.job.out}: interrupted")
        return Outcome(call, progress)
    return _finish(call, plans[0], progress)


def _with_work(call: Call, share: Share) -> Call:
    """Return the call with the rows to encode."""
    work = call.job.regions.take(rows_of(share["todo"]))
    return replace(call, job=replace(call.job, regions=work, first=share["first"]))


def _progress(call: Call, regions: Regions, share: Share) -> Progress:
    """Return how far the work is before it begins. What needs no work is done."""
    done = len(regions) - share["known"] - len(call.job.regions)
    return Progress(len(regions), done=done, resumed=share["known"], failed=share["failed"])


def _make_room(call: Call, plan: Plan) -> None:
    """Remove what killed processes left, and warn where the disk may fill."""
    out, options = call.job.out, call.options
    store.remove_leftovers(out, *plan.shards)
    if options.overwrite:
        _remove(out, plan.others)
    todo = len(plan.todo)
    if not todo:
        return
    # Shards and the new cache stand beside the old one until the new one is whole.
    needed = call.empty()[:1].itemsize * int(np.prod(call.empty().shape[1:])) * (todo + len(plan.regions))
    free = shutil.disk_usage(out.parent).free
    if free < needed:
        logger.warning("%s: needs about %.1f GB, %.1f GB are free", out, needed / 1e9, free / 1e9)


def _work(call: Call, share: Share, progress: Progress) -> None:
    """Make shards, count, and stop when too much fails."""
    job, engine = call.job, call.engine
    done, failed = progress.done, progress.failed
    example = share["example"]
    call.report(progress)
    _refuse_failures(call, failed - share["excused"], example)
    for work in engine.run(range(job.shards), Worker(job, call.encoder), call.stop):
        work = work or Work()
        rows, failures = engine.tally(work.rows, len(work.failures))
        progress.done, progress.failed = done + rows, failed + failures
        for name in ("read_s", "decode_s", "encode_s", "write_s"):
            setattr(progress, name, getattr(progress, name) + getattr(work, name))
        call.report(progress)
        example = example or next((f"{job.regions.id[row]}: {reason}" for row, reason in work.failures), "")
        _refuse_failures(call, progress.failed - share["excused"], example)


def _refuse_failures(call: Call, failed: int, example: str) -> None:
    """Raise a DatasetError where too many images failed that had not before."""
    if failed > call.most:
        raise DatasetError(
            f"{call.job.out}: stopped: {failed} images failed, more than --max-failures "
            f"{call.job.config.max_failures}{f'; the first: {example}' if example else ''}. Finished shards are kept: "
            "mend the images and run again"
        )


def _finish(call: Call, plan: Plan, progress: Progress) -> Outcome:
    """Put the cache together, unless it is what it was."""
    job = call.job
    if missing := job.missing():
        left = sum(len(job.rows(shard)) for shard in missing)
        raise StoppedError(
            f"{job.out}: interrupted; {progress.total - left} of {progress.total} regions are done and kept; "
            "run the same command again to go on"
        )
    begun = time.perf_counter()
    made = [job.file(shard) for shard in range(job.shards)]
    table, sources, source, row = plan.contents(job, made)
    progress.failed = len(table.failures)
    differing = tuple(differences(table, plan.former)) if plan.former else ()
    written = bool(differing) or plan.former is None or bool(made)
    if written:
        store.refuse_other_file(job.out)  # one may have been put there since the work began
        store.assemble(
            job.out,
            table,
            sources,
            source,
            row,
            key_fields=job.key_fields,
            config=plain(call.config),
            provenance=_provenance(call, plan, kept=job.out in sources),
            empty=call.empty(),
        )
    _remove(job.out, [*plan.shards, *made])
    progress.write_s += time.perf_counter() - begun
    return Outcome(call, progress, plan, table, differing, written)


def _provenance(call: Call, plan: Plan, *, kept: bool) -> store.Provenance:
    """Say where the cache comes from. What was said when it was first made stays, if any of that is kept."""
    job, encoder, config = call.job, call.encoder, call.config
    dataset: store.DataSet = {
        "source": str(call.source),
        "root": str(plan.regions.root.resolve()),
        "origin": plan.regions.origin,
        "rows": len(plan.regions),
    }
    if plan.former and kept:
        before = plan.former.provenance
        counts = plan.counts
        update: store.Update = {
            "created": provenance.now(),
            "kept": counts.kept,
            "encoded": len(job.regions),
            "gone": counts.gone,
            "code": provenance.code(),
        }
        return {**before, "dataset": dataset, "updates": [*before.get("updates", []), update]}
    return {
        "created": provenance.now(),
        "dataset": dataset,
        "weights": {"source": config.weights, "digest": encoder.weights_digest, "random": config.weights == "random"},
        "feature_map": list(encoder.feature_map),
        "device": str(encoder.device),
        "seconds": round(time.perf_counter() - call.started, 3),
        "code": provenance.code(),
        "versions": provenance.versions(),
    }


def _remove(out: Path, shards: list[Path]) -> None:
    """Remove shards, and their folder where nothing else lies in it."""
    store.remove_leftovers(*shards)
    with contextlib.suppress(OSError):
        for file in shards:
            file.unlink(missing_ok=True)
        store.shard_folder(out).rmdir()
