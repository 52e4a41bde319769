"""The table of regions: what every data set yields and every later stage counts its rows by.

Dimension: N regions.
"""

import difflib
import logging
import os
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hfc.config import SPLITS
from hfc.errors import DatasetError
from hfc.names import spellings
from hfc.provenance import digest

logger = logging.getLogger(__name__)

Strings = NDArray[np.object_]
MOST = float(np.finfo(np.float32).max)
VERBATIM = ("path", "id")  # columns whose cells are names of files and rows, where a blank counts


@dataclass(frozen=True, eq=False)
class Regions:
    """N regions of interest, a row each: an image, a box in it or none, a label and a split."""

    root: Path
    """The folder that paths are relative to."""
    origin: str
    """What kind of data set this is, in words that a report can print."""
    id: Strings
    """(N,) unique names of the rows."""
    path: Strings
    """(N,) image paths, relative to the root."""
    box: NDArray[np.float32]
    """(N, 4) corners x1 y1 x2 y2 in pixels; NaN = the whole image."""
    label: Strings
    """(N,) leaf names; "" = unknown."""
    split: Strings
    """(N,) train, val or test; "" = unknown."""
    tree: str = ""
    """The category tree as CSV, where the data set itself has one; "" = none."""

    def __len__(self) -> int:
        return len(self.id)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of identity and geometry (ids, paths, boxes); labels and splits leave it alone."""
        boxes = np.ascontiguousarray(self.box, dtype="<f4").tobytes().hex()
        return digest([self.id.tolist(), self.path.tolist(), boxes])

    def spread(self, count: int) -> "Regions":
        """At most `count` rows, evenly spaced, in their order."""
        return self.take(np.unique(np.linspace(0, len(self) - 1, min(count, len(self))).astype(np.int64)))

    def take(self, rows: NDArray[np.int64]) -> "Regions":
        """Some rows, in the order given."""
        names = ("id", "path", "box", "label", "split")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})


def coordinate(text: str) -> float:
    """The number that a corner of a box is written as.

    Raises:
        ValueError: it is none, is not finite in float32, or is written as in Python alone (1_0).
    """
    value = float(text)
    if "_" in text or not abs(value) <= MOST:
        raise ValueError(text)
    return value


def strings(values: list[str]) -> Strings:
    """A list of Python strings as an object array: no length limit, no padding."""
    array = np.empty(len(values), dtype=np.object_)
    array[:] = values
    return array


def warn_of_spellings(where: str, labels: Iterable[str]) -> None:
    """Warn of labels that are one class in several spellings."""
    for same in spellings(labels):
        logger.warning("%s: one class in several spellings: %s", where, ", ".join(map(ascii, same)))


def locate(root: Path, path: str) -> Path:
    """The file that a path names, its parts perhaps in the other Unicode form or parted by backslashes.

    Returns:
        The first that is there; without any the path itself.
    """
    for spelling in dict.fromkeys((path, path.replace("\\", "/"))):
        here: Path | None = root
        for part in Path(spelling).parts:
            forms = dict.fromkeys((part, *(unicodedata.normalize(form, part) for form in ("NFC", "NFD"))))
            here = next((here / form for form in forms if os.path.lexists(here / form)), None) if here else None
        if here:
            return here
    return root / path


def check_inside(file: Path, numbers: Iterable[int], paths: Iterable[str]) -> None:
    """Raise a DatasetError that names file and row if a path leaves the folder it is relative to."""
    for number, path in zip(numbers, paths, strict=True):
        if _leaves_root(path):
            raise DatasetError(
                f"{file}: row {number}: expected a path inside the data set's folder, found {path!r}; "
                "give --outside-root to accept it"
            )


def _leaves_root(path: str) -> bool:
    path = path.replace("\\", "/")  # as `locate` reads it
    if ".." not in path and not os.path.isabs(path):  # noqa: PTH117 (a Path for each of 289,222 names takes 0.6 s)
        return False
    normal = Path(os.path.normpath(path))
    return normal.is_absolute() or normal.parts[:1] == (os.pardir,)  # no parts: the folder itself


def check_splits(file: Path, numbers: Iterable[int], splits: Iterable[str]) -> None:
    """Raise a DatasetError that names file and row unless every split is train, val, test or blank."""
    for number, split in zip(numbers, splits, strict=True):
        if split and split not in SPLITS:
            near = difflib.get_close_matches(split.lower(), SPLITS, n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise DatasetError(
                f"{file}: row {number}: expected the split train, val or test (or blank), found {split!r}{hint}"
            )
