"""The folder that twins are written to."""

import csv
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from hfc.errors import RunError
from hfc.report.twin_page import MOST_SETS, write_twins
from hfc.store.twins import find_twins
from tests.support.caches import fingerprints
from tests.support.twins import TESTED, TRAINED, twin_cache


def put_pictures(root: Path, names: list[str]) -> None:
    (root / "images").mkdir(parents=True)
    for name in names:
        Image.new("RGB", (40, 20), "red").save(root / name)


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def test_the_list_has_a_line_for_each_row_with_its_nearest_twins(tmp_path: Path) -> None:
    twins = find_twins(twin_cache(tmp_path / "c.h5", 2), 0.9)
    files = write_twins(twins, tmp_path / "twins")
    assert [file.name for file in files] == ["twins.csv", "twins.json"]
    rows = rows_of(files[0])
    known = {
        row["id"][7:11]: (row["label"], row["split"], row["twin"][7:11], row["training_twin"][7:11]) for row in rows
    }
    assert known == {
        "0000": ("Tee", "test", "0060", "0060"),
        "0060": ("Tee", "train", "0000", ""),
        "0001": ("Tank", "test", "0061", "0061"),
        "0061": ("Tank", "train", "0001", ""),
        "0098": ("Tee", "train", "0099", "0099"),
        "0099": ("Tank", "train", "0098", "0098"),
    }
    assert sorted(row["set"] for row in rows) == ["1", "1", "2", "2", "3", "3"]
    assert all(0.9 <= float(row["cosine"]) <= 1 for row in rows)
    record = json.loads(files[1].read_text("utf-8"))
    assert {name: record[name] for name in record if isinstance(record[name], int)} == {
        "rows": 6,
        "sets": 3,
        "pairs": 3,
        "sets_across_splits": 2,
        "sets_of_several_labels": 1,
        "test_rows": 60,
        "test_rows_with_twin_in_training": 2,
    }


def test_images_of_the_same_bytes_name_each_other(tmp_path: Path) -> None:
    prints = fingerprints(TESTED + TRAINED)
    for row in (0, 61, 62):
        prints.sha256[row] = prints.sha256[TESTED]
    write_twins(find_twins(twin_cache(tmp_path / "c.h5", 2, prints), 0.9), tmp_path / "twins")
    rows = rows_of(tmp_path / "twins" / "twins.csv")
    assert {row["id"][7:11]: row["same_bytes"][7:11] for row in rows} == {
        "0000": "0060",
        "0060": "0000",
        "0001": "",
        "0061": "0000",
        "0098": "",
        "0099": "",
    }


def test_the_data_set_itself_may_be_named_where_its_images_lie_elsewhere(tmp_path: Path) -> None:
    twins = find_twins(twin_cache(tmp_path / "c.h5", 1), 0.9)
    put_pictures(tmp_path, ["images/0000.jpg"])
    (tmp_path / "photos").mkdir()  # the source, as the cache names it; its root is the folder above
    page = write_twins(twins, tmp_path / "twins", tmp_path / "photos")[-1].read_text("utf-8")
    assert page.count('src="data:image/jpeg;base64,') == 1


def test_pictures_stand_beside_what_is_known_of_them(tmp_path: Path) -> None:
    twins = find_twins(twin_cache(tmp_path / "c.h5", 1), 0.9)
    put_pictures(tmp_path / "moved", ["images/0000.jpg", "images/0060.jpg", "images/0098.jpg"])
    page = write_twins(twins, tmp_path / "twins", tmp_path / "moved")[-1].read_text("utf-8")
    assert "4 images in 2 sets are twins: their features have a cosine of 0.9 or more." in page
    assert "1 of 60 test images have a twin in training." in " ".join(page.split())
    (one, first), (two, second) = re.findall(r"<h2>Set (\d): 2 images</h2>(.*?)</section>", page, re.DOTALL)
    numbers = {row["id"]: row["set"] for row in rows_of(tmp_path / "twins" / "twins.csv")}
    assert (one, two) == (numbers["images/0000.jpg"], numbers["images/0098.jpg"])
    assert "in training and test" in first
    assert re.findall(r'class="id">(.*?)<', first) == ["images/0000.jpg", "images/0060.jpg"]
    assert first.count('src="data:image/jpeg;base64,') == 2
    assert "several labels" in second
    assert second.count('src="data:image/jpeg;base64,') == 1
    assert "No such file or directory" in second


def test_of_very_many_sets_the_first_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hfc.report.twin_page.MOST_SETS", 1)
    monkeypatch.setattr("hfc.report.twin_page.MOST_OF_A_SET", 1)
    twins = find_twins(twin_cache(tmp_path / "c.h5", 1), 0.9)
    put_pictures(tmp_path / "moved", ["images/0000.jpg"])
    page = write_twins(twins, tmp_path / "twins", tmp_path / "moved")[-1].read_text("utf-8")
    assert "The first 1 sets are shown." in page
    assert "in training and test, the first 1 are shown" in page
    assert page.count("<h2>Set ") == page.count("<li>") == 1
    assert MOST_SETS == 200


def test_no_picture_at_all_is_an_error_that_says_where_they_were(tmp_path: Path) -> None:
    twins = find_twins(twin_cache(tmp_path / "c.h5", 1), 0.9)
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        RunError, match=r"none of the 4 pictures to show can be read, such as .*images/0000.jpg \(.*which was "
    ):
        write_twins(twins, tmp_path / "twins", tmp_path / "empty")
    assert not (tmp_path / "twins").exists()


def test_without_twins_the_page_says_so(tmp_path: Path) -> None:
    twins = find_twins(twin_cache(tmp_path / "c.h5", 0), 1.0)
    page = write_twins(twins, tmp_path / "twins", tmp_path)[-1].read_text("utf-8")
    assert "0 images in 0 sets are twins" in page
    assert rows_of(tmp_path / "twins" / "twins.csv") == []


def test_a_folder_of_anothers_is_left(tmp_path: Path) -> None:
    twins = find_twins(twin_cache(tmp_path / "c.h5", 1), 0.9)
    write_twins(twins, tmp_path / "twins")
    write_twins(twins, tmp_path / "twins")  # its own it replaces
    (tmp_path / "twins" / "twins.csv").write_text("mine")
    with pytest.raises(RunError, match=r"twins\.csv"):
        write_twins(twins, tmp_path / "twins")
    assert (tmp_path / "twins" / "twins.csv").read_text() == "mine"
