"""Figures that compare methods. Dimensions: S seeds, N test images, H levels."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from markupsafe import Markup

from hfc.metrics import BINS, bin_of
from hfc.report import promises, svg
from hfc.report.looks import looks
from hfc.report.plots import Axes, Figure, Looks, Point, curves
from hfc.report.rows import Bools, Floats, Leaderboard, Outcome, Row
from hfc.report.statistics import Difference, beside

RIGHT = svg.WIDTH - 16


def forest(board: Leaderboard, differences: Sequence[Difference]) -> Figure | None:
    """Draw how far every row is from the baseline, or behind the best, with intervals. None for a single row."""
    behind = beside(board.reference, differences)
    if not behind:
        return None
    reference, is_best = board.reference.label, board.reference is board.best
    against = "the best" if is_best else reference
    x = svg.Scale(*svg.span([0, *(gap.low for _, gap, _ in behind), *(gap.high for _, gap, _ in behind)]), 16, RIGHT)
    names = [svg.wrapped(outcome.label, svg.WIDTH - 32) for outcome, _, _ in behind]
    heights = [svg.LEGEND_LINE * len(lines) + 18 for lines in names]
    bottom = svg.TOP + sum(heights)
    body = svg.x_axis(x, svg.TOP, bottom, f"top-1 against {against}, points", percent=True)
    body.append(svg.element("line", class_="axis", x1=x(0), x2=x(0), y1=svg.TOP, y2=bottom))
    y = float(svg.TOP)
    for (outcome, gap, pair), lines, height in zip(behind, names, heights, strict=True):
        y += height
        verdict = "significant" if pair.significant else "not significant"
        numbers = f"{100 * gap.difference:+.2f} points [{100 * gap.low:+.2f}, {100 * gap.high:+.2f}]"
        tooltip = f"{outcome.label}: {numbers}, {verdict}"
        body += [svg.text(16, y - height + 15 + svg.LEGEND_LINE * i, line) for i, line in enumerate(lines)]
        series = 0 if pair.significant else svg.GREY
        ends = {"x1": x(gap.low), "x2": x(gap.high), "y1": y - 10, "y2": y - 10}
        body.append(svg.element("line", svg.tip(tooltip), class_=f"whisker {svg.colour(series)}", **ends))
        body.append(svg.dot(x(gap.difference), y - 10, series, tooltip, 4.5))
    words = "; ".join(
        f"{outcome.label} {100 * gap.difference:+.2f} [{100 * gap.low:+.2f}, {100 * gap.high:+.2f}]"
        for outcome, gap, _ in behind
    )
    worse, short = ("worse", ", even where the bar ends short of 0") if is_best else ("different", "")
    return Figure(
        "behind-the-best" if is_best else "against-the-baseline",
        "Behind the best" if is_best else f"Against {reference}",
        f"Top-1 of each method minus that of {reference}, percentage points with 95% intervals: {words}.",
        svg.drawing(body, bottom + 38, f"Top-1 minus that of {reference}, points: {words}"),
        ("method", "best" if is_best else "baseline", "difference", "low", "high", "p_corrected"),
        tuple((outcome.label, reference, gap.difference, gap.low, gap.high, pair.p) for outcome, gap, pair in behind),
        f"Bars: 95% intervals, of each pair by itself. Blue: significantly {worse}, corrected for the number of "
        f"pairs; grey: not significantly{short}.",
    )


def _looks(board: Leaderboard) -> Looks | None:
    return looks([outcome.row for outcome in board.outcomes])


def reliability(board: Leaderboard) -> Figure:
    """Draw the accuracy at each confidence, seeds pooled, in the bins of the calibration error; before and after it."""
    series, before, data = [], [], []
    for i, outcome in enumerate(board.outcomes):
        points = []
        for sure, share, answers, edges in _bins(outcome.confidence, outcome.correct):
            points.append((sure, share, f"{outcome.label}: {answers} answers with {edges}, {100 * share:.1f}% right"))
            data.append((outcome.label, "yes", sure, share, answers))
        series.append((outcome.label, points))
        if outcome.uncalibrated is not None:
            bins = _bins(outcome.uncalibrated, outcome.correct)
            before.append((i, [(sure, share) for sure, share, *_ in bins]))
            data += [(outcome.label, "no", sure, share, answers) for sure, share, answers, _ in bins]
    words = "; ".join(f"{o.label}: ECE {100 * o.row.mean('ece'):.1f}%" for o in board.outcomes)
    return curves(
        "reliability",
        "Reliability",
        series,
        Axes("confidence", "share right", diagonal=True),
        alt=f"Share of right answers against their confidence; on the dashed diagonal both agree. {words}.",
        header=("method", "calibrated", "mean_confidence", "share_right", "answers"),
        data=data,
        note="Below the diagonal a method is too sure, above it too modest. Bins with few answers scatter."
        + (" Thin lines: before the temperature." if before else ""),
        extra=before,
        looks=_looks(board),
    )


def _bins(confidence: Floats, correct: Bools) -> list[tuple[float, float, int, str]]:
    """Compute mean confidence, share right, answers and edges of each bin that has answers."""
    place = bin_of(confidence)
    bins = []
    for b in np.unique(place):
        inside = place == b
        edges = f"{b / BINS:.2f} to {(b + 1) / BINS:.2f}"
        bins.append((float(confidence[inside].mean()), float(correct[inside].mean()), int(inside.sum()), edges))
    return bins


def severity(board: Leaderboard) -> Figure:
    """Draw the share of test images at each LCA height."""
    highest = max(len(outcome.tree.levels) for outcome in board.outcomes)
    shares = [[float((outcome.height == h).mean()) for h in range(highest + 1)] for outcome in board.outcomes]
    one_tree = len({outcome.row.first.hierarchy.digest for outcome in board.outcomes}) == 1
    names = [_height_name(board.best, h, one_tree) for h in range(1, highest + 1)]
    chosen = _looks(board)
    body, bottom = _bars(board, shares, chosen, names)
    words = "; ".join(
        f"{outcome.label}: " + ", ".join(f"{name} {100 * row[h]:.1f}%" for h, name in enumerate(names, 1))
        for outcome, row in zip(board.outcomes, shares, strict=True)
    )
    alt = f"Share of test images answered wrong, by levels to climb to the lowest common ancestor: {words}."
    return Figure(
        "severity",
        "How wrong the wrong answers are",
        alt,
        svg.drawing(body, bottom, alt),
        ("method", "lca_height", "share_of_test_images"),
        tuple((o.label, h, s) for o, row in zip(board.outcomes, shares, strict=True) for h, s in enumerate(row)),
        "Mean over seeds; the height 0, right answers, is left out here and is in the data."
        + (chosen.words if chosen else ""),
    )


def _bars(
    board: Leaderboard, shares: Sequence[Sequence[float]], chosen: Looks | None, names: Sequence[str]
) -> tuple[list[Markup], float]:
    """Draw a bar for each row and height, and one legend; many rows have a panel for each tree.

    Returns the drawing and where it ends.
    """
    x = svg.Scale(0, len(names), svg.LEFT, svg.WIDTH - svg.RIGHT)
    panels = [chosen.inside(panel) for panel in range(len(chosen.panels))] if chosen else [list(range(len(shares)))]
    body: list[Markup] = []
    top = float(svg.TOP)
    for panel, members in enumerate(panels):
        title = chosen.panels[panel] if chosen else ""
        top += svg.LEGEND_LINE if title else 0
        _, y = svg.plot((0, 1), svg.span([v for row in shares for v in row[1:]], zero=True))
        y = replace(y, start=top + svg.PLOT_HEIGHT, end=top)
        body += [svg.text(svg.LEFT, top - 6, title, class_="panel")] if title else []
        body += svg.y_axis(y, x.start, x.end, "test images, %", percent=True)
        width = (x(1) - x(0)) * 0.8 / len(members)
        for h, name in enumerate(names, 1):
            body.append(svg.text(x(h - 0.5), y.start + 15, name, anchor="middle", class_="tick"))
            for place, i in enumerate(members):
                series = chosen.rows[i].series if chosen else i
                share, left = shares[i][h], x(h - 1) + (x(1) - x(0)) * 0.1 + width * place
                tooltip = f"{board.outcomes[i].label}, {name}: {100 * share:.2f}% of the test images"
                body.append(svg.bar(left, y(share), width * 0.92, y.start - y(share), series, tooltip))
        top = y.start + 24
    key = chosen.key if chosen else list(enumerate(outcome.label for outcome in board.outcomes))
    legend, height = svg.legend(key, top, lines=False)
    return [*body, *legend], top + height


def _height_name(outcome: Outcome, height: int, one_tree: bool) -> str:
    levels = outcome.tree.levels
    if one_tree and height == len(levels):
        return f"wrong {levels[0]}"  # only the root is so high
    if one_tree and height < len(levels) and outcome.tree.even:
        return f"same {levels[len(levels) - height - 1]}"
    return f"height {height}"


def climb(rows: Sequence[Row]) -> Figure | None:
    """Draw the accuracy of answers that climb against their depth. None where no run has it."""
    series: list[tuple[str, list[Point]]] = []
    colours = []
    for number, row in enumerate(rows):
        readings = [run.result.climb for _, run in row.trainings if run.result.climb]
        if not readings:
            continue
        points = []
        for seeds in zip(*readings, strict=True):
            depth, right = (
                float(np.mean([getattr(seed, key) for seed in seeds])) for key in ("specificity", "correct")
            )
            asked = f"{row.label}, confidence {seeds[0].confidence:g}"
            tooltip = f"{asked}: {100 * right:.1f}% on the true path, depth {100 * depth:.0f}%"
            points.append((depth, right, tooltip))
        series.append((row.label, points))
        colours.append(number)
    if not series:
        return None
    words = "; ".join(
        f"{name}: {100 * points[0][1]:.1f}% at the leaves, {100 * points[-1][1]:.1f}% at depth "
        f"{100 * points[-1][0]:.0f}%"
        for name, points in series
    )
    return curves(
        "stopping",
        "Stopping at an inner node",
        series,
        Axes("mean depth of the answers, % (100: all are leaves)", "on the true path, %", percent="xy"),
        alt=f"Share of answers on the true path against their depth, as the asked confidence grows: {words}.",
        header=("method", "specificity", "on_true_path"),
        note="Each point asks for more confidence: an answer goes as deep as its share of P_final allows.",
        colours=colours,
        looks=looks(rows),
    )


def rejection(board: Leaderboard) -> Figure:
    """Draw the accuracy against the coverage: the least certain images are rejected first."""
    series, data, marks = [], [], []
    for number, outcome in enumerate(board.outcomes):
        order = np.argsort(-outcome.confidence, axis=1, kind="stable")
        right = np.take_along_axis(outcome.correct, order, axis=1).cumsum(axis=1).mean(axis=0)
        confidence = np.take_along_axis(outcome.confidence, order, axis=1).mean(axis=0)
        count = len(right)
        points = []
        for share in np.linspace(0.05, 1, 20):
            kept = max(round(share * count), 1)
            accuracy, least = float(right[kept - 1] / kept), float(confidence[kept - 1])
            surest = f"the surest {kept}, with a confidence of {least:.3f} at least,"
            points.append((kept / count, accuracy, f"{outcome.label}: {100 * accuracy:.1f}% of {surest} are right"))
            data.append((outcome.label, kept / count, accuracy, least))
        series.append((outcome.label, points))
        marks += [(number, *point) for point in promises.points(outcome.row)]
    words = "; ".join(
        f"{name}: {100 * points[9][1]:.1f}% of the surer half, {100 * points[-1][1]:.1f}% of all"
        for name, points in series
    )
    return curves(
        "rejection",
        "Rejecting images",
        series,
        Axes("images answered, %", "top-1 of those, %", percent="xy"),
        alt=f"Top-1 against the share of images that are answered, the most certain first: {words}.",
        header=("method", "share_answered", "top1", "confidence"),
        data=data,
        marks=marks,
        looks=_looks(board),
        note="Leaves only; images in the order of the predicted leaf's share of P_final, of which confidence is the "
        "least among those answered. Mean over seeds."
        + (" Large points: the answers of a promise, inner nodes among them." if marks else ""),
    )
