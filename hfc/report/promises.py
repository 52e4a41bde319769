"""What runs promise of their answers, and how it went on the test images."""

from collections.abc import Iterator, Sequence

import numpy as np

from hfc.report.cells import Cell, Table
from hfc.report.rows import Row
from hfc.runs import Result
from hfc.store.promise import TARGETS, Promise, least_right

FIRST = ("method", "seed", "target %", "threshold")
LAST = ("no answer %", "right %", "95% interval")
LEVEL = 0.95  # of an interval
NOTE = (
    "hfc predict --target-precision: with 95% confidence over the draw of the rows that prove it, at least the target "
    "share of the answers below the root is right; each target by itself. Threshold: the share of P_final that a node "
    "has at least to be the answer. Shares of the test images: answered on each level, and not at all. Right: of the "
    "answers to test images, with the interval of Clopper and Pearson, for which each image counts as drawn by itself; "
    "below an inner label an answer counts as wrong. A dash: the rows set aside do not prove so much."
)


def table(rows: Sequence[Row]) -> Table:
    """Make the table of promises: a line for each run and target. It is empty where no rows were set aside."""
    made = [(row, seed, run.result) for row in rows for seed, run in row.trainings if run.result.promise]
    names = list(dict.fromkeys(name for *_, result in made for name in result.hierarchy.levels))
    lines = [
        (
            Cell(row.label),
            Cell(seed, result.seed),
            Cell(f"{100 * target:g}", target),
            *_cells(result, target, names),
        )
        for row, seed, result in made
        for target in TARGETS
    ]
    header = (*FIRST, *(f"on {name} %" for name in names), *LAST)
    return Table("promise", "Answers with a promise", header, tuple(lines), NOTE)


def _cells(result: Result, target: float, names: Sequence[str]) -> Iterator[Cell]:
    """Make the cells of a target: threshold, answers by level, and how many of them are right."""
    promise = result.promise
    assert promise
    kept = promise.keep(target)
    if not kept:
        most = f"at most {100 * promise.most(target):g}% can be promised, by {promise.proof.rows} rows"
        yield Cell("–", tip=most)
        yield from (Cell("–") for _ in (*names, *LAST))
        return
    yield Cell(f"{kept.threshold:.4f}", kept.threshold)
    on_level = dict(zip(result.hierarchy.levels, promise.test.given[kept.place], strict=True))
    for name in names:
        yield _share(on_level[name] / promise.test.rows) if name in on_level else Cell("–")
    given, right = answered(promise, kept.place)
    yield _share(1 - given / promise.test.rows)
    yield _share(right / given) if given else Cell("–")
    low, high = interval(right, given)
    yield Cell(f"{100 * low:.1f} to {100 * high:.1f}")


def _share(value: float) -> Cell:
    return Cell(f"{100 * value:.1f}", 100 * value)


def answered(promise: Promise, place: int) -> tuple[int, int]:
    """Count the answers to test images at a threshold; and those of them that are right."""
    given, right = promise.test.sums()
    return int(given[place]), int(right[place])


def interval(right: int, given: int) -> tuple[float, float]:
    """Compute the interval of Clopper and Pearson (1934) for a share, two-sided."""
    both = np.array([right, given - right])
    low, rest = least_right(both, np.array([given, given]), (1 + LEVEL) / 2)
    return float(low), 1 - float(rest)


def points(row: Row) -> Iterator[tuple[float, float, str]]:
    """Give a point of a figure for each target that is promised.

    Returns:
        The share of test images that are answered, the share of right answers, and the tooltip. The shares are means
        over the seeds that promise it.
    """
    promises = [run.result.promise for _, run in row.trainings if run.result.promise]
    for target in TARGETS:
        shares = []
        for promise in promises:
            if kept := promise.keep(target):
                given, right = answered(promise, kept.place)
                shares.append((given / promise.test.rows, right / max(given, 1)))
        if shares:
            covered, right_share = np.mean(shares, axis=0).tolist()
            words = f"{row.label}, promised {100 * target:g}%: {100 * right_share:.1f}% right of {100 * covered:.1f}%"
            yield covered, right_share, words
