"""One garment's measures, and the outlines that everything drawn is made of.

Lengths are those of `hfc.sample.shapes`; P is the number of points of an outline.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hfc.sample.shapes import NECKS, Range, Shape

Array = NDArray[np.float64]
CROTCH = 1.62
ANKLE = 3.4
ARM = 1.45  # shoulder to wrist
SEAM = 0.014
GAP = 0.02  # from the middle to a wide leg's hem, without which culottes would be skirts
BARE = 0.12  # sleeves shorter than this are none


class Stroke(NamedTuple):
    """A filled outline, or a line where it has a width. Light 1 leaves the colour as it is."""

    points: Array  # (P, 2)
    light: float
    second: bool = False  # in the second colour, else in the fabric
    width: float = 0.0


Strokes = Iterator[Stroke]


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
        """Return the middle of an arm (0 left, 1 right).

        It is a function of the way from shoulder to wrist.
        """
        sign, upper = 2 * side - 1, float(self.arms[side])
        lower = upper + float(self.elbows[side])
        joint = np.array([sign * (max(self.shoulder, 0.44) - 0.13), 0.2])
        elbow = joint + 0.5 * ARM * np.array([sign * np.sin(upper), np.cos(upper)])
        wrist = elbow + 0.5 * ARM * np.array([sign * np.sin(lower), np.cos(lower)])
        path = np.stack([joint, elbow, wrist])
        return lambda t: np.stack(
            [np.interp(np.asarray(t, dtype=np.float64), (0.0, 0.5, 1.0), path[:, axis]) for axis in (0, 1)], axis=-1
        )


def tube(middle: Array, half: ArrayLike) -> Array:
    """The outline of a band of the given half-widths about a line (P, 2)."""
    along = np.gradient(middle, axis=0)
    normal = np.stack([-along[:, 1], along[:, 0]], axis=1) / np.linalg.norm(along, axis=1, keepdims=True)
    reach = normal * np.broadcast_to(np.asarray(half), len(middle))[:, None]
    return np.concatenate([middle + reach, (middle - reach)[::-1]])


def ellipse(x: float, y: float, across: float, down: float) -> Array:
    """The outline of an ellipse of the given half-axes about a point."""
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return np.stack([x + across * np.cos(turn), y + down * np.sin(turn)], axis=1)


def line(*points: tuple[float, float], light: float = 0.62, width: float = SEAM, second: bool = False) -> Stroke:
    """A line through points, of a seam's width by default."""
    return Stroke(np.array(points, dtype=np.float64), light, second, width)


def leg_outline(cut: Cut, side: int, end: float, cuff: float) -> Array:
    """The outline of a leg (0 left, 1 right) down to the height `end`."""
    y = np.linspace(CROTCH - 0.2, end, 9)
    hip = float(cut.half(CROTCH)) / 2
    foot = hip + (0.2 + float(cut.stance[side]) - hip) * (end - CROTCH) / (ANKLE - CROTCH)
    middle = (2 * side - 1) * np.interp(y, (CROTCH, end), (hip, max(foot, cuff + GAP + cut.stance[side] / 4)))
    half = np.interp(y, (CROTCH, end), (hip - 0.005, cuff))
    return np.concatenate([np.stack([middle + half, y], axis=1), np.stack([middle - half, y], axis=1)[::-1]])
