"""Which columns of a table hold its images and its labels: by what the writer notes, then by name."""

from collections.abc import Sequence
from dataclasses import dataclass

from hfc.errors import ImageError

IMAGE, TEXT, NUMBER, OTHER = "image", "text", "number", "other"
IMAGES = ("image", "img", "jpg")
LABELS = ("label", "category", "class")


@dataclass(frozen=True)
class Column:
    """A column of a Parquet file."""

    name: str
    kind: str
    """image (bytes), text, number (whole) or other."""
    type: str
    """As its file declares it."""
    feature: str = ""
    """What the library `datasets` notes of it: Image, ClassLabel; "" = nothing."""
    classes: tuple[str, ...] = ()
    """The names of the numbers of a ClassLabel."""


def image_column(file: str, columns: Sequence[Column]) -> Column:
    """Choose the column of images.

    Raises:
        ImageError: there is none, or it is not clear which.
    """
    fits = [column for column in columns if column.kind == IMAGE]
    noted = [column for column in fits if column.feature == "Image"]
    if chosen := _choose(noted or fits, IMAGES):
        return chosen
    if fits:
        names = ", ".join(column.name for column in noted or fits)
        raise ImageError(f"{file}: expected one column of images, found {names}; rename the one to read to image")
    raise ImageError(
        f"{file}: expected a column of images, bytes or a struct with bytes, found {_listed(columns)}; "
        "write the images themselves into the file"
    )


def label_column(file: str, columns: Sequence[Column], name: str = "") -> Column:
    """Choose the column of labels; the one of that `name`, where one is given.

    Raises:
        ImageError: there is none, it is not clear which, or it holds neither texts nor whole numbers.
    """
    if name:
        candidates = [column for column in columns if column.name == name]
    else:
        noted = [column for column in columns if column.feature == "ClassLabel"]
        candidates = noted or [column for column in columns if column.name.lower() in LABELS]
    chosen = _choose(candidates, LABELS)
    if chosen and chosen.kind in (TEXT, NUMBER):
        return chosen
    if chosen:
        wrong = f"in the column {chosen.name}, found {chosen.type}"
        raise ImageError(f"{file}: expected texts or whole numbers {wrong}; name another with --label-column")
    expected = f"the column {name}" if name else "one column of labels, named label, category or class"
    known = ", ".join(column.name for column in candidates) or _listed(columns)
    raise ImageError(f"{file}: expected {expected}, found {known}; name it with --label-column")


def _choose(columns: list[Column], names: tuple[str, ...]) -> Column | None:
    """Return the only column, or the only one with one of some names."""
    named = [column for column in columns if column.name.lower() in names]
    return next((some[0] for some in (columns, named) if len(some) == 1), None)


def _listed(columns: Sequence[Column]) -> str:
    return ", ".join(f"{column.name} ({column.type})" for column in columns)[:500] or "no columns"
