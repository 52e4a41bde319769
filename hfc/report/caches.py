"""Rows on several caches of the same images: what differs, what it costs, and one method on each of them."""

import functools
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from hfc.errors import StoreError
from hfc.report.cells import Cell, Line, Table, p_text, plus_minus, signed
from hfc.report.gallery import cache_file
from hfc.report.identity import Column, feature_columns, identity, row_columns
from hfc.report.rows import Leaderboard, Outcome, Row
from hfc.report.statistics import Difference, differences
from hfc.report.tables import mark_best, measurement
from hfc.store import FeatureStore

UNKNOWN = "unknown"
PARTS = {"features": ("features",), "labels": ("labels", "rows"), "tree": ("tree", "name of the tree")}
"""Of an identity, what two matched rows differ in; they share all the rest."""
SHARED = ("method", "settings", "device")
COSTS = (
    "ms an image: of the whole extraction, by the cache where it is at hand. Bytes an image: of its features in the "
    "cache. "
)


def differing(rows: Sequence[Row], columns: Sequence[Column]) -> list[Column]:
    """Choose the columns in which some rows differ."""
    return [column for column in columns if len({column[1](row.first) for row in rows}) > 1]


def are_several(rows: Sequence[Row]) -> bool:
    """Whether rows rest on several features, and columns say how they differ."""
    columns = differing(rows, feature_columns())
    digests = {row.first.cache.features_sha256 for row in rows}
    return len(digests) > 1 and len(digests) == len({tuple(words(r.first) for _, words in columns) for r in rows})


def tables(board: Leaderboard) -> Iterator[Table]:
    """Make the table of features and the table of matched rows; none where all rows share their features."""
    rows = [outcome.row for outcome in board.outcomes]
    if len({row.first.cache.features_sha256 for row in rows}) < 2:
        return
    yield _overview(rows)
    matched = list(matches(board))
    if matched:
        yield _matched(differences(matched))


def _overview(rows: Sequence[Row]) -> Table:
    """Make the table of rows: what differs, and what their features cost."""
    columns = differing(rows, row_columns())
    body: list[Line] = []
    for row in rows:
        own = (Cell(words(row.first), _number(words(row.first))) for _, words in columns)
        body.append((Cell(row.label), measurement(row, "top1"), _milliseconds(row), _bytes(row), *own))
    header = ("method", "top-1 %", "ms an image", "bytes an image", *(name for name, _ in columns))
    note = f"Rows on the same test images and labels; a column for whatever differs. {COSTS}"
    return Table("caches", "Backbones, sizes and trees", header, tuple(mark_best(body, 1)), note.strip())


def _number(words: str) -> float | None:
    return float(words) if words.isdecimal() else None


def _milliseconds(row: Row) -> Cell:
    cache = row.first.cache
    seconds = seconds_an_image(cache_file(row), cache.feature_key)
    if seconds is None:
        return Cell(UNKNOWN, tip="the cache is not at hand, was brought up to date, or does not say")
    return Cell(f"{1000 * seconds:.1f}", 1000 * seconds)


def _bytes(row: Row) -> Cell:
    cache = row.first.cache
    stored = (cache.key_fields or {}).get("store")
    if stored not in ("float16", "float32"):
        return Cell(UNKNOWN, tip="the run does not say how its features are stored")
    size = cache.dim * cache.views * np.dtype(stored).itemsize
    return Cell(f"{size:,}", size)


@functools.lru_cache(maxsize=64)
def seconds_an_image(path: Path, key: str) -> float | None:
    """Read how long a cache took for an image; None where it is another cache, or that is not known.

    The time of a cache that was brought up to date is that of its first images alone.
    """
    try:
        with FeatureStore(path) as store:
            made = store.provenance
            rows = made.get("dataset", {}).get("rows", 0)
            if store.key != key or made.get("updates") or made.get("retries") or not rows or "seconds" not in made:
                return None
            return float(made["seconds"]) / rows
    except StoreError:
        return None


def matches(board: Leaderboard) -> Iterator[tuple[Outcome, Outcome]]:
    """Pair the rows that share everything but their features, their labels or their tree.

    Yields:
        The two rows; first the one whose features, labels or tree did best in any row.
    """
    for own in PARTS.values():
        groups: dict[str, list[Outcome]] = {}
        rank: dict[str, int] = {}
        for outcome in board.outcomes:  # the best first
            known = identity(outcome.row.first)
            others = [name for names in PARTS.values() for name in names if name not in own]
            groups.setdefault(str([known[name] for name in (*SHARED, *others)]), []).append(outcome)
            rank.setdefault(_value(outcome, own), len(rank))
        for same in groups.values():
            ordered = sorted(same, key=lambda outcome: rank[_value(outcome, own)])
            for first, second in combinations(ordered, 2):
                if _value(first, own) != _value(second, own):
                    yield first, second


def _value(outcome: Outcome, names: Sequence[str]) -> str:
    known = identity(outcome.row.first)
    return str([known[name] for name in names])


def _matched(pairs: Sequence[Difference]) -> Table:
    """Make the table of matched rows: what differs, and what that does to top-1."""
    body: list[Line] = []
    for pair in pairs:
        gap, before, after = pair.intervals["top1"], pair.first.row, pair.second.row
        means = " → ".join(plus_minus([row.mean("top1")]) for row in (before, after))
        gained = f"{signed(-gap.difference)} [{signed(-gap.high)}, {signed(-gap.low)}]"
        cells = [Cell(before.label), Cell(gained, -100 * gap.difference), Cell(what_differs(before, after))]
        cells += [Cell(p_text(pair.p), pair.p, best=pair.significant), Cell(means)]
        body.append(tuple(cells))
    header = ("method", "top-1 gained, points", "what changes", "p corrected", "top-1 %")
    note = (
        "Rows that share method, settings and all but what is named, on the same test images. Gained [95% interval]; "
        f"p corrected for the {len(pairs)} pair{'s' if len(pairs) > 1 else ''} here. Bold: significant."
    )
    return Table("matched", "What a change by itself does", header, tuple(body), note)


def what_differs(before: Row, after: Row) -> str:
    """Say in what features, labels and tree of two rows differ: px 224 → 96, pool mean → max; "" in nothing."""
    columns = differing((before, after), row_columns())
    words = [f"{name} {tell(before.first)} → {tell(after.first)}" for name, tell in columns]
    one, two = identity(before.first), identity(after.first)
    words += [f"other {part}" for part in PARTS if one[part] != two[part]] if not words else []
    return ", ".join(words)
