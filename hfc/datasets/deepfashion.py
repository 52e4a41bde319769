"""Read DeepFashion's Category and Attribute Prediction benchmark in its own layout.

The benchmark is by Liu et al., CVPR 2016. `Anno/` or `Anno_coarse/` hold one file a kind of annotation, joined by
image name; `Anno_fine/` holds a smaller, row-aligned set. Rows are padded with any run of blanks.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hfc.config import SPLITS
from hfc.datasets.archives import open_archive
from hfc.datasets.reading import holds
from hfc.errors import DatasetError
from hfc.progress import steps
from hfc.regions import Regions, check_inside, coordinate, decode_text, strings

CATEGORIES = 50
MARKER = "hfc-sample.json"  # written by `hfc sample` into the trees it draws
SAMPLE = 500  # images that are looked for in each of IMAGE_ROOTS
ARCHIVES = ("Img/img.zip", "img.zip")  # as they are downloaded
IMAGE_ROOTS = ("Img", ".", "Img/img-001", "img")

Rows = list[list[str]]


def recognise(source: Path) -> bool:
    """Return whether a folder is a DeepFashion root, or the Anno_fine folder of one."""
    return source.resolve().name == "Anno_fine" or any(
        (source / name).is_dir() for name in ("Anno", "Anno_coarse", "Anno_fine", "Eval")
    )


def read(source: Path, *, outside_root: bool = False, by_item: bool = False) -> Regions:
    """Read the regions of a DeepFashion root.

    The full benchmark (Anno or Anno_coarse, with Eval) where it is there; else, or where `source` is the Anno_fine
    folder itself, the fine-grained split. Image names may leave the folder of the images (absolute, or by `..`) only
    with `outside_root`.

    An image's folder is its item, the group of the row. The official split has images of one item in several splits;
    `by_item` leaves all splits blank, to be drawn by items.

    Raises:
        DatasetError: a file is missing or breaks its format; the message names file and row.
    """
    fine = source.resolve().name == "Anno_fine"
    root = source.resolve().parent if fine else source
    coarse = next((root / name for name in ("Anno", "Anno_coarse") if (root / name).is_dir()), None)
    if fine or (coarse is None and (root / "Anno_fine").is_dir()):
        regions = _read_fine(root, root / "Anno_fine", outside_root)
    else:
        regions = _read_benchmark(root, coarse or root / "Anno", outside_root)
    if not by_item:
        return regions
    return replace(regions, split=strings([""] * len(regions)), apart=(), origin=f"{regions.origin}, item split")


def _read_benchmark(root: Path, annotations: Path, outside_root: bool) -> Regions:
    names = _read_categories(annotations)
    category_file = annotations / "list_category_img.txt"
    categories = _read_table(category_file, 2)
    images = [row[0] for row in categories]
    _refuse_repeats(category_file, images)
    if not outside_root:
        check_inside(category_file, range(3, 3 + len(images)), images)
    labels = _labels(category_file, [row[1] for row in categories], names, first_row=3)
    box_file = annotations / "list_bbox.txt"
    box = _boxes(_aligned(box_file, 5, images), lambda i: f"{box_file}: row {_row_of(box_file, 5, images[i])}")
    partition_file = root / "Eval" / "list_eval_partition.txt"
    splits = [row[0] for row in _aligned(partition_file, 2, images)]
    unknown = next((i for i, split in enumerate(splits) if split not in SPLITS), None)
    if unknown is not None:
        row = _row_of(partition_file, 2, images[unknown])
        raise DatasetError(f"{partition_file}: row {row}: expected train, val or test, found {splits[unknown]!r}")
    return _regions(root, images, box, labels, splits, "DeepFashion")


def _read_fine(root: Path, annotations: Path, outside_root: bool) -> Regions:
    names = _read_categories(annotations)
    images: list[str] = []
    labels: list[str] = []
    splits: list[str] = []
    boxes: list[NDArray[np.float32]] = []
    for split in SPLITS:
        files = [annotations / f"{split}{suffix}.txt" for suffix in ("", "_cate", "_bbox")]
        widths = (1, 1, 4)
        tables = [
            [line.lstrip(" \t").rsplit(maxsplit=width - 1) for line in _read_lines(file)]  # a name may hold blanks
            for file, width in zip(files, widths, strict=True)
        ]
        for file, table, width in zip(files, tables, widths, strict=True):
            if len(table) != len(tables[0]):
                raise DatasetError(f"{file}: expected {len(tables[0])} rows as in {files[0].name}, found {len(table)}")
            _check_width(file, table, width, first_row=1)
        listed = [row[0] for row in tables[0]]
        if not outside_root:
            check_inside(files[0], range(1, 1 + len(listed)), listed)
        images += listed
        labels += _labels(files[1], [row[0] for row in tables[1]], names, first_row=1)
        boxes.append(_boxes(tables[2], lambda i, file=files[2]: f"{file}: row {i + 1}"))  # type: ignore[misc]
        splits += [split] * len(tables[0])
    _refuse_repeats(annotations, images)
    return _regions(root, images, np.concatenate(boxes), labels, splits, "DeepFashion, fine-grained split")


def _regions(
    root: Path, images: list[str], box: NDArray[np.float32], labels: list[str], splits: list[str], origin: str
) -> Regions:
    if not images:
        raise DatasetError(f"{root}: the annotations list no images")
    marker = root / MARKER
    if marker.is_file():
        try:
            drawn = json.loads(marker.read_text("utf-8"))
            origin = f"drawn sample ({drawn['images']} pictures, seed {drawn['seed']})"
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DatasetError(f"{marker}: expected what hfc sample writes there, found {error!r}") from error
    return Regions(
        root=_image_root(root, images),
        origin=origin,
        id=strings(images),
        path=strings(images),
        box=box,
        label=strings(labels),
        split=strings(splits),
        group=strings([image.rpartition("/")[0] for image in images]),
        apart=SPLITS,
    )


def _image_root(root: Path, images: Sequence[str]) -> Path:
    """Return the folder or archive that image names start from, as downloads differ.

    It holds most of a sample of the images. Some may be missing, the first ones too, which are failures of their rows;
    all are looked for before none is there.
    """
    archives = [root / name for name in ARCHIVES if (root / name).is_file()]
    candidates = [*(root / name for name in IMAGE_ROOTS), *archives]
    for step in (-(-len(images) // SAMPLE), 1):
        counts = {place: sum(holds(place, image) for image in images[::step]) for place in candidates}
        best = max(counts, key=counts.__getitem__)  # the first of equally good ones
        if counts[best]:
            return best
    for archive in archives:
        open_archive(archive)  # it may be damaged, which is the reason then
    tried = ", ".join(map(str, candidates))
    raise DatasetError(f"{root}: the first image, {images[0]}, lies under none of {tried}; unpack the images there")


def _read_categories(annotations: Path) -> list[str]:
    file = annotations / "list_category_cloth.txt"
    names = [row[0] for row in _read_table(file, 2)]
    if len(names) != CATEGORIES:
        raise DatasetError(
            f"{file}: expected the benchmark's {CATEGORIES} categories, found {len(names)}; in the 46-row lists that "
            "go round the labels after 37 are shifted, so take the file from the original download"
        )
    _refuse_repeats(file, names)
    return names


def _read_lines(file: Path) -> list[str]:
    """Read the lines of a file, without blank ones at the end.

    They end at newlines alone (a carriage return before one is a blank like others): names may hold whatever else
    `str.splitlines` splits at.
    """
    try:
        text = decode_text(file, file.read_bytes()).rstrip()
    except FileNotFoundError:
        raise DatasetError(f"{file}: annotation file is missing") from None
    except OSError as error:
        raise DatasetError(f"{file}: cannot read the annotations: {error}") from error
    return text.split("\n") if text else []


def _read_table(file: Path, width: int) -> Rows:
    """Read a table that starts with its number of rows and its column names. Line n of the file is row n."""
    lines = _read_lines(file)
    # Python refuses to parse thousands of digits
    if not lines or not lines[0].strip().isdecimal() or len(lines[0]) > 100:
        raise DatasetError(
            f"{file}: row 1: expected the number of rows, found {lines[0].strip()[:100] if lines else 'nothing'!r}"
        )
    table = [line.rsplit(maxsplit=width - 1) for line in steps(lines[2:], f"reading {file.name}")]
    if len(table) != int(lines[0]):
        raise DatasetError(f"{file}: row 1 announces {int(lines[0])} rows, found {len(table)}; download it again")
    _check_width(file, table, width, first_row=3)
    return table


def _check_width(file: Path, table: Rows, width: int, first_row: int) -> None:
    for number, row in enumerate(table, first_row):
        if len(row) != width:
            raise DatasetError(f"{file}: row {number}: expected {width} columns, found {len(row)}: {' '.join(row)!r}")


def _aligned(file: Path, width: int, images: list[str]) -> Rows:
    """Read a table, and put its rows into the order of `images`. The image names are left out."""
    table = _read_table(file, width)
    if [row[0] for row in table] != images:
        rows: dict[str, list[str]] = {}
        for number, row in enumerate(table, 3):
            if rows.setdefault(row[0], row) != row:
                raise DatasetError(f"{file}: row {number}: {row[0]} was listed before, with other values")
        if missing := next((image for image in images if image not in rows), None):
            raise DatasetError(f"{file}: has no row for {missing}, which list_category_img.txt names")
        table = [rows[image] for image in images]
    return [row[1:] for row in table]


def _refuse_repeats(file: Path, names: list[str]) -> None:
    if len(set(names)) < len(names):
        seen: set[str] = set()
        repeated = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise DatasetError(f"{file}: {repeated} is listed twice; expected one row each")


def _labels(file: Path, numbers: list[str], names: list[str], first_row: int) -> list[str]:
    by_number = {str(number): name for number, name in enumerate(names, 1)}
    labels = [by_number.get(number.lstrip("0"), "") for number in numbers]
    if "" in labels:
        row = labels.index("")
        raise DatasetError(
            f"{file}: row {row + first_row}: unknown category, expected 1 to {len(names)}, found {numbers[row]!r}"
        )
    return labels


def _row_of(file: Path, width: int, image: str) -> int:
    """Return the line of a file that names an image, for messages. Rows may stand in another order than the images."""
    lines = _read_lines(file)[2:]
    return next(number for number, line in enumerate(lines, 3) if line.rsplit(maxsplit=width - 1)[0] == image)


def _boxes(rows: Rows, where: Callable[[int], str]) -> NDArray[np.float32]:
    """Read (N, 4) corners. `where` names file and row of the i-th box."""
    try:
        flat = [coordinate(cell) for row in rows for cell in row]
    except ValueError:
        i = next(i for i, row in enumerate(rows) if not all(map(_is_coordinate, row)))
        raise DatasetError(f"{where(i)}: expected x1 y1 x2 y2 in pixels, found {' '.join(rows[i])!r}") from None
    return np.array(flat, dtype=np.float32).reshape(-1, 4)


def _is_coordinate(text: str) -> bool:
    try:
        coordinate(text)
    except ValueError:
        return False
    return True
