"""An open cache: its features on either way, what a run records of it, and the same cache in another process."""

import hashlib
import weakref
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from hfc.errors import ConfigError, DatasetError, StoreError
from hfc.store import FeatureStore
from hfc.train.cache import SHARED, Cache, CacheSource, cache_source, held, load_cache, open_cache, same_cache
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


def test_processes_share_the_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = small_cache(tmp_path / "c.h5")
    alone = load_cache(path, device="cpu")
    source = cache_source(path, "cpu", share=True)
    one = load_cache(**vars(source))
    assert isinstance(one.features, Resident)
    assert isinstance(alone.features, Resident)
    assert alone.features.place is None
    assert torch.equal(one.features.tensor, alone.features.tensor)
    assert load_cache(**vars(source)).features is one.features  # never a second copy
    other = source.attached(one, 2)
    assert source.attached(one, 1) is source
    assert (other.share, other.place) == (False, one.features.place)
    monkeypatch.setattr(FeatureStore, "features", lambda store: pytest.fail("the features were read"))
    mapped = load_cache(**vars(other))
    assert isinstance(mapped.features, Resident)
    assert torch.equal(mapped.features.tensor, one.features.tensor)
    assert mapped.features.tensor.data_ptr() != one.features.tensor.data_ptr()
    assert mapped.meta == one.meta == alone.meta


def test_features_that_are_gone_are_read(tmp_path: Path) -> None:
    path = small_cache(tmp_path / "c.h5")
    source = cache_source(path, "cpu", share=True)
    one = load_cache(**vars(source))
    expected = load_cache(path, device="cpu").features
    other = source.attached(one, 2)
    del one
    assert len(SHARED) == 0
    features = load_cache(**vars(other)).features
    assert isinstance(features, Resident)
    assert isinstance(expected, Resident)
    assert torch.equal(features.tensor, expected.tensor)


def test_a_file_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    path = small_cache(tmp_path / "c.h5")
    one = load_cache(path, device="cpu", share=True)
    small_cache(path, seed=1)
    other = load_cache(path, device="cpu", share=True)
    assert isinstance(one.features, Resident)
    assert isinstance(other.features, Resident)
    assert not torch.equal(one.features.tensor, other.features.tensor)


def test_features_are_held_for_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = small_cache(tmp_path / "c.h5")
    with held(path, "cpu", share=False):
        assert len(SHARED) == 0
    with held(path, "cpu", share=True):
        (features,) = SHARED.values()
        monkeypatch.setattr(FeatureStore, "features", lambda store, array: pytest.fail("the features were read"))
        assert load_cache(path, device="cpu", share=True).features is features
        del features
    assert len(SHARED) == 0


class OnGpu(Resident):
    """As on a GPU."""

    @property
    def device(self) -> torch.device:
        return torch.device("cuda", 0)


@pytest.mark.parametrize(("kind", "jobs", "kept"), [(OnGpu, 2, False), (OnGpu, 1, True), (Resident, 2, True)])
def test_a_gpus_memory_is_given_back_where_other_processes_train(
    kind: type[Resident], jobs: int, kept: bool, place: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[bool] = []
    features = kind(torch.zeros(4, 1, 3))
    there = weakref.ref(features.tensor)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: given.append(there() is None))
    own, source = replace(cache, features=features), CacheSource(place / "cache.h5", "cuda:0")
    del features
    opened = open_cache(cache_source(place / "cache.h5", "cpu"))
    try:
        assert source.attached(own, jobs) == source
        assert given == ([] if kept else [True])
        assert (there() is not None) is kept
        assert isinstance(own.features, Resident)
        assert own.features.tensor.shape == (4, 1, 3)
        again = open_cache(cache_source(place / "cache.h5", "cpu"))
        assert (again is opened) is kept  # if a call runs here after all, it reads the cache
    finally:
        open_cache.cache_clear()
