"""Cut garments of any category as outlines, and the body that wears them.

What is no part of the cut, such as pose, wobble or the kind of neckline among those that a category allows, is drawn at
random; colour and fabric are none of this module's business.
"""

from typing import NamedTuple

import numpy as np

from hfc.sample.cut import BARE, CROTCH, Cut, Stroke, Strokes, ellipse, leg_outline, tube
from hfc.sample.details import DETAILS
from hfc.sample.shapes import SHAPES
from hfc.sample.trims import TRIMS


class Garment(NamedTuple):
    """A garment and its wearer, to be painted in this order."""

    wearer: list[Stroke]  # the fabric's place is taken by skin
    inside: list[Stroke]  # what shows of the back where nobody wears it
    strokes: list[Stroke]


def cut_garment(category: str, rng: np.random.Generator) -> Garment:
    """Cuts a garment of a category, and the body that wears it.

    Args:
        category: a key of SHAPES.
        rng: where everything that the category leaves open is drawn from.

    Returns:
        Outlines in shoulder widths, y down, the middle of the body at x = 0.
    """
    cut = Cut(SHAPES[category], rng)
    strokes = [stroke for part in (_sleeves, _legs, _trunk, _trim) for stroke in part(cut)]
    names = [cut.shape.fronts[rng.integers(len(cut.shape.fronts))]]
    names += [name for name in cut.shape.details if rng.random() < 0.75]
    strokes += [stroke for name in names if name for stroke in DETAILS[name](cut)]
    back = np.concatenate([cut.neckline(cut.depth), cut.neckline(0.05)[::-1]])
    return Garment(list(_wearer(cut)), [Stroke(back, 0.5)] if cut.shape.top else [], strokes)


def _wearer(cut: Cut) -> Strokes:
    """Draw head, neck, arms, legs and trunk. What the garment leaves bare there wears the second colour."""
    yield Stroke(ellipse(0, -0.58, 0.24, 0.32), 0.3)
    for side in (0, 1):
        yield Stroke(tube(cut.arm(side)(np.linspace(0, 1.12, 9)), np.linspace(0.09, 0.055, 9)), 0.95)
        clothed = cut.shape.top and not cut.shape.legs and cut.hem < 1.75
        yield Stroke(leg_outline(cut, side, 3.6, 0.12 if clothed else 0.075), 0.9, clothed)
    y = np.linspace(0.0, CROTCH, 9)
    trunk = np.stack([np.interp(y, (0.0, 0.12, 0.5, 1.0, 1.5), (0.2, 0.42, 0.41, 0.34, 0.42)), y], axis=1)
    yield Stroke(np.concatenate([trunk, trunk[::-1] * (-1, 1)]), 0.95, not cut.shape.top)
    yield Stroke(tube(np.array([(0, -0.45), (0, 0.12)]), 0.1), 0.85)
    yield Stroke(ellipse(0, -0.5, 0.18, 0.25), 1.05)


def _sleeves(cut: Cut) -> Strokes:
    if cut.sleeve > BARE:
        for side in (0, 1):
            way = np.linspace(0, cut.sleeve, 9)
            yield Stroke(tube(cut.arm(side)(way), np.linspace(cut.armhole, cut.cuff, 9)), 0.92)


def _legs(cut: Cut) -> Strokes:
    if cut.shape.legs:
        for side in (0, 1):
            yield Stroke(leg_outline(cut, side, cut.hem, cut.cuff), 0.94 + 0.06 * side)


def _trunk(cut: Cut) -> Strokes:
    """Draw from the shoulders or the waist to the hem, or to the legs."""
    if cut.shape.top:
        upper = cut.neckline(cut.depth)
        bare = cut.sleeve <= BARE and not cut.shape.cape
        tip = np.array([(cut.shoulder, 0.1), (cut.shoulder * 0.96, 0.3)][: 2 if bare else 1])
        arm = 0.25 if cut.shape.cape else 0.5
        right = np.concatenate([tip, cut.side(1, arm, cut.end)])
        left = np.concatenate([tip * (-1, 1), cut.side(-1, arm, cut.end)])
    else:
        upper = cut.across(cut.start)
        right, left = cut.side(1, cut.start, cut.end), cut.side(-1, cut.start, cut.end)
    yield Stroke(np.concatenate([upper, right, cut.hemline(), left[::-1]]), 1.0)


def _trim(cut: Cut) -> Strokes:
    """What is sewn on to the neckline."""
    if cut.shape.top:
        yield from TRIMS[cut.neck.trim](cut)
