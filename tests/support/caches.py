"""Caches of made-up features, as stage 1 writes them: through shards."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfc import store
from hfc.regions import Regions, strings

KEY = {"backbone": "b", "image_size": 224}


def regions(n: int) -> Regions:
    names = strings([f"röw {i}" for i in range(n)])
    box = np.full((n, 4), np.nan, dtype=np.float32)
    box[0] = (1, 2, 3, 4)
    return Regions(Path("/r"), "o", names, names, box, strings(["Tee"] * n), strings(["train"] * n))


def fingerprints(count: int, seed: str = "") -> store.Fingerprints:
    """Made-up ones: each row's image has other bytes."""
    digests = [hashlib.sha256(f"{seed}{i}".encode()).digest() for i in range(count)]
    sha256 = np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(count, 32).copy()
    return store.Fingerprints(sha256, np.arange(count) + 1000, np.arange(count) + 10**18)


def shard_of(features: store.Features, start: int = 0, table: Regions | None = None) -> store.Shard:
    """A shard of rows that all have features; those of `table` or of `regions`, from `start` on."""
    rows = np.arange(start, start + len(features))
    box = (table or regions(start + len(features))).box[rows]
    return store.Shard(start, features, np.ones(len(rows), np.bool_), [], fingerprints(rows[-1] + 1).sha256[rows], box)


def put(path: Path, regions: Regions, *parts: store.Features, key_fields: Mapping[str, Any], **others: Any) -> Path:
    """A cache of (n, V, D) features, a shard each; otherwise as `put_parts`."""
    return put_parts(path, regions, parts, key_fields, **others)


def put_parts(
    path: Path,
    regions: Regions,
    parts: Iterable[store.Features],
    key_fields: Mapping[str, Any],
    *,
    ok: NDArray[np.bool_] | None = None,
    failures: Sequence[tuple[int, str]] = (),
    prints: store.Fingerprints | None = None,
    config: Mapping[str, object] = {},
    provenance: Mapping[str, Any] = {},
) -> Path:
    """Write shards, one after the other, and make a cache of them."""
    ok = np.ones(len(regions), np.bool_) if ok is None else ok
    prints = prints or fingerprints(len(regions))
    shards: list[Path] = []
    places: list[tuple[int, int]] = []
    for features in parts:
        start, stop = len(places), len(places) + len(features)
        some = [(row, reason) for row, reason in failures if start <= row < stop]
        rows = (ok[start:stop], some, prints.sha256[start:stop], regions.box[start:stop])
        places += [(len(shards), row) for row in range(len(features))]
        shards.append(path.with_name(f"{path.name}.{start}.shard"))
        store.write_shard(shards[-1], store.Shard(start, features, *rows), key_fields)
    table = store.Table(regions, ok, list(failures), prints)
    settings = {"key_fields": key_fields, "config": config, "provenance": provenance}
    store.assemble(path, table, shards, *np.array(places).T, **settings)
    for shard in shards:
        shard.unlink()
    return path


def write(path: Path, n: int, dtype: str = "float16", size: int = 300) -> store.Features:
    """A cache of n rows out of shards; row 1 failed."""
    features = np.random.default_rng(0).normal(size=(n, 1, 8)).astype(dtype)
    features[1] = 0
    origin = {"provenance": {"dataset": {"root": "/r", "origin": "o"}}, "config": {"a": 1}}
    parts = [features[start : start + size] for start in range(0, n, size)]
    put_parts(path, regions(n), parts, KEY, ok=np.arange(n) != 1, failures=[(1, "bad")], **origin)
    return features
