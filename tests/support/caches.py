"""A small cache of made-up features, for tests of the store."""

from pathlib import Path

import numpy as np

from hfc import store
from hfc.regions import Regions, strings

KEY = {"schema": 1, "backbone": "b", "image_size": 224}


def regions(n: int) -> Regions:
    names = strings([f"röw {i}" for i in range(n)])
    box = np.full((n, 4), np.nan, dtype=np.float32)
    box[0] = (1, 2, 3, 4)
    return Regions(Path("/r"), "o", names, names, box, strings(["Tee"] * n), strings(["train"] * n))


def write(path: Path, n: int, dtype: str = "float16", size: int = 300) -> store.Features:
    """A cache of n rows out of shards; row 1 failed."""
    features = np.random.default_rng(0).normal(size=(n, 1, 8)).astype(dtype)
    features[1] = 0
    shards = []
    for start in range(0, n, size):
        part = features[start : start + size]
        ok = np.arange(start, start + len(part)) != 1
        shards.append(path.parent / f"{start}.h5")
        failures = [(1, "bad")] if start == 0 else []
        store.write_shard(shards[-1], store.Shard(start, part, ok, failures), KEY)
    provenance = {"dataset": {"root": "/r", "origin": "o"}}
    store.assemble(path, shards, regions(n), key_fields=KEY, config={"a": 1}, provenance=provenance)
    for shard in shards:
        shard.unlink()
    return features
