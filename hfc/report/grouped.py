"""Intervals and tests where test images come in groups, such as views of a product.

Images of one group are right or wrong together, so groups are drawn and compared as a whole. NumPy and SciPy only.
Dimensions: N images, G groups, J means.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from hfc.hierarchy import canonical

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

BLOCK = 2_000_000  # numbers drawn at a time


@dataclass(frozen=True)
class Interval:
    """A number, often a difference, and the interval where other images would put it."""

    difference: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Groups:
    """The groups that test images are in; most often each is one by itself."""

    number: Ints
    """(N,) of each image's group, counted in the order of their first images."""

    @property
    def count(self) -> int:
        """How many there are."""
        return int(self.number.max()) + 1

    @property
    def shared(self) -> bool:
        """Whether one of them has several images."""
        return self.count < len(self.number)

    def words(self, images: str = "test images") -> str:
        """Say how many images there are, and in how many groups: 40,000 test images in 9,000 groups."""
        counted = f"{len(self.number):,} {images}"
        return f"{counted} in {self.count:,} groups" if self.shared else counted


def named_groups(names: Iterable[str]) -> Groups:
    """Read groups off their names, which are one in any Unicode form. An image without one is a group by itself."""
    numbers: dict[str | int, int] = {}
    keys = (canonical(name) or place for place, name in enumerate(names))
    return Groups(np.array([numbers.setdefault(key, len(numbers)) for key in keys]))


def drawn_means(scores: Floats, groups: Groups, *, draws: int, seed: int = 0) -> Floats:
    """Draw groups with replacement, as many as there are; average over the images of each draw.

    A mean is a ratio, of the sum of all images drawn to their number, as groups are of several sizes (cluster
    bootstrap: Davison & Hinkley 1997, section 3.8).

    Args:
        scores: (J, N) of each image.
        groups: of the images.
        draws: how often.
        seed: the same seed gives the same draws, of any scores.

    Returns:
        (draws, J) means. All J come from the same draws, so that their differences are paired.
    """
    group, count = groups.number, groups.count
    sums = np.stack([*(np.bincount(group, row, count) for row in scores), np.bincount(group, minlength=count)], axis=1)
    totals = np.concatenate([times @ sums for times in _times(count, draws, seed)])
    means: Floats = totals[:, :-1] / totals[:, -1:]
    return means


def drawn_weights(groups: Groups, *, draws: int, seed: int = 0) -> Iterator[Floats]:
    """Draw groups with replacement, as many as there are: how often each image is drawn, in blocks (B, N) of draws.

    The same seed gives the same draws.
    """
    for times in _times(groups.count, draws, seed):
        yield times[:, groups.number] if groups.shared else times


def _times(count: int, draws: int, seed: int) -> Iterator[Floats]:
    """Draw as many of `count` things with replacement: how often each, in blocks (B, count) of draws."""
    rng = np.random.default_rng(seed)
    block = max(BLOCK // count, 1)
    for start in range(0, draws, block):
        rows = min(block, draws - start)
        drawn = rng.integers(count, size=(rows, count)) + count * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count).astype(np.float64)


def sign_flip(gains: Ints) -> float:
    """Compute the exact two-sided p of the sign-flip test, a permutation test of pairs.

    Where two methods are as good, what one has more right answers of in a group the other could as well have. So each
    group's sign is a fair coin (Fisher 1935, section 21). Over all their throws the distribution of the sum is found by
    convolution: groups of one gain are a binomial. Where all gains are ±1 or 0 it is McNemar's exact test.

    Args:
        gains: (G,) how many more right answers the first method has in each group; may be negative.
    """
    sizes, counts = np.unique(np.abs(gains[gains != 0]), return_counts=True)
    low, chance = 0, np.ones(1)  # chance[i]: that the gains whose sign is + sum to low + i
    for size, count in zip(sizes[::-1].tolist(), counts[::-1].tolist(), strict=True):
        heads = binom.pmf(np.arange(count + 1), count, 0.5)
        possible = np.flatnonzero(heads)  # of many groups the ends are 0 in floating point
        spread = np.zeros(size * (possible[-1] - possible[0]) + 1)
        spread[::size] = heads[possible[0] : possible[-1] + 1]
        low, chance = low + size * int(possible[0]), np.convolve(chance, spread)
    furthest = (int(np.abs(gains).sum()) + abs(int(gains.sum()))) // 2
    return min(2 * float(chance[max(furthest - low, 0) :].sum()), 1.0)
