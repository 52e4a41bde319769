"""A cache out of shards, and what must not go wrong."""

import errno
import os
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest

from hfc import store
from hfc.errors import StoreError
from tests.support.caches import KEY, fingerprints, regions, shard_of, write

SETTINGS = {"key_fields": KEY, "config": {}, "provenance": {}}


def table_of(count: int) -> store.Table:
    """Rows that all have features."""
    return store.Table(regions(count), np.ones(count, np.bool_), [], fingerprints(count))


def write_shards(folder: Path, features: store.Features, size: int) -> list[Path]:
    starts = range(0, len(features), size)
    for start in starts:
        store.write_shard(folder / f"{start}.h5", shard_of(features[start : start + size], start), KEY)
    return [folder / f"{start}.h5" for start in starts]


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    shards = write_shards(tmp_path, np.ones((300, 1, 8), np.float16), 300)
    none = np.full(300, -1)
    with pytest.raises(StoreError, match=r"c\.h5: row 300 \(röw 300\): expected features, found none in its source$"):
        origin = np.repeat([0, -1], 300), np.r_[np.arange(300), none]
        store.assemble(tmp_path / "c.h5", table_of(600), shards, *origin, **SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["0.h5"]
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written"):
        store.write_shard(tmp_path / "file" / "0.h5", shard_of(np.ones((3, 1, 8), np.float16)), KEY)


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
    shards = write_shards(tmp_path, features, 300)

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
        real_view = store.copying.view
        monkeypatch.setattr(store.copying, "view", lambda path: (flip(path), real_view(path))[1])
    message = r"/300\.h5: damaged shard" if where.startswith("shard") else r"/c\.h5: the disk does not give back"
    with pytest.raises(StoreError, match=message):
        origin = np.divmod(np.arange(600), 300)
        store.assemble(tmp_path / "c.h5", table_of(600), shards, *origin, **SETTINGS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.h5", "300.h5"]


def test_a_failed_write_that_the_system_tells_of_once_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def fail_once(descriptor: int) -> None:
        if not told:
            told.append(threading.current_thread().name)
            raise OSError(errno.EIO, "Input/output error")

    shards = write_shards(tmp_path, np.ones((3, 1, 8), np.float16), 3)
    monkeypatch.setattr(store.files, "SYNC_PAUSE_S", 0)
    monkeypatch.setattr(os, "fsync", fail_once)
    with pytest.raises(StoreError, match=r"/c\.h5: cannot be written: Input/output error"):
        store.assemble(tmp_path / "c.h5", table_of(3), shards, np.zeros(3), np.arange(3), **SETTINGS)
    assert told[0].startswith("sync")  # while the cache was still being made
    assert [path.name for path in tmp_path.iterdir()] == ["0.h5"]
