"""What an earlier call left of a cache, and what is still to do.

Dimension: D features.
"""

import logging
import shutil
from dataclasses import replace
from typing import TypedDict

import numpy as np

from hfc import store
from hfc.errors import StaleStoreError, StoreError
from hfc.extract.worker import Job
from hfc.progress import steps

logger = logging.getLogger(__name__)

VIEWS = {"identity": ("identity",), "flip": ("identity", "flip")}
RETRY = ".retry"  # the cache of the rows that are tried again, beside the one they belong to


class Plan(TypedDict):
    """What an earlier call left, and what is still to do. A dictionary, as processes share it as JSON."""

    complete: bool
    """Whether the cache is there."""
    resumed: int
    """Rows that are done."""
    failed: int
    """Those of them without features."""
    shard_size: int
    """That of the shards that are there."""
    todo: list[int]
    """Numbers of the shards that are missing."""


def plan(job: Job, dim: int, overwrite: bool) -> Plan:
    """Look what an earlier call left, and plan what is still to do.

    Args:
        job: what is asked for.
        dim: D.
        overwrite: make all of it anew.

    Raises:
        StoreError: what is there was made under other settings, or cannot be read.
    """
    rows = len(job.regions)
    if job.out.exists() and not overwrite:
        failures = reuse(job, relabel=True)
        _clear(job, failures)
        return Plan(complete=True, resumed=rows, failed=len(failures), shard_size=job.config.shard_size, todo=[])
    shard_size, failed = _resume(job, overwrite)
    job = replace(job, config=replace(job.config, shard_size=shard_size))
    todo = job.missing()
    resumed = rows - sum(len(job.rows(shard)) for shard in todo)
    _warn_of_little_space(job, dim, resumed)
    return Plan(complete=False, resumed=resumed, failed=failed, shard_size=shard_size, todo=todo)


def reuse(job: Job, *, relabel: bool) -> store.Failures:
    """Return the failures of a finished cache made under the same settings.

    New labels and splits are written into it.
    """
    with store.FeatureStore(job.out) as cache:
        store.refuse_other_key(job.out, cache.key_fields, job.key_fields)
        table = cache.table()
    changed = any((getattr(table.regions, name) != getattr(job.regions, name)).any() for name in ("label", "split"))
    if changed and relabel:
        logger.warning("%s: the features are there; only labels or splits changed, and were rewritten", job.out)
        store.relabel(job.out, job.regions)
    return table.failures


def _clear(job: Job, failures: store.Failures) -> None:
    """Remove what killed processes left beside a finished cache. Shards of other settings stay."""
    store.remove_leftovers(job.out)
    if not failures:
        beside = job.out.with_name(job.out.name + RETRY)
        if store.is_cache(beside, begun=True):
            beside.unlink()
    try:
        for file in store.shard_files(job.out)[:1]:
            store.read_shard(file, job.key_fields)
    except StoreError:
        return
    store.remove_shards(job.out)


def _resume(job: Job, overwrite: bool) -> tuple[int, int]:
    """Check what an interrupted call left. Returns its shard size, which is kept, and how many rows failed in it.

    A damaged shard is done again, and so is everything if the shards do not fit each other.
    """
    store.remove_leftovers(job.out)
    starts: list[int] = []
    size, failed = 0, 0
    files = store.shard_files(job.out)
    store.remove_leftovers(*files)
    for file in steps(files, "checking shards"):
        try:
            shard = store.read_shard(file, job.key_fields)
        except StaleStoreError:
            if not overwrite:
                raise
            file.unlink()
        except StoreError as error:
            logger.warning("%s", error)
            file.unlink()
        else:
            starts.append(shard.start)
            size, failed = max(size, len(shard.ok)), failed + len(shard.failures)
    if starts and size != job.config.shard_size and all(start % size == 0 for start in starts):
        logger.warning("resuming with the shard size of the interrupted call, %d", size)
        return size, failed
    return job.config.shard_size, failed


def _warn_of_little_space(job: Job, dim: int, resumed: int) -> None:
    """Warn where the disk may fill. Shards and the cache stand side by side until the cache is whole."""
    row = dim * len(VIEWS[job.config.views]) * np.dtype(job.config.store).itemsize
    needed = row * (2 * len(job.regions) - resumed)
    free = shutil.disk_usage(job.out.parent).free
    if free < needed:
        logger.warning("%s: needs about %.1f GB, %.1f GB are free", job.out, needed / 1e9, free / 1e9)
