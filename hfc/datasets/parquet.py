"""Read Parquet files as Hugging Face writes image data sets: rows of an image and a label.

The image is bytes, or a struct of `bytes` and `path`; the label a class, a text or a number.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hfc.config import SPLITS
from hfc.datasets.columns import NUMBER, TEXT, Column, label_column
from hfc.datasets.folders import SPELLINGS, refuse_other_encodings
from hfc.datasets.listing import is_ours
from hfc.datasets.parquet_file import ENDING, ParquetFile, open_parquet
from hfc.datasets.shards import is_pattern, list_shards, named_splits, shards_in, warn_of_missing
from hfc.errors import DatasetError, is_utf8
from hfc.progress import steps
from hfc.regions import Regions, check_splits, strings

DATA = "data"  # the folder of the shards in a data set as the hub keeps it
UNLABELLED = -1  # the number of no class, as the library `datasets` has it

Row = tuple[str, str, str, str]  # path, label, split, group


def recognise(source: Path) -> bool:
    """Return whether Parquet files lie at a path: a file, a folder of them, or a pattern with braces."""
    if source.is_dir():
        return bool(shards_in(_folder(source), ENDING))
    return source.suffix.lower() == ENDING and (source.is_file() or is_pattern(source))


def read(source: Path, *, label: str) -> Regions:
    """Read the regions of some files, in their order. The id is the path, file and number of the row.

    A split stands in the column `split`, or in the names of the files, as in `train-00000-of-00002.parquet`; else it is
    blank. A column `group` is taken too.

    Args:
        source: a file, a folder of them, such as a data set that was downloaded from the hub, or a pattern such as
            `data-{000000..000003}.parquet`.
        label: the column of labels; "": by what the writer notes, then by name.

    Raises:
        DatasetError: a file is missing or damaged, a column cannot be read or chosen, or there is no row or label.
    """
    files = list_shards(_folder(source) if source.is_dir() else source, ENDING)
    root = files[0].parent
    refuse_other_encodings(root, files)
    warn_of_missing(files)
    splits = named_splits(files)
    rows = [row for file in steps(files, "reading tables") for row in _rows(open_parquet(file), label, splits[file])]
    if not any(row[1] for row in rows):
        what = f"{len(rows)} rows without a label" if rows else "no rows"
        raise DatasetError(f"{source}: expected rows with an image and a label, found {what}")
    given = {row[2] for row in rows if row[1]}
    paths, labels, splits_of_rows, groups = (strings(list(column)) for column in zip(*rows, strict=True))
    return Regions(
        root=root,
        origin=f"{len(files)} Parquet file{'s' * (len(files) > 1)} at {source.name}",
        id=paths,
        path=paths,
        box=np.full((len(rows), 4), np.nan, dtype=np.float32),
        label=labels,
        split=splits_of_rows,
        group=groups,
        apart=() if "" in given else tuple(split for split in SPLITS if split in given),
    )


def _folder(source: Path) -> Path:
    """Return the folder of the files: `data`, where that is the only folder, or the source itself."""
    folders = [path for path in source.iterdir() if path.is_dir() and is_ours(path.name)] if source.is_dir() else []
    return source / DATA if folders == [source / DATA] else source


def _rows(file: ParquetFile, label: str, split: str) -> Iterator[Row]:
    """Give the rows of a file. The split is that of its name."""
    _ = file.image  # whether there is one, before any work
    chosen = label_column(str(file.file), file.columns, label)
    others = {column.name: column for column in file.columns if column.kind in (TEXT, NUMBER)}
    blank = [""] * len(file)
    labels = _texts(file, chosen)
    groups = _texts(file, others["group"]) if "group" in others else blank
    splits = _texts(file, others["split"]) if "split" in others else []
    splits = [SPELLINGS.get(word.lower(), word) for word in splits]
    check_splits(file.file, range(len(splits)), splits)
    paths = (f"{file.file.name}/{row}" for row in range(len(file)))
    return zip(paths, labels, splits or [split] * len(file), groups, strict=True)


def _texts(file: ParquetFile, column: Column) -> list[str]:
    """Return the texts of a column; "" where a cell is empty. A class is written by its name."""
    return [_text(file, column, row, value) for row, value in enumerate(file.values(column.name))]


def _text(file: ParquetFile, column: Column, row: int, value: str | int | None) -> str:
    if value is None or (column.classes and value == UNLABELLED):
        return ""
    if column.classes and isinstance(value, int):
        if not 0 <= value < len(column.classes):
            raise DatasetError(
                f"{file.file}: row {row}: expected a {column.name} from 0 to {len(column.classes) - 1}, as the file "
                f"names {len(column.classes)} classes, found {value}; write the file again"
            )
        value = column.classes[value]
    text = str(value).strip()
    if "\n" in text or "\0" in text or not is_utf8(text):
        raise DatasetError(f"{file.file}: row {row}: expected a {column.name} on one line, found {text[:100]!r}")
    return text
