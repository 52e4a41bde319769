"""Figures: a drawing, its numbers and a text in place of it. Most are lines through points."""

from collections.abc import Sequence
from dataclasses import dataclass
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
        if self.diagonal:
            body.append(svg.element("line", class_="ideal", x1=x(0), y1=y(0), x2=x(1), y2=y(1)))
        return body


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
        colours: the number of each line's colour, where some methods are left out.
    """
    colour = list(colours) or list(range(len(series)))
    large = [(a, b, tooltip) for _, a, b, tooltip in marks]
    x, y = axes.scales([*(line for _, line in series), large], [line for _, line in extra])
    body = axes.drawn(x, y)
    for i, thin in extra:
        body.append(svg.line([(x(a), y(b)) for a, b in thin], colour[i], thin=True))
    for i, (_, points) in enumerate(series):
        body.append(svg.line([(x(a), y(b)) for a, b, _ in points], colour[i]))
        body += [svg.dot(x(a), y(b), colour[i], tooltip, dots) for a, b, tooltip in points if dots]
    body += [svg.dot(x(a), y(b), colour[i], tooltip, MARK) for i, a, b, tooltip in marks]
    key, height = svg.legend(list(zip(colour, [label for label, _ in series], strict=True)), y.start + svg.BOTTOM)
    numbers = tuple(data) or tuple((label, a, b) for label, points in series for a, b, _ in points)
    drawing = svg.drawing([*body, *key], y.start + svg.BOTTOM + height, alt)
    return Figure(name, title, alt, drawing, header, numbers, note)
