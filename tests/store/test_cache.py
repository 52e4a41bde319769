"""The cache file: what was written is read back, and damage is noticed."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from hfc import store
from hfc.errors import IncompleteStoreError, StoreError
from hfc.provenance import digest
from hfc.store.header import put_header, read_header
from tests.support.caches import KEY, fingerprints, regions, shard_of, write
from tests.support.privileges import unprivileged


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
    for name in ("id", "path", "label", "split", "group", "box"):
        np.testing.assert_array_equal(getattr(table.regions, name), getattr(regions(n), name))
    for name in ("sha256", "size", "modified"):
        np.testing.assert_array_equal(getattr(table.fingerprints, name), getattr(fingerprints(n), name))
    assert [path.name for path in tmp_path.iterdir()] == ["c.h5"]


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


def nan_with_its_checksum(path: Path) -> None:
    """NaN that was written as such: the checksum agrees."""
    with h5py.File(path, "r+") as file:
        file["features"][5, 0, 3] = np.nan
        sha256 = hashlib.sha256(file["features"][:].tobytes()).hexdigest()
        put_header(file, read_header(file) | {"features_sha256": sha256})


def other_hdf5(path: Path) -> None:
    """An HDF5 file of somebody else's."""
    with h5py.File(path, "w") as file:
        file["images"] = np.zeros(3)


def swap_bytes(path: Path) -> None:
    """The same bytes under a type of the other byte order: other numbers with the same checksum."""
    with h5py.File(path, "r+") as file:
        stored = file["features"][:]
        del file["features"]
        file["features"] = stored.view(stored.dtype.newbyteorder(">"))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def set_value(name: str, row: int | tuple[int, int], value: object) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        file[name][row] = value

    return edit


DAMAGE: dict[str, tuple[Callable[[Path], None], type[StoreError], str]] = {
    "truncated": (cut, StoreError, "not a readable HDF5 file, perhaps truncated"),
    "text": (lambda p: p.write_text("x") and None, StoreError, "not a readable HDF5 file"),
    "gone": (lambda p: p.unlink(), StoreError, "no such feature cache; make one with hfc extract"),
    "other HDF5": (other_hdf5, StoreError, "expected a feature cache of schema 1 or 2, found none"),
    "schema": (change(lambda f: f.attrs.update(schema=3)), StoreError, "cache of schema 1 or 2, found 3"),
    "incomplete": (change(lambda f: f.attrs.update(complete=False)), IncompleteStoreError, "extraction did not finish"),
    "flipped bit": (flip, StoreError, "damaged feature cache, rows 0 to 256"),
    "feature": (change(set_value("features", 5, 1)), StoreError, "its features do not match their checksum"),
    "label": (change(set_value("label", 5, "Tie")), StoreError, "its rows do not match their checksum"),
    "group": (change(set_value("group", 5, "g")), StoreError, "its rows do not match their checksum"),
    "bytes": (change(set_value("sha256", (5, 31), 0)), StoreError, "its rows do not match their checksum"),
    "size": (change(set_value("size", 5, 7)), StoreError, "its rows do not match their checksum"),
    "modified": (change(set_value("modified", 5, 7)), StoreError, "its rows do not match their checksum"),
    "no column": (change(lambda f: f.pop("modified")), StoreError, "its rows cannot be read"),
    "called schema 1": (change(lambda f: f.attrs.update(schema=1)), StoreError, "rows do not match their checksum"),
    "box": (change(set_value("box", 0, 9)), StoreError, "its rows do not match their checksum"),
    "key": (change(lambda f: f.attrs.update(feature_key="0")), StoreError, "its header does not match its checksum"),
    "config": (
        change(lambda f: f.attrs.update(config='{"a": 2}')),
        StoreError,
        "its header does not match its checksum",
    ),
    "byte order": (swap_bytes, StoreError, "its header does not match its checksum"),
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


Content = tuple[bytes, list[object], object]


def content(path: Path) -> Content:
    """Everything that a cache can tell, checked as stage 2 checks it."""
    with store.FeatureStore(path) as cache:
        table = cache.table()
        columns = [getattr(table.regions, name).tolist() for name in ("id", "path", "label", "split", "group")]
        assert table.fingerprints is not None
        rows = [*columns, table.fingerprints.digest(), table.regions.box.tobytes(), table.ok.tolist(), table.failures]
        header = [cache.key, cache.key_fields, cache.config, cache.provenance, cache.features_sha256, cache.shape]
        features = cache.features()
        return features.tobytes(), rows, [header, features.dtype.str, table.regions.root, table.regions.origin]


def flipped(path: Path, places: Iterable[int], mask: int) -> Counter[str]:
    """Flip bits of one byte at a time; count what was noticed and what changed nothing."""
    want, whole = content(path), path.read_bytes()
    outcome: Counter[str] = Counter()
    victim = path.with_name("victim.h5")
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= mask
        victim.write_bytes(damaged)
        try:
            got = content(victim)
        except StoreError:
            outcome["noticed"] += 1
        else:
            assert got == want, f"byte {place} of {len(whole)}, mask {mask:#04x}: read as another number"
            outcome["harmless"] += 1
    return outcome


def test_a_flipped_bit_is_noticed_or_harmless(tmp_path: Path) -> None:
    write(tmp_path / "c.h5", 40)
    size = (tmp_path / "c.h5").stat().st_size
    places = np.random.default_rng(0).choice(size, 500, replace=False)
    outcome = flipped(tmp_path / "c.h5", [int(place) for place in places], 1)
    assert outcome["noticed"] > 150  # the rest is space that nothing refers to


@pytest.mark.slow
@pytest.mark.parametrize("mask", [0x01, 0xFF])
def test_any_flipped_byte_is_noticed_or_harmless(mask: int, tmp_path: Path) -> None:
    write(tmp_path / "c.h5", 40)
    size = (tmp_path / "c.h5").stat().st_size
    assert sum(flipped(tmp_path / "c.h5", range(size), mask).values()) == size


def test_every_damage_is_listed(tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    write(path, 600)
    assert list(store.problems(path)) == []
    with h5py.File(path) as file:
        places = [file["features"].id.get_chunk_info(i).byte_offset + 20 for i in (0, 2)]
    damaged = bytearray(path.read_bytes())
    for place in places:
        damaged[place] ^= 1
    path.write_bytes(damaged)
    change(set_value("label", 5, "Tie"))(path)
    found = list(store.problems(path))
    assert [line.split(": ")[1] for line in found] == [
        "damaged feature cache",
        "damaged feature cache, rows 0 to 256",
        "damaged feature cache, rows 512 to 600",
    ]


def test_damaged_shards_are_listed(tmp_path: Path) -> None:
    folder = tmp_path / "c.h5.shards"
    shard = shard_of(np.ones((3, 1, 8), np.float16))
    for start in (0, 3):
        store.write_shard(folder / f"{start:09d}-{start + 3:09d}.h5", replace(shard, start=start), KEY)
    cut(folder / "000000003-000000006.h5")
    first, second = store.problems(tmp_path / "c.h5")
    assert "000000003-000000006.h5: damaged shard: " in first
    assert second.endswith("c.h5: extraction did not finish; run the same hfc extract again")


def test_shards_alone_are_an_incomplete_cache(tmp_path: Path) -> None:
    (tmp_path / "c.h5.shards").mkdir()
    with pytest.raises(IncompleteStoreError, match="run the same hfc extract again"):
        store.FeatureStore(tmp_path / "c.h5")


def test_a_cache_that_may_not_be_read_says_so(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "c.h5", 40)
    for closed, message in (
        (tmp_path / "in" / "c.h5", "not a readable HDF5 file"),
        (tmp_path / "in", "cannot be read"),
    ):
        before = closed.stat().st_mode
        closed.chmod(0)
        with unprivileged(), pytest.raises(StoreError, match=f"{message}.*Permission denied"):
            store.FeatureStore(tmp_path / "in" / "c.h5")
        with unprivileged():
            assert [message in problem for problem in store.problems(tmp_path / "in" / "c.h5")] == [True]
        closed.chmod(before)
