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


@dataclass(frozen=True)
class Table:
    """A table and what must be read beside it."""

    kind: ClassVar[str] = "table"

    name: str
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    narrow: bool = False
    """Whether a figure fits beside it."""

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Whether each column holds numbers."""
        return tuple(any(row[i].value is not None for row in self.rows) for i in range(len(self.header)))


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
    """Write a difference in percentage points, with its sign."""
    return f"{100 * value:+.{digits}f}".replace("-", "−")
