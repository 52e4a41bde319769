"""What tells whether a file is what it was: its size and time, or its bytes."""

import hashlib
import os
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hfc import store
from hfc.datasets import reading
from hfc.errors import HfcError, StoppedError
from hfc.extract import fingerprints
from hfc.extract.fingerprints import FRESH_NS, Look, Looks, compare, look_at, recorded_looks
from hfc.regions import Regions, strings
from tests.datasets.test_archives import pack

LONG_AGO = 1_600_000_000_123_456_789


def regions(root: Path, *paths: str) -> Regions:
    ids, blank = strings([f"r{i}" for i in range(len(paths))]), strings([""] * len(paths))
    boxes = np.full((len(paths), 4), np.nan, dtype=np.float32)
    return Regions(root, "test", ids, strings(list(paths)), boxes, blank, blank)


def write(path: Path, content: bytes, modified: int = LONG_AGO) -> None:
    path.write_bytes(content)
    os.utime(path, ns=(modified, modified))


def digests(looks: Looks) -> list[bytes]:
    return [row.tobytes() for row in looks.fingerprints.sha256]


def as_table(rows: Regions, looks: Looks) -> store.Table:
    unread = {row for row, _ in looks.failures}
    ok = np.array([row not in unread for row in range(len(rows))])
    return store.Table(rows, ok, looks.failures, looks.fingerprints)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Which files are read, and how often."""
    count: Counter[str] = Counter()
    lock = threading.Lock()

    def spy(root: Path, path: str, remote: object) -> bytes:
        with lock:
            count[path] += 1
        return reading.read_bytes(root, path)

    monkeypatch.setattr(fingerprints, "read_bytes", spy)
    return count


def test_every_file_is_read_once_however_many_rows_share_it(tmp_path: Path, reads: Counter[str]) -> None:
    for i in range(200):
        write(tmp_path / f"{i}", b"content %d" % i, LONG_AGO + i)
    names = [f"{i % 200}" for i in range(700)]
    looks = look_at(regions(tmp_path, *names), {}, threads=4)
    assert reads == {f"{i}": 1 for i in range(200)}
    assert digests(looks) == [hashlib.sha256(b"content " + name.encode()).digest() for name in names]
    assert looks.fingerprints.size.tolist() == [len(f"content {name}") for name in names]
    assert looks.fingerprints.modified.tolist() == [LONG_AGO + int(name) for name in names]
    assert looks.failures == []
    assert looks.read.all()


def test_threads_read_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meeting = threading.Barrier(2, timeout=20)
    monkeypatch.setattr(fingerprints, "SLICE", 1)

    def wait(root: Path, path: str, remote: object) -> bytes:
        meeting.wait()
        return path.encode()

    monkeypatch.setattr(fingerprints, "read_bytes", wait)
    assert digests(look_at(regions(tmp_path, "a", "b"), {}, threads=2))[1] == hashlib.sha256(b"b").digest()


def test_what_cannot_be_read_has_its_reason_and_no_fingerprint(tmp_path: Path) -> None:
    write(tmp_path / "a", b"a")
    (tmp_path / "folder").mkdir()
    pack(tmp_path / "photos.zip", {"../b": b"b"})
    looks = look_at(regions(tmp_path, "none", "a", "folder", "photos.zip/../b", "none"), {}, threads=1)
    assert looks.failures == [
        (0, "cannot read the file: No such file or directory"),
        (2, "not a file"),
        (3, "its name leaves the archive: '../b'"),
        (4, "cannot read the file: No such file or directory"),
    ]
    assert [any(row) for row in digests(looks)] == [False, True, False, False, False]
    assert looks.fingerprints.size.tolist() == [-1, 1, -1, -1, -1]
    assert looks.fingerprints.modified.tolist() == [-1, LONG_AGO, -1, -1, -1]


def test_a_file_of_the_same_size_and_time_is_not_read_again(tmp_path: Path, reads: Counter[str]) -> None:
    for name in ("same", "longer", "later"):
        write(tmp_path / name, name.encode())
    rows = regions(tmp_path, "same", "longer", "later", "none")
    known = recorded_looks(as_table(rows, look_at(rows, {}, threads=1)), tmp_path)
    reads.clear()
    write(tmp_path / "same", b"SAME")
    write(tmp_path / "longer", b"LONGER!")
    write(tmp_path / "later", b"LATER", LONG_AGO + 1)
    looks = look_at(rows, known, threads=1)
    assert reads == {"longer": 1, "later": 1, "none": 1}
    # Bytes that changed under the same size and time are not noticed: that is what reading all of them is for.
    contents = (b"same", b"LONGER!", b"LATER")
    assert digests(looks)[:3] == [hashlib.sha256(content).digest() for content in contents]
    assert looks.read.tolist() == [False, True, True, True]
    assert digests(look_at(rows, {}, threads=1))[0] == hashlib.sha256(b"SAME").digest()


def test_what_a_cache_knows_counts_for_the_same_folder_alone(tmp_path: Path) -> None:
    write(tmp_path / "a", b"a")
    rows = regions(tmp_path, "a")
    table = as_table(rows, look_at(rows, {}, threads=1))
    assert recorded_looks(table, tmp_path) == {"a": Look(hashlib.sha256(b"a").digest(), 1, LONG_AGO, was_read=False)}
    assert recorded_looks(table, tmp_path.parent) == {}
    assert recorded_looks(store.Table(rows, table.ok, []), tmp_path) == {}  # of schema 1


@pytest.mark.parametrize(("age", "known"), [(0, False), (FRESH_NS // 2, False), (3 * FRESH_NS, True)])
def test_the_time_of_a_file_just_written_is_not_trusted(age: int, known: bool, tmp_path: Path) -> None:
    modified = time.time_ns() - age
    write(tmp_path / "a", b"a", modified)
    looks = look_at(regions(tmp_path, "a"), {}, threads=1)
    assert looks.fingerprints.modified.tolist() == [modified if known else -1]
    assert digests(looks) == [hashlib.sha256(b"a").digest()]


def test_the_time_of_a_file_that_changes_while_it_is_read_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a", b"before")

    def change(root: Path, path: str, remote: object) -> bytes:
        content = reading.read_bytes(root, path)
        write(root / path, b"after it", LONG_AGO + 1)
        return content

    monkeypatch.setattr(fingerprints, "read_bytes", change)
    looks = look_at(regions(tmp_path, "a"), {}, threads=1)
    assert digests(looks) == [hashlib.sha256(b"before").digest()]
    assert looks.fingerprints.modified.tolist() == [-1]


class Web:
    """A server that counts what it is asked for."""

    def __init__(self, **contents: bytes) -> None:
        self.contents, self.asked = contents, Counter[str]()

    def look(self, url: str) -> tuple[bytes, int]:
        self.asked[f"GET {url}"] += 1
        return self.contents[url[-1]], self.stamp_of(url)

    def stamp(self, url: str) -> tuple[int, int]:
        self.asked[f"HEAD {url}"] += 1
        return len(self.contents[url[-1]]), self.stamp_of(url)

    def stamp_of(self, url: str) -> int:
        return -1 if url.endswith("x") else sum(self.contents[url[-1]])


def test_what_a_url_names_is_asked_for_once_and_then_for_its_version(tmp_path: Path) -> None:
    web = Web(a=b"a", b=b"b", x=b"x")
    rows = replace(regions(tmp_path, "http://h/a", "http://h/b", "http://h/x"), remote=web)
    looks = look_at(rows, {}, threads=1)
    assert digests(looks) == [hashlib.sha256(name.encode()).digest() for name in "abx"]
    assert web.asked == {f"GET http://h/{name}": 1 for name in "abx"}
    web.asked.clear()
    web.contents["b"] = b"B"
    again = look_at(rows, recorded_looks(as_table(rows, looks), tmp_path), threads=1)
    assert digests(again) == [hashlib.sha256(content).digest() for content in (b"a", b"B", b"x")]
    asked = ("HEAD http://h/a", "HEAD http://h/b", "GET http://h/b", "GET http://h/x")
    assert web.asked == dict.fromkeys(asked, 1)


def test_asked_to_stop_it_reads_no_further(tmp_path: Path, reads: Counter[str]) -> None:
    names = [f"{i}" for i in range(300)]
    with pytest.raises(StoppedError, match="interrupted while looking at images; nothing was changed"):
        look_at(regions(tmp_path, *names), {}, threads=1, stop=lambda: True)
    assert not reads


def test_running_out_of_memory_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_out(root: Path, path: str, remote: object) -> bytes:
        raise MemoryError

    monkeypatch.setattr(fingerprints, "read_bytes", run_out)
    with pytest.raises(HfcError, match="a: out of memory while reading it; give fewer --workers"):
        look_at(regions(tmp_path, "a"), {}, threads=1)


def test_rows_whose_files_changed_are_listed(tmp_path: Path) -> None:
    for name in ("same", "changed", "missing"):
        write(tmp_path / name, name.encode())
    rows = regions(tmp_path, "same", "changed", "missing", "new", "never")
    table = as_table(rows, look_at(rows, {}, threads=1))
    assert compare(table, tmp_path, 1) == []
    write(tmp_path / "changed", b"CHANGED")  # of the same size and time
    (tmp_path / "missing").unlink()
    write(tmp_path / "new", b"new")
    assert compare(table, tmp_path, 1) == [
        ("r1", "has other bytes"),
        ("r2", "cannot read the file: No such file or directory"),
        ("r3", "can be read now"),
    ]
