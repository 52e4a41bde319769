"""Folder trees."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from hfc.crops import FORMATS
from hfc.datasets import read_regions
from hfc.datasets.listing import ENDINGS, walk
from hfc.datasets.splits import draw_splits
from hfc.errors import DatasetError
from hfc.hierarchy import load_hierarchy
from hfc.regions import Regions
from tests.datasets.test_archives import pack, pack_tar
from tests.support.privileges import unprivileged
from tests.support.splits import read_drawn


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def read(root: Path, seed: int = 0) -> Regions:
    return read_drawn(root, seed=seed)


def table(regions: Regions) -> list[tuple[str, str, str]]:
    return list(zip(regions.path.tolist(), regions.label.tolist(), regions.split.tolist(), strict=True))


def test_split_folders_are_taken_as_they_are(tmp_path: Path) -> None:
    names = ("train/Tee/b.JPG", "train/Tee/a.png", "val/Coat/c.jpeg", "test/Tee/d.jpg", "test/Tee/notes.txt")
    regions = read(touch(tmp_path, *names))
    assert list(zip(regions.id, regions.label, regions.split, strict=True)) == [
        ("test/Tee/d.jpg", "Tee", "test"),
        ("train/Tee/a.png", "Tee", "train"),
        ("train/Tee/b.JPG", "Tee", "train"),
        ("val/Coat/c.jpeg", "Coat", "val"),
    ]


def test_files_that_are_left_out_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read(touch(tmp_path, "Tee/a.jpg", "Tee/.hidden", ".git/config"))
    assert caplog.messages == []
    names = ("Tee/b.jxl", "Coat/b.PSD", "Tee/b.psd", "Coat/c.jpg", "Coat/notes", "d.txt", "top.jpg", "docs/e.txt")
    regions = read(touch(tmp_path, *names))
    # By its name it is an image: where it cannot be read, it is a failure of its row.
    assert regions.id.tolist() == ["Coat/c.jpg", "Tee/a.jpg", "Tee/b.jxl"]
    assert caplog.messages == [
        f"{tmp_path}: left out files that are no images by their names: 2 .psd, 2 .txt, 1 notes",
        f"{tmp_path}: left out 1 images in no folder of a label: top.jpg",
    ]


HIDDEN = (".ipynb_checkpoints", "__MACOSX", "@eaDir", ".thumbnails", ".git", "System Volume Information", "#recycle")


@pytest.mark.parametrize("above", ["", "train/", "train/tops/"])
def test_hidden_folders_and_those_of_systems_are_no_labels(
    above: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"{above}Tee/a.jpg", f"{above}Coat/b.jpg", *(f"{above.replace('train', 'val')}Tee/{i}.jpg" for i in "cd")]
    expected = table(read(touch(tmp_path, *names)))
    for folder in {parent for name in names for parent in (tmp_path / name).parents if tmp_path.parent != parent}:
        if folder.is_relative_to(tmp_path):
            touch(folder, *(f"{hidden}/x.jpg" for hidden in HIDDEN), "._a.jpg", ".DS_Store", "Thumbs.db", "desktop.ini")
    assert table(read(tmp_path)) == expected
    assert "left out" not in caplog.text


def test_every_ending_that_can_be_read_is_an_image() -> None:
    Image.init()
    known = {ending for ending, kind in Image.registered_extensions().items() if kind in {*FORMATS, "MPO"}}
    assert len(known) > 20
    assert known - ENDINGS == set()


def test_folders_of_groups_are_the_tree(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ("tops/Tee/a.jpg", "tops/Shirt/b.jpg", "bottoms/Jeans/c.jpg", "bottoms/Jeans/d.jpg")
    regions = read(touch(tmp_path / "plain", *names))
    assert dict(zip(regions.id, regions.label, strict=True)) == {name: name.split("/")[1] for name in names}
    assert regions.tree == "category,group\nJeans,bottoms\nShirt,tops\nTee,tops\n"
    split = read(
        touch(tmp_path / "split", *(f"{split}/{name}" for split in ("test", "Training", "val") for name in names))
    )
    assert (split.tree, len(split), set(split.split)) == (regions.tree, 12, {"train", "val", "test"})
    assert set(split.label) == {"Jeans", "Shirt", "Tee"}
    deep = read(touch(tmp_path / "deep", "men/tops/Tee/a.jpg", "men/legs/Jeans/b.jpg"))
    assert deep.tree == "category,group 2,group 1\nJeans,legs,men\nTee,tops,men\n"
    assert caplog.messages == []


def test_a_name_in_several_groups_is_written_with_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ("men/Shirts/a.jpg", "women/Shirts/b.jpg", "women/Skirts/c.jpg")
    regions = read(touch(tmp_path / "two", *names))
    assert regions.label.tolist() == ["men > Shirts", "women > Shirts", "Skirts"]
    assert regions.tree == "category,group\nmen > Shirts,men\nwomen > Shirts,women\nSkirts,women\n"
    assert caplog.messages == [
        f"{tmp_path / 'two'}: names that stand in several groups are written with them: men > Shirts, women > Shirts"
    ]
    deep = read(touch(tmp_path / "deep", "men/tops/Tee/a.jpg", "women/tops/Blouse/b.jpg"))
    assert deep.label.tolist() == ["Tee", "Blouse"]
    assert deep.tree == "category,group 2,group 1\nTee,men > tops,men\nBlouse,women > tops,women\n"
    for either in (regions, deep):
        (tmp_path / "tree.csv").write_text(either.tree)
        tree = load_hierarchy(str(tmp_path / "tree.csv"))
        assert [tree.leaves[i] for i in tree.index(either.label.tolist(), "w")] == either.label.tolist()


UNEVEN = (
    "Hat/a.jpg",
    "men/Shirts/a.jpg",
    "men/tops/Tee/a.jpg",
    "men/tops/b.jpg",
    "men/tops/c.jpg",
    "women/Shirts/a.jpg",
    "women/Hat/a.jpg",
    "women/tops/d.jpg",
    "women/tops/Blouse/a.jpg",
    "women/outer/rain/Cape/a.jpg",
)


@pytest.mark.parametrize("above", [("",), ("train/", "Valid/", "test/")])
def test_folders_may_lie_at_any_depth_and_hold_images_beside_folders(
    above: tuple[str, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    regions = read(touch(tmp_path, *(split + name for split in above for name in UNEVEN)))
    labels = {path.removeprefix(above[-1]): label for path, label, _ in table(regions) if path.startswith(above[-1])}
    assert labels == {
        "Hat/a.jpg": "> Hat",
        "men/Shirts/a.jpg": "men > Shirts",
        "men/tops/Tee/a.jpg": "Tee",
        "men/tops/b.jpg": "men > tops",
        "men/tops/c.jpg": "men > tops",
        "women/Hat/a.jpg": "women > Hat",
        "women/Shirts/a.jpg": "women > Shirts",
        "women/outer/rain/Cape/a.jpg": "Cape",
        "women/tops/d.jpg": "women > tops",
        "women/tops/Blouse/a.jpg": "Blouse",
    }
    assert regions.tree == (
        "category,group 3,group 2,group 1\nHat,,,\nShirts,,,men\nTee,,tops,men\nHat,,,women\nShirts,,,women\n"
        "Cape,rain,outer,women\nBlouse,,tops,women\n"
    )
    several = "> Hat, men > Shirts, men > tops, women > Hat, women > Shirts and 1 more"
    beside = f"{3 * len(above)} images lie beside folders of labels, so their own label is an inner node of the tree: "
    assert caplog.messages == [
        f"{tmp_path}: names that stand in several groups are written with them: {several}",
        f"{tmp_path}: {beside}men > tops, women > tops",
    ]
    (tmp_path / "tree.csv").write_text(regions.tree)
    tree = load_hierarchy(str(tmp_path / "tree.csv"))
    paths = tree.find(regions.label.tolist(), "w").tolist()
    for path, names in zip(regions.path.tolist(), paths, strict=True):
        assert tree.names(names) == Path(path).parts[above != ("",) : -1]


def test_a_label_is_its_folder_where_no_other_node_has_that_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    regions = read(touch(tmp_path, "Tee/a.jpg", "Tee/old/b.jpg", "Hat/c.jpg", "old/old/d.jpg"))
    assert dict(zip(regions.path.tolist(), regions.label.tolist(), strict=True)) == {
        "Hat/c.jpg": "Hat",
        "Tee/a.jpg": "Tee",
        "Tee/old/b.jpg": "Tee > old",
        "old/old/d.jpg": "old > old",
    }
    assert caplog.messages[-1] == (
        f"{tmp_path}: 1 images lie beside folders of labels, so their own label is an inner node of the tree: Tee"
    )


def test_a_missing_split_is_drawn_from_the_training_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = [f"train/Tee/{i:03d}.jpg" for i in range(200)] + [f"test/Tee/{i}.jpg" for i in range(5)]
    regions = read(touch(tmp_path / "a", *names))
    assert regions.apart == ("train", "test")
    counts = Counter(zip((path.split("/")[0] for path in regions.path), regions.split, strict=True))
    assert set(counts) == {("train", "train"), ("train", "val"), ("test", "test")}
    assert counts["test", "test"] == 5
    assert 8 <= counts["train", "val"] <= 35  # 20 on the average, and 3.5 standard deviations either way
    assert caplog.messages == [f"{tmp_path / 'a'}: has no val split; 10% of the training images are drawn for it"]
    caplog.clear()
    other = read(touch(tmp_path / "c", *(name.replace("test/", "valid/") for name in names)))
    counts = Counter(zip((path.split("/")[0] for path in other.path), other.split, strict=True))
    assert set(counts) == {("train", "train"), ("train", "test"), ("valid", "val")}
    assert caplog.messages == [f"{tmp_path / 'c'}: has no test split; 20% of the training images are drawn for it"]


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("Training", "Validation", "Testing"), ("train", "valid", "test"), ("TRAIN", "VAL", "Test")],
)
def test_folders_of_splits_may_be_spelt_otherwise(train: str, val: str, test: str, tmp_path: Path) -> None:
    regions = read(touch(tmp_path, f"{train}/Tee/a.jpg", f"{val}/Tee/b.jpg", f"{test}/Tee/c.jpg"))
    assert {Path(path).name: split for path, _, split in table(regions)} == {
        "a.jpg": "train",
        "b.jpg": "val",
        "c.jpg": "test",
    }


def test_a_label_may_be_called_training(tmp_path: Path) -> None:
    assert set(read(touch(tmp_path, "Training/a.jpg", "Tee/b.jpg")).label) == {"Training", "Tee"}
    assert set(read(touch(tmp_path / "deep", "men/Training/a.jpg", "Tee/b.jpg")).label) == {"Training", "Tee"}


def test_a_split_is_drawn_where_there_are_no_folders_of_splits(tmp_path: Path) -> None:
    sizes = {"Tee": 100, "Coat": 10, "Cape": 3, "Robe": 1}
    touch(tmp_path, *(f"{label}/{i:03d}.jpg" for label, n in sizes.items() for i in range(n)))
    plain = read_regions(tmp_path, outside_root=False)
    assert (set(plain.split), plain.apart) == ({""}, ())
    regions = read(tmp_path)
    assert regions.split.tolist() == draw_splits(plain, seed=0, shares=(0.1, 0.2)).split.tolist()
    for label in ("Tee", "Coat", "Cape"):
        assert set(regions.split[regions.label == label]) == {"train", "val", "test"}


EXPECTED = "expected images under label/, group/label/ or, with the splits train, val and test, split/label/"
MOVE = "expected split/label/; move them, or give the folder that holds the splits"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("Tee/notes.txt",), f"{EXPECTED}, found none"),
        (("a.jpg", "b.jpg"), f"{EXPECTED}, found 2 images in no folder of a label, a.jpg, b.jpg"),
        (("train/a.jpg", "test/b.jpg"), f"{EXPECTED}, found 2 images in no folder of a label, test/b.jpg, train/a.jpg"),
        (
            ("train/Tee/a.jpg", "unsorted/Tee/b.jpg"),
            "expected only the folders train, val and test beside train, found unsorted",
        ),
        (
            ("Coat/a.jpg", "Tee/train/a.jpg", "Tee/test/b.jpg"),
            "found the splits test, train below labels or groups, such as {root}/Tee; " + MOVE,
        ),
        (
            ("set/train/Tee/a.jpg", "set/valid/Tee/b.jpg"),
            "found the splits train, valid below labels or groups, such as {root}/set; " + MOVE,
        ),
        (
            ("Tee/train/a.jpg", "Tee/test/b.jpg"),
            "found the splits test, train below labels or groups, such as {root}/Tee; " + MOVE,
        ),
    ],
)
def test_other_trees_are_refused(names: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        read(touch(tmp_path, *names))
    assert str(caught.value) == f"{tmp_path}: {message.format(root=tmp_path)}"


def test_a_folder_named_like_an_image_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "Tee" / "dir.jpg").mkdir(parents=True)
    (tmp_path / "Tee" / "a.jpg").touch()
    assert read(tmp_path).path.tolist() == ["Tee/a.jpg"]


@pytest.mark.parametrize("names", [("Tee/a.jpg", "Coat/b.jpg"), ("train/Tee/a.jpg", "test/Tee/b.jpg")])
def test_links_that_lead_back_are_passed_over_and_others_followed(names: tuple[str, ...], tmp_path: Path) -> None:
    root = touch(tmp_path / "tree", *names)
    expected = table(read(root))
    for folder in {root, *(parent for name in names for parent in (root / name).parents if root in parent.parents)}:
        (folder / "itself").symlink_to(folder / "itself")
        (folder / "here").symlink_to(folder)
        (folder / "up").symlink_to("..")
        (folder / "root").symlink_to(root)
    assert table(read(root)) == expected
    beside = touch(tmp_path / "beside", "c.jpg")
    (root / names[0]).parent.with_name("Cape").symlink_to(beside)
    assert {name for name, _, _ in table(read(root))} == {
        *names,
        str(Path(names[0]).parent.with_name("Cape") / "c.jpg"),
    }


def test_folders_that_lead_to_each_other_are_walked_once(tmp_path: Path) -> None:
    touch(tmp_path, "Tee/a.jpg", "Coat/b.jpg")
    (tmp_path / "Tee" / "coat").symlink_to(tmp_path / "Coat")
    (tmp_path / "Coat" / "tee").symlink_to(tmp_path / "Tee")
    found = {names: [path.name for path in listing.images] for names, listing in walk(tmp_path)}
    tee, coat = ["a.jpg"], ["b.jpg"]
    assert found == {(): [], ("Coat",): coat, ("Coat", "tee"): tee, ("Tee",): tee, ("Tee", "coat"): coat}


def test_a_link_to_nothing_is_a_failure_of_its_row(tmp_path: Path) -> None:
    touch(tmp_path, "Tee/a.jpg")
    (tmp_path / "Tee" / "b.jpg").symlink_to("gone.jpg")
    assert read(tmp_path).id.tolist() == ["Tee/a.jpg", "Tee/b.jpg"]


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    for name in ("K\udce4der/a.jpg", "Tee/K\udce4.jpg"):
        with pytest.raises(DatasetError) as caught:
            read(touch(tmp_path / name[:3], name))
        shown = name.replace("\udce4", "\\xe4")
        expected = f"the name {shown} is not UTF-8, which the cache is kept in; rename it "
        hint = "(convmv -f latin1 -t utf8 -r --notest does so for a whole folder)"
        assert str(caught.value) == f"{tmp_path / name[:3]}: {expected}{hint}"


def test_a_folder_that_may_not_be_listed_is_refused_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "Tee/a.jpg", "Coat/b.jpg")
    for closed in (tmp_path / "Coat", tmp_path):
        closed.chmod(0)
        with unprivileged(), pytest.raises(DatasetError, match=f"^{closed}.*: cannot be read: Permission denied$"):
            read(tmp_path)
        closed.chmod(0o755)
    assert len(read(tmp_path)) == 2


def test_a_source_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        read(tmp_path / "none")
    expected = "no such file or folder; expected a DeepFashion root, a CSV file or a folder tree"
    assert str(caught.value) == f"{tmp_path / 'none'}: {expected}"


def test_folders_that_are_one_class_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    regions = read(touch(tmp_path, "Caf\u00e9/a.jpg", "Cafe\u0301/b.jpg", " Tee/c.jpg"))
    assert set(regions.label) == {"Caf\u00e9", "Cafe\u0301", " Tee"}  # as they are written
    assert caplog.messages == [rf"{tmp_path}: one class in several spellings: 'Cafe\u0301', 'Caf\xe9'"]
    regions = read(touch(tmp_path / "deep", "Caf\u00e9/Tee/a.jpg", "Cafe\u0301/Skirt/b.jpg", "Cafe\u0301/Tee /c.jpg"))
    assert regions.tree == "category,group\nSkirt,Cafe\u0301\nTee,Cafe\u0301\n"
    assert dict(zip(regions.path, regions.label, strict=True)) == {
        "Caf\u00e9/Tee/a.jpg": "Tee",
        "Cafe\u0301/Skirt/b.jpg": "Skirt",
        "Cafe\u0301/Tee /c.jpg": "Tee ",
    }


PACKED = {
    "labels": (
        "Tee/a.jpg",
        "Tee/b.jpg",
        "Tee/c.jpg",
        "J\u00e4ns/d.jpg",
        "J\u00e4ns/notes.txt",
        "top.jpg",
        "__MACOSX/e.jpg",
    ),
    "groups": ("tops/Tee/a.jpg", "tops/Shirt/b.png", "bottoms/Jeans/c.jpg", "bottoms/Shorts/d.jpg"),
    "uneven": ("tops/Tee/a.jpg", "tops/c.jpg", "Jeans/d.jpg"),
    "splits": ("train/Tee/a.jpg", "val/Tee/b.jpg", "test/Coat/c.jpg", "train/Coat/d.jpg"),
}


@pytest.mark.parametrize("names", PACKED.values(), ids=PACKED)
@pytest.mark.parametrize("above", ["", "photos/"])
@pytest.mark.parametrize(("file", "packer"), [("photos.zip", pack), ("photos.tar", pack_tar)])
def test_an_archive_has_the_rows_of_the_folder_that_was_packed(
    file: str,
    packer: Callable[[Path, dict[str, bytes]], Path],
    above: str,
    names: tuple[str, ...],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = read(touch(tmp_path / "photos", *names))
    expected = [message.removeprefix(str(tmp_path / "photos")) for message in caplog.messages]
    caplog.clear()
    archive = read(packer(tmp_path / file, dict.fromkeys([above + name for name in names], b"")))
    assert archive.id.tolist() == folder.id.tolist()
    assert table(archive) == table(folder)
    assert (archive.digest, archive.tree) == (folder.digest, folder.tree)
    within = tmp_path / file / above.rstrip("/")
    assert [message.removeprefix(str(within)) for message in caplog.messages] == expected


def test_a_folder_in_an_archive_is_a_folder_tree(tmp_path: Path) -> None:
    file = pack(tmp_path / "a.zip", {"photos/Tee/a.jpg": b"", "others/Coat/b.jpg": b""})
    assert table(read(file / "photos")) == [("Tee/a.jpg", "Tee", "train")]


def test_archives_without_a_tree_are_refused(tmp_path: Path) -> None:
    file = pack(tmp_path / "a.zip", {"a.jpg": b""})
    expected = (
        f"{file}: expected images under label/, group/label/ or, with the splits train, val and test, split/label/"
    )
    with pytest.raises(DatasetError, match=re.escape(f"{expected}, found 1 images in no folder of a label, a.jpg")):
        read(file)
    file.write_bytes(b"no archive")
    with pytest.raises(DatasetError, match=r"a\.zip: cannot be read as a ZIP archive: File is not a zip file; pack or"):
        read(file)


@pytest.mark.parametrize("name", ["photos.tar.gz", "photos.TGZ", "photos.rar", "m.csv.xz"])
def test_what_is_compressed_in_another_way_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x1f\x8b")
    with pytest.raises(DatasetError) as caught:
        read(tmp_path / name)
    expected = f"expected a CSV file, a ZIP or a TAR without compression, found {Path(name).suffix}; unpack it"
    assert str(caught.value) == f"{tmp_path / name}: {expected}"
