"""Cloth: its pattern, and the light on its folds."""

import numpy as np
from PIL import Image, ImageFilter

from hfc.sample.colours import Array, as_colour, cloud, ramp

FABRICS = ("Plain", "Striped", "Checked", "Dotted", "Printed", "Knit")


def weave(fabric: str, width: int, height: int, unit: float, colours: Array, rng: np.random.Generator) -> Array:
    """Cloth (3, H, W). `unit` is the shoulder width in pixels, so that patterns grow with the garment."""
    base, other = colours
    angle = rng.normal(0, 0.12) + (np.pi / 2 if rng.random() < 0.5 else 0.0)
    pace = 2 * np.pi / max(5.0, unit * rng.uniform(0.06, 0.28))
    y, x = np.ogrid[:height, :width]
    across = (pace * (x * np.cos(angle) + y * np.sin(angle))).astype(np.float32)
    along = (pace * (y * np.cos(angle) - x * np.sin(angle))).astype(np.float32)
    grain: Array = np.ones((1, 1), np.float32)
    pattern: Array = np.zeros((1, 1), np.float32)
    if fabric == "Striped":
        pattern = _wave(across, rng.uniform(1, 4))
    elif fabric == "Checked":
        pattern = (_wave(across, 2) + _wave(along, 2)) / 2
    elif fabric == "Dotted":
        pattern = np.clip(np.sin(across) * np.sin(along) * 4 - 1.6, 0, 1)
    elif fabric == "Printed":
        cells = (int(width * pace / 4) + 4, int(height * pace / 4) + 4)
        pattern = np.clip(cloud(width, height, cells, rng) * 3 - 0.8, 0, 1)
    elif fabric == "Knit":
        grain = 1 + 0.12 * np.sin(across * 2.2) * np.sin(along * 1.1)
    elif fabric == "Denim":
        base = as_colour(0.28, 0.38, 0.58) * np.float32(rng.uniform(0.5, 1.5))
        fade = 0.12 * cloud(width, height, (4, 6), rng)
        grain = 1 + fade + 0.1 * rng.standard_normal((height, width), np.float32)
    woven: Array = (base + (other - base) * pattern) * grain
    return woven


def _wave(phase: Array, sharpness: float) -> Array:
    return np.clip(0.5 + sharpness * np.sin(phase), 0, 1)


def folds(cover: Image.Image, rng: np.random.Generator) -> Array:
    """Draw light (H, W) on a garment: creases, a lit side, edges that turn away."""
    width, height = cover.size
    crease = cloud(width, height, (int(rng.integers(6, 16)), int(rng.integers(3, 9))), rng)
    rounded = np.asarray(cover.resize((width // 4, height // 4)).filter(ImageFilter.BoxBlur(3)).resize(cover.size))
    lit = ramp(-0.12, 0.12, width, rng)
    return (0.72 + lit + rng.uniform(0.03, 0.12) * crease + 0.32 * (rounded / np.float32(255))).astype(np.float32)
