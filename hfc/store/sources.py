"""What a cache is made of: shards, and the cache that was there before.

Dimensions: n rows of a source, V views, D features, N rows of the cache that is made.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hfc.errors import StoreError
from hfc.store.cache import FeatureStore
from hfc.store.files import CHUNK_ROWS, READ_ERRORS, Features, is_cache, layout, view
from hfc.store.fingerprints import Digests, Fingerprints, identity_bytes
from hfc.store.header import KeyFields
from hfc.store.shards import open_shard, read_shard, refuse_other_key
from hfc.store.table import Table

ROW_DIGEST_BYTES = 16


@dataclass(frozen=True, eq=False)
class Source:
    """A file with features, whose rows were checked."""

    path: Path
    what: str
    """Its kind, in words."""
    shape: tuple[int, int, int]
    """(n, V, D)."""
    dtype: np.dtype[Any]
    layout: tuple[object, ...]
    """How they are cut and filtered in the file."""
    ok: NDArray[np.bool_]
    identity: Digests
    """(n, 48) of `identity_bytes`."""
    features_sha256: str
    store: FeatureStore | None = None
    """The cache, open; None: a shard, of which there may be more than files may be open."""

    def check(self) -> None:
        """Read everything. Raises a StoreError where the file is damaged or another by now."""
        self.refuse_change()
        if self.store:
            self.store.verify()
        else:
            read_shard(self.path)

    def refuse_change(self) -> None:
        """Raise a StoreError if a cache was changed or replaced by now. What a shard holds is checked later."""
        if self.store:
            self.store.refuse_change(by_path=True)

    @contextmanager
    def features(self) -> Iterator[h5py.Dataset]:
        """Give the features in the file, open."""
        if self.store:
            yield self.store.dataset
            return
        try:
            file = view(self.path)
        except READ_ERRORS as error:
            raise self.damaged(error) from error
        with file:
            yield file["features"]

    def read(self, features: h5py.Dataset, start: int, stop: int) -> Features:
        """Read some rows. Raises a StoreError if they do not match HDF5's own checksum."""
        try:
            block: Features = features[start:stop]
        except READ_ERRORS as error:
            raise self.damaged(error, f", rows {start} to {stop}") from error
        return block

    def read_chunk(self, features: h5py.Dataset, start: int) -> tuple[int, bytes]:
        """Read a chunk as it stands in the file, its checksum with it."""
        try:
            chunk: tuple[int, bytes] = features.id.read_direct_chunk((start, 0, 0))
        except READ_ERRORS as error:
            raise self.damaged(error, f", rows from {start}") from error
        return chunk

    def row_digests(self) -> Digests:
        """Read and check all features, and return a digest of each row, (n, 16)."""
        state, digests = hashlib.sha256(), np.empty((self.shape[0], ROW_DIGEST_BYTES), dtype=np.uint8)
        with self.features() as features:
            for start in range(0, self.shape[0], CHUNK_ROWS):
                block = self.read(features, start, start + CHUNK_ROWS)
                state.update(block.data.cast("B"))
                digests[start : start + len(block)] = row_digests(block)
        if state.hexdigest() != self.features_sha256:
            raise StoreError(f"{self.path}: damaged {self.what}: its features do not match their checksum")
        return digests

    def damaged(self, error: Exception, where: str = "") -> StoreError:
        """Make the error for what cannot be read."""
        return StoreError(f"{self.path}: damaged {self.what}{where}: {error}")


def row_digests(block: Features) -> Digests:
    """Compute a digest of each row of (n, V, D) features, (n, 16)."""
    size = ROW_DIGEST_BYTES
    digests = b"".join(hashlib.blake2b(row.data, digest_size=size).digest() for row in np.ascontiguousarray(block))
    return np.frombuffer(digests, dtype=np.uint8).reshape(len(block), size)


@contextmanager
def opened(paths: Sequence[Path], key_fields: KeyFields) -> Iterator[list[Source]]:
    """Look at sources, and check their rows.

    Raises:
        StaleStoreError: one was made under other settings.
        StoreError: one is damaged, or its features are of another kind than those of the first.
    """
    with ExitStack() as stack:
        sources = [
            _cache(stack.enter_context(FeatureStore(path)), key_fields) if is_cache(path) else _shard(path, key_fields)
            for path in paths
        ]
        for source in sources:
            kind, first = (*source.shape[1:], str(source.dtype)), (*sources[0].shape[1:], str(sources[0].dtype))
            if kind != first:
                raise StoreError(f"{source.path}: expected rows like those of {sources[0].path}, {first}, found {kind}")
        yield sources


def _cache(store: FeatureStore, key_fields: KeyFields) -> Source:
    refuse_other_key(store.path, store.key_fields, key_fields)
    table = store.table()
    identity = table_identity(table)
    kind = (store.path, "feature cache", store.shape, store.dtype, layout(store.dataset))
    return Source(*kind, table.ok, identity, store.features_sha256, store)


def _shard(path: Path, key_fields: KeyFields) -> Source:
    with open_shard(path, key_fields) as (shard, features_sha256):
        kind = (path, "shard", shard.features.shape, shard.features.dtype, layout(shard.features))
        return Source(*kind, shard.ok, identity_bytes(shard.sha256, shard.box), features_sha256)


def table_identity(table: Table) -> Digests:
    """Return (N, 48) `identity_bytes` of a table's rows."""
    fingerprints = table.fingerprints or Fingerprints.unknown(len(table.ok))
    return identity_bytes(fingerprints.sha256, table.regions.box)
