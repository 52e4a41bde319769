"""Whether two methods differ on the same images. NumPy and SciPy only. Dimensions: S seeds, N test images.

Each image is a pair: what one method made of it and what the other did.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from hfc.progress import steps
from hfc.report.rows import Bools, Floats, Outcome

DRAWS = 10_000
LEVEL = 0.95  # of an interval
ALPHA = 0.05  # a difference is called significant where the corrected p is below

METHOD = (
    f"Intervals: paired percentile bootstrap, {DRAWS:,} draws of the test images, {LEVEL:.0%}, each by its mean "
    "over a method's seeds. They say how other images would change the difference, not how other seeds would, which "
    "is the ± of the tables. They are not corrected for the number of pairs. p: McNemar's exact test. An image counts "
    "as right where more than half of a method's seeds are right; a tie goes by the first seed. More seeds make a "
    "better majority, so only seeds that both methods have count; where they share none, the first ones, as many of "
    "each. p corrected: by Holm's method, for the number of pairs of methods. Significant: corrected p below "
    f"{ALPHA:g}."
)


@dataclass(frozen=True)
class Interval:
    """A difference of means, and the interval where other images would put it."""

    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class McNemar:
    """McNemar's test: the images on which one of two methods alone is right, and p."""

    only_first: int
    only_second: int
    p: float


@dataclass(frozen=True, eq=False)
class Difference:
    """The difference of two methods on the same images; positive: the first is better."""

    first: Outcome
    second: Outcome
    intervals: dict[str, Interval]
    """By metric, as fractions: top{k} and, where both have one tree, hF."""
    test: McNemar
    """The test of top-1; seeds vote by majority."""
    by_seed: dict[int, float]
    """p of McNemar's test of each seed that both have, not corrected."""
    p: float
    """The test's p, corrected for the number of comparisons."""

    @property
    def significant(self) -> bool:
        """Whether the corrected test says so, in the direction of the difference."""
        sides = self.test.only_first - self.test.only_second
        return self.p < ALPHA and sides * self.intervals["top1"].difference > 0


def bootstrap(scores: NDArray[np.floating], *, draws: int = DRAWS, level: float = LEVEL, seed: int = 0) -> Interval:
    """Compute the percentile interval of a mean over images drawn with replacement.

    A mean depends only on how often each distinct score is drawn, and those counts are multinomial: the same
    distribution as drawing N images, at a cost that does not grow with N.

    Args:
        scores: (N,) of each image, here the difference of two methods.
        draws: how often.
        level: share of the draws within the interval.
        seed: the same seed gives the same interval.
    """
    values, counts = np.unique(np.round(scores.astype(np.float64), 12), return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(scores), counts / len(scores), size=draws)
    low, high = np.quantile(drawn @ values / len(scores), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(scores.mean()), float(low), float(high))


def mcnemar(first: Bools, second: Bools) -> McNemar:
    """Compute McNemar's exact two-sided test. Where both are as good, images that differ fall like a fair coin.

    Args:
        first, second: (N,) whether each is right (McNemar 1947).
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    tosses = only_first + only_second
    return McNemar(only_first, only_second, float(binomtest(only_first, tosses).pvalue) if tosses else 1.0)


def holm(p: Sequence[float]) -> list[float]:
    """Correct p by Holm's method (1979). The chance of any false finding stays below the level."""
    order = np.argsort(p, kind="stable")
    scaled = np.array(p, dtype=np.float64)[order] * np.arange(len(p), 0, -1)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return [float(value) for value in corrected]


def majority(correct: Bools) -> Bools:
    """Decide by majority of the seeds, (S, N), which images are right, (N,). Ties go by the first seed."""
    twice = 2 * correct.sum(axis=0)
    right: Bools = np.where(twice == len(correct), correct[0], twice > len(correct))
    return right


def differences(pairs: Sequence[tuple[Outcome, Outcome]]) -> list[Difference]:
    """Compare pairs of rows that share their test images. P is corrected over all of them."""
    uncorrected = [_difference(first, second) for first, second in steps(pairs, "comparing methods")]
    corrected = holm([difference.test.p for difference in uncorrected])
    return [replace(difference, p=p) for difference, p in zip(uncorrected, corrected, strict=True)]


def all_pairs(outcomes: Sequence[Outcome]) -> list[Difference]:
    """Compare every pair of rows; the one of the higher top-1 is first."""
    return differences(list(combinations(outcomes, 2)))


def _difference(first: Outcome, second: Outcome) -> Difference:
    def mean_difference(a: NDArray[np.generic], b: NDArray[np.generic]) -> Floats:
        gap: Floats = a.mean(axis=0) - b.mean(axis=0)
        return gap

    shared = [k for k in first.row.first.settings.topk if k in second.row.first.settings.topk]
    intervals = {f"top{k}": bootstrap(mean_difference(first.rank < k, second.rank < k)) for k in sorted({1, *shared})}
    if first.tree.digest == second.tree.digest:
        # leaves lie at one depth, so hF is the share of right nodes on the path
        intervals["hF"] = bootstrap(mean_difference(first.on_path.mean(axis=2), second.on_path.mean(axis=2)))
    seeds = [seed for seed in first.row.seeds if seed in second.row.seeds]
    a, b = _in_step(first, second, seeds)
    by_seed = {seed: mcnemar(a[i], b[i]).p for i, seed in enumerate(seeds)}
    test = mcnemar(majority(a), majority(b))
    return Difference(first, second, intervals, test, by_seed, test.p)


def _in_step(first: Outcome, second: Outcome, seeds: Sequence[int]) -> tuple[Bools, Bools]:
    """Pair the seeds of two rows: (S, N) right answers of each. Without shared seeds, the first ones pair."""
    fewest = min(len(first.row.seeds), len(second.row.seeds))
    chosen = [[o.row.seeds.index(s) for s in seeds] or list(range(fewest)) for o in (first, second)]
    return first.correct[chosen[0]], second.correct[chosen[1]]
