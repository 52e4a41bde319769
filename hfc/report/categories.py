"""The accuracy of each category: a figure and a table.

However many categories there are, the figure shows so many; the page's table is folded, and the figure's data complete.
"""

from hfc.report import svg
from hfc.report.cells import Branch, Table
from hfc.report.folded import fold, line_of
from hfc.report.looks import CROWDED
from hfc.report.plots import Figure, left_out
from hfc.report.rows import Leaderboard
from hfc.report.tables import level_columns

MOST_DRAWN = 200  # categories in the figure
MOST_LISTED = 500  # in a table that is not folded
MOST_UNFOLDED = 100  # more are folded on the page
MOST_FOLDED = 20_000  # on the page
MOST_CELLS = 60_000  # accuracies on the page
MOST_BESIDE = 3  # methods in a table that leaves room for the figure beside it
SHARE = "Share of a category's test images whose most probable leaf is right, %, mean over seeds."


def figure(board: Leaderboard) -> Figure:
    """Draw the accuracy of each category. The best row is a bar, the others are points."""
    scored = board.category_scores()
    drawn = [scored[leaf] for leaf in board.best.hardest(MOST_DRAWN)]
    step, left, crowded = 18, 118, len(board.outcomes) > CROWDED
    x = svg.Scale(0, 1, left, svg.WIDTH - svg.RIGHT - 34)
    bottom = svg.TOP + step * len(drawn) + 4
    body = svg.x_axis(x, svg.TOP, bottom, "accuracy, %", percent=True)
    body.append(svg.text(svg.WIDTH - 2, bottom + 30, "images", anchor="end", class_="tick"))
    for i, (name, path, support, scores) in enumerate(drawn):
        y = svg.TOP + step * i
        full = " > ".join(path)
        shown = svg.shorten(name, left - 8, at_front=name != path[-1])  # of a path its end tells more
        body.append(svg.text(left - 6, y + 14, shown, anchor="end", full=full))
        body.append(svg.text(svg.WIDTH - 2, y + 14, str(support), anchor="end", class_="tick"))
        for series in (0, *range(len(scores) - 1, 0, -1)):  # the bar below the points, the next best on top
            score = scores[series]
            if score is None:
                continue
            tooltip = f"{full}: {100 * score:.1f}% of {support}, {board.outcomes[series].label}"
            if series:
                body.append(svg.dot(x(score), y + 10, svg.GREY if crowded else series, tooltip, 3.5))
            else:
                body.append(svg.bar(x(0), y + 4, x(score) - x(0), 12, 0, tooltip))
    every = list(enumerate(outcome.label for outcome in board.outcomes))
    named = [every[0], (svg.GREY, "the other rows")] if crowded else every
    key, height = svg.legend(named, bottom + 34, lines=False)
    measured = [(name, scores[0]) for name, _, _, scores in scored if scores[0] is not None]
    lowest = sorted(measured, key=lambda pair: pair[1] or 0)[:3]
    hardest = ", ".join(f"{name} {100 * (score or 0):.0f}%" for name, score in lowest)
    alt = f"Accuracy of each of {len(scored)} categories, bars: {board.best.label}. Lowest: {hardest}."
    return Figure(
        "categories",
        "Accuracy of each category",
        alt,
        svg.drawing([*body, *key], bottom + 34 + height, alt),
        ("category", "path", "test_images", *(outcome.label for outcome in board.outcomes)),
        tuple(
            (name, " > ".join(path), n, *("" if s is None else s for s in scores)) for name, path, n, scores in scored
        ),
        f"Bars: the best row; points: the others. Mean over seeds.{left_out(len(drawn), len(scored), 'categories')}",
    )


def table(board: Leaderboard) -> Table:
    """Make the table of categories: their accuracy and number of test images. A page folds many of them."""
    tree, scored = board.best.tree, board.category_scores()
    above = [" > ".join(tree.levels[:-1]) if tree.even else "path"] if len(tree.levels) > 1 else []
    fixed = [tree.levels[-1] if tree.even else "category", *above, "test images"]
    header = (*level_columns(fixed[-1:], fixed[:-1]), *fixed[-1:], *(outcome.label for outcome in board.outcomes))
    body = tuple(line_of(scored[leaf], 0 if above else None) for leaf in board.best.hardest(MOST_LISTED))
    note = SHARE
    if len(scored) > MOST_LISTED:
        note += (
            f" Shown: the {MOST_LISTED} categories with the most wrong answers of the best row, of {len(scored):,}; "
            "all are in the data of the picture."
        )
    narrow = len(board.outcomes) <= MOST_BESIDE
    return Table("categories", "Accuracy of each category, %", header, body, note, narrow, _folded(board, fixed[0]))


def _folded(board: Leaderboard, leaf: str) -> Branch | None:
    """Fold many categories by the nodes above them: as many, and of as many methods, as a page can hold."""
    every = board.category_scores()
    if len(every) <= MOST_UNFOLDED:
        return None
    chosen = board.best.hardest(MOST_FOLDED)
    methods = [outcome.label for outcome in board.outcomes][: max(MOST_CELLS // len(chosen), 1)]
    shown = [every[i]._replace(accuracy=every[i].accuracy[: len(methods)]) for i in chosen]
    note = f"{SHARE} Folded by the nodes above; beside a node, the same of all its images, method by method."
    if len(shown) < len(every) or len(methods) < len(board.outcomes):
        note += (
            f" Shown: {len(shown):,} of {len(every):,} categories, those with the most wrong answers of the best row, "
            f"and {len(methods)} of {len(board.outcomes)} methods, the best; all are in the data of the picture."
        )
    return fold(shown, (leaf, "test images", *methods), note)
