"""A cache seen through a hierarchy: what can be trained on, and what is left out."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hfc.config import SPLITS, TrainConfig, resolve
from hfc.errors import ConfigError, HierarchyError, RunError
from hfc.hierarchy import Hierarchy
from hfc.train.cache import Cache, load_cache
from hfc.train.data import TrainingData, fold_data, label_numbers, prepare
from hfc.train.heads.layers import Target
from hfc.train.stage import train
from tests.support.made_up import small_cache, write_cache
from tests.support.training import quick
from tests.support.trees import Node, ancestors_of, nodes_of, path_to, uneven_trees


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_an_empty_split_is_refused(split: str, place: Path, tmp_path: Path) -> None:
    splits = [name for name in ("train", "val", "test") if name != split]
    path = write_cache(tmp_path / "c.h5", ["Tee", "Coat"] * 4, [splits[i // 4] for i in range(8)])
    with pytest.raises(RunError, match=f"c.h5: the {split} split is empty"):
        train(load_cache(path), quick(place), tmp_path / "runs")


def test_where_all_images_failed_the_first_reason_is_given(place: Path, tmp_path: Path) -> None:
    path = small_cache(tmp_path / "c.h5", failed=range(360))
    with pytest.raises(RunError) as caught:
        train(load_cache(path), quick(place), tmp_path / "runs")
    assert str(caught.value) == (
        f"{path}: no row has features, as all 360 images failed; the first is 00000.jpg: made to fail; mend them, then "
        "run the same hfc extract again"
    )


def test_a_split_whose_rows_are_all_left_out_says_why(place: Path, tmp_path: Path) -> None:
    labels = ["Tee", "Coat", "Tee", "Coat", "", "Tee", "Coat", "Tee"]
    splits = ["train"] * 4 + ["val"] * 3 + ["test"]
    path = write_cache(tmp_path / "c.h5", labels, splits, failed=[5, 6])
    with pytest.raises(RunError) as caught:
        prepare(load_cache(path), str(place / "tree.csv"))
    assert str(caught.value) == (
        f"{path}: the val split is empty: its 3 rows are left out, 2 without features, 1 without label; the first is "
        "00005.jpg: made to fail; train, val (to select the epoch) and test rows are needed"
    )


def test_a_train_split_of_one_label_is_refused(place: Path, tmp_path: Path) -> None:
    labels = ["Tee", "Tee", "Tee", "Coat", "Tee", "Coat"]
    path = write_cache(tmp_path / "c.h5", labels, ["train", "train", "train", "val", "test", "test"])
    with pytest.raises(RunError) as caught:
        prepare(load_cache(path), str(place / "tree.csv"))
    assert str(caught.value) == (
        f"{path}: all 3 rows of the train split have the label Tee; two labels are needed to train"
    )


# Labels of the training split: a leaf, an inner node by its name, another by its path, none; val and test are leaves.
MIXED = ["Tee", "tops", "upper > outer", "Coat", "lower", "", "Jeans", "Shorts"]
SPLIT = ["train"] * 8 + ["val"] * 2 + ["test"] * 3
TARGETS = [("Tee", 3), ("tops", 2), ("outer", 2), ("Coat", 3), ("lower", 1), ("", 0), ("Jeans", 3), ("Shorts", 3)]


def mixed(folder: Path, **changes: Any) -> Path:
    labels = [*MIXED, "Tee", "lower > long", "Coat", "tops", "Tank"]
    return write_cache(folder / "mixed.h5", labels, SPLIT, **changes)


def test_a_label_may_be_any_node(place: Path, tmp_path: Path) -> None:
    data = prepare(load_cache(mixed(tmp_path)), str(place / "tree.csv"))
    tree = data.hierarchy
    for row, (name, depth) in enumerate(TARGETS):
        path = data.target.path[row].tolist()
        assert sum(node >= 0 for node in path) == depth
        assert depth == 0 or tree.nodes[depth - 1][path[depth - 1]] == name
        assert data.target.leaf[row] == (tree.leaves.index(name) if depth == 3 else -1)
    assert data.rows["train"].tolist() == [0, 1, 2, 3, 4, 6, 7]
    assert data.counts.plain() == {
        "train": 7,
        "val": 2,
        "test": 3,
        "unused": {"without features": 0, "without label": 1, "without split": 0},
        "inner": {"train": 3, "val": 1, "test": 1},
    }
    assert str(data.counts) == (
        "rows: 7 train (3 with an inner label), 2 val (1 with an inner label), 3 test (1 with an inner label); "
        "left out: 1 without label"
    )


def test_inner_labels_may_be_left_out(place: Path, tmp_path: Path) -> None:
    path = mixed(tmp_path, failed=[1])
    data = prepare(load_cache(path), str(place / "tree.csv"), "leave-out")
    assert {split: rows.tolist() for split, rows in data.rows.items()} == {
        "train": [0, 3, 6, 7],
        "val": [8],
        "test": [10, 12],
    }
    assert not data.inner
    assert str(data.counts) == (  # a row without features is left out for that alone
        "rows: 4 train, 1 val, 2 test; left out: 1 without features, 1 without label, 4 with inner label"
    )


def test_without_inner_labels_it_is_all_the_same_what_becomes_of_them(place: Path, cache: Cache) -> None:
    used, left_out = (prepare(cache, str(place / "tree.csv"), value) for value in ("use", "leave-out"))
    assert (used.counts.inner, left_out.unused) == ({}, {**used.unused, "with inner label": 0})
    assert all((used.rows[split] == left_out.rows[split]).all() for split in SPLITS)


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_split_to_measure_on_without_a_leaf_is_refused(split: str, place: Path, tmp_path: Path) -> None:
    other = "test" if split == "val" else "val"
    labels = ["Tee", "Coat", "Tee", "tops", "lower"]
    path = write_cache(tmp_path / "c.h5", labels, ["train", "train", other, split, split])
    with pytest.raises(RunError) as caught:
        prepare(load_cache(path), str(place / "tree.csv"))
    assert str(caught.value) == (
        f"{path}: no row of the {split} split has a leaf as its label, its 2 rows have inner nodes such as tops; "
        "accuracy is that of leaves, so label some of them by leaves"
    )
    with pytest.raises(RunError) as caught:
        prepare(load_cache(path), str(place / "tree.csv"), "leave-out")
    assert str(caught.value) == (
        f"{path}: the {split} split is empty: its 2 rows are left out, 0 without features, 0 without label, "
        "2 with inner label; train, val (to select the epoch) and test rows are needed"
    )


def test_a_train_split_of_one_inner_label_is_refused(place: Path, tmp_path: Path) -> None:
    labels = ["tops", "upper > tops", " tops", "Coat", "Tee"]  # one node, written in three ways
    path = write_cache(tmp_path / "c.h5", labels, ["train", "train", "train", "val", "test"])
    with pytest.raises(RunError) as caught:
        prepare(load_cache(path), str(place / "tree.csv"))
    assert str(caught.value) == (
        f"{path}: all 3 rows of the train split have the label tops; two labels are needed to train"
    )


def test_a_label_that_is_no_node_is_refused(place: Path, tmp_path: Path) -> None:
    path = write_cache(tmp_path / "c.h5", ["Tee", "Hat", "Coat", "Tee"], ["train", "train", "val", "test"])
    with pytest.raises(HierarchyError, match=r"hierarchy tree does not fit .*c\.h5: it has no node for Hat"):
        prepare(load_cache(path), str(place / "tree.csv"))


def test_the_folds_of_a_cache_hold_its_training_and_validation_rows_in_whole_groups(
    place: Path, tmp_path: Path
) -> None:
    groups = [f"{i // 5}" if i % 3 else "" for i in range(360)]
    data = prepare(load_cache(small_cache(tmp_path / "c.h5", groups=groups)), str(place / "tree.csv"))
    both = sorted([*data.rows["train"].tolist(), *data.rows["val"].tolist()])
    held = []
    for fold in fold_data(data, 5):
        train, val, test = (fold.rows[split].tolist() for split in ("train", "val", "test"))
        assert (sorted([*train, *val]), test) == (both, [])
        assert not {groups[row] for row in train} & {groups[row] for row in val} - {""}
        held += val
    assert sorted(held) == both


def test_the_folds_hold_their_share_of_every_label_whatever_node_it_is(place: Path, tmp_path: Path) -> None:
    labels, splits = ["Tee", "tops", "Coat", "lower", "lower > long"] * 12, ["train", "val"] * 30
    path = write_cache(tmp_path / "c.h5", [*labels, "Tee"], [*splits, "test"])
    data = prepare(load_cache(path), str(place / "tree.csv"))
    for fold in fold_data(data, 4):
        assert Counter(labels[row] for row in fold.rows["val"].tolist()) == dict.fromkeys(set(labels), 3)
    # Only two rows have a leaf, so one of four folds would have none to measure.
    few = ["tops", "lower"] * 20 + ["Tee", "Coat"]
    path = write_cache(tmp_path / "few.h5", [*few, "Tee"], ["train", "val"] * 21 + ["test"])
    with pytest.raises(RunError) as caught:
        fold_data(prepare(load_cache(path), str(place / "tree.csv")), 4)
    assert str(caught.value) == "4 folds need a row each whose label is a leaf, for validation; give fewer folds"


def test_leaves_alone_are_numbered_as_they_are(place: Path, cache: Cache) -> None:
    data = prepare(cache, str(place / "tree.csv"))
    rows = data.rows["val"].numpy()
    assert (label_numbers(data.target, rows) == data.leaf("val")).all()


def test_a_hierarchy_whose_path_is_no_utf8_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(TrainConfig, {"hierarchy": "/caf\udce9/tree.csv"})
    assert str(caught.value) == (
        r"hierarchy: the name /caf\xe9/tree.csv is not UTF-8, which runs are kept in; rename the file"
    )


@given(paths=uneven_trees(), seed=st.integers(0, 2**32 - 1))
def test_a_batch_knows_which_leaves_lie_below_each_label(paths: list[Node], seed: int) -> None:
    rng, levels, ancestors = np.random.default_rng(seed), nodes_of(paths), ancestors_of(paths)
    names = tuple(tuple(map(str, nodes)) for nodes in levels)
    tree = Hierarchy("t", tuple(f"level {h}" for h in range(len(levels))), names, ancestors)
    every = [node for nodes in levels for node in nodes]
    for labels in (paths, every):  # leaves alone, or any nodes
        drawn = [labels[i] for i in rng.integers(len(labels), size=30)]
        rows = torch.from_numpy(rng.permutation(30))
        path = [path_to(label, levels) for label in drawn]
        leaf = [paths.index(label) if label in paths else -1 for label in drawn]
        target = Target(torch.tensor(path), torch.tensor(leaf))
        data = TrainingData(tree, {"train": rows[:20], "val": rows[20:]}, target, torch.zeros(30, 2), unused={})
        chosen = rows[:8].reshape(2, 4)
        batch = data.batch(chosen)
        assert data.inner == (-1 in leaf)
        assert batch.path.tolist() == [[path[row] for row in some] for some in chosen.tolist()]
        assert batch.leaf.tolist() == [[leaf[row] for row in some] for some in chosen.tolist()]
        if not data.inner:
            assert batch.below is None
            continue
        assert batch.below is not None
        want = [[[p[: len(drawn[row])] == drawn[row] for p in paths] for row in some] for some in chosen.tolist()]
        assert batch.below.tolist() == want
