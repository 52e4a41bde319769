"""Predictions as a file."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from hfc import store
from hfc.errors import StoreError
from hfc.regions import strings


def test_predictions_are_read_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    levels = tuple(rng.random((4, size), dtype=np.float32) for size in (2, 3))
    written = store.Predictions(strings(["a", "b", "ü", "d"]), np.array([0, 2, 1, 1]), levels, levels[1] / 2)
    store.write_predictions(tmp_path / "p.h5", written)
    got = store.read_predictions(tmp_path / "p.h5")
    assert (got.id.tolist(), got.target.tolist()) == (["a", "b", "ü", "d"], [0, 2, 1, 1])
    for mine, theirs in zip((*got.levels, got.final), (*levels, levels[1] / 2), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert got.group is None
    (tmp_path / "p.h5").write_text("x")
    with pytest.raises(StoreError, match="cannot read predictions"):
        store.read_predictions(tmp_path / "p.h5")


def test_a_file_without_groups_is_the_same_to_the_byte(tmp_path: Path) -> None:
    final = np.ones((2, 3), dtype=np.float32)
    written = store.Predictions(strings(["a", "b"]), np.array([0, 2]), (final,), final, "key")
    groups = {"none": None, "blank": strings(["", ""]), "some": strings(["", "dress"])}
    for name, group in groups.items():
        store.write_predictions(tmp_path / name, replace(written, group=group))
    none, blank, some = ((tmp_path / name).read_bytes() for name in groups)
    assert none == blank != some
    assert store.read_predictions(tmp_path / "blank").group is None
    got = store.read_predictions(tmp_path / "some")
    assert got.group is not None
    assert got.group.tolist() == ["", "dress"]


def test_inner_labels_are_kept_as_paths_and_a_file_without_them_is_the_same_to_the_byte(tmp_path: Path) -> None:
    final = np.ones((3, 3), dtype=np.float32)
    written = store.Predictions(strings(["a", "b", "c"]), np.array([0, -1, 2]), (final,), final, "key")
    path = np.array([[0, 0], [1, -1], [1, 2]])
    store.write_predictions(tmp_path / "none", written)
    store.write_predictions(tmp_path / "some", replace(written, path=path))
    assert store.read_predictions(tmp_path / "none").path is None
    assert b"path" not in (tmp_path / "none").read_bytes()
    got = store.read_predictions(tmp_path / "some")
    assert got.path is not None
    assert (got.path.tolist(), got.target.tolist()) == (path.tolist(), [0, -1, 2])


def test_of_an_uneven_tree_what_is_kept_has_no_node_where_a_path_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hfc.store.predictions.MOST_LEAVES", 2)
    # Leaves: a hat right below the root, two tops, one dress below two nodes.
    ancestors = np.array([[0, -1, -1], [1, 0, -1], [1, 1, -1], [2, 2, 0]])
    levels = (
        np.array([[0.1, 0.7, 0.2]] * 4, dtype=np.float32),
        np.array([[0.5, 0.3, 0.2]] * 4, dtype=np.float32),
        np.array([[0.25]] * 4, dtype=np.float32),
    )
    final = np.array([[9, 1, 0, 0], [0, 9, 1, 0], [0, 0, 1, 9], [0, 0, 1, 9]], dtype=np.float32) / 10
    target = np.array([1, -1, -1, 3])
    path = np.array([[1, 0, -1], [1, -1, -1], [2, 2, -1], [2, 2, 0]])
    whole = store.Predictions(strings(list("abcd")), target, levels, final, "key", path=path)
    store.write_predictions(tmp_path / "p.h5", store.shortened(whole, ancestors))
    got = store.read_predictions(tmp_path / "p.h5")
    assert isinstance(got.final, store.Kept)
    assert got.path is not None
    assert got.path.tolist() == path.tolist()
    for h, kept in enumerate(got.levels):
        assert isinstance(kept, store.Kept)
        for row, shares in enumerate(levels[h].tolist()):
            order = sorted(range(len(shares)), key=lambda node, shares=shares: -shares[node])
            true, answer = int(path[row, h]), int(ancestors[final[row].argmax(), h])
            assert kept.rank[row] == (order.index(true) if true >= 0 else -1)
            for number, node in ((kept.true[row], true), (kept.answer[row], answer)):
                assert number == np.float32(shares[node]) if node >= 0 else np.isnan(number)
    assert (got.final.rank.tolist(), np.isnan(got.final.true).tolist()) == ([1, -1, -1, 0], [False, True, True, False])
    assert got.final.answer.tolist() == final.max(axis=1).tolist()


@pytest.mark.parametrize("leaves", [30, 12])
def test_of_thousands_of_leaves_the_best_alone_are_kept(
    leaves: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hfc.store.predictions.MOST_LEAVES", 11)
    rng = np.random.default_rng(leaves)
    ancestors = np.stack([np.arange(leaves) // 4, np.arange(leaves)], axis=1)
    levels = tuple(rng.random((9, size), dtype=np.float32) for size in (ancestors[-1, 0] + 1, leaves))
    final = rng.integers(0, 9, (9, leaves)).astype(np.float32)  # ties go to the first
    target = rng.integers(0, leaves, 9)
    whole = store.Predictions(strings([f"{i}" for i in range(9)]), target, levels, final, "key")
    store.write_predictions(tmp_path / "p.h5", store.shortened(whole, ancestors))
    got = store.read_predictions(tmp_path / "p.h5")
    assert (got.id.tolist(), got.target.tolist(), got.key) == (whole.id.tolist(), target.tolist(), "key")
    best = final.argmax(axis=1)
    for h, probabilities in enumerate((*levels, final)):
        column = ancestors[:, min(h, 1)]
        kept = (*got.levels, got.final)[h]
        assert isinstance(kept, store.Kept)
        for row, shares in enumerate(probabilities.tolist()):
            order = sorted(range(len(shares)), key=lambda node, shares=shares: (-shares[node], node))
            assert kept.node[row].tolist() == order[:20]
            assert kept.probability[row].tolist() == [shares[node] for node in order[:20]]
            assert kept.rank[row] == order.index(column[target[row]])
            assert kept.true[row] == shares[column[target[row]]]
            assert kept.answer[row] == shares[column[best[row]]]
            assert kept.total[row] == pytest.approx(sum(shares))
    numbers = [getattr(kept, part.name) for kept in (*got.levels, got.final) for part in fields(store.Kept)]
    assert sum(array.size for array in numbers) == 9 * store.count_kept((ancestors[-1, 0] + 1, leaves))


def test_of_few_leaves_every_probability_is_kept() -> None:
    levels = (np.ones((2, 1), dtype=np.float32), np.ones((2, 1000), dtype=np.float32))
    whole = store.Predictions(strings(["a", "b"]), np.array([0, 999]), levels, levels[1])
    assert store.shortened(whole, np.zeros((1000, 2), dtype=np.int64)) is whole
    assert store.count_kept((1, 1000)) == 2001
