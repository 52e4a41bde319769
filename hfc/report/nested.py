"""Rows beside a baseline, with intervals of every metric; and what outer folds chose."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from hfc.metrics import Metric, error_of_confidence, metric
from hfc.report.cells import Cell, Table, p_text
from hfc.report.grouped import Interval
from hfc.report.resampled import draws_of
from hfc.report.rows import Leaderboard, Outcome, Row
from hfc.report.statistics import ALPHA, LEVEL, Difference, about_p, beside
from hfc.report.tables import mark_best, measurement

OVERVIEW = ("top1", "top3", "top5", "top1_macro", "mistake_severity", "distance@5", "ece", "nll")
CHANCE_DRAWS = 400  # of answers as right as their confidences say
UNDECIDED = "not told apart"
FEW = 3  # rows that are not told apart from the baseline and still named in the verdict


def overview(board: Leaderboard, differences: Sequence[Difference]) -> Table:
    """Make the first table of a leaderboard with a baseline: every metric with its interval."""
    keys = _keys(board)
    tested = {outcome: pair for outcome, _, pair in beside(board.reference, differences)}
    rows = [
        (
            Cell(outcome.label),
            *(_cell(board, outcome, key) for key in keys),
            _corrected(tested.get(outcome)),
            Cell(str(len(outcome.row.seeds)), len(outcome.row.seeds)),
        )
        for outcome in board.outcomes
    ]
    one_tree = len({outcome.row.first.hierarchy.digest for outcome in board.outcomes}) == 1
    for column, key in enumerate(keys, 1):
        if one_tree or not metric(key).of_tree:
            rows = mark_best(rows, column, metric(key).higher)
    header = ("method", *(metric(key).column for key in keys), f"p, from {board.reference.label}", "seeds")
    note = (
        f"[{LEVEL:.0%} interval] over {board.best.groups.words()}; means over seeds, whose own numbers are shown on "
        "pointing at one. In brackets after ECE: what chance alone would give where confidences are true. p: of top-1, "
        "corrected; * significant. See Differences."
    )
    return Table("headline", "The methods, best first", header, tuple(rows), note)


def _keys(board: Leaderboard) -> list[str]:
    return [key for key in OVERVIEW if any(outcome.row.values(key) for outcome in board.outcomes)]


def _cell(board: Leaderboard, outcome: Outcome, key: str) -> Cell:
    """Write a metric of a row with its interval."""
    one = metric(key)
    mean, interval = measurement(outcome.row, key), board.intervals[outcome].get(key)
    if mean.value is None:
        return mean
    by_seed = f"{mean.text} over seeds; {mean.tip}"
    text = f"{mean.value:.{one.digits}f}"
    if interval:
        text += f" [{_plain(one, interval.low)}, {_plain(one, interval.high)}]"
    elif key == "ece":
        text += f" ({100 * by_chance(outcome):.{one.digits}f})"
    return Cell(text, mean.value, tip=by_seed)


def by_chance(outcome: Outcome) -> float:
    """Compute the mean calibration error of answers whose confidences are true."""
    rng = np.random.default_rng(0)
    errors = [
        error_of_confidence(sure, rng.random(len(sure)) < sure)
        for sure in outcome.confidence
        for _ in range(max(CHANCE_DRAWS // len(outcome.confidence), 1))
    ]
    return float(np.mean(errors))


def _plain(one: Metric, value: float) -> str:
    return f"{one.scale * value:.{one.digits}f}"


def _corrected(pair: Difference | None) -> Cell:
    return Cell(p_text(pair.p) + (" *" if pair.significant else ""), pair.p) if pair else Cell("–")


def brief(board: Leaderboard, differences: Sequence[Difference]) -> list[list[str]]:
    """Write the first table for a terminal: an interval of top-1 alone."""
    table = overview(board, differences)
    header = [*table.header[:-2], "p", "seeds"]
    rows = [[*(cell.text for cell in row[:2]), *(_short(cell) for cell in row[2:])] for row in table.rows]
    return [header, *rows]


def _short(cell: Cell) -> str:
    return cell.text.partition(" [")[0].partition(" (")[0]


def differences(board: Leaderboard, pairs: Sequence[Difference]) -> Table:
    """Make the table of differences from the baseline: as many as there are other rows."""
    keys = list(dict.fromkeys(key for pair in pairs for key in pair.intervals))
    body = []
    for pair in pairs:
        test = pair.test
        body.append(
            (
                Cell(pair.first.label),
                *(_gap(key, pair.intervals.get(key)) for key in keys),
                Cell(f"{test.only_first}\u00a0:\u00a0{test.only_second}"),
                Cell(p_text(test.p), test.p),
                Cell(p_text(pair.p), pair.p, best=pair.significant),
            )
        )
    titles = (f"{metric(key).title}{', points' if metric(key).scale == 100 else ''}" for key in keys)
    note = (
        f"Each method minus {board.reference.label} [{LEVEL:.0%} interval]. Of distance, severity and NLL less is "
        "better. Right alone, p: of top-1. Bold: significant."
    )
    header = ("method", *titles, "right alone", "p", "p corrected")
    return Table("differences", f"Differences from {board.reference.label}", header, tuple(body), note)


def both(boards: Iterable[tuple[Leaderboard, Sequence[Difference]]]) -> Iterator[Table]:
    """Make the first table and the differences of some leaderboards."""
    for board, pairs in boards:
        yield overview(board, pairs)
        if pairs:
            yield differences(board, pairs)


def _gap(key: str, interval: Interval | None) -> Cell:
    if not interval:
        return Cell("–", tip="their trees differ")
    return Cell(signed_interval(key, interval), metric(key).scale * interval.difference)


def signed_interval(key: str, interval: Interval) -> str:
    """Write a difference of a metric and its interval, with their signs."""
    one = metric(key)
    numbers = (interval.difference, interval.low, interval.high)
    middle, low, high = (f"{one.scale * number:+.{one.digits}f}".replace("-", "−") for number in numbers)
    return f"{middle} [{low}, {high}]"


def method(board: Leaderboard, pairs: Sequence[Difference]) -> str:
    """Say how intervals and tests were computed."""
    kind = "groups" if board.best.groups.shared else "images"
    units = "groups of images, each with all its images" if kind == "groups" else "test images"
    return (
        f"Intervals: percentile bootstrap, {draws_of(len(board.best.target)):,} draws of the {units}, {LEVEL:.0%}; "
        "every metric is computed anew in each draw, for all rows from the same draws, which pairs them. They say how "
        "other images would change the numbers, not how other seeds or training images would, and are not corrected "
        f"for the number of rows. {about_p(kind)} p corrected: by Holm's method, for the comparisons with "
        f"{board.reference.label} alone. Significant: corrected p below {ALPHA:g}."
    )


def verdict(board: Leaderboard, pairs: Sequence[Difference]) -> str:
    """Say which row is best, and which rows are better or worse than the baseline."""
    best, reference, interval = board.best, board.reference, board.intervals[board.best]["top1"]
    seeds = len(best.row.seeds)
    over = f"{seeds} seed{'s' if seeds > 1 else ''}, {best.groups.words()}"
    if outer := best.row.first.outer:
        over += f", each tested once in {outer.folds} outer folds"
    top1 = f"{100 * interval.difference:.2f}% [{100 * interval.low:.2f}, {100 * interval.high:.2f}]"
    text = f"{best.label} has the highest top-1: {top1} ({over})."
    if not pairs:
        return f"{text} There is no other row to compare it with."
    parts: dict[str, list[str]] = {"significantly higher": [], "significantly lower": [], UNDECIDED: []}
    for outcome, gap, pair in beside(reference, pairs):
        higher = "significantly higher" if gap.difference > 0 else "significantly lower"
        words = f"{outcome.label} ({signed_interval('top1', gap)}, p {p_text(pair.p)})"
        parts[higher if pair.significant else UNDECIDED].append(words)
    if len(parts[UNDECIDED]) > FEW:  # a screen of p = 1.000; the table below has them
        parts[UNDECIDED] = [f"{len(parts[UNDECIDED])} rows"]
    listed = "; ".join(f"{name}: {', '.join(rows)}" for name, rows in parts.items() if rows)
    return f"{text} Top-1 against {reference.label}, in points, p corrected: {listed}."


def chosen(rows: Iterable[Row]) -> Table:
    """Make the table of the settings that each outer fold chose, row by row."""
    body, most = [], 0
    for row in rows:
        picked = {
            part.result.outer.number: ", ".join(
                f"{name}={part.result.config.get(name, '–')}" for name in part.result.outer.searched
            )
            for part in row.runs[0].parts
            if part.result.outer
        }
        if picked and row.first.outer:
            most = max(most, row.first.outer.folds)
            body.append([row.label, *(picked.get(number, "–") for number in range(row.first.outer.folds))])
    lines = tuple(tuple(Cell(text) for text in [*line, *["–"] * (most + 1 - len(line))]) for line in body)
    header = ("method", *(f"fold {number}" for number in range(most)))
    note = "The best point of the plan's search, which never saw the fold's images."
    return Table("chosen", "What each outer fold chose", header, lines, note)
