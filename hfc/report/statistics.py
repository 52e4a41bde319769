"""Whether two methods differ on the same images. NumPy and SciPy only. Dimensions: S seeds, N test images.

Each image is a pair: what one method made of it and what the other did. Images of one group stay together.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from hfc.progress import steps
from hfc.report.grouped import Groups, Interval, drawn_means, sign_flip
from hfc.report.rows import Bools, Floats, Outcome

DRAWS = 10_000
LEVEL = 0.95  # of an interval
ALPHA = 0.05  # a difference is called significant where the corrected p is below

MCNEMAR, SIGN_FLIP = "McNemar's exact test", "exact sign-flip test"

Drawn = Mapping[Outcome, Mapping[str, Floats]]
"""(draws,) means of rows whose images come in groups, by metric."""


@dataclass(frozen=True)
class PairedTest:
    """A test of two methods: on how many images one is right in more seeds than the other, and p."""

    only_first: int
    only_second: int
    p: float
    name: str


@dataclass(frozen=True, eq=False)
class Difference:
    """The difference of two methods on the same images; positive: the first is better."""

    first: Outcome
    second: Outcome
    intervals: dict[str, Interval]
    """By metric, as fractions: top{k} and, where both have one tree, hF."""
    test: PairedTest
    """The test of top-1, over the seeds that both have."""
    by_seed: dict[int, float]
    """p of the test of each seed that both have, not corrected."""
    p: float
    """The test's p, corrected for the number of comparisons."""

    @property
    def significant(self) -> bool:
        """Whether the corrected test says so, in the direction of the difference."""
        sides = self.test.only_first - self.test.only_second
        return self.p < ALPHA and sides * self.intervals["top1"].difference > 0


def method(differences: Iterable[Difference]) -> str:
    """Say how differences were computed, and what they mean."""
    drawn, units = "each", "images"
    if any(difference.first.groups.shared for difference in differences):
        drawn, units = "in whole groups with all their images, each image", "groups"
    return (
        f"Intervals: paired percentile bootstrap, {DRAWS:,} draws of the test images, {LEVEL:.0%}, {drawn} by its mean "
        f"over a method's seeds. They say how other {units} would change the difference, not how other seeds would, "
        f"which is the ± of the tables. They are not corrected for the number of pairs. {about_p(units)} p corrected: "
        f"by Holm's method, for the number of pairs of methods. Significant: corrected p below {ALPHA:g}."
    )


def about_p(units: str) -> str:
    """Say what p is, over units: images or groups."""
    return (
        f"p: {SIGN_FLIP} over {units}, of the sums of right answers over the seeds that both methods have; where they "
        f"share none, over the first ones, as many of each. For one seed, and images by themselves, it is {MCNEMAR}."
    )


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
    return _percentiles(float(scores.mean()), drawn @ values / len(scores), level)


def _percentiles(difference: float, draws: Floats, level: float) -> Interval:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(difference, float(low), float(high))


def paired_test(first: Bools, second: Bools, groups: Groups | None = None) -> PairedTest:
    """Test whether two methods are as good, exactly and two-sided.

    It is the sign-flip test of what one has more right answers of, all seeds added up, as the difference of their means
    has it. For one seed and images by themselves it is McNemar's (1947): images that differ fall like a fair coin.

    Args:
        first, second: (S, N) whether each is right, with each seed.
        groups: of the images; None: each is one by itself.
    """
    gains = first.sum(axis=0, dtype=np.int64) - second.sum(axis=0, dtype=np.int64)
    only_first, only_second = int((gains > 0).sum()), int((gains < 0).sum())
    if groups and groups.shared:
        together = np.bincount(groups.number, gains).astype(np.int64)
        return PairedTest(only_first, only_second, sign_flip(together), SIGN_FLIP)
    return PairedTest(only_first, only_second, sign_flip(gains), SIGN_FLIP if len(first) > 1 else MCNEMAR)


def holm(p: Sequence[float]) -> list[float]:
    """Correct p by Holm's method (1979). The chance of any false finding stays below the level."""
    order = np.argsort(p, kind="stable")
    scaled = np.array(p, dtype=np.float64)[order] * np.arange(len(p), 0, -1)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return [float(value) for value in corrected]


def differences(pairs: Sequence[tuple[Outcome, Outcome]]) -> list[Difference]:
    """Compare pairs of rows that share their test images. P is corrected over all of them."""
    drawn = _drawn(dict.fromkeys(outcome for pair in pairs for outcome in pair if outcome.groups.shared))
    uncorrected = [_difference(first, second, drawn) for first, second in steps(pairs, "comparing methods")]
    corrected = holm([difference.test.p for difference in uncorrected])
    return [replace(difference, p=p) for difference, p in zip(uncorrected, corrected, strict=True)]


def beside(reference: Outcome, pairs: Iterable[Difference]) -> list[tuple[Outcome, Interval, Difference]]:
    """List the rows that are compared with one, and their top-1 minus its."""
    rows = []
    for pair in pairs:
        gap = pair.intervals["top1"]
        if pair.first is reference:
            rows.append((pair.second, Interval(-gap.difference, -gap.high, -gap.low), pair))
        elif pair.second is reference:
            rows.append((pair.first, gap, pair))
    return rows


def all_pairs(outcomes: Sequence[Outcome]) -> list[Difference]:
    """Compare every pair of rows; the one of the higher top-1 is first."""
    return differences(list(combinations(outcomes, 2)))


def _drawn(outcomes: Iterable[Outcome]) -> Drawn:
    """Draw groups for some rows; rows that share their test images share the draws."""
    same: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        same.setdefault(outcome.predictions[0].digest, []).append(outcome)
    drawn: dict[Outcome, dict[str, Floats]] = {}
    for alike in same.values():
        scores = {(outcome, metric): score for outcome in alike for metric, score in _scores(outcome).items()}
        means = drawn_means(np.stack(list(scores.values())), alike[0].groups, draws=DRAWS)
        for (outcome, metric), mean in zip(scores, means.T, strict=True):
            drawn.setdefault(outcome, {})[metric] = mean
    return drawn


def _scores(outcome: Outcome) -> dict[str, Floats]:
    """Score each test image by each metric, (N,), as the mean over seeds."""
    topk = sorted({1, *outcome.row.first.settings.topk})
    return {**{f"top{k}": (outcome.rank < k).mean(axis=0) for k in topk}, "hF": _hf_scores(outcome).mean(axis=0)}


def _hf_scores(outcome: Outcome) -> Floats:
    """Score each test image by hF, (S, N); the mean over images is hF itself.

    Where all leaves lie at one depth, it is the share of right nodes on the path. Else hF is a ratio of two sums over
    images, 2 Σ|α∩β| / Σ(|α|+|β|), and each image has its linear part in it (Davison & Hinkley 1997, section 2.7).
    """
    tree = outcome.tree
    if tree.even:
        shares: Floats = outcome.on_path.mean(axis=2)
        return shares
    shared, nodes = 2 * outcome.on_path.sum(axis=2), tree.depths[outcome.predicted] + tree.depths[outcome.target]
    whole = shared.sum(axis=1, keepdims=True) / nodes.sum(axis=1, keepdims=True)
    scores: Floats = whole + (shared - whole * nodes) / nodes.mean(axis=1, keepdims=True)
    return scores


def _difference(first: Outcome, second: Outcome, drawn: Drawn) -> Difference:
    scores, other = _scores(first), _scores(second)
    one_tree = first.row.first.hierarchy.digest == second.row.first.hierarchy.digest
    intervals = {}
    for metric in (name for name in scores if name in other and (one_tree or name != "hF")):
        gap = scores[metric] - other[metric]
        if first.groups.shared:
            draws = drawn[first][metric] - drawn[second][metric]
            intervals[metric] = _percentiles(float(gap.mean()), np.round(draws, 12), LEVEL)
        else:
            intervals[metric] = bootstrap(gap)
    seeds = [seed for seed in first.row.seeds if seed in second.row.seeds]
    a, b = _in_step(first, second, seeds)
    by_seed = {seed: paired_test(a[[i]], b[[i]], first.groups).p for i, seed in enumerate(seeds)}
    test = paired_test(a, b, first.groups)
    return Difference(first, second, intervals, test, by_seed, test.p)


def _in_step(first: Outcome, second: Outcome, seeds: Sequence[int]) -> tuple[Bools, Bools]:
    """Pair the seeds of two rows: (S, N) right answers of each. Without shared seeds, the first ones pair."""
    fewest = min(len(first.row.seeds), len(second.row.seeds))
    chosen = [[o.row.seeds.index(s) for s in seeds] or list(range(fewest)) for o in (first, second)]
    return first.correct[chosen[0]], second.correct[chosen[1]]
