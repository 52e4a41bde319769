"""Learning curves: top-1 against training images a class, the law that fits it, and what twice as many would bring.

Dimensions: P points of a curve, S seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from hfc import runs
from hfc.provenance import digest
from hfc.report.cells import Cell, Table, plus_minus, signed
from hfc.report.document import Block, Text
from hfc.report.identity import distinct_labels, identity
from hfc.report.plots import Axes, Figure, curves
from hfc.runs import Result, Run

Floats = NDArray[np.float64]

SHARE = "train_share"
SAME = ("method", "features", "labels", "name of the tree", "tree", "device")  # parts of an identity
EXPONENTS = 0.01, 2.0  # c of a law
FREE_FLOOR = 4  # points from which on `a` is fitted too; fewer would not tell it from a slow fall
LEAST_ERROR = 1e-4
LEVEL = 0.95  # of an interval
NOTE = (
    "Each point is trained on a share of the training images, whole groups drawn by hash in each class; a smaller "
    "share is a part of every larger one. ± is the sample standard deviation over seeds; each draws other images."
)


@dataclass(frozen=True)
class Law:
    """error = a + b·n^−c, for n training images a class."""

    a: float
    b: float
    c: float

    def __call__(self, n: float) -> float:
        """The error at n training images a class."""
        return float(self.a + self.b * n**-self.c)

    def __str__(self) -> str:
        """Write the law as a formula; without `a` where that is 0."""
        return f"error = {f'{self.a:.3f} + ' if self.a else ''}{self.b:.3f} · n^−{self.c:.3f}"


@dataclass(frozen=True)
class Doubling:
    """What twice as many training images would bring, by the laws of the seeds."""

    n: float
    """Training images a class, after doubling."""
    gain: float
    """Of top-1, as a fraction: the mean over seeds."""
    low: float | None
    """Of the interval of that mean over seeds; None of one seed."""
    high: float | None
    top1: float
    """What would be reached: the mean top-1 at the largest point, and the gain."""


@dataclass(frozen=True)
class Point:
    """Runs on one share of the training images."""

    share: float
    runs: tuple[Run, ...]
    """By seed."""
    leaves: int
    """Of the tree."""

    @property
    def sizes(self) -> list[float]:
        """Training images a class, seed by seed."""
        return [run.result.rows.train / self.leaves for run in self.runs]

    @property
    def top1(self) -> list[float]:
        """Test accuracy, seed by seed."""
        return [run.result.test["top1"] for run in self.runs]

    @property
    def n(self) -> float:
        """Mean training images a class."""
        return float(np.mean(self.sizes))


@dataclass(frozen=True)
class Curve:
    """A method on several shares of the same training images."""

    label: str
    points: tuple[Point, ...]
    """The fewest images first."""

    @property
    def law(self) -> Law:
        """The law that fits the means over seeds."""
        return fit([point.n for point in self.points], [1 - float(np.mean(point.top1)) for point in self.points])

    @property
    def doubling(self) -> Doubling:
        """What twice the images of the largest point would bring."""
        last, gains = self.points[-1], []
        for seed in sorted({run.result.seed for point in self.points for run in point.runs}):
            own = [
                (size, 1 - top1)
                for point in self.points
                for size, top1, run in zip(point.sizes, point.top1, point.runs, strict=True)
                if run.result.seed == seed
            ]
            if len({size for size, _ in own}) > 1:
                law = fit([size for size, _ in own], [error for _, error in own])
                gains.append(law(last.n) - law(2 * last.n))
        gain = float(np.mean(gains))
        reach = _reach(gains)
        low, high = (None, None) if reach is None else (gain - reach, gain + reach)
        return Doubling(2 * last.n, gain, low, high, float(np.mean(last.top1)) + gain)

    def to_json(self) -> dict[str, object]:
        """The curve as a JSON object."""
        law, doubling = self.law, self.doubling
        return {
            "label": self.label,
            "points": [
                {
                    "share": point.share,
                    "seeds": [run.result.seed for run in point.runs],
                    "training_images": [run.result.rows.train for run in point.runs],
                    "images_a_class": point.sizes,
                    "top1": point.top1,
                }
                for point in self.points
            ],
            "law": {"a": law.a, "b": law.b, "c": law.c},
            "doubling": vars(doubling),
        }


def _reach(values: Sequence[float]) -> float | None:
    """Half the width of the t interval of a mean; None of one value."""
    if len(values) < 2:
        return None
    return float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))


def fit(sizes: Sequence[float], errors: Sequence[float]) -> Law:
    """Fit error = a + b·n^−c by least squares of relative errors. Neither a nor b is below 0.

    For each c the best a and b are known exactly; so c alone is searched. Fewer than FREE_FLOOR different sizes do not
    tell a: it is 0 then.

    Args:
        sizes: (P,) training images a class, two different ones at least.
        errors: (P,) shares of wrong answers.
    """
    n, error = np.asarray(sizes, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    weight = 1 / np.maximum(error, LEAST_ERROR)
    columns = [np.ones_like(n)] if len(np.unique(n)) >= FREE_FLOOR else []

    def solved(c: float) -> tuple[Floats, float]:
        table = np.stack([*columns, (n / n.max()) ** -c], axis=1)  # of sizes near 1, which no power makes tiny
        return optimize.nnls(table * weight[:, None], error * weight)  # type: ignore[no-any-return]

    low, high = EXPONENTS
    grid = np.linspace(low, high, 200)
    best = int(np.argmin([solved(c)[1] for c in grid]))
    bounds = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    nearest = optimize.minimize_scalar(
        lambda c: solved(c)[1] ** 2, bounds=bounds, method="bounded", options={"xatol": 1e-9}
    )
    c = float(min((nearest.x, grid[best]), key=lambda c: solved(c)[1]))
    *a, b = solved(c)[0].tolist()
    return Law(a[0] if a else 0.0, b * float(n.max()) ** c, c)


def read_curves(every: Sequence[Run]) -> list[Curve]:
    """Find the learning curves among some runs: those that differ in their share of training images alone."""
    same: dict[str, dict[float, dict[int, Run]]] = {}
    for run in sorted(every, key=lambda run: run.result.created):
        if not run.result.outer:
            seeds = same.setdefault(_key(run.result), {}).setdefault(share_of(run), {})
            seeds[run.result.seed] = run
    several = [shares for shares in same.values() if len(shares) > 1]
    whole = [_whole(next(iter(shares[max(shares)].values())).result) for shares in several]
    labels = distinct_labels(whole, [identity(result) for result in whole])
    return [Curve(label, _points(shares)) for label, shares in zip(labels, several, strict=True)]


def _points(shares: Mapping[float, Mapping[int, Run]]) -> tuple[Point, ...]:
    leaves = len(runs.hierarchy(next(iter(shares[max(shares)].values()))).leaves)
    return tuple(
        Point(share, tuple(run for _, run in sorted(shares[share].items())), leaves) for share in sorted(shares)
    )


def share_of(run: Run) -> float:
    """The share of the training images that a run was trained on."""
    return float(str(run.result.config.get(SHARE, 1.0)))


def _key(result: Result) -> str:
    """A digest over what the runs of one curve share. What the data decide, as epochs, may differ."""
    parts = identity(_whole(result))
    return digest([parts[name] for name in SAME])


def _whole(result: Result) -> Result:
    """A result as if its run were on all training images."""
    return replace(result, changed={name: value for name, value in result.changed.items() if name != SHARE})


def without_parts(every: Sequence[Run], known: Sequence[Curve]) -> list[Run]:
    """Leave out the runs on fewer images than the largest point of their curve; they are no rows of a table."""
    parts = {run.folder for curve in known for point in curve.points[:-1] for run in point.runs}
    return [run for run in every if run.folder not in parts]


def answer(curve: Curve) -> str:
    """Say in a sentence what twice as many training images would bring."""
    doubling, seeds = curve.doubling, max(len(point.runs) for point in curve.points)
    interval = (
        f"95% interval {signed(doubling.low)} to {signed(doubling.high)} over {seeds} seeds"
        if (doubling.low is not None and doubling.high is not None)
        else "one seed, so no interval"
    )
    return (
        f"{curve.label}: twice as many training images, {doubling.n:.0f} a class, would bring {signed(doubling.gain)} "
        f"points of top-1 ({interval}), to {100 * doubling.top1:.2f}%, if the law goes on as it fits: {curve.law}."
    )


def blocks(known: Sequence[Curve]) -> tuple[Block, ...]:
    """Make the section of a report; nothing where there are no curves."""
    return (*(Text(answer(curve)) for curve in known), figure(known), *tables(known)) if known else ()


def tables(known: Sequence[Curve]) -> list[Table]:
    """Make a table for each curve: a line for each point."""
    header = ("images a class", "top-1 %", "by the law %", "training images", "share", "seeds")
    return [
        Table(f"curve-{number}", f"{curve.label}: top-1 against training images", header, _lines(curve), NOTE)
        for number, curve in enumerate(known, 1)
    ]


def _lines(curve: Curve) -> tuple[tuple[Cell, ...], ...]:
    law = curve.law
    return tuple(
        (
            Cell(f"{point.n:.1f}"),
            Cell(plus_minus(point.top1), float(np.mean(point.top1))),
            Cell(f"{100 * (1 - law(point.n)):.2f}", 1 - law(point.n)),
            Cell(f"{point.n * point.leaves:.0f}", point.n * point.leaves),
            Cell(f"{point.share:g}", point.share),
            Cell(str(len(point.runs)), len(point.runs)),
        )
        for point in curve.points
    )


def figure(known: Sequence[Curve]) -> Figure:
    """Draw the curves with their laws, out to twice the images."""
    series, laws, marks = [], [], []
    for i, curve in enumerate(known):
        means = [(point.n, float(np.mean(point.top1))) for point in curve.points]
        series.append((curve.label, [(n, y, f"{curve.label}, {n:.1f} a class: {100 * y:.2f}%") for n, y in means]))
        law, doubling = curve.law, curve.doubling
        laws.append((i, [(float(n), 1 - law(n)) for n in np.geomspace(means[0][0], doubling.n, 40)]))
        marks.append(
            (i, doubling.n, doubling.top1, f"{curve.label}, twice as many: {100 * doubling.top1:.2f}% by the law")
        )
    return curves(
        "curve",
        "Top-1 against training images",
        series,
        Axes("training images a class", "top-1, %", percent="y", log_x=True),
        alt="Top-1 against training images a class. " + " ".join(map(answer, known)),
        header=("method", "images_a_class", "top1"),
        note="Points: means over seeds. Thin: the law that fits. Large points: with twice as many images, by the law.",
        extra=laws,
        marks=marks,
    )
