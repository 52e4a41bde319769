"""What a garment is photographed before."""

import numpy as np
from PIL import Image, ImageDraw

from hfc.sample.colours import Array, cloud, draw_colours, ramp


def draw_background(width: int, height: int, colour: Array, rng: np.random.Generator) -> Array:
    """A wall, with anything from nothing to a heap of things before it."""
    image = Image.new("RGB", (width, height), _rgb(colour))
    draw = ImageDraw.Draw(image)
    if rng.random() < 0.4:
        draw.rectangle((0, int(height * rng.uniform(0.5, 0.95)), width, height), _rgb(draw_colours(rng, 1)[0]))
    for _ in range(int(rng.integers(0, 9)) if rng.random() < 0.7 else 0):
        fill = _rgb(colour + (draw_colours(rng, 1)[0] - colour) * rng.uniform(0.2, 1))
        x, y = rng.uniform(-0.1, 1, 2) * (width, height)
        right, low = (x, y) + rng.uniform(0.03, 0.5, 2) * (width, height)
        match int(rng.integers(4)):
            case 0:
                draw.rectangle((x, y, right, low), fill)
            case 1:
                draw.ellipse((x, y, right, low), fill)
            case 2:
                draw.line((x, y, right, low), fill, int(rng.integers(2, 14)))
            case _:
                draw.polygon([tuple(corner) for corner in rng.uniform((x, y), (right, low), (5, 2)).tolist()], fill)
    slope = ramp(-0.15, 0.15, height, rng)[:, None]
    texture = cloud(width, height, (int(rng.integers(3, 40)), int(rng.integers(3, 40))), rng)
    planes = np.stack([np.asarray(band, dtype=np.float32) for band in image.split()])
    return planes / 255 + (slope + rng.uniform(0, 0.07) * texture)


def _rgb(colour: Array) -> tuple[int, int, int]:
    red, green, blue = (int(255 * channel) for channel in np.clip(colour, 0, 1).ravel())
    return red, green, blue
