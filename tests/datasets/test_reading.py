"""The bytes that a path names, in folders and in archives."""

import os
from pathlib import Path

import pyarrow as pa
import pytest

from hfc.datasets.reading import UNKNOWN, holds, named, read_bytes, read_file, reason, stamp
from hfc.errors import ImageError
from tests.datasets.test_archives import pack, pack_tar
from tests.support.parquet import IMAGE, write_images, write_table


def place(folder: Path) -> Path:
    """A file in a folder, and the same in an archive."""
    (folder / "Ja\u0308ns").mkdir()
    (folder / "Ja\u0308ns" / "1.jpg").write_bytes(b"1")
    pack(folder / "photos.zip", {"Ja\u0308ns/1.jpg": b"1"})
    pack_tar(folder / "photos.tar", {"Ja\u0308ns/1.jpg": b"1"})
    return folder


@pytest.mark.parametrize("above", ["", "photos.zip/", "photos.tar/"])
@pytest.mark.parametrize("name", ["Ja\u0308ns/1.jpg", "J\u00e4ns/1.jpg", "Ja\u0308ns\\1.jpg"])
def test_a_path_leads_into_an_archive_as_into_a_folder(name: str, above: str, tmp_path: Path) -> None:
    place(tmp_path)
    assert read_bytes(tmp_path, above + name) == b"1"
    assert read_bytes(tmp_path / above, name) == b"1"
    assert holds(tmp_path, above + name)
    assert holds(tmp_path / above, name)
    backslashes = (above + name).replace("/", "\\")
    assert read_bytes(tmp_path, backslashes) == b"1"
    assert holds(tmp_path, backslashes)


@pytest.mark.parametrize("above", ["", "photos.zip/", "photos.tar/"])
def test_what_is_not_there_is_not_held(above: str, tmp_path: Path) -> None:
    place(tmp_path)
    for name in ("none.jpg", "Ja\u0308ns", "Ja\u0308ns/1.jpg/2.jpg", "x" * 300):
        assert not holds(tmp_path, above + name)
        with pytest.raises((OSError, ImageError)):
            read_bytes(tmp_path, above + name)


def test_a_damaged_archive_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"no archive")
    assert not holds(tmp_path, "a.zip/1.jpg")
    with pytest.raises(ImageError, match=r"a\.zip: cannot be read as a ZIP archive"):
        read_file(tmp_path / "a.zip" / "1.jpg")


def test_a_folder_is_no_file_and_a_file_no_folder(tmp_path: Path) -> None:
    place(tmp_path)
    with pytest.raises(ImageError, match=r"^not a file$"):
        read_file(tmp_path / "Ja\u0308ns")
    with pytest.raises(NotADirectoryError):
        read_file(tmp_path / "Ja\u0308ns" / "1.jpg" / "2.jpg")


def test_a_folder_may_have_the_name_of_an_archive(tmp_path: Path) -> None:
    (tmp_path / "photos.zip").mkdir()
    (tmp_path / "photos.zip" / "1.jpg").write_bytes(b"1")
    assert read_bytes(tmp_path, "photos.zip/1.jpg") == b"1"


@pytest.mark.parametrize("above", ["", "photos.zip/", "photos.tar/"])
@pytest.mark.parametrize("name", ["Ja\u0308ns/1.jpg", "J\u00e4ns/1.jpg", "Ja\u0308ns\\1.jpg"])
def test_a_stamp_is_size_and_time_of_the_file_or_of_its_archive(name: str, above: str, tmp_path: Path) -> None:
    place(tmp_path)
    (tmp_path / "Ja\u0308ns" / "1.jpg").write_bytes(b"three" * 3)
    for number, file in enumerate(("Ja\u0308ns/1.jpg", "photos.zip", "photos.tar")):
        os.utime(tmp_path / file, ns=(0, 1_700_000_000_123_456_789 + number))
    number = ["", "photos.zip/", "photos.tar/"].index(above)
    assert stamp(tmp_path, above + name) == (1 if above else 15, 1_700_000_000_123_456_789 + number)


@pytest.mark.parametrize(
    "name", ["none.jpg", "Ja\u0308ns", "Ja\u0308ns/1.jpg/2.jpg", "x" * 300, "nul\0", "loop", "bad.zip/1"]
)
def test_what_is_no_file_has_no_stamp(name: str, tmp_path: Path) -> None:
    place(tmp_path)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "bad.zip").write_bytes(b"no archive")
    for above in ("", "photos.zip/"):
        assert stamp(tmp_path, above + name) == (UNKNOWN, UNKNOWN)


def test_a_reason_is_what_the_system_says() -> None:
    assert (
        reason(FileNotFoundError(2, "No such file or directory")) == "cannot read the file: No such file or directory"
    )
    assert reason(ValueError("embedded null byte")) == "cannot read the file: embedded null byte"
    assert reason(ImageError("encrypted")) == "encrypted"


def test_an_archive_begins_where_a_file_has_its_name_and_nowhere_else(tmp_path: Path) -> None:
    for folder in ("photos.zip", "photos.zipped"):
        (tmp_path / folder).mkdir()
    inner = pack(tmp_path / "photos.zip" / "more.ZIP", {"b.zip/1.jpg": b"1"})
    (tmp_path / "photos.zipped" / "1.jpg").write_bytes(b"2")
    assert read_bytes(tmp_path, "photos.zip/more.ZIP/b.zip/1.jpg") == b"1"
    assert read_bytes(tmp_path, "photos.zipped/1.jpg") == b"2"
    assert read_bytes(tmp_path, "photos.zip/more.ZIP") == inner.read_bytes()
    inner.replace(tmp_path / "photos.zipped" / "more.zip")
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path, "photos.zip/more.ZIP/b.zip/1.jpg")


def test_a_message_names_a_file_or_a_url_without_its_secrets(tmp_path: Path) -> None:
    assert named(tmp_path, "photos.zip/1.jpg") == f"{tmp_path}/photos.zip/1.jpg"
    assert named(tmp_path, "https://example.com/1.jpg?key=secret") == "https://example.com/1.jpg?…"


def test_the_stamp_of_a_row_is_that_of_its_parquet_file(tmp_path: Path) -> None:
    file = write_images(tmp_path / "a.parquet", [b"0", b"1"], ["Tee", "Tee"])
    os.utime(file, ns=(0, 1_700_000_000_123_456_789))
    assert stamp(tmp_path, "a.parquet/1") == (file.stat().st_size, 1_700_000_000_123_456_789)
    assert stamp(tmp_path, "a.parquet/2") == (UNKNOWN, UNKNOWN)
    write_table(file, {"image": pa.array([{"bytes": None, "path": "1.jpg"}], IMAGE)})
    assert stamp(tmp_path, "a.parquet/0") == (UNKNOWN, UNKNOWN)  # a file of its own, which may change
