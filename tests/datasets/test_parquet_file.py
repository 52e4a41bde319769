"""Rows of Parquet files: bytes, memory, threads, and what cannot be read."""

import random
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from hfc.datasets import parquet_file
from hfc.datasets.parquet_file import open_parquet, split_row
from hfc.datasets.reading import read_bytes
from hfc.errors import ConfigError, ImageError
from tests.support.parquet import IMAGE, images, write_images, write_table


def contents(count: int, size: int = 3000) -> list[bytes]:
    return [random.Random(i).randbytes(size + i) for i in range(count)]


@pytest.mark.parametrize("rows_a_group", [1, 7, 1000])
@pytest.mark.parametrize("order", ["ascending", "descending", "random"])
def test_threads_read_rows_in_any_order(
    order: str, rows_a_group: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With pieces of ten rows, of which few stay in memory."""
    monkeypatch.setattr(parquet_file, "PIECE", 30_000)
    monkeypatch.setattr(parquet_file, "KEPT", 100_000)
    expected = contents(120)
    write_images(tmp_path / "a.parquet", expected, ["Tee"] * 120, rows_a_group=rows_a_group)
    rows = list(range(120))
    if order == "random":
        random.Random(0).shuffle(rows)
    elif order == "descending":
        rows.reverse()
    with ThreadPoolExecutor(8) as pool:
        read = pool.map(lambda row: read_bytes(tmp_path, f"a.parquet/{row}"), rows)
        assert list(read) == [expected[row] for row in rows]


def test_neighbours_share_what_is_read_in_flat_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row group of 30 MB: each of its bytes is read once, and few are in memory."""
    monkeypatch.setattr(parquet_file, "PIECE", 1 << 20)
    monkeypatch.setattr(parquet_file, "KEPT", 4 << 20)
    expected = contents(300, 100_000)
    # As a writer with pages of some rows has it: a page comes into memory whole.
    write_table(tmp_path / "a.parquet", {"image": images(expected)}, write_batch_size=8)
    pieces: list[int] = []
    put = parquet_file._Pieces.put
    monkeypatch.setattr(
        parquet_file._Pieces, "put", lambda self, key, piece: (pieces.append(len(piece)), put(self, key, piece))[1]
    )
    before = pa.total_allocated_bytes()
    peak = 0
    for row in range(300):
        assert read_bytes(tmp_path, f"a.parquet/{row}") == expected[row]
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert sum(pieces) == 300
    assert max(pieces) <= 11
    assert peak < 10 << 20


def test_a_path_names_a_row(tmp_path: Path) -> None:
    write_images(tmp_path / "a.PARQUET", [b"0", b"1"], ["Tee"] * 2)
    (tmp_path / "b.parquet").mkdir()
    (tmp_path / "b.parquet" / "1").write_bytes(b"a file")
    assert split_row(tmp_path / "a.PARQUET" / "1") == (tmp_path / "a.PARQUET", 1)
    for name in ("a.PARQUET", "a.PARQUET/x", "a.PARQUET/-1", "b.parquet/1", "c.parquet/1"):
        assert split_row(tmp_path / name) is None
    assert read_bytes(tmp_path, "a.PARQUET/1") == b"1"
    assert read_bytes(tmp_path / "a.PARQUET", "1") == b"1"
    assert read_bytes(tmp_path, "b.parquet/1") == b"a file"
    with pytest.raises(NotADirectoryError):
        read_bytes(tmp_path, "a.PARQUET/x")
    with pytest.raises(ImageError, match=r"^a\.PARQUET has no row 2; it has 2, counted from 0$"):
        read_bytes(tmp_path, "a.PARQUET/2")


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    for content in (b"first", b"the second"):
        write_images(tmp_path / "a.parquet", [content], ["Tee"])
        assert read_bytes(tmp_path, "a.parquet/0") == content


def test_images_that_are_files_beside_the_table_or_absent(tmp_path: Path) -> None:
    (tmp_path / "outside.jpg").write_bytes(b"outside")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "1.jpg").write_bytes(b"beside")
    outside = str(tmp_path / "outside.jpg")
    paths = ["1.jpg", "../outside.jpg", outside, "https://example.com/1.jpg", None, "none.jpg"]
    cells = pa.array([*({"bytes": None, "path": path} for path in paths), None], IMAGE)
    file = write_table(tmp_path / "in" / "a.parquet", {"image": cells})
    assert read_bytes(tmp_path, "in/a.parquet/0") == b"beside"
    for row, path in enumerate(paths[1:4], 1):
        message = f"its path leaves the folder of the Parquet file: {path!r}; write the image into the file"
        with pytest.raises(ImageError, match=f"^{re.escape(message)}$"):
            read_bytes(tmp_path, f"in/a.parquet/{row}")
    for row in (4, 6):
        with pytest.raises(ImageError, match=r"^no image: the cell is empty$"):
            read_bytes(tmp_path, f"in/a.parquet/{row}")
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path, "in/a.parquet/5")
    assert not open_parquet(file).keeps(0)
    assert [open_parquet(write_images(tmp_path / "b.parquet", [b"0"], ["Tee"])).keeps(row) for row in (0, 1)] == [
        True,
        False,
    ]
    write_table(tmp_path / "c.parquet", {"image": images([b"0"])}, write_statistics=False)
    assert not open_parquet(tmp_path / "c.parquet").keeps(0)  # it cannot be known


def test_too_large_an_image_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_file, "LARGEST", 10)
    write_images(tmp_path / "a.parquet", [b"0" * 10, b"0" * 11], ["Tee"] * 2)
    assert read_bytes(tmp_path, "a.parquet/0") == b"0" * 10
    with pytest.raises(ImageError, match=r"^11 bytes, more than 10 in a Parquet file$"):
        read_bytes(tmp_path, "a.parquet/1")


def test_damaged_files_say_so(tmp_path: Path) -> None:
    file = write_images(tmp_path / "a.parquet", contents(20), ["Tee"] * 20, rows_a_group=10)
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    message = f"{file}: cannot be read as a Parquet file: "
    with pytest.raises(ImageError, match=rf"^{re.escape(message)}.*; download or write it again$"):
        read_bytes(tmp_path, "a.parquet/0")
    file.write_bytes(b"")
    with pytest.raises(ImageError, match=re.escape(message)):
        read_bytes(tmp_path, "a.parquet/0")
    write_table(file, {"image": images(contents(20))}, row_group_size=10, write_page_checksum=True, compression="none")
    content = bytearray(file.read_bytes())
    place = content.index(contents(20)[15])
    content[place : place + 10] = bytes(10)
    file.write_bytes(content)
    assert read_bytes(tmp_path, "a.parquet/3") == contents(20)[3]
    for _ in range(2):
        with pytest.raises(ImageError, match=r"^damaged Parquet file: .*CRC"):
            read_bytes(tmp_path, "a.parquet/15")
    assert read_bytes(tmp_path, "a.parquet/3") == contents(20)[3]


def test_an_encrypted_file_says_so(tmp_path: Path) -> None:
    """Its magic number is that of files whose footer is encrypted."""
    whole = write_images(tmp_path / "a.parquet", contents(2), ["Tee"] * 2).read_bytes()
    (tmp_path / "a.parquet").write_bytes(b"PARE" + whole[4:-4] + b"PARE")
    with pytest.raises(ImageError, match=r"a\.parquet: cannot be read as a Parquet file: .*ncrypt.*; write it without"):
        read_bytes(tmp_path, "a.parquet/0")


def test_without_pyarrow_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path / "a.parquet", [b"0"], ["Tee"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    message = 'Parquet files are read by pyarrow, which cannot be imported: python -m pip install "hfc[parquet]"'
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        read_bytes(tmp_path, "a.parquet/0")
