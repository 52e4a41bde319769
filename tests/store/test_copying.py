"""Rows of several sources in any order, against NumPy's indexing."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from hfc import store
from hfc.errors import StoreError
from hfc.store import assembly, copying
from hfc.store.copying import Origin
from tests.support.caches import KEY, fingerprints, put_parts, regions, shard_of

SIZES = 700, 300, 256, 1, 512  # of a cache, then of shards
TOTAL = sum(SIZES)
STARTS = np.cumsum([0, *SIZES[:-1]])
SETTINGS = {"key_fields": KEY, "config": {"a": 1}, "provenance": {"b": 2}}


@pytest.fixture(scope="module")
def features() -> store.Features:
    return np.random.default_rng(0).normal(size=(TOTAL, 2, 8)).astype(np.float16)


@pytest.fixture(scope="module")
def sources(features: store.Features, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A cache of the first rows, and shards of the others."""
    folder = tmp_path_factory.mktemp("sources")
    parts = [features[:300], features[300:700]]
    put_parts(folder / "old.h5", regions(TOTAL).take(np.arange(700)), parts, KEY, prints=fingerprints(700))
    for start, size in zip(STARTS[1:].tolist(), SIZES[1:], strict=True):
        store.write_shard(folder / f"{start}.h5", shard_of(features[start : start + size], start), KEY)
    return [folder / "old.h5", *(folder / f"{start}.h5" for start in STARTS[1:])]


def make(path: Path, sources: list[Path], rows: NDArray[np.int64]) -> store.Table:
    """A cache of these rows of all sources; -1 is one without features."""
    known = rows >= 0
    table = regions(TOTAL).take(np.where(known, rows, 0))
    table.id[:] = [f"{place} of {row}" for place, row in enumerate(rows)]
    prints = fingerprints(TOTAL).take(np.where(known, rows, 0))
    prints.sha256[~known] = 0
    failures = [(place, "bad") for place in np.flatnonzero(~known).tolist()]
    source = np.searchsorted(STARTS, rows, side="right") - 1
    row = rows - np.where(known, STARTS[source], 0)
    store.assemble(path, store.Table(table, known, failures, prints), sources, source, row, **SETTINGS)
    with store.FeatureStore(path) as cache:
        return cache.table()


def selections() -> dict[str, NDArray[np.int64]]:
    rng = np.random.default_rng(1)
    rows = np.arange(TOTAL)
    blocks = rng.permutation(len(SIZES))
    return {
        "all in order": rows,
        "sources in another order": np.concatenate([np.arange(STARTS[i], STARTS[i] + SIZES[i]) for i in blocks]),
        "permuted": rng.permutation(rows),
        "drawn with repetition": rng.integers(0, TOTAL, 2000),
        "one row missing": np.delete(rows, 5),
        "one row put in": np.insert(rows, 400, 1200),
        "failures between": np.insert(rows, [0, 3, 256, 700, TOTAL], -1),
        "one of every source": STARTS,
        "a source twice": np.r_[np.arange(256), np.arange(256)],
        "some chunks": np.r_[256:512, 0:256, 512:700, 1000:1256],
        "the start of a chunk": np.r_[0:300],
        "single": np.array([TOTAL - 1]),
        "nothing but failures": np.full(3, -1),
        **{f"drawn {seed}": drawn(seed) for seed in range(12)},
    }


def drawn(seed: int) -> NDArray[np.int64]:
    """Runs, backwards and forwards, with single rows and failures between."""
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(rng.integers(1, 9)):
        start, length = int(rng.integers(TOTAL)), int(rng.choice([1, 2, 40, 256, 300, 700]))
        run = np.arange(start, min(start + length, TOTAL))
        parts.append([run, run[::-1], rng.permutation(run), np.full(len(run) % 7, -1)][rng.integers(4)])
    rows = np.concatenate(parts)
    return rows if len(rows) else np.array([0])


SELECTIONS = selections()


@pytest.mark.parametrize("window", [1, 2**14, 2**28])
@pytest.mark.parametrize("name", SELECTIONS)
def test_any_rows_are_those_of_numpy(
    name: str,
    window: int,
    sources: list[Path],
    features: store.Features,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(copying, "WINDOW_BYTES", window)
    monkeypatch.setattr(copying, "BLOCK_ROWS", 512)
    rows = SELECTIONS[name]
    table = make(tmp_path / "c.h5", sources, rows)
    want = np.where((rows >= 0)[:, None, None], features[rows], np.float16(0))
    with store.FeatureStore(tmp_path / "c.h5") as cache:
        np.testing.assert_array_equal(cache.features(), want)
        assert (cache.key_fields, cache.config, cache.provenance) == (KEY, {"a": 1}, {"b": 2})
    assert table.regions.id.tolist() == [f"{place} of {row}" for place, row in enumerate(rows)]
    assert [path.name for path in tmp_path.iterdir()] == ["c.h5"]
    # The same rows in one shard make the same chunks, byte for byte.
    ok = rows >= 0
    prints = store.Fingerprints.unknown(len(rows))
    put_parts(tmp_path / "whole.h5", table.regions, [want], KEY, ok=ok, prints=prints)
    assert chunks(tmp_path / "c.h5") == chunks(tmp_path / "whole.h5")


def chunks(path: Path) -> list[tuple[int, bytes]]:
    with h5py.File(path) as file:
        features = file["features"]
        return [features.id.read_direct_chunk((start, 0, 0)) for start in range(0, len(features), features.chunks[0])]


def test_a_cache_may_take_its_own_place(sources: list[Path], features: store.Features, tmp_path: Path) -> None:
    (tmp_path / "c.h5").write_bytes(sources[0].read_bytes())
    rows = np.random.default_rng(0).permutation(TOTAL)
    make(tmp_path / "c.h5", [tmp_path / "c.h5", *sources[1:]], rows)
    with store.FeatureStore(tmp_path / "c.h5") as cache:
        np.testing.assert_array_equal(cache.features(), features[rows])


def test_rows_are_sorted_by_their_source() -> None:
    origin = Origin(np.array([2, -1, 0, 2, 0]), np.array([5, -1, 0, 4, 1]))
    assert [(number, rows.tolist()) for number, rows in origin.by_source()] == [(0, [2, 4]), (2, [0, 3])]


@pytest.mark.parametrize("name", ["all in order", "permuted", "failures between"])
def test_what_is_read_back_must_be_what_the_sources_hold(
    name: str, sources: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = assembly.put_table

    def put_table(file: h5py.File, table: store.Table) -> None:
        file["features"][4, 1, 2] += 1  # a row without features in the last selection
        real(file, table)

    monkeypatch.setattr(assembly, "put_table", put_table)
    with pytest.raises(StoreError, match=r"/c\.h5: the disk does not give back what was written; nothing was kept$"):
        make(tmp_path / "c.h5", sources, SELECTIONS[name])
    assert not list(tmp_path.iterdir())
