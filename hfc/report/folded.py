"""Thousands of categories as a table that is folded by the nodes above them. Dimension: M methods."""

from collections.abc import Sequence

from hfc.report.cells import Branch, Cell, Line
from hfc.report.rows import Category

MOST_ROWS = 60  # below a node that is not folded further
FEW = 10  # leaves below a node that is not folded by itself
MOST_TOGETHER = 200  # rows of one table; more are folded by their names

Header = tuple[str, ...]
"""Of the categories, of their test images, and of M methods."""


def fold(categories: Sequence[Category], header: Header, note: str) -> Branch:
    """Fold categories by the nodes of their paths.

    Args:
        categories: in the order of the tree.
        header: of the columns.
        note: what stands above everything.
    """
    return _inner("", note, categories, header, 0)


def line_of(category: Category, depth: int | None) -> Line:
    """Write a category: its name, its path below the node so deep, its images and accuracies; None: without path."""
    above = [] if depth is None else [Cell(" > ".join(category.path[depth:-1]))]
    return Cell(category.name), *above, Cell(str(category.images), category.images), *map(_share, category.accuracy)


def _share(accuracy: float | None) -> Cell:
    return Cell("–") if accuracy is None else Cell(f"{100 * accuracy:.1f}", 100 * accuracy)


def _inner(title: str, note: str, categories: Sequence[Category], header: Header, depth: int) -> Branch:
    """Fold the categories below a node of a depth. A node with a single one below it shares its fold."""
    if len(categories) <= MOST_ROWS:
        return _outer(title, note, categories, header, depth)
    below: dict[str, list[Category]] = {}
    for category in categories:
        below.setdefault(category.path[depth] if len(category.path) > depth + 1 else "", []).append(category)
    if title and len(below) == 1 and "" not in below:
        return _inner(f"{title} > {next(iter(below))}", note, categories, header, depth + 1)
    large = {name: inside for name, inside in below.items() if name and len(inside) > FEW}
    branches = [_inner(name, _words(inside), inside, header, depth + 1) for name, inside in large.items()]
    alone = [
        category for category in categories if category.path[depth] not in large or len(category.path) == depth + 1
    ]
    if len(alone) <= MOST_TOGETHER:
        return _outer(title, note, alone, header, depth, branches)
    parts = [alone[start : start + MOST_TOGETHER] for start in range(0, len(alone), MOST_TOGETHER)]
    branches += [_outer(f"{part[0].name} … {part[-1].name}", _words(part), part, header, depth) for part in parts]
    return Branch(title, note, (), (), tuple(branches))


def _outer(
    title: str, note: str, categories: Sequence[Category], header: Header, depth: int, below: Sequence[Branch] = ()
) -> Branch:
    """Write categories as one table. Where none has nodes between it and the fold's, no column speaks of them."""
    between = any(len(category.path) > depth + 1 for category in categories)
    lines = tuple(line_of(category, depth if between else None) for category in categories)
    return Branch(title, note, (header[0], *(["path"] if between else []), *header[1:]), lines, tuple(below))


def _words(categories: Sequence[Category]) -> str:
    """Count categories and their images; of all these images the share that is right, method by method."""
    images = sum(category.images for category in categories)
    text = f"{len(categories):,} categories, {images:,} images"
    if not images:
        return text
    methods = range(len(categories[0].accuracy))
    right = [sum(category.images * (category.accuracy[i] or 0) for category in categories) for i in methods]
    return f"{text}: {' · '.join(f'{100 * count / images:.1f}' for count in right)}%"
