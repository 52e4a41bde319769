"""What a report is made of: sections of paragraphs, tables, figures and galleries, some of them folded."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from hfc.report.cells import Table
from hfc.report.checks import WRONG, Check
from hfc.report.gallery import Gallery
from hfc.report.header import Fact, Filters
from hfc.report.plots import Figure


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Folded:
    """Blocks that open on a click."""

    kind: ClassVar[str] = "fold"
    title: str
    blocks: "tuple[Block, ...]"
    open: bool = False


Block = Text | Table | Figure | Gallery | Folded


@dataclass(frozen=True)
class Section:
    """Blocks under a heading."""

    anchor: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Document:
    """Everything in a report."""

    title: str
    verdicts: tuple[str, ...]
    """The answer first: a sentence or two for each leaderboard."""
    checks: tuple[Check, ...]
    sections: tuple[Section, ...]
    answers: tuple[str, ...] = ()
    """The same in one sentence each."""
    facts: tuple[Fact, ...] = ()
    filters: Filters = field(default_factory=Filters)

    @property
    def wrong(self) -> list[str]:
        """The checks that went wrong."""
        return [check.text for check in self.checks if check.state == WRONG]

    def blocks(self) -> Iterator[Block]:
        """Go through every block, folded ones too."""
        for section in self.sections:
            yield from _unfolded(section.blocks)


def _unfolded(blocks: Sequence[Block]) -> Iterator[Block]:
    for block in blocks:
        yield block
        if isinstance(block, Folded):
            yield from _unfolded(block.blocks)
