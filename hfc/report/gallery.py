"""The worst mistakes with their images. N test images."""

import base64
import functools
import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from hfc.crops import Bytes, CropSettings
from hfc.datasets.images import stream_crops
from hfc.datasets.listing import archive_root
from hfc.datasets.reading import named
from hfc.datasets.remote import is_url
from hfc.errors import RunError, StoreError, warn_once
from hfc.regions import Regions, strings
from hfc.report.rows import Bools, Ints, Outcome, Row
from hfc.store import FeatureStore

log = logging.getLogger(__name__)

ON_NETWORK = "leave --images out: pages show pictures of files alone"
SHOWN = 12  # of each kind
SIDE = 160  # of a thumbnail, in pixels
QUALITY = 78  # of its JPEG
FILL = (1, 254, 2)  # around a picture while it is squared; cut off again, so that the page shows through


@dataclass(frozen=True)
class Mistake:
    """One wrong answer, or a right one beside it."""

    id: str
    truth: str
    """The true path, `group > category`."""
    answer: str
    confidence: float
    """The answer's share of P_final, mean over the seeds that gave a wrong one."""
    height: float
    """Levels to climb to the lowest common ancestor, mean over seeds."""
    seeds: str
    """How many seeds were wrong."""
    source: str
    """The thumbnail as a data: URI; "" where there is none."""
    missing: str
    """Why there is no thumbnail."""
    right: bool = False
    """Whether every seed is right after all."""


@dataclass(frozen=True)
class Gallery:
    """Some wrong answers of a row."""

    kind: ClassVar[str] = "gallery"

    title: str
    note: str
    mistakes: tuple[Mistake, ...]


def galleries(outcome: Outcome, root: Path) -> list[Gallery]:
    """Collect a row's most confident mistakes and the most costly others. No gallery is empty.

    Args:
        outcome: the row.
        root: the folder or archive that the cache's image paths are relative to.

    Raises:
        RunError: none of the pictures is there.
    """
    wrong = ~outcome.correct
    sure = np.where(wrong, outcome.confidence, 0.0).mean(axis=0)
    cost = outcome.height.mean(axis=0)
    worst = _most(np.lexsort((-cost, -sure)), wrong)
    order = np.lexsort((-sure, -cost))
    costly = _most(order[~np.isin(order, worst)], wrong)
    rows = np.unique(np.concatenate([worst, costly]))
    if not len(rows):
        return []
    shown = pictures(outcome, rows, root)
    label = outcome.label
    return [
        Gallery(title, note, tuple(mistake(outcome, int(row), *shown[int(row)]) for row in chosen))
        for title, note, chosen in (
            (f"Most confident: {label}", "Wrong, and sure of it: the greatest confidence first.", worst),
            (
                f"Most costly: {label}",
                "Of those not shown above, the farthest from the truth in the tree: the greatest height first.",
                costly,
            ),
        )
        if len(chosen)
    ]


def pictures(outcome: Outcome, rows: Ints, root: Path) -> dict[int, tuple[str, str]]:
    """Make the thumbnail of some test images of a row, by image. Without one, give the reason.

    Raises:
        RunError: none of the pictures is there.
    """
    shown = dict(zip(rows.tolist(), thumbnails(_regions(outcome, rows, root)), strict=True))
    if not any(source for source, _ in shown.values()):
        raise RunError(_nothing(outcome, rows, root, shown[int(rows[0])][1]))
    return shown


def _most(order: Ints, wrong: Bools) -> Ints:
    """Take the first rows of an order that any seed, (S, N), answers wrong."""
    any_wrong: Bools = np.any(wrong, axis=0)
    return order[any_wrong[order]][:SHOWN]


def mistake(outcome: Outcome, row: int, source: str, missing: str) -> Mistake:
    """Describe the answer to a test image: the commonest wrong one, or the right one where all seeds are right."""
    tree = outcome.tree
    wrong = ~outcome.correct[:, row]
    counted = wrong if wrong.any() else ~wrong
    leaves = outcome.predicted[counted, row]
    commonest = np.bincount(leaves).argmax()
    return Mistake(
        id=str(outcome.predictions[0].id[row]),
        truth=" > ".join(tree.path(int(outcome.target[row]))),
        answer=" > ".join(tree.path(int(commonest))),
        confidence=float(outcome.confidence[counted, row].mean()),
        height=float(outcome.height[:, row].mean()),
        seeds=f"{int(wrong.sum())} of {len(wrong)}",
        source=source,
        missing=missing,
        right=not wrong.any(),
    )


def _nothing(outcome: Outcome, rows: Ints, root: Path, reason: str) -> str:
    """Say why no image of some rows can be read, and what to do."""
    cache = outcome.row.first.cache.path
    first = _regions(outcome, rows[:1], root)
    known = _cached(outcome.row)
    if is_url(first.path[0]):
        remedy = ON_NETWORK
    elif isinstance(known, str):
        remedy = (
            f"the ids of the rows were taken for paths, as their cache is not at hand ({known}); put it back at "
            f"{cache} or give the folder that the ids are relative to"
        )
    elif first.root.resolve() == known[0].root.resolve():
        remedy = (
            f"the cache {cache} was made from this folder: put them back, or give the folder that they were moved to"
        )
    else:
        remedy = f"give the folder that the paths in the cache {cache} are relative to, which was {known[0].root}"
    return (
        f"--images {root}: none of the {len(rows)} pictures to show can be read, such as "
        f"{named(first.root.absolute(), first.path[0])} ({reason}); {remedy}"
    )


def _regions(outcome: Outcome, rows: Ints, root: Path) -> Regions:
    """Locate the images of some rows. The cache says where, or their ids if it is not at hand."""
    ids = outcome.predictions[0].id[rows]
    known = _cached(outcome.row)
    whole, root = root.resolve(), archive_root(root)
    if not isinstance(known, str):
        table, source = known
        if source.resolve() == whole:  # the data set itself, whose images may lie deeper
            root = table.root
        position = {name: i for i, name in enumerate(table.id)}
        if all(name in position for name in ids):
            return replace(table.take(np.array([position[name] for name in ids])), root=root)
    blank = strings([""] * len(ids))
    boxes = np.full((len(ids), 4), np.nan, dtype=np.float32)
    return Regions(root, "", ids, ids, boxes, blank, blank)


def _cached(row: Row) -> tuple[Regions, Path] | str:
    """Read the regions and data set of a row's cache. Returns the reason where it cannot."""
    return _opened(cache_file(row), row.first.cache.feature_key, row.first.cache.features_sha256)


def cache_file(row: Row) -> Path:
    """Find the cache of a row; where it is not at hand, the path that the run recorded.

    A relative path is tried from here, and from every folder above the run: a report may be made anywhere.
    """
    path = Path(row.first.cache.path)
    places = dict.fromkeys(base / path for base in (Path(), *row.runs[0].folder.resolve().parents))
    return next((place for place in places if place.is_file()), path)


@functools.lru_cache(maxsize=1)
def _opened(path: Path, key: str, features_sha256: str) -> tuple[Regions, Path] | str:
    try:
        with FeatureStore(path) as store:
            if store.key != key:
                return f"{path}: not the cache that the run was trained on"
            if store.features_sha256 != features_sha256:
                warn_once(
                    log,
                    f"{path}: was brought up to date after the run: pictures are shown by their ids, and a file that "
                    "changed is not the one that was tested; train again to see what the cache has now",
                )
            source = Path(store.provenance.get("dataset", {}).get("source", path))
            return store.table().regions, source
    except StoreError as error:
        log.info("%s; pictures are looked for under their ids", error)
        return str(error).partition(";")[0]


def pictures_of(regions: Regions, rows: Ints, source: Path, images: Path) -> dict[int, tuple[str, str]]:
    """Make the thumbnail of some rows of a cache, by row. Without one, give the reason.

    Args:
        regions: of the cache.
        rows: whose pictures are made.
        source: the data set that the cache was made from.
        images: the folder or archive that image paths are relative to, or that data set itself.

    Raises:
        RunError: none of the pictures is there.
    """
    root = regions.root if source.resolve() == images.resolve() else archive_root(images)
    pictures = dict(zip(rows.tolist(), thumbnails(replace(regions.take(rows), root=root)), strict=True))
    if pictures and not any(thumbnail for thumbnail, _ in pictures.values()):
        path, (_, reason) = regions.path[rows[0]], pictures[int(rows[0])]
        remedy = f"give the folder that the cache's paths are relative to, which was {regions.root}"
        raise RunError(
            f"--images {images}: none of the {len(rows)} pictures to show can be read, such as {named(root, path)} "
            f"({reason}); {ON_NETWORK if is_url(path) else remedy}"
        )
    return pictures


def thumbnails(regions: Regions) -> Iterator[tuple[str, str]]:
    """Make a thumbnail of each region, as a data: URI. Without one, give the reason."""
    settings = CropSettings(SIDE, "pad", 0.0, FILL)
    thumbnails: dict[int, tuple[str, str]] = {}
    for batch in stream_crops(regions, [(0, range(len(regions)))], settings, batch_size=32, workers=2, ahead=1):
        thumbnails |= {row: ("", reason) for row, reason in batch.failures}
        for row, crop in zip(batch.rows, batch.crops, strict=True):
            stream = io.BytesIO()
            Image.fromarray(_cut(crop)).save(stream, "JPEG", quality=QUALITY)
            thumbnails[row] = f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}", ""
    yield from (thumbnails[row] for row in range(len(regions)))


def _cut(crop: Bytes) -> Bytes:
    """Cut off what was filled up around an image."""
    inside = (crop != FILL).any(axis=2)
    rows, columns = inside.any(axis=1), inside.any(axis=0)
    return crop[rows][:, columns] if rows.any() else crop
