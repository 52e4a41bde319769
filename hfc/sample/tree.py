"""The drawn data set: which garments, and the layout of DeepFashion."""

import csv
import json
import os
import shutil
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hfc.datasets.deepfashion import MARKER
from hfc.errors import DatasetError
from hfc.progress import bar
from hfc.provenance import followed
from hfc.sample.fabrics import FABRICS
from hfc.sample.picture import Box, draw_picture
from hfc.sample.shapes import SHAPES

LEAST_IMAGES = 40
CATEGORIES = Path(__file__).with_name("deepfashion_categories.csv")


class Plan(NamedTuple):
    """One image to draw."""

    number: int
    category: str
    fabric: str
    split: str
    name: str  # img/<item>/img_00000001.jpg


def draw_sample(root: Path, *, images: int, seed: int) -> None:
    """Draws garments of some thirty categories and writes them in DeepFashion's layout.

    The same arguments and library versions write the same bytes. Categories are as unequally frequent as
    DeepFashion's to the power of 1/4; about 60% of the images are for training, 15% for validation, 25% for the test.

    Args:
        root: the folder to make: a new one or an empty one.
        images: how many, at least LEAST_IMAGES.
        seed: at least 0.

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
        _write_tree(drawing, _plan(images, seed), seed)
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
    """Return how many images each category has.

    It is one, and of the rest a share by DeepFashion's counts to the power of 1/4.
    """
    published = {row["category"]: int(row["images"]) for row in _categories() if row["category"] in SHAPES}
    weights = np.array(list(published.values())) ** 0.25
    exact = 1 + weights / weights.sum() * (images - len(published))
    counts = exact.astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: images - counts.sum()]] += 1
    return dict(zip(published, counts.tolist(), strict=True))


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


def _write_tree(root: Path, plans: list[Plan], seed: int) -> None:
    names = [(row["category"], row["type"]) for row in _categories()]
    labels = {name: number for number, (name, _) in enumerate(names, 1)}
    boxes: list[Box] = []
    with bar("draw", len(plans), unit="img") as shown:
        for done, plan in enumerate(plans, 1):
            rng = np.random.default_rng((seed, plan.number))
            picture = draw_picture(plan.category, plan.fabric, rng)
            boxes.append(picture.box)
            file = root / "Img" / plan.name
            file.parent.mkdir(parents=True, exist_ok=True)
            picture.image.save(file, "JPEG", quality=int(rng.integers(60, 96)))
            shown.show(done)
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
    """Write a file of DeepFashion's: number of rows, column names, rows in padded columns."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [str(len(rows)), header, *(f"{name:<{pad - 1}} {value}" for name, value in rows)]
    file.write_text("\n".join(lines) + "\n", "utf-8", newline="\n")
