"""Colours, gradients and smooth noise, as planes that add up."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# float32: colours (3, H, W) or one value a pixel (H, W), 0 to 1: planes add up faster than pixels
Array = NDArray[np.floating[Any]]


def draw_colours(rng: np.random.Generator, count: int) -> Array:
    """Colours (count, 3, 1, 1), as often grey as vivid."""
    hue = rng.uniform(0, 2 * np.pi, (count, 1)) + np.array((0, 2, 4)) * np.pi / 3
    vivid = rng.uniform(0, 0.6, (count, 1)) ** 1.3
    colours = np.clip(rng.uniform(0.15, 0.95, (count, 1)) * (1 + vivid * np.cos(hue)), 0.03, 1)
    return colours.astype(np.float32)[:, :, None, None]


def as_colour(red: float, green: float, blue: float) -> Array:
    """A colour (3, 1, 1) of its three shares."""
    return np.array((red, green, blue), np.float32)[:, None, None]


def ramp(low: float, high: float, count: int, rng: np.random.Generator) -> Array:
    """From one random value between low and high to another, in equal steps."""
    start, stop = (float(end) for end in rng.uniform(low, high, 2))
    return np.linspace(start, stop, count, dtype=np.float32)


def cloud(width: int, height: int, cells: tuple[int, int], rng: np.random.Generator) -> Array:
    """Smooth noise (H, W) about 0, with so many cells across and down."""
    noise = Image.fromarray(rng.standard_normal(cells[::-1], np.float32))
    return np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC))
