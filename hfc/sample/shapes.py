"""How each category is cut: measures, and the parts a garment may have.

Lengths are in shoulder widths (about 40 cm), y counts down from the shoulders: waist 1.0, crotch 1.6, knee 2.4,
ankle 3.4.
"""

from dataclasses import dataclass
from typing import NamedTuple

Range = tuple[float, float]


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
    """A neckline: half-width, depth and form of the opening, and its trim.

    The form goes from 1 for a V to 4 for a square; the trim is sewn on to it.
    """

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
