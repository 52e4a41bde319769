"""What counts in a folder, and in which order it is listed."""

from collections import Counter
from pathlib import Path

import pytest

from hfc.datasets.listing import archive_root, counted, is_folder, is_ours, walk
from tests.datasets.test_archives import pack


@pytest.mark.parametrize("name", [".hidden", "Thumbs.db", "__MACOSX", "@eaDir", "desktop.ini", "lost+found"])
def test_what_is_hidden_or_a_systems_does_not_count(name: str, tmp_path: Path) -> None:
    assert not is_ours(name)
    (tmp_path / name).mkdir()
    (tmp_path / name / "a.jpg").touch()
    ((names, listing),) = walk(tmp_path)
    assert (names, listing.images, listing.others) == ((), [], Counter())


def test_folders_and_images_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b/2.JPG", "b/1.png", "a/c/x.webp", "a/notes.txt", "a/more.txt", "README"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    listed = [(names, [path.name for path in found.images], dict(found.others)) for names, found in walk(tmp_path)]
    assert listed == [
        ((), [], {"README": 1}),
        (("a",), [], {".txt": 2}),
        (("a", "c"), ["x.webp"], {}),
        (("b",), ["1.png", "2.JPG"], {}),
    ]


def test_a_link_is_followed_unless_it_leads_back(tmp_path: Path) -> None:
    (tmp_path / "data" / "a").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.jpg").touch()
    (tmp_path / "data" / "a" / "back").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data" / "loop")
    assert [names for names, _ in walk(tmp_path / "data")] == [(), ("a",), ("b",)]


def test_files_left_out_are_counted_the_most_frequent_first() -> None:
    assert counted({".txt": 2, "notes": 1, ".md": 2}) == "2 .md, 2 .txt, 1 notes"
    assert counted({str(i): 1 for i in range(7)}) == "1 0, 1 1, 1 2, 1 3, 1 4 and 2 more"


NAMES = (
    *("b/2.JPG", "b/1.png", "a/c/x.webp", "a/notes.txt", "a/more.txt", "README", "a b/3.jpg", "a/.hidden.jpg"),
    *("__MACOSX/b/._1.png", ".git/1.jpg", "b/Thumbs.db"),
)


def listed(folder: Path) -> list[tuple[tuple[str, ...], list[str], dict[str, int]]]:
    """What lies in a folder, without folders that hold nothing."""
    walked = [
        (names, [path.relative_to(folder).as_posix() for path in listing.images], dict(listing.others))
        for names, listing in walk(folder)
    ]
    return [line for line in walked if line[1] or line[2]]


def write(root: Path, names: tuple[str, ...] = NAMES) -> Path:
    """A folder with empty files, beside it as an archive; the folder."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    pack(root.with_suffix(".zip"), dict.fromkeys(names, b""))
    pack(root.with_name("named.zip"), dict.fromkeys([f"named/{name}" for name in names], b""))
    return root


def test_an_archive_is_listed_like_the_folder_that_was_packed(tmp_path: Path) -> None:
    folder = write(tmp_path / "photos")
    expected = listed(folder)
    assert len(expected) == 5
    assert listed(tmp_path / "photos.zip") == expected == listed(tmp_path / "named.zip" / "named")
    assert listed(tmp_path / "photos.zip" / "a") == listed(folder / "a")


def test_a_member_that_leaves_its_archive_is_listed_inside_it(tmp_path: Path) -> None:
    file = pack(tmp_path / "photos.zip", {"photos/Tee/1.jpg": b"", "../Tee/2.jpg": b"", "/Tee/3.jpg": b""})
    assert listed(file) == [
        (("Tee",), ["../Tee/2.jpg", "../Tee/3.jpg"], {}),
        (("photos", "Tee"), ["photos/Tee/1.jpg"], {}),
    ]
    assert listed(file / "photos") == [(("Tee",), ["../../Tee/2.jpg", "../../Tee/3.jpg", "Tee/1.jpg"], {})]


@pytest.mark.parametrize(
    ("names", "within"),
    [
        (("photos/Tee/1.jpg", "photos/notes.txt", "__MACOSX/x", ".DS_Store"), True),
        (("photos/Tee/1.jpg", "../photos/2.jpg"), True),
        (("photos/1.jpg",), False),  # its label is photos
        (("Tee/1.jpg",), False),
        (("photos/Tee/1.jpg", "other/Tee/1.jpg"), False),
        ((), False),
    ],
)
def test_an_archive_stands_for_the_folder_of_its_name(names: tuple[str, ...], within: bool, tmp_path: Path) -> None:
    file = pack(tmp_path / "photos.zip", dict.fromkeys(names, b""))
    assert archive_root(file) == (file / "photos" if within else file)


def test_what_is_no_archive_stands_for_itself(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none", tmp_path / "none.zip"):
        assert archive_root(path) == path


def test_folders_archives_and_folders_in_archives_are_folders(tmp_path: Path) -> None:
    folder = write(tmp_path / "photos")
    archive = tmp_path / "photos.zip"
    assert all(map(is_folder, (folder, archive, archive / "a", archive / "a/c")))
    assert not any(map(is_folder, (folder / "README", archive / "README", archive / "none", tmp_path / "none.zip")))
