"""What stands above a report: data, backbone, date, the answer in one sentence, and by what rows are chosen."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hfc.report.rows import Leaderboard, Row
from hfc.report.statistics import Difference, beside

Fact = tuple[str, str]
"""What it is, and its value."""
MOST_LISTED = 4  # values of a fact
Facet = tuple[str, tuple[tuple[str, tuple[int, ...]], ...]]
"""A name, and its values with the places of the rows that have them."""


@dataclass(frozen=True)
class Filters:
    """By what the rows of a page are chosen."""

    labels: tuple[str, ...] = ()
    """Of all rows; places count from 0."""
    facets: tuple[Facet, ...] = ()
    """Method, tree and cache, where rows differ in them."""

    @cached_property
    def _place(self) -> dict[str, int]:
        return {label: i for i, label in enumerate(self.labels)}

    def places(self, *texts: str) -> str:
        """List the places of the rows that some texts name: "0 4"; "" where they name none."""
        return " ".join(str(self._place[text]) for text in texts if text in self._place)

    def place_of_title(self, title: str) -> str:
        """Find the place of the row that a title begins with; "" where it begins with none."""
        return self.places(max((label for label in self.labels if title.startswith(f"{label}: ")), key=len, default=""))


def filters(rows: Sequence[Row]) -> Filters:
    """Say by what rows can be chosen: what no two rows differ in is left out."""
    words: list[tuple[str, list[str]]] = [
        ("method", [row.first.outer.row if row.first.outer else row.first.method for row in rows]),
        ("tree", [row.first.hierarchy.name for row in rows]),
        ("cache", _caches(rows)),
    ]
    facets = []
    for name, values in words:
        different = dict.fromkeys(values)
        if len(different) > 1:
            facets.append((name, tuple((one, tuple(i for i, v in enumerate(values) if v == one)) for one in different)))
    return Filters(tuple(row.label for row in rows), tuple(facets))


def _caches(rows: Sequence[Row]) -> list[str]:
    """Name the caches of rows by their files; caches of one name by their features too."""
    stems = [(Path(row.first.cache.path).stem, row.first.cache.features_sha256) for row in rows]
    alike = Counter(stem for stem, _ in set(stems))
    return [stem if alike[stem] == 1 else f"{stem} ({digest[:8]})" for stem, digest in stems]


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
