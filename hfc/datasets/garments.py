"""Garments as drawings: a table of how each category is cut, and one tailor who cuts any row of it.

Lengths are in shoulder widths (about 40 cm), y counts down from the shoulders: waist 1.0, crotch 1.6, knee 2.4,
ankle 3.4. P is the number of points of an outline. What is no part of the cut, such as pose, wobble or the kind of
neckline among those that a category allows, is drawn at random; colour and fabric are none of this module's business.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Range = tuple[float, float]

CROTCH = 1.62
ANKLE = 3.4
ARM = 1.45  # shoulder to wrist
SEAM = 0.014
GAP = 0.02  # from the middle to a wide leg's hem, without which culottes would be skirts
BARE = 0.12  # sleeves shorter than this are none


@dataclass(frozen=True)
class Shape:
    """How a category is cut. A range is drawn from evenly, a tuple of names has one of them drawn."""

    hem: Range  # height at which the garment ends
    top: bool = True  # starts at the shoulders, else at the waist
    legs: bool = False  # ends in two legs, else in one hem
    fit: Range = (1.0, 1.15)  # width over the body's
    nip: Range = (0.3, 0.7)  # how far the waist follows the body: 0 hangs straight, 1 hugs
    flare: Range = (0.0, 0.05)  # half-width won for every length below the waist
    sleeve: Range | None = None  # how much of the arm is covered, 1 to the wrist
    armhole: Range = (0.17, 0.21)  # half-width of the sleeve at the shoulder
    cuff: Range = (0.09, 0.13)  # half-width where a sleeve or a leg ends
    strap: Range = (0.08, 0.16)  # width on the shoulder where there are no sleeves
    cape: bool = False  # falls from the shoulders over the arms
    droop: Range = (-0.03, 0.05)  # how much lower the hem is in the middle
    necks: tuple[str, ...] = ("crew",)  # keys of NECKS
    fronts: tuple[str, ...] = ("",)  # keys of DETAILS, or nothing
    details: tuple[str, ...] = ()  # keys of DETAILS, each drawn on most garments
    denim: float = 0.08  # share of garments in denim


class Neck(NamedTuple):
    """A neckline: half-width and depth of the opening, 1 for a V to 4 for a square, and what is sewn on to it."""

    half: float
    depth: float
    power: float
    trim: str = ""


NECKS = {
    "crew": Neck(0.18, 0.13, 2.2),
    "scoop": Neck(0.25, 0.32, 2.4),
    "boat": Neck(0.32, 0.08, 2.0),
    "v": Neck(0.19, 0.42, 1.0),
    "deep v": Neck(0.17, 0.75, 1.0),
    "square": Neck(0.27, 0.28, 6.0),
    "turtle": Neck(0.16, 0.03, 2.0, "turtle"),
    "collar": Neck(0.16, 0.17, 1.1, "collar"),
    "lapel": Neck(0.15, 0.70, 1.0, "lapel"),
    "shawl": Neck(0.16, 0.85, 1.1, "shawl"),
    "stand": Neck(0.17, 0.06, 1.5, "stand"),
    "hood": Neck(0.19, 0.17, 1.3, "hood"),
}

SHAPES = {
    "Blazer": Shape(
        (1.5, 1.75), nip=(0.4, 0.8), sleeve=(0.85, 1.0), necks=("lapel",), fronts=("one button", "open", "double"),
        details=("pockets",),
    ),
    "Blouse": Shape(
        (1.3, 1.6), fit=(1.1, 1.3), flare=(0.0, 0.25), sleeve=(0.3, 1.0), cuff=(0.1, 0.26), armhole=(0.18, 0.26),
        necks=("collar", "v", "scoop", "stand"), fronts=("buttons", "placket", ""), details=("cuffs",),
    ),
    "Button-Down": Shape(
        (1.45, 1.7), nip=(0.1, 0.5), sleeve=(0.75, 1.0), droop=(0.05, 0.15), necks=("collar",), fronts=("buttons",),
        details=("chest pocket", "cuffs"),
    ),
    "Cardigan": Shape(
        (1.4, 1.95), fit=(1.05, 1.25), nip=(0.0, 0.4), sleeve=(0.8, 1.0), necks=("v", "deep v", "shawl"),
        fronts=("open", "buttons"), details=("ribs", "pockets"),
    ),
    "Henley": Shape(
        (1.4, 1.65), nip=(0.2, 0.6), sleeve=(0.25, 1.0), necks=("crew", "stand"), fronts=("placket",),
    ),
    "Hoodie": Shape(
        (1.4, 1.65), fit=(1.1, 1.3), nip=(0.0, 0.3), sleeve=(0.9, 1.0), armhole=(0.2, 0.25), necks=("hood",),
        fronts=("zip", "", ""), details=("ribs", "kangaroo", "cords"),
    ),
    "Jacket": Shape(
        (1.25, 1.6), fit=(1.05, 1.2), nip=(0.1, 0.6), sleeve=(0.85, 1.0), necks=("collar", "stand", "lapel"),
        fronts=("zip", "open", "buttons"), details=("ribs", "pockets"), denim=0.2,
    ),
    "Parka": Shape(
        (1.75, 2.2), fit=(1.15, 1.35), nip=(0.0, 0.5), sleeve=(0.9, 1.0), armhole=(0.21, 0.26), necks=("hood",),
        fronts=("zip", "open", "buttons"), details=("pockets", "drawn waist"),
    ),
    "Poncho": Shape(
        (1.3, 1.8), fit=(1.7, 2.2), cape=True, droop=(0.0, 0.4), necks=("crew", "v", "turtle", "boat"),
        details=("fringe",),
    ),
    "Sweater": Shape(
        (1.35, 1.65), fit=(1.05, 1.3), nip=(0.0, 0.4), sleeve=(0.8, 1.0), armhole=(0.19, 0.25),
        necks=("crew", "crew", "v", "boat"), details=("ribs", "cable"),
    ),
    "Tank": Shape(
        (1.35, 1.65), nip=(0.1, 0.7), strap=(0.05, 0.13), necks=("scoop", "scoop", "v", "crew"),
    ),
    "Tee": Shape(
        (1.35, 1.65), nip=(0.1, 0.6), sleeve=(0.2, 0.42), cuff=(0.16, 0.2), necks=("crew", "crew", "v"),
        details=("chest print",),
    ),
    "Top": Shape(
        (1.0, 1.5), fit=(0.95, 1.15), nip=(0.3, 1.0), flare=(0.0, 0.5), sleeve=(0.0, 0.5), cuff=(0.15, 0.27),
        necks=("boat", "square", "scoop"), details=("frill",),
    ),
    "Turtleneck": Shape(
        (1.4, 1.65), fit=(0.98, 1.2), nip=(0.2, 0.7), sleeve=(0.85, 1.0), necks=("turtle",), details=("ribs",),
    ),
    "Capris": Shape(
        (2.55, 2.85), top=False, legs=True, nip=(0.8, 1.0), cuff=(0.13, 0.18), fronts=("fly", "drawn waist"),
        details=("band", "turn-up"),
    ),
    "Culottes": Shape(
        (2.2, 2.7), top=False, legs=True, fit=(1.0, 1.15), nip=(0.9, 1.0), cuff=(0.3, 0.42),
        fronts=("belt", "pleats", ""), details=("band",),
    ),
    "Jeans": Shape(
        (3.15, 3.45), top=False, legs=True, nip=(0.8, 1.0), cuff=(0.12, 0.21), fronts=("fly",),
        details=("band", "turn-up"), denim=0.4,
    ),
    "Joggers": Shape(
        (3.05, 3.35), top=False, legs=True, fit=(1.05, 1.25), nip=(0.7, 0.95), cuff=(0.1, 0.14),
        fronts=("drawn waist",), details=("band", "ankle ribs", "pockets"),
    ),
    "Leggings": Shape(
        (3.0, 3.4), top=False, legs=True, fit=(0.94, 1.0), nip=(0.95, 1.0), cuff=(0.08, 0.11), details=("band",),
    ),
    "Sarong": Shape(
        (2.2, 3.2), top=False, nip=(0.9, 1.0), flare=(0.0, 0.12), droop=(-0.1, 0.1), fronts=("knot",),
    ),
    "Shorts": Shape(
        (1.85, 2.2), top=False, legs=True, nip=(0.85, 1.0), cuff=(0.24, 0.31), fronts=("fly", "drawn waist", "belt"),
        details=("band", "turn-up"), denim=0.2,
    ),
    "Skirt": Shape(
        (1.8, 3.1), top=False, nip=(0.9, 1.0), flare=(0.0, 0.5), fronts=("pleats", "buttons", ""), details=("band",),
    ),
    "Trunks": Shape(
        (2.0, 2.35), top=False, legs=True, fit=(1.05, 1.2), nip=(0.6, 0.9), cuff=(0.26, 0.32),
        fronts=("drawn waist",), details=("side stripe", "band"),
    ),
    "Coat": Shape(
        (2.1, 2.8), fit=(1.1, 1.25), nip=(0.2, 0.8), flare=(0.02, 0.2), sleeve=(0.9, 1.0), armhole=(0.19, 0.23),
        necks=("lapel", "lapel", "collar"), fronts=("double", "buttons", "open", "belt"), details=("pockets",),
    ),
    "Dress": Shape(
        (2.0, 3.2), fit=(0.96, 1.08), nip=(0.7, 1.0), flare=(0.05, 0.5), sleeve=(-0.3, 0.6), strap=(0.05, 0.12),
        necks=("scoop", "v", "boat", "square", "crew"), fronts=("belt", "", "pleats"), details=("waist seam",),
    ),
    "Jumpsuit": Shape(
        (3.0, 3.4), legs=True, nip=(0.7, 1.0), sleeve=(-0.5, 0.5), cuff=(0.12, 0.28), strap=(0.05, 0.13),
        necks=("v", "scoop", "collar", "square"), fronts=("belt", "drawn waist", "zip"), details=("waist seam",),
    ),
    "Kimono": Shape(
        (1.7, 2.7), fit=(1.1, 1.3), nip=(0.0, 0.2), sleeve=(0.5, 0.8), armhole=(0.26, 0.34), cuff=(0.3, 0.42),
        necks=("deep v", "shawl"), fronts=("open",), details=("border",),
    ),
    "Robe": Shape(
        (2.0, 3.0), fit=(1.1, 1.3), nip=(0.3, 0.8), flare=(0.0, 0.15), sleeve=(0.7, 1.0), armhole=(0.2, 0.27),
        cuff=(0.18, 0.26), necks=("shawl",), fronts=("tie",), details=("pockets",),
    ),
    "Romper": Shape(
        (1.85, 2.15), legs=True, nip=(0.7, 1.0), sleeve=(-0.5, 0.5), cuff=(0.24, 0.32), strap=(0.05, 0.13),
        necks=("v", "scoop", "square", "crew"), fronts=("drawn waist", "belt", "buttons"), details=("waist seam",),
    ),
}  # fmt: skip


class Stroke(NamedTuple):
    """A filled outline, or a line where it has a width. Light 1 leaves the colour as it is."""

    points: Array  # (P, 2)
    light: float
    second: bool = False  # in the second colour, else in the fabric
    width: float = 0.0


Strokes = Iterator[Stroke]


class Garment(NamedTuple):
    """A garment and its wearer, to be painted in this order."""

    wearer: list[Stroke]  # the fabric's place is taken by skin
    inside: list[Stroke]  # what shows of the back where nobody wears it
    strokes: list[Stroke]


class Cut:
    """One garment's measures, drawn from the ranges of its shape."""

    def __init__(self, shape: Shape, rng: np.random.Generator) -> None:
        def pick(bounds: Range) -> float:
            return float(rng.uniform(*bounds))

        self.shape, self.rng = shape, rng
        self.neck = NECKS[shape.necks[rng.integers(len(shape.necks))]]
        self.depth = self.neck.depth * pick((0.8, 1.25))
        self.hem, self.fit, self.nip, self.flare = map(pick, (shape.hem, shape.fit, shape.nip, shape.flare))
        self.cuff, self.armhole, self.droop = map(pick, (shape.cuff, shape.armhole, shape.droop))
        self.sleeve = pick(shape.sleeve) if shape.sleeve else 0.0
        self.start = 0.0 if shape.top else pick((0.92, 1.06))
        self.end = CROTCH if shape.legs else self.hem
        worn = self.sleeve > BARE or shape.cape
        self.shoulder = pick((0.46, 0.53)) if worn else self.neck.half + pick(shape.strap)
        self.arms = rng.uniform(0.08, 0.75 if rng.random() < 0.7 else 1.2, 2)  # radians away from the body
        self.elbows = rng.uniform(-0.5, 0.5, 2)
        self.stance = rng.uniform(0.0, 0.16, 2)
        self.wobble = rng.normal(0.0, 0.018, (2, 4))

    def half(self, y: ArrayLike) -> Array:
        """The half-width at a height."""
        y = np.asarray(y, dtype=np.float64)
        body = np.interp(y, (0.5, 1.0, 1.45), (0.47, 0.47 - 0.11 * self.nip, 0.48))
        wide: Array = body * self.fit + self.flare * np.clip(y - 1.0, 0.0, None)
        cape: Array = wide * np.interp(y, (0.2, 0.9), (0.42, 1.0))
        return cape if self.shape.cape else wide

    def side(self, sign: int, start: float, end: float) -> Array:
        """The outline of one side (-1 left, 1 right) between two heights."""
        y = np.linspace(start, end, 16)
        wobble = np.interp(y, np.linspace(0.4, self.end, 4), self.wobble[(sign + 1) // 2])
        return np.stack([sign * self.half(y) * (1 + wobble), y], axis=1)

    def across(self, y: float, low: float = -1.0, high: float = 1.0, sag: float = 0.03) -> Array:
        """A line across the garment at a height, from `low` to `high` in half-widths."""
        t = np.linspace(low, high, 9)
        return np.stack([t * self.half(y), y + sag * (1 - t**2)], axis=1)

    def hemline(self) -> Array:
        """The lower edge from right to left."""
        t = np.linspace(1, -1, 13)
        return np.stack([t * self.half(self.end), self.end + self.droop * (1 - t**2)], axis=1)

    def neckline(self, depth: float) -> Array:
        """The edge of the neck's opening from left to right."""
        t = np.linspace(-1, 1, 15)
        return np.stack([t * self.neck.half, depth * (1 - np.abs(t) ** self.neck.power)], axis=1)

    def arm(self, side: int) -> Callable[[ArrayLike], Array]:
        """The middle of an arm (0 left, 1 right) as a function of the way from shoulder to wrist."""
        sign, upper = 2 * side - 1, float(self.arms[side])
        lower = upper + float(self.elbows[side])
        joint = np.array([sign * (max(self.shoulder, 0.44) - 0.13), 0.2])
        elbow = joint + 0.5 * ARM * np.array([sign * np.sin(upper), np.cos(upper)])
        wrist = elbow + 0.5 * ARM * np.array([sign * np.sin(lower), np.cos(lower)])
        path = np.stack([joint, elbow, wrist])
        return lambda t: np.stack(
            [np.interp(np.asarray(t, dtype=np.float64), (0.0, 0.5, 1.0), path[:, axis]) for axis in (0, 1)], axis=-1
        )


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


def _tube(middle: Array, half: ArrayLike) -> Array:
    """The outline of a band of the given half-widths about a line (P, 2)."""
    along = np.gradient(middle, axis=0)
    normal = np.stack([-along[:, 1], along[:, 0]], axis=1) / np.linalg.norm(along, axis=1, keepdims=True)
    reach = normal * np.broadcast_to(np.asarray(half), len(middle))[:, None]
    return np.concatenate([middle + reach, (middle - reach)[::-1]])


def _ellipse(x: float, y: float, across: float, down: float) -> Array:
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return np.stack([x + across * np.cos(turn), y + down * np.sin(turn)], axis=1)


def _line(*points: tuple[float, float], light: float = 0.62, width: float = SEAM, second: bool = False) -> Stroke:
    return Stroke(np.array(points, dtype=np.float64), light, second, width)


def _wearer(cut: Cut) -> Strokes:
    """Head, neck, arms, legs and trunk; what the garment leaves bare there wears the second colour."""
    yield Stroke(_ellipse(0, -0.58, 0.24, 0.32), 0.3)
    for side in (0, 1):
        yield Stroke(_tube(cut.arm(side)(np.linspace(0, 1.12, 9)), np.linspace(0.09, 0.055, 9)), 0.95)
        clothed = cut.shape.top and not cut.shape.legs and cut.hem < 1.75
        yield Stroke(_leg(cut, side, 3.6, 0.12 if clothed else 0.075), 0.9, clothed)
    y = np.linspace(0.0, CROTCH, 9)
    trunk = np.stack([np.interp(y, (0.0, 0.12, 0.5, 1.0, 1.5), (0.2, 0.42, 0.41, 0.34, 0.42)), y], axis=1)
    yield Stroke(np.concatenate([trunk, trunk[::-1] * (-1, 1)]), 0.95, not cut.shape.top)
    yield Stroke(_tube(np.array([(0, -0.45), (0, 0.12)]), 0.1), 0.85)
    yield Stroke(_ellipse(0, -0.5, 0.18, 0.25), 1.05)


def _leg(cut: Cut, side: int, end: float, cuff: float) -> Array:
    """The outline of a leg (0 left, 1 right) down to the height `end`."""
    y = np.linspace(CROTCH - 0.2, end, 9)
    hip = float(cut.half(CROTCH)) / 2
    foot = hip + (0.2 + float(cut.stance[side]) - hip) * (end - CROTCH) / (ANKLE - CROTCH)
    middle = (2 * side - 1) * np.interp(y, (CROTCH, end), (hip, max(foot, cuff + GAP + cut.stance[side] / 4)))
    half = np.interp(y, (CROTCH, end), (hip - 0.005, cuff))
    return np.concatenate([np.stack([middle + half, y], axis=1), np.stack([middle - half, y], axis=1)[::-1]])


def _sleeves(cut: Cut) -> Strokes:
    if cut.sleeve > BARE:
        for side in (0, 1):
            way = np.linspace(0, cut.sleeve, 9)
            yield Stroke(_tube(cut.arm(side)(way), np.linspace(cut.armhole, cut.cuff, 9)), 0.92)


def _legs(cut: Cut) -> Strokes:
    if cut.shape.legs:
        for side in (0, 1):
            yield Stroke(_leg(cut, side, cut.hem, cut.cuff), 0.94 + 0.06 * side)


def _trunk(cut: Cut) -> Strokes:
    """From the shoulders or the waist down to the hem, or to where the legs begin."""
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


def _plain_neck(cut: Cut) -> Strokes:
    yield Stroke(cut.neckline(cut.depth) + np.array((0, 0.02)), 0.78, width=0.03)


def _turtle(cut: Cut) -> Strokes:
    half, rise = cut.neck.half, float(cut.rng.uniform(0.16, 0.26))
    yield Stroke(np.array([(-half, 0.08), (-half * 0.9, -rise), (half * 0.9, -rise), (half, 0.08), (0, 0.13)]), 0.95)
    yield _line((-half * 0.9, -rise * 0.4), (0, -rise * 0.25), (half * 0.9, -rise * 0.4))


def _stand(cut: Cut) -> Strokes:
    edge = cut.neckline(cut.depth)
    yield Stroke(np.concatenate([edge, (edge * (0.95, 1) - (0, 0.1))[::-1]]), 0.88)


def _collar(cut: Cut) -> Strokes:
    half, tip = cut.neck.half, float(cut.rng.uniform(0.2, 0.32))
    for sign in (-1, 1):
        flap = [(half * 0.9, -0.06), (half + 0.1, 0.07), (0.14, tip + 0.04), (0, cut.depth)]
        yield Stroke(np.array(flap) * (sign, 1), 0.9)


def _lapel(cut: Cut) -> Strokes:
    half, wide, notch = cut.neck.half, float(cut.rng.uniform(0.1, 0.17)), cut.depth * 0.42
    for sign in (-1, 1):
        upper = [(half, -0.05), (half + 0.1, 0.06), (half + wide - 0.04, notch), (half * 0.7, notch)]
        lower = [
            (half * 0.7, notch - 0.03),
            (half + wide, notch - 0.01),
            (0.02, cut.depth + 0.05),
            (0, cut.depth),
        ]
        yield Stroke(np.array(lower) * (sign, 1), 0.9)
        yield Stroke(np.array(upper) * (sign, 1), 0.86)


def _shawl(cut: Cut) -> Strokes:
    edge = cut.neckline(cut.depth)
    yield Stroke(np.concatenate([edge - (0, 0.03), (edge * (1.55, 1.0) + (0, 0.1))[::-1]]), 0.86)


def _hood(cut: Cut) -> Strokes:
    rise = 0.0 if cut.rng.random() < 0.6 else float(cut.rng.uniform(0.25, 0.4))  # down on the back, or up
    across = 0.36 if rise == 0 else 0.29
    yield Stroke(_ellipse(0, 0.0 - rise, across, 0.24 + rise * 0.7), 0.93)
    yield Stroke(_ellipse(0, 0.05 - rise, across * 0.66, 0.16 + rise * 0.7), 0.45)


TRIMS: dict[str, Callable[[Cut], Strokes]] = {
    "": _plain_neck, "turtle": _turtle, "stand": _stand, "collar": _collar, "lapel": _lapel, "shawl": _shawl,
    "hood": _hood,
}  # fmt: skip


def _top_of(cut: Cut) -> float:
    """Where a front starts: under the neckline, or at the waist."""
    return cut.depth if cut.shape.top else cut.start


def _button_row(cut: Cut, x: float, start: float, end: float) -> Strokes:
    light = 0.4 if cut.rng.random() < 0.6 else 1.15
    for y in np.arange(start + 0.06, end - 0.02, cut.rng.uniform(0.15, 0.24)):
        yield Stroke(_ellipse(x, float(y), 0.022, 0.022), light, True)


def _buttons(cut: Cut) -> Strokes:
    start = _top_of(cut)
    for x in (-0.045, 0.045):
        yield _line((x, start), (x, cut.end))
    yield from _button_row(cut, 0.0, start, cut.end)


def _placket(cut: Cut) -> Strokes:
    end = cut.depth + float(cut.rng.uniform(0.28, 0.42))
    yield Stroke(np.array([(-0.05, cut.depth), (0.05, cut.depth), (0.05, end), (-0.05, end)]), 0.85)
    yield from _button_row(cut, 0.0, cut.depth, end)


def _one_button(cut: Cut) -> Strokes:
    yield _line((0, cut.depth), (0.04, 1.15), (-0.12, cut.end), light=0.45)
    yield Stroke(_ellipse(0.03, cut.depth + 0.12, 0.03, 0.03), 0.4, True)


def _double(cut: Cut) -> Strokes:
    yield _line((0.12, cut.depth * 0.8), (0.16, cut.end), light=0.5)
    for x in (-0.14, 0.14):
        yield from _button_row(cut, x, cut.depth, min(1.45, cut.end))


def _zip(cut: Cut) -> Strokes:
    yield _line((0, _top_of(cut)), (0, cut.end), light=0.45, width=0.05)
    yield _line((0, _top_of(cut)), (0, cut.end), light=1.1, width=0.018, second=True)


def _open(cut: Cut) -> Strokes:
    """Two front edges with what is worn below between them."""
    low, high = cut.rng.uniform(0.05, 0.5, 2) * float(cut.half(cut.end))
    half, end = cut.neck.half * 0.9, cut.end + cut.droop
    yield Stroke(np.array([(-half, 0.12), (0, 0.17), (half, 0.12), (half * 0.8, 0.6), (high, end), (-low, end),
                           (-half * 0.8, 0.6)]), 0.8, True)  # fmt: skip
    for sign, gap in ((-1, low), (1, high)):
        yield _line((sign * half, 0.0), (sign * half * 0.8, 0.6), (sign * gap, end), light=0.7, width=0.05)


def _tie(cut: Cut) -> Strokes:
    yield _line((0.0, cut.depth), (-0.12, 1.3), (-0.2, cut.end), light=0.45)
    yield from _belt(cut)
    for x in (0.08, -0.1):
        yield _line((0, 1.03), (x * 0.8, 1.3), (x, 1.62), light=0.9, width=0.05, second=True)


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
        yield _line((x, y - 0.05), (x * 1.02, y + 0.08), light=0.72)
    for x in cut.rng.uniform(0.03, 0.12, 2) * (-1, 1):
        yield _line((0, y), (x * 0.7, y + 0.14), (x, y + 0.28), light=1.15, width=0.025, second=True)


def _fly(cut: Cut) -> Strokes:
    yield _line((0, cut.start), (0, CROTCH), light=0.6)
    yield _line((0.07, cut.start + 0.08), (0.07, 1.38), (0.0, 1.52), light=0.7)
    yield Stroke(_ellipse(0, cut.start + 0.05, 0.025, 0.025), 1.15, True)
    for sign in (-1, 1):
        x = sign * float(cut.half(1.2))
        yield _line((x * 0.45, cut.start + 0.1), (x * 0.6, 1.22), (x * 0.97, 1.28), light=0.55)


def _pleats(cut: Cut) -> Strokes:
    """Folds that spread from the waist to the hem."""
    start, count = max(cut.start, 1.0), int(cut.rng.integers(3, 10))
    end = cut.end - 0.03 if cut.rng.random() < 0.7 else start + 0.4
    for t in np.linspace(-0.85, 0.85, count) + cut.rng.normal(0, 0.02, count):
        yield _line((float(t * cut.half(start)), start), (float(t * cut.half(end)), end), light=0.75, width=0.03)


def _knot(cut: Cut) -> Strokes:
    """One end wrapped over the other and tied at the hip."""
    sign = 1 if cut.rng.random() < 0.5 else -1
    x, y = sign * 0.7 * float(cut.half(1.1)), cut.start + 0.08
    end = float(cut.half(cut.end)) * -sign * float(cut.rng.uniform(0.1, 0.5))
    yield _line((x, y), (x * 0.4, 1.7), (end, cut.end), light=0.45, width=0.035)
    for t in (0.75, 0.3, -0.2):
        yield _line((x, y), (t * x, y + 0.35 * (1.2 - t)), light=0.7, width=0.03)
    for reach in (-0.14, 0.1):
        yield Stroke(np.array([(x, y), (x + reach, y + 0.4), (x + reach + 0.1, y + 0.36)]), 0.85)
    yield Stroke(_ellipse(x, y, 0.07, 0.06), 0.8)


def _ends(cut: Cut, light: float, deep: float, second: bool = False) -> Strokes:
    """A band about the end of each sleeve or leg."""
    for side in (0, 1):
        if cut.sleeve > BARE:
            way = np.linspace(cut.sleeve - deep / ARM, cut.sleeve, 3)
            yield Stroke(_tube(cut.arm(side)(way), cut.cuff + 0.01), light, second)
        elif cut.shape.legs:
            leg = _leg(cut, side, cut.hem, cut.cuff)
            low = leg[np.argsort(leg[:, 1])[-6:]].mean(axis=0)
            yield Stroke(
                _tube(np.array([low + np.array((0, 0.1 - deep)), low + np.array((0, 0.1))]), cut.cuff + 0.01),
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
        yield _line((x, cut.end - 0.09), (x, cut.end), light=0.68, width=0.01)


def _border(cut: Cut) -> Strokes:
    yield from _ends(cut, 0.9, 0.12, True)
    yield _band_at(cut, cut.end - 0.12, 0.1, 0.9, True)


def _side_stripe(cut: Cut) -> Strokes:
    for sign in (-1, 1):
        x = sign * float(cut.half(1.3))
        yield _line((x * 0.86, cut.start + 0.1), (x * 0.93, cut.hem - 0.08), light=1.0, width=0.07, second=True)


def _pockets(cut: Cut) -> Strokes:
    y, deep = float(cut.rng.uniform(1.08, 1.25)), float(cut.rng.uniform(0.03, 0.28))
    for sign in (-1, 1):
        near, far = (sign * share * float(cut.half(y)) for share in (0.42, 0.82))
        yield _line((near, y), (far, y), (far, y + deep), (near, y + deep), (near, y), light=0.6)


def _kangaroo(cut: Cut) -> Strokes:
    low, half = cut.end - 0.12, 0.6 * float(cut.half(1.2))
    high = low - 0.32
    yield _line((-half, low), (-half, low - 0.1), (-half * 0.62, high), (half * 0.62, high), (half, low - 0.1),
                (half, low), light=0.55, width=0.02)  # fmt: skip


def _cords(cut: Cut) -> Strokes:
    for x in (-0.08, 0.08):
        yield _line((x, 0.16), (x * 1.1, 0.4), (x * 1.3, float(cut.rng.uniform(0.45, 0.65))), light=1.15, width=0.025,
                    second=True)  # fmt: skip


def _chest_pocket(cut: Cut) -> Strokes:
    yield _line((0.12, 0.5), (0.32, 0.5), (0.32, 0.7), (0.22, 0.74), (0.12, 0.7), (0.12, 0.5), light=0.6)


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
        yield _line((x, y - 0.02), (x * 1.01, y + 0.13), light=0.8, width=0.03)


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
