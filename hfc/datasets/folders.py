"""Read a folder tree of images, `label/*.jpg`, perhaps with groups above the labels.

Above these may lie a folder for each split.
"""

import csv
import io
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hfc.config import SPLITS
from hfc.datasets.listing import counted, walk
from hfc.errors import DatasetError, is_utf8, printable
from hfc.hierarchy import canonical, some
from hfc.progress import steps
from hfc.regions import Regions, strings

logger = logging.getLogger(__name__)

Names = tuple[str, ...]

SPELLINGS = {"training": "train", "valid": "val", "validation": "val", "testing": "test"} | {
    name: name for name in SPLITS
}
SEPARATOR = " > "
EXPECTED = "expected images under label/, group/label/ or, with the splits train, val and test, split/label/"


@dataclass(frozen=True)
class _Place:
    """A folder that holds images of one label."""

    split: str
    """"" where the tree has no folders for splits."""
    names: Names
    """The folders from the coarsest group to the label."""
    images: list[Path]


def read(root: Path) -> Regions:
    """Read the regions of a folder tree, one whole image each. The id is the path.

    Hidden files and folders and those of systems are passed over; other files that are no images are counted in a
    warning. Links to folders are followed, except those that lead back to a folder which holds them.

    Args:
        root: holds one folder a label, perhaps below folders of groups; or such trees in folders named after splits.

    Raises:
        DatasetError: no images, images at several depths, or only some of the folders are splits.
    """
    places = _places(root)
    _refuse_other_depths(root, places)
    labels, tree = _labels(root, [place.names for place in places])
    names = strings([path.relative_to(root).as_posix() for place in places for path in place.images])
    splits = {place.split for place in places}
    return Regions(
        root=root,
        origin=f"folder tree {root.resolve().name}",
        id=names,
        path=names,
        box=np.full((len(names), 4), np.nan, dtype=np.float32),
        label=strings([label for place, label in zip(places, labels, strict=True) for _ in place.images]),
        split=strings([place.split for place in places for _ in place.images]),
        tree=tree,
        apart=tuple(split for split in SPLITS if split in splits),
    )


def _places(root: Path) -> list[_Place]:
    """Find the folders of labels with their images. A warning counts what lies elsewhere or is no image."""
    others: Counter[str] = Counter()
    holders: list[tuple[Names, list[Path]]] = []
    for names, listing in steps(walk(root), "listing folders"):
        others.update(listing.others)
        refuse_other_encodings(root, listing.images)
        if listing.images:
            holders.append((names, listing.images))
    if others:
        logger.warning("%s: left out files that are no images by their names: %s", root, counted(others))
    splits = _splits(root, {names[0] for names, _ in holders if names})
    loose: list[Path] = []
    places = []
    for names, images in holders:
        split = splits[names[0]] if splits and names else ""
        below = names[1:] if split else names
        if below:
            places.append(_Place(split, below, images))
        else:
            loose += images
    named = some([path.relative_to(root).as_posix() for path in loose])
    if not places:
        what = f"{len(loose)} images in no folder of a label, {named}" if loose else "none"
        raise DatasetError(f"{root}: {EXPECTED}, found {what}")
    if loose:
        logger.warning("%s: left out %d images in no folder of a label: %s", root, len(loose), named)
    return places


def refuse_other_encodings(root: Path, images: Iterable[Path]) -> None:
    """Raise a DatasetError for the first image whose name is not UTF-8."""
    for path in images:
        name = path.relative_to(root).as_posix()
        if not is_utf8(name):
            raise DatasetError(
                f"{root}: the name {printable(name)} is not UTF-8, which the cache is kept in; rename it "
                "(convmv -f latin1 -t utf8 -r --notest does so for a whole folder)"
            )


def _splits(root: Path, folders: set[str]) -> dict[str, str]:
    """Return the split of each topmost folder. There is none if these are labels or groups."""
    splits = {name: SPELLINGS[name.lower()] for name in sorted(folders) if name.lower() in SPELLINGS}
    if len(splits) == len(folders):
        return splits
    # One folder of another spelling may well be a label: clothes for training.
    if len(splits) > 1 or any(name in SPLITS for name in splits):
        other = min(folders - splits.keys())
        raise DatasetError(
            f"{root}: expected only the folders train, val and test beside {next(iter(splits))}, found {other}"
        )
    return {}


def _refuse_other_depths(root: Path, places: list[_Place]) -> None:
    """Refuse labels at several depths, and splits below labels or groups."""
    first = places[0]
    other = next((place for place in places if len(place.names) != len(first.names)), None)
    if other:
        here, there = (place.images[0].relative_to(root).as_posix() for place in (first, other))
        raise DatasetError(f"{root}: expected all images at one depth, found {here} and {there}; move one of them")
    for level in range(0 if first.split else 1, len(first.names)):
        below = {place.names[level] for place in places}
        if all(name.lower() in SPELLINGS for name in below):
            above = first.images[0].parents[len(first.names) - level]
            raise DatasetError(
                f"{root}: found the splits {', '.join(sorted(below))} below labels or groups, such as {above}; "
                "expected split/label/; move them, or give the folder that holds the splits"
            )


def _labels(root: Path, names: Sequence[Names]) -> tuple[list[str], str]:
    """Return the label of each folder, and the tree that groups make of them. The tree is CSV; without groups it is "".

    A name that stands under several parents on its level is written with its whole path, as in `men > Shirts`.
    """
    depth = len(names[0])
    if depth == 1:
        return [label for (label,) in names], ""
    keys = [tuple(map(canonical, folders)) for folders in names]
    shown: dict[Names, str] = {}
    parents: defaultdict[tuple[int, str], set[Names]] = defaultdict(set)
    for key, folders in zip(keys, names, strict=True):
        for h in range(depth):
            shown.setdefault(key[: h + 1], folders[h].strip())
            parents[h, key[h]].add(key[:h])

    def node(key: Names) -> str:
        alone = len(parents[len(key) - 1, key[-1]]) == 1
        return shown[key] if alone else SEPARATOR.join(shown[key[: i + 1]] for i in range(len(key)))

    if qualified := [node(key) for key in shown if len(parents[len(key) - 1, key[-1]]) > 1]:
        logger.warning("%s: names that stand in several groups are written with them: %s", root, some(qualified))
    stream = io.StringIO()
    rows = csv.writer(stream, lineterminator="\n")
    rows.writerow(_level_names(depth))
    rows.writerows([node(key[: h + 1]) for h in reversed(range(depth))] for key in dict.fromkeys(keys))
    written = [folders[-1] if node(key) == shown[key] else node(key) for key, folders in zip(keys, names, strict=True)]
    return written, stream.getvalue()


def _level_names(depth: int) -> list[str]:
    """Name the levels from the label to the coarsest group."""
    groups = ["group"] if depth == 2 else [f"group {h}" for h in range(1, depth)]
    return ["category", *reversed(groups)]
