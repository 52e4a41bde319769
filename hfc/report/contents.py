"""What a report says and in which order; the page and the Markdown are two ways to write it down."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

from hfc.report import figures, tables, trees
from hfc.report.checks import WRONG, Check
from hfc.report.figures import Figure
from hfc.report.gallery import Gallery
from hfc.report.rows import Group, Row
from hfc.report.statistics import METHOD, Difference
from hfc.report.tables import Table, p_text


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Fold:
    """Blocks that are shown on demand."""

    kind: ClassVar[str] = "fold"
    title: str
    blocks: "tuple[Block, ...]"
    open: bool = False


Named = TypeVar("Named", Table, Figure)
Block = Text | Table | Figure | Gallery | Fold


@dataclass(frozen=True)
class Section:
    """Blocks under a heading."""

    anchor: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Document:
    """Everything a report says."""

    title: str
    verdicts: tuple[str, ...]
    """The answer first: a sentence or two for each group of comparable rows."""
    checks: tuple[Check, ...]
    sections: tuple[Section, ...]

    @property
    def wrong(self) -> list[str]:
        """What must not be overlooked."""
        return [check.text for check in self.checks if check.state == WRONG]

    def blocks(self) -> Iterator[Block]:
        """Every block, folded ones too."""
        for section in self.sections:
            yield from _unfolded(section.blocks)


def _unfolded(blocks: Sequence[Block]) -> Iterator[Block]:
    for block in blocks:
        yield block
        if isinstance(block, Fold):
            yield from _unfolded(block.blocks)


def report(
    rows: Sequence[Row],
    groups: Sequence[Group],
    differences: Sequence[Sequence[Difference]],
    checks: Sequence[Check],
    galleries: Sequence[Gallery],
) -> Document:
    """The report of some rows.

    Args:
        rows: all of them.
        groups: those that may be compared.
        differences: of each group every pair.
        checks: what was checked.
        galleries: mistakes with their pictures, where they were asked for.
    """
    parts = [_Part(group, found, f"{i}-" if len(groups) > 1 else "") for i, (group, found) in enumerate(
        zip(groups, differences, strict=True), 1)]
    sections = [
        Section("best", "Which is best", tuple(block for part in parts for block in part.best())),
        Section("table1", "The paper's table", (tables.table1(rows),)),
        Section("differences", "Are the differences real", tuple(block for part in parts for block in part.differences())),
        Section("hierarchy", "In the tree", tuple(
            (tables.hierarchical(rows), tables.levels(rows), *(block for part in parts for block in part.hierarchy())))),
        Section("calibration", "Can its probabilities be trusted", tuple(
            block for part in parts for block in part.calibration())),
        Section("beta", "The balance β", _some(tables.betas(rows), figures.beta(rows))),
        Section("rejection", "When it may say less", tuple(
            _some(figures.stopping(rows)) + tuple(block for part in parts for block in part.rejection()))),
        Section("categories", "Categories", tuple(block for part in parts for block in part.categories())),
        Section("mistakes", "Mistakes", tuple(galleries)),
        Section("training", "Training", (figures.validation(rows), *_trainings(rows))),
        Section("provenance", "Provenance", (tables.provenance(rows),)),
    ]
    verdicts = tuple(verdict(group, found) for group, found in zip(groups, differences, strict=True))
    return Document("Results", verdicts, tuple(checks), tuple(section for section in sections if section.blocks))


def verdict(group: Group, differences: Sequence[Difference]) -> str:
    """Which row is best, by how much, and whether the images suffice to say so."""
    best, seeds = group.best, len(group.best.row.seeds)
    over = f"{seeds} seed{'s' if seeds > 1 else ''}, {len(best.target):,} test images"
    told = f"{best.label} has the highest top-1: {tables.spread(best.row.values('top1'))}% ({over})."
    behind = [each for each in differences if each.first is best]
    if not behind:
        return f"{told} There is no other row to compare it with."
    second = behind[0]
    gap = second.intervals["top1"]
    told += (
        f" It is {100 * gap.difference:.2f} points above {second.second.label} "
        f"(95% interval {tables.signed(gap.low)} to {tables.signed(gap.high)}, corrected p {p_text(second.p)}): "
    )
    if second.significant:
        told += "significant."
    else:
        told += "not significant, so these test images do not tell the two apart."
    if len(behind) > 1:
        beaten = [each.second.label for each in behind if each.significant]
        rest = len(behind) - len(beaten)
        told += f" Of {len(behind)} others it is significantly better than {len(beaten) or 'none'}"
        told += f" ({'; '.join(beaten)})" if beaten and rest else ""
        told += "."
    return told


@dataclass(frozen=True)
class _Part:
    """The blocks of one group of comparable rows."""

    group: Group
    found: Sequence[Difference]
    prefix: str
    """Of the names of its pictures, where there are several groups."""

    def best(self) -> Iterator[Block]:
        figure = figures.forest(self.group, self.found)
        yield self._named(tables.headline(self.group, self.found))
        if figure:
            yield self._named(figure)

    def differences(self) -> Iterator[Block]:
        if self.found:
            yield self._named(tables.differences(self.found))
            yield Text(METHOD)

    def hierarchy(self) -> Iterator[Block]:
        yield self._named(figures.severity(self.group))

    def calibration(self) -> Iterator[Block]:
        yield self._named(tables.calibration(self.group.outcomes))
        yield self._named(figures.reliability(self.group))

    def rejection(self) -> Iterator[Block]:
        yield self._named(figures.rejection(self.group))

    def categories(self) -> Iterator[Block]:
        yield self._named(trees.categories(self.group))
        yield self._named(tables.categories(self.group))
        for i, outcome in enumerate(self.group.outcomes, 1):
            found = [self._named(trees.tree(outcome), i, outcome.label)]
            confused = trees.confusion(outcome)
            found += [self._named(figure, i, outcome.label, k) for k, figure in enumerate(confused)]
            yield Fold(f"{outcome.label}: the tree, and what is taken for what", tuple(found), open=i == 1)

    def _named(self, block: Named, *more: object) -> Named:
        return replace(block, name="-".join([f"{self.prefix}{block.name}", *map(_plain, more)]))


def _plain(word: object) -> str:
    """What may stand in a file's name."""
    return re.sub(r"[^A-Za-z0-9+]+", "-", str(word)).strip("-")[:60]


def _some(*blocks: Table | Figure | None) -> tuple[Block, ...]:
    return tuple(block for block in blocks if isinstance(block, Figure) or (block is not None and block.rows))


def _trainings(rows: Sequence[Row]) -> Iterator[Block]:
    for i, row in enumerate(rows, 1):
        drawn = tuple(replace(figure, name=f"{figure.name}-{i}-{_plain(row.label)}") for figure in figures.training(row))
        yield Fold(f"{row.label}, seed {row.seeds[0]}: losses and weights of the tasks", drawn, open=len(rows) == 1)
