"""How many rows are drawn: colour by method, a panel for each tree, and grey for the rest."""

from collections import Counter
from collections.abc import Sequence

from hfc.report import svg
from hfc.report.plots import Look, Looks
from hfc.report.rows import Row

CROWDED = 6  # rows; of more each method has a colour, and names stand beside the lines
COLOURED = 5  # methods, those of the best rows
MOST_PANELS = 4  # trees; of more all stand in one panel


def looks(rows: Sequence[Row]) -> Looks | None:
    """Choose how rows are drawn, the best first; None where they are few, and each has a colour of its own."""
    if len(rows) <= CROWDED:
        return None
    methods, trees = [_method(row) for row in rows], [row.first.hierarchy.name for row in rows]
    colour = {name: i for i, name in enumerate(list(dict.fromkeys(methods))[:COLOURED])}
    different = list(dict.fromkeys(trees))
    panels = different if 1 < len(different) <= MOST_PANELS else [""]
    place = [panels.index(tree) if len(panels) > 1 else 0 for tree in trees]
    alike = Counter(zip(methods, place, strict=True))
    drawn: Counter[tuple[str, int]] = Counter()
    chosen = []
    for row, method, panel in zip(rows, methods, place, strict=True):
        again = drawn[method, panel]
        drawn[method, panel] += 1
        series = colour[method] + svg.COLOURS * again if method in colour else svg.GREY
        chosen.append(Look(series, panel, method if alike[method, panel] == 1 else _own(row, method)))
    return Looks(
        tuple(chosen), tuple(panels), tuple((i, name) for name, i in colour.items()), len(colour) < len(set(methods))
    )


def _method(row: Row) -> str:
    return row.first.outer.row if row.first.outer else row.first.method


def _own(row: Row, method: str) -> str:
    """Name a row that shares method and panel with another, by its label's end."""
    rest = row.label.removeprefix(f"{method} ({row.first.hierarchy.name})").strip()
    return f"{method} {rest.rpartition(', ')[2]}".strip()
