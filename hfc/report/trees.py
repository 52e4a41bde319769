"""Pictures of the tree: each node's accuracy, each category's, and what is taken for what."""

from collections.abc import Sequence

import numpy as np

from hfc.report import svg
from hfc.report.plots import Figure
from hfc.report.rows import Floats, Group, Outcome

ELSEWHERE = "elsewhere"


def categories(group: Group) -> Figure:
    """The accuracy of each category as a bar, of the best row; the other rows as points."""
    found = group.category_scores()
    step, left = 18, 118
    x = svg.Scale(0, 1, left, svg.WIDTH - svg.RIGHT - 34)
    bottom = svg.TOP + step * len(found) + 4
    body = svg.x_axis(x, svg.TOP, bottom, "accuracy, %", percent=True)
    body.append(svg.text(svg.WIDTH - 2, bottom + 30, "images", anchor="end", class_="tick"))
    for i, (name, path, support, scores) in enumerate(found):
        y = svg.TOP + step * i
        full = " > ".join(path)
        body.append(svg.text(left - 6, y + 14, svg.shorten(name, left - 8), anchor="end", full=full))
        body.append(svg.text(svg.WIDTH - 2, y + 14, str(support), anchor="end", class_="tick"))
        for series in (0, *range(len(scores) - 1, 0, -1)):  # the bar below the points, the next best on top
            score = scores[series]
            if score is None:
                continue
            said = f"{full}: {100 * score:.1f}% of {support}, {group.outcomes[series].label}"
            if series:
                body.append(svg.dot(x(score), y + 10, series, said, 3.5))
            else:
                body.append(svg.bar(x(0), y + 4, x(score) - x(0), 12, 0, said))
    key, height = svg.legend(list(enumerate(outcome.label for outcome in group.outcomes)), bottom + 34, lines=False)
    measured = [(name, scores[0]) for name, _, _, scores in found if scores[0] is not None]
    worst = sorted(measured, key=lambda each: each[1] or 0)[:3]
    hardest = ", ".join(f"{name} {100 * (score or 0):.0f}%" for name, score in worst)
    alt = f"Accuracy of each of {len(found)} categories, bars: {group.best.label}. Lowest: {hardest}."
    return Figure(
        "categories",
        "Accuracy of each category",
        alt,
        svg.drawing([*body, *key], bottom + 34 + height, alt),
        ("category", "path", "test_images", *(outcome.label for outcome in group.outcomes)),
        tuple(
            (name, " > ".join(path), n, *("" if s is None else s for s in scores)) for name, path, n, scores in found
        ),
        "Bars: the best row; points: the others. Mean over seeds.",
    )


def tree(outcome: Outcome) -> Figure:
    """The tree, each node with the share of its images whose answer's path goes through it."""
    scores = {(level, node): (n, score) for level, node, n, score in outcome.node_scores()}
    found = outcome.tree
    step, left = 18, 176
    x = svg.Scale(0, 1, left, svg.WIDTH - 92)
    body, said_data = [], []
    row = 0
    last: dict[int, float] = {0: svg.TOP}  # where the parent of each level stands
    for level, node in _depth_first(outcome):
        n, score = scores[level, node]
        leaf = int(np.flatnonzero(found.ancestors[:, level] == node)[0])
        path = " > ".join(found.path(leaf)[: level + 1])
        y = svg.TOP + step * row + 9
        indent = 8 + 16 * level
        name = found.nodes[level][node]
        if level:
            start = last[level - 1]
            body.append(svg.element("path", class_="axis", d=f"M{indent - 11} {start + 6:g}V{y:g}H{indent - 3}"))
        last[level] = y
        body.append(svg.text(indent, y + 4, svg.shorten(name, left - indent - 6), full=path))
        text = "no images" if score is None else f"{100 * score:.1f}%"
        body.append(svg.element("rect", class_="empty", x=left, y=y - 5, width=x.end - x.start, height=10))
        if score is not None:
            body.append(svg.bar(left, y - 5, x(score) - left, 10, level, f"{path}: {text} of {n}"))
        body.append(svg.text(x.end + 5, y + 4, text, class_="tick"))
        body.append(svg.text(svg.WIDTH - 2, y + 4, str(n), anchor="end", class_="tick"))
        said_data.append((path, found.levels[level], n, "" if score is None else score))
        row += 1
    groups = [(found.nodes[0][node], score) for (level, node), (_, score) in scores.items() if level == 0]
    top = "; ".join(f"{name} {100 * score:.0f}%" for name, score in groups if score is not None)
    alt = f"The tree with the accuracy of {len(said_data)} nodes in {outcome.label}; {found.levels[0]}: {top}."
    return Figure(
        "tree",
        "The tree",
        alt,
        svg.drawing(body, svg.TOP + step * row + 6, alt),
        ("path", "level", "test_images", "accuracy"),
        tuple(said_data),
        "Share of a node's test images whose answer lies below it, and how many they are. Mean over seeds.",
    )


def _depth_first(outcome: Outcome) -> list[tuple[int, int]]:
    """(level, node) of every node, each followed by what is below it."""
    paths = sorted(map(tuple, outcome.tree.ancestors.tolist()))
    prefixes = dict.fromkeys(path[: h + 1] for path in paths for h in range(len(path)))
    return [(len(prefix) - 1, prefix[-1]) for prefix in prefixes]


def confusion(outcome: Outcome) -> list[Figure]:
    """What is taken for what: among the groups, and among the children of every inner node below."""
    return [
        figure
        for level in range(len(outcome.tree.levels))
        for node in _parents(outcome, level)
        if (figure := _confusion(outcome, level, node))
    ]


def _parents(outcome: Outcome, level: int) -> list[int]:
    """The nodes above a level; -1 is the root."""
    return list(range(outcome.tree.sizes[level - 1])) if level else [-1]


def _confusion(outcome: Outcome, level: int, parent: int) -> Figure | None:
    """The matrix among the children of a node; None where it has one child, or no images."""
    found = outcome.tree
    above = found.ancestors[:, level - 1] if level else np.full(len(found.leaves), -1)
    children = list(dict.fromkeys(int(node) for node in found.ancestors[above == parent, level]))
    inside = above[outcome.target] == parent
    if len(children) < 2 or not inside.any():
        return None
    truth = found.ancestors[outcome.target[inside], level]
    answers = found.ancestors[outcome.predicted[:, inside], level]
    names = [found.nodes[level][node] for node in children]
    counts = np.array([[float((answers[:, truth == t] == a).sum()) for a in children] for t in children])
    counts /= len(answers)
    support = np.array([int((truth == t).sum()) for t in children])
    columns = names
    if level:
        counts = np.column_stack([counts, support - counts.sum(axis=1)])
        columns = [*names, ELSEWHERE]
    shares = counts / np.maximum(support, 1)[:, None]
    said = [
        [
            f"{t} taken for {a}: {100 * share:.1f}%, {count:.3g} of {n} images"
            for a, share, count in zip(columns, *rows, strict=True)
        ]
        for t, n, *rows in zip(names, support, shares, counts, strict=True)
    ]
    where = f"Confusion inside {found.nodes[level - 1][parent]}" if level else f"Confusion of each {found.levels[0]}"
    alt = f"{where}, {outcome.label}: {_worst(names, columns, shares)}."
    data = tuple(
        (where, t, a, count, share)
        for t, counts_here, shares_here in zip(names, counts, shares, strict=True)
        for a, count, share in zip(columns, counts_here, shares_here, strict=True)
    )
    header = ("where", "truth", "answer", "images", "share")
    return Figure("confusion", where, alt, svg.heat(names, columns, shares.tolist(), said, alt), header, data)


def _worst(names: Sequence[str], columns: Sequence[str], shares: Floats) -> str:
    off = shares.copy()
    np.fill_diagonal(off, 0)
    if off.max() == 0:
        return "nothing is taken for anything else"
    places = np.argsort(-off, axis=None, kind="stable")[:3]
    found = [(int(place) // len(columns), int(place) % len(columns)) for place in places]
    return ", ".join(f"{names[i]} taken for {columns[j]} {100 * off[i, j]:.0f}%" for i, j in found if off[i, j])
