"""Pictures with their numbers and what they say in words, and the kind most of them are: lines through points."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from markupsafe import Markup

from hfc.report import svg

MARK = 4  # radius of a large point

Point = tuple[float, float, str]
"""x, y, and what it says."""


@dataclass(frozen=True)
class Figure:
    """A picture, what it says in words, and its numbers."""

    kind: ClassVar[str] = "figure"

    name: str
    title: str
    alt: str
    drawing: Markup
    header: tuple[str, ...]
    data: tuple[tuple[object, ...], ...]
    note: str = ""


def curves(
    name: str,
    title: str,
    series: Sequence[tuple[str, Sequence[Point]]],
    x_title: str,
    y_title: str,
    *,
    alt: str,
    header: tuple[str, ...],
    data: Sequence[tuple[object, ...]] = (),
    note: str = "",
    percent: str = "",
    log: bool = False,
    diagonal: bool = False,
    dots: float = 2.4,
    extra: Sequence[tuple[int, Sequence[tuple[float, float]]]] = (),
    marks: Sequence[tuple[int, float, float, str]] = (),
    colours: Sequence[int] = (),
) -> Figure:
    """Lines through points.

    Args:
        name, title, x_title, y_title, alt, note: in words.
        series: of each line its name and its points, each with what it says.
        header: of the data, which are name, x and y of every point where no others are given.
        data: the numbers behind the lines.
        percent: which axes (x, y) show fractions in percent.
        log: whether y is logarithmic.
        diagonal: draw y = x.
        dots: radius of the points; 0: none.
        extra: thin lines in a series' colour.
        marks: large points: series, x, y, what it says.
        colours: of each line the number of its colour, where some methods are left out.
    """
    of = list(colours) or list(range(len(series)))
    points = [point for _, found in series for point in found]
    lines = [(x, y) for _, found in extra for x, y in found]
    xs = [p[0] for p in points] + [p[0] for p in lines]
    ys = [p[1] for p in points] + [p[1] for p in lines]
    limits = (
        ((0.0, 1.0), (0.0, 1.0)) if diagonal else (svg.span(xs, margin=0.02), svg.log_span(ys) if log else svg.span(ys))
    )
    x, y = svg.plot(*limits, log=log)
    body = svg.x_axis(x, y.end, y.start, x_title, percent="x" in percent)
    body += svg.y_axis(y, x.start, x.end, y_title, percent="y" in percent)
    if diagonal:
        body.append(svg.element("line", class_="ideal", x1=x(0), y1=y(0), x2=x(1), y2=y(1)))
    for i, found in extra:
        body.append(svg.line([(x(a), y(b)) for a, b in found], of[i], thin=True))
    for i, (_, points_here) in enumerate(series):
        body.append(svg.line([(x(a), y(b)) for a, b, _ in points_here], of[i]))
        body += [svg.dot(x(a), y(b), of[i], said, dots) for a, b, said in points_here if dots]
    body += [svg.dot(x(a), y(b), of[i], said, MARK) for i, a, b, said in marks]
    key, height = svg.legend(list(zip(of, [label for label, _ in series], strict=True)), y.start + svg.BOTTOM)
    numbers = tuple(data) or tuple((label, a, b) for label, found in series for a, b, _ in found)
    drawn = svg.drawing([*body, *key], y.start + svg.BOTTOM + height, alt)
    return Figure(name, title, alt, drawn, header, numbers, note)
