"""HDF5 files that are whole or not there, and the text in them."""

import contextlib
import io
import mmap
import os
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from hfc.errors import StoreError, is_utf8, printable
from hfc.provenance import followed, make_folder
from hfc.regions import Strings, strings
from hfc.store.locks import sync, sync_folder

# HDF5 1.10's format puts a checksum on all metadata: a flipped byte in a header is an error, not another number.
LIBVER = ("v110", "v110")
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
HEAD_BYTES = 512
LEFTOVER = re.compile(r"(.+)\.\d+\.part", re.DOTALL)
CHUNK_BYTES = 2**20
CHUNK_ROWS = 256  # of features: 1 MiB of 2048 float16 numbers, large enough for the disk, small enough to shuffle
SYNC_PAUSE_S = 0.01
TEXT_ROWS = 4096  # a block of text rows: one overlong name widens its own block in memory, not a column
# What h5py raises on damaged files.
READ_ERRORS = (AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError)

Features = NDArray[np.float16] | NDArray[np.float32]
Failures = list[tuple[int, str]]
Item = TypeVar("Item")


def encode_text(name: str, texts: Sequence[str] | Strings) -> list[bytes]:
    """Encode strings as `put_text` stores them under a name. Raises a StoreError if one of them cannot be stored."""
    if other := next((text for text in texts if not is_utf8(text)), None):
        raise StoreError(f"/{name}: {printable(other)} is not UTF-8 text")
    encoded = [text.encode("utf-8") for text in texts]
    if any(text.endswith(b"\0") for text in encoded):
        raise StoreError(f"/{name}: a text that ends in a NUL character cannot be stored")
    return encoded


def put_text(file: h5py.File, name: str, texts: Sequence[str] | Strings) -> None:
    """Write strings as fixed-length UTF-8 with checksums, which variable-length ones lack in HDF5."""
    encoded = encode_text(name, texts)
    width = max(map(len, encoded), default=0) or 1
    dataset = file.create_dataset(
        name,
        shape=(len(encoded),),
        dtype=h5py.string_dtype("utf-8", width),
        chunks=(min(TEXT_ROWS, max(len(encoded), 1)),),
        compression="gzip",
        compression_opts=1,
        fletcher32=True,
    )
    for start in range(0, len(encoded), TEXT_ROWS):
        block = np.array(encoded[start : start + TEXT_ROWS], dtype=dataset.dtype)
        dataset[start : start + len(block)] = block


def get_text(file: h5py.File, name: str) -> Strings:
    """Read the strings of `put_text`."""
    dataset = file[name]
    blocks = (dataset[start : start + TEXT_ROWS].tolist() for start in range(0, len(dataset), TEXT_ROWS))
    return strings([text.decode("utf-8") for block in blocks for text in block])


def put_array(file: h5py.File, name: str, array: NDArray[Any]) -> None:
    """Write an array of at least one row with checksums. Its chunks are about a mebibyte."""
    rows = max(CHUNK_BYTES // max(array[:1].nbytes, 1), 1)
    chunks = (min(rows, len(array)), *array.shape[1:])
    file.create_dataset(name, data=array, chunks=chunks, fletcher32=True)


def create_features(file: h5py.File, shape: tuple[int, ...], dtype: np.dtype[Any]) -> h5py.Dataset:
    """Create an empty data set of features, with checksums, in chunks of `CHUNK_ROWS` rows."""
    chunks = (min(CHUNK_ROWS, shape[0]), *shape[1:])
    return file.create_dataset("features", shape, dtype.newbyteorder("<"), chunks=chunks, fletcher32=True)


def layout(features: h5py.Dataset) -> tuple[object, ...]:
    """Say how features lie in a file. Where it is the same in two, their chunks may be copied as they are."""
    filters = (features.fletcher32, features.compression, features.shuffle, features.scaleoffset)
    return (features.chunks, features.dtype.str, filters)


def put_failures(file: h5py.File, failures: Failures) -> None:
    """Write row and reason of every failure."""
    encoded = [reason.encode("utf-8", "replace").rstrip(b"\0") for _, reason in failures]
    width = max(map(len, encoded), default=0) or 1
    dtype = np.dtype([("row", "<i8"), ("reason", h5py.string_dtype("utf-8", width))])
    rows = [(row, reason) for (row, _), reason in zip(failures, encoded, strict=True)]
    array = np.array(rows, dtype=dtype)
    file.create_dataset("failures", data=array, chunks=(max(len(rows), 1),), maxshape=(None,), fletcher32=True)


def get_failures(file: h5py.File) -> Failures:
    """Read the failures of `put_failures`."""
    return [(int(row), reason.decode("utf-8")) for row, reason in file["failures"][:].tolist()]


def put_attribute(file: h5py.File, name: str, text: str) -> None:
    """Write a string attribute inside the object header, which carries a checksum."""
    encoded = text.encode("utf-8")
    file.attrs.create(name, encoded, dtype=h5py.string_dtype("utf-8", max(len(encoded), 1)))


def get_attribute(file: h5py.File, name: str) -> str:
    """Read the string of `put_attribute`."""
    value = file.attrs[name]
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


class _Patient(io.FileIO):
    """A file that remembers its first failed write instead of raising it. HDF5 can crash when it hears of one."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of it, or remember why not."""
        content = memoryview(data).cast("B")
        done = 0
        try:
            while self.error is None and done < len(content):
                done += super().write(content[done:])
        except OSError as error:
            self.error = error
        return len(content)

    def truncate(self, size: int | None = None) -> int:
        """Set the size, or remember why not."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0

    def readinto(self, buffer: Any) -> int:
        """Read; what was never written because a write failed is zeros."""
        content = memoryview(buffer).cast("B")
        done = super().readinto(content) or 0
        content[done:] = bytes(len(content) - done)
        return len(content)


def create(path: Path) -> contextlib.AbstractContextManager[h5py.File]:
    """Create an HDF5 file of the store's format. Raises OSError, at the end, if anything could not be written."""
    return _patiently(path, "w")


def edit(path: Path) -> contextlib.AbstractContextManager[h5py.File]:
    """Open an HDF5 file of the store's format for changes. Raises as `create` does."""
    return _patiently(path, "r+")


@contextlib.contextmanager
def _patiently(path: Path, mode: str) -> Iterator[h5py.File]:
    # HDF5 reads what it writes, so a new file is open for both.
    with _Patient(path, "w+" if mode == "w" else mode) as raw:
        with h5py.File(raw, mode, libver=LIBVER) as file:
            yield file
        if raw.error:
            raise raw.error


def view(path: Path) -> h5py.File:
    """Open an HDF5 file for reading.

    Without HDF5's lock: a file under its final name is never written to, and some file systems have none.
    """
    return h5py.File(path, "r", locking=False)


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """Make every item in a thread while the one before it is in use. Reading goes on beside hashing and writing."""
    end = object()
    iterator = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as pool:
        future: Future[Any] = pool.submit(next, iterator, end)
        while (item := future.result()) is not end:
            future = pool.submit(next, iterator, end)
            yield item


def in_memory(path: Path) -> Path:
    """Read a file into the system's memory, and return its path. HDF5 would let nobody else work meanwhile."""
    buffer = bytearray(CHUNK_BYTES)
    with contextlib.suppress(OSError), path.open("rb", buffering=0) as file:  # the next to open it gets the error
        while file.readinto(buffer):
            pass
    return path


def is_there(path: Path) -> bool:
    """Return whether a file is there.

    Raises:
        StoreError: nobody can tell, as its folder may not be entered.
    """
    try:
        return path.is_file()
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror or error}") from error


def is_cache(path: Path, *, begun: bool = False) -> bool:
    """Return whether a file is a feature cache, perhaps a truncated one. `begun`: an empty file counts too."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        beginning = file.read(HEAD_BYTES)
    if begun and not beginning:
        return True
    if not beginning.startswith(HDF5_SIGNATURE):
        return False
    try:
        with view(path) as opened:
            return {"schema", "feature_key"} <= set(opened.attrs)
    except READ_ERRORS:  # the names of a cache are there even where its end is cut off
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return all(content.find(name) >= 0 for name in (b"features", b"failures"))


def refuse_other_file(path: Path) -> None:
    """Raise a StoreError where the file to replace is no feature cache."""
    if path.is_file() and not is_cache(path):
        raise StoreError(f"{path}: is no feature cache, so --overwrite leaves it alone; give another --out")


@contextlib.contextmanager
def syncing(path: Path) -> Iterator[None]:
    """Let the disk write a file while the block fills it. `sync` waits the less for it then.

    Raises:
        OSError: a write failed. The system tells of one once, so that a `sync` after this would not hear of it.
    """
    ended = threading.Event()

    def keep_on() -> None:
        while not ended.wait(SYNC_PAUSE_S):
            sync(path)

    path.touch()
    with ThreadPoolExecutor(1, thread_name_prefix="sync") as pool:
        future = pool.submit(keep_on)
        try:
            yield
        finally:
            ended.set()
        future.result()


@contextlib.contextmanager
def atomically(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`; the file there takes its place.

    It does so when the block ends well, and is removed when it does not.

    Raises:
        StoreError: the operating system refuses.
    """
    target = followed(path)
    partial = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        try:
            make_folder(target.parent)
            yield partial
            sync(partial)
            partial.replace(target)
            sync_folder(target.parent)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}") from error


def remove_leftovers(*paths: Path) -> None:
    """Remove the temporary files of some outputs that killed processes left. Only for who holds the lock."""
    for folder in {path.parent for path in paths}:
        names = {path.name for path in paths if path.parent == folder}
        with contextlib.suppress(OSError):  # a folder that is not there yet, or may be written to and not listed
            for partial in list(folder.iterdir()):
                if (match := LEFTOVER.fullmatch(partial.name)) and match[1] in names:
                    partial.unlink(missing_ok=True)
