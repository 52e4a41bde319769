"""Pictures of confused pairs, and of right and wrong answers of each category. N test images."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hfc.report import confused
from hfc.report.document import Folded
from hfc.report.gallery import Gallery, mistake, pictures
from hfc.report.rows import Floats, Ints, Outcome

PAIRS, OF_A_PAIR = 8, 6
CATEGORIES, RIGHT, WRONG = 24, 3, 6  # pictures of each

Shown = tuple[str, str, Ints]
"""A title, a note and the test images."""


def folds(outcome: Outcome, root: Path) -> list[Folded]:
    """Fold the pictures of a row: of pairs that are confused, and of categories.

    Args:
        outcome: the row.
        root: the folder or archive that the cache's image paths are relative to.

    Raises:
        RunError: none of the pictures is there.
    """
    pairs, categories = list(_pairs(outcome)), list(_categories(outcome))
    rows = np.unique(np.concatenate([rows for _, _, rows in (*pairs, *categories)]))
    sources = pictures(outcome, rows, root)

    def gallery(title: str, note: str, rows: Ints) -> Gallery:
        return Gallery(title, note, tuple(mistake(outcome, int(row), *sources[int(row)]) for row in rows))

    below = tuple(Folded(f"{title}: {note}", (gallery("", "", rows),)) for title, note, rows in categories)
    own = Folded(f"{outcome.label}: right and wrong examples of each category", below)
    if not pairs:
        return [own]
    return [Folded(f"{outcome.label}: the most confused pairs", tuple(gallery(*one) for one in pairs)), own]


def _pairs(outcome: Outcome) -> Iterator[Shown]:
    tree = outcome.tree
    for pair in confused.pairs(outcome, PAIRS):
        taken = outcome.predicted == pair.answer
        sure = np.where(taken, outcome.confidence, 0.0).mean(axis=0)
        rows = np.flatnonzero(taken.any(axis=0) & (outcome.target == pair.truth))
        title = f"{tree.leaves[pair.truth]} taken for {tree.leaves[pair.answer]}"
        note = f"{pair.images:.4g} images, {100 * pair.share:.1f}% of this category; the surest first"
        yield title, note, _first(rows, -sure, OF_A_PAIR)


def _categories(outcome: Outcome) -> Iterator[Shown]:
    """Choose of each category the surest right answers and the surest wrong ones; the most often wrong first."""
    every = confused.categories(outcome)
    right = outcome.correct.mean(axis=0)
    wrong = np.where(outcome.correct, 0.0, outcome.confidence).mean(axis=0)
    order = sorted((one for one in every if one.images), key=lambda one: one.images * ((one.recall or 0) - 1))
    for one in order[:CATEGORIES]:
        inside = np.flatnonzero(outcome.target == one.leaf)
        surest = _first(inside[right[inside] == 1], -outcome.confidence.mean(axis=0), RIGHT)
        worst = _first(inside[right[inside] < 1], -wrong, WRONG)
        note = f"{100 * (one.recall or 0):.1f}% of {one.images:,} right"
        if one.taken:
            note += f", most often taken for {outcome.tree.leaves[one.taken[0]]}"
        yield " > ".join(outcome.tree.path(one.leaf)), note, np.concatenate([surest, worst])


def _first(rows: Ints, key: Floats, most: int) -> Ints:
    """Take the first of some rows by a key of all."""
    chosen: Ints = rows[np.argsort(key[rows], kind="stable")][:most]
    return chosen
