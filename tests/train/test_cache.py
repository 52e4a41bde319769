"""An open cache: its features on either way, what a run records of it, and the same cache in another process."""

import hashlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from hfc.errors import ConfigError, DatasetError, StoreError
from hfc.store import FeatureStore
from hfc.train.cache import Cache, CacheSource, cache_source, load_cache, open_cache, same_cache
from hfc.train.features import Resident
from tests.support.made_up import small_cache, write_cache


@pytest.mark.parametrize("stream", [False, True])
def test_features_are_those_of_the_file(stream: bool, place: Path) -> None:
    with h5py.File(place / "cache.h5") as file:
        stored = file["features"][:]
    features = load_cache(place / "cache.h5", device="cpu", stream=stream).features
    assert isinstance(features, Resident) is not stream
    assert (features.device, features.views, features.dim) == (torch.device("cpu"), 1, stored.shape[2])
    blocks = torch.cat(list(features.blocks(torch.arange(len(stored)))))
    assert np.array_equal(blocks.numpy(), stored.astype(np.float32))


def test_a_run_records_what_the_file_says_of_itself(cache: Cache, place: Path) -> None:
    with h5py.File(place / "cache.h5") as file:
        stored = np.ascontiguousarray(file["features"][:])
    record = cache.meta
    assert record.features_sha256 == hashlib.sha256(stored.tobytes()).hexdigest()
    assert (record.rows, record.dim) == (stored.shape[0], stored.shape[2])
    assert (record.path, record.labels, record.labels_sha256) == (*[str(place / "cache.h5")] * 2, "")
    assert (record.backbone, record.image_size, record.random_weights) == ("made-up", 224, False)
    with FeatureStore(place / "cache.h5") as opened:
        assert record.feature_key == opened.key


def test_other_labels_take_the_place_of_the_caches_own(cache: Cache, place: Path, tmp_path: Path) -> None:
    rows = [f"{name},Coat" for name in cache.table.regions.id]
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(["id,label", *rows]) + "\n")
    other = load_cache(place / "cache.h5", device="cpu", labels=labels)
    assert set(other.table.regions.label) == {"Coat"}
    assert (other.table.regions.split == cache.table.regions.split).all()
    assert other.meta.labels_sha256 == hashlib.sha256(labels.read_bytes()).hexdigest()
    assert other.meta.labels_digest != cache.meta.labels_digest
    assert other.meta.features_sha256 == cache.meta.features_sha256


def test_what_cannot_be_read_is_refused(place: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such feature cache"):
        load_cache(tmp_path / "none.h5")
    with pytest.raises(DatasetError, match=r"cannot read the labels"):
        load_cache(place / "cache.h5", labels=tmp_path / "none.csv")
    with pytest.raises(ConfigError, match="device"):
        load_cache(place / "cache.h5", device="tpu")
    write_cache(tmp_path / "c.h5", ["Tee", "Coat"] * 4, ["train"] * 8)
    content = bytearray((tmp_path / "c.h5").read_bytes())
    with h5py.File(tmp_path / "c.h5") as file:
        at_byte = file["features"].id.get_chunk_info(0).byte_offset
    content[at_byte] ^= 1
    (tmp_path / "c.h5").write_bytes(content)
    for stream in (False, True):
        with pytest.raises(StoreError, match=r"c\.h5"):
            load_cache(tmp_path / "c.h5", stream=stream)


def test_a_process_reads_a_cache_once(place: Path) -> None:
    source = cache_source(place / "cache.h5", "cpu")
    assert source == CacheSource(place / "cache.h5", "cpu")
    try:
        first = open_cache(source)
        assert open_cache(cache_source(place / "cache.h5", "cpu")) is first
        assert open_cache(cache_source(place / "cache.h5", "cpu", stream=True)) is not first
    finally:
        open_cache.cache_clear()


def test_another_process_takes_the_same_cache_alone(tmp_path: Path) -> None:
    known = load_cache(small_cache(tmp_path / "c.h5"), device="cpu").meta
    source = CacheSource(tmp_path / "c.h5", "cpu")
    try:
        assert same_cache(source, known).meta == known
        open_cache.cache_clear()
        small_cache(tmp_path / "c.h5", seed=1)
        with pytest.raises(StoreError, match=r"c\.h5: was changed or replaced while it was in use"):
            same_cache(source, known)
    finally:
        open_cache.cache_clear()
