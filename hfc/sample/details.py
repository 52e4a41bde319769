"""Fronts and details of a garment: buttons, zips, belts, pleats, pockets, cuffs."""

from collections.abc import Callable

import numpy as np

from hfc.sample.cut import ARM, BARE, CROTCH, SEAM, Cut, Stroke, Strokes, ellipse, leg_outline, line, tube


def _top_of(cut: Cut) -> float:
    """Where a front starts: under the neckline, or at the waist."""
    return cut.depth if cut.shape.top else cut.start


def _button_row(cut: Cut, x: float, start: float, end: float) -> Strokes:
    light = 0.4 if cut.rng.random() < 0.6 else 1.15
    for y in np.arange(start + 0.06, end - 0.02, cut.rng.uniform(0.15, 0.24)):
        yield Stroke(ellipse(x, float(y), 0.022, 0.022), light, True)


def _buttons(cut: Cut) -> Strokes:
    start = _top_of(cut)
    for x in (-0.045, 0.045):
        yield line((x, start), (x, cut.end))
    yield from _button_row(cut, 0.0, start, cut.end)


def _placket(cut: Cut) -> Strokes:
    end = cut.depth + float(cut.rng.uniform(0.28, 0.42))
    yield Stroke(np.array([(-0.05, cut.depth), (0.05, cut.depth), (0.05, end), (-0.05, end)]), 0.85)
    yield from _button_row(cut, 0.0, cut.depth, end)


def _one_button(cut: Cut) -> Strokes:
    yield line((0, cut.depth), (0.04, 1.15), (-0.12, cut.end), light=0.45)
    yield Stroke(ellipse(0.03, cut.depth + 0.12, 0.03, 0.03), 0.4, True)


def _double(cut: Cut) -> Strokes:
    yield line((0.12, cut.depth * 0.8), (0.16, cut.end), light=0.5)
    for x in (-0.14, 0.14):
        yield from _button_row(cut, x, cut.depth, min(1.45, cut.end))


def _zip(cut: Cut) -> Strokes:
    yield line((0, _top_of(cut)), (0, cut.end), light=0.45, width=0.05)
    yield line((0, _top_of(cut)), (0, cut.end), light=1.1, width=0.018, second=True)


def _open(cut: Cut) -> Strokes:
    """Two front edges with what is worn below between them."""
    low, high = cut.rng.uniform(0.05, 0.5, 2) * float(cut.half(cut.end))
    half, end = cut.neck.half * 0.9, cut.end + cut.droop
    yield Stroke(np.array([(-half, 0.12), (0, 0.17), (half, 0.12), (half * 0.8, 0.6), (high, end), (-low, end),
                           (-half * 0.8, 0.6)]), 0.8, True)  # fmt: skip
    for sign, gap in ((-1, low), (1, high)):
        yield line((sign * half, 0.0), (sign * half * 0.8, 0.6), (sign * gap, end), light=0.7, width=0.05)


def _tie(cut: Cut) -> Strokes:
    yield line((0.0, cut.depth), (-0.12, 1.3), (-0.2, cut.end), light=0.45)
    yield from _belt(cut)
    for x in (0.08, -0.1):
        yield line((0, 1.03), (x * 0.8, 1.3), (x, 1.62), light=0.9, width=0.05, second=True)


def _band_at(cut: Cut, y: float, deep: float, light: float, second: bool = False) -> Stroke:
    return Stroke(np.concatenate([cut.across(y), cut.across(y + deep)[::-1]]), light, second)


def _belt(cut: Cut) -> Strokes:
    yield _band_at(cut, max(cut.start, 0.97), float(cut.rng.uniform(0.05, 0.11)), 0.85, True)


def _waist_seam(cut: Cut) -> Strokes:
    yield Stroke(cut.across(1.0), 0.6, width=SEAM)
    yield from _pleats(cut)


def _band(cut: Cut) -> Strokes:
    yield _band_at(cut, cut.start, float(cut.rng.uniform(0.07, 0.13)), 0.85)


def _drawn_waist(cut: Cut) -> Strokes:
    """Gathered by a cord."""
    y = max(cut.start + 0.06, 1.0)
    for t in np.linspace(-0.9, 0.9, 13):
        x = float(t * cut.half(y))
        yield line((x, y - 0.05), (x * 1.02, y + 0.08), light=0.72)
    for x in cut.rng.uniform(0.03, 0.12, 2) * (-1, 1):
        yield line((0, y), (x * 0.7, y + 0.14), (x, y + 0.28), light=1.15, width=0.025, second=True)


def _fly(cut: Cut) -> Strokes:
    yield line((0, cut.start), (0, CROTCH), light=0.6)
    yield line((0.07, cut.start + 0.08), (0.07, 1.38), (0.0, 1.52), light=0.7)
    yield Stroke(ellipse(0, cut.start + 0.05, 0.025, 0.025), 1.15, True)
    for sign in (-1, 1):
        x = sign * float(cut.half(1.2))
        yield line((x * 0.45, cut.start + 0.1), (x * 0.6, 1.22), (x * 0.97, 1.28), light=0.55)


def _pleats(cut: Cut) -> Strokes:
    """Folds that spread from the waist to the hem."""
    start, count = max(cut.start, 1.0), int(cut.rng.integers(3, 10))
    end = cut.end - 0.03 if cut.rng.random() < 0.7 else start + 0.4
    for t in np.linspace(-0.85, 0.85, count) + cut.rng.normal(0, 0.02, count):
        yield line((float(t * cut.half(start)), start), (float(t * cut.half(end)), end), light=0.75, width=0.03)


def _knot(cut: Cut) -> Strokes:
    """One end wrapped over the other and tied at the hip."""
    sign = 1 if cut.rng.random() < 0.5 else -1
    x, y = sign * 0.7 * float(cut.half(1.1)), cut.start + 0.08
    end = float(cut.half(cut.end)) * -sign * float(cut.rng.uniform(0.1, 0.5))
    yield line((x, y), (x * 0.4, 1.7), (end, cut.end), light=0.45, width=0.035)
    for t in (0.75, 0.3, -0.2):
        yield line((x, y), (t * x, y + 0.35 * (1.2 - t)), light=0.7, width=0.03)
    for reach in (-0.14, 0.1):
        yield Stroke(np.array([(x, y), (x + reach, y + 0.4), (x + reach + 0.1, y + 0.36)]), 0.85)
    yield Stroke(ellipse(x, y, 0.07, 0.06), 0.8)


def _ends(cut: Cut, light: float, deep: float, second: bool = False) -> Strokes:
    """A band about the end of each sleeve or leg."""
    for side in (0, 1):
        if cut.sleeve > BARE:
            way = np.linspace(cut.sleeve - deep / ARM, cut.sleeve, 3)
            yield Stroke(tube(cut.arm(side)(way), cut.cuff + 0.01), light, second)
        elif cut.shape.legs:
            leg = leg_outline(cut, side, cut.hem, cut.cuff)
            low = leg[np.argsort(leg[:, 1])[-6:]].mean(axis=0)
            yield Stroke(
                tube(np.array([low + np.array((0, 0.1 - deep)), low + np.array((0, 0.1))]), cut.cuff + 0.01),
                light,
                second,
            )


def _cuffs(cut: Cut) -> Strokes:
    yield from _ends(cut, 0.85, 0.12)


def _ribs(cut: Cut) -> Strokes:
    """Ribbed ends of the sleeves and a ribbed hem."""
    yield from _ends(cut, 0.8, 0.14)
    yield _band_at(cut, cut.end - 0.1, 0.1, 0.84)
    for t in np.linspace(-0.95, 0.95, 24):
        x = float(t * cut.half(cut.end))
        yield line((x, cut.end - 0.09), (x, cut.end), light=0.68, width=0.01)


def _border(cut: Cut) -> Strokes:
    yield from _ends(cut, 0.9, 0.12, True)
    yield _band_at(cut, cut.end - 0.12, 0.1, 0.9, True)


def _side_stripe(cut: Cut) -> Strokes:
    for sign in (-1, 1):
        x = sign * float(cut.half(1.3))
        yield line((x * 0.86, cut.start + 0.1), (x * 0.93, cut.hem - 0.08), light=1.0, width=0.07, second=True)


def _pockets(cut: Cut) -> Strokes:
    y, deep = float(cut.rng.uniform(1.08, 1.25)), float(cut.rng.uniform(0.03, 0.28))
    for sign in (-1, 1):
        near, far = (sign * share * float(cut.half(y)) for share in (0.42, 0.82))
        yield line((near, y), (far, y), (far, y + deep), (near, y + deep), (near, y), light=0.6)


def _kangaroo(cut: Cut) -> Strokes:
    low, half = cut.end - 0.12, 0.6 * float(cut.half(1.2))
    high = low - 0.32
    yield line((-half, low), (-half, low - 0.1), (-half * 0.62, high), (half * 0.62, high), (half, low - 0.1),
                (half, low), light=0.55, width=0.02)  # fmt: skip


def _cords(cut: Cut) -> Strokes:
    for x in (-0.08, 0.08):
        yield line((x, 0.16), (x * 1.1, 0.4), (x * 1.3, float(cut.rng.uniform(0.45, 0.65))), light=1.15, width=0.025,
                    second=True)  # fmt: skip


def _chest_pocket(cut: Cut) -> Strokes:
    yield line((0.12, 0.5), (0.32, 0.5), (0.32, 0.7), (0.22, 0.74), (0.12, 0.7), (0.12, 0.5), light=0.6)


def _chest_print(cut: Cut) -> Strokes:
    turn = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    reach = cut.rng.uniform(0.08, 0.24, 12)
    yield Stroke(np.stack([reach * np.cos(turn), 0.62 + reach * np.sin(turn)], axis=1), 1.0, True)


def _cable(cut: Cut) -> Strokes:
    y = np.linspace(cut.depth + 0.15, cut.end - 0.12, 24)
    for x in (-0.2, 0.0, 0.2):
        yield Stroke(np.stack([x + 0.025 * np.sin(y * 40), y], axis=1), 0.72, width=0.025)


def _fringe(cut: Cut) -> Strokes:
    for x, y in cut.hemline() * (0.97, 1):
        yield line((x, y - 0.02), (x * 1.01, y + 0.13), light=0.8, width=0.03)


def _frill(cut: Cut) -> Strokes:
    t = np.linspace(-1, 1, 25)
    low = np.stack([t * cut.half(0.6) * 1.03, 0.6 + 0.03 * np.cos(t * 30)], axis=1)
    yield Stroke(np.concatenate([cut.across(0.42, -0.9, 0.9, 0.0), low[::-1]]), 0.93)


def _turn_up(cut: Cut) -> Strokes:
    yield from _ends(cut, 1.08, 0.1)


def _ankle_ribs(cut: Cut) -> Strokes:
    yield from _ends(cut, 0.75, 0.14)


DETAILS: dict[str, Callable[[Cut], Strokes]] = {
    "ankle ribs": _ankle_ribs, "band": _band, "belt": _belt, "border": _border, "buttons": _buttons,
    "cable": _cable, "chest pocket": _chest_pocket, "chest print": _chest_print, "cords": _cords, "cuffs": _cuffs,
    "double": _double, "drawn waist": _drawn_waist, "fly": _fly, "frill": _frill, "fringe": _fringe,
    "kangaroo": _kangaroo, "knot": _knot, "one button": _one_button, "open": _open, "placket": _placket,
    "pleats": _pleats, "pockets": _pockets, "ribs": _ribs, "side stripe": _side_stripe, "tie": _tie,
    "turn-up": _turn_up, "waist seam": _waist_seam, "zip": _zip,
}  # fmt: skip
