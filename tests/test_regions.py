"""CSV files as spreadsheet programs and people write them, against the same content as plain UTF-8 with commas."""

import codecs
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hfc.datasets import manifest
from hfc.errors import DatasetError, HfcError, HierarchyError
from hfc.hierarchy import load_hierarchy
from hfc.regions import Regions, read_csv, strings
from hfc.train.labels import join_labels

MANIFEST = (
    "id,path,label,split,x1,y1,x2,y2\n"
    'r1,a/b.jpg,"Tee; long",train,1.5,2,30,40\n'
    'r2,"a, b.jpg","two\nlines",val,,,,\n'
    "r3,Größe/ü.jpg,Café,,0,0,9,9\n"
)
TREE = "category,group\nTee,Größen\nCafé,Größen\nJeans,legs\n"
LABELS = "id,label,split\nr1,Tee,test\nr2,Café,\n"


def parted(text: str, delimiter: str) -> str:
    """The text with another delimiter; cells that hold it are quoted."""
    import csv
    import io

    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter, lineterminator="\n").writerows(csv.reader(io.StringIO(text, newline="")))
    return stream.getvalue()


def widened(text: str) -> str:
    """Rows of delimiters alone, and empty cells behind the last column, as spreadsheet programs leave them."""
    head, *rows = [line if "lines" in line or '"two' in line else f"{line},," for line in text.splitlines()]
    rows = [row.replace('lines",val,,,,', 'lines",val,,,,,,') for row in rows]
    return "\n".join([head, ",,,", *rows, ",,,,,", "", " , "]) + "\n"


WAYS: dict[str, Callable[[str], bytes]] = {
    "semicolons": lambda text: parted(text, ";").encode(),
    "tabs": lambda text: parted(text, "\t").encode(),
    "said semicolons": lambda text: b"sep=;\n" + parted(text, ";").encode(),
    "byte order mark": lambda text: codecs.BOM_UTF8 + text.encode(),
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16, big end first": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    "UTF-16 without a mark": lambda text: text.encode("utf-16-le"),
    "UTF-16, big end first, without a mark": lambda text: text.encode("utf-16-be"),
    "UTF-32": lambda text: text.encode("utf-32"),
    "a spreadsheet program's Unicode text": lambda text: parted(text, "\t").replace("\n", "\r\n").encode("utf-16"),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "blank lines first": lambda text: b"\n , \n" + text.encode(),
    "empty rows and cells": lambda text: widened(text).encode(),
    "empty rows and cells, semicolons": lambda text: parted(widened(text), ";").encode(),
    "blanks after commas": lambda text: text.replace(",", ", ").replace('"a, ', '"a,').encode(),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_is_unambiguous_is_read(way: str, tmp_path: Path) -> None:
    for name, text in (("m", MANIFEST), ("t", TREE), ("l", LABELS)):
        (tmp_path / f"plain_{name}.csv").write_text(text, "utf-8")
        (tmp_path / f"{name}.csv").write_bytes(WAYS[way](text))
    wanted, found = (manifest.read(tmp_path / name) for name in ("plain_m.csv", "m.csv"))
    assert wanted.label.tolist() == ["Tee; long", "two\nlines", "Café"]
    for column in ("id", "path", "label", "split"):
        assert getattr(found, column).tolist() == getattr(wanted, column).tolist()
    np.testing.assert_array_equal(found.box, wanted.box)
    tree, same = (load_hierarchy(str(tmp_path / name)) for name in ("plain_t.csv", "t.csv"))
    assert (tree.levels, tree.nodes) == (("group", "category"), (("Größen", "legs"), ("Café", "Jeans", "Tee")))
    assert same.digest == tree.digest
    joined, also = (join_labels(wanted, tmp_path / name)[0] for name in ("plain_l.csv", "l.csv"))
    assert joined.label.tolist() == also.label.tolist() == ["Tee", "Café", ""]
    assert joined.split.tolist() == also.split.tolist() == ["test", "val", ""]


def test_corners_may_have_decimal_commas_where_semicolons_part_cells(tmp_path: Path) -> None:
    head = "path;label;split;x1;y1;x2;y2\n"
    (tmp_path / "m.csv").write_text(f"{head}a.jpg;Tee;train;1,5;2;3.25;4,75\n")
    assert manifest.read(tmp_path / "m.csv").box.tolist() == [[1.5, 2, 3.25, 4.75]]
    for corner in ("1.234,5", "1,2,3"):
        (tmp_path / "m.csv").write_text(f"{head}a.jpg;Tee;train;{corner};2;3;4\n")
        with pytest.raises(DatasetError) as caught:
            manifest.read(tmp_path / "m.csv")
        expected = "expected four corners x1,y1,x2,y2 in pixels or none"
        assert str(caught.value) == f"{tmp_path / 'm.csv'}: row 2: {expected}, found '{corner},2,3,4'"
    # A comma that parts cells elsewhere is no decimal one.
    (tmp_path / "m.csv").write_text(f'{head.replace(";", ",")}a.jpg,Tee,train,"1,5",2,3,4\n')
    with pytest.raises(DatasetError, match="expected four corners"):
        manifest.read(tmp_path / "m.csv")


@pytest.mark.parametrize(
    ("text", "header", "cells"),
    [
        ("leaf,the group; of all\na;b,c\n", ["leaf", "the group; of all"], ["a;b", "c"]),
        ("leaf;the group, of all\na;c\n", ["leaf", "the group, of all"], ["a", "c"]),
        ('"leaf;x";group\na;b\n', ["leaf;x", "group"], ["a", "b"]),
        ("path\na;b.jpg\n", ["path"], ["a;b.jpg"]),
        ("a,b;c\nd,e;f\n", ["a", "b;c"], ["d", "e;f"]),
        ("a\tb\nc,d\te\n", ["a", "b"], ["c,d", "e"]),
        ("path,label,\na,b,\n", ["path", "label"], ["a", "b"]),
        ("path,label,\na,b,note\n", ["path", "label", ""], ["a", "b", "note"]),
    ],
)
def test_the_header_says_what_parts_cells(text: str, header: list[str], cells: list[str], tmp_path: Path) -> None:
    table = read_csv(tmp_path / "x.csv", "x", text.encode())
    assert (table.header, table.rows) == (header, [(2, cells)])


def test_rows_are_numbered_as_an_editor_shows_them(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text('sep=;\n\npath;label;split\n;;\n"a";"b\nc";train\nd;e;dev\n')
    with pytest.raises(DatasetError, match=r"m.csv: row 7: expected the split train, val or test .* found 'dev'"):
        manifest.read(tmp_path / "m.csv")


REMEDY = "save it in UTF-8 (CSV UTF-8, as spreadsheet programs call it)"
ICONV = "or turn it into that: iconv -f WINDOWS-1252 -t UTF-8"
REFUSED = {
    "Latin-1": (
        "path,label,split\na,b,train\nä,b,train\n".encode("latin-1"),
        f"row 3: expected UTF-8, found the byte 0xe4; {REMEDY}, {ICONV}",
    ),
    "half a letter": (
        "path,label\n".encode("utf-16")[:-1],
        f"row 1: expected UTF-16, found the byte 0x0a; {REMEDY}, {ICONV}",
    ),
    "a workbook": (b"PK\x03\x04\x14\0", f"is a spreadsheet program's own file; {REMEDY}"),
    "an old workbook": (b"\xd0\xcf\x11\xe0\xa1", f"is a spreadsheet program's own file; {REMEDY}"),
    "NUL at the end of a label": (
        b"path,label,split\na,Tee,train\nb,Tee\0,train\n",
        "row 3: expected text, found a NUL character; take it out",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_all_else_is_refused_in_a_line_that_says_what_to_do(case: str, tmp_path: Path) -> None:
    content, message = REFUSED[case]
    file = tmp_path / "x.csv"
    file.write_bytes(content)
    unknown = strings(["a"])
    regions = Regions(tmp_path, "", unknown, unknown, np.full((1, 4), np.nan, np.float32), unknown, unknown)
    readers: list[tuple[type[HfcError], Callable[[], object]]] = [
        (DatasetError, lambda: manifest.read(file)),
        (DatasetError, lambda: join_labels(regions, file)),
        (HierarchyError, lambda: load_hierarchy(str(file))),
    ]
    for error, reader in readers:
        with pytest.raises(error) as caught:
            reader()
        assert str(caught.value) == f"{file}: {message}"


def test_rows_taken_keep_their_columns(tmp_path: Path) -> None:
    names, box = strings([f"{i}.jpg" for i in range(5)]), np.arange(20, dtype=np.float32).reshape(5, 4)
    alone = Regions(tmp_path, "", names, names, box, names, names)
    assert alone.group.tolist() == [""] * 5  # none given: each a row by itself
    assert alone.take(np.array([3, 1])).group.tolist() == ["", ""]
    groups = strings(["a", "a", "", "b", "b"])
    together = replace(alone, group=groups)
    taken = together.take(np.array([4, 0, 2]))
    assert taken.group.tolist() == ["b", "a", ""]
    for column in ("id", "path", "label", "split"):
        assert getattr(taken, column).tolist() == ["4.jpg", "0.jpg", "2.jpg"]
    assert taken.box.tolist() == box[[4, 0, 2]].tolist()
    assert together.subsample(3).group.tolist() == ["a", "", "b"]
    assert len(together.take(np.array([], dtype=np.int64)).group) == 0
    assert together.digest == alone.digest
