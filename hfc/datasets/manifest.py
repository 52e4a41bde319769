"""Read a CSV manifest: `path,label` and optionally `split,group,id,x1,y1,x2,y2`.

Several regions an image are allowed. Manifest and images may lie in an archive.
"""

import difflib
import logging
import math
from itertools import compress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hfc.datasets import archives
from hfc.datasets.reading import holds
from hfc.datasets.remote import Downloads, check_urls, is_url, shown
from hfc.errors import DatasetError, ImageError
from hfc.hierarchy import some
from hfc.regions import VERBATIM, Regions, check_inside, check_splits, coordinate, read_csv, strings

REQUIRED = ("path", "label")
UNLABELLED = ("path",)  # what prediction needs
CORNERS = ("x1", "y1", "x2", "y2")
COLUMNS = ("path", "label", "split", "group", "id", *CORNERS)
WHOLE_IMAGE = (math.nan,) * 4

logger = logging.getLogger(__name__)


def read(
    file: Path,
    *,
    outside_root: bool = False,
    remote: Downloads | None = None,
    required: tuple[str, ...] = REQUIRED,
) -> Regions:
    """Read the regions that a manifest lists.

    Paths are relative to the manifest, and may leave its folder (absolute, or by `..`) only with `outside_root`, and be
    URLs only with `remote`, which reads those. Label and split may be blank: unknown; a row with a blank group is one
    by itself. Four blank corners, or no corner columns: the whole image. Without an `id` column the path is the id, so
    each image may stand there once. Blanks around a cell do not count, but those at the end of a path or id do, and
    those in front of it where it is quoted. Columns not required may be missing; a warning names those not used.

    Raises:
        DatasetError: the message names file and row.
    """
    table = read_csv(file, "manifest", _member(file), verbatim=VERBATIM)
    column = _columns(file, table.header, required)
    if not table.rows:
        raise DatasetError(f"{file}: expected a row for each region, found only the header")
    for number, row in table.rows:
        if len(row) != len(column):
            raise DatasetError(
                f"{file}: row {number}: expected {len(column)} cells, found {len(row)}: {','.join(row)!r}"
            )
    numbers = [number for number, _ in table.rows]
    cells = {name: [row[i] for _, row in table.rows] for name, i in column.items()}
    _check_paths(file, numbers, cells["path"], outside_root, remote is not None)
    unknown = [""] * len(numbers)
    check_splits(file, numbers, cells.get("split", unknown))
    _check_ids(file, numbers, cells)
    _refuse_blank(file, numbers, cells, required)
    return Regions(
        root=file.parent,
        origin=f"CSV manifest {file.name}",
        id=strings(cells.get("id", cells["path"])),
        path=strings(cells["path"]),
        box=_boxes(file, numbers, cells, table.delimiter),
        label=strings(cells.get("label", unknown)),
        split=strings(cells.get("split", unknown)),
        group=strings(cells.get("group", unknown)),
        remote=remote,
    )


def _check_paths(file: Path, numbers: list[int], paths: list[str], outside_root: bool, remote: bool) -> None:
    """Raise a DatasetError for the first path that is blank or may not be read."""
    for number, path in zip(numbers, paths, strict=True):
        if not path.strip():
            raise DatasetError(f"{file}: row {number}: expected a path, found nothing")
    urls = [is_url(path) for path in paths]
    check_urls(file, compress(numbers, urls), compress(paths, urls), allowed=remote)
    if not outside_root:
        files = [not url for url in urls]
        check_inside(file, compress(numbers, files), compress(paths, files))


def _refuse_blank(file: Path, numbers: list[int], cells: dict[str, list[str]], required: tuple[str, ...]) -> None:
    """Refuse blanks that would come to light after extraction.

    Raises:
        DatasetError: labels are required and all are blank, or a path names a file only without the blanks at its ends.
    """
    if "label" in required and not any(cells["label"]):
        raise DatasetError(
            f"{file}: the column label is blank in all {len(numbers)} rows, so that nothing could be trained; write "
            "labels into it. A blank label leaves a single row out of training"
        )
    for number, path in zip(numbers, cells["path"], strict=True):
        bare = path.strip()
        if path != bare and not is_url(path) and not holds(file.parent, path) and holds(file.parent, bare):
            raise DatasetError(
                f"{file}: row {number}: {path!r} names no file, and without the blanks at its ends it does; blanks "
                "count in the column path: take them out"
            )


def _boxes(file: Path, numbers: list[int], cells: dict[str, list[str]], delimiter: str) -> NDArray[np.float32]:
    """Return the (N, 4) corners."""
    if "x1" not in cells:
        return np.full((len(numbers), 4), np.nan, dtype=np.float32)
    corners = zip(numbers, zip(*(cells[name] for name in CORNERS), strict=True), strict=True)
    return np.array([_box(file, number, values, delimiter) for number, values in corners], dtype=np.float32)


def _member(file: Path) -> bytes | None:
    """Read a manifest that lies in an archive; None for one that does not."""
    place = archives.split(file)
    if place is None or not place[1]:
        return None
    try:
        return archives.open_archive(place[0]).read(place[1])
    except (OSError, ImageError) as error:
        raise DatasetError(f"{file}: cannot read the manifest: {getattr(error, 'strerror', error)}") from error


def _columns(file: Path, names: list[str], required: tuple[str, ...]) -> dict[str, int]:
    given = set(names)
    corners = given & set(CORNERS)
    others = [name for name in COLUMNS if name not in required]
    if not given.issuperset(required) or len(given) < len(names) or (corners and corners != set(CORNERS)):
        raise DatasetError(
            f"{file}: row 1: expected the columns {','.join(required)} and optionally {','.join(others)}, "
            f"found {','.join(names)!r}"
        )
    if unknown := [name for name in names if name not in COLUMNS]:
        _refuse_misspelt(file, unknown, given)
        logger.warning("%s: columns that are not used: %s", file, some([*map(repr, unknown)], most=10))
    return {name: i for i, name in enumerate(names)}


def _refuse_misspelt(file: Path, unknown: list[str], given: set[str]) -> None:
    """Raise a DatasetError for a mistyped name. Without its column splits would be drawn, or groups parted."""
    absent = [name for name in COLUMNS if name not in given]
    for name in unknown:
        near = [name.lower()] if name.lower() in absent else []
        near += difflib.get_close_matches(name.lower(), {"split", "group"} & set(absent), n=1, cutoff=0.8)
        if near:
            raise DatasetError(f"{file}: row 1: unknown column {name!r}; did you mean {near[0]}? Rename it")


def _box(file: Path, number: int, cells: tuple[str, ...], delimiter: str) -> tuple[float, ...]:
    if not any(cells):
        return WHOLE_IMAGE
    try:
        return tuple(coordinate(_with_point(cell) if delimiter != "," else cell) for cell in cells)
    except ValueError:
        raise DatasetError(
            f"{file}: row {number}: expected four corners x1,y1,x2,y2 in pixels or none, found {','.join(cells)!r}"
        ) from None


def _with_point(cell: str) -> str:
    """Write a number with a point. Files whose cells semicolons part may have a decimal comma."""
    return cell.replace(",", ".") if "." not in cell else cell


def _check_ids(file: Path, numbers: list[int], cells: dict[str, list[str]]) -> None:
    """Raise a DatasetError where an id comes twice. Without ids, paths must be unique."""
    key = "id" if "id" in cells else "path"
    if queries := sum("?" in value for value in cells[key] if is_url(value)):
        logger.warning(
            "%s: URLs with a query are printed as ids (%d rows); if it is a secret, add an id column", file, queries
        )
    first: dict[str, int] = {}
    for row, value in enumerate(cells[key]):
        if not value.strip():
            raise DatasetError(f"{file}: row {numbers[row]}: expected an id, found nothing")
        before = first.setdefault(value, row)
        if before == row:
            continue
        same_box = all(cells[name][row] == cells[name][before] for name in CORNERS if name in cells)
        what = f"{key} {shown(value) if is_url(value) else value} was listed before, in row {numbers[before]}"
        if key == "path" and not same_box:
            raise DatasetError(
                f"{file}: row {numbers[row]}: {what}, with another box; add an id column to tell them apart"
            )
        raise DatasetError(f"{file}: row {numbers[row]}: {what}; list each region once")
