"""What counts in a folder, and in which order it is listed."""

from collections import Counter
from pathlib import Path

import pytest

from hfc.datasets.listing import counted, is_ours, walk


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
