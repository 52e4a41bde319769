"""Each category by itself: recall, precision and F1, and what it is taken for. S seeds, N test images, C leaves."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hfc.hierarchy import lca_height
from hfc.report.cells import Cell, Line, Table
from hfc.report.rows import Ints, Outcome
from hfc.report.tables import level_columns

MOST_LISTED = 500  # categories, and as many without test images
MOST_PAIRS = 12
NOTE = (
    "Recall: the share of its test images that are answered right. Precision: the share of its answers that are right. "
    "Both over all seeds together; F1 is their harmonic mean. Elsewhere: of its wrong answers, those under another "
    "parent in the tree."
)


class Category(NamedTuple):
    """A leaf and what a row makes of it. Shares are None where there is nothing to share."""

    leaf: int
    images: int
    """Of the test split."""
    recall: float | None
    precision: float | None
    f1: float | None
    elsewhere: float | None
    """Of its wrong answers, those under another parent."""
    taken: tuple[int, float] | None
    """The leaf that it is taken for most often, and for which share of its images."""


class Pair(NamedTuple):
    """A leaf that is taken for another."""

    truth: int
    answer: int
    images: float
    """How many, mean over seeds."""
    share: float
    """Of the images of the true leaf."""
    height: int
    """Levels to climb to the lowest common ancestor."""


def counts(outcome: Outcome) -> Ints:
    """Count the answers of all seeds: true leaf, answered leaf and how often, (3, M); none is 0."""
    size = len(outcome.tree.leaves)
    cells, times = np.unique(outcome.target * size + outcome.predicted, return_counts=True)
    return np.stack([cells // size, cells % size, times])


def categories(outcome: Outcome) -> list[Category]:
    """Score every leaf of a row, in the order of the tree."""
    size, seeds = len(outcome.tree.leaves), len(outcome.predictions)
    truth, answer, times = counts(outcome)
    wrong = truth != answer
    support = np.bincount(outcome.target, minlength=size)
    right = np.bincount(truth[~wrong], times[~wrong], minlength=size)
    answered = np.bincount(answer, times, minlength=size)
    away = wrong & ~outcome.tree.are_siblings(truth, answer)
    lost, far = (np.bincount(truth[mask], times[mask], minlength=size) for mask in (wrong, away))
    most: dict[int, tuple[int, float]] = {}
    for t, a, n in sorted(zip(truth[wrong], answer[wrong], times[wrong], strict=True), key=lambda cell: cell[2]):
        most[int(t)] = int(a), float(n / (seeds * support[t]))
    return [
        Category(
            leaf,
            int(support[leaf]),
            _share(right[leaf], seeds * support[leaf]),
            _share(right[leaf], answered[leaf]) if support[leaf] else None,
            _share(2 * right[leaf], seeds * support[leaf] + answered[leaf]) if support[leaf] else None,
            _share(far[leaf], lost[leaf]),
            most.get(leaf),
        )
        for leaf in range(size)
    ]


def _share(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


def table(outcome: Outcome) -> Table:
    """Make the table of the categories with test images; of many, those with the most wrong answers."""
    tree, every = outcome.tree, categories(outcome)
    shown = [every[leaf] for leaf in outcome.hardest(MOST_LISTED) if every[leaf].images]
    above = len(tree.levels) > 1
    leaf = tree.levels[-1] if tree.even else "category"
    parents = " > ".join(tree.levels[:-1]) if tree.even else "path"
    fixed = ("recall %", "precision %", "F1 %", "test images", "most often taken for", "elsewhere %")
    header = (*level_columns(fixed, [leaf]), *fixed, *(level_columns(fixed, [parents]) if above else ()))
    note = NOTE
    if len(shown) < sum(bool(one.images) for one in every):
        note += f" Shown: the {len(shown)} categories with the most wrong answers."
    body = tuple(_line(outcome, one, above) for one in shown)
    return Table("precision", f"Each category: {outcome.label}", header, body, note)


def _line(outcome: Outcome, one: Category, above: bool) -> Line:
    tree = outcome.tree
    taken = f"{tree.leaves[one.taken[0]]} {100 * one.taken[1]:.1f}%" if one.taken else "–"
    place = (Cell(" > ".join(tree.path(one.leaf)[:-1])),) if above else ()
    shares = (_percent(value) for value in (one.recall, one.precision, one.f1))
    images = Cell(f"{one.images:,}", one.images)
    return (Cell(tree.leaves[one.leaf]), *shares, images, Cell(taken), _percent(one.elsewhere), *place)


def _percent(value: float | None) -> Cell:
    return Cell("–") if value is None else Cell(f"{100 * value:.1f}", 100 * value)


def unseen(outcome: Outcome) -> list[str]:
    """List the paths of the leaves without test images."""
    missing = np.flatnonzero(np.bincount(outcome.target, minlength=len(outcome.tree.leaves)) == 0)
    return [" > ".join(outcome.tree.path(int(leaf))) for leaf in missing]


def pairs(outcome: Outcome, most: int = MOST_PAIRS) -> list[Pair]:
    """List the leaves that are taken for another one most often."""
    tree, seeds = outcome.tree, len(outcome.predictions)
    truth, answer, times = counts(outcome)
    support = np.bincount(outcome.target, minlength=len(tree.leaves))
    order = [int(i) for i in np.argsort(-times, kind="stable") if truth[i] != answer[i]][:most]
    levels, falls = tree.ancestors.T, tree.falls.T
    heights = lca_height(levels[:, answer[order]], levels[:, truth[order]], falls[:, answer[order]])
    return [
        Pair(int(truth[i]), int(answer[i]), times[i] / seeds, times[i] / (seeds * support[truth[i]]), int(height))
        for i, height in zip(order, heights, strict=True)
    ]


def pairs_table(outcome: Outcome, chosen: Sequence[Pair]) -> Table:
    """Make the table of the leaves that are taken for another one most often."""
    tree = outcome.tree
    body = tuple(
        (
            Cell(tree.leaves[pair.truth]),
            Cell(tree.leaves[pair.answer]),
            Cell(f"{pair.images:.4g}", pair.images),
            Cell(f"{100 * pair.share:.1f}", 100 * pair.share),
            Cell(str(pair.height), pair.height),
        )
        for pair in chosen
    )
    note = "Images: mean over seeds; share: of all test images of the true category; height: levels to climb."
    header = ("truth", "taken for", "images", "share %", "height")
    return Table("confused", f"Most confused: {outcome.label}", header, body, note, narrow=True)
