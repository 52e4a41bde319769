"""CSV manifests."""

import csv
import io
import math
import tempfile
from itertools import dropwhile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hfc.datasets import read_regions
from hfc.datasets.manifest import CORNERS, UNLABELLED, read
from hfc.datasets.reading import read_bytes
from hfc.errors import DatasetError
from hfc.regions import locate
from tests.datasets.test_archives import pack
from tests.support.splits import read_drawn


def manifest(folder: Path, text: str) -> Path:
    (folder / "m.csv").write_text(text, encoding="utf-8")
    return folder / "m.csv"


def test_a_full_manifest_is_read(tmp_path: Path) -> None:
    text = (
        "\ufeffid,path,label,split,x1,y1,x2,y2\n"
        'r1,a b.jpg,"Tee, long",train,1,2,3.5,4\n'
        "r2,a b.jpg,Coat,val,,,,\n"
        "r3,sub/ü.jpg,,,0,0,9,9\n"
    )
    regions = read(manifest(tmp_path, text))
    assert regions.id.tolist() == ["r1", "r2", "r3"]
    assert regions.path.tolist() == ["a b.jpg", "a b.jpg", "sub/ü.jpg"]
    assert regions.label.tolist() == ["Tee, long", "Coat", ""]
    assert regions.split.tolist() == ["train", "val", ""]
    assert regions.root == tmp_path
    np.testing.assert_array_equal(regions.box, np.float32([[1, 2, 3.5, 4], [math.nan] * 4, [0, 0, 9, 9]]))


def test_without_ids_the_path_is_the_id_and_without_boxes_the_region_is_the_image(tmp_path: Path) -> None:
    regions = read(manifest(tmp_path, "label,path,split\nTee,a.jpg,test\n"))
    assert (regions.id.tolist(), regions.path.tolist(), regions.label.tolist()) == (["a.jpg"], ["a.jpg"], ["Tee"])
    assert np.isnan(regions.box).all()


def test_split_and_group_are_columns_that_may_be_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    regions = read(manifest(tmp_path, 'group,path,label\n Dress 7 ,a.jpg,Tee\n,b.jpg,Tee\n" x, y",c.jpg,\n'))
    assert regions.group.tolist() == ["Dress 7", "", "x, y"]
    assert regions.split.tolist() == ["", "", ""]
    assert read(manifest(tmp_path, "path,label,split\na.jpg,Tee,val\n")).group.tolist() == [""]
    assert caplog.messages == []


def test_columns_that_are_not_used_are_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = manifest(tmp_path, "path,label,ageGroup,price\na.jpg,Tee,7,9.99\nb.jpg,Tee,7,9.99\n")
    assert read(file).group.tolist() == ["", ""]
    assert caplog.messages == [f"{file}: columns that are not used: 'ageGroup', 'price'"]


@pytest.mark.parametrize(
    ("name", "meant"), [("Split", "split"), ("splits", "split"), ("GROUP", "group"), ("groups", "group"), ("ID", "id")]
)
def test_a_misspelt_column_is_refused(name: str, meant: str, tmp_path: Path) -> None:
    file = manifest(tmp_path, f"path,label,price,{name}\na.jpg,Tee,9.99,train\n")
    with pytest.raises(DatasetError) as caught:
        read(file)
    assert str(caught.value) == f"{file}: row 1: unknown column {name!r}; did you mean {meant}? Rename it"
    both = manifest(tmp_path, f"path,label,{meant},{name}\na.jpg,Tee,test,train\n")
    assert getattr(read(both), meant).tolist() == ["test"]  # the right one is there too


def test_rows_with_a_label_and_no_split_are_drawn(tmp_path: Path) -> None:
    rows = [f"{i}.jpg,{'Tee' if i % 5 else ''},{'val' * (i % 7 == 0)}" for i in range(200)]
    regions = read_drawn(manifest(tmp_path, "path,label,split\n" + "\n".join(rows)))
    labels, splits = regions.label.tolist(), regions.split.tolist()
    assert all(split == "val" for split in splits[::7])
    assert {split for label, split in zip(labels, splits, strict=True) if not label} == {"", "val"}
    assert {split for i, split in enumerate(splits) if i % 7 and labels[i]} == {"train", "val", "test"}
    # As they would be without a column of splits.
    other = read_drawn(manifest(tmp_path, "path,label\n" + "\n".join(row.rpartition(",")[0] for row in rows)))
    drawn = [i for i in range(200) if i % 7 and labels[i]]
    assert other.split[drawn].tolist() == regions.split[drawn].tolist()


HEAD = "path,label,split"
BOXED = "path,label,split,x1,y1,x2,y2"
BROKEN = {
    "columns": ("path,split\na,b\n", r"m.csv: row 1: expected the columns path,label and .* found 'path,split'"),
    "some corners": (f"{HEAD},x1\na,b,train,1\n", r"row 1: expected the columns"),
    "empty": (f"{HEAD}\n", r"m.csv: expected a row for each region, found only the header"),
    "cells": (f"{HEAD}\na,b,train\na,b\n", r"m.csv: row 3: expected 3 cells, found 2"),
    "split": (f"{HEAD}\na,b,Train\n", r"row 2: expected the split train, .* found 'Train'; did you mean train\?"),
    "no path": (f"{HEAD}\n,b,train\n", r"row 2: expected a path, found nothing"),
    "path of blanks": (f'{HEAD}\n"  ",b,train\n', r"row 2: expected a path, found nothing"),
    "part of a box": (f"{BOXED}\na,b,train,1,,3,4\n", r"row 2: expected four corners .* found '1,,3,4'"),
    "NaN": (f"{BOXED}\na,b,train,1,nan,3,4\n", r"row 2: expected four corners"),
    "too large": (f"{BOXED}\na,b,train,1,1,1e39,2\n", r"row 2: expected four corners"),
    "a number of Python's": (f"{BOXED}\na,b,train,1_0,1,30,4\n", r"row 2: expected four corners .* '1_0,1,30,4'"),
    "word": (f"{BOXED}\na,b,train,1,x,3,4\n", r"row 2: expected four corners"),
    "twice": (f"{HEAD}\na,b,train\na,b,train\n", r"row 3: path a was listed before, in row 2; list each region once"),
    "other box": (
        f"{BOXED}\na,b,train,1,1,2,2\na,b,train,1,1,3,3\n",
        r"row 3: path a was listed before, in row 2, with another box; add an id column",
    ),
    "id twice": (f"id,{HEAD}\n7,a,b,train\n7,c,b,train\n", r"row 3: id 7 was listed before, in row 2"),
    "no id": (f"id,{HEAD}\n,a,b,train\n", r"row 2: expected an id, found nothing"),
    "no label": (f"{HEAD}\na,,train\nb,  ,val\n", r"m.csv: the column label is blank in all 2 rows, .*; write labels"),
    "label of blanks": (f'{HEAD}\na," ",train\n', r"m.csv: the column label is blank in all 1 rows"),
    "columns of blanks": (" , \n , \n", r"row 1: expected the columns path,label"),
    "rows of blanks": (f"{HEAD}\n , , \n\n  \n", r"m.csv: expected a row for each region, found only the header"),
    "lines of blanks": ("   \n  \n", r"row 1: expected the columns path,label"),
    "id of blanks": (f'id,{HEAD}\n" ",a,b,train\n', r"row 2: expected an id, found nothing"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_manifests_are_refused_with_file_and_row(case: str, tmp_path: Path) -> None:
    text, message = BROKEN[case]
    with pytest.raises(DatasetError, match=message):
        read(manifest(tmp_path, text))


def test_blanks_count_in_names_of_files_and_rows_alone(tmp_path: Path) -> None:
    first, second = "7 , a.jpg , Tee , train , 1, 2 ,3, 4", '" 7"," a.jpg", " x, y ",,,,,'
    regions = read(manifest(tmp_path, f"id, path , label, split,{', '.join(CORNERS)}\n{first}\n{second}\n"))
    assert regions.id.tolist() == ["7 ", " 7"]
    assert regions.path.tolist() == ["a.jpg ", " a.jpg"]
    assert regions.label.tolist() == ["Tee", "x, y"]
    assert regions.split.tolist() == ["train", ""]
    np.testing.assert_array_equal(regions.box, np.float32([[1, 2, 3, 4], [math.nan] * 4]))


def test_a_path_that_is_padded_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    expected = r"m.csv: row 3: 'a.jpg ' names no file, and without the blanks at its ends it does; .* take them out"
    with pytest.raises(DatasetError, match=expected):
        read(manifest(tmp_path, "path,label\nb.jpg,Tee\n a.jpg , Tee\n"))
    (tmp_path / "a.jpg ").touch()  # what is there is meant
    assert read(manifest(tmp_path, "path,label\n a.jpg , Tee\n")).path.tolist() == ["a.jpg "]


text = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12).map(str.strip)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(labels=st.lists(text, min_size=1, max_size=8).filter(any), box=st.tuples(*[st.floats(0, 1e6, width=32)] * 4))
def test_what_csv_writes_is_read_back(labels: list[str], box: tuple[float, ...], tmp_path: Path) -> None:
    file = tmp_path / "m.csv"
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", *BOXED.split(",")])
        writer.writerows([[i, "p.jpg", label, "train", *box] for i, label in enumerate(labels)])
    regions = read(file)
    assert regions.label.tolist() == labels
    np.testing.assert_array_equal(regions.box, np.float32([box] * len(labels)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "row 1: expected the columns path,label and optionally split,group,id,x1,y1,x2,y2, found ''"),
        (b'path,label,split\n"a,b,train\n', "cannot read the manifest: unexpected end of data"),
        (b"path,label,split\n\xe4,b,train\n", "m.csv: row 2: expected UTF-8, found the byte 0xe4; save it in UTF-8"),
    ],
)
def test_a_manifest_that_is_no_csv_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        read(tmp_path / "m.csv")


CELL = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=10).filter(str.strip)


@example(names=["0"], at=0, byte=13, damage="byte")
@settings(max_examples=3 * settings.default.max_examples)
@given(
    names=st.lists(CELL, min_size=1, max_size=5, unique=True),
    at=st.integers(0, 10_000),
    byte=st.integers(0, 255),
    damage=st.sampled_from(["byte", "cut", "line"]),
)
def test_a_damaged_manifest_is_refused_or_read_as_it_stands(names: list[str], at: int, byte: int, damage: str) -> None:
    stream = io.StringIO()
    writer = csv.writer(stream, quoting=csv.QUOTE_ALL)
    writer.writerow(["id", *BOXED.split(",")])
    writer.writerows([[name, f"images/{i}.jpg", "L", "train", 1, 2, 30 + i, 40] for i, name in enumerate(names)])
    content = bytearray(stream.getvalue().encode())
    at %= len(content)
    if damage == "byte":
        content[at] = byte
    elif damage == "cut":
        del content[at:]
    else:
        del content[at : content.find(b"\n", at) + 1]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "m.csv"
        file.write_bytes(content)
        message = ""
        try:
            regions = read(file)
        except DatasetError as error:
            message = str(error)
        if message:
            assert "m.csv" in message
            return
        with file.open(encoding="utf-8-sig", newline="") as opened:
            lines = dropwhile(lambda line: not line.strip(), opened)  # a line end may have come before the header
            reader = csv.DictReader(lines, skipinitialspace=True)
            rows = [{k.strip(): v if k.strip() in ("id", "path") else v.strip() for k, v in r.items()} for r in reader]
        assert regions.id.tolist() == [row.get("id", row["path"]) for row in rows]  # the id column is optional
        assert regions.path.tolist() == [row["path"] for row in rows]
        assert regions.label.tolist() == [row["label"] for row in rows]
        assert regions.split.tolist() == [row.get("split", "") for row in rows]
        corners = [[float(row[c] or "nan") for c in ("x1", "y1", "x2", "y2")] for row in rows]
        np.testing.assert_array_equal(regions.box, np.float32(corners))


@pytest.mark.parametrize(
    "path", ["../a.jpg", "b/../../a.jpg", "/etc/a.jpg", "..\\a.jpg", "b\\..\\..\\a.jpg", "\\etc\\a.jpg"]
)
def test_a_path_that_leaves_the_folder_is_refused_unless_asked_for(path: str, tmp_path: Path) -> None:
    file = manifest(tmp_path, f"{HEAD}\nok.jpg,b,train\n{path},b,train\n")
    with pytest.raises(
        DatasetError, match=r"m.csv: row 3: expected a path inside the data set's folder, found '.*a.jpg'"
    ):
        read(file)
    regions = read_regions(file, outside_root=True)
    assert regions.path.tolist() == ["ok.jpg", path]
    assert read(manifest(tmp_path, f"{HEAD}\nb/../a.jpg,b,train\n")).path.tolist() == ["b/../a.jpg"]


@pytest.mark.parametrize("path", [".", "./", "a/.."])
def test_a_path_of_the_folder_itself_does_not_leave_it(path: str, tmp_path: Path) -> None:
    # It is no image, which is a failure of its row when it is read.
    assert read(manifest(tmp_path, f"{HEAD}\n{path},b,train\n")).path.tolist() == [path]


NFC, NFD = "Caf\u00e9/Gr\u00f6\u00dfe.jpg", "Cafe\u0301/Gro\u0308\u00dfe.jpg"
MIXED = "Caf\u00e9/Gro\u0308\u00dfe.jpg"


@pytest.mark.parametrize(
    ("there", "written"),
    [
        *((there, written) for there in (NFC, NFD, MIXED) for written in (NFC, NFD, MIXED)),
        *((there, NFD.replace("/", "\\")) for there in (NFC, NFD)),
        ("a/b/c.jpg", r"a\b\c.jpg"),
        ("a/b/c.jpg", r"a\b/c.jpg"),
        (r"a\b.jpg", r"a\b.jpg"),
    ],
)
def test_a_file_is_there_in_whatever_form_its_path_is_written(there: str, written: str, tmp_path: Path) -> None:
    (tmp_path / there).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / there).touch()
    assert locate(tmp_path, written) == tmp_path / there
    assert locate(tmp_path / "elsewhere", str(tmp_path / written)) == tmp_path / there


def test_the_file_that_is_named_to_the_letter_is_meant(tmp_path: Path) -> None:
    for name in ("caf\u00e9.jpg", "cafe\u0301.jpg", r"a\b.jpg", "a/b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
        assert locate(tmp_path, name) == tmp_path / name
    for name in ("none.jpg", "caf\u00e8.jpg", r"a\none.jpg", "x" * 300, "nul\0.jpg"):
        assert locate(tmp_path, name) == tmp_path / name


def test_a_manifest_in_an_archive_is_read_as_if_it_were_unpacked(tmp_path: Path) -> None:
    text = f"{HEAD}\nimages/a.jpg,Tee,train\nimages/b.jpg,Coat,val\n"
    file = pack(tmp_path / "data.zip", {"own/m.csv": text.encode(), "own/images/a.jpg": b"a"}) / "own" / "m.csv"
    packed = read_regions(file, outside_root=False)
    there = read(manifest(tmp_path, text))
    assert (packed.digest, packed.label.tolist(), packed.origin) == (there.digest, ["Tee", "Coat"], there.origin)
    assert read_bytes(packed.root, packed.path[0]) == b"a"


def test_a_manifest_that_its_archive_does_not_hold_is_named(tmp_path: Path) -> None:
    file = pack(tmp_path / "data.zip", {"m.csv": b"path\n../a.jpg\n"})
    with pytest.raises(DatasetError) as caught:
        read(file / "none.csv")
    assert str(caught.value) == f"{file / 'none.csv'}: cannot read the manifest: No such member of data.zip"
    with pytest.raises(DatasetError, match=r"m\.csv: row 2: expected a path inside the data set's folder"):
        read(file / "m.csv", required=UNLABELLED)
    with pytest.raises(DatasetError, match=r"data\.zip: is a spreadsheet program's own file"):
        read(file)
    file.write_bytes(b"no archive")
    with pytest.raises(DatasetError, match=r"m\.csv: cannot read the manifest: .*cannot be read as a ZIP archive"):
        read(file / "m.csv")
