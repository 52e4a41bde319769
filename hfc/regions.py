"""The table of regions, by which later stages count their rows, and tables in CSV.

Dimension: N regions.
"""

import codecs
import csv
import difflib
import io
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hfc.config import SPLITS
from hfc.errors import DatasetError, HfcError
from hfc.progress import steps
from hfc.provenance import digest

Strings = NDArray[np.object_]
Rows = list[tuple[int, list[str]]]
MOST = float(np.finfo(np.float32).max)
VERBATIM = ("path", "id")  # columns whose cells are names of files and rows, where a blank counts
DELIMITERS = (",", ";", "\t")
# The longer marks come first, as that of UTF-32 begins with that of UTF-16.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # of spreadsheet programs: a zip archive, or Microsoft's older format
NEWLINE = re.compile(r"\r\n?")
REMEDY = "save it in UTF-8 (CSV UTF-8, as spreadsheet programs call it)"


class Remote(Protocol):
    """The permission to read what URLs name."""

    def look(self, url: str) -> tuple[bytes, int]:
        """Return the bytes and a number of their version; -1 = unknown."""

    def stamp(self, url: str) -> tuple[int, int]:
        """Return size and version without reading the bytes; -1 = unknown."""


@dataclass(frozen=True, eq=False)
class Regions:
    """N regions of interest, a row each. A row has an image, a box in it or none, a label and a split."""

    root: Path
    """The folder that paths are relative to."""
    origin: str
    """What kind of data set this is, in words that a report can print."""
    id: Strings
    """(N,) unique names of the rows."""
    path: Strings
    """(N,) image paths, relative to the root, or URLs."""
    box: NDArray[np.float32]
    """(N, 4) corners x1 y1 x2 y2 in pixels; NaN = the whole image."""
    label: Strings
    """(N,) names of nodes, or paths such as `men > Shirts`; "" = unknown."""
    split: Strings
    """(N,) train, val or test; "" = unknown."""
    tree: str = ""
    """The category tree as CSV, where the data set itself has one; "" = none."""
    group: Strings = field(default_factory=lambda: strings([]))
    """(N,) names of what rows belong together by, as pictures of one product; "" = a row by itself, or none given."""
    remote: Remote | None = None
    """Reads what URLs name; None: they are not read."""
    apart: tuple[str, ...] = ()
    """Splits that the source keeps apart, in folders or files of their own; those it lacks are drawn from train."""

    def __post_init__(self) -> None:
        if len(self.group) != len(self.id) and not len(self.group):
            object.__setattr__(self, "group", strings([""] * len(self.id)))

    def __len__(self) -> int:
        return len(self.id)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of identity and geometry (ids, paths, boxes); labels and splits leave it alone."""
        boxes = np.ascontiguousarray(self.box, dtype="<f4").tobytes().hex()
        return digest([self.id.tolist(), self.path.tolist(), boxes])

    @cached_property
    def labels_digest(self) -> str:
        """SHA-256 of ids, labels and splits; of groups as well where there are any."""
        columns = [self.id, self.label, self.split, *([self.group] if (self.group != "").any() else [])]
        return digest([column.tolist() for column in columns])

    def subsample(self, count: int) -> "Regions":
        """Take at most `count` rows, evenly spaced, in their order."""
        return self.take(np.unique(np.linspace(0, len(self) - 1, min(count, len(self))).astype(np.int64)))

    def take(self, rows: NDArray[np.int64]) -> "Regions":
        """Take some rows, in the order given."""
        names = ("id", "path", "box", "label", "split", "group")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})


def coordinate(text: str) -> float:
    """Read the number that a corner of a box is written as.

    Raises:
        ValueError: it is none, is not finite in float32, or is written as in Python alone (1_0).
    """
    value = float(text)
    if "_" in text or not abs(value) <= MOST:
        raise ValueError(text)
    return value


def strings(values: list[str]) -> Strings:
    """Put Python strings into an object array: no length limit, no padding."""
    array = np.empty(len(values), dtype=np.object_)
    array[:] = values
    return array


def locate(root: Path, path: str) -> Path:
    """Find the file that a path names.

    Parts of its name may be in the other Unicode form on the disk, or parted by backslashes.

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
    """Raise a DatasetError if a path leaves the folder that it is relative to. It names file and row."""
    for number, path in zip(numbers, paths, strict=True):
        if leaves_root(path):
            raise DatasetError(
                f"{file}: row {number}: expected a path inside the data set's folder, found {path!r}; "
                "give --outside-root to accept it"
            )


def leaves_root(path: str) -> bool:
    """Return whether a path leaves the folder that it is relative to."""
    path = path.replace("\\", "/")  # as `locate` reads it
    if ".." not in path and not os.path.isabs(path):  # noqa: PTH117 (a Path for each of 289,222 names takes 0.6 s)
        return False
    normal = Path(os.path.normpath(path))
    return normal.is_absolute() or normal.parts[:1] == (os.pardir,)  # no parts: the folder itself


def check_splits(file: Path, numbers: Iterable[int], splits: Iterable[str]) -> None:
    """Raise a DatasetError unless every split is train, val, test or blank. It names file and row."""
    for number, split in zip(numbers, splits, strict=True):
        if split and split not in SPLITS:
            near = difflib.get_close_matches(split.lower(), SPLITS, n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise DatasetError(
                f"{file}: row {number}: expected the split train, val or test (or blank), found {split!r}{hint}"
            )


@dataclass(frozen=True)
class CsvFile:
    """The content of a CSV file."""

    header: list[str]
    """Names of the columns, without blanks at their ends."""
    rows: Rows
    """The number of each row's last line in the file, and its cells."""
    delimiter: str


def read_csv(
    file: Path,
    what: str,
    content: bytes | None = None,
    *,
    error: type[HfcError] = DatasetError,
    verbatim: Sequence[str] = (),
) -> CsvFile:
    """Read header and rows of a CSV file; refuse whatever is ambiguous.

    It is in UTF-8 or UTF-16, with a byte order mark or without. Commas, semicolons or tabs part cells, as they part the
    header. Rows without content do not count, nor do empty cells beyond the last column.

    Blanks after a delimiter are skipped, so `a.jpg, Tee, train` means what it seems to, and header and cells are
    stripped; but in columns that are verbatim, blanks at the end count, and so does what is quoted.

    Args:
        file: the file.
        what: what it is, for messages.
        content: its bytes, where they have been read already.
        error: what to raise.
        verbatim: columns whose cells name files or rows.

    Raises:
        HfcError: `error`, if it cannot be read or is no CSV; the message names the file.
    """
    try:
        text = decode_text(file, file.read_bytes() if content is None else content, error)
        mark = re.match(r'"?sep=([,;|\t])"?(?=[\r\n])', text, re.IGNORECASE)  # how some spreadsheet programs begin
        text = text[mark.end() :] if mark else text
        delimiter = mark[1] if mark else _delimiter(text)
        table = _parsed(text, delimiter, file)
    except (OSError, csv.Error) as reason:
        raise error(f"{file}: cannot read the {what}: {reason}") from reason
    header = [name.strip() for name in table[0][1]] if table else []
    width = _width(header, table[1:])
    header, kept = header[:width], {i for i, name in enumerate(header) if name in verbatim}
    rows = [
        (number, [cell if i in kept else _stripped(cell) for i, cell in enumerate(_cut(cells, width))])
        for number, cells in table[1:]
    ]
    return CsvFile(header, rows, delimiter)


def decode_text(file: Path, content: bytes, error: type[HfcError] = DatasetError) -> str:
    """Decode a file in UTF-8 or UTF-16, and drop its byte order mark.

    Raises:
        HfcError: `error`, if it is in neither, or holds a NUL character, which no cache can store at a text's end.
    """
    if content.startswith(WORKBOOKS):
        raise error(f"{file}: is a spreadsheet program's own file; {REMEDY}")
    encoding = next((name for mark, name in MARKS if content.startswith(mark)), "")
    if not encoding and b"\0" in content[:2]:  # the other byte of a first letter in ASCII
        encoding = "utf-16-be" if content[:1] == b"\0" else "utf-16-le"
    try:
        text = content.decode(encoding or "utf-8-sig")
    except UnicodeDecodeError as reason:
        row = content[: reason.start].count(b"\n") + 1
        raise error(
            f"{file}: row {row}: expected {(encoding or 'utf-8').upper()}, found the byte "
            f"0x{content[reason.start]:02x}; {REMEDY}, or turn it into that: iconv -f WINDOWS-1252 -t UTF-8"
        ) from reason
    if "\0" in text:
        row = text.count("\n", 0, text.index("\0")) + 1
        raise error(f"{file}: row {row}: expected text, found a NUL character; take it out")
    return text


def _parsed(text: str, delimiter: str, file: Path) -> Rows:
    """Return the rows that have any content, the header among them."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True, delimiter=delimiter)
    return [(reader.line_num, row) for row in steps(reader, f"reading {file.name}") if any(map(str.strip, row))]


def _delimiter(text: str) -> str:
    """Return what parts the header's cells.

    Of several that may, it is the first that cuts all rows into equally many.
    """
    first = next((line for line in io.StringIO(text, newline="") if line.strip(" \t\r\n,;")), "")
    outside = re.sub(r'"[^"]*"?', "", first.strip())
    kinds = [delimiter for delimiter in DELIMITERS if delimiter in outside]
    return next((kind for kind in kinds if len(kinds) == 1 or _is_even(text, kind)), ",")


def _is_even(text: str, delimiter: str) -> bool:
    try:
        (_, header), *rows = _parsed(text, delimiter, Path("header"))
    except (csv.Error, ValueError):
        return False
    return len(rows) > 0 and all(len(row) == len(header) for _, row in rows)


def _stripped(cell: str) -> str:
    """Strip blanks at a cell's ends. A newline in it becomes the same in a file whose lines end in CRLF."""
    cell = cell.strip()
    return NEWLINE.sub("\n", cell) if "\r" in cell else cell


def _width(header: list[str], rows: Rows) -> int:
    """Count the columns. Those at the end with neither a name nor a cell with content do not count."""
    named = len(_cut(header, 0))
    used = max((len(_cut(cells, named)) for _, cells in rows), default=0)
    return named if used <= named else len(header)


def _cut(cells: list[str], least: int) -> list[str]:
    """Cut empty cells off at the end, but keep `least` of those that are there."""
    count = len(cells)
    while count > least and not cells[count - 1].strip():
        count -= 1
    return cells[:count]
