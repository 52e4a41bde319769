"""The feature cache: schema v1 in HDF5. The only importer of h5py.

A file under its final name is always whole: it is written under a temporary name, closed, read back and compared,
synced to disk, and renamed. Shards are files of the same kind with fewer rows.

Dimensions: N regions, V views, D features, C^h nodes on level h.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hfc.errors import IncompleteStoreError, StaleStoreError, StoreError
from hfc.provenance import digest, digest_chunks
from hfc.regions import Regions, strings

SCHEMA = 1
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
CHUNK_ROWS = 256  # 1 MiB of 2048 float16 numbers: large enough for the disk, small enough for a shuffled block
BLOCK_ROWS = 16 * CHUNK_ROWS
TEXT = h5py.string_dtype("utf-8")
FAILURE = np.dtype([("row", np.int64), ("reason", TEXT)])
COLUMNS = ("id", "path", "label", "split")

Features = NDArray[np.float16] | NDArray[np.float32]
Failures = list[tuple[int, str]]


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
        shape: (N, V, D).

    Raises, on opening:
        StoreError: no such file, not HDF5, truncated, or of another schema.
        IncompleteStoreError: extraction did not finish.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            shards = shard_folder(path)
            if shards.is_dir():
                raise IncompleteStoreError(f"{path}: extraction did not finish; run the same hfc extract again")
            raise StoreError(f"{path}: no such feature cache; make one with hfc extract")
        try:
            self._file = h5py.File(path, "r")
        except OSError as error:
            raise StoreError(f"{path}: not a readable HDF5 file, perhaps truncated: {error}") from error
        try:
            self._check()
        except BaseException:
            self._file.close()
            raise

    def _check(self) -> None:
        attributes = self._file.attrs
        schema = attributes.get("schema")
        if schema != SCHEMA:
            raise StoreError(f"{self.path}: expected a feature cache of schema {SCHEMA}, found {schema or 'none'}")
        if not attributes.get("complete", False):
            raise IncompleteStoreError(f"{self.path}: extraction did not finish; run the same hfc extract again")
        try:
            self.key = str(attributes["feature_key"])
            self.key_fields: dict[str, Any] = json.loads(attributes["key_fields"])
            self.config: dict[str, Any] = json.loads(attributes["config"])
            self.provenance: dict[str, Any] = json.loads(attributes["provenance"])
            self.features_sha256 = str(attributes["features_sha256"])
            self.shape: tuple[int, int, int] = self._file["features"].shape
        except (KeyError, ValueError, OSError) as error:
            raise StoreError(f"{self.path}: damaged feature cache: {error}") from error
        if digest(self.key_fields) != self.key:
            raise StoreError(f"{self.path}: damaged feature cache: its key does not match its key fields")

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
            columns = {name: strings(self._file[name].asstr()[:].tolist()) for name in COLUMNS}
            failures = [(int(row), reason.decode("utf-8")) for row, reason in self._file["failures"][:]]
            regions = Regions(
                root=Path(self.provenance.get("dataset", {}).get("root", "")),
                origin=self.provenance.get("dataset", {}).get("origin", ""),
                box=self._file["box"][:],
                **columns,
            )
            table = Table(regions, self._file["ok"][:], failures)
            stored = str(self._file.attrs["table_sha256"])
        except (KeyError, OSError, UnicodeDecodeError, ValueError) as error:
            raise StoreError(f"{self.path}: damaged feature cache: {error}") from error
        if table.digest() != stored:
            raise StoreError(f"{self.path}: damaged feature cache: its rows do not match their checksum")
        return table

    def features(self) -> Features:
        """(N, V, D) all features, read once into one array as they are stored.

        Raises:
            StoreError: they do not match their checksum, or are NaN or infinite.
        """
        array: Features = np.empty(self.shape, dtype=self._file["features"].dtype)
        self._read(lambda start, stop: array[start:stop])
        return array

    def verify(self) -> None:
        """Check rows and features against their checksums, a block at a time. Raises StoreError."""
        self.table()
        block = np.empty((BLOCK_ROWS, *self.shape[1:]), dtype=self._file["features"].dtype)
        self._read(lambda start, stop: block[: stop - start])

    def _read(self, place: Callable[[int, int], Features]) -> None:
        """Read every block into the place it is given, and check it on the way."""

        def blocks() -> Iterator[memoryview]:
            for start in range(0, self.shape[0], BLOCK_ROWS):
                stop = min(start + BLOCK_ROWS, self.shape[0])
                block = place(start, stop)
                try:
                    self._file["features"].read_direct(block, np.s_[start:stop])
                except OSError as error:
                    raise StoreError(f"{self.path}: damaged feature cache, rows {start} to {stop}: {error}") from error
                self._refuse_non_finite(start, block)
                yield block.data.cast("B")

        if digest_chunks(blocks()) != self.features_sha256:
            raise StoreError(f"{self.path}: damaged feature cache: its features do not match their checksum")

    def _refuse_non_finite(self, start: int, block: Features) -> None:
        if not (finite := np.isfinite(block)).all():
            row = start + int(np.argmin(finite.all(axis=(1, 2))))
            raise StoreError(
                f"{self.path}: row {row} ({self._file['id'].asstr()[row]}) holds NaN or infinite features; "
                "extract again, with --precision fp32 or --store float32"
            )


def refuse_other_key(path: Path, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Raise a StaleStoreError that names the first setting in which a cache on disk differs from the one asked for."""
    for name in ours:
        if theirs.get(name) != ours[name]:
            raise StaleStoreError(
                f"{path}: made with {name} = {_short(theirs.get(name))}, asked for {name} = {_short(ours[name])}; "
                "give another --out, or --overwrite to replace it"
            )
    if dict(theirs) != dict(ours):
        raise StaleStoreError(f"{path}: made by another version of hfc; give another --out, or --overwrite")


def _short(value: object) -> str:
    text = str(value)
    return text[:12] + "…" if len(text) == 64 else text


# Writing -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shard:
    """A finished range of rows."""

    start: int
    features: Features
    """(n, V, D)."""
    ok: NDArray[np.bool_]
    failures: Failures
    """Row, counted over the whole table, and reason."""


def shard_folder(path: Path) -> Path:
    """Where the shards of a cache wait until all are there."""
    return path.with_name(path.name + ".shards")


def write_shard(path: Path, shard: Shard, key_fields: Mapping[str, Any]) -> None:
    """Write one shard, atomically.

    Raises:
        StoreError: it cannot be written, or does not read back as it was.
    """
    with _atomically(path) as partial:
        with h5py.File(partial, "w") as file:
            _create_features(file, shard.features.shape, shard.features.dtype)[:] = shard.features
            file["ok"] = shard.ok
            _write_failures(file, shard.failures)
            sha = digest_chunks([np.ascontiguousarray(shard.features).data.cast("B")])
            file.attrs.update({"features_sha256": sha, "key_fields": json.dumps(key_fields), "start": shard.start})
        if digest_chunks([read_shard(partial, key_fields).features.data.cast("B")]) != sha:
            raise StoreError(f"{path}: the disk does not give back what was written; nothing was kept")


def read_shard(path: Path, key_fields: Mapping[str, Any]) -> Shard:
    """One shard, checked against its checksum.

    Raises:
        StaleStoreError: it was made under other settings.
        StoreError: it is damaged.
    """
    try:
        with h5py.File(path, "r") as file:
            refuse_other_key(path, json.loads(file.attrs["key_fields"]), key_fields)
            features = file["features"][:]
            failures = [(int(row), reason.decode("utf-8")) for row, reason in file["failures"][:]]
            shard = Shard(int(file.attrs["start"]), features, file["ok"][:], failures)
            sha = str(file.attrs["features_sha256"])
    except (OSError, KeyError, ValueError) as error:
        raise StoreError(f"{path}: damaged shard: {error}") from error
    if digest_chunks([shard.features.data.cast("B")]) != sha:
        raise StoreError(f"{path}: damaged shard: it does not match its checksum")
    return shard


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
    with _atomically(path) as partial:
        with h5py.File(partial, "w") as file:
            ok = np.zeros(len(regions), dtype=np.bool_)
            failures: Failures = []

            def stream() -> Iterator[memoryview]:
                start = 0
                for shard_path in shards:
                    shard = read_shard(shard_path, key_fields)
                    if "features" not in file:
                        shape = (len(regions), *shard.features.shape[1:])
                        _create_features(file, shape, shard.features.dtype)
                    stop = start + len(shard.ok)
                    if shard.start != start or stop > len(regions):
                        raise StoreError(f"{shard_path}: expected rows from {start}, found rows from {shard.start}")
                    file["features"][start:stop] = shard.features
                    ok[start:stop] = shard.ok
                    failures.extend(shard.failures)
                    start = stop
                    yield shard.features.data.cast("B")
                if start != len(regions):
                    raise StoreError(f"{path}: its shards hold {start} rows of {len(regions)}")

            sha = digest_chunks(stream())
            for name in COLUMNS:
                file.create_dataset(name, data=getattr(regions, name), dtype=TEXT)
            file["box"], file["ok"] = regions.box, ok
            _write_failures(file, failures)
            file.attrs.update(
                {
                    "schema": SCHEMA,
                    "feature_key": digest(dict(key_fields)),
                    "key_fields": json.dumps(key_fields),
                    "config": json.dumps(config),
                    "provenance": json.dumps(provenance),
                    "features_sha256": sha,
                    "table_sha256": Table(regions, ok, failures).digest(),
                    "complete": True,
                }
            )
        with FeatureStore(partial) as store:
            store.verify()


def relabel(path: Path, regions: Regions) -> None:
    """Give a cache the labels and splits of `regions`, atomically; its features stay as they are.

    Raises:
        StoreError: the cache is damaged or cannot be written.
    """
    with FeatureStore(path) as store:
        old = store.table()
    with _atomically(path) as partial:
        shutil.copyfile(path, partial)
        with h5py.File(partial, "r+") as file:
            for name in ("label", "split"):
                file[name][...] = getattr(regions, name)
            file.attrs["table_sha256"] = Table(regions, old.ok, old.failures).digest()
        with FeatureStore(partial) as store:
            store.verify()


def is_cache(path: Path) -> bool:
    """Whether a file is HDF5, perhaps truncated: something that --overwrite may replace."""
    with path.open("rb") as file:
        return file.read(len(HDF5_SIGNATURE)) == HDF5_SIGNATURE


def _create_features(file: h5py.File, shape: tuple[int, ...], dtype: np.dtype[Any]) -> h5py.Dataset:
    chunks = (min(CHUNK_ROWS, shape[0]), *shape[1:])
    return file.create_dataset("features", shape=shape, dtype=dtype, chunks=chunks, fletcher32=True)


def _write_failures(file: h5py.File, failures: Failures) -> None:
    file["failures"] = np.array(failures, dtype=FAILURE)


@contextlib.contextmanager
def _atomically(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, which takes its place when the block ends well and is removed when it does not.

    Raises:
        StoreError: the operating system refuses.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
            partial.replace(path)
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}") from error


# Predictions ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Predictions:
    """What a run predicted for its test rows."""

    id: NDArray[np.object_]
    """(N,) ids of the rows."""
    target: NDArray[np.int64]
    """(N,) true leaves."""
    levels: tuple[NDArray[np.float32], ...]
    """H arrays (N, C^h): probabilities of each level's own output, coarse to fine."""
    final: NDArray[np.float32]
    """(N, C): P_final over the leaves."""


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write a run's predictions, atomically. Raises StoreError if they cannot be written."""
    with _atomically(path) as partial, h5py.File(partial, "w") as file:
        file.attrs["schema"] = SCHEMA
        file.create_dataset("id", data=predictions.id, dtype=TEXT)
        file["target"] = predictions.target
        for h, probabilities in enumerate(predictions.levels):
            file.create_dataset(f"level/{h}", data=probabilities, fletcher32=True)
        file.create_dataset("final", data=predictions.final, fletcher32=True)


def read_predictions(path: Path) -> Predictions:
    """A run's predictions. Raises StoreError if they cannot be read."""
    try:
        with h5py.File(path, "r") as file:
            return Predictions(
                id=strings(file["id"].asstr()[:].tolist()),
                target=file["target"][:],
                levels=tuple(file[f"level/{h}"][:] for h in range(len(file["level"]))),
                final=file["final"][:],
            )
    except (OSError, KeyError) as error:
        raise StoreError(f"{path}: cannot read predictions: {error}") from error
