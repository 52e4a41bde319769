"""What is sewn on to a neckline: collars, lapels, hoods."""

from collections.abc import Callable

import numpy as np

from hfc.sample.cut import Cut, Stroke, Strokes, ellipse, line


def _plain_neck(cut: Cut) -> Strokes:
    yield Stroke(cut.neckline(cut.depth) + np.array((0, 0.02)), 0.78, width=0.03)


def _turtle(cut: Cut) -> Strokes:
    half, rise = cut.neck.half, float(cut.rng.uniform(0.16, 0.26))
    yield Stroke(np.array([(-half, 0.08), (-half * 0.9, -rise), (half * 0.9, -rise), (half, 0.08), (0, 0.13)]), 0.95)
    yield line((-half * 0.9, -rise * 0.4), (0, -rise * 0.25), (half * 0.9, -rise * 0.4))


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
    yield Stroke(ellipse(0, 0.0 - rise, across, 0.24 + rise * 0.7), 0.93)
    yield Stroke(ellipse(0, 0.05 - rise, across * 0.66, 0.16 + rise * 0.7), 0.45)


TRIMS: dict[str, Callable[[Cut], Strokes]] = {
    "": _plain_neck, "turtle": _turtle, "stand": _stand, "collar": _collar, "lapel": _lapel, "shawl": _shawl,
    "hood": _hood,
}  # fmt: skip
