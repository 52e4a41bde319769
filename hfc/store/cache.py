"""Read a cache file, and check it.

Dimensions: N regions, V views, D features.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from hfc.errors import IncompleteStoreError, StoreError
from hfc.progress import steps
from hfc.store.files import (
    CHUNK_ROWS,
    READ_ERRORS,
    Features,
    ahead,
    get_attribute,
    get_text,
    is_there,
    view,
)
from hfc.store.header import READABLE, KeyFields, Provenance, header_digest, read_header
from hfc.store.shards import read_shard, shard_files, shard_folder
from hfc.store.table import Table, read_table


class FeatureStore:
    """A feature cache, open for reading. A context manager.

    Attributes:
        schema: version of the file's layout, of `header.READABLE`.
        key: the feature key, a digest over `key_fields`: exactly what shapes the features of given pixels.
        config, provenance: what stage 1 stored.
        features_sha256: checksum of the feature bytes.
        shape, dtype: (N, V, D), float16 or float32.

    Raises, on opening:
        StoreError: no such file, not HDF5, truncated, of another schema, or damaged in its header.
        IncompleteStoreError: extraction did not finish.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not is_there(path):
            if shard_folder(path).is_dir():
                raise IncompleteStoreError(f"{path}: extraction did not finish; run the same hfc extract again")
            raise StoreError(f"{path}: no such feature cache; make one with hfc extract")
        try:
            self._file = view(path)
        except (OSError, RuntimeError) as error:
            raise StoreError(f"{path}: {_why_unreadable(error)}: {error}") from error
        try:
            self._check()
            self._process, self.identity = os.getpid(), self._stamp()
        except BaseException:
            self._file.close()
            raise

    def _check(self) -> None:
        try:
            schema = self._file.attrs.get("schema")
            if schema not in READABLE:
                known = " or ".join(map(str, READABLE))
                raise StoreError(f"{self.path}: expected a feature cache of schema {known}, found {schema or 'none'}")
            self.schema = int(schema)
            if not self._file.attrs.get("complete", False):
                raise IncompleteStoreError(f"{self.path}: extraction did not finish; run the same hfc extract again")
            header = read_header(self._file)
            features = self._file["features"]
            self.shape: tuple[int, int, int] = features.shape
            self.dtype: np.dtype[Any] = features.dtype
            stored = get_attribute(self._file, "header_sha256")
            self.key = header["feature_key"]
            self.key_fields: KeyFields = json.loads(header["key_fields"])
            self.config: dict[str, Any] = json.loads(header["config"])
            self.provenance: Provenance = json.loads(header["provenance"])
            self.features_sha256 = header["features_sha256"]
            self._table_sha256 = header["table_sha256"]
        except READ_ERRORS as error:
            raise StoreError(f"{self.path}: damaged feature cache: {error}") from error
        if header_digest(header, self.shape, self.dtype) != stored:
            raise StoreError(f"{self.path}: damaged feature cache: its header does not match its checksum")

    def __enter__(self) -> "FeatureStore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def dataset(self) -> h5py.Dataset:
        """The features in the file. Reading checks them against HDF5's own checksums alone."""
        return self._file["features"]

    def __reduce__(self) -> "tuple[Callable[..., FeatureStore], tuple[Path, tuple[object, ...]]]":
        return _reopened, (self.path, self.identity)

    def _stamp(self) -> tuple[object, ...]:
        """Return what tells the open file from any other, and from itself before a change."""
        status = os.fstat(self._file.id.get_vfd_handle())
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, self.features_sha256

    def refuse_change(self, *, by_path: bool = False) -> None:
        """Raise a StoreError if the file was written to since it was opened.

        Args:
            by_path: raise it also if another file has the path by now.
        """
        if os.getpid() != self._process:  # forked: the handle is the parent's, so this process opens its own
            other = _reopened(self.path, self.identity)
            self._file, self._process = other._file, other._process
        if self._stamp() != self.identity:
            raise _replaced(self.path)
        if by_path:
            _reopened(self.path, self.identity)._file.close()

    def table(self) -> Table:
        """Read the rows.

        Raises:
            StoreError: they do not match their checksum.
        """
        try:
            dataset = self.provenance.get("dataset", {})
            table = read_table(self._file, Path(dataset.get("root", "")), dataset.get("origin", ""), self.schema)
            checksum = table.digest()
        except READ_ERRORS as error:
            raise StoreError(f"{self.path}: damaged feature cache: its rows cannot be read: {error}") from error
        if checksum != self._table_sha256:
            raise StoreError(f"{self.path}: damaged feature cache: its rows do not match their checksum")
        return table

    def features(self, array: Features | None = None) -> Features:
        """Read (N, V, D) all features, once, into one array as they are stored; into a given one of their type.

        Raises:
            StoreError: they do not match their checksum, or are NaN or infinite.
        """
        array = np.empty(self.shape, dtype=self.dtype) if array is None else array
        for _, _, problem in self._scan(lambda start, stop: array[start:stop]):
            if problem:
                raise StoreError(problem)
        return array

    def verify(self) -> None:
        """Check rows and features against their checksums, a block at a time. Raises StoreError."""
        for problem in self.problems():
            raise StoreError(problem)

    def problems(self) -> Iterator[str]:
        """Yield everything that is damaged in it, a line each."""
        try:
            self.table()
        except StoreError as error:
            yield str(error)
        yield from (problem for _, _, problem in self._scan(self._empty) if problem)

    def blocks(self) -> Iterator[tuple[int, Features]]:
        """Yield first row and features of one block after the other, checked on the way.

        Raises:
            StoreError: a block is damaged; or, after the last one, all together do not match their checksum.
        """
        for start, block, problem in self._scan(self._empty):
            if problem:
                raise StoreError(problem)
            yield start, block

    def block(self, start: int) -> Features:
        """Read (n, V, D) features of one block.

        It has CHUNK_ROWS rows from `start`, a multiple of it; the last has fewer.

        Raises:
            StoreError: it does not match its own checksum, or the file was changed since it was opened; the checksum of
                the whole is for `verify`.
        """
        block = self._empty(start, min(start + CHUNK_ROWS, self.shape[0]))
        self.refuse_change()
        self._read(start, block)
        self.refuse_change()
        return block

    def _empty(self, start: int, stop: int) -> Features:
        block: Features = np.empty((stop - start, *self.shape[1:]), dtype=self.dtype)
        return block

    def _scan(self, place: Callable[[int, int], Features]) -> Iterator[tuple[int, Features, str]]:
        """Read every block into the place it is given.

        Yields its first row, its features and what is wrong ("" if nothing).

        An empty block at the end says that the blocks are readable but do not match the checksum of the whole.
        """

        def reads() -> Iterator[tuple[int, Features, str]]:
            for start in range(0, self.shape[0], CHUNK_ROWS):
                block = place(start, min(start + CHUNK_ROWS, self.shape[0]))
                try:
                    self._read(start, block)
                    yield start, block, self._non_finite(start, block)
                except StoreError as error:
                    yield start, block, str(error)

        state = hashlib.sha256()
        readable = True
        blocks = -(-self.shape[0] // CHUNK_ROWS)
        for start, block, problem in steps(ahead(reads()), "reading features", blocks):
            readable = readable and not problem
            state.update(block.data.cast("B"))
            yield start, block, problem
        if readable and state.hexdigest() != self.features_sha256:
            mismatch = f"{self.path}: damaged feature cache: its features do not match their checksum"
            yield self.shape[0], self._empty(0, 0), mismatch

    def _read(self, start: int, block: Features) -> None:
        stop = start + len(block)
        try:
            self._file["features"].read_direct(block, np.s_[start:stop])
        except READ_ERRORS as error:
            raise StoreError(f"{self.path}: damaged feature cache, rows {start} to {stop}: {error}") from error

    def _non_finite(self, start: int, block: Features) -> str:
        """Say what is wrong with a block of NaN or infinite numbers. It is "" where all are finite."""
        # A number is not finite where all exponent bits are set. This is twice as fast as isfinite.
        half = block.dtype == np.float16
        bits, exponent = (block.view(np.uint16), 0x7C00) if half else (block.view(np.uint32), 0x7F800000)
        if int((bits & (0x7FFF if half else 0x7FFFFFFF)).max()) < exponent:
            return ""
        row = start + int(np.argmin(np.isfinite(block).all(axis=(1, 2))))
        return (
            f"{self.path}: row {row} ({self._name(row)}) holds NaN or infinite features; "
            "extract again, with --precision fp32 or --store float32"
        )

    def _name(self, row: int) -> str:
        try:
            return str(get_text(self._file, "id")[row])
        except READ_ERRORS:
            return "its id is damaged"


def _reopened(path: Path, identity: tuple[object, ...]) -> FeatureStore:
    """Open the cache again. Raises a StoreError if it is not the file that it was."""
    store = FeatureStore(path)
    if store.identity != identity:
        store._file.close()
        raise _replaced(path)
    return store


def _replaced(path: Path) -> StoreError:
    return StoreError(f"{path}: was changed or replaced by another file while it was in use; run the command again")


def _why_unreadable(error: Exception) -> str:
    """Say in words what keeps HDF5 from opening a file."""
    if "unable to lock file" in str(error):  # only where HDF5_USE_FILE_LOCKING asks for it against `view`
        return "cannot be locked; set HDF5_USE_FILE_LOCKING=FALSE"
    return "not a readable HDF5 file, perhaps truncated"


def problems(path: Path) -> Iterator[str]:
    """Yield everything that is damaged, a line each. Of a cache that is not finished, its shards are looked at."""
    try:
        store = FeatureStore(path)
    except IncompleteStoreError as error:
        for file in steps(shard_files(path), "checking shards"):
            try:
                read_shard(file)
            except StoreError as damage:
                yield str(damage)
        yield str(error)
        return
    except StoreError as error:
        yield str(error)
        return
    with store:
        yield from store.problems()
