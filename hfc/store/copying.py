"""Copy rows of sources into a new cache, in any order; check that they arrived.

Dimensions: N rows of the cache, n rows of a source, V views, D features.
"""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import h5py
import numpy as np

from hfc.errors import StoreError
from hfc.progress import steps
from hfc.store.files import CHUNK_ROWS, READ_ERRORS, Features, ahead, in_memory, layout, view
from hfc.store.fingerprints import Digests
from hfc.store.shards import NOT_GIVEN_BACK
from hfc.store.sources import ROW_DIGEST_BYTES, Source, row_digests
from hfc.store.table import Rows

WINDOW_BYTES = 2**28  # of rows that are put in order in memory at once
BLOCK_ROWS = 16 * CHUNK_ROWS  # read back at once
NO_SOURCE = -1


@dataclass(frozen=True, eq=False)
class Origin:
    """Where each row of a cache comes from."""

    source: Rows
    """(N,) number of its source; NO_SOURCE: it has no features, and becomes zeros."""
    row: Rows
    """(N,) its row there."""

    def by_source(self) -> Iterator[tuple[int, Rows]]:
        """Yield the number of each source that is used, and the rows it has."""
        order = np.argsort(self.source, kind="stable")
        numbers, starts = np.unique(self.source[order], return_index=True)
        for number, rows in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
            if number != NO_SOURCE:
                yield number, rows


def copy_rows(features: h5py.Dataset, sources: Sequence[Source], origin: Origin) -> None:
    """Write the features of all rows. `read_back` looks whether they arrived.

    Chunks that a source has like this are copied with their checksums. Other rows are put in order in memory, so many
    at a time, each time by one pass through the sources' chunks that have some of them.
    """
    whole, parts = _chunks(features, sources, origin)
    for number, starts in steps(ahead(_in_memory(sources, whole)), "copying features", len(whole)):
        with sources[number].features() as source:
            for start in starts:
                filters, chunk = sources[number].read_chunk(source, int(origin.row[start]))
                features.id.write_direct_chunk((start, 0, 0), chunk, filters)
    size = max(WINDOW_BYTES // (features.dtype.itemsize * int(np.prod(features.chunks))), 1)
    windows = [parts[i : i + size] for i in range(0, len(parts), size)]
    for window in steps(windows, "putting features in order") if windows else ():
        rows = np.concatenate([np.arange(part.start, part.stop) for part in window])
        block = _gather(sources, origin.source[rows], origin.row[rows], features)
        for part in window:
            features[part.start : part.stop], block = block[: len(part)], block[len(part) :]


def _chunks(
    features: h5py.Dataset, sources: Sequence[Source], origin: Origin
) -> tuple[list[tuple[int, list[int]]], list[range]]:
    """Sort the cache's chunks.

    Returns:
        Of each source in turn, its number and the first rows of the chunks that it has like this; and the rows of all
        other chunks.
    """
    count, size, own = len(features), features.chunks[0], layout(features)
    starts = np.arange(0, count, size)
    first = np.repeat(starts, size)[:count]
    follows = (origin.source == origin.source[first]) & (origin.row - origin.row[first] == np.arange(count) - first)
    whole: list[tuple[int, int]] = []
    parts: list[range] = []
    for start, in_order in zip(starts.tolist(), np.logical_and.reduceat(follows, starts).tolist(), strict=True):
        number, row, rows = int(origin.source[start]), int(origin.row[start]), range(start, min(start + size, count))
        like = in_order and number != NO_SOURCE and row % size == 0 and sources[number].layout == own
        if like and min(size, sources[number].shape[0] - row) == len(rows):  # no other row follows in that chunk
            whole.append((number, start))
        else:
            parts.append(rows)
    return [(number, [start for _, start in group]) for number, group in groupby(whole, lambda pair: pair[0])], parts


def _in_memory(sources: Sequence[Source], whole: list[tuple[int, list[int]]]) -> Iterator[tuple[int, list[int]]]:
    """Read the files of shards into the system's memory, ahead of their use."""
    for number, starts in whole:
        if sources[number].store is None:
            in_memory(sources[number].path)
        yield number, starts


def _gather(sources: Sequence[Source], source: Rows, row: Rows, like: h5py.Dataset) -> Features:
    """Read (n, V, D) features of some rows of sources. Every chunk of a source is read once."""
    block: Features = np.zeros((len(row), *like.shape[1:]), dtype=like.dtype)
    for number, places in Origin(source, row).by_source():
        places = places[np.argsort(row[places], kind="stable")]
        with sources[number].features() as features:
            chunks = row[places] // features.chunks[0]
            for some in np.split(places, np.flatnonzero(np.diff(chunks)) + 1):
                first, last = int(row[some[0]]), int(row[some[-1]])
                block[some] = sources[number].read(features, first, last + 1)[row[some] - first]
    return block


@dataclass(frozen=True, eq=False)
class Expected:
    """What a new cache must give back."""

    spans: list[tuple[range, Source | None]]
    """All rows in order, cut where a source is all there, in its own order: its checksum must come out then."""
    digests: Digests
    """(N, 16) `row_digests` of all other rows."""
    used: list[Source]

    @classmethod
    def derive(cls, sources: Sequence[Source], origin: Origin, zeros: Features) -> "Expected":
        """Work it out. Sources that are not all there in order are read for it, and checked.

        Args:
            sources: the sources.
            origin: where each row comes from.
            zeros: (1, V, D), the features of a row without any.
        """
        digests = np.empty((len(origin.row), ROW_DIGEST_BYTES), dtype=np.uint8)
        digests[origin.source == NO_SOURCE] = row_digests(zeros)
        runs: list[tuple[range, Source | None]] = []
        used = []
        for number, rows in origin.by_source():
            source = sources[number]
            used.append(source)
            if origin.row[rows].tolist() == list(range(source.shape[0])) and rows[-1] - rows[0] == len(rows) - 1:
                runs.append((range(int(rows[0]), int(rows[-1]) + 1), source))
            else:
                digests[rows] = source.row_digests()[origin.row[rows]]
        return cls(_with_gaps(sorted(runs, key=lambda run: run[0].start), len(origin.row)), digests, used)


def _with_gaps(runs: list[tuple[range, Source | None]], count: int) -> list[tuple[range, Source | None]]:
    """Put the rows between the runs beside them."""
    spans: list[tuple[range, Source | None]] = []
    for run, source in [*runs, (range(count, count), None)]:
        before = spans[-1][0].stop if spans else 0
        spans += [(range(before, run.start), None)] if before < run.start else []
        spans += [(run, source)] if run else []
    return spans


def read_back(path: Path, partial: Path, expected: Expected) -> str:
    """Read all features of a new cache, and return their SHA-256.

    Raises:
        StoreError: they are not what was expected. Where a source that was damaged or replaced is why, it is that
            source's error.
    """

    for used in expected.used:
        used.refuse_change()

    def blocks() -> Iterator[tuple[Source | None, range, bool, Features]]:
        try:
            with view(partial) as file:
                for span, source in expected.spans:
                    for start in span[::BLOCK_ROWS]:
                        rows = range(start, min(start + BLOCK_ROWS, span.stop))
                        yield source, rows, rows.stop == span.stop, file["features"][start : rows.stop]
        except READ_ERRORS as error:
            raise _not_given_back(path, expected.used) from error

    whole, part = hashlib.sha256(), hashlib.sha256()
    total = sum(-(-len(span) // BLOCK_ROWS) for span, _ in expected.spans)
    with ThreadPoolExecutor(1, "hash") as hashes:
        for source, rows, last, block in steps(ahead(blocks()), "checking the cache", total):
            hashing = hashes.submit(whole.update, block.data.cast("B"))
            if source is None:
                same = bool((row_digests(block) == expected.digests[rows.start : rows.stop]).all())
            else:
                part.update(block.data.cast("B"))
                same = not last or part.hexdigest() == source.features_sha256
                part = hashlib.sha256() if last else part
            if not same:
                raise _not_given_back(path, expected.used if source is None else [source])
            hashing.result()
    return whole.hexdigest()


def _not_given_back(path: Path, sources: Sequence[Source]) -> StoreError:
    """Make the error for features that did not arrive. Where a damaged source is why, it raises that source's error."""
    for source in sources:
        source.check()
    return StoreError(f"{path}: {NOT_GIVEN_BACK}")
