"""Make a cache out of shards and of the cache before it. Dimensions: N regions, V views, D features."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hfc.errors import StoreError
from hfc.provenance import digest
from hfc.store.cache import FeatureStore
from hfc.store.copying import Expected, Origin, copy_rows, read_back
from hfc.store.files import (
    Features,
    atomically,
    create,
    create_features,
    edit,
    syncing,
)
from hfc.store.fingerprints import DIGEST_BYTES
from hfc.store.header import SCHEMA, KeyFields, Provenance, put_header
from hfc.store.sources import Source, opened, table_identity
from hfc.store.table import Rows, Table, put_table


def assemble(
    path: Path,
    table: Table,
    sources: Sequence[Path],
    source: Rows,
    row: Rows,
    *,
    key_fields: KeyFields,
    config: Mapping[str, object],
    provenance: Provenance,
    empty: Features | None = None,
) -> None:
    """Put rows of shards and of caches into one cache, atomically.

    Every byte is checked: the sources against their checksums, and what was written against the sources.

    Args:
        path: the cache. It may be one of the sources.
        table: the cache's rows.
        sources: files of shards and caches that were made under the same settings.
        source: (N,) number of the source that has a row's features; -1 = none, so that the row must be one that failed.
        row: (N,) its row in that source, counted from the source's first.
        key_fields: what shapes the features of given pixels; its digest is the feature key.
        config, provenance: stored as JSON.
        empty: (0, V, D) of the features' type, where there may be no source to tell them.

    Raises:
        StaleStoreError: a source was made under other settings.
        StoreError: a source is damaged or has not what is asked of it, or the cache cannot be written.
    """
    table = table.fingerprinted()
    origin = Origin(np.asarray(source, dtype=np.int64), np.asarray(row, dtype=np.int64))
    with opened(sources, key_fields) as files, atomically(path) as partial, syncing(partial):
        _refuse_other_rows(path, table, files, origin)
        kind = _kind(path, files, empty)
        expected = Expected.derive(files, origin, np.zeros((1, *kind.shape[1:]), dtype=kind.dtype))
        with create(partial) as file:
            copy_rows(create_features(file, (len(table.ok), *kind.shape[1:]), kind.dtype), files, origin)
            put_table(file, table)
        features_sha256 = read_back(path, partial, expected)
        texts = {"key_fields": key_fields, "config": config, "provenance": provenance}
        header = {name: json.dumps(text) for name, text in texts.items()}
        header |= {"features_sha256": features_sha256, "table_sha256": table.digest()}
        _complete(partial, {"feature_key": digest(dict(key_fields)), **header})


def _complete(partial: Path, header: Mapping[str, str]) -> None:
    """Write the header of a cache, and read its rows back."""
    with edit(partial) as file:
        put_header(file, header)
        file.attrs.update({"schema": SCHEMA, "complete": True})
    with FeatureStore(partial) as store:
        store.table()


def _kind(path: Path, sources: Sequence[Source], empty: Features | None) -> Features:
    """Return (0, V, D) features of the type that the cache has."""
    if sources:
        return np.empty((0, *sources[0].shape[1:]), dtype=sources[0].dtype)
    if empty is None:
        raise StoreError(f"{path}: no image could be read, so there is nothing to store")
    return empty


def _refuse_other_rows(path: Path, table: Table, sources: Sequence[Source], origin: Origin) -> None:
    """Raise a StoreError where a source's row is not the one that the table has."""
    ok, identity = np.zeros_like(table.ok), table_identity(table)
    for number, rows in origin.by_source():
        source = sources[number]
        places = origin.row[rows]
        if (places < 0).any() or (places >= len(source.ok)).any():
            raise StoreError(f"{source.path}: expected a row for each that the cache takes, found {len(source.ok)}")
        ok[rows] = source.ok[places]
        held = source.identity[places]
        known = held[:, :DIGEST_BYTES].any(axis=1) & identity[rows, :DIGEST_BYTES].any(axis=1)
        other = known & (held != identity[rows]).any(axis=1)
        if other.any():
            name = table.regions.id[rows[other.argmax()]]
            raise StoreError(f"{source.path}: row {places[other.argmax()]} is of other pixels than {name}")
    if (wrong := ok != table.ok).any():
        i = int(wrong.argmax())
        expected, there = ("features", "none") if table.ok[i] else ("none", "some")
        raise StoreError(f"{path}: row {i} ({table.regions.id[i]}): expected {expected}, found {there} in its source")
