"""A drawn sample in DeepFashion's own layout, for trying everything without its images.

What tells the categories apart is how a garment is cut (`hfc.datasets.garments`). Fabric, colours, pose, background and
light are drawn here without looking at the category, save that jeans are more often of denim.
"""

import csv
import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from hfc.datasets.deepfashion import MARKER
from hfc.datasets.garments import SHAPES, Stroke, cut_garment
from hfc.errors import DatasetError
from hfc.outputs import followed

Array = NDArray[
    np.floating[Any]
]  # float32: colours (3, H, W) or one value a pixel (H, W), 0 to 1: planes add up faster than pixels
Box = tuple[int, int, int, int]

LEAST_IMAGES = 40
LONG_SIDE = 300
OVERSAMPLE = 2
UNLIT = 200  # the canvas's value for light 1, which leaves room for highlights
FABRICS = ("Plain", "Striped", "Checked", "Dotted", "Printed", "Knit")
CATEGORIES = Path(__file__).with_name("deepfashion_categories.csv")


class Plan(NamedTuple):
    """One image to draw."""

    number: int
    category: str
    fabric: str
    split: str
    name: str  # img/<item>/img_00000001.jpg


class Picture(NamedTuple):
    """A drawn image, the garment's cover (mode L, 255 where it is) and its tight box x1, y1, x2, y2 in pixels."""

    image: Image.Image
    cover: Image.Image
    box: Box


def draw_sample(root: Path, *, images: int, seed: int, progress: Callable[[int], object] | None = None) -> None:
    """Draws garments of some thirty categories and writes them in DeepFashion's layout.

    The same arguments and library versions write the same bytes. Categories are as unequally frequent as
    DeepFashion's to the power of 1/4; about 60% of the images are for training, 15% for validation, 25% for the test.

    Args:
        root: the folder to make: a new one or an empty one.
        images: how many, at least LEAST_IMAGES.
        seed: at least 0.
        progress: called with the number of images drawn so far.

    Raises:
        DatasetError: too few images, a folder that holds something, or one that cannot be written.
    """
    if images < LEAST_IMAGES:
        raise DatasetError(f"a sample needs at least {LEAST_IMAGES} images to fill its splits, found {images}")
    if seed < 0:
        raise DatasetError(f"a sample's seed must be 0 or more, found {seed}")
    root = followed(root.absolute())
    drawing = root.with_name(f".{root.name}.drawing-{os.getpid()}")
    made = False
    try:
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise DatasetError(f"{root}: exists and is not an empty folder; name a new folder for the sample")
        drawing.mkdir(parents=True)
        made = True
        _write_tree(drawing, _plan(images, seed), seed, progress)
        if root.exists():
            root.rmdir()
        drawing.rename(root)
    except OSError as error:
        raise DatasetError(f"{root}: cannot write the sample: {error}") from error
    finally:
        if made:
            shutil.rmtree(drawing, ignore_errors=True)


def is_sample(root: Path, images: int, seed: int) -> bool:
    """Whether `draw_sample` drew a folder, from these arguments."""
    try:
        marker = json.loads((root / MARKER).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return bool(marker == _marker(images, seed))


def _marker(images: int, seed: int) -> dict[str, object]:
    return {"drawn_by": "hfc sample", "images": images, "seed": seed}


def draw_picture(category: str, fabric: str, rng: np.random.Generator) -> Picture:
    """Draws one garment before a background.

    Args:
        category: a key of garments.SHAPES.
        fabric: one of FABRICS, or Denim.
        rng: where everything else is drawn from.

    Returns:
        The picture, its longer side LONG_SIDE pixels.
    """
    sides = [LONG_SIDE, int(rng.integers(190, LONG_SIDE + 1))]
    height, width = sides if rng.random() < 0.8 else sides[::-1]
    garment = cut_garment(category, rng)
    matrix = _place(garment.strokes, width, height, rng.uniform(0.62, 0.97), rng)
    colours = _colours(rng, 4)  # the fabric's two, what is worn with it, and the background
    scene = _background(width, height, colours[3], rng)
    if rng.random() < 0.15:  # something else hangs nearby, and may peep out from behind
        other = cut_garment(str(rng.choice(list(SHAPES))), rng)
        aside = _place(other.strokes, width, height, 0.45, rng)
        scene = _dress(scene, _paint(other.strokes, aside, width, height), *_colours(rng, 2))
    if rng.random() < 0.5:
        skin = np.float32(rng.uniform(0.3, 1.0)) * _colour(0.95, 0.76, 0.64)
        scene = _dress(scene, _paint(garment.wearer, matrix, width, height), skin, colours[2])
        strokes = garment.strokes
    else:
        strokes = garment.inside + garment.strokes
    canvas = _paint(strokes, matrix, width, height)
    cover = canvas.getchannel(2)
    box = cover.point([0] * 128 + [255] * 128).getbbox()
    assert box is not None  # every garment covers some pixels
    cloth = _weave(fabric, width, height, float(np.hypot(*matrix[0, :2])), colours[:2], rng)
    scene = _dress(scene, canvas, cloth * _folds(cover, rng), colours[1 + int(rng.integers(2))])
    return Picture(_expose(scene, rng), cover, box)


def _place(
    strokes: Sequence[Stroke], width: int, height: int, share: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """The map (2, 3) from shoulder widths to pixels: a random turn, shear and shift, filling `share` of the picture."""
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
    """Strokes on a canvas whose three channels are light, share of the second colour, and cover."""
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
    """The scene with what is painted on the canvas laid over it in two colours."""
    light, share, cover = (np.asarray(band, dtype=np.float32) for band in canvas.split())
    # Pixels on the edge hold light and share of only the part that is covered.
    part = np.maximum(cover, 1)
    brightness: Array = light * (255 / UNLIT) / part
    colour = (first + (second - first) * (share / part)) * brightness
    colour -= scene
    colour *= cover / 255
    colour += scene
    return colour


def _colours(rng: np.random.Generator, count: int) -> Array:
    """Colours (count, 3, 1, 1), as often grey as vivid."""
    hue = rng.uniform(0, 2 * np.pi, (count, 1)) + np.array((0, 2, 4)) * np.pi / 3
    vivid = rng.uniform(0, 0.6, (count, 1)) ** 1.3
    colours = np.clip(rng.uniform(0.15, 0.95, (count, 1)) * (1 + vivid * np.cos(hue)), 0.03, 1)
    return colours.astype(np.float32)[:, :, None, None]


def _colour(red: float, green: float, blue: float) -> Array:
    return np.array((red, green, blue), np.float32)[:, None, None]


def _ramp(low: float, high: float, count: int, rng: np.random.Generator) -> Array:
    """From one random value between low and high to another, in equal steps."""
    start, stop = (float(end) for end in rng.uniform(low, high, 2))
    return np.linspace(start, stop, count, dtype=np.float32)


def _cloud(width: int, height: int, cells: tuple[int, int], rng: np.random.Generator) -> Array:
    """Smooth noise (H, W) about 0, with so many cells across and down."""
    noise = Image.fromarray(rng.standard_normal(cells[::-1], np.float32))
    return np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC))


def _wave(phase: Array, sharpness: float) -> Array:
    return np.clip(0.5 + sharpness * np.sin(phase), 0, 1)


def _weave(fabric: str, width: int, height: int, unit: float, colours: Array, rng: np.random.Generator) -> Array:
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
        pattern = np.clip(_cloud(width, height, cells, rng) * 3 - 0.8, 0, 1)
    elif fabric == "Knit":
        grain = 1 + 0.12 * np.sin(across * 2.2) * np.sin(along * 1.1)
    elif fabric == "Denim":
        base = _colour(0.28, 0.38, 0.58) * np.float32(rng.uniform(0.5, 1.5))
        fade = 0.12 * _cloud(width, height, (4, 6), rng)
        grain = 1 + fade + 0.1 * rng.standard_normal((height, width), np.float32)
    woven: Array = (base + (other - base) * pattern) * grain
    return woven


def _folds(cover: Image.Image, rng: np.random.Generator) -> Array:
    """Light (H, W) on a garment: creases, a lit side, and edges that turn away."""
    width, height = cover.size
    crease = _cloud(width, height, (int(rng.integers(6, 16)), int(rng.integers(3, 9))), rng)
    rounded = np.asarray(cover.resize((width // 4, height // 4)).filter(ImageFilter.BoxBlur(3)).resize(cover.size))
    lit = _ramp(-0.12, 0.12, width, rng)
    return (0.72 + lit + rng.uniform(0.03, 0.12) * crease + 0.32 * (rounded / np.float32(255))).astype(np.float32)


def _background(width: int, height: int, colour: Array, rng: np.random.Generator) -> Array:
    """A wall, with anything from nothing to a heap of things before it."""
    image = Image.new("RGB", (width, height), _rgb(colour))
    draw = ImageDraw.Draw(image)
    if rng.random() < 0.4:
        draw.rectangle((0, int(height * rng.uniform(0.5, 0.95)), width, height), _rgb(_colours(rng, 1)[0]))
    for _ in range(int(rng.integers(0, 9)) if rng.random() < 0.7 else 0):
        fill = _rgb(colour + (_colours(rng, 1)[0] - colour) * rng.uniform(0.2, 1))
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
    slope = _ramp(-0.15, 0.15, height, rng)[:, None]
    texture = _cloud(width, height, (int(rng.integers(3, 40)), int(rng.integers(3, 40))), rng)
    planes = np.stack([np.asarray(band, dtype=np.float32) for band in image.split()])
    return planes / 255 + (slope + rng.uniform(0, 0.07) * texture)


def _rgb(colour: Array) -> tuple[int, int, int]:
    red, green, blue = (int(255 * channel) for channel in np.clip(colour, 0, 1).ravel())
    return red, green, blue


def _expose(scene: Array, rng: np.random.Generator) -> Image.Image:
    """The photograph: uneven light, a tint, the sensor's noise, and at times a little blur."""
    _, height, width = scene.shape
    light = _ramp(0.8, 1.12, width, rng)
    noise = np.float32(rng.uniform(0.0, 0.035)) * rng.standard_normal((height, width), np.float32)
    tint = _colour(*(255 * rng.uniform(0.93, 1.07, 3)))
    planes = np.clip(scene * (tint * light) + 255 * noise, 0, 255).astype(np.uint8)
    image = Image.merge("RGB", [Image.fromarray(plane) for plane in planes])
    return image.filter(ImageFilter.BoxBlur(rng.uniform(0.3, 0.9))) if rng.random() < 0.4 else image


def _plan(images: int, seed: int) -> list[Plan]:
    """What to draw, in the order of the image names."""
    rng = np.random.default_rng(seed)
    counts = _shares(images)
    split_of = _splits(counts)
    numbers: dict[str, int] = {}
    plans = []
    for index, (category, split) in enumerate(split_of):
        denim = rng.random() < SHAPES[category].denim
        fabric = "Denim" if denim else str(rng.choice(FABRICS))
        item = f"{fabric}_{category}"
        numbers[item] = numbers.get(item, 0) + 1
        plans.append(Plan(index, category, fabric, split, f"img/{item}/img_{numbers[item]:08d}.jpg"))
    return sorted(plans, key=lambda plan: plan.name)


def _shares(images: int) -> dict[str, int]:
    """How many images of each category: one, and of the rest a share by DeepFashion's counts to the power of 1/4."""
    found = {row["category"]: int(row["images"]) for row in _categories() if row["category"] in SHAPES}
    weights = np.array(list(found.values())) ** 0.25
    exact = 1 + weights / weights.sum() * (images - len(found))
    counts = exact.astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: images - counts.sum()]] += 1
    return dict(zip(found, counts.tolist(), strict=True))


def _splits(counts: dict[str, int]) -> list[tuple[str, str]]:
    """Category and split of every image. From four images on, a category is in every split."""
    rows: list[tuple[str, str]] = []
    spare = cycle(("test", "val"))  # what is left of small categories, so that even the least sample has all splits
    for category, count in counts.items():
        if count < 4:
            splits = ["train", *(next(spare) for _ in range(count - 1))]
        else:
            test, val = round(0.25 * count), max(1, round(0.15 * count))
            splits = ["test"] * test + ["val"] * val + ["train"] * (count - test - val)
        rows += [(category, split) for split in splits]
    return rows


def _categories() -> list[dict[str, str]]:
    with CATEGORIES.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _write_tree(root: Path, plans: list[Plan], seed: int, progress: Callable[[int], object] | None) -> None:
    names = [(row["category"], row["type"]) for row in _categories()]
    labels = {name: number for number, (name, _) in enumerate(names, 1)}
    boxes: list[Box] = []
    for done, plan in enumerate(plans, 1):
        rng = np.random.default_rng((seed, plan.number))
        picture = draw_picture(plan.category, plan.fabric, rng)
        boxes.append(picture.box)
        file = root / "Img" / plan.name
        file.parent.mkdir(parents=True, exist_ok=True)
        picture.image.save(file, "JPEG", quality=int(rng.integers(60, 96)))
        if progress is not None:
            progress(done)
    anno = root / "Anno"
    _write_table(anno / "list_category_cloth.txt", "category_name  category_type", 15, names)
    _write_table(
        anno / "list_category_img.txt",
        "image_name  category_label",
        70,
        [(plan.name, str(labels[plan.category])) for plan in plans],
    )
    _write_table(
        anno / "list_bbox.txt",
        "image_name  x_1  y_1  x_2  y_2",
        70,
        [(plan.name, " ".join(f"{edge:03d}" for edge in box)) for plan, box in zip(plans, boxes, strict=True)],
    )
    _write_table(
        root / "Eval" / "list_eval_partition.txt",
        "image_name  evaluation_status",
        70,
        [(plan.name, plan.split) for plan in plans],
    )
    (root / MARKER).write_text(json.dumps(_marker(len(plans), seed)) + "\n", "utf-8", newline="\n")


def _write_table(file: Path, header: str, pad: int, rows: Sequence[tuple[str, str]]) -> None:
    """DeepFashion's files: the number of rows, the names of the columns, then rows in padded columns."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [str(len(rows)), header, *(f"{name:<{pad - 1}} {value}" for name, value in rows)]
    file.write_text("\n".join(lines) + "\n", "utf-8", newline="\n")
