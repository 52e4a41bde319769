"""Parquet files as data sets: rows, labels, splits and groups."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from hfc.datasets import read_regions
from hfc.datasets.parquet import recognise
from hfc.datasets.reading import read_bytes
from hfc.errors import DatasetError
from hfc.regions import Regions
from tests.datasets.test_folders import touch
from tests.support.parquet import images, write_images, write_table

CONTENTS = [b"0", b"1", b"2", b"3"]


def read(source: Path, label: str = "") -> Regions:
    return read_regions(source, outside_root=False, label_column=label)


def table(file: Path, **columns: Any) -> Path:
    """Four images with further columns."""
    return write_table(file, {"image": images(CONTENTS), **columns})


def test_classes_are_labels_by_their_names(tmp_path: Path) -> None:
    file = write_images(tmp_path / "own.parquet", CONTENTS, ["Tee", "Coat", "", "Tee"], rows_a_group=3)
    regions = read(file)
    assert regions.path.tolist() == regions.id.tolist() == [f"own.parquet/{row}" for row in range(4)]
    assert regions.label.tolist() == ["Tee", "Coat", "", "Tee"]
    assert regions.split.tolist()[2] == ""
    assert regions.group.tolist() == [""] * 4
    assert [read_bytes(regions.root, path) for path in regions.path] == CONTENTS
    assert np.isnan(regions.box).all()
    assert (regions.root, regions.origin) == (tmp_path, "1 Parquet file at own.parquet")


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (pa.array([" Tee", "Coat", None, "J\u00e4ns"]), ["Tee", "Coat", "", "J\u00e4ns"]),
        (pa.array([7, -1, None, 0], pa.int8()), ["7", "-1", "", "0"]),
        (pa.array(["Tee", "Coat", None, "Tee"]).dictionary_encode(), ["Tee", "Coat", "", "Tee"]),
        (pa.array(["Tee", "Coat", "", "Tee"], pa.large_string()), ["Tee", "Coat", "", "Tee"]),
    ],
)
def test_labels_are_texts_or_numbers(values: pa.Array, labels: list[str], tmp_path: Path) -> None:
    assert read(table(tmp_path / "a.parquet", Category=values)).label.tolist() == labels


def test_a_column_is_named(tmp_path: Path) -> None:
    file = table(tmp_path / "a.parquet", label=["1", "2", "3", "4"], articleType=["Tee", "Coat", "Tee", "Coat"])
    assert read(file, "articleType").label.tolist() == ["Tee", "Coat", "Tee", "Coat"]
    with pytest.raises(DatasetError, match=r"a\.parquet: expected the column none, found image \(struct<"):
        read(file, "none")


def test_images_are_bytes_too(tmp_path: Path) -> None:
    file = write_table(tmp_path / "a.parquet", {"jpg": CONTENTS, "label": ["Tee"] * 4})
    regions = read(file)
    assert [read_bytes(regions.root, path) for path in regions.path] == CONTENTS


def test_splits_stand_in_names_and_a_missing_file_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In the folder `data`, as in a data set that was downloaded from the hub."""
    names = ["train-00000-of-00003.parquet", "train-00002-of-00003.parquet", "validation-00000-of-00001.parquet"]
    for place, name in enumerate([*names, "test-00000-of-00001.parquet"]):
        write_images(tmp_path / "data" / name, CONTENTS[: place + 1], ["Tee"] * (place + 1))
    touch(tmp_path, "README.md", ".cache/x")
    regions = read(tmp_path)
    rows = [("test", 4, 3), ("train", 1, 0), ("train", 2, 1), ("val", 3, 2)]
    assert regions.split.tolist() == [split for split, count, _ in rows for _ in range(count)]
    assert regions.path.tolist()[4:7] == [f"{names[0]}/0", f"{names[1]}/0", f"{names[1]}/1"]
    assert regions.root == tmp_path / "data"
    assert regions.digest == read(tmp_path / "data").digest
    pattern = tmp_path / "data" / "train-*-of-00003.parquet"
    assert caplog.messages[0] == f"{pattern}: 2 of 3 files are there; what the others hold is left out"


def test_columns_of_splits_and_groups_are_taken(tmp_path: Path) -> None:
    file = table(
        tmp_path / "train.parquet",
        label=["Tee"] * 4,
        split=["train", "Validation", "test", "train"],
        group=["a", None, "b", "a"],
    )
    regions = read(file)
    assert regions.split.tolist() == ["train", "val", "test", "train"]
    assert regions.group.tolist() == ["a", "", "b", "a"]
    table(tmp_path / "train.parquet", label=["Tee"] * 4, split=["train", "vla", "test", ""])
    message = "train.parquet: row 1: expected the split train, val or test (or blank), found 'vla'; did you mean val?"
    with pytest.raises(DatasetError, match=re.escape(message)):
        read(file)


def test_what_holds_no_tables_is_read_as_before(tmp_path: Path) -> None:
    write_images(tmp_path / "photos" / "a.parquet", CONTENTS, ["Tee"] * 4)
    assert recognise(tmp_path / "photos")
    assert recognise(tmp_path / "photos" / "a-{0..3}.parquet")
    touch(tmp_path, "photos/Tee/1.jpg", "photos/Coat/1.jpg")
    assert not recognise(tmp_path / "photos")
    assert read(tmp_path / "photos").path.tolist() == ["Coat/1.jpg", "Tee/1.jpg"]
    assert not any(map(recognise, (tmp_path / "none.parquet", touch(tmp_path / "empty", "a"))))


LABELLED = {"names": ["Coat", "Tee"], "_type": "ClassLabel"}
ODD = {
    "no rows": ({"image": images([]), "label": pa.array([], pa.string())}, {}, "image and a label, found no rows"),
    "no labels": (
        {"image": images(CONTENTS), "label": [None, "", None, " "]},
        {},
        "a.parquet: expected rows with an image and a label, found 4 rows without a label",
    ),
    "number": (
        {"image": images(CONTENTS), "label": [0, 1, 2, 0]},
        {"label": LABELLED},
        "a.parquet: row 2: expected a label from 0 to 1, as the file names 2 classes, found 2; write the file again",
    ),
    "lines": (
        {"image": images(CONTENTS), "label": ["a", "b\nc", "d", "e"]},
        {},
        "a.parquet: row 1: expected a label on one line, found 'b\\nc'",
    ),
    "fractions": (
        {"image": images(CONTENTS), "label": [0.5] * 4},
        {},
        "a.parquet: expected texts or whole numbers in the column label, found double",
    ),
    "lists": (
        {"images": pa.array([[b"1"]] * 4), "label": ["a"] * 4},
        {},
        "a.parquet: expected a column of images, bytes or a struct with bytes, found images (list<",
    ),
    "struct": (
        {"image": pa.array([{"path": "1.jpg"}] * 4), "label": ["a"] * 4},
        {},
        "a.parquet: expected a column of images, bytes or a struct with bytes, found image (struct<path: string>)",
    ),
}


@pytest.mark.parametrize(("columns", "features", "message"), ODD.values(), ids=ODD)
def test_a_table_that_is_no_data_set_is_refused(
    columns: dict[str, Any], features: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match=re.escape(message)):
        read(write_table(tmp_path / "a.parquet", columns, features))
