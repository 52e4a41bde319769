"""Figures of the tree: the accuracy of nodes, and confusions.

However many nodes there are, a picture shows so many; the numbers beside it are complete.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hfc.report import svg
from hfc.report.plots import Figure, left_out
from hfc.report.rows import Bools, Floats, Ints, Outcome

ELSEWHERE, OTHERS = "elsewhere", "others"
MOST_LEAVES = 200  # in a picture
MOST_CHILDREN = 60  # in a matrix
MOST_MATRICES = 30  # of a row
MOST_CELLS = 10_000  # in all matrices of a row
MOST_AWAY = 3  # children whose answers elsewhere are named, and leaves that each is taken for


def tree(outcome: Outcome) -> Figure:
    """Draw the tree. Each node has the share of its images whose answer lies below it."""
    scores = {(level, node): (n, score) for level, node, n, score in outcome.node_scores()}
    hierarchy = outcome.tree
    step, left = 18, 176
    x = svg.Scale(0, 1, left, svg.WIDTH - 92)
    body = []
    row = 0
    last: dict[int, float] = {0: svg.TOP}  # where the parent of each level stands
    leaves = outcome.hardest(MOST_LEAVES)
    for level, node, path in _depth_first(outcome, leaves):
        n, score = scores[level, node]
        y = svg.TOP + step * row + 9
        indent = 8 + 16 * level
        if level:
            start = last[level - 1]
            body.append(svg.element("path", class_="axis", d=f"M{indent - 11} {start + 6:g}V{y:g}H{indent - 3}"))
        last[level] = y
        name = svg.shorten(hierarchy.nodes[level][node], left - indent - 6)
        body.append(svg.text(indent, y + 4, name, full=path))
        text = "no images" if score is None else f"{100 * score:.1f}%"
        body.append(svg.element("rect", class_="empty", x=left, y=y - 5, width=x.end - x.start, height=10))
        if score is not None:
            body.append(svg.bar(left, y - 5, x(score) - left, 10, 5 if level else 0, f"{path}: {text} of {n}"))
        body.append(svg.text(x.end + 5, y + 4, text, class_="tick"))
        body.append(svg.text(svg.WIDTH - 2, y + 4, str(n), anchor="end", class_="tick"))
        row += 1
    groups = [(hierarchy.nodes[0][node], score) for (level, node), (_, score) in scores.items() if level == 0]
    top = "; ".join(f"{name} {100 * score:.0f}%" for name, score in groups[:MOST_LEAVES] if score is not None)
    alt = f"The tree with the accuracy of {row} nodes in {outcome.label}; {hierarchy.levels[0]}: {top}."
    every = _depth_first(outcome, np.arange(len(hierarchy.leaves)))
    return Figure(
        "tree",
        "The tree",
        alt,
        svg.drawing(body, svg.TOP + step * row + 6, alt),
        ("path", "level", "test_images", "accuracy"),
        tuple(
            (path, hierarchy.levels[level], n, "" if score is None else score)
            for level, node, path in every
            for n, score in [scores[level, node]]
        ),
        "Share of a node's test images whose answer lies below it, and how many they are. Mean over seeds."
        + left_out(len(leaves), len(hierarchy.leaves), "leaves"),
    )


def _depth_first(outcome: Outcome, leaves: Ints) -> Iterator[tuple[int, int, str]]:
    """Go through some leaves and all nodes above them, depth first: level, node and path."""
    tree = outcome.tree
    paths = sorted((tuple(tree.ancestors[leaf, : tree.depths[leaf]].tolist()), int(leaf)) for leaf in leaves)
    seen: set[tuple[int, ...]] = set()
    for path, leaf in paths:
        for level in range(len(path)):
            if path[: level + 1] not in seen:
                seen.add(path[: level + 1])
                yield level, path[level], " > ".join(tree.path(leaf)[: level + 1])


@dataclass(frozen=True, eq=False)
class Matrix:
    """The confusions among the K children of a node. M cells are not empty."""

    level: int
    """The level of the children."""
    where: str
    names: tuple[str, ...]
    """(K,) of the children, and after them of whatever lies elsewhere, where there is such a thing."""
    support: Ints
    """(K,) test images of each child."""
    truth: Ints
    """(M,)"""
    answer: Ints
    """(M,)"""
    images: Floats
    """(M,) how many, mean over seeds."""
    away: str
    """What the answers elsewhere are, in words."""

    @property
    def wrong(self) -> Floats:
        """(K,) images of each child that were taken for something else."""
        off = np.where(self.truth == self.answer, 0.0, self.images)
        lost: Floats = np.bincount(self.truth, off, minlength=len(self.support)).astype(np.float64)
        return lost


def confusion(outcome: Outcome) -> tuple[list[Figure], str]:
    """Draw the confusions among the children of the root and of every inner node.

    Returns:
        The figures, and what had to be left out, in words.
    """
    matrices = [
        matrix
        for level in range(len(outcome.tree.levels))
        for parent in _parents(outcome, level)
        if (matrix := _matrix(outcome, level, parent))
    ]
    chosen: set[int] = set()
    cells = 0
    for i in sorted(range(len(matrices)), key=lambda i: (matrices[i].level > 0, -matrices[i].wrong.sum())):
        cells += min(len(matrices[i].truth), MOST_CHILDREN * (MOST_CHILDREN + 2))
        if len(chosen) < MOST_MATRICES and (not chosen or cells <= MOST_CELLS):
            chosen.add(i)
    figures = [_drawn(outcome, matrix) for i, matrix in enumerate(matrices) if i in chosen]
    if len(figures) == len(matrices):
        return figures, ""
    return figures, f"Of {len(matrices):,} nodes with several children, the {len(figures)} with the most wrong answers."


def _parents(outcome: Outcome, level: int) -> list[int]:
    """List the nodes above a level; -1 is the root."""
    return list(range(outcome.tree.sizes[level - 1])) if level else [-1]


def _matrix(outcome: Outcome, level: int, parent: int) -> Matrix | None:
    """Count the confusions among a node's children. None where it has one child or no images."""
    tree = outcome.tree
    above = tree.ancestors[:, level - 1] if level else np.full(len(tree.leaves), -1)
    below = np.flatnonzero(above == parent)
    children = list(dict.fromkeys(tree.ancestors[below, level].tolist()))
    inside = above[outcome.target] == parent
    if len(children) < 2 or not inside.any():
        return None
    place = np.full(tree.sizes[level] + 1, len(children))  # of each node, and of none, −1; elsewhere is the last
    place[children] = np.arange(len(children))
    truth = place[tree.ancestors[outcome.target[inside], level]]
    answers = place[tree.ancestors[outcome.predicted[:, inside], level]]
    cells, counts = np.unique(truth * (len(children) + 1) + answers, return_counts=True)
    names = tuple(tree.nodes[level][node] for node in children)
    path = " > ".join(tree.path(int(below[0]))[:level])
    return Matrix(
        level,
        f"Confusion inside {path}" if level else f"Confusion of each {tree.levels[0]}",
        (*names, _free(ELSEWHERE, names)) if level else names,
        np.bincount(truth, minlength=len(children)),
        cells // (len(children) + 1),
        cells % (len(children) + 1),
        counts / len(answers),
        _away(outcome, level, inside, above),
    )


def _away(outcome: Outcome, level: int, inside: Bools, above: Ints) -> str:
    """Say which leaves are answered where the answer lies elsewhere: those children that it happens to most."""
    tree, seeds = outcome.tree, len(outcome.predictions)
    truth = np.broadcast_to(tree.ancestors[outcome.target[inside], level], (seeds, int(inside.sum())))
    answers = outcome.predicted[:, inside]
    far = above[answers] != above[outcome.target[inside]]
    cells, times = np.unique(truth[far] * len(tree.leaves) + answers[far], return_counts=True)
    lost: dict[int, list[tuple[float, str]]] = {}
    for child, leaf, n in zip(cells // len(tree.leaves), cells % len(tree.leaves), times / seeds, strict=True):
        if child >= 0:
            lost.setdefault(int(child), []).append((float(n), tree.leaves[leaf]))
    most = sorted(lost.items(), key=lambda one: -sum(n for n, _ in one[1]))[:MOST_AWAY]
    words = []
    for child, leaves in most:
        named = ", ".join(f"{name} ({n:.3g})" for n, name in sorted(leaves, key=lambda one: -one[0])[:MOST_AWAY])
        words.append(f"{tree.nodes[level][child]} for {named}")
    return f"Elsewhere, images taken: {'; '.join(words)}." if words else ""


def _free(word: str, names: Sequence[str]) -> str:
    """Find a word that is none of some names."""
    return _free(f"({word})", names) if word in names else word


def _drawn(outcome: Outcome, matrix: Matrix) -> Figure:
    """Draw a matrix, of its children those with the most wrong answers."""
    children = len(matrix.support)
    shown = np.sort(np.argsort(-matrix.wrong, kind="stable")[:MOST_CHILDREN])
    names = [matrix.names[i] for i in shown]
    rest = [] if len(shown) == children else [_free(OTHERS, matrix.names)]
    columns = [*names, *rest, *matrix.names[children:]]
    place = np.full(len(matrix.names), len(names))
    place[shown] = np.arange(len(names))
    place[children:] = len(columns) - 1
    counts = np.zeros((len(names), len(columns)))
    inside = np.isin(matrix.truth, shown)
    np.add.at(counts, (place[matrix.truth[inside]], place[matrix.answer[inside]]), matrix.images[inside])
    support = matrix.support[shown]
    shares = counts / np.maximum(support, 1)[:, None]
    tooltips = [
        [
            f"{t} taken for {a}: {100 * share:.1f}%, {count:.3g} of {n} images"
            for a, share, count in zip(columns, *cells, strict=True)
        ]
        for t, n, *cells in zip(names, support, shares, counts, strict=True)
    ]
    alt = f"{matrix.where}, {outcome.label}: {_worst(names, columns, shares)}."
    of_all = matrix.images / matrix.support[matrix.truth]
    cells = zip(matrix.truth.tolist(), matrix.answer.tolist(), matrix.images.tolist(), of_all.tolist(), strict=True)
    return Figure(
        "confusion",
        matrix.where,
        alt,
        svg.heat(names, columns, shares.tolist(), tooltips, alt),
        ("where", "truth", "answer", "images", "share"),
        tuple((matrix.where, matrix.names[t], matrix.names[a], count, share) for t, a, count, share in cells),
        " ".join(filter(None, (left_out(len(shown), children, "nodes").strip(), matrix.away))),
    )


def _worst(names: Sequence[str], columns: Sequence[str], shares: Floats) -> str:
    off = shares.copy()
    np.fill_diagonal(off, 0)
    if off.max() == 0:
        return "nothing is taken for anything else"
    places = np.argsort(-off, axis=None, kind="stable")[:3]
    worst = [(int(place) // len(columns), int(place) % len(columns)) for place in places]
    return ", ".join(f"{names[i]} taken for {columns[j]} {100 * off[i, j]:.0f}%" for i, j in worst if off[i, j])
