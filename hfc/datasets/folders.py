"""Read a folder tree of images, `label/*.jpg`, perhaps with groups above the labels.

Above these may lie a folder for each split. Folders nest as the tree does: they need not be equally deep, and images
may lie beside folders of narrower labels.
"""

import csv
import io
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hfc.config import SPLITS
from hfc.datasets.listing import counted, raw_files, walk
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
    """The folders from the coarsest group to the label, which may be a group itself."""
    images: list[Path]


def read(root: Path) -> Regions:
    """Read the regions of a folder tree, one whole image each. The id is the path.

    Hidden files and folders and those of systems are passed over; other files that are no images are counted in a
    warning. Links to folders are followed, except those that lead back to a folder which holds them.

    Args:
        root: holds one folder a label, perhaps below folders of groups; or such trees in folders named after splits.

    Raises:
        DatasetError: no images, only some of the folders are splits, or they lie below labels or groups.
    """
    places = _places(root)
    _refuse_splits_below(root, places)
    labels, tree = _labels(root, places)
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
        what = f"{len(loose)} images in no folder of a label, {named}" if loose else f"none{raw_files(others)}"
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


def _refuse_splits_below(root: Path, places: list[_Place]) -> None:
    """Refuse splits below labels or groups: all folders of one depth are named after splits."""
    for level in range(0 if places[0].split else 1, max(len(place.names) for place in places)):
        deep = [place for place in places if len(place.names) > level]
        below = {place.names[level] for place in deep}
        # Beside shallower folders, one such folder may well be a label.
        several = len(below) > 1 or len(deep) == len(places)
        if several and all(name.lower() in SPELLINGS for name in below):
            above = deep[0].images[0].parents[len(deep[0].names) - level]
            raise DatasetError(
                f"{root}: found the splits {', '.join(sorted(below))} below labels or groups, such as {above}; "
                "expected split/label/; move them, or give the folder that holds the splits"
            )


def _labels(root: Path, places: Sequence[_Place]) -> tuple[list[str], str]:
    """Return the label of each folder, and the tree that groups make of them. The tree is CSV; without groups it is "".

    A label that may mean several nodes is written with its whole path, as in `men > Shirts`.
    """
    keys = [tuple(map(canonical, place.names)) for place in places]
    depth = max(map(len, keys))
    if depth == 1:
        return [place.names[0] for place in places], ""
    shown: dict[Names, str] = {}
    for key, place in zip(keys, places, strict=True):
        for h, folder in enumerate(place.names, 1):
            shown.setdefault(key[:h], folder.strip())
    inner = {key[:-1] for key in shown}
    leaves = [key for key in dict.fromkeys(keys) if key not in inner]
    even = all(len(key) == depth for key in leaves)
    several = _of_one_name(shown) if even else _unclear(keys, shown, inner)
    texts = {key: SEPARATOR.join(shown[key[:h]] for h in range(1, len(key) + 1)) for key in several}
    texts |= {key: f"> {text}" for key, text in texts.items() if len(key) == 1}  # begins at the root
    if texts:
        logger.warning(
            "%s: names that stand in several groups are written with them: %s", root, some([*texts.values()])
        )
    _warn_of_inner(root, [place for key, place in zip(keys, places, strict=True) if key in inner])
    # Even trees had their nodes named so before a name could stand at two places; the same cache has the same tree.
    nodes = shown | texts if even else shown
    return [texts.get(key, place.names[-1]) for key, place in zip(keys, places, strict=True)], _csv(
        nodes, leaves, depth
    )


def _of_one_name(nodes: Iterable[Names]) -> list[Names]:
    """List the nodes whose name stands under several parents on their level."""
    named = Counter((len(node), node[-1]) for node in nodes)
    return [node for node in nodes if named[len(node), node[-1]] > 1]


def _unclear(labels: Iterable[Names], nodes: Iterable[Names], inner: set[Names]) -> list[Names]:
    """List the labels whose name does not say which node they are: of a leaf's name, no inner node is meant."""
    named = {kind: Counter(node[-1] for node in nodes if (node in inner) == kind) for kind in (False, True)}

    def is_clear(label: Names) -> bool:
        kind = label in inner
        return named[kind][label[-1]] == 1 and not (kind and named[False][label[-1]])

    return [label for label in dict.fromkeys(labels) if not is_clear(label)]


def _warn_of_inner(root: Path, places: Sequence[_Place]) -> None:
    """Warn of images beside folders of narrower labels."""
    if places:
        names = dict.fromkeys(SEPARATOR.join(place.names) for place in places)
        logger.warning(
            "%s: %d images lie beside folders of labels, so their own label is an inner node of the tree: %s",
            root,
            sum(len(place.images) for place in places),
            some(list(names)),
        )


def _csv(shown: Mapping[Names, str], leaves: Iterable[Names], depth: int) -> str:
    """Write the tree, a leaf a row; a cell is blank where a leaf has no node."""
    stream = io.StringIO()
    rows = csv.writer(stream, lineterminator="\n")
    rows.writerow(_level_names(depth))
    for leaf in leaves:
        above = [shown[leaf[:h]] for h in reversed(range(1, len(leaf)))]
        rows.writerow([shown[leaf], *[""] * (depth - len(leaf)), *above])
    return stream.getvalue()


def _level_names(depth: int) -> list[str]:
    """Name the levels from the label to the coarsest group."""
    groups = ["group"] if depth == 2 else [f"group {h}" for h in range(1, depth)]
    return ["category", *reversed(groups)]
