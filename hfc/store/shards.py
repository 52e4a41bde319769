"""Shards: finished ranges of rows, an immutable file each. Dimensions: n rows of a shard, V views, D features."""

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hfc.errors import StaleStoreError, StoreError
from hfc.provenance import digest, digest_chunks
from hfc.store.files import (
    READ_ERRORS,
    Failures,
    Features,
    atomically,
    create,
    create_features,
    get_attribute,
    get_failures,
    put_array,
    put_attribute,
    put_failures,
    remove_leftovers,
    view,
)
from hfc.store.header import KeyFields

SHARD_NAME = re.compile(r"\d{9,}-\d{9,}\.h5")
NOT_GIVEN_BACK = "the disk does not give back what was written; nothing was kept"


@dataclass(frozen=True)
class Shard:
    """A finished range of rows."""

    start: int
    features: Features
    """(n, V, D)."""
    ok: NDArray[np.bool_]
    failures: Failures
    """Row, counted over the whole table, and reason."""

    @property
    def stop(self) -> int:
        """The row after its last."""
        return self.start + len(self.ok)

    def digest(self) -> str:
        """Compute the SHA-256 over everything in it."""
        features = digest_chunks([np.ascontiguousarray(self.features).data.cast("B")])
        shape = [str(self.features.dtype), *self.features.shape]
        return digest([self.start, shape, features, self.ok.tolist(), [list(f) for f in self.failures]])


def shard_folder(path: Path) -> Path:
    """Return where the shards of a cache wait until all are there."""
    return path.with_name(path.name + ".shards")


def shard_files(path: Path) -> list[Path]:
    """Return the shards of a cache that is not finished, in order."""
    return sorted(file for file in shard_folder(path).glob("*-*.h5") if SHARD_NAME.fullmatch(file.name))


def remove_shards(path: Path) -> None:
    """Remove the shards of a cache. Their folder goes too, unless something else lies in it."""
    files = shard_files(path)
    remove_leftovers(*files)
    with contextlib.suppress(OSError):
        for file in files:
            file.unlink(missing_ok=True)
        shard_folder(path).rmdir()


def write_shard(path: Path, shard: Shard, key_fields: KeyFields) -> None:
    """Write one shard, atomically.

    Raises:
        StoreError: it cannot be written, or does not read back as it was.
    """
    with atomically(path) as partial:
        with create(partial) as file:
            create_features(file, shard.features.shape, shard.features.dtype)[:] = shard.features
            put_array(file, "ok", shard.ok)
            put_failures(file, shard.failures)
            file.attrs["start"] = shard.start
            put_attribute(file, "key_fields", json.dumps(key_fields))
            put_attribute(file, "sha256", shard.digest())
        try:
            read_shard(partial, key_fields)
        except StoreError as error:
            raise StoreError(f"{path}: {NOT_GIVEN_BACK}") from error


def read_shard(path: Path, key_fields: KeyFields | None = None) -> Shard:
    """Read one shard, and check it against its checksum.

    Args:
        path: its file.
        key_fields: what it must have been made under; None: anything.

    Raises:
        StaleStoreError: it was made under other settings.
        StoreError: it is damaged.
    """
    with open_shard(path, key_fields) as (shard, checksum):
        shard = replace(shard, features=shard.features[:])
    if shard.digest() != checksum:
        raise StoreError(f"{path}: damaged shard: it does not match its checksum")
    return shard


@contextlib.contextmanager
def open_shard(path: Path, key_fields: KeyFields | None = None) -> Iterator[tuple[Shard, str]]:
    """Open a shard whose features stay in its file. Gives it and what its digest must be; otherwise as `read_shard`."""
    try:
        with view(path) as file:
            stored = json.loads(get_attribute(file, "key_fields"))
            if key_fields is not None:
                refuse_other_key(path, stored, key_fields)
            shard = Shard(int(file.attrs["start"]), file["features"], file["ok"][:], get_failures(file))
            yield shard, get_attribute(file, "sha256")
    except READ_ERRORS as error:
        raise StoreError(f"{path}: damaged shard: {error}") from error


def refuse_other_key(path: Path, stored: Mapping[str, object], asked: Mapping[str, object]) -> None:
    """Raise a StaleStoreError that names the first setting in which a cache differs."""
    for name in asked:
        if stored.get(name) != asked[name]:
            raise StaleStoreError(
                f"{path}: made with {name} = {_short(stored.get(name))}, asked for {name} = {_short(asked[name])}; "
                "give another --out, or --overwrite to replace it"
            )
    if dict(stored) != dict(asked):
        raise StaleStoreError(f"{path}: made by another version of hfc; give another --out, or --overwrite")


def _short(value: object) -> str:
    text = str(value)
    return text[:12] + "…" if len(text) == 64 else text
