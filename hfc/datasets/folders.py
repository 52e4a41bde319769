"""A folder tree of images: `split/label/*.jpg`, or `label/*.jpg` with a split drawn by seed, stratified by label."""

import logging
import zlib
from collections import Counter
from pathlib import Path

import numpy as np

from hfc.config import SPLITS
from hfc.errors import DatasetError
from hfc.progress import steps
from hfc.regions import Regions, strings

logger = logging.getLogger(__name__)

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


def read(root: Path, *, seed: int, val_fraction: float, test_fraction: float) -> Regions:
    """The regions of a folder tree, one whole image each; the id is the path.

    Links to folders are followed, except those that lead back to a folder which holds them.

    Args:
        root: holds one folder a label, or the folders train, val and test with one folder a label each.
        seed, val_fraction, test_fraction: how labels without a split are split.

    Raises:
        DatasetError: no images, images outside the label folders, or only some of the folders are splits.
    """
    folders = [folder for folder in _folders(root) if not folder.name.startswith(".")]
    splits = [folder.name for folder in folders if folder.name in SPLITS]
    if splits and len(splits) < len(folders):
        other = next(folder.name for folder in folders if folder.name not in SPLITS)
        raise DatasetError(f"{root}: expected only the folders train, val and test beside {splits[0]}, found {other}")
    if not splits and any(_images(sub) for folder in folders for sub in _folders(folder)):
        raise DatasetError(
            f"{root}: expected label/*.jpg or split/label/*.jpg with the splits train, val and test, "
            f"found the folders {', '.join(folder.name for folder in folders[:5])}"
        )
    paths: list[str] = []
    labels: list[str] = []
    split: list[str] = []
    left_out: Counter[str] = Counter()
    for folder in steps(folders, "listing images"):
        for label_folder in _folders(folder) if splits else [folder]:
            images = [path.relative_to(root).as_posix() for path in _images(label_folder)]
            paths += images
            left_out.update(_others(label_folder))
            labels += [label_folder.name] * len(images)
            split += (
                [folder.name] * len(images)
                if splits
                else _draw_split(len(images), label_folder.name, seed, val_fraction, test_fraction)
            )
    if left_out:
        listed = ", ".join(f"{count} {ending}" for ending, count in left_out.most_common(5))
        logger.warning("%s: left out files that are no images by their names: %s", root, listed)
    for path in paths:
        if not _is_utf8(path):
            raise DatasetError(f"{root}: the name {path!r} is not UTF-8, which the cache is kept in; rename it")
    if not paths:
        raise DatasetError(f"{root}: expected images under label/ or split/label/, found none")
    return Regions(
        root=root,
        origin=f"folder tree {root.resolve().name}",
        id=strings(paths),
        path=strings(paths),
        box=np.full((len(paths), 4), np.nan, dtype=np.float32),
        label=strings(labels),
        split=strings(split),
    )


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder, but for links to one that holds it: they lead to nothing new."""
    here = folder.resolve()
    return sorted(
        p for p in folder.iterdir() if p.is_dir() and not (p.is_symlink() and here.is_relative_to(p.resolve()))
    )


def _images(folder: Path) -> list[Path]:
    return sorted(
        p for p in folder.iterdir() if p.suffix.lower() in EXTENSIONS and not p.name.startswith(".") and p.is_file()
    )


def _others(folder: Path) -> list[str]:
    """The endings of the files that are left out, such as the .heic of a telephone."""
    beside = (p for p in folder.iterdir() if p.suffix.lower() not in EXTENSIONS and not p.name.startswith("."))
    return [p.suffix.lower() or p.name for p in beside if p.is_file()]


def _draw_split(count: int, label: str, seed: int, val_fraction: float, test_fraction: float) -> list[str]:
    """A split for each of a label's images. It depends on this label alone, so a new label moves no other image."""
    if val_fraction + test_fraction >= 1:
        raise DatasetError(f"val and test fractions {val_fraction:g} + {test_fraction:g} leave nothing to train on")
    # A label of three images or more has at least one in every split that was asked for.
    least = 1 if count >= 3 else 0
    val = max(round(count * val_fraction), least if val_fraction else 0)
    test = max(round(count * test_fraction), least if test_fraction else 0)
    while val + test > count - least:
        val, test = (val - 1, test) if val > test else (val, test - 1)
    split = np.array(["train"] * count, dtype=object)
    order = np.random.default_rng([seed, zlib.crc32(label.encode("utf-8", "surrogateescape"))]).permutation(count)
    split[order[:test]] = "test"
    split[order[test : test + val]] = "val"
    return list(split)
