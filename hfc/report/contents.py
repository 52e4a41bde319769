"""What stands in a report, in order. The page and the Markdown are two ways to write it."""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from hfc.progress import steps
from hfc.report import caches, categories, confused, figures, header, nested, promises, tables, training, trees
from hfc.report.cells import Table, p_text, plus_minus, signed
from hfc.report.checks import Check, provenance, some
from hfc.report.document import Block, Document, Folded, Section, Text
from hfc.report.plots import Figure
from hfc.report.rows import Leaderboard, Row
from hfc.report.statistics import Difference, all_pairs, method

MOST_DRAWN = 16  # rows with pictures of their own
MOST_PAIRS_OPEN = 10  # of rows; more are folded

NO_TWINS = (
    "Not looked for. An image that stands in training and among the test images makes every accuracy here too high: "
    "hfc inspect CACHE --twins DIR finds such pairs, and hfc report --twins DIR counts without them."
)
NO_PROMISE = (
    "No threshold here comes with a promise. Of runs trained with hfc train --set promise_share=0.5, a table says how "
    "many answers are given, and how many of them are right, at each share that can be promised."
)

Named = TypeVar("Named", Table, Figure)


def report(
    rows: Sequence[Row],
    boards: Sequence[Leaderboard],
    differences: Sequence[Sequence[Difference]],
    checks: Sequence[Check],
    galleries: Sequence[Folded],
    twins: Sequence[Table] = (),
    learning: Sequence[Block] = (),
) -> Document:
    """Make the report of some rows.

    Args:
        rows: all of them.
        boards: those that may be compared.
        differences: every pair of each leaderboard, or those with its baseline.
        checks: what was checked.
        galleries: mistakes with their pictures, where they were asked for.
        twins: for each leaderboard, its accuracies with and without twins; none where they are not known.
        learning: curves of accuracy against training images.
    """
    sections = (
        Section(*part[:2], tuple(part[2]))
        for part in steps(_plan(rows, boards, differences, galleries, twins, learning), "drawing")
    )
    verdicts = tuple(part.verdict() for part in _parts(boards, differences))
    answers = tuple(itertools.starmap(header.answer, zip(boards, differences, strict=True)))
    filled = tuple(section for section in sections if section.blocks)
    above = header.facts(rows, boards), header.filters(rows)
    return Document("Results", verdicts, tuple(checks), filled, answers, *above)


def _plan(
    rows: Sequence[Row],
    boards: Sequence[Leaderboard],
    differences: Sequence[Sequence[Difference]],
    galleries: Sequence[Folded],
    twins: Sequence[Table],
    learning: Sequence[Block],
) -> list[tuple[str, str, Iterable[Block]]]:
    """List the sections: anchor, title and blocks. Most blocks are made when their section's turn comes."""
    parts = _parts(boards, differences)
    join = itertools.chain.from_iterable
    in_tree = itertools.chain(
        (tables.hierarchical(rows), tables.levels(rows)), join(part.hierarchy() for part in parts)
    )
    largest = max((len(board.outcomes) for board in boards), default=0)
    rejection = itertools.chain(
        _some(figures.climb(rows), promises.table(rows)),
        join(part.rejection() for part in parts),
        () if any(run.result.promise for row in rows for _, run in row.trainings) else (Text(NO_PROMISE),),
    )
    return [
        ("best", "Which is best", join(part.best() for part in parts)),
        ("caches", "Which features", join(part.caches() for part in parts)),
        ("table1", "The paper's table", _some(tables.table1(rows) if tables.is_the_papers(rows) else None)),
        ("differences", "Are the differences real", join(part.differences() for part in parts)),
        ("curve", "How many photographs are enough", learning),
        ("hierarchy", "In the tree", in_tree),
        ("calibration", "Can its probabilities be trusted", join(part.calibration() for part in parts)),
        ("beta", "The balance β", _some(tables.betas(rows), training.beta(rows))),
        ("rejection", "When it may say less", rejection),
        ("categories", "Categories", join(part.categories() for part in parts)),
        ("mistakes", "Mistakes", (*galleries, *(_undrawn(largest) if galleries else ()))),
        ("twins", "Twins", _twins(parts, twins)),
        ("training", "Training", _trainings(rows)),
        ("provenance", "Provenance", (*_some(nested.chosen(rows)), provenance(rows))),
    ]


def _twins(parts: Sequence["_Blocks"], tables_of: Sequence[Table]) -> Iterator[Block]:
    """Show the accuracies with and without twins; where they were not looked for, say how."""
    yield from (part.named(table) for part, table in zip(parts, tables_of, strict=False))
    if not tables_of:
        yield Text(NO_TWINS)


def _parts(boards: Sequence[Leaderboard], differences: Sequence[Sequence[Difference]]) -> list["_Blocks"]:
    prefixes = [f"{i}-" if len(boards) > 1 else "" for i in range(1, len(boards) + 1)]
    return [_Blocks(*members) for members in zip(boards, differences, prefixes, strict=True)]


def verdict(board: Leaderboard, differences: Sequence[Difference]) -> str:
    """Say which row is best, by how much, and whether that is significant."""
    best, seeds = board.best, len(board.best.row.seeds)
    over = f"{seeds} seed{'s' if seeds > 1 else ''}, {best.groups.words()}"
    text = f"{best.label} has the highest top-1: {plus_minus(best.row.values('top1'))}% ({over})."
    behind = [difference for difference in differences if difference.first is best]
    if not behind:
        return f"{text} There is no other row to compare it with."
    second = behind[0]
    gap = second.intervals["top1"]
    text += (
        f" It is {100 * gap.difference:.2f} points above {second.second.label} "
        f"(95% interval {signed(gap.low)} to {signed(gap.high)}, corrected p {p_text(second.p)}): "
    )
    if second.significant:
        text += "significant."
    else:
        text += "not significant, so these test images do not tell the two apart."
    if len(behind) > 1:
        beaten = [difference.second.label for difference in behind if difference.significant]
        worse = f"{len(beaten) or 'none'} of the {len(behind)} others"
        more = f" and {len(beaten) - MOST_DRAWN} more" if len(beaten) > MOST_DRAWN else ""
        text += (
            f" Significantly worse: {worse}" + (f" ({'; '.join(beaten[:MOST_DRAWN])}{more})" if beaten else "") + "."
        )
    return text


@dataclass(frozen=True)
class _Blocks:
    """The blocks of one leaderboard."""

    board: Leaderboard
    pairs: Sequence[Difference]
    prefix: str
    """What the names of its figures begin with, where there are several leaderboards."""

    def verdict(self) -> str:
        return (nested.verdict if self.board.baseline else verdict)(self.board, self.pairs)

    def best(self) -> Iterator[Block]:
        figure = figures.forest(self.board, self.pairs)
        first = nested.overview if self.board.baseline else tables.headline
        yield self.named(first(self.board, self.pairs))
        if figure:
            yield self.named(figure)

    def caches(self) -> Iterator[Block]:
        yield from map(self.named, caches.tables(self.board))

    def differences(self) -> Iterator[Block]:
        if self.board.baseline:
            if self.pairs:
                yield self.named(nested.differences(self.board, self.pairs))
            yield Text(nested.method(self.board, self.pairs))
            if len(self.board.outcomes) > 2:
                yield self.every_pair(all_pairs(self.board.outcomes))
        elif len(self.pairs) > MOST_PAIRS_OPEN:
            yield Text(f"{self.board.best.label} against each other row stands above. {method(self.pairs)}")
            yield self.every_pair(self.pairs)
        elif self.pairs:
            yield self.named(tables.differences(self.pairs))
            yield Text(method(self.pairs))

    def every_pair(self, pairs: Sequence[Difference]) -> Folded:
        """Fold the table of all pairs. Beside a baseline p is corrected for all of them there alone."""
        table = tables.differences(pairs)
        name = "pairs" if self.board.baseline else table.name
        note = f"{table.note} p corrected: for all {len(pairs):,} pairs."
        return Folded(f"All {len(pairs):,} pairs", (self.named(replace(table, name=name, note=note)),))

    def hierarchy(self) -> Iterator[Block]:
        yield self.named(figures.severity(self.board))

    def calibration(self) -> Iterator[Block]:
        yield self.named(tables.calibration(self.board.outcomes))
        yield self.named(figures.reliability(self.board))

    def rejection(self) -> Iterator[Block]:
        yield self.named(figures.rejection(self.board))

    def categories(self) -> Iterator[Block]:
        best, every = self.board.best, self.named(categories.table(self.board))
        own = self.named(confused.table(best))
        if every.folded:
            yield from (every, Folded(f"Precision and F1: {best.label}", (own,)))
        else:
            yield own
        if unseen := confused.unseen(best):
            yield Folded(f"{len(unseen):,} without test images", (Text(some(unseen, confused.MOST_LISTED, "; ")),))
        yield self.named(categories.figure(self.board))
        if pairs := confused.pairs(best):
            yield self.named(confused.pairs_table(best, pairs))
        if not every.folded and len(self.board.outcomes) > 1:
            yield Folded("Accuracy of each category in every row", (every,))
        yield from self.trees(open_first=not every.folded)

    def trees(self, open_first: bool) -> Iterator[Block]:
        for i, outcome in enumerate(steps(self.board.outcomes[:MOST_DRAWN], "drawing trees"), 1):
            matrices, left_out = trees.confusion(outcome)
            blocks: list[Block] = [self.named(trees.tree(outcome), i, outcome.label)]
            blocks += [Text(left_out)] if left_out else []
            blocks += [self.named(figure, i, outcome.label, k) for k, figure in enumerate(matrices)]
            title = f"{outcome.label}: the tree, and what is taken for what"
            yield Folded(title, tuple(blocks), open=i == 1 and open_first)
        yield from _undrawn(len(self.board.outcomes))

    def named(self, block: Named, *more: object) -> Named:
        """Give a block of the leaderboard a name of its own."""
        return replace(block, name="-".join([f"{self.prefix}{block.name}", *map(_plain, more)]))


def _plain(word: object) -> str:
    """Turn words into what may stand in a file's name."""
    return re.sub(r"[^A-Za-z0-9+]+", "-", str(word)).strip("-")[:60]


def _some(*blocks: Table | Figure | None) -> tuple[Block, ...]:
    return tuple(block for block in blocks if isinstance(block, Figure) or (block is not None and block.rows))


def _trainings(rows: Sequence[Row]) -> Iterator[Block]:
    yield training.validation(rows)
    for i, row in enumerate(rows[:MOST_DRAWN], 1):
        drawn = tuple(replace(figure, name=f"{figure.name}-{i}-{_plain(row.label)}") for figure in training.tasks(row))
        yield Folded(f"{row.label}: losses and weights of the tasks", drawn, open=i == 1)
    yield from _undrawn(len(rows))


def _undrawn(count: int) -> Iterator[Block]:
    """Say that later rows have no figures of their own."""
    if count > MOST_DRAWN:
        yield Text(f"The first {MOST_DRAWN} of {count:,} rows have pictures of their own.")
