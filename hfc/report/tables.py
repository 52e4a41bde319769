"""The report's tables: the text, order and source of each cell."""

import csv
import io
import statistics
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources

from hfc.metrics import LEVEL, METRICS, metric
from hfc.report.cells import Cell, Table, p_text, plus_minus, signed
from hfc.report.rows import Leaderboard, Outcome, Row
from hfc.report.statistics import Difference, beside

HEADLINE = ("top1", "top3", "top5", "hF")

MOST_PAIRS = 500  # of rows, in a table: 32 rows have fewer


def published() -> list[dict[str, str]]:
    """Read the published results: method, top3, top5 (percent), landmarks, source, checked."""
    text = (resources.files("hfc.report") / "published.csv").read_text("utf-8")
    return list(csv.DictReader(io.StringIO(text)))


def is_the_papers(rows: Sequence[Row]) -> bool:
    """Whether all rows are of the paper's data, so that its table may stand beside."""
    return all(row.of_deepfashion for row in rows)


def measurement(row: Row, key: str) -> Cell:
    """Make the cell of a metric: mean and deviation, and each seed's number as tooltip."""
    values, scale, digits = row.values(key), metric(key).scale, metric(key).digits
    by_seed = ", ".join(f"seed {seed}: {scale * v:.{digits}f}" for seed, v in zip(row.seeds, values, strict=False))
    return Cell(plus_minus(values, scale, digits), scale * statistics.fmean(values) if values else None, tip=by_seed)


def mark_best(rows: list[tuple[Cell, ...]], column: int, most: bool = True) -> list[tuple[Cell, ...]]:
    """Mark the best cells of a column; none where all rows are equally good."""
    values = [row[column].value for row in rows if row[column].value is not None]
    if len(set(values)) < 2:
        return rows
    best = (max if most else min)(value for value in values if value is not None)
    return [
        (*row[:column], replace(row[column], best=row[column].value == best), *row[column + 1 :])
        if row[column].value is not None
        else row
        for row in rows
    ]


def _one_tree(rows: Sequence[Row]) -> bool:
    """Whether metrics that depend on the tree may be compared."""
    return len({row.first.hierarchy.digest for row in rows}) == 1


def headline(board: Leaderboard, differences: Sequence[Difference]) -> Table:
    """Make the first table: the rows of a leaderboard. It says how far they are behind the best."""
    behind = {outcome: (gap, pair) for outcome, gap, pair in beside(board.best, differences)}
    rows = []
    for outcome in board.outcomes:
        gap, pair = behind.get(outcome, (None, None))
        rows.append(
            (
                Cell(outcome.label),
                *(measurement(outcome.row, key) for key in HEADLINE),
                Cell(
                    f"{signed(gap.difference)} [{signed(gap.low)}, {signed(gap.high)}]",
                    100 * gap.difference,
                )
                if gap
                else Cell("–"),
                Cell(p_text(pair.p) + (" *" if pair.significant else ""), pair.p) if pair else Cell("–"),
                Cell(str(len(outcome.row.seeds)), len(outcome.row.seeds)),
            )
        )
    for column in range(1, 5 if _one_tree([outcome.row for outcome in board.outcomes]) else 4):
        rows = mark_best(rows, column)
    titles = [METRICS[key].column for key in HEADLINE]
    header = ("method", *titles, "top-1 against the best, points", "p", "seeds")
    over = f" over {board.best.groups.count:,} groups of images" if board.best.groups.shared else ""
    note = f"Mean ± sample standard deviation over seeds; [95% interval]{over}; * significant. See Differences."
    return Table("headline", "The methods, best first", header, tuple(rows), note)


def table1(rows: Sequence[Row]) -> Table:
    """Make the paper's Table 1: measured rows, then cited ones."""
    measured = [
        (
            Cell(row.label),
            measurement(row, "top3"),
            measurement(row, "top5"),
            Cell("no"),
            Cell(str(len(row.seeds)), len(row.seeds)),
            Cell("measured"),
        )
        for row in rows
    ]
    cited = [
        (
            Cell(entry["method"]),
            Cell(entry["top3"], float(entry["top3"])),
            Cell(entry["top5"], float(entry["top5"])),
            Cell(entry["landmarks"]),
            Cell("–"),
            Cell(f"cited: {entry['source']}"),
        )
        for entry in published()
    ]
    header = ("method", METRICS["top3"].column, METRICS["top5"].column, "landmarks", "seeds", "origin")
    note = "Measured rows: mean ± sample standard deviation over seeds. Cited rows: as published."
    return Table("table1", "Table 1: top-k accuracy", header, (*measured, *cited), note)


def hierarchical(rows: Sequence[Row]) -> Table:
    """Make the table of metrics that know the tree, and top-1 beside them."""
    left_out = ("top3", "top5", "ece", "nll")  # they stand in tables of their own
    keys = [key for key in METRICS if key not in left_out and any(row.values(key) for row in rows)]
    body = [(Cell(row.label), *(measurement(row, key) for key in keys)) for row in rows]
    for column, key in enumerate(keys, 1):
        if not METRICS[key].of_tree or _one_tree(rows):
            body = mark_best(body, column, METRICS[key].higher)
    note = (
        "Distance and severity are levels to climb to the lowest common ancestor, in an uneven tree from the deepest "
        "leaf below it. Severity looks at errors only: read it together with top-1. Inconsistent: the levels' own "
        "answers are no path of the tree."
    )
    header = ("method", *(METRICS[key].column for key in keys))
    return Table("hierarchical", "Table 2: hierarchical metrics", header, tuple(body), note)


def levels(rows: Sequence[Row]) -> Table:
    """Make the table of each level's own accuracy. A level that no run has measured is left out."""
    every = dict.fromkeys(name for row in rows for name in row.first.hierarchy.levels)
    names = [name for name in every if any(row.values(LEVEL + name) for row in rows)]
    body = [(Cell(row.label), *(measurement(row, LEVEL + name) for name in names)) for row in rows]
    same = _one_tree(rows) and len({row.first.rows.inner.get("test", 0) for row in rows}) == 1
    for column in range(1, len(names) + 1) if same else ():
        body = mark_best(body, column)
    note = (
        "Coarse to fine. A level's own answer is its most probable node; on the last level it is that of P_final's "
        "most probable leaf. Test images whose label lies above a level do not count there."
    )
    header = ("method", *level_columns(["method"], names))
    return Table("levels", "Accuracy of each level's own answer, %", header, tuple(body), note, narrow=True)


def level_columns(taken: Sequence[str], levels: Sequence[str]) -> list[str]:
    """Name the columns of levels; other columns may have their names."""
    return [f"level {name}" if name in taken else name for name in levels]


def calibration(rows: Sequence[Outcome]) -> Table:
    """Make the table of calibration: whether a probability can be trusted."""
    calibrated = any(run.result.temperature for outcome in rows for run in outcome.row.runs)
    body: list[tuple[Cell, ...]] = []
    for outcome in rows:
        sure, right = outcome.confidence.mean(axis=1), outcome.correct.mean(axis=1)
        gap = float((sure - right).mean())
        body.append(
            (
                Cell(outcome.label),
                measurement(outcome.row, "ece"),
                Cell(plus_minus(list(sure)), 100 * float(sure.mean())),
                Cell(signed(gap), 100 * gap, tip="too sure" if gap > 0 else "too modest"),
                *(_temperature(outcome.row) if calibrated else ()),
            )
        )
    note = (
        "ECE: expected calibration error of the predicted leaf's share of P_final, 15 bins. Confidence above top-1: "
        "too sure. Decoded by least cost, the shares are scores and no probabilities."
    )
    header: tuple[str, ...] = ("method", METRICS["ece"].column, "mean confidence %", "above top-1, points")
    if calibrated:
        header += ("NLL", "temperature", "ECE % before", "NLL before")
        note += (
            " NLL: mean negative log-likelihood of the true leaf. Before: without the temperature, which was fitted on "
            "validation."
        )
    return Table("calibration", "Calibration", header, tuple(mark_best(body, 1, most=False)), note, narrow=True)


def _temperature(row: Row) -> tuple[Cell, ...]:
    """Make the cells of NLL, temperature, and ECE and NLL before it."""
    kept = [run.result.temperature for run in row.runs if run.result.temperature]
    before = [temperature.test for temperature in kept if temperature.test]
    columns = (
        (row.values("nll"), 1, 3),
        ([temperature.value for temperature in kept], 1, 3),
        ([trust.ece_before for trust in before], 100, 2),
        ([trust.nll_before for trust in before], 1, 3),
    )
    return tuple(
        Cell(plus_minus(values, scale, digits), scale * statistics.fmean(values)) if values else Cell("–")
        for values, scale, digits in columns
    )


def differences(pairs: Sequence[Difference]) -> Table:
    """Make the table of differences: every pair of rows on the same images."""
    keys = list(dict.fromkeys(key for pair in pairs for key in pair.intervals))
    body = []
    for pair in pairs[:MOST_PAIRS]:
        intervals = [pair.intervals.get(key) for key in keys]
        by_seed = ", ".join(f"seed {seed}: {p_text(p)}" for seed, p in pair.by_seed.items())
        body.append(
            (
                Cell(pair.first.label),
                Cell(pair.second.label),
                *(
                    Cell(f"{signed(i.difference)} [{signed(i.low)}, {signed(i.high)}]", 100 * i.difference)
                    if i
                    else Cell("–", tip="their trees differ")
                    for i in intervals
                ),
                Cell(f"{pair.test.only_first}\u00a0:\u00a0{pair.test.only_second}"),
                Cell(p_text(pair.test.p), pair.test.p, tip=f"seed by seed: {by_seed}" if by_seed else ""),
                Cell(p_text(pair.p), pair.p, best=pair.significant),
            )
        )
    header = (
        "first",
        "second",
        *(f"{metric(key).title}, points" for key in keys),
        "right alone",
        "p",
        "p corrected",
    )
    note = "First minus second [95% interval]. Bold: significant. The p of each seed is shown on pointing at p."
    if pairs and pairs[0].first.groups.shared:
        note += f" Intervals and p are over the {pairs[0].first.groups.count:,} groups of the test images."
    if len(pairs) > MOST_PAIRS:
        note += f" Shown: the {MOST_PAIRS} pairs of the best rows, of {len(pairs):,}; all are in differences.csv."
    return Table("differences", "Differences on the same test images", header, tuple(body), note)


BETA_NOTE = (
    "P_final = β P_local + (1−β) P_global of the trained heads. The other tables are at the run's own β. β best on "
    "validation, by top-1, is listed seed by seed; the validation figures there are flattered by the choice, the test "
    "figures are not."
)


def betas(rows: Sequence[Row]) -> Table:
    """Make the table of top-1 at the run's β and at the best. It is empty where no head blends."""
    shown = [row for row in rows if any(run.result.beta for _, run in row.trainings)]
    header = (
        "method",
        "β of the run",
        "validation top-1 %",
        "test top-1 %",
        "β best on validation",
        "validation top-1 % there",
        "test top-1 % there",
    )
    return Table("betas", "β after training", header, tuple(map(_betas, shown)), BETA_NOTE)


def _betas(row: Row) -> tuple[Cell, ...]:
    readings = [(run.result.settings.beta, run.result.beta) for _, run in row.trainings if run.result.beta]
    own = [beta for beta, _ in readings]
    best = [read.best_on_validation for _, read in readings]

    def top1(split: str, betas: Sequence[float]) -> Cell:
        curves = [{reading.beta: reading.top1 for reading in getattr(read, split)} for _, read in readings]
        values = [curve[beta] for curve, beta in zip(curves, betas, strict=True)]
        return Cell(plus_minus(values), 100 * statistics.fmean(values))

    cells = [Cell(row.label)]
    for shown, betas in ((sorted(set(own)), own), (best, best)):
        mean = statistics.fmean(shown)
        listed = Cell(", ".join(f"{beta:g}" for beta in shown), mean)
        cells += [listed, top1("validation", betas), top1("test", betas)]
    return tuple(cells)
