"""Find twins: rows whose features are nearly the same.

Dimensions: N regions, V views, D features, S features of a shortened row, P pairs.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from hfc.progress import steps
from hfc.store.cache import FeatureStore
from hfc.store.files import CHUNK_ROWS, Features
from hfc.store.table import Table

Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]

TILE_ROWS = 8192  # compared with all later rows at once: 64 MiB of 2048 numbers
SAMPLE_ROWS = 1024  # from which the directions of a shortened row are learnt
KEPT = 0.6  # of the variance, in a shortened row: less spares products, and lets more pairs pass
PAIR_ROWS = 512  # pairs whose cosine is computed at once
SLACK = 1e-3  # of a bound in float32: a length near 0 is the root of a difference
DIGITS = 6  # of a cosine; equal rows then have 1
MOST_EDGES = 1_000_000  # pairs kept until their sets are joined
NONE = -1


@dataclass(frozen=True, eq=False)
class Nearest:
    """The nearest twin of each row."""

    row: Rows
    """(N,) the twin; NONE where there is none."""
    cosine: NDArray[np.float64]
    """(N,) its cosine; of several as near, the twin is the first row."""

    @classmethod
    def empty(cls, count: int) -> "Nearest":
        """Start without a twin for any row."""
        return cls(np.full(count, NONE, dtype=np.int64), np.full(count, -np.inf))

    def add(self, rows: Rows, twins: Rows, cosines: NDArray[np.float64]) -> None:
        """Take up pairs, (P,) each: whichever twin is nearer than that of before."""
        order = np.lexsort((twins, -cosines, rows))
        first = np.r_[True, np.diff(rows[order]) > 0] if len(rows) else np.zeros(0, dtype=np.bool_)
        row, twin, cosine = rows[order][first], twins[order][first], cosines[order][first]
        nearer = (cosine > self.cosine[row]) | ((cosine == self.cosine[row]) & (twin < self.row[row]))
        self.row[row[nearer]], self.cosine[row[nearer]] = twin[nearer], cosine[nearer]


@dataclass(frozen=True, eq=False)
class Twins:
    """The twins of a cache."""

    table: Table
    """Its rows, with the labels and splits by which crossing is counted."""
    features_sha256: str
    source: Path
    """The data set that the cache was made from."""
    min_cosine: float
    pairs: int
    """How many pairs of rows are twins."""
    sets: tuple[Rows, ...]
    """Rows that twins join, each set in order; the largest set first."""
    nearest: Nearest
    nearest_in_training: Nearest
    """The same among the training rows alone."""

    @property
    def rows(self) -> int:
        """How many rows have a twin."""
        return sum(map(len, self.sets))

    @property
    def sets_across_splits(self) -> int:
        """How many sets have rows of several splits."""
        return sum(len(set(self.table.regions.split[rows])) > 1 for rows in self.sets)

    @property
    def sets_of_several_labels(self) -> int:
        """How many sets bear several labels."""
        return sum(len(set(self.table.regions.label[rows]) - {""}) > 1 for rows in self.sets)

    def with_twin_in_training(self, split: str) -> tuple[int, int]:
        """Count the rows of a split that have a twin in training, and all.

        Rows without features do not count.
        """
        rows = self.table.ok & (self.table.regions.split == split)
        return int((rows & (self.nearest_in_training.row != NONE)).sum()), int(rows.sum())


@dataclass(frozen=True, eq=False)
class _Space:
    """How features become vectors whose product is their cosine, and short ones that bound it."""

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    """(D,) 1 / standard deviation; 0 for dimensions that never change."""
    directions: Vectors
    """(D + 1, S) orthonormal columns."""

    def unit(self, block: Features) -> Vectors:
        """Standardise (n, V, D) features to (n, D + 1) vectors of length 1.

        Views are averaged first. Where a row is the mean itself, the last number is 1 and all others are 0, so that
        such rows are twins of each other.
        """
        vectors = _standardised(_mean_view(block), self.mean, self.scale)
        norm = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = np.divide(vectors, norm, out=np.zeros_like(vectors), where=norm > 0)
        return np.concatenate([vectors, norm == 0], axis=1, dtype=np.float32)

    def short(self, units: Vectors) -> Vectors:
        """Shorten unit vectors to (n, S + 1) ones. Their product is no less than the cosine.

        The last number is the length of what is left out: by Cauchy and Schwarz the product of the parts left out is
        at most that of their lengths.
        """
        kept = units @ self.directions
        rest = np.sqrt(np.maximum(1 - (kept * kept).sum(axis=1, keepdims=True), 0))
        return np.concatenate([kept, rest], axis=1)


def find_twins(path: Path, min_cosine: float, table: Table | None = None, *, tile_rows: int = TILE_ROWS) -> Twins:
    """Compare every row of a cache with every other.

    Two rows are twins if the cosine of their standardised features is at least `min_cosine`. The features are
    streamed, so memory does not grow with their number.

    Args:
        path: the cache.
        min_cosine: above 0, at most 1.
        table: its rows with other labels or splits; None: as the cache has them.
        tile_rows: how many rows stay in memory, a multiple of CHUNK_ROWS.

    Raises:
        StoreError: the cache is missing, unfinished or damaged.
    """
    with FeatureStore(path) as store:
        table = table or store.table()
        search = _Search(table, min_cosine)
        space = _learn(store, table.ok)
        for start in steps(range(0, store.shape[0], tile_rows), "comparing rows"):
            search.compare(store, space, start, start + tile_rows)
        return search.result(store)


class _Search:
    """What has been seen of the twins."""

    def __init__(self, table: Table, min_cosine: float) -> None:
        self.table, self.min_cosine = table, min_cosine
        count = len(table.ok)
        self.training = table.regions.split == "train"
        self.pairs = 0
        self.member: Rows = np.arange(count)
        """(N,) a row of the set that each row is in."""
        self.nearest, self.nearest_in_training = Nearest.empty(count), Nearest.empty(count)

    def compare(self, store: FeatureStore, space: _Space, start: int, stop: int) -> None:
        """Compare the rows from start to stop with one another and with all later ones."""
        rows, units = _tile(_units(store, space, self.table, begin) for begin in _starts(store, start, stop))
        short = space.short(units)
        edges = [(self.member[:0], self.member[:0])]
        for begin in _starts(store, start, store.shape[0]):
            later_rows, later = _units(store, space, self.table, begin)
            bound = short @ space.short(later).T
            one, other = np.divmod(np.flatnonzero(bound >= self.min_cosine - SLACK), max(len(later), 1))
            after = rows[one] < later_rows[other]
            for a, b, cosines in _cosines(units, later, one[after], other[after]):
                kept = cosines >= self.min_cosine
                edges.append((rows[a[kept]], later_rows[b[kept]]))
                self._add(*edges[-1], cosines[kept])
            if sum(len(a) for a, _ in edges) > MOST_EDGES:
                edges = [self._join(edges)]
        self._join(edges)

    def _add(self, rows: Rows, twins: Rows, cosines: NDArray[np.float64]) -> None:
        self.pairs += len(rows)
        for one, other in ((rows, twins), (twins, rows)):
            self.nearest.add(one, other, cosines)
            trained = self.training[other]
            self.nearest_in_training.add(one[trained], other[trained], cosines[trained])

    def _join(self, edges: list[tuple[Rows, Rows]]) -> tuple[Rows, Rows]:
        """Join the sets of pairs of rows. Returns no pairs."""
        count = len(self.member)
        ones = np.concatenate([np.arange(count), *(a for a, _ in edges)])
        others = np.concatenate([self.member, *(b for _, b in edges)])
        graph = coo_array((np.ones(len(ones), dtype=np.bool_), (ones, others)), shape=(count, count))
        _, names = connected_components(graph, directed=False)
        self.member = np.unique(names, return_index=True)[1][names]
        return ones[:0], others[:0]

    def result(self, store: FeatureStore) -> Twins:
        """Put the twins together."""
        order = np.argsort(self.member, kind="stable")
        ends = np.flatnonzero(np.diff(self.member[order])) + 1
        sets = sorted((rows for rows in np.split(order, ends) if len(rows) > 1), key=len, reverse=True)
        return Twins(
            self.table,
            store.features_sha256,
            Path(store.provenance.get("dataset", {}).get("source", store.path)),
            self.min_cosine,
            self.pairs,
            tuple(sets),
            self.nearest,
            self.nearest_in_training,
        )


def _starts(store: FeatureStore, start: int, stop: int) -> range:
    return range(start, min(stop, store.shape[0]), CHUNK_ROWS)


def _units(store: FeatureStore, space: _Space, table: Table, start: int) -> tuple[Rows, Vectors]:
    """Read the rows of a block that have features, and their unit vectors."""
    block = store.block(start)
    rows = np.flatnonzero(table.ok[start : start + len(block)])
    return start + rows, space.unit(block[rows])


def _tile(blocks: Iterable[tuple[Rows, Vectors]]) -> tuple[Rows, Vectors]:
    """Join the rows of blocks, and their vectors. The blocks themselves are freed."""
    rows, units = zip(*blocks, strict=True)
    return np.concatenate(rows), np.concatenate(units)


def _cosines(
    units: Vectors, later: Vectors, one: Rows, other: Rows
) -> Iterator[tuple[Rows, Rows, NDArray[np.float64]]]:
    """Compute the cosines of pairs of rows, some at a time. A row's result depends on no other row."""
    for start in range(0, len(one), PAIR_ROWS):
        a, b = one[start : start + PAIR_ROWS], other[start : start + PAIR_ROWS]
        yield a, b, np.round((units[a].astype(np.float64) * later[b]).sum(axis=1), DIGITS)


def _learn(store: FeatureStore, ok: NDArray[np.bool_]) -> _Space:
    """Read every feature once, checked, and learn how to standardise and shorten it."""
    dim = store.shape[2]
    total, squares = np.zeros(dim), np.zeros(dim)
    every = -(-store.shape[0] // SAMPLE_ROWS)
    sample = [np.empty((0, dim))]
    for start, block in store.blocks():
        rows = np.flatnonzero(ok[start : start + len(block)])
        numbers = _mean_view(block[rows])
        total += numbers.sum(axis=0)
        squares += (numbers * numbers).sum(axis=0)
        sample.append(numbers[(start + rows) % every == 0])
    count = max(int(ok.sum()), 1)
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    changes = deviation > 1e-6 * np.abs(mean)
    scale = np.divide(1, deviation, out=np.zeros(dim), where=changes)
    return _Space(mean, scale, _directions(_standardised(np.concatenate(sample), mean, scale)))


def _directions(sample: NDArray[np.float64]) -> Vectors:
    """Find (D + 1, S) orthonormal directions that hold most of a sample's variance.

    Whatever they are, `_Space.short` bounds the cosine; better ones let fewer pairs pass.
    """
    variance, axes = np.linalg.eigh(sample @ sample.T)  # of few rows this is faster than of many features
    variance, axes = variance[::-1], axes[:, ::-1]
    held = np.cumsum(variance) < KEPT * variance.sum()
    size = min(int(held.sum()) + 1, int((variance > 1e-6 * variance.max(initial=0)).sum()))
    directions = np.zeros((sample.shape[1] + 1, size), dtype=np.float32)  # the last number is among what is left out
    directions[:-1] = sample.T @ (axes[:, :size] / np.sqrt(variance[:size]))
    return directions


def _mean_view(block: Features) -> NDArray[np.float64]:
    mean: NDArray[np.float64] = block.astype(np.float64).mean(axis=1)
    return mean


def _standardised(
    numbers: NDArray[np.float64], mean: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    standardised: NDArray[np.float64] = (numbers - mean) * scale
    return standardised
