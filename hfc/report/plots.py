"""Figures: a drawing, its numbers and a text in place of it. Most are lines through points."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from markupsafe import Markup

from hfc.report import svg

MARK = 4  # radius of a large point

Point = tuple[float, float, str]
"""x, y, and the tooltip."""


@dataclass(frozen=True)
class Figure:
    """A drawing with a text in place of it, and its numbers."""

    kind: ClassVar[str] = "figure"

    name: str
    title: str
    alt: str
    drawing: Markup
    header: tuple[str, ...]
    data: tuple[tuple[object, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Axes:
    """What the axes of a drawing show."""

    x: str
    """The title."""
    y: str
    percent: str = ""
    """Which of them (x, y) show fractions in percent."""
    log: bool = False
    """Whether y is logarithmic."""
    log_x: bool = False
    """Whether x is."""
    diagonal: bool = False
    """Whether both reach from 0 to 1, with the line y = x."""

    def scales(
        self, lines: Sequence[Sequence[Point]], thin: Sequence[Sequence[tuple[float, float]]]
    ) -> tuple[svg.Scale, svg.Scale]:
        """Choose the scales that hold all lines."""
        if self.diagonal:
            return svg.plot((0.0, 1.0), (0.0, 1.0))
        points = [(a, b) for line in lines for a, b, _ in line] + [point for line in thin for point in line]
        xs, ys = [a for a, _ in points], [b for _, b in points]
        across = svg.log_span(xs) if self.log_x else svg.span(xs, margin=0.02)
        return svg.plot(across, svg.log_span(ys) if self.log else svg.span(ys), log=self.log, log_x=self.log_x)

    def drawn(self, x: svg.Scale, y: svg.Scale) -> list[Markup]:
        """Draw the axes of two scales."""
        body = svg.x_axis(x, y.end, y.start, self.x, percent="x" in self.percent)
        body += svg.y_axis(y, x.start, x.end, self.y, percent="y" in self.percent)
        body.append(svg.element("path", class_="axis", d=f"M{x.start:g} {y.end:g}V{y.start:g}H{x.end:g}"))
        if self.diagonal:
            body.append(svg.element("line", class_="ideal", x1=x(0), y1=y(0), x2=x(1), y2=y(1)))
        return body


@dataclass(frozen=True)
class Look:
    """How a row is drawn where there are many."""

    series: int
    """Its colour and dashes, or GREY."""
    panel: int
    name: str
    """What stands beside its line."""


@dataclass(frozen=True)
class Looks:
    """How many rows are drawn."""

    rows: tuple[Look, ...]
    panels: tuple[str, ...]
    """Their titles, the names of trees; "" where there is one."""
    methods: tuple[tuple[int, str], ...]
    """The colours and what they stand for."""
    grey: bool
    """Whether some methods have none."""

    @property
    def key(self) -> list[tuple[int, str]]:
        """The entries of a legend."""
        return [*self.methods, *([(svg.GREY, "the other methods")] if self.grey else [])]

    def inside(self, panel: int) -> list[int]:
        """List the rows of a panel."""
        return [i for i, look in enumerate(self.rows) if look.panel == panel]

    @property
    def words(self) -> str:
        """Say what colours and panels mean."""
        panels = " A panel for each tree." if len(self.panels) > 1 else ""
        return f" Colour: method.{' Grey: the other methods.' if self.grey else ''}{panels}"


@dataclass(frozen=True)
class Marks:
    """What a drawing of curves shows, each by the number of its row."""

    lines: Sequence[tuple[int, Sequence[Point]]]
    thin: Sequence[tuple[int, Sequence[tuple[float, float]]]]
    large: Sequence[tuple[int, float, float, str]]

    def drawn(self, x: svg.Scale, y: svg.Scale, series: Mapping[int, int], dots: float) -> list[Markup]:
        """Draw what belongs to some rows, of which each has a series."""
        body = []
        for i, thin in self.thin:
            if i in series and series[i] != svg.GREY:
                body.append(svg.line([(x(a), y(b)) for a, b in thin], series[i], thin=True))
        for i, points in sorted(self.lines, key=lambda line: series.get(line[0]) != svg.GREY):
            if i in series:
                body.append(svg.line([(x(a), y(b)) for a, b, _ in points], series[i]))
                body += [svg.dot(x(a), y(b), series[i], tooltip, dots) for a, b, tooltip in points if dots]
        return body + [svg.dot(x(a), y(b), series[i], tip, MARK) for i, a, b, tip in self.large if i in series]


def left_out(shown: int, total: int, what: str) -> str:
    """Say what a figure leaves out; nothing where it shows everything."""
    return (
        f" Shown: the {shown} {what} with the most wrong answers, of {total:,}; all are in the data."
        if shown < total
        else ""
    )


def curves(
    name: str,
    title: str,
    series: Sequence[tuple[str, Sequence[Point]]],
    axes: Axes,
    *,
    alt: str,
    header: tuple[str, ...],
    data: Sequence[tuple[object, ...]] = (),
    note: str = "",
    dots: float = 2.4,
    extra: Sequence[tuple[int, Sequence[tuple[float, float]]]] = (),
    marks: Sequence[tuple[int, float, float, str]] = (),
    colours: Sequence[int] = (),
    looks: Looks | None = None,
) -> Figure:
    """Draw lines through points.

    Args:
        name, title, alt, note: in words.
        series: the name of each line, and its points.
        axes: what they show.
        header: of the data, by default the name, x and y of every point.
        data: the numbers behind the lines.
        dots: radius of the points; 0: none.
        extra: thin lines in a series' colour.
        marks: large points: series, x, y, tooltip.
        colours: the number of each line's row, where some rows are left out.
        looks: how rows are drawn; None: a colour each, and a legend.
    """
    number = list(colours) or list(range(len(series)))
    numbers = tuple(data) or tuple((label, a, b) for label, points in series for a, b, _ in points)
    shown = Marks(
        [(i, points) for i, (_, points) in zip(number, series, strict=True)],
        [(number[i], line) for i, line in extra],
        [(number[i], a, b, tooltip) for i, a, b, tooltip in marks],
    )
    if looks:
        return Figure(name, title, alt, _panels(shown, axes, looks, dots, alt), header, numbers, note + looks.words)
    x, y = axes.scales(*_points(shown))
    body = [*axes.drawn(x, y), *shown.drawn(x, y, {i: i for i in number}, dots)]
    key, height = svg.legend(list(zip(number, [label for label, _ in series], strict=True)), y.start + svg.BOTTOM)
    drawing = svg.drawing([*body, *key], y.start + svg.BOTTOM + height, alt)
    return Figure(name, title, alt, drawing, header, numbers, note)


def _points(shown: Marks) -> tuple[list[Sequence[Point]], list[Sequence[tuple[float, float]]]]:
    large = [(a, b, tooltip) for _, a, b, tooltip in shown.large]
    return [*(points for _, points in shown.lines), large], [line for _, line in shown.thin]


def _panels(shown: Marks, axes: Axes, looks: Looks, dots: float, alt: str) -> Markup:
    """Draw a panel for each tree, one below the other, on the same scales; names stand beside the lines."""
    across, up = axes.scales(*_points(shown))
    x = replace(across, end=svg.WIDTH - svg.NAMES)
    body: list[Markup] = []
    top = float(svg.TOP)
    for panel, title in enumerate(looks.panels):
        inside = {i: look.series for i, look in enumerate(looks.rows) if look.panel == panel}
        if not any(i in inside for i, _ in shown.lines):
            continue
        top += svg.LEGEND_LINE if title else 0
        y = replace(up, start=top + svg.PLOT_HEIGHT, end=top)
        body += [svg.text(x.start, top - 6, title, class_="panel")] if title else []
        body += [*axes.drawn(x, y), *shown.drawn(x, y, inside, dots)]
        ends = [
            (looks.rows[i].name, inside[i], x(right), y(at_right))
            for i, points in shown.lines
            for right, at_right, _ in [max(points)]
            if inside.get(i, svg.GREY) != svg.GREY
        ]
        body += svg.names(ends, x.end, y)
        top = y.start + svg.BOTTOM + 8
    return svg.drawing(body, top, alt)
