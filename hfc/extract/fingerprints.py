"""Fingerprints of images: what tells whether a file is what it was.

Dimension: N rows.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hfc import store
from hfc.datasets.reading import UNKNOWN, UNREADABLE, named, read_bytes, reason, stamp
from hfc.datasets.remote import is_url
from hfc.errors import AwayError, HfcError, StoppedError, warn_once
from hfc.progress import steps
from hfc.regions import Regions, Remote

logger = logging.getLogger(__name__)

# A file that was written so shortly before it was read may change once more and keep its time, which some file systems
# count in steps of two seconds. Its bytes decide the next time (git calls such a file racily clean).
FRESH_NS = 2 * 10**9
SLICE, THREADS = 64, 8  # files that a thread takes at a time, and threads at least: they wait for the disk
REMOTE_SLICE, REMOTE_THREADS = 4, 32  # the same where they wait for servers


class Look(NamedTuple):
    """What a file is found to be."""

    sha256: bytes
    """b"" where its bytes cannot be read."""
    size: int
    modified: int
    failure: str = ""
    """Why they cannot be read."""
    was_read: bool = True
    """Whether its bytes were read, or only looked for."""


@dataclass(frozen=True)
class Looks:
    """What the images of N rows are found to be."""

    fingerprints: store.Fingerprints
    failures: store.Failures
    """Row and reason of every row whose image cannot be read."""
    read: NDArray[np.bool_]
    """(N,) whether the bytes were read."""


def look_at(
    regions: Regions,
    known: Mapping[str, Look],
    *,
    threads: int,
    stop: Callable[[], bool] = lambda: False,
) -> Looks:
    """Take the fingerprints of all rows. Threads read side by side, and none reads a file twice.

    Args:
        regions: the rows.
        known: what files were when they were last read, by path. One of the same size and time is not read again.
        threads: how many read.
        stop: asked now and then.

    Raises:
        StoppedError: `stop` said so.
        HfcError: too little memory.
    """
    numbers: dict[str, int] = {}
    file = np.array([numbers.setdefault(path, len(numbers)) for path in regions.path.tolist()], dtype=np.int64)
    looks = list(_all(regions, list(numbers), known, threads, stop))
    digests = np.frombuffer(b"".join(look.sha256 or bytes(32) for look in looks), dtype=np.uint8).reshape(-1, 32)
    size, modified = (np.array([look[i] for look in looks], dtype=np.int64) for i in (1, 2))
    failures = [(row, looks[i].failure) for row, i in enumerate(file.tolist()) if looks[i].failure]
    read = np.array([look.was_read for look in looks], dtype=np.bool_)
    return Looks(store.Fingerprints(digests[file], size[file], modified[file]), failures, read[file])


def recorded_looks(table: store.Table, root: Path) -> dict[str, Look]:
    """Return what a cache knows of files below a folder, by path."""
    prints = table.fingerprints
    if prints is None or str(table.regions.root) != str(root.resolve()):
        return {}
    rows = zip(prints.sha256, prints.size.tolist(), prints.modified.tolist(), strict=True)
    looks = (Look(sha256.tobytes(), size, modified, was_read=False) for sha256, size, modified in rows)
    paths = table.regions.path.tolist()
    pairs = zip(paths, looks, strict=True)
    # A server may be away now, so that nothing else is known of its images.
    return {path: look for path, look in pairs if look.modified != UNKNOWN or (is_url(path) and any(look.sha256))}


def _all(
    regions: Regions, paths: Sequence[str], known: Mapping[str, Look], threads: int, stop: Callable[[], bool]
) -> Iterator[Look]:
    size, least = (REMOTE_SLICE, REMOTE_THREADS) if regions.remote else (SLICE, THREADS)

    def some(start: int) -> list[Look]:
        chosen = [] if stop() else paths[start : start + size]
        return [_look(regions.root, path, regions.remote, known.get(path)) for path in chosen]

    with ThreadPoolExecutor(max(threads, least), thread_name_prefix="look") as pool:
        slices = pool.map(some, range(0, len(paths), size))
        try:
            for looks in steps(slices, "looking at images", -(-len(paths) // size)):
                if stop():
                    raise StoppedError("interrupted while looking at images; nothing was changed")
                yield from looks
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _look(root: Path, path: str, remote: Remote | None, known: Look | None) -> Look:
    now, (size, modified) = time.time_ns(), (UNKNOWN, UNKNOWN)
    if not is_url(path) or (known and known.modified != UNKNOWN):
        size, modified = stamp(root, path, remote)
    if known and UNKNOWN != modified == known.modified and size == known.size:
        return known
    try:
        if remote and is_url(path):  # the answer has the version too, and whoever is asked once more costs time
            content, version = remote.look(path)
            return Look(hashlib.sha256(content).digest(), len(content), version)
        content = read_bytes(root, path, remote)
    except MemoryError as error:
        raise HfcError(f"{named(root, path)}: out of memory while reading it; give fewer --workers") from error
    except UNREADABLE as error:
        if known and isinstance(error, AwayError):
            warn_once(logger, f"{reason(error)}; what is known of such images is kept")
            return known
        return Look(b"", UNKNOWN, UNKNOWN, reason(error))
    if stamp(root, path) != (size, modified) or abs(now - modified) < FRESH_NS:
        modified = UNKNOWN
    return Look(hashlib.sha256(content).digest(), len(content) if size == UNKNOWN else size, modified)


def compare(table: store.Table, root: Path, threads: int = THREADS) -> list[tuple[str, str]]:
    """Compare the file of every row with what the row was made of.

    Args:
        table: rows with fingerprints.
        root: the folder that paths are relative to.
        threads: how many read.

    Returns:
        Id and reason of each row whose file changed or is missing, in order. Of images on the network, which are not
        asked for, a warning gives the count.
    """
    assert table.fingerprints
    files = np.array([not is_url(path) for path in table.regions.path], dtype=np.bool_)
    if not files.all():
        logger.warning("%d images are on the network, and are not compared", (~files).sum())
    regions = replace(table.regions, root=root).take(np.flatnonzero(files))
    recorded = table.fingerprints.sha256[files]
    looks = look_at(regions, {}, threads=threads)
    missing, was_there = dict(looks.failures), recorded.max(axis=1) > 0
    other = (looks.fingerprints.sha256 ^ recorded).any(axis=1)
    return [
        (str(regions.id[row]), missing.get(row) or ("has other bytes" if was_there[row] else "can be read now"))
        for row in np.flatnonzero(other).tolist()
    ]
