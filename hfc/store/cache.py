"""The cache file itself: reading, checking, assembling, and the two changes it allows.

Dimensions: N regions, V views, D features.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hfc.errors import IncompleteStoreError, StoreError
from hfc.progress import steps
from hfc.provenance import digest, digest_chunks
from hfc.regions import Regions
from hfc.store.files import (
    READ_ERRORS,
    Failures,
    Features,
    ahead,
    atomically,
    create,
    edit,
    get_attribute,
    get_failures,
    get_text,
    is_there,
    put_array,
    put_attribute,
    put_failures,
    put_text,
    sync,
    view,
)
from hfc.store.shards import NOT_GIVEN_BACK, Shard, load_shard, read_shard, shard_files, shard_folder

SCHEMA = 1
CHUNK_ROWS = 256  # 1 MiB of 2048 float16 numbers: large enough for the disk, small enough for a shuffled block
COLUMNS = ("id", "path", "label", "split")
HEADER = ("feature_key", "key_fields", "config", "provenance", "features_sha256", "table_sha256")
DTYPES = ("<f2", "<f4")


@dataclass(frozen=True)
class Table:
    """What a cache knows of its rows beside their features."""

    regions: Regions
    ok: NDArray[np.bool_]
    """(N,) whether the region has features; False rows hold zeros."""
    failures: Failures
    """Row and reason, where not ok."""

    def digest(self) -> str:
        """SHA-256 over every row."""
        columns = [getattr(self.regions, name).tolist() for name in COLUMNS]
        box = np.ascontiguousarray(self.regions.box, dtype="<f4").tobytes().hex()
        return digest([columns, box, self.ok.tolist(), [[row, reason] for row, reason in self.failures]])


class FeatureStore:
    """A feature cache, open for reading. A context manager.

    Attributes:
        key: the feature key, a digest over `key_fields`: exactly what shapes the features.
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
            raise StoreError(f"{path}: not a readable HDF5 file, perhaps truncated: {error}") from error
        try:
            self._check()
        except BaseException:
            self._file.close()
            raise

    def _check(self) -> None:
        try:
            schema = self._file.attrs.get("schema")
            if schema != SCHEMA:
                raise StoreError(f"{self.path}: expected a feature cache of schema {SCHEMA}, found {schema or 'none'}")
            if not self._file.attrs.get("complete", False):
                raise IncompleteStoreError(f"{self.path}: extraction did not finish; run the same hfc extract again")
            header = {name: get_attribute(self._file, name) for name in HEADER}
            features = self._file["features"]
            self.shape: tuple[int, int, int] = features.shape
            self.dtype: np.dtype[Any] = features.dtype
            stored = get_attribute(self._file, "header_sha256")
            self.key = header["feature_key"]
            self.key_fields: dict[str, Any] = json.loads(header["key_fields"])
            self.config: dict[str, Any] = json.loads(header["config"])
            self.provenance: dict[str, Any] = json.loads(header["provenance"])
            self.features_sha256 = header["features_sha256"]
            self._table_sha256 = header["table_sha256"]
        except READ_ERRORS as error:
            raise StoreError(f"{self.path}: damaged feature cache: {error}") from error
        if _header_digest(header, self.shape, self.dtype) != stored:
            raise StoreError(f"{self.path}: damaged feature cache: its header does not match its checksum")

    def __enter__(self) -> "FeatureStore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def table(self) -> Table:
        """The rows.

        Raises:
            StoreError: they do not match their checksum.
        """
        try:
            regions = Regions(
                root=Path(self.provenance.get("dataset", {}).get("root", "")),
                origin=self.provenance.get("dataset", {}).get("origin", ""),
                box=self._file["box"][:],
                **{name: get_text(self._file, name) for name in COLUMNS},
            )
            table = Table(regions, self._file["ok"][:], get_failures(self._file))
            found = table.digest()
        except READ_ERRORS as error:
            raise StoreError(f"{self.path}: damaged feature cache: its rows cannot be read: {error}") from error
        if found != self._table_sha256:
            raise StoreError(f"{self.path}: damaged feature cache: its rows do not match their checksum")
        return table

    def features(self) -> Features:
        """(N, V, D) all features, read once into one array as they are stored.

        Raises:
            StoreError: they do not match their checksum, or are NaN or infinite.
        """
        array: Features = np.empty(self.shape, dtype=self.dtype)
        for _, _, problem in self._scan(lambda start, stop: array[start:stop]):
            if problem:
                raise StoreError(problem)
        return array

    def verify(self) -> None:
        """Check rows and features against their checksums, a block at a time. Raises StoreError."""
        for problem in self.problems():
            raise StoreError(problem)

    def problems(self) -> Iterator[str]:
        """Everything that is damaged in it, a line each."""
        try:
            self.table()
        except StoreError as error:
            yield str(error)
        yield from (problem for _, _, problem in self._scan(self._empty) if problem)

    def blocks(self) -> Iterator[tuple[int, Features]]:
        """First row and features of one block of rows after the other, checked on the way.

        Raises:
            StoreError: a block is damaged; or, after the last one, all together do not match their checksum.
        """
        for start, block, problem in self._scan(self._empty):
            if problem:
                raise StoreError(problem)
            yield start, block

    def block(self, start: int) -> Features:
        """(n, V, D) the features of one block of CHUNK_ROWS rows from `start`, a multiple of it; the last is shorter.

        Raises:
            StoreError: it does not match its own checksum; that of the whole is for `verify`.
        """
        block = self._empty(start, min(start + CHUNK_ROWS, self.shape[0]))
        self._read(start, block)
        return block

    def _empty(self, start: int, stop: int) -> Features:
        block: Features = np.empty((stop - start, *self.shape[1:]), dtype=self.dtype)
        return block

    def _scan(self, place: Callable[[int, int], Features]) -> Iterator[tuple[int, Features, str]]:
        """First row, features and what is wrong ("" if nothing) of every block, read into the place it is given.

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
        """What is wrong with a block that holds NaN or infinite numbers; "" where all are finite."""
        # By their bits, twice as fast as isfinite: all exponent bits set.
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


def problems(path: Path) -> Iterator[str]:
    """Everything that is damaged in a cache, or in the shards of one that is not finished, a line each."""
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


def assemble(
    path: Path,
    shards: Sequence[Path],
    regions: Regions,
    *,
    key_fields: Mapping[str, Any],
    config: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> None:
    """Stream finished shards into one cache, atomically.

    Args:
        path: the cache.
        shards: the shards' files, which together cover every row in order.
        regions: the table of rows.
        key_fields: what shapes the features; its digest is the feature key.
        config, provenance: stored as JSON.

    Raises:
        StoreError: a shard is damaged or the cache cannot be written.
    """
    with atomically(path) as partial, ThreadPoolExecutor(1, "sync") as syncs:
        syncing: list[Future[None]] = []

        def sync_soon() -> None:
            if all(future.done() for future in syncing):
                syncing.append(syncs.submit(sync, partial))

        with create(partial) as file:
            parts = _copy(shards, file, regions, key_fields, sync_soon)
            ok = np.concatenate([part.ok for part in parts])
            if len(ok) != len(regions):
                raise StoreError(f"{path}: its shards hold {len(ok)} rows of {len(regions)}")
            table = Table(regions, ok, [failure for part in parts for failure in part.failures])
            for name in COLUMNS:
                put_text(file, name, getattr(regions, name))
            put_array(file, "box", regions.box)
            put_array(file, "ok", ok)
            put_failures(file, table.failures)
        sync_soon()
        features_sha256 = _check_copy(path, partial, parts)
        for future in syncing:  # each, as the system tells of a failed write once
            future.result()
        with edit(partial) as file:
            header = {
                "feature_key": digest(dict(key_fields)),
                "key_fields": json.dumps(key_fields),
                "config": json.dumps(config),
                "provenance": json.dumps(provenance),
                "features_sha256": features_sha256,
                "table_sha256": table.digest(),
            }
            _put_header(file, header)
            file.attrs.update({"schema": SCHEMA, "complete": True})
        with FeatureStore(partial) as store:
            store.table()


@dataclass(frozen=True)
class _Part:
    """A shard without its features, and the checksum that it has together with them."""

    path: Path
    start: int
    ok: NDArray[np.bool_]
    failures: Failures
    checksum: str

    @property
    def stop(self) -> int:
        return self.start + len(self.ok)


def _copy(
    shards: Sequence[Path],
    file: h5py.File,
    regions: Regions,
    key_fields: Mapping[str, Any],
    written: Callable[[], None],
) -> list[_Part]:
    """Write the features of all shards one after the other; whether they are what they were is for `_check_copy`."""
    parts: list[_Part] = []
    for path in steps(shards, "assembling the cache"):
        shard, checksum = load_shard(path, key_fields)
        part = _Part(path, shard.start, shard.ok, shard.failures, checksum)
        start = parts[-1].stop if parts else 0
        if part.start != start or part.stop > len(regions):
            raise StoreError(f"{path}: expected rows from {start}, found rows from {shard.start}")
        if not parts:
            _create_features(file, (len(regions), *shard.features.shape[1:]), shard.features.dtype)
        file["features"][part.start : part.stop] = shard.features
        parts.append(part)
        written()
    return parts


def _check_copy(path: Path, partial: Path, parts: Sequence[_Part]) -> str:
    """SHA-256 of all features, read back; those of each shard must give the checksum of their shard."""

    def blocks() -> Iterator[tuple[_Part, Features]]:
        try:
            with view(partial) as file:
                for part in parts:
                    yield part, file["features"][part.start : part.stop]
        except READ_ERRORS as error:
            raise StoreError(f"{path}: {NOT_GIVEN_BACK}") from error

    whole = hashlib.sha256()
    with ThreadPoolExecutor(1, "hash") as hashes:
        for part, block in steps(ahead(blocks()), "checking the cache", len(parts)):
            hashing = hashes.submit(whole.update, block.data.cast("B"))
            shard = Shard(part.start, block, part.ok, part.failures)
            if shard.digest() != part.checksum:
                read_shard(part.path)  # says so where the shard is what is damaged
                raise StoreError(f"{path}: {NOT_GIVEN_BACK}")
            hashing.result()
    return whole.hexdigest()


def relabel(path: Path, regions: Regions) -> None:
    """Give a cache the labels and splits of `regions`, atomically; its features stay as they are.

    Raises:
        StoreError: the cache is damaged or cannot be written.
    """
    with FeatureStore(path) as store:
        old = store.table()
    with atomically(path) as partial:
        shutil.copyfile(path, partial)
        with edit(partial) as file:
            for name in ("label", "split"):
                del file[name]
                put_text(file, name, getattr(regions, name))
            _change_header(file, table_sha256=Table(regions, old.ok, old.failures).digest())
        with FeatureStore(partial) as store:
            store.verify()


def merge(path: Path, rows: NDArray[np.int64], other: Path, provenance: Mapping[str, Any]) -> None:
    """Put another cache's rows in the place of some rows of this one, atomically.

    Args:
        path: the cache that changes.
        rows: (n,) ascending; row i of the other cache becomes row `rows[i]`.
        other: a cache of n rows made under the same settings.
        provenance: what the changed cache says of where it came from.

    Raises:
        StoreError: a cache is damaged, does not fit the other, or cannot be written.
    """
    with FeatureStore(path) as store, FeatureStore(other) as new:
        old, change = store.table(), new.table()
        if (new.shape, new.dtype) != ((len(rows), *store.shape[1:]), store.dtype):
            raise StoreError(f"{other}: expected {len(rows)} rows like those of {path}, found {new.shape} {new.dtype}")
        with atomically(path) as partial:
            shutil.copyfile(path, partial)
            with edit(partial) as file:
                for start, block in new.blocks():
                    file["features"][rows[start : start + len(block)]] = block
                ok = old.ok.copy()
                ok[rows] = change.ok
                replaced = set(rows.tolist())
                kept = [(row, reason) for row, reason in old.failures if row not in replaced]
                failures = sorted(kept + [(int(rows[row]), reason) for row, reason in change.failures])
                del file["ok"], file["failures"]
                put_array(file, "ok", ok)
                put_failures(file, failures)
                features = file["features"]
                starts = range(0, len(features), CHUNK_ROWS)
                sha = digest_chunks(features[start : start + CHUNK_ROWS].data.cast("B") for start in starts)
                table = Table(old.regions, ok, failures).digest()
                _change_header(file, features_sha256=sha, table_sha256=table, provenance=json.dumps(provenance))
            with FeatureStore(partial) as result:
                result.verify()


def _create_features(file: h5py.File, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    chunks = (min(CHUNK_ROWS, shape[0]), *shape[1:])
    file.create_dataset("features", shape=shape, dtype=dtype.newbyteorder("<"), chunks=chunks, fletcher32=True)


def _put_header(file: h5py.File, header: Mapping[str, str]) -> None:
    for name, text in header.items():
        put_attribute(file, name, text)
    features = file["features"]
    put_attribute(file, "header_sha256", _header_digest(header, features.shape, features.dtype))


def _change_header(file: h5py.File, **changes: str) -> None:
    _put_header(file, {name: get_attribute(file, name) for name in HEADER} | changes)


def _header_digest(header: Mapping[str, str], shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    """SHA-256 over the header, and over shape and byte order, without which the same bytes are other numbers."""
    return digest([dict(header), list(shape), dtype.str if dtype.str in DTYPES else "another type"])
