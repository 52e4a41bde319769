"""Look at a cache: what it holds, and whether its features are alive.

Dimensions: N regions, V views, D features.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hfc.regions import Regions, Strings
from hfc.store.cache import FeatureStore
from hfc.store.files import Features
from hfc.store.header import KeyFields, Provenance
from hfc.store.table import Rows


@dataclass(frozen=True)
class Crossing:
    """How many sets there are of rows that belong together, and what they cross."""

    sets: int
    rows: int
    """In them."""
    across_splits: int
    """Sets with rows of several splits."""
    of_several_labels: int

    @classmethod
    def count(cls, sets: Sequence[Rows], regions: Regions) -> "Crossing":
        """Count sets of rows. A row whose split or label is unknown crosses nothing by it."""

        def crossing(column: Strings) -> int:
            return sum(len(set(column[rows]) - {""}) > 1 for rows in sets)

        return cls(len(sets), sum(map(len, sets)), crossing(regions.split), crossing(regions.label))


@dataclass(frozen=True)
class Survey:
    """What a cache holds."""

    path: Path
    bytes: int
    shape: tuple[int, int, int]
    dtype: str
    key: str
    key_fields: KeyFields
    config: dict[str, object]
    provenance: Provenance
    features_sha256: str
    splits: dict[str, int]
    """Rows of each split, "" where unknown, with features or without."""
    labels: dict[str, int]
    """Rows of each label, the most frequent first; "" where unknown."""
    failures: list[tuple[str, str]]
    """Id and reason of each row without features."""
    norms: dict[str, float]
    """Euclidean norm of a row's first view: least, median, mean, greatest. Empty if no row has features."""
    mean: float
    """Mean of all features of the rows that have them."""
    zeros: float
    """Share of them that is exactly zero."""
    dead: list[int]
    """Dimensions that are the same number in every row."""
    duplicates: list[list[str]]
    """Ids of rows with bit-equal features, a list for each set, the largest first."""
    copies: list[list[str]]
    """Ids of rows whose images have equal bytes and boxes, likewise."""
    copies_crossing: Crossing | None
    """Of those sets. None: the cache is of schema 1, which does not know its images' bytes."""
    groups: Crossing
    """Of rows that belong together, as the pictures of one product."""


class _Numbers:
    """What is counted of the features, a block after the other."""

    def __init__(self, dim: int) -> None:
        self.low, self.high = np.full(dim, np.inf), np.full(dim, -np.inf)
        self.total, self.zeros, self.count = 0.0, 0, 0
        self.norms: list[NDArray[np.float64]] = [np.empty(0)]
        self.same: defaultdict[bytes, list[int]] = defaultdict(list)
        """Rows by a digest of their features."""

    def add(self, block: Features, rows: NDArray[np.int64], start: int) -> None:
        """Count those rows of a block that have features. `start` is the block's first row in the cache."""
        numbers = block[rows].astype(np.float64)
        self.low = np.minimum(self.low, numbers.min(axis=(0, 1)))
        self.high = np.maximum(self.high, numbers.max(axis=(0, 1)))
        self.total += numbers.sum()
        self.zeros += int((numbers == 0).sum())
        self.count += numbers.size
        self.norms.append(np.linalg.norm(numbers[:, 0], axis=1))
        for row in rows:
            self.same[hashlib.blake2b(block[row].tobytes(), digest_size=16).digest()].append(start + int(row))


def survey(path: Path) -> Survey:
    """Look at a cache once, a block at a time.

    Raises:
        StoreError: it is missing, unfinished or damaged.
    """
    with FeatureStore(path) as store:
        table = store.table()
        numbers = _Numbers(store.shape[2])
        for start, block in store.blocks():
            rows = np.flatnonzero(table.ok[start : start + len(block)])
            if len(rows):
                numbers.add(block, rows, start)
        ids = table.regions.id
        copies = table.copies()
        equal = sorted((rows for rows in numbers.same.values() if len(rows) > 1), key=len, reverse=True)
        return Survey(
            path=path,
            bytes=path.stat().st_size,
            shape=store.shape,
            dtype=str(store.dtype),
            key=store.key,
            key_fields=store.key_fields,
            config=store.config,
            provenance=store.provenance,
            features_sha256=store.features_sha256,
            splits=dict(Counter(table.regions.split.tolist())),
            labels=dict(Counter(table.regions.label.tolist()).most_common()),
            failures=[(str(ids[row]), reason) for row, reason in table.failures],
            norms=_summary(np.concatenate(numbers.norms)),
            mean=numbers.total / numbers.count if numbers.count else 0.0,
            zeros=numbers.zeros / numbers.count if numbers.count else 0.0,
            dead=np.flatnonzero(numbers.low == numbers.high).tolist(),
            duplicates=[[str(ids[row]) for row in rows] for rows in equal],
            copies=[[str(ids[row]) for row in rows] for rows in copies],
            copies_crossing=Crossing.count(copies, table.regions) if table.fingerprints else None,
            groups=Crossing.count(table.groups(), table.regions),
        )


def _summary(values: NDArray[np.float64]) -> dict[str, float]:
    if len(values) == 0:
        return {}
    return {
        "least": float(values.min()),
        "median": float(np.median(values)),
        "mean": float(values.mean()),
        "greatest": float(values.max()),
    }
