"""What stands above a report: the data, the backbone, the date, and the answer in one sentence."""

from collections.abc import Iterable, Sequence

from hfc.report.rows import Leaderboard, Row
from hfc.report.statistics import Difference, beside

Fact = tuple[str, str]
"""What it is, and its value."""
MOST_LISTED = 4  # values of a fact


def facts(rows: Sequence[Row], boards: Sequence[Leaderboard]) -> tuple[Fact, ...]:
    """Say what was measured, with what and when; values that rows share stand once."""
    words: list[tuple[str, Iterable[str]]] = [
        ("data", (row.first.cache.origin for row in rows)),
        ("images", map(_images, rows)),
        ("classes", _classes(boards)),
        ("backbone", map(_backbone, rows)),
        ("trained", _dates(rows)),
    ]
    return tuple((name, _listed(values)) for name, values in words)


def _listed(values: Iterable[str]) -> str:
    different = list(dict.fromkeys(values))
    more = len(different) - MOST_LISTED
    return "; ".join(different[:MOST_LISTED]) + (f"; and {more} more" if more > 0 else "")


def _images(row: Row) -> str:
    rows = row.first.rows
    return f"{rows.train:,} for training, {rows.val:,} for validation, {rows.test:,} for the test"


def _classes(boards: Sequence[Leaderboard]) -> Iterable[str]:
    for board in boards:
        for outcome in board.outcomes:
            tree = outcome.tree
            yield f"{len(tree.leaves):,} in the tree {tree.name} of {_count(len(tree.levels), 'level')}"


def _backbone(row: Row) -> str:
    cache = row.first.cache
    side = f" at {cache.image_size} px" if cache.image_size else ""
    return f"{cache.backbone}{side}{' with RANDOM WEIGHTS' if cache.random_weights else ''}"


def _dates(rows: Sequence[Row]) -> Iterable[str]:
    days = sorted({run.result.created[:10] for row in rows for run in row.runs})
    yield days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def answer(board: Leaderboard, differences: Sequence[Difference]) -> str:
    """Say in one sentence which row is best, and how sure that is."""
    best = board.best
    text = f"{best.label} is best, with {100 * best.row.mean('top1'):.1f}% of the test images right"
    others = len(board.outcomes) - 1
    if not others:
        return f"{text}; there is no other row."
    if board.baseline and board.baseline is not best:
        ((_, _, pair),) = (one for one in beside(best, differences) if one[0] is board.baseline)
        than = f"{board.baseline.label}, the baseline"
        return f"{text}: {'' if pair.significant else 'not '}significantly more than {than}."
    worse = sum(pair.significant for outcome, _, pair in beside(best, differences) if outcome is not best)
    return f"{text}: {_how_sure(worse, others)}."


def _how_sure(worse: int, others: int) -> str:
    if worse == others:
        return "significantly more than " + ("the other row" if others == 1 else f"each of the {others} other rows")
    if not worse:
        return "these images do not tell it apart from " + (
            "the other row" if others == 1 else f"any of the {others} other rows"
        )
    return f"significantly more than {worse} of the {others} other rows, not told apart from {others - worse}"
