"""Twins against a comparison of every pair, one after the other."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hfc import store
from hfc.regions import Regions, strings
from hfc.store.twins import CHUNK_ROWS, NONE, Nearest, Twins, find_twins
from tests.support.caches import KEY, put

Pairs = dict[tuple[int, int], float]


def write(
    path: Path,
    features: NDArray[np.floating],
    labels: list[str] | None = None,
    splits: list[str] | None = None,
    failed: tuple[int, ...] = (),
) -> Path:
    """A cache of (N, V, D) features."""
    count = len(features)
    ok = np.ones(count, dtype=np.bool_)
    ok[list(failed)] = False
    features = np.where(ok[:, None, None], features, 0).astype(np.float32)
    names = strings([f"{i}.jpg" for i in range(count)])
    box = np.full((count, 4), np.nan, dtype=np.float32)
    label, split = (strings(column or [""] * count) for column in (labels, splits))
    regions = Regions(path.parent, "made up", names, names, box, label, split)
    reasons = [(row, "bad") for row in failed]
    provenance = {"dataset": {"source": "/photos"}}
    return put(path, regions, features, key_fields=KEY, ok=ok, failures=reasons, provenance=provenance)


def planted(count: int, dim: int = 40, views: int = 1) -> NDArray[np.float64]:
    """Random features in which every seventh row is nearly the one three before, with more noise the later it is."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(count, views, dim)) * rng.uniform(0.1, 5, dim) + rng.normal(size=dim)
    for row in range(7, count, 7):
        features[row] = features[row - 3] + rng.normal(size=(views, dim)) * row / count
    return features


def by_hand(features: NDArray[np.floating], min_cosine: float, rows: list[int]) -> Pairs:
    """Every pair of twins and its cosine: two loops, one number after the other."""
    means = [[float(np.mean([view[d] for view in features[row]])) for d in range(features.shape[2])] for row in rows]
    centre = [sum(column) / len(rows) for column in zip(*means, strict=True)]
    pairs = zip(zip(*means, strict=True), centre, strict=True)
    spread = [(sum((x - c) ** 2 for x in column) / len(rows)) ** 0.5 for column, c in pairs]
    scaled = [[(x - c) / s for x, c, s in zip(row, centre, spread, strict=True)] for row in means]
    twins = {}
    for (i, a), (j, b) in combinations(zip(rows, scaled, strict=True), 2):
        product = sum(x * y for x, y in zip(a, b, strict=True))
        cosine = product / (sum(x * x for x in a) * sum(y * y for y in b)) ** 0.5
        if cosine >= min_cosine:
            twins[i, j] = cosine
    return twins


def sets_by_hand(pairs: Pairs) -> set[frozenset[int]]:
    """Sets that grow together as long as two of them share a row."""
    sets = [set(pair) for pair in pairs]
    while joined := next(((a, b) for a, b in combinations(sets, 2) if a & b), None):
        sets = [one for one in sets if one is not joined[0] and one is not joined[1]] + [joined[0] | joined[1]]
    return {frozenset(one) for one in sets}


def check(twins: Twins, expected: Pairs, training: set[int]) -> None:
    assert twins.pairs == len(expected)
    assert {frozenset(rows.tolist()) for rows in twins.sets} == sets_by_hand(expected)
    assert [len(rows) for rows in twins.sets] == sorted(map(len, twins.sets), reverse=True)
    both = expected | {(j, i): cosine for (i, j), cosine in expected.items()}
    for row in range(len(twins.table.ok)):
        for nearest, allowed in ((twins.nearest, None), (twins.nearest_in_training, training)):
            near = {j: c for (i, j), c in both.items() if i == row and (allowed is None or j in allowed)}
            if near:
                assert nearest.row[row] == max(near, key=near.__getitem__)
                assert nearest.cosine[row] == pytest.approx(max(near.values()), abs=2e-6)
            else:
                assert nearest.row[row] == NONE


@pytest.mark.parametrize("min_cosine", [0.3, 0.7, 0.9])
@pytest.mark.parametrize("views", [1, 2])
def test_twins_are_those_of_two_loops(min_cosine: float, views: int, tmp_path: Path) -> None:
    features = planted(100, views=views)
    splits = ["train", "test", "val", ""] * 25
    path = write(tmp_path / "c.h5", features, splits=splits, failed=(3, 14))
    rows = [row for row in range(100) if row not in (3, 14)]
    expected = by_hand(features.astype(np.float32), min_cosine, rows)
    assert len(expected) > 3
    check(find_twins(path, min_cosine), expected, {row for row in rows if splits[row] == "train"})


def test_blocks_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 9 * CHUNK_ROWS + 77
    path = write(tmp_path / "c.h5", planted(count), splits=["train", "test", "test"] * (count // 3 + 1))
    whole = find_twins(path, 0.8)
    assert len(whole.sets) > 100
    monkeypatch.setattr("hfc.store.twins.PAIR_ROWS", 3)
    monkeypatch.setattr("hfc.store.twins.MOST_EDGES", 5)
    for tile_rows in (CHUNK_ROWS, 4 * CHUNK_ROWS):
        parts = find_twins(path, 0.8, tile_rows=tile_rows)
        assert parts.pairs == whole.pairs
        assert [rows.tolist() for rows in parts.sets] == [rows.tolist() for rows in whole.sets]
        for one, other in ((parts.nearest, whole.nearest), (parts.nearest_in_training, whole.nearest_in_training)):
            np.testing.assert_array_equal(one.row, other.row)
            np.testing.assert_array_equal(one.cosine, other.cosine)


def test_the_short_vectors_hide_no_twin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However little of the variance they keep; and they do spare work, or nothing would be shortened."""
    path = write(tmp_path / "c.h5", planted(600))
    expected = by_hand(planted(600).astype(np.float32), 0.8, list(range(600)))
    for kept in (0.05, 0.5, 1.0):
        monkeypatch.setattr("hfc.store.twins.KEPT", kept)
        check(find_twins(path, 0.8), expected, set())


def test_crossing_is_counted_by_set(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(6, 1, 30))
    rows = [0, 0, 1, 1, 2, 2, 2, 3, 3, 4, 5]
    labels = ["A", "A", "A", "B", "A", "", "A", "", "", "A", "B"]
    splits = ["train", "test", "train", "train", "test", "test", "val", "test", "train", "test", "train"]
    twins = find_twins(write(tmp_path / "c.h5", base[rows], labels, splits), 0.99)
    assert [part.tolist() for part in twins.sets] == [[4, 5, 6], [0, 1], [2, 3], [7, 8]]
    assert (twins.rows, twins.pairs) == (9, 6)
    assert twins.sets_across_splits == 3
    assert twins.sets_of_several_labels == 1  # an unknown label contradicts none
    assert twins.with_twin_in_training("test") == (2, 5)
    assert twins.with_twin_in_training("train") == (2, 5)
    assert twins.source == Path("/photos")


def test_other_labels_and_splits_are_those_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "c.h5", np.random.default_rng(0).normal(size=(2, 1, 8))[[0, 0, 1]], splits=["train"] * 3)
    with store.FeatureStore(path) as opened:
        table = opened.table()
    table.regions.split[1] = "test"
    assert find_twins(path, 0.9).with_twin_in_training("test") == (0, 0)
    assert find_twins(path, 0.9, table).with_twin_in_training("test") == (1, 1)


def test_equal_rows_are_twins_at_a_cosine_of_1(tmp_path: Path) -> None:
    features = planted(50).astype(np.float16)
    features[20] = features[40] = features[10]
    features[:, :, 3] = 7  # a dimension that never changes tells nothing
    twins = find_twins(write(tmp_path / "c.h5", features), 1.0)
    assert [rows.tolist() for rows in twins.sets] == [[10, 20, 40]]
    assert twins.nearest.row[[10, 20, 40]].tolist() == [20, 10, 10]  # of several as near the first
    assert twins.nearest.cosine[10] == 1


@pytest.mark.parametrize(("count", "pairs"), [(1, 0), (5, 10)])
def test_rows_that_are_all_equal_are_one_set(count: int, pairs: int, tmp_path: Path) -> None:
    assert find_twins(write(tmp_path / "c.h5", np.full((count, 1, 8), 0.1)), 0.9).pairs == pairs


def test_a_cache_without_any_features_has_no_twins(tmp_path: Path) -> None:
    twins = find_twins(write(tmp_path / "c.h5", np.ones((3, 1, 8)), failed=(0, 1, 2)), 0.9)
    assert (twins.pairs, twins.sets, twins.with_twin_in_training("test")) == (0, (), (0, 0))


def test_the_nearest_is_kept_whatever_comes_first() -> None:
    nearest = Nearest.empty(3)
    nearest.add(np.array([0, 1, 0]), np.array([2, 2, 1]), np.array([0.8, 0.9, 0.95]))
    nearest.add(np.array([0, 1]), np.array([2, 0]), np.array([0.9, 0.9]))
    assert nearest.row.tolist() == [1, 0, NONE]
    assert nearest.cosine.tolist() == [0.95, 0.9, -np.inf]
