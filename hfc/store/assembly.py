"""Make a cache out of shards, and change one in the two ways it allows. Dimensions: N regions, V views, D features."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from hfc.errors import StoreError
from hfc.progress import steps
from hfc.provenance import digest, digest_chunks
from hfc.regions import Regions
from hfc.store.cache import FeatureStore
from hfc.store.files import (
    CHUNK_ROWS,
    READ_ERRORS,
    Features,
    ahead,
    atomically,
    copy_features,
    create,
    create_features,
    edit,
    in_memory,
    put_array,
    put_failures,
    put_text,
    syncing,
    view,
)
from hfc.store.header import SCHEMA, KeyFields, Provenance, change_header, put_header
from hfc.store.shards import NOT_GIVEN_BACK, Shard, open_shard, read_shard
from hfc.store.table import Table, put_table


def assemble(
    path: Path,
    shards: Sequence[Path],
    regions: Regions,
    *,
    key_fields: KeyFields,
    config: Mapping[str, object],
    provenance: Provenance,
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
    with atomically(path) as partial, syncing(partial):
        with create(partial) as file:
            parts = _copy(shards, file, regions, key_fields)
            ok = np.concatenate([part.shard.ok for part in parts])
            if len(ok) != len(regions):
                raise StoreError(f"{path}: its shards hold {len(ok)} rows of {len(regions)}")
            table = Table(regions, ok, [failure for part in parts for failure in part.shard.failures])
            put_table(file, table)
        features_sha256 = _check_copy(path, partial, parts)
        with edit(partial) as file:
            header = {
                "feature_key": digest(dict(key_fields)),
                "key_fields": json.dumps(key_fields),
                "config": json.dumps(config),
                "provenance": json.dumps(provenance),
                "features_sha256": features_sha256,
                "table_sha256": table.digest(),
            }
            put_header(file, header)
            file.attrs.update({"schema": SCHEMA, "complete": True})
        with FeatureStore(partial) as store:
            store.table()


class _Placed(NamedTuple):
    """A shard in a cache."""

    path: Path
    shard: Shard
    """Its features left out; the cache has them."""
    checksum: str
    """What its digest is together with them."""


def _copy(shards: Sequence[Path], file: h5py.File, regions: Regions, key_fields: KeyFields) -> list[_Placed]:
    """Write the features of all shards one after the other. `_check_copy` looks whether they arrived."""
    parts: list[_Placed] = []
    stop = 0
    for path in steps(ahead(map(in_memory, shards)), "assembling the cache", len(shards)):
        with open_shard(path, key_fields) as (shard, checksum):
            if shard.start != stop or shard.stop > len(regions):
                raise StoreError(f"{path}: expected rows from {stop}, found rows from {shard.start}")
            if not parts:
                create_features(file, (len(regions), *shard.features.shape[1:]), shard.features.dtype)
            copy_features(shard.features, file["features"], shard.start)
            parts.append(_Placed(path, replace(shard, features=shard.features[:0]), checksum))
        stop = shard.stop
    return parts


def _check_copy(path: Path, partial: Path, parts: Sequence[_Placed]) -> str:
    """Read all features back, and return their SHA-256. Those of every shard must give their shard's checksum."""

    def blocks() -> Iterator[tuple[_Placed, Features]]:
        try:
            with view(partial) as file:
                for part in parts:
                    yield part, file["features"][part.shard.start : part.shard.stop]
        except READ_ERRORS as error:
            raise _not_given_back(path, parts) from error

    whole = hashlib.sha256()
    with ThreadPoolExecutor(1, "hash") as hashes:
        for part, block in steps(ahead(blocks()), "checking the cache", len(parts)):
            hashing = hashes.submit(whole.update, block.data.cast("B"))
            if replace(part.shard, features=block).digest() != part.checksum:
                raise _not_given_back(path, [part])
            hashing.result()
    return whole.hexdigest()


def _not_given_back(path: Path, parts: Sequence[_Placed]) -> StoreError:
    """Make the error for features that did not arrive. Where a damaged shard is why, it raises that shard's error."""
    for part in parts:
        read_shard(part.path)
    return StoreError(f"{path}: {NOT_GIVEN_BACK}")


def relabel(path: Path, regions: Regions) -> None:
    """Give a cache the labels and splits of `regions`, atomically. Its features stay as they are.

    Raises:
        StoreError: the cache is damaged or cannot be written.
    """
    with FeatureStore(path) as store, atomically(path) as partial:
        old = store.table()
        shutil.copyfile(path, partial)
        store.refuse_change(by_path=True)
        with edit(partial) as file:
            for name in ("label", "split"):
                del file[name]
                put_text(file, name, getattr(regions, name))
            change_header(file, table_sha256=Table(regions, old.ok, old.failures).digest())
        with FeatureStore(partial) as result:
            result.verify()


def merge(path: Path, rows: NDArray[np.int64], other: Path, provenance: Provenance) -> None:
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
            store.refuse_change(by_path=True)
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
                change_header(file, features_sha256=sha, table_sha256=table, provenance=json.dumps(provenance))
            with FeatureStore(partial) as result:
                result.verify()
