"""Small trees in DeepFashion's exact layout."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

Item = tuple[str, int, tuple[int, int, int, int], str]

ITEMS: list[Item] = [
    ("img/Red_Dress/img_00000001.jpg", 41, (5, 2, 55, 78), "train"),
    ("img/Red_Dress/img_00000002.jpg", 41, (0, 0, 60, 80), "val"),
    ("img/Faded_Jeans/img_00000001.jpg", 26, (10, 20, 50, 79), "train"),
    ("img/Plain_Tee/img_00000001.jpg", 18, (1, 1, 59, 40), "test"),
]


def categories() -> list[tuple[str, str]]:
    file = Path(__file__).parents[2] / "hfc" / "sample" / "deepfashion_categories.csv"
    with file.open() as stream:
        return [(row["category"], row["type"]) for row in csv.DictReader(stream)]


def write_table(path: Path, header: str, rows: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([str(len(rows)), header, *rows]) + "\n")


def write_tree(root: Path, items: Sequence[Item] = ITEMS, *, annotations: str = "Anno", images: str = "Img") -> Path:
    """Annotations, and a noise picture of 60 x 80 pixels for each item."""
    write_annotations(root, items, annotations)
    write_images(root / images, [i[0] for i in items])
    return root


def write_annotations(root: Path, items: Sequence[Item], annotations: str = "Anno") -> None:
    """The annotations alone, with columns padded as in the download."""
    anno = root / annotations
    write_table(
        anno / "list_category_cloth.txt", "category_name  category_type", [f"{n:15}{t}" for n, t in categories()]
    )
    write_table(anno / "list_category_img.txt", "image_name  category_label", [f"{i[0]:60}    {i[1]}" for i in items])
    boxes = [f"{i[0]:60} " + " ".join(f"{edge:03d}" for edge in i[2]) for i in items]
    write_table(anno / "list_bbox.txt", "image_name  x_1  y_1  x_2  y_2", boxes)
    partition = [f"{i[0]:60} {i[3]}" for i in items]
    write_table(root / "Eval" / "list_eval_partition.txt", "image_name  evaluation_status", partition)


def write_images(root: Path, names: Sequence[str], size: tuple[int, int] = (60, 80), first: int = 0) -> None:
    """Write JPEGs. The first has the pixels of that number, the next those of the next."""
    for seed, name in enumerate(names, first):
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1] // 10, size[0] // 10, 3)).astype(np.uint8)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(root / name, quality=90)


def write_large_tree(root: Path, rows: int) -> None:
    """Annotations of many rows, and one picture: enough for reading them."""
    names = [f"img/Item_{i // 40}/img_{i:08d}.jpg" for i in range(rows)]
    write_tree(root, ITEMS)
    anno = root / "Anno"
    labels = [f"{name:70} {i % 50 + 1}" for i, name in enumerate(names)]
    write_table(anno / "list_category_img.txt", "image_name  category_label", labels)
    write_table(anno / "list_bbox.txt", "image_name  x_1  y_1  x_2  y_2", [f"{n:70} 001 002 030 040" for n in names])
    splits = [f"{name:70} train" for name in names]
    write_table(root / "Eval" / "list_eval_partition.txt", "image_name  evaluation_status", splits)
    write_images(root / "Img", names[:1])
