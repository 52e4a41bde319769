"""Shards: damage, and other settings than those asked for."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hfc import store
from hfc.errors import StaleStoreError, StoreError
from tests.support.caches import KEY, shard_of


def test_a_flipped_bit_of_a_shard_is_noticed_or_harmless(tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(40, 1, 8)).astype(np.float16)
    ok = np.arange(40) != 1
    store.write_shard(tmp_path / "0.h5", replace(shard_of(features), ok=ok, failures=[(1, "bad")]), KEY)
    whole = (tmp_path / "0.h5").read_bytes()
    want = store.read_shard(tmp_path / "0.h5", KEY).digest()
    noticed = 0
    for place in np.random.default_rng(1).choice(len(whole), 400, replace=False):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        (tmp_path / "0.h5").write_bytes(damaged)
        try:
            assert store.read_shard(tmp_path / "0.h5", KEY).digest() == want, f"byte {place}"
        except StoreError:
            noticed += 1
    assert noticed > 100


def test_the_first_setting_that_differs_is_named() -> None:
    path = Path("c.h5")
    store.refuse_other_key(path, KEY, dict(KEY))
    with pytest.raises(StaleStoreError, match=r"^c\.h5: made with backbone = b, asked for backbone = x; give another"):
        store.refuse_other_key(path, KEY, KEY | {"backbone": "x", "image_size": 456})
    with pytest.raises(StaleStoreError, match="made with backbone = None, asked for backbone = b"):
        store.refuse_other_key(path, {"image_size": 224}, KEY)
    with pytest.raises(StaleStoreError, match="made with weights = aaaaaaaaaaaa…, asked for weights = bbbbbbbbbbbb…;"):
        store.refuse_other_key(path, {"weights": "a" * 64}, {"weights": "b" * 64})
    with pytest.raises(StaleStoreError, match="made by another version of hfc"):
        store.refuse_other_key(path, KEY | {"tiles": 4}, KEY)


def test_a_shard_of_other_settings_is_refused_and_the_setting_named(tmp_path: Path) -> None:
    store.write_shard(tmp_path / "0.h5", shard_of(np.ones((3, 1, 8), np.float16)), KEY)
    with pytest.raises(
        StaleStoreError, match="made with image_size = 224, asked for image_size = 456; give another --out"
    ):
        store.read_shard(tmp_path / "0.h5", KEY | {"image_size": 456})
