"""Figures of training: epoch by epoch, and at other β afterwards. Dimension: S seeds."""

from collections.abc import Callable, Sequence

import numpy as np

from hfc.metrics import metric
from hfc.report.looks import CROWDED, looks
from hfc.report.plots import Axes, Figure, Point, curves
from hfc.report.rows import Row

THIN = "Thick: mean over seeds; thin: each seed. "
MEAN = "Mean over seeds. "
Line = list[tuple[float, float]]


def validation(rows: Sequence[Row]) -> Figure:
    """Draw the metric that picked the epoch, and the selected epochs. Lines are the mean and the seeds.

    Where that is no share, a share is drawn in its place. Of more methods than CROWDED the seeds' own lines are in the
    data alone.
    """
    series: list[tuple[str, list[Point]]] = []
    thin, marks, data, ends = [], [], [], []
    for i, row in enumerate(rows):
        drawn = _share(row)
        lines = [[(float(epoch.number), float(epoch.val[drawn])) for epoch in run.epochs] for _, run in row.trainings]
        series.append((row.label, _over_seeds(row.label, lines, lambda y: f"{100 * y:.2f}%")))
        thin += _own_lines(i, lines) if len(rows) <= CROWDED else []
        seeds = [seed for seed, _ in row.trainings]
        data += [(row.label, s, x, y) for s, line in zip(seeds, lines, strict=True) for x, y in line]
        kept = [run.result.selected for _, run in row.trainings]
        chosen = [(float(one.epoch), float(one.val[drawn])) for one in kept]
        for seed, (x, y) in zip(seeds, chosen, strict=True):
            marks.append((i, x, y, f"{row.label}, seed {seed}: epoch {x:g} chosen, {100 * y:.2f}%"))
        epochs, scores = ", ".join(f"{x:g}" for x, _ in chosen), ", ".join(f"{100 * y:.1f}" for _, y in chosen)
        ends.append(f"{row.label} chose epoch {epochs} at {scores}%")
    lines_are = THIN if thin else MEAN if any(len(row.seeds) > 1 for row in rows) else ""
    metrics = " or ".join(dict.fromkeys(map(_share, rows)))
    return curves(
        "validation",
        "Validation by epoch",
        series,
        Axes("epoch", f"validation {metrics}, %", percent="y"),
        alt=f"Validation {metrics} by epoch, mean over seeds{' and each seed' if thin else ''}: {'; '.join(ends)}.",
        header=("method", "seed", "epoch", "validation"),
        data=data,
        note=f"{lines_are}Large points: the epochs that were chosen, on validation alone.",
        dots=1.2,
        extra=thin,
        marks=marks,
        looks=looks(rows),
    )


def _share(row: Row) -> str:
    """Choose the metric to draw: what picked the epochs, or a share where that is none."""
    kept = row.first.selected
    shares = (key for key in (kept.metric, "top1", "top1_macro") if metric(key).scale == 100 and key in kept.val)
    return next(shares, kept.metric)


def tasks(row: Row) -> list[Figure]:
    """Draw a row's unweighted task losses, and the tasks' weights where they change."""
    figures = []
    seeds = f"seed{'s' if len(row.seeds) > 1 else ''} {', '.join(map(str, row.seeds))}"
    for key, title, words in (
        ("loss", "Unweighted losses", "loss, unweighted"),
        ("weights", "Loss weights", "weight of the task"),
    ):
        series: list[tuple[str, list[Point]]] = []
        thin, data = [], []
        for i, task in enumerate(row.trainings[0][1].epochs[0].weights):
            lines = [[(float(e.number), float(getattr(e, key)[task])) for e in run.epochs] for _, run in row.trainings]
            series.append((task, _over_seeds(task, lines, lambda y: f"{y:.4g}")))
            thin += _own_lines(i, lines)
            named = zip((seed for seed, _ in row.trainings), lines, strict=True)
            data += [(task, s, x, y) for s, line in named for x, y in line]
        values = [value for *_, value in data]
        if key == "weights" and len(set(values)) == 1:
            continue  # they stay as they are
        ends = ", ".join(f"{task} from {points[0][1]:.3g} to {points[-1][1]:.3g}" for task, points in series)
        figures.append(
            curves(
                key,
                title,
                series,
                Axes("epoch", words, log=min(values) > 0 and max(values) > 4 * min(values)),
                alt=f"{title} of {row.label}, {'mean over ' if thin else ''}{seeds}: {ends}.",
                header=("task", "seed", "epoch", key),
                data=data,
                note=THIN.strip() if thin else "",
                dots=1.2,
                extra=thin,
            )
        )
    return figures


def _own_lines(i: int, lines: Sequence[Line]) -> list[tuple[int, Line]]:
    """List the seeds' own lines of series `i`; none where there is one seed."""
    return [(i, line) for line in lines] if len(lines) > 1 else []


def _over_seeds(name: str, lines: Sequence[Line], words: Callable[[float], str]) -> list[Point]:
    """Average the seeds' lines at each epoch; the tooltip has their range as well."""
    points = []
    for x, y in _mean_line(lines):
        values = [dict(line)[x] for line in lines]
        reach = f", seeds {words(min(values))} to {words(max(values))}" if len(values) > 1 else ""
        points.append((x, y, f"{name}, epoch {x:g}: {words(y)}{reach}"))
    return points


def _mean_line(lines: Sequence[Line]) -> Line:
    """Average some lines wherever all of them have a point."""
    by_seed = [dict(line) for line in lines]
    shared = sorted(set.intersection(*map(set, by_seed)))
    return [(x, float(np.mean([line[x] for line in by_seed]))) for x in shared]


def beta(rows: Sequence[Row]) -> Figure | None:
    """Draw top-1 of the trained heads at every β; None where no head blends."""
    series: list[tuple[str, list[Point]]] = []
    thin, marks, colours = [], [], []
    for number, row in enumerate(rows):
        readings = [run.result.beta for _, run in row.trainings if run.result.beta]
        if not readings:
            continue
        i = len(series)
        colours.append(number)
        means = {
            split: _mean_line([[(one.beta, one.top1) for one in getattr(betas, split)] for betas in readings])
            for split in ("test", "validation")
        }
        series.append((row.label, [(b, y, f"{row.label}, β = {b:g}: {100 * y:.2f}%") for b, y in means["test"]]))
        thin.append((i, means["validation"]))
        own = row.first.settings.beta
        marks += [(i, b, y, f"the runs' own β = {b:g}: {100 * y:.2f}%") for b, y in means["test"] if b == own]
    if not series:
        return None
    ranges = "; ".join(
        f"{name}: {100 * min(p[1] for p in points):.1f} to {100 * max(p[1] for p in points):.1f}%"
        for name, points in series
    )
    return curves(
        "beta",
        "Accuracy against β",
        series,
        Axes("β, share of the local output", "top-1, %", percent="y"),
        alt=f"Test top-1 against β from 0 to 1: {ranges}.",
        header=("method", "beta", "test_top1"),
        note="Mean over seeds. Thick: test; thin: validation; large point: the runs' own β.",
        extra=thin,
        marks=marks,
        colours=colours,
        looks=looks(rows),
    )
