"""ZIP and TAR archives as folders of a path: their members, and what makes a member a failure."""

import contextlib
import gc
import gzip
import io
import os
import re
import struct
import tarfile
import tempfile
import tracemalloc
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfc.datasets import archives
from hfc.datasets.archives import Archive, open_archive, split
from hfc.errors import ImageError

CONTENT = bytes(range(256)) * 40
OPEN_FILES = Path("/proc/self/fd")


def pack(file: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    """A ZIP archive as Python's own writer makes it."""
    with zipfile.ZipFile(file, "w", method) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return file


def pack_tar(file: Path, members: dict[str, bytes]) -> Path:
    """A TAR archive as Python's own writer makes it."""
    with tarfile.open(file, "w") as packed:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
    return file


def reason(file: Path, name: str) -> str:
    """Why a member cannot be read."""
    with pytest.raises((ImageError, OSError)) as caught:
        open_archive(file).read(name)
    return str(getattr(caught.value, "strerror", None) or caught.value)


def changed(file: Path, change: Callable[[bytearray], None]) -> Path:
    """The archive after a change to its bytes."""
    content = bytearray(file.read_bytes())
    change(content)
    file.write_bytes(content)
    return file


def set_central(content: bytearray, offset: int, form: str, value: int) -> None:
    """Overwrite a field of the first entry of the central directory."""
    struct.pack_into(form, content, content.index(b"PK\x01\x02") + offset, value)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_member_is_read_as_pythons_reader_reads_it(method: int, tmp_path: Path) -> None:
    file = pack(tmp_path / "a.zip", {"a/1.jpg": CONTENT, "a/empty.jpg": b"", "2.jpg": b"x"}, method)
    with zipfile.ZipFile(file) as opened:
        for name in opened.namelist():
            assert open_archive(file).read(name) == opened.read(name)


def test_a_program_in_front_of_an_archive_moves_no_member(tmp_path: Path) -> None:
    file = pack(tmp_path / "a.zip", {"1.jpg": CONTENT})
    file.write_bytes(b"#!/bin/sh\nexit\n" + file.read_bytes())
    assert open_archive(file).read("1.jpg") == CONTENT


def test_large_archives_with_64_bit_fields_are_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed, packed.open("1.jpg", "w", force_zip64=True) as member:
        member.write(CONTENT)
    assert open_archive(tmp_path / "a.zip").read("1.jpg") == CONTENT


def test_threads_read_side_by_side_and_the_index_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = {f"{i}.jpg": CONTENT[i:] * (i % 7 + 1) for i in range(200)}
    file = pack(tmp_path / "a.zip", contents)
    opened: list[Path] = []

    class Counting(Archive):
        def __init__(self, file: Path) -> None:
            opened.append(file)
            super().__init__(file)

    monkeypatch.setattr(archives, "Archive", Counting)
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda name: open_archive(file).read(name), contents))
    assert read == list(contents.values())
    assert opened == [file]
    damaged = tmp_path / "b.tar"
    damaged.write_bytes(b"no archive")
    assert len({reason(damaged, name) for name in contents}) == 1
    assert opened == [file, damaged]


def test_an_archive_that_was_replaced_is_opened_again(tmp_path: Path) -> None:
    file = pack(tmp_path / "a.zip", {"1.jpg": b"before"})
    assert open_archive(file).read("1.jpg") == b"before"
    pack(file, {"1.jpg": b"afterwards"})
    assert open_archive(file).read("1.jpg") == b"afterwards"


def test_an_archive_that_is_replaced_while_it_is_read_is_read_to_its_end(tmp_path: Path) -> None:
    file = pack(tmp_path / "a.zip", {"1.jpg": b"before"})
    archive = open_archive(file)
    pack(tmp_path / "b.zip", {"0.jpg": b"", "1.jpg": b"afterwards"}).replace(file)
    assert archive.read("1.jpg") == b"before"  # its index says nothing about the bytes of another file
    assert open_archive(file).read("1.jpg") == b"afterwards"


@pytest.mark.skipif(not OPEN_FILES.exists(), reason="the system does not list the files of a process")
def test_so_many_archives_stay_open_and_no_more(tmp_path: Path) -> None:
    def count() -> int:
        return sum(file.resolve().is_relative_to(tmp_path) for file in OPEN_FILES.iterdir())

    for number in range(archives.OPEN + 5):
        file = pack(tmp_path / f"{number}.zip", {"1.jpg": CONTENT})
        assert open_archive(file).read("1.jpg") == CONTENT
    assert count() == archives.OPEN
    file.write_bytes(b"no archive")
    assert "cannot be read" in reason(file, "1.jpg")
    gc.collect()  # the reason kept frames in which the damaged one was open
    assert count() <= archives.OPEN


def test_a_read_that_the_system_cuts_short_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = os.pread
    monkeypatch.setattr(os, "pread", lambda descriptor, count, start: at_once(descriptor, min(count, 100), start))
    assert open_archive(pack(tmp_path / "a.zip", {"1.jpg": CONTENT})).read("1.jpg") == CONTENT
    assert open_archive(pack_tar(tmp_path / "a.tar", {"1.jpg": CONTENT})).read("1.jpg") == CONTENT


@pytest.mark.parametrize("length", [0, 60, 1000])
def test_a_header_may_be_longer_than_the_index_tells(length: int, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        for name in ("\u00e4" * 50 + ".jpg", "2.jpg"):
            info = zipfile.ZipInfo(name)
            info.extra = struct.pack("<HH", 0xCAFE, length) + bytes(length)
            packed.writestr(info, CONTENT)
    for name in ("\u00e4" * 50 + ".jpg", "2.jpg"):
        assert open_archive(tmp_path / "a.zip").read(name) == CONTENT


def test_a_name_may_be_in_the_other_unicode_form_or_parted_by_backslashes(tmp_path: Path) -> None:
    file = pack(tmp_path / "a.zip", {"J\u00e4ns/1.jpg": b"1", "Gru\u0308n/2.jpg": b"2", "./a//3.jpg": b"3"})
    for name, content in {
        "J\u00e4ns/1.jpg": b"1",
        "Ja\u0308ns/1.jpg": b"1",
        "Gr\u00fcn\\2.jpg": b"2",
        "a/3.jpg": b"3",
        "b/../a/3.jpg": b"3",
    }.items():
        assert open_archive(file).read(name) == content
    assert reason(file, "a/4.jpg") == "No such member of a.zip"


def test_utf_8_without_the_flag_that_says_so_is_read(tmp_path: Path) -> None:
    file = pack(tmp_path / "a.zip", {"J\u00e4ns.jpg": b"1"})

    def clear(content: bytearray) -> None:
        set_central(content, 8, "<H", 0)

    assert open_archive(changed(file, clear)).read("J\u00e4ns.jpg") == b"1"


def test_a_path_is_parted_where_an_archive_is(tmp_path: Path) -> None:
    file = pack(tmp_path / "b.ZIP", {"1.jpg": b"1"})
    (tmp_path / "folder.zip").mkdir()
    assert split(file) == (file, "")
    assert split(file / "a" / "1.jpg") == (file, "a/1.jpg")
    assert split(tmp_path / "folder.zip" / "1.jpg") is None
    assert split(tmp_path / "none.zip" / "1.jpg") is None
    assert split(tmp_path / "b.zipped") is None


@pytest.mark.parametrize("name", ["../1.jpg", "a/../../1.jpg", "/etc/1.jpg"])
def test_a_member_that_leaves_the_archive_is_refused(name: str, tmp_path: Path) -> None:
    file = pack(tmp_path / "a.zip", {name: CONTENT, "2.jpg": b"2"})
    (key,) = set(open_archive(file).members) - {"2.jpg"}
    assert reason(file, key) == f"its name leaves the archive: {name!r}"
    assert open_archive(file).read("2.jpg") == b"2"


def test_a_member_that_declares_too_much_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = pack(tmp_path / "a.zip", {"1.jpg": bytes(2000)})
    assert archives.LARGEST == 4 * 89_478_485
    monkeypatch.setattr(archives, "LARGEST", 1999)
    assert reason(file, "1.jpg") == "2000 bytes, more than 1999 in an archive, perhaps a decompression bomb"
    monkeypatch.setattr(archives, "LARGEST", 2000)
    assert open_archive(file).read("1.jpg") == bytes(2000)


def test_a_bomb_that_declares_little_is_never_unpacked(tmp_path: Path) -> None:
    file = pack(tmp_path / "a.zip", {"1.jpg": bytes(50_000_000)})
    changed(file, lambda content: set_central(content, 24, "<I", 100))
    archive = open_archive(file)
    tracemalloc.start()
    with pytest.raises(ImageError, match=r"expected the 100 bytes that it declares, found more$"):
        archive.read("1.jpg")
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def encrypt(content: bytearray) -> None:
    set_central(content, 8, "<H", 1)


def another_method(content: bytearray) -> None:
    set_central(content, 10, "<H", 12)


def as_link(content: bytearray) -> None:
    set_central(content, 5, "<B", 3)
    set_central(content, 38, "<I", 0o120777 << 16)


def wrong_checksum(content: bytearray) -> None:
    set_central(content, 16, "<I", 7)


def declares_more(content: bytearray) -> None:
    set_central(content, 24, "<I", len(CONTENT) + 1)


def elsewhere(content: bytearray) -> None:
    set_central(content, 42, "<I", 5)


def beyond_the_end(content: bytearray) -> None:
    set_central(content, 20, "<I", 1_000_000)


def torn(content: bytearray) -> None:
    content[60:70] = b"\xff" * 10


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (encrypt, r"encrypted; unpack the archive with its password"),
        (another_method, r"packed by ZIP's method 12; expected stored or deflated; pack the archive again"),
        (as_link, r"not a file: a link or the like in an archive"),
        (wrong_checksum, r"damaged member of the archive: its checksum does not fit its bytes"),
        (declares_more, r"damaged member of the archive: expected the 10241 bytes that it declares, found fewer"),
        (elsewhere, r"damaged member of the archive: it does not lie where the archive says"),
        (beyond_the_end, r"damaged member of the archive: the archive ends before it does"),
        (torn, r"damaged member of the archive: (Error -3 while decompressing data.*|its checksum .*|expected the .*)"),
    ],
)
def test_a_member_that_cannot_be_read_says_why(
    change: Callable[[bytearray], None], expected: str, tmp_path: Path
) -> None:
    file = changed(pack(tmp_path / "a.zip", {"1.jpg": CONTENT, "2.jpg": b"2"}), change)
    assert re.fullmatch(expected, reason(file, "1.jpg"))
    assert open_archive(file).read("2.jpg") == b"2"


@pytest.mark.parametrize("content", [b"", b"no archive", pytest.param(b"PK\x05\x06" + bytes(3), id="cut")])
def test_what_is_no_archive_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    expected = (
        f"{tmp_path / 'a.zip'}: cannot be read as a ZIP archive: File is not a zip file; pack or download it again"
    )
    assert reason(tmp_path / "a.zip", "1.jpg") == expected


def read_damaged(file: Path, damage: list[tuple[int, int]]) -> None:
    """Change bytes of an archive and read all of it. Nothing but a reason may come of it."""
    content = bytearray(file.read_bytes())
    for place, byte in damage:
        content[place % len(content)] = byte
    file.write_bytes(content)
    try:
        archive = Archive(file)
    except ImageError:
        return
    for name in archive.members:
        with contextlib.suppress(ImageError, OSError):
            archive.read(name)


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4))
def test_damage_anywhere_is_a_reason_or_does_not_matter(damage: list[tuple[int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = pack(Path(folder) / "a.zip", {"1.jpg": CONTENT, "a/2.jpg": b"2"})
        read_damaged(file, damage)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_member_of_a_tar_is_read_as_pythons_reader_reads_it(form: int, tmp_path: Path) -> None:
    names = ["a/1.jpg", "./b/" + "x" * 90 + "/2.jpg", "J\u00e4ns/3.jpg", "empty.jpg"]
    with tarfile.open(tmp_path / "a.tar", "w", format=form) as packed:
        packed.addfile(tarfile.TarInfo("folder"))
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = number * 700
            packed.addfile(info, io.BytesIO(CONTENT[: info.size]))
    with tarfile.open(tmp_path / "a.tar") as opened:
        for name in names:
            member = opened.extractfile(name)
            assert member is not None
            assert open_archive(tmp_path / "a.tar").read(name) == member.read()
    assert open_archive(tmp_path / "a.tar").read("Ja\u0308ns/3.jpg") == CONTENT[:1400]
    assert reason(tmp_path / "a.tar", "none.jpg") == "No such member of a.tar"


def test_members_of_a_tar_that_may_not_be_read_say_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = pack_tar(tmp_path / "a.tar", {"../1.jpg": b"1", "/etc/2.jpg": b"2", "3.jpg": bytes(2000), "4.jpg": b"4"})
    with tarfile.open(file, "a") as packed:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"kind{kind.decode()}.jpg")
            info.type, info.linkname = kind, "none.jpg"
            packed.addfile(info)
    monkeypatch.setattr(archives, "LARGEST", 1999)
    assert reason(file, "../1.jpg") == "its name leaves the archive: '../1.jpg'"
    assert reason(file, "../etc/2.jpg") == "its name leaves the archive: '/etc/2.jpg'"
    assert reason(file, "3.jpg") == "2000 bytes, more than 1999 in an archive, perhaps a decompression bomb"
    for kind in "216":
        assert reason(file, f"kind{kind}.jpg") == "not a file: a link or the like in an archive"
    assert open_archive(file).read("4.jpg") == b"4"


def test_a_hard_link_in_a_tar_is_the_file_that_it_links_to(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").write_bytes(CONTENT)
    for name in ("2.jpg", "3.jpg"):
        (tmp_path / "photos" / name).hardlink_to(tmp_path / "photos" / "1.jpg")
    with tarfile.open(tmp_path / "a.tar", "w") as packed:
        packed.add(tmp_path / "photos", "photos")
        assert sum(member.islnk() for member in packed.getmembers()) == 2
    for name in ("1.jpg", "2.jpg", "3.jpg"):
        assert open_archive(tmp_path / "a.tar").read(f"photos/{name}") == CONTENT


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:1000])


def torn_header(file: Path) -> None:
    content = bytearray(file.read_bytes())
    place = content.index(b"2.jpg")
    content[place : place + 5] = b"9.jpg"  # the checksum of the header no longer fits
    file.write_bytes(content)


def compressed(file: Path) -> None:
    file.write_bytes(gzip.compress(file.read_bytes()))


def without_end(file: Path) -> None:
    file.write_bytes(file.read_bytes().rstrip(b"\0")[:-1] + b"2" + bytes(511))


def two_in_one(file: Path) -> None:
    file.write_bytes(file.read_bytes() * 2)


def emptied(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (truncated, "unexpected end of data"),
        (torn_header, "no member's header at byte 10752"),
        (two_in_one, "no member's header at byte 11776"),
        (without_end, "it has no end mark"),
        (compressed, ".*header.*"),
        (emptied, "empty file"),
    ],
)
def test_a_tar_that_may_have_lost_members_is_refused(
    change: Callable[[Path], None], expected: str, tmp_path: Path
) -> None:
    file = pack_tar(tmp_path / "a.tar", {"1.jpg": CONTENT, "2.jpg": b"2"})
    change(file)
    begin = re.escape(f"{file}: cannot be read as a TAR archive without compression: ")
    assert re.fullmatch(begin + expected + r"; pack or download it again", reason(file, "1.jpg"))


@given(st.lists(st.tuples(st.integers(0, 12_000), st.integers(0, 255)), min_size=1, max_size=4))
def test_damage_anywhere_in_a_tar_is_a_reason_or_does_not_matter(damage: list[tuple[int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = pack_tar(Path(folder) / "a.tar", {"1.jpg": CONTENT, "a/2.jpg": b"2"})
        read_damaged(file, damage)
