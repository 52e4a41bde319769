"""The cache file: what is in it, and that damage is noticed."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from hfc import store
from hfc.errors import IncompleteStoreError, StaleStoreError, StoreError
from hfc.provenance import digest
from hfc.regions import Regions, strings
from hfc.store.header import change_header
from tests.support.privileges import unprivileged

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
            assert h5py.check_string_dtype(file[name].dtype).encoding == "utf-8"
            assert file[name].fletcher32
        assert (file["box"].dtype, file["box"].shape) == (np.float32, (n, 4))
        assert (file["ok"].dtype, file["ok"].shape) == (np.bool_, (n,))
        assert file["failures"].dtype.names == ("row", "reason")
        assert file["failures"][:].tolist() == [(1, b"bad")]
        # The digests by hand: the bytes of the features, and the settings as sorted JSON without blanks.
        key = '{"backbone":"b","image_size":224,"schema":1}'
        attributes = {n: v.decode() if isinstance(v, bytes) else v for n, v in file.attrs.items()}
        stored = attributes.pop("header_sha256")
        names = ("feature_key", "key_fields", "config", "provenance", "features_sha256", "table_sha256")
        header = [{name: attributes[name] for name in names}, [n, 1, 8], np.dtype(dtype).str]
        canonical = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert stored == hashlib.sha256(canonical.encode()).hexdigest()
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


def nan_with_its_checksum(path: Path) -> None:
    """NaN that was written as such: the checksum agrees."""
    with h5py.File(path, "r+") as file:
        file["features"][5, 0, 3] = np.nan
        change_header(file, features_sha256=hashlib.sha256(file["features"][:].tobytes()).hexdigest())


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
    "flipped bit": (flip, StoreError, "damaged feature cache, rows 0 to 256"),
    "feature": (change(set_value("features", 5, 1)), StoreError, "its features do not match their checksum"),
    "label": (change(set_value("label", 5, "Tie")), StoreError, "its rows do not match their checksum"),
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
        columns = [getattr(table.regions, name).tolist() for name in ("id", "path", "label", "split")]
        rows = [*columns, table.regions.box.tobytes(), table.ok.tolist(), table.failures]
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
    places = np.random.default_rng(0).choice(size, 1500, replace=False)
    outcome = flipped(tmp_path / "c.h5", [int(place) for place in places], 1)
    assert outcome["noticed"] > 500  # the rest is space that nothing refers to


@pytest.mark.slow
@pytest.mark.parametrize("mask", [0x01, 0x10, 0x80, 0xFF])
def test_any_flipped_byte_is_noticed_or_harmless(mask: int, tmp_path: Path) -> None:
    write(tmp_path / "c.h5", 40)
    size = (tmp_path / "c.h5").stat().st_size
    assert sum(flipped(tmp_path / "c.h5", range(size), mask).values()) == size


def test_a_flipped_bit_of_a_shard_is_noticed_or_harmless(tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(40, 1, 8)).astype(np.float16)
    ok = np.arange(40) != 1
    store.write_shard(tmp_path / "0.h5", store.Shard(0, features, ok, [(1, "bad")]), KEY)
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
    shard = store.Shard(0, np.ones((3, 1, 8), np.float16), np.ones(3, np.bool_), [])
    for start in (0, 3):
        store.write_shard(folder / f"{start:09d}-{start + 3:09d}.h5", replace(shard, start=start), KEY)
    cut(folder / "000000003-000000006.h5")
    first, second = store.problems(tmp_path / "c.h5")
    assert "000000003-000000006.h5: damaged shard: " in first
    assert second.endswith("c.h5: extraction did not finish; run the same hfc extract again")


def test_rows_of_another_cache_take_the_place_of_some(tmp_path: Path) -> None:
    before = write(tmp_path / "c.h5", 600)
    shard = store.Shard(0, np.full((2, 1, 8), 7, np.float16), np.array([True, False]), [(1, "worse")])
    store.write_shard(tmp_path / "0.h5", shard, KEY)
    store.assemble(
        tmp_path / "o.h5", [tmp_path / "0.h5"], regions(2), key_fields=KEY, config={}, provenance={"dataset": {}}
    )
    store.merge(tmp_path / "c.h5", np.array([1, 599]), tmp_path / "o.h5", {"merged": True})
    with store.FeatureStore(tmp_path / "c.h5") as cache:
        cache.verify()
        assert (cache.key, cache.provenance) == (digest(KEY), {"merged": True})
        got, table = cache.features(), cache.table()
    before[1], before[599] = 7, 7
    np.testing.assert_array_equal(got, before)
    assert np.flatnonzero(~table.ok).tolist() == [599]
    assert table.failures == [(599, "worse")]
    with pytest.raises(StoreError, match="expected 1 rows like those of"):
        store.merge(tmp_path / "c.h5", np.array([1]), tmp_path / "o.h5", {})


def test_a_survey_counts_what_is_there(tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(6, 1, 4)).astype(np.float32)
    features[0], features[:, 0, 2] = 0, 5
    features[4] = features[2]
    ok = np.arange(6) != 0
    features[~ok] = 0
    store.write_shard(tmp_path / "0.h5", store.Shard(0, features, ok, [(0, "bad")]), KEY)
    table = regions(6)
    table.label[3:] = "Tie"
    table.split[5] = ""
    store.assemble(tmp_path / "c.h5", [tmp_path / "0.h5"], table, key_fields=KEY, config={}, provenance={})
    found = store.survey(tmp_path / "c.h5")
    norms = np.sqrt((features[1:, 0].astype(float) ** 2).sum(axis=1))
    assert (found.shape, found.dtype, found.key) == ((6, 1, 4), "float32", digest(KEY))
    assert (found.labels, found.splits) == ({"Tee": 3, "Tie": 3}, {"train": 5, "": 1})
    assert found.failures == [("röw 0", "bad")]
    assert found.norms == pytest.approx(
        {"least": norms.min(), "median": np.median(norms), "mean": norms.mean(), "greatest": norms.max()}
    )
    assert (found.dead, found.duplicates) == ([2], [["röw 2", "röw 4"]])
    assert found.mean == pytest.approx(features[1:].mean(), rel=1e-5)
    assert found.zeros == 0


HOLD = (
    "import sys, time\nfrom pathlib import Path\nfrom hfc import store\n"
    "with store.locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)\n"
)


def test_a_lock_keeps_others_out_and_dies_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(StoreError, match=rf"c\.h5: process {holder.pid} on .* is writing to it; wait for it"),
            store.locked(path),
        ):
            pass
        holder.kill()
        holder.wait()
    assert (tmp_path / "c.h5.lock").exists()
    with store.locked(path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_killed_processes_are_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in ("c.h5", "c.h5.12.part", "c[1].h5.3.part", "cc.h5.12.part"):
        (tmp_path / name).touch()
    store.remove_leftovers(tmp_path / "c.h5", tmp_path / "c[1].h5")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.h5", "cc.h5.12.part"]


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


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="its shards hold 300 rows of 600"):
        shard = store.Shard(0, np.ones((300, 1, 8), np.float16), np.ones(300, np.bool_), [])
        store.write_shard(tmp_path / "0.h5", shard, KEY)
        store.assemble(tmp_path / "c.h5", [tmp_path / "0.h5"], regions(600), key_fields=KEY, config={}, provenance={})
    assert [path.name for path in tmp_path.iterdir()] == ["0.h5"]
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written"):
        store.write_shard(tmp_path / "file" / "0.h5", shard, KEY)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_chunks_are_the_same_whether_shards_end_on_them_or_not(dtype: str, tmp_path: Path) -> None:
    def chunks(size: int) -> list[tuple[int, bytes]]:
        features = write(tmp_path / "c.h5", 1300, dtype, size)
        with h5py.File(tmp_path / "c.h5") as file:
            assert np.array_equal(file["features"], features)
            starts = range(0, 1300, store.CHUNK_ROWS)
            return [file["features"].id.read_direct_chunk((start, 0, 0)) for start in starts]

    sizes = 100, 256, 300, 512, 1024, 1299, 1300
    assert [chunks(size) == chunks(1300) for size in sizes] == [True] * len(sizes)


@pytest.mark.parametrize("where", ["shard, readable", "shard, unreadable", "copy, readable", "copy, unreadable"])
def test_what_assembling_reads_back_must_be_what_each_shard_held(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = np.random.default_rng(0).normal(size=(600, 1, 8)).astype(np.float16)
    rows = {0: features[:300], 300: features[300:]}
    for start, part in rows.items():
        store.write_shard(tmp_path / f"{start}.h5", store.Shard(start, part, np.ones(300, np.bool_), []), KEY)
    shards = [tmp_path / f"{start}.h5" for start in rows]

    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        at = content.find(features[307].tobytes())
        content[at] ^= 1
        path.write_bytes(content)

    if where == "shard, readable":
        with h5py.File(shards[1], "r+") as file:
            file["features"][7, 0, 2] += 1
    elif where == "shard, unreadable":
        flip(shards[1])
    elif where == "copy, readable":
        real = store.table.put_failures

        def put_failures(file: h5py.File, failures: list[tuple[int, str]]) -> None:
            file["features"][307, 0, 2] += 1
            real(file, failures)

        monkeypatch.setattr(store.table, "put_failures", put_failures)
    else:
        real_view = store.assembly.view
        monkeypatch.setattr(store.assembly, "view", lambda path: (flip(path), real_view(path))[1])
    message = r"/300\.h5: damaged shard" if where.startswith("shard") else r"/c\.h5: the disk does not give back"
    with pytest.raises(StoreError, match=message):
        store.assemble(tmp_path / "c.h5", shards, regions(600), key_fields=KEY, config={}, provenance={})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.h5", "300.h5"]


def test_a_failed_write_that_the_system_tells_of_once_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def fail_once(descriptor: int) -> None:
        if not told:
            told.append(threading.current_thread().name)
            raise OSError(errno.EIO, "Input/output error")

    shard = store.Shard(0, np.ones((3, 1, 8), np.float16), np.ones(3, np.bool_), [])
    store.write_shard(tmp_path / "0.h5", shard, KEY)
    monkeypatch.setattr(store.files, "SYNC_PAUSE_S", 0)
    monkeypatch.setattr(os, "fsync", fail_once)
    with pytest.raises(StoreError, match=r"/c\.h5: cannot be written: Input/output error"):
        store.assemble(tmp_path / "c.h5", [tmp_path / "0.h5"], regions(3), key_fields=KEY, config={}, provenance={})
    assert told[0].startswith("sync")  # while the cache was still being made
    assert [path.name for path in tmp_path.iterdir()] == ["0.h5"]


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
