"""Draw one picture: a garment before a background, as a camera sees it. It is in its fabric, worn or laid out.

What tells the categories apart is how a garment is cut (`hfc.sample.garments`). Fabric, colours, pose, background and
light are drawn without looking at the category.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from hfc.sample.background import draw_background
from hfc.sample.colours import Array, as_colour, draw_colours, ramp
from hfc.sample.cut import Stroke
from hfc.sample.fabrics import folds, weave
from hfc.sample.garments import cut_garment
from hfc.sample.shapes import SHAPES

Box = tuple[int, int, int, int]
LONG_SIDE = 300
OVERSAMPLE = 2
UNLIT = 200  # the canvas's value for light 1, which leaves room for highlights


class Drawing(NamedTuple):
    """A drawn image, the garment's cover and its box.

    The cover is mode L, 255 where it is; the box is tight, x1, y1, x2, y2 in pixels.
    """

    image: Image.Image
    cover: Image.Image
    box: Box


def draw_picture(category: str, fabric: str, rng: np.random.Generator) -> Drawing:
    """Draws one garment before a background.

    Args:
        category: a key of SHAPES.
        fabric: one of FABRICS, or Denim.
        rng: where everything else is drawn from.

    Returns:
        The picture, its longer side LONG_SIDE pixels.
    """
    sides = [LONG_SIDE, int(rng.integers(190, LONG_SIDE + 1))]
    height, width = sides if rng.random() < 0.8 else sides[::-1]
    garment = cut_garment(category, rng)
    matrix = _place(garment.strokes, width, height, rng.uniform(0.62, 0.97), rng)
    colours = draw_colours(rng, 4)  # the fabric's two, what is worn with it, and the background
    scene = draw_background(width, height, colours[3], rng)
    if rng.random() < 0.15:  # something else hangs nearby, and may peep out from behind
        other = cut_garment(str(rng.choice(list(SHAPES))), rng)
        aside = _place(other.strokes, width, height, 0.45, rng)
        scene = _dress(scene, _paint(other.strokes, aside, width, height), *draw_colours(rng, 2))
    if rng.random() < 0.5:
        skin = np.float32(rng.uniform(0.3, 1.0)) * as_colour(0.95, 0.76, 0.64)
        scene = _dress(scene, _paint(garment.wearer, matrix, width, height), skin, colours[2])
        strokes = garment.strokes
    else:
        strokes = garment.inside + garment.strokes
    canvas = _paint(strokes, matrix, width, height)
    cover = canvas.getchannel(2)
    box = cover.point([0] * 128 + [255] * 128).getbbox()
    assert box is not None  # every garment covers some pixels
    cloth = weave(fabric, width, height, float(np.hypot(*matrix[0, :2])), colours[:2], rng)
    scene = _dress(scene, canvas, cloth * folds(cover, rng), colours[1 + int(rng.integers(2))])
    return Drawing(_expose(scene, rng), cover, box)


def _place(
    strokes: Sequence[Stroke], width: int, height: int, share: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return the map (2, 3) from shoulder widths to pixels.

    It is a random turn, shear and shift, filling `share` of the picture.
    """
    turn, shear = rng.normal(0, 0.07), rng.normal(0, 0.05)
    linear = np.array([(np.cos(turn), -np.sin(turn)), (np.sin(turn), np.cos(turn))]) @ ((1, shear), (0, 1))
    linear = linear * ((rng.uniform(0.92, 1.08),), (1.0,)) * (1 if rng.random() < 0.5 else (-1, 1))
    points = np.concatenate([stroke.points for stroke in strokes if not stroke.width]) @ linear.T
    low, extent = points.min(axis=0), np.ptp(points, axis=0)
    frame = np.array((width - 4.0, height - 4.0))
    scale = share * float((frame / extent).min())
    shift = 2 + rng.uniform(0, 1, 2) * (frame - scale * extent) - scale * low
    return np.concatenate([scale * linear, shift[:, None]], axis=1)


def _paint(strokes: Iterable[Stroke], matrix: NDArray[np.float64], width: int, height: int) -> Image.Image:
    """Paint strokes on a canvas. Its three channels are light, share of the second colour, and cover."""
    canvas = Image.new("RGB", (width * OVERSAMPLE, height * OVERSAMPLE))
    draw = ImageDraw.Draw(canvas)
    unit = OVERSAMPLE * float(np.hypot(*matrix[0, :2]))
    for stroke in strokes:
        xy = (OVERSAMPLE * (stroke.points @ matrix[:, :2].T + matrix[:, 2])).ravel().tolist()
        second = 255 if stroke.second else 0
        fill = (min(255, round(UNLIT * stroke.light)), second, 255)
        if stroke.width:
            draw.line(xy, fill, max(1, round(unit * stroke.width)), "curve")
        else:
            draw.polygon(xy, fill)
            draw.line(xy + xy[:2], (round(UNLIT * 0.62 * min(1, stroke.light)), second, 255), OVERSAMPLE)
    return canvas.reduce(OVERSAMPLE)


def _dress(scene: Array, canvas: Image.Image, first: Array, second: Array) -> Array:
    """Lay what is painted on the canvas over the scene, in two colours."""
    light, share, cover = (np.asarray(band, dtype=np.float32) for band in canvas.split())
    # Pixels on the edge hold light and share of only the part that is covered.
    part = np.maximum(cover, 1)
    brightness: Array = light * (255 / UNLIT) / part
    colour = (first + (second - first) * (share / part)) * brightness
    colour -= scene
    colour *= cover / 255
    colour += scene
    return colour


def _expose(scene: Array, rng: np.random.Generator) -> Image.Image:
    """Take the photograph: uneven light, a tint, noise, and at times a little blur."""
    _, height, width = scene.shape
    light = ramp(0.8, 1.12, width, rng)
    noise = np.float32(rng.uniform(0.0, 0.035)) * rng.standard_normal((height, width), np.float32)
    tint = as_colour(*(255 * rng.uniform(0.93, 1.07, 3)))
    planes = np.clip(scene * (tint * light) + 255 * noise, 0, 255).astype(np.uint8)
    image = Image.merge("RGB", [Image.fromarray(plane) for plane in planes])
    return image.filter(ImageFilter.BoxBlur(rng.uniform(0.3, 0.9))) if rng.random() < 0.4 else image
