"""A precision that answers keep with 95% confidence, and the threshold that keeps it.

What exactly is promised, and why it holds, is in notebooks/promise.md.

Dimensions: n rows, H levels, K thresholds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hfc.store.records import Record

CONFIDENCE = 0.95  # of a promise, over the draw of the rows that prove it
TARGETS = (0.8, 0.9, 0.95, 0.99)  # that reports and exports list
MOST = 100  # thresholds that are looked at
MARGIN = 3
"""How many times the answers that prove a target without a mistake its proof begins with."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Numbers = Ints | NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True)
class Counts(Record):
    """How many answers some rows get at each threshold, by the level where they end; the root's are none."""

    rows: int
    given: tuple[tuple[int, ...], ...]
    """(K, H)."""
    right: tuple[tuple[int, ...], ...]
    """(K, H) those of them that are on the true path; what a label does not say counts as wrong."""

    def sums(self) -> tuple[Ints, Ints]:
        """(K,) answers below the root, and how many of them are right."""
        return np.array(self.given).sum(axis=1), np.array(self.right).sum(axis=1)


class Kept(NamedTuple):
    """The answers that keep a promise."""

    place: int
    """Of the threshold, among `Promise.thresholds`."""
    threshold: float
    """The share that a node has at least to be an answer."""
    least: float
    """The share of right answers that it would prove were it the only threshold."""


@dataclass(frozen=True, kw_only=True)
class Promise(Record):
    """What the rows set aside by `promise_share` prove of a run's answers."""

    confidence: float
    thresholds: tuple[float, ...]
    """(K,) strict to loose; the last is 0, where every answer is a leaf."""
    chosen: Counts
    """Of validation, whose rows picked epoch, temperature and thresholds: how many are answered says where to begin."""
    proof: Counts
    """Of the rows set aside."""
    test: Counts

    @cached_property
    def least(self) -> Floats:
        """(K,) the share of right answers that each threshold alone would prove."""
        given, right = self.proof.sums()
        return least_right(right, given, self.confidence)

    def start(self, target: float) -> int:
        """Choose the threshold that the proof of a target begins with.

        It is the strictest that lets expect three times the answers that prove the target without a mistake, but no
        more than half of the rows unless fewer cannot prove it. The rows that prove have no part in the choice.
        """
        enough = needed(target, self.confidence)
        wanted = max(enough, min(MARGIN * enough, self.proof.rows / 2))
        expected = self.chosen.sums()[0] * self.proof.rows / max(self.chosen.rows, 1)
        enough_given = np.flatnonzero(expected >= wanted)
        return int(enough_given[0]) if len(enough_given) else len(self.thresholds) - 1

    def most(self, target: float) -> float:
        """Find the greatest share below a target, in steps of 0.001, that can be promised; 0 where none can."""
        steps = (step / 1000 for step in range(int(1000 * target), 0, -1))
        return next((step for step in steps if self.keep(step)), 0.0)

    def listed(self) -> dict[float, Kept]:
        """Find what keeps each of TARGETS; those that cannot be promised are left out."""
        return {target: kept for target in TARGETS if (kept := self.keep(target))}

    def listed_plain(self) -> dict[str, object]:
        """Write for other programs what keeps each of TARGETS: the least share of a node that is answered."""
        thresholds = {f"{target:g}": kept.threshold for target, kept in self.listed().items()}
        return {"confidence": self.confidence, "rows": self.proof.rows, "thresholds": thresholds}

    def keep(self, target: float) -> Kept | None:
        """Find the threshold that keeps a promise and answers most.

        Fixed-sequence testing (Angelopoulos et al. 2021, Learn then test): thresholds are tested from the start
        downwards until the first that does not prove the target. However many are tested, a false one is taken with
        probability 1 − confidence at most.

        Args:
            target: the share of right answers.

        Returns:
            None where not even the start proves it.
        """
        start = self.start(target)
        failed = np.flatnonzero(self.least[start:] < target)
        place = start + int(failed[0]) - 1 if len(failed) else len(self.thresholds) - 1
        return Kept(place, self.thresholds[place], float(self.least[place])) if place >= start else None


def least_right(right: Numbers, given: Numbers, confidence: float) -> Floats:
    """Compute the lower limit of Clopper and Pearson (1934) for a share, one-sided.

    Args:
        right: (K,) right answers, of which there may be fractions.
        given: (K,) answers.
        confidence: that the true share is not below the limit.

    Returns:
        (K,) limits; 0 where nothing is right.
    """
    from scipy.special import betaincinv  # on use: only a promise needs it

    right, given = right.astype(np.float64), given.astype(np.float64)
    limits = betaincinv(np.maximum(right, np.finfo(np.float64).tiny), given - right + 1, 1 - confidence)
    return np.where(right > 0, limits, 0.0)


def needed(target: float, confidence: float = CONFIDENCE) -> int:
    """Count the answers that prove a target where none of them is wrong; with fewer nothing does."""
    return math.ceil(math.log(1 - confidence) / math.log(target) - 1e-9)


def thresholds_of(along: Floats) -> tuple[float, ...]:
    """Choose thresholds, strict to loose, from (n, H) shares: about as many answers change at each. The last is 0."""
    values = along[np.isfinite(along)]
    if not len(values):
        return (0.0,)
    steps = np.quantile(values, np.linspace(0, 1, MOST), method="lower")
    return (*(float(value) for value in np.unique(steps)[::-1] if value > 0), 0.0)


def count(along: Floats, reach: Ints, thresholds: Sequence[float]) -> Counts:
    """Count answers that climb to the deepest node of a threshold.

    Args:
        along: (n, H) shares of the nodes on the path to the best leaf, which fall; −∞ below that leaf.
        reach: (n,) how many nodes of the path are surely right.
        thresholds: (K,) of a node's share.
    """
    ascending, size = np.array(thresholds)[::-1], len(thresholds)
    # The first threshold that the node of a level reaches; behind all of them where none is.
    first = size - np.searchsorted(ascending, along, side="right")
    given: list[list[int]] = []
    right: list[list[int]] = []
    for h in range(along.shape[1]):
        # An answer ends on a level from the level's threshold on, up to that of the next one.
        ends = (first[:, h], first[:, h + 1] if h + 1 < along.shape[1] else np.full(len(along), size))
        for rows, columns in ((np.ones(len(reach), dtype=np.bool_), given), (reach > h, right)):
            begun, ended = (np.bincount(end[rows], minlength=size + 1)[:size].cumsum() for end in ends)
            columns.append((begun - ended).tolist())
    table, hits = (tuple(zip(*columns, strict=True)) for columns in (given, right))
    return Counts(rows=len(along), given=table, right=hits)
