"""TAR shards in WebDataset's layout."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from hfc.datasets import read_regions
from hfc.datasets.reading import read_bytes
from hfc.datasets.webdataset import recognise
from hfc.errors import DatasetError
from hfc.regions import Regions
from tests.datasets.test_archives import pack_tar
from tests.datasets.test_folders import touch
from tests.support.splits import read_drawn


def read(source: Path, seed: int = 0) -> Regions:
    return read_drawn(source, seed=seed)


def write_shards(folder: Path, names: tuple[str, ...], count: int = 6) -> Path:
    """Shards of so many samples in turn, labelled Tee and Coat; the folder."""
    folder.mkdir(exist_ok=True)
    for place, name in enumerate(names):
        members = {}
        for number in range(place, count, len(names)):
            members[f"{number:04d}.jpg"] = bytes([number])
            members[f"{number:04d}.cls"] = ("Tee", "Coat")[number % 2].encode()
        pack_tar(folder / name, members)
    return folder


SHARDS = ("data-000000.tar", "data-000001.tar", "data-000002.tar")


def test_every_image_is_a_row_in_the_order_of_the_shards(tmp_path: Path) -> None:
    regions = read(write_shards(tmp_path / "shards", SHARDS))
    paths = [f"{SHARDS[number % 3]}/{number:04d}.jpg" for number in (0, 3, 1, 4, 2, 5)]
    assert regions.path.tolist() == regions.id.tolist() == paths
    assert regions.label.tolist() == ["Tee", "Coat", "Coat", "Tee", "Tee", "Coat"]
    assert [read_bytes(regions.root, path)[0] for path in paths] == [0, 3, 1, 4, 2, 5]
    assert np.isnan(regions.box).all()
    assert (regions.root, regions.tree) == (tmp_path / "shards", "")
    assert regions.origin == "3 TAR shards at shards"


def test_a_pattern_or_a_single_file_names_shards(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "shards", SHARDS)
    assert read(folder / "data-{000000..000002}.tar").digest == read(folder).digest
    assert read(folder / "data-{000001..000002}.tar").path.tolist() == read(folder).path.tolist()[2:]
    assert read(folder / SHARDS[1]).path.tolist() == read(folder).path.tolist()[2:4]
    write_shards(folder, ("one{1..2}.tar",))
    assert read(folder / "one{1..2}.tar").path.tolist()[0] == "one{1..2}.tar/0000.jpg"  # a file of that very name


def test_labels_are_texts_or_numbers_beside_the_images(tmp_path: Path) -> None:
    members = {
        "a/1.jpg": b"", "a/1.cls": b" 7\n", "a/2.PNG": b"", "a/2.JSON": b'{"label": "J\\u00e4ns", "width": 3}',
        "3.jpg": b"", "3.json": b'{"label": 12}', "4.jpg": b"", "4.cls": b"Tee", "4.json": b'{"label": "Coat"}',
        "5.left.jpg": b"", "5.right.jpg": b"", "5.cls": "L\u00e4nge".encode(), "6.jpg": b"", "6.txt": b"a caption",
        "7.jpg": b"", "7.cls": b"", "7.json": b'{"label": "Skirt"}', "8.cls": b"1", "9.jpg": b"", "9.json": b"{}",
        "._1.jpg": b"", ".git/1.jpg": b"",
    }  # fmt: skip
    regions = read(pack_tar(tmp_path / "data.tar", members))
    assert dict(zip(regions.path, regions.label, strict=True)) == {
        "data.tar/a/1.jpg": "7",
        "data.tar/a/2.PNG": "J\u00e4ns",
        "data.tar/3.jpg": "12",
        "data.tar/4.jpg": "Tee",
        "data.tar/5.left.jpg": "L\u00e4nge",
        "data.tar/5.right.jpg": "L\u00e4nge",
        "data.tar/6.jpg": "",
        "data.tar/7.jpg": "Skirt",
        "data.tar/9.jpg": "",
    }
    assert {split for label, split in zip(regions.label, regions.split, strict=True) if not label} == {""}


def test_splits_are_drawn_where_the_names_of_shards_have_none(tmp_path: Path) -> None:
    write_shards(tmp_path / "shards", SHARDS[:1], count=40)
    assert set(read_regions(tmp_path / "shards", outside_root=False).split) == {""}
    regions = read(tmp_path / "shards", seed=3)
    for label in ("Tee", "Coat"):
        assert set(regions.split[regions.label == label]) == {"train", "val", "test"}
    assert read(tmp_path / "shards", seed=4).split.tolist() != regions.split.tolist()


def test_splits_in_the_names_of_shards_are_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ("own-train-0.tar", "own-Validation-0.tar", "own_test.tar")
    regions = read(write_shards(tmp_path / "all", names))
    assert dict(zip(regions.path.tolist(), regions.split.tolist(), strict=True)) == {
        f"{names[number % 3]}/{number:04d}.jpg": ("train", "val", "test")[number % 3] for number in range(6)
    }
    assert caplog.messages == []
    regions = read(write_shards(tmp_path / "two", ("train.tar", "test.tar"), count=80))
    counts = {split: regions.split.tolist().count(split) for split in ("train", "val", "test")}
    assert (counts["test"], counts["train"] + counts["val"]) == (40, 40)
    assert 1 <= counts["val"] <= 12
    root = tmp_path / "two"
    assert caplog.messages == [f"{root}: has no val split; 10% of the training images are drawn for it"]


def test_what_holds_no_shards_is_read_as_before(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "shards", SHARDS)
    assert recognise(folder)
    touch(folder, "notes.txt", ".hidden/1.jpg")
    assert recognise(folder)
    touch(folder, "Tee/1.jpg")
    assert not recognise(folder)  # an archive beside folders of labels
    assert read(folder).path.tolist() == ["Tee/1.jpg"]
    assert not recognise(pack_tar(tmp_path / "photos.tar", {"Tee/1.jpg": b"", "notes.json": b"{}"}))
    assert not any(map(recognise, (tmp_path / "none.tar", tmp_path / "none", touch(tmp_path / "empty", "a") / "a")))


BROKEN = {
    "no object": ({"1.json": b"[1]"}, "a.tar/1.json: expected a label, found JSON that is no object; mend the sample"),
    "no JSON": ({"1.json": b"label"}, "a.tar/1.json: expected a label, found Expecting value: line 1 column 1"),
    "deep": ({"1.json": b"[" * 100_000}, "a.tar/1.json: expected a label, found maximum recursion depth exceeded"),
    "fraction": (
        {"1.json": b'{"label": 1.5}'},
        "a.tar/1.json: expected a label, found the label 1.5, neither a text nor a whole number; mend the sample",
    ),
    "truth": ({"1.json": b'{"label": true}'}, "found the label true, neither a text nor a whole number"),
    "nothing": ({"1.json": b'{"label": null}'}, "found the label null, neither a text nor a whole number"),
    "lines": ({"1.cls": b"a\nb"}, "a.tar/1.cls: expected a label on one line, found 'a\\nb'"),
    "no text": ({"1.json": b'{"label": "\\ud800"}'}, "expected a label on one line, found '\\ud800'"),
    "encoding": ({"1.cls": b"h\xfcbsch"}, "a.tar/1.cls: row 1: expected UTF-8, found the byte 0xfc"),
    "no label": ({"1.json": b"{}"}, "a.tar: expected samples like 0001.jpg with 0001.cls or 0001.json, found 1 images"),
}


@pytest.mark.parametrize(("members", "message"), BROKEN.values(), ids=BROKEN)
def test_a_label_that_cannot_be_read_is_refused_with_its_file(
    members: dict[str, bytes], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match=re.escape(message)):
        read(pack_tar(tmp_path / "a.tar", {"1.jpg": b"", **members}))


def test_shards_that_are_missing_or_damaged_are_refused(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "shards", SHARDS)
    source = folder / "data-{000000..000003}.tar"
    expected = f"{source}: expected 4 shards, found no data-000003.tar; download it, or name fewer"
    with pytest.raises(DatasetError, match=re.escape(expected)):
        read(source)
    source = folder / "data-{3..1}.tar"
    expected = f"{source}: expected from 1 to 100000 shards in ascending order, found {{3..1}}"
    with pytest.raises(DatasetError, match=re.escape(expected)):
        read(source)
    (folder / SHARDS[2]).write_bytes((folder / SHARDS[2]).read_bytes()[:700])
    with pytest.raises(DatasetError, match=r"data-000002\.tar: cannot be read as a TAR archive without compression: "):
        read(folder)
    (folder / SHARDS[2]).rename(folder / "train-0.tar")
    write_shards(folder, ("train-0.tar",))
    expected = (
        f"{folder / SHARDS[0]}: expected a split in the name of every shard, as in train-0.tar, found none; rename it"
    )
    with pytest.raises(DatasetError, match=re.escape(expected)):
        read(folder)


def test_a_shard_without_images_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    pack_tar(folder / "a.tar", {"1.cls": b"1", "2.json": json.dumps({"label": 1}).encode()})
    with pytest.raises(DatasetError, match=r"expected samples like 0001\.jpg with 0001\.cls .*, found no images$"):
        read(folder)
