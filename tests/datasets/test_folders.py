"""Folder trees."""

from collections import Counter
from pathlib import Path

import pytest

from hfc.datasets import read_regions
from hfc.errors import DatasetError
from hfc.regions import Regions
from tests.privileges import unprivileged


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def read(root: Path, seed: int = 0) -> Regions:
    return read_regions(root, outside_root=False, split_seed=seed, val_fraction=0.1, test_fraction=0.2)


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
    assert caplog.text == ""
    regions = read(touch(tmp_path, "Tee/a.HEIC", "Coat/b.heic", "Coat/c.jpg", "Coat/notes"))
    assert regions.id.tolist() == ["Coat/c.jpg", "Tee/a.jpg"]
    assert "left out files that are no images by their names: 2 .heic, 1 notes" in caplog.text


def test_a_drawn_split_is_stratified_and_seeded(tmp_path: Path) -> None:
    sizes = {"Tee": 100, "Coat": 10, "Cape": 3, "Robe": 1}
    touch(tmp_path, *(f"{label}/{i:03d}.jpg" for label, n in sizes.items() for i in range(n)))
    regions = read(tmp_path)
    counts = Counter(zip(regions.label, regions.split, strict=True))
    assert counts == {
        **{("Tee", "train"): 70, ("Tee", "val"): 10, ("Tee", "test"): 20},
        **{("Coat", "train"): 7, ("Coat", "val"): 1, ("Coat", "test"): 2},
        **{("Cape", "train"): 1, ("Cape", "val"): 1, ("Cape", "test"): 1, ("Robe", "train"): 1},
    }
    assert read(tmp_path).split.tolist() == regions.split.tolist()
    assert read(tmp_path, seed=1).split.tolist() != regions.split.tolist()
    before = dict(zip(regions.id, regions.split, strict=True))
    after = read(touch(tmp_path, *(f"Anorak/{i}.jpg" for i in range(9))))
    assert {name: split for name, split in zip(after.id, after.split, strict=True) if name in before} == before


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("Tee/notes.txt",), "expected images under label/ or split/label/, found none"),
        (("train/Tee/a.jpg", "valid/Tee/b.jpg"), "expected only the folders train, val and test .* found valid"),
        (("shop/Tee/a.jpg",), "expected label/.* found the folders shop"),
    ],
)
def test_other_trees_are_refused(names: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=message):
        read(touch(tmp_path, *names))


@pytest.mark.parametrize(("count", "val", "test"), [(3, 0.5, 0.45), (4, 0.45, 0.45), (5, 0.1, 0.85), (3, 0.1, 0.2)])
def test_a_label_of_three_images_is_in_every_split(count: int, val: float, test: float, tmp_path: Path) -> None:
    (tmp_path / "Tee").mkdir()
    for i in range(count):
        (tmp_path / "Tee" / f"{i}.jpg").touch()
    regions = read_regions(tmp_path, outside_root=False, split_seed=0, val_fraction=val, test_fraction=test)
    assert set(regions.split) == {"train", "val", "test"}


def test_fractions_that_leave_no_training_images_are_refused(tmp_path: Path) -> None:
    (tmp_path / "Tee").mkdir()
    (tmp_path / "Tee" / "a.jpg").touch()
    with pytest.raises(DatasetError) as caught:
        read_regions(tmp_path, outside_root=False, split_seed=0, val_fraction=0.4, test_fraction=0.6)
    assert str(caught.value) == "val and test fractions 0.4 + 0.6 leave nothing to train on"


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


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "K\udce4der/a.jpg")
    with pytest.raises(DatasetError, match="is not UTF-8, which the cache is kept in; rename it"):
        read(tmp_path)


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
