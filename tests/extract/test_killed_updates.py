"""Updates of a finished cache under fire: kills at any moment, and several processes. Every call here is a process."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hfc import store
from tests.extract.test_faults import CUT, RENAMED, ROOT, ROWS, WORDS, checksum, hfc, start, torchrun
from tests.support.deepfashion_tree import write_images

CHANGED, GONE, NEW = 6, 3, 15
ENCODED = CHANGED + NEW


def write_manifest(folder: Path, names: list[str]) -> Path:
    manifest = folder / "m.csv"
    manifest.write_text("\n".join(["path,label,split", *(f"{name},L,train" for name in names)]))
    return manifest


def content(path: Path) -> tuple[str, str]:
    """Checksums of the features, and of everything in the rows but dates."""
    with store.FeatureStore(path) as cache:
        cache.verify()
        table = cache.table()
        assert table.fingerprints
        dateless = replace(table.fingerprints, modified=table.fingerprints.modified * 0)
        return cache.features_sha256, replace(table, fingerprints=dateless).digest()


class Collection:
    """Photographs that have changed since a cache was made of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        names = [f"{i}.jpg" for i in range(ROWS)]
        write_images(folder, names)
        self.manifest = write_manifest(folder, names)
        self.old, self.fresh = folder / "old.h5", folder / "fresh.h5"
        code, said = hfc(self.manifest, "--out", self.old, *WORDS, *CUT)
        assert code == 0, said
        self.before = content(self.old)
        new = [f"new{i}.jpg" for i in range(NEW)]
        write_images(folder, names[:CHANGED] + new, first=100)
        write_manifest(folder, names[: ROWS - GONE] + new)
        code, said = hfc(self.manifest, "--out", self.fresh, *WORDS, *CUT)
        assert code == 0, said
        self.after = content(self.fresh)
        assert self.after != self.before

    def copy(self, folder: Path) -> tuple[object, ...]:
        """Put the old cache into a folder; gives the words of a command that brings it up to date."""
        shutil.copy(self.old, folder / "c.h5")
        return (self.manifest, "--out", folder / "c.h5", *WORDS, *CUT)


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    return Collection(tmp_path_factory.mktemp("collection"))


COUNTS = f"{ROWS - GONE + NEW} regions: {ROWS - GONE - CHANGED} kept, {NEW} new, {CHANGED} changed, {GONE} gone"
# Six shards, and the cache: its rename is the seventh, its sync the thirteenth of all.
INSTANTS = [("before rename", 7), ("after rename", 7), ("write", 75)]
MORE = [("before rename", 1), ("after rename", 3), ("fsync", 1), ("fsync", 8), ("fsync", 13), ("fsync", 14)]
MARKED = [*INSTANTS, *(pytest.param(instant, marks=pytest.mark.slow) for instant in MORE)]


@pytest.mark.parametrize("instant", MARKED, ids=str)
def test_a_kill_at_any_instant_leaves_the_old_cache_or_the_new(
    instant: tuple[str, int], collection: Collection, tmp_path: Path
) -> None:
    words = collection.copy(tmp_path)
    assert hfc(*words, rigged=instant)[0] == -signal.SIGKILL
    assert content(tmp_path / "c.h5") == (collection.after if instant in RENAMED else collection.before)
    shards = store.shard_files(tmp_path / "c.h5")
    code, said = hfc(*words)
    assert code == 0, said
    if instant not in RENAMED:
        assert COUNTS in said
        assert f"{ENCODED - sum(len(store_rows(name)) for name in shards)} of " in said
    assert content(tmp_path / "c.h5") == collection.after
    assert [path.name for path in tmp_path.iterdir()] == ["c.h5"]


def store_rows(shard: Path) -> range:
    """The work rows of a shard, by its name."""
    first, stop = shard.stem.split("-")
    return range(int(first), int(stop))


@pytest.mark.slow
def test_killed_ten_times_at_random_it_ends_as_a_fresh_extraction(collection: Collection, tmp_path: Path) -> None:
    words, numbers = collection.copy(tmp_path), np.random.default_rng()
    started = time.perf_counter()
    assert hfc(*words)[0] == 0
    whole = time.perf_counter() - started  # of an update that nothing disturbs
    words, kills = collection.copy(tmp_path), 0
    for _ in range(10):
        process = start(*words)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(float(numbers.uniform(0.3, 1.1)) * whole)
        process.kill()
        process.communicate(timeout=60)
        kills += process.returncode == -signal.SIGKILL
        state = content(tmp_path / "c.h5")
        assert state in (collection.before, collection.after)
        if state == collection.after:
            words = collection.copy(tmp_path)
    assert kills >= 3
    code, said = hfc(*words)
    assert code == 0, said
    assert content(tmp_path / "c.h5") == collection.after
    assert [path.name for path in tmp_path.iterdir()] == ["c.h5"]


def test_two_processes_of_torchrun_update_together(collection: Collection, tmp_path: Path) -> None:
    words = collection.copy(tmp_path)
    code, said = torchrun(*words)
    assert code == 0, said
    assert said.count(COUNTS) == 1
    assert said.count(f"{ENCODED} of {ROWS - GONE + NEW} regions in") == 1
    assert content(tmp_path / "c.h5") == collection.after
    assert [path.name for path in tmp_path.iterdir()] == ["c.h5"]


@pytest.mark.slow
def test_rays_actors_update_together(collection: Collection, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    words = collection.copy(tmp_path)
    command = [sys.executable, "-m", "cli", "extract", *map(str, words), "--engine", "ray"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert COUNTS in done.stdout
    with store.FeatureStore(tmp_path / "c.h5") as cache, store.FeatureStore(collection.fresh) as fresh:
        cache.verify()
        assert cache.table().regions.digest == fresh.table().regions.digest
        np.testing.assert_allclose(cache.features(), fresh.features(), rtol=1e-3, atol=1e-5)
    assert checksum(tmp_path / "c.h5")
