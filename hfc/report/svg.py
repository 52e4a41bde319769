"""Drawings as SVG in the page's colours; every mark has a tooltip. Lengths are in units of the drawing.

Written here and not by a plotting library because marks have to carry their values, and colours to change with the
reader's light or dark mode, which a library's finished drawing does not do.
"""

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH = 400
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 8, 36
PLOT_HEIGHT = 210
LEGEND_LINE = 16
CHARACTER = 6.6  # mean width of a character at the drawings' font size, in a wide font
COLOURS = 6  # Okabe and Ito's without orange, as classes s0 to s5 in figure.css
GREY = -1  # the series of what is not told apart
NAMES = 108  # to the right of a drawing whose lines have their names beside them
DARK = 0.85  # share from which on white is read better on the colour of a matrix than the page's ink
HEAT_ANGLE = 52  # of the names above a matrix, in degrees
DASHES = ("", "5 3", "2 2", "8 3 2 3")


@dataclass(frozen=True)
class Scale:
    """An axis: it turns values into positions."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The position of a value."""
        low, high, position = self.low, self.high, value
        if self.log:
            low, high, position = math.log10(low), math.log10(high), math.log10(value)
        return self.start + (position - low) / (high - low) * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        """About five round values along it."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            steps = (1, 2, 5) if len(powers) < 4 else (1,)
            values = [step * 10.0**power for power in powers for step in steps]
        else:
            rough = (self.high - self.low) / 5
            power = 10.0 ** math.floor(math.log10(rough))
            step = next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= rough * 0.999)
            values = [
                step * i for i in range(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1)
            ]
        margin = 1e-9 * abs(self.high)
        return [value for value in values if self.low - margin <= value <= self.high + margin]


def span(values: Iterable[float], *, zero: bool = False, margin: float = 0.05) -> tuple[float, float]:
    """Find the range of some values, with a margin."""
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if low == high:  # one value, and nothing but zero among them
        return (low, low + 1) if zero else (low - (abs(low) * margin or 1), low + (abs(low) * margin or 1))
    air = margin * (high - low)
    return (low if zero and low == 0 else low - air), (high if zero and high == 0 else high + air)


def log_span(values: Iterable[float]) -> tuple[float, float]:
    """Find the range of some positive values, with a margin, for a logarithmic axis."""
    positive = list(values)
    low, high = min(positive), max(positive)
    air = max((high / low) ** 0.05, 1.02)
    return low / air, high * air


def colour(i: int) -> str:
    """Name the CSS classes of the i-th series' colour; after six the colours repeat, paler."""
    if i == GREY:
        return "grey"
    return f"s{i % COLOURS}" + (" again" if i >= COLOURS else "")


def dash(i: int) -> str:
    """Choose the dashes of a series; series of one colour have different ones."""
    return "" if i == GREY else DASHES[i // COLOURS % len(DASHES)]


def shorten(text: str, width: float, *, at_front: bool = False) -> str:
    """Shorten a text to a width, at its end or at its front."""
    most = max(int(width / CHARACTER), 2)
    if len(text) <= most:
        return text
    return "…" + text[1 - most :] if at_front else text[: most - 1] + "…"


def wrapped(text: str, width: float) -> list[str]:
    """Break a text into lines of a width. Nothing is left out, as two texts may differ in their ends alone."""
    return textwrap.wrap(text, max(int(width / CHARACTER), 2)) or [""]


def element(name: str, content: Markup | str = "", **attributes: object) -> Markup:
    """Write an element; `class_` is class, `stroke_width` is stroke-width; all but Markup is escaped."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_number(value))}"'
        for key, value in attributes.items()
        if value not in ("", None)
    )
    return Markup(f"<{name}{written}>{escape(content)}</{name}>")


def _number(value: object) -> object:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


def tip(text: str) -> Markup:
    """Write a tooltip."""
    return element("title", text) if text else Markup("")


def text(x: float, y: float, content: str, *, anchor: str = "", full: str = "", **more: object) -> Markup:
    """Write words; `full` is their tooltip where they are shortened."""
    shown = escape(content) + (tip(full) if full and full != content else Markup(""))
    return element("text", shown, x=x, y=y, text_anchor=anchor, **more)


def drawing(body: Iterable[Markup], height: float, alt: str) -> Markup:
    """Write the whole drawing; `alt` is the text in place of it."""
    return element(
        "svg",
        Markup("").join(body),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {height:g}",
        role="img",
        aria_label=alt,
    )


def y_axis(y: Scale, left: float, right: float, title: str, *, percent: bool = False) -> list[Markup]:
    """Draw grid, ticks and title of an upright axis; `percent` shows fractions in percent."""
    middle = (y.start + y.end) / 2
    axis = [text(11, middle, title, anchor="middle", transform=f"rotate(-90 11 {middle:g})")]
    for value in y.ticks:
        axis.append(element("line", class_="grid", x1=left, x2=right, y1=y(value), y2=y(value)))
        axis.append(text(left - 5, y(value) + 3.5, _tick(value, percent), anchor="end", class_="tick"))
    return axis


def x_axis(x: Scale, top: float, bottom: float, title: str, *, percent: bool = False) -> list[Markup]:
    """Draw grid, ticks and title of a level axis; `percent` shows fractions in percent."""
    axis = [text((x.start + x.end) / 2, bottom + 30, title, anchor="middle")]
    for value in x.ticks:
        axis.append(element("line", class_="grid", x1=x(value), x2=x(value), y1=top, y2=bottom))
        axis.append(text(x(value), bottom + 14, _tick(value, percent), anchor="middle", class_="tick"))
    return axis


def _tick(value: float, percent: bool) -> str:
    return f"{100 * value if percent else value:.4g}".replace("-", "−")


def line(points: Sequence[tuple[float, float]], series: int, *, thin: bool = False) -> Markup:
    """Draw a line through positions."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return element(
        "polyline",
        class_=f"line {colour(series)}" + (" thin" if thin else ""),
        points=path,
        stroke_dasharray=dash(series),
    )


def dot(x: float, y: float, series: int, tooltip: str, radius: float = 3.0) -> Markup:
    """Draw a point with a tooltip."""
    kind = "dot" if radius > 2 else "dot fine"
    return element("circle", tip(tooltip), class_=f"{kind} {colour(series)}", cx=x, cy=y, r=radius)


def bar(x: float, y: float, width: float, height: float, series: int, tooltip: str) -> Markup:
    """Draw a bar with a tooltip."""
    return element(
        "rect", tip(tooltip), class_=f"bar {colour(series)}", x=x, y=y, width=max(width, 0.0), height=max(height, 0.0)
    )


def legend(names: Sequence[tuple[int, str]], top: float, *, lines: bool = True) -> tuple[list[Markup], float]:
    """Draw the legend below a drawing; returns it and its height."""
    body = []
    y = top + 8
    for series, name in names:
        start = [(LEFT, y), (LEFT + 18, y)]
        body.append(line(start, series) if lines else bar(LEFT + 4, y - 5, 10, 10, series, ""))
        for part in wrapped(name, WIDTH - LEFT - 30):
            body.append(text(LEFT + 24, y + 4, part))
            y += LEGEND_LINE
    return body, y - top - 2


def names(ends: Sequence[tuple[str, int, float, float]], right: float, y: Scale) -> list[Markup]:
    """Write names beside the ends of lines, so that none covers another.

    Args:
        ends: the name, the series and the position of the end of each line.
        right: where the plot ends.
        y: the scale, whose ends they stay between.
    """
    ordered = sorted(ends, key=lambda one: one[3])
    step = min(LEGEND_LINE - 3.0, (y.start - y.end) / max(len(ordered), 1))
    heights: list[float] = []
    for _, _, _, at_end in ordered:
        heights.append(max(at_end, heights[-1] + step if heights else y.end + 4))
    below = y.start
    for i in reversed(range(len(heights))):
        heights[i] = min(heights[i], below)
        below = heights[i] - step
    body = []
    for (name, series, x, at_end), height in zip(ordered, heights, strict=True):
        lead = f"M{x + 3:.1f} {at_end:.1f}L{right + 8:.1f} {height:.1f}H{right + 14:.1f}"
        body.append(element("path", class_=f"lead {colour(series)}", d=lead))
        body.append(text(right + 17, height + 4, shorten(name, 1.15 * (WIDTH - right - 17)), full=name, class_="in"))
    return body


def plot(
    x: tuple[float, float],
    y: tuple[float, float],
    *,
    log: bool = False,
    log_x: bool = False,
    height: float = PLOT_HEIGHT,
) -> tuple[Scale, Scale]:
    """Choose the scales of a plot with the ranges x and y. `log` is of y."""
    across = Scale(*x, LEFT, WIDTH - RIGHT, log_x)
    return across, Scale(*y, TOP + height, TOP, log)


def heat(
    truth: Sequence[str],
    answers: Sequence[str],
    shares: Sequence[Sequence[float]],
    tooltips: Sequence[Sequence[str]],
    alt: str,
) -> Markup:
    """Draw a matrix of shares: rows are truths, columns are answers. More is darker.

    Args:
        truth, answers: names of rows and columns.
        shares: between 0 and 1, row by row.
        tooltips: what each cell says.
        alt: the drawing in words.
    """
    left = min(max(map(len, truth)) * CHARACTER + 10, 118)
    across, up = math.cos(math.radians(HEAT_ANGLE)), math.sin(math.radians(HEAT_ANGLE))
    top = min(max(map(len, answers)) * CHARACTER, 104) * up + 14
    reach = [min(len(name) * CHARACTER, 104) * across + 3 for name in answers]  # of each name, to the right
    side = min(36.0, *((WIDTH - left - right) / (j + 0.5) for j, right in enumerate(reach)))
    body = []
    for j, name in enumerate(answers):
        x, y = left + (j + 0.5) * side + 3, top - 5
        turned = f"rotate(-{HEAT_ANGLE} {x:.1f} {y:.1f})"
        body.append(text(x, y, shorten(name, 104), full=name, transform=turned))
    for i, name in enumerate(truth):
        y = top + i * side
        body.append(text(left - 5, y + side / 2 + 4, shorten(name, left - 4), anchor="end", full=name))
        body.append(element("rect", class_="empty", x=left, y=y, width=side * len(answers), height=side))
        for j, share in enumerate(shares[i]):
            if share <= 0:
                continue
            x = left + j * side
            body.append(
                element(
                    "rect", tip(tooltips[i][j]), class_="cell", x=x, y=y, width=side, height=side, fill_opacity=share
                )
            )
            if side >= 24 and share >= 0.005:
                inside = "in dark" if share > DARK else "in"
                body.append(text(x + side / 2, y + side / 2 + 4, f"{100 * share:.0f}", anchor="middle", class_=inside))
    return drawing(body, top + side * len(truth) + 4, alt)
