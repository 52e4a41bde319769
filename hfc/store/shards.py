"""Shards: features of finished rows, an immutable file each. Dimensions: n rows of a shard, V views, D features.

Work rows are what one call has to encode, numbered. A shard has a range of them, and says of each whose pixels they
are: together the shards are a pool in which features are looked up by identity.
"""

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
from hfc.store.fingerprints import Boxes, Digests, identity_bytes
from hfc.store.header import ONCE_IN_KEY, KeyFields

SHARD_NAME = re.compile(r"\d{9,}-\d{9,}\.h5")
NOT_GIVEN_BACK = "the disk does not give back what was written; nothing was kept"


@dataclass(frozen=True, eq=False)
class Shard:
    """A finished range of work rows."""

    start: int
    features: Features
    """(n, V, D)."""
    ok: NDArray[np.bool_]
    failures: Failures
    """Work row and reason."""
    sha256: Digests
    """(n, 32) of the bytes that were decoded; zeros: there were none."""
    box: Boxes
    """(n, 4) in those images; NaN = the whole."""

    @property
    def stop(self) -> int:
        """The row after its last."""
        return self.start + len(self.ok)

    def features_sha256(self) -> str:
        """Compute the SHA-256 of the features' bytes."""
        return digest_chunks([np.ascontiguousarray(self.features).data.cast("B")])

    def digest(self, features_sha256: str = "") -> str:
        """Compute the SHA-256 over everything in it; that of the features may be known already."""
        shape = [str(self.features.dtype), len(self.ok), *self.features.shape[1:]]
        rows = digest_chunks([identity_bytes(self.sha256, self.box).data.cast("B")])
        content = [self.ok.tolist(), [list(failure) for failure in self.failures], rows]
        return digest([self.start, shape, features_sha256 or self.features_sha256(), *content])


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
    features_sha256 = shard.features_sha256()
    with atomically(path) as partial:
        with create(partial) as file:
            create_features(file, shard.features.shape, shard.features.dtype)[:] = shard.features
            put_array(file, "ok", shard.ok)
            put_array(file, "sha256", shard.sha256)
            put_array(file, "box", shard.box)
            put_failures(file, shard.failures)
            file.attrs["start"] = shard.start
            put_attribute(file, "key_fields", json.dumps(key_fields))
            put_attribute(file, "features_sha256", features_sha256)
            put_attribute(file, "digest", shard.digest(features_sha256))
        try:
            read_shard(partial, key_fields)
        except StoreError as error:
            raise StoreError(f"{path}: {NOT_GIVEN_BACK}") from error


def read_shard(path: Path, key_fields: KeyFields | None = None) -> Shard:
    """Read one shard, and check it against its checksums.

    Args:
        path: its file.
        key_fields: what it must have been made under; None: anything.

    Raises:
        StaleStoreError: it was made under other settings.
        StoreError: it is damaged.
    """
    with open_shard(path, key_fields) as (shard, features_sha256):
        shard = replace(shard, features=shard.features[:])
    if shard.features_sha256() != features_sha256:
        raise StoreError(f"{path}: damaged shard: its features do not match their checksum")
    return shard


def read_shard_rows(path: Path, key_fields: KeyFields | None = None) -> Shard:
    """Read one shard without its features, which are (0, V, D) then; otherwise as `read_shard`."""
    with open_shard(path, key_fields) as (shard, _):
        return replace(shard, features=shard.features[:0])


@contextlib.contextmanager
def open_shard(path: Path, key_fields: KeyFields | None = None) -> Iterator[tuple[Shard, str]]:
    """Open a shard whose features stay in its file. Gives it and their checksum; otherwise as `read_shard`."""
    try:
        with view(path) as file:
            stored = json.loads(get_attribute(file, "key_fields"))
            if key_fields is not None:
                refuse_other_key(path, stored, key_fields)
            if "digest" not in file.attrs:
                raise StoreError(f"{path}: a shard of an earlier version of hfc, which names no pixels")
            rows = (file["ok"][:], get_failures(file), file["sha256"][:], file["box"][:])
            shard = Shard(int(file.attrs["start"]), file["features"], *rows)
            features_sha256 = get_attribute(file, "features_sha256")
            if shard.digest(features_sha256) != get_attribute(file, "digest"):
                raise StoreError(f"{path}: damaged shard: its rows do not match their checksum")
            yield shard, features_sha256
    except READ_ERRORS as error:
        raise StoreError(f"{path}: damaged shard: {error}") from error


def refuse_other_key(path: Path, stored: Mapping[str, object], asked: Mapping[str, object]) -> None:
    """Raise a StaleStoreError that names the first setting in which a cache differs."""
    if different := key_difference(stored, asked):
        raise StaleStoreError(f"{path}: {different}; give another --out, or --overwrite to replace it")


def key_difference(stored: Mapping[str, object], asked: Mapping[str, object]) -> str:
    """Say in which setting a cache differs first; "" where it does not.

    What schema 1 took into the key beside the settings does not count: which rows there are is no setting.
    """
    stored = {name: value for name, value in stored.items() if name not in ONCE_IN_KEY}
    for name in asked:
        if stored.get(name) != asked[name]:
            return f"made with {name} = {_short(stored.get(name))}, asked for {name} = {_short(asked[name])}"
    return "" if dict(stored) == dict(asked) else "made by another version of hfc"


def _short(value: object) -> str:
    text = str(value)
    return text[:12] + "…" if len(text) == 64 else text
