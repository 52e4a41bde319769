"""The cache file: what is in it, and that damage is noticed."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from hfc import store
from hfc.errors import IncompleteStoreError, StaleStoreError, StoreError
from hfc.provenance import digest
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


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("n", [2, 256, 257, 5000])
def test_what_was_written_is_read_back(n: int, dtype: str, tmp_path: Path) -> None:
    features = write(tmp_path / "c.h5", n, dtype)
    with store.FeatureStore(tmp_path / "c.h5") as cache:
        cache.verify()
        got, table = cache.features(), cache.table()
        assert (cache.key, cache.config, cache.shape) == (digest(KEY), {"a": 1}, (n, 1, 8))
    np.testing.assert_array_equal(got, features)
    assert got.dtype == dtype
    assert table.failures == [(1, "bad")]
    assert np.flatnonzero(~table.ok).tolist() == [1]
    for name in ("id", "path", "label", "split", "box"):
        np.testing.assert_array_equal(getattr(table.regions, name), getattr(regions(n), name))
    assert [path.name for path in tmp_path.iterdir()] == ["c.h5"]


@pytest.mark.parametrize(("n", "dtype"), [(200, "float16"), (600, "float32")])
def test_the_file_has_the_schema_of_version_1(n: int, dtype: str, tmp_path: Path) -> None:
    written = write(tmp_path / "c.h5", n, dtype)
    with h5py.File(tmp_path / "c.h5") as file:
        assert set(file) == {"features", "id", "path", "label", "split", "box", "ok", "failures"}
        features = file["features"]
        assert (features.shape, features.dtype) == ((n, 1, 8), np.dtype(dtype))
        assert (features.chunks, features.fletcher32) == ((min(n, 256), 1, 8), True)
        for name in ("id", "path", "label", "split"):
            assert file[name].shape == (n,)
            assert h5py.check_string_dtype(file[name].dtype) == ("utf-8", None)
        assert (file["box"].dtype, file["box"].shape) == (np.float32, (n, 4))
        assert (file["ok"].dtype, file["ok"].shape) == (np.bool_, (n,))
        assert file["failures"].dtype.names == ("row", "reason")
        assert file["failures"][:].tolist() == [(1, b"bad")]
        # The digests by hand: the bytes of the features, and the settings as sorted JSON without blanks.
        key = '{"backbone":"b","image_size":224,"schema":1}'
        attributes = dict(file.attrs)
        assert len(attributes.pop("table_sha256")) == 64
        assert {name: attributes.pop(name) for name in ("schema", "complete")} == {"schema": 1, "complete": True}
        assert attributes.pop("features_sha256") == hashlib.sha256(written.tobytes()).hexdigest()
        assert attributes.pop("feature_key") == hashlib.sha256(key.encode()).hexdigest()
        assert {name: json.loads(value) for name, value in attributes.items()} == {
            "key_fields": {"schema": 1, "backbone": "b", "image_size": 224},
            "config": {"a": 1},
            "provenance": {"dataset": {"root": "/r", "origin": "o"}},
        }


def change(edit: Callable[[h5py.File], None]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            edit(file)

    return apply


def flip(path: Path) -> None:
    """One bit of one stored feature."""
    with h5py.File(path) as file:
        place = file["features"].id.get_chunk_info(0).byte_offset + 20
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def flip_in_label(path: Path) -> None:
    """One bit of one stored label, which HDF5 itself does not notice."""
    with h5py.File(path, "r+") as file:
        file["label"][5] = "unlikely label"
        file.attrs["table_sha256"] = store.Table(labelled(5, "unlikely label"), file["ok"][:], [(1, "bad")]).digest()
    with store.FeatureStore(path) as cache:
        cache.verify()
    content = path.read_bytes()
    assert content.count(b"unlikely label") == 1
    path.write_bytes(content.replace(b"unlikely label", b"unlikely labem"))


def labelled(row: int, label: str) -> Regions:
    changed = regions(600)
    changed.label[row] = label
    return changed


def nan_with_its_checksum(path: Path) -> None:
    """NaN that was written as such: the checksum agrees."""
    with h5py.File(path, "r+") as file:
        file["features"][5, 0, 3] = np.nan
        file.attrs["features_sha256"] = hashlib.sha256(file["features"][:].tobytes()).hexdigest()


def other_hdf5(path: Path) -> None:
    """An HDF5 file of somebody else's."""
    with h5py.File(path, "w") as file:
        file["images"] = np.zeros(3)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def set_value(name: str, row: int, value: object) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        file[name][row] = value

    return edit


DAMAGE: dict[str, tuple[Callable[[Path], None], type[StoreError], str]] = {
    "truncated": (cut, StoreError, "not a readable HDF5 file, perhaps truncated"),
    "text": (lambda p: p.write_text("x") and None, StoreError, "not a readable HDF5 file"),
    "gone": (lambda p: p.unlink(), StoreError, "no such feature cache; make one with hfc extract"),
    "other HDF5": (other_hdf5, StoreError, "expected a feature cache of schema 1, found none"),
    "schema": (change(lambda f: f.attrs.update(schema=2)), StoreError, "expected a feature cache of schema 1, found 2"),
    "incomplete": (change(lambda f: f.attrs.update(complete=False)), IncompleteStoreError, "extraction did not finish"),
    "flipped bit": (flip, StoreError, "damaged feature cache, rows 0 to 600"),
    "feature": (change(set_value("features", 5, 1)), StoreError, "its features do not match their checksum"),
    "label": (change(set_value("label", 5, "Tie")), StoreError, "its rows do not match their checksum"),
    "flipped bit in a label": (flip_in_label, StoreError, "its rows do not match their checksum"),
    "box": (change(set_value("box", 0, 9)), StoreError, "its rows do not match their checksum"),
    "key": (change(lambda f: f.attrs.update(feature_key="0")), StoreError, "its key does not match its key fields"),
    "NaN": (change(set_value("features", 5, np.nan)), StoreError, r"row 5 \(röw 5\) holds NaN or infinite features"),
    "NaN with its checksum": (nan_with_its_checksum, StoreError, r"row 5 \(röw 5\) holds NaN or infinite features"),
    "infinite": (change(set_value("features", 5, np.inf)), StoreError, "holds NaN or infinite features"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_noticed(case: str, tmp_path: Path) -> None:
    damage, kind, message = DAMAGE[case]
    path = tmp_path / "c.h5"
    write(path, 600)
    damage(path)
    with pytest.raises(kind, match=message), store.FeatureStore(path) as cache:
        cache.table()
        cache.features()


def test_shards_alone_are_an_incomplete_cache(tmp_path: Path) -> None:
    (tmp_path / "c.h5.shards").mkdir()
    with pytest.raises(IncompleteStoreError, match="run the same hfc extract again"):
        store.FeatureStore(tmp_path / "c.h5")


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="its shards hold 300 rows of 600"):
        shard = store.Shard(0, np.ones((300, 1, 8), np.float16), np.ones(300, np.bool_), [])
        store.write_shard(tmp_path / "0.h5", shard, KEY)
        store.assemble(tmp_path / "c.h5", [tmp_path / "0.h5"], regions(600), key_fields=KEY, config={}, provenance={})
    assert [path.name for path in tmp_path.iterdir()] == ["0.h5"]
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written"):
        store.write_shard(tmp_path / "file" / "0.h5", shard, KEY)


def test_a_full_disk_leaves_the_old_cache_and_no_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write(tmp_path / "c.h5", 300)
    before = (tmp_path / "c.h5").read_bytes()
    shard = store.Shard(0, np.ones((3, 1, 8), np.float16), np.ones(3, np.bool_), [])
    store.write_shard(tmp_path / "0.h5", shard, KEY)
    predictions = store.Predictions(strings(["a"]), np.zeros(1, np.int64), (), np.ones((1, 2), np.float32))
    monkeypatch.setattr(os, "fsync", full)
    writers: list[Callable[[Path], None]] = [
        lambda path: store.write_shard(path, shard, KEY),
        lambda path: store.assemble(path, [tmp_path / "0.h5"], regions(3), key_fields=KEY, config={}, provenance={}),
        lambda path: store.write_predictions(path, predictions),
    ]
    for writer in writers:
        with pytest.raises(StoreError, match=r"new\.h5: cannot be written: No space left on device"):
            writer(tmp_path / "new.h5")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["0.h5", "c.h5"]
    with pytest.raises(StoreError, match=r"c\.h5: cannot be written: No space left on device"):
        store.relabel(tmp_path / "c.h5", regions(300))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.h5", "c.h5"]
    assert (tmp_path / "c.h5").read_bytes() == before


def test_the_first_setting_that_differs_is_named() -> None:
    path = Path("c.h5")
    store.refuse_other_key(path, KEY, dict(KEY))
    with pytest.raises(StaleStoreError, match=r"^c\.h5: made with backbone = b, asked for backbone = x; give another"):
        store.refuse_other_key(path, KEY, KEY | {"backbone": "x", "image_size": 456})
    with pytest.raises(StaleStoreError, match="made with backbone = None, asked for backbone = b"):
        store.refuse_other_key(path, {"schema": 1, "image_size": 224}, KEY)
    with pytest.raises(StaleStoreError, match="made with weights = aaaaaaaaaaaa…, asked for weights = bbbbbbbbbbbb…;"):
        store.refuse_other_key(path, {"weights": "a" * 64}, {"weights": "b" * 64})
    with pytest.raises(StaleStoreError, match="made by another version of hfc"):
        store.refuse_other_key(path, KEY | {"tiles": 4}, KEY)


def test_a_shard_of_other_settings_is_refused_and_the_setting_named(tmp_path: Path) -> None:
    shard = store.Shard(0, np.ones((3, 1, 8), np.float16), np.ones(3, np.bool_), [])
    store.write_shard(tmp_path / "0.h5", shard, KEY)
    with pytest.raises(
        StaleStoreError, match="made with image_size = 224, asked for image_size = 456; give another --out"
    ):
        store.read_shard(tmp_path / "0.h5", KEY | {"image_size": 456})


def test_new_labels_leave_the_features_alone(tmp_path: Path) -> None:
    features = write(tmp_path / "c.h5", 600)
    shutil.copy(tmp_path / "c.h5", tmp_path / "old.h5")
    changed = regions(600)
    changed.label[7], changed.split[8] = "Tie", ""
    store.relabel(tmp_path / "c.h5", changed)
    with store.FeatureStore(tmp_path / "c.h5") as cache, store.FeatureStore(tmp_path / "old.h5") as old:
        cache.verify()
        np.testing.assert_array_equal(cache.features(), features)
        assert (cache.key, cache.features_sha256) == (old.key, old.features_sha256)
        assert cache.table().regions.label.tolist() == changed.label.tolist()
        assert cache.table().regions.split.tolist() == changed.split.tolist()
        assert cache.table().failures == [(1, "bad")]


def test_predictions_are_read_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    levels = tuple(rng.random((4, size), dtype=np.float32) for size in (2, 3))
    written = store.Predictions(strings(["a", "b", "ü", "d"]), np.array([0, 2, 1, 1]), levels, levels[1] / 2)
    store.write_predictions(tmp_path / "p.h5", written)
    got = store.read_predictions(tmp_path / "p.h5")
    assert (got.id.tolist(), got.target.tolist()) == (["a", "b", "ü", "d"], [0, 2, 1, 1])
    for mine, theirs in zip((*got.levels, got.final), (*levels, levels[1] / 2), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    (tmp_path / "p.h5").write_text("x")
    with pytest.raises(StoreError, match="cannot read predictions"):
        store.read_predictions(tmp_path / "p.h5")
