"""A table, its cells, and how a number is written in one."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Cell:
    """One cell of a table."""

    text: str
    value: float | None = None
    """The number that it sorts by."""
    best: bool = False
    """Whether it is the best of its column."""
    tip: str = ""
    """The tooltip."""


Line = tuple[Cell, ...]


@dataclass(frozen=True)
class Branch:
    """A node of a folded table: its own rows, and the nodes below it that open on a click."""

    title: str
    note: str
    header: tuple[str, ...]
    rows: tuple[Line, ...]
    branches: "tuple[Branch, ...]" = ()

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Whether each column holds numbers."""
        return numeric(self.header, self.rows)


@dataclass(frozen=True)
class Table:
    """A table and what must be read beside it."""

    kind: ClassVar[str] = "table"

    name: str
    title: str
    header: tuple[str, ...]
    rows: tuple[Line, ...]
    note: str = ""
    narrow: bool = False
    """Whether a figure fits beside it."""
    folded: Branch | None = None
    """What a page shows in place of the rows, where they would be too many."""

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Whether each column holds numbers."""
        return numeric(self.header, self.rows)


def numeric(header: Sequence[str], rows: Sequence[Line]) -> tuple[bool, ...]:
    """Find out which columns hold numbers: those with a number in any row."""
    return tuple(any(row[i].value is not None for row in rows) for i in range(len(header)))


def plus_minus(values: Sequence[float], scale: float = 100, digits: int = 2, sign: str = " ± ") -> str:
    """Write the mean and sample standard deviation of values; a dash where there are none."""
    if not values:
        return "–"
    mean = f"{scale * statistics.fmean(values):.{digits}f}"
    return mean + (f"{sign}{scale * statistics.stdev(values):.{digits}f}" if len(values) > 1 else "")


def p_text(p: float) -> str:
    """Write a p as papers print it."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def signed(value: float, digits: int = 2) -> str:
    """Write a difference in percentage points, with its sign; what rounds to 0 has a plus."""
    return f"{round(100 * value, digits) + 0.0:+.{digits}f}".replace("-", "−")
