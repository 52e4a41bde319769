"""A cache seen through a hierarchy: what can be trained on, and what is left out."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hfc.config import TrainConfig, resolve
from hfc.errors import ConfigError, RunError
from hfc.hierarchy import Hierarchy
from hfc.train.cache import load_cache
from hfc.train.data import TrainingData, fold_data, prepare
from hfc.train.heads.layers import Target
from hfc.train.stage import train, train_all
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


def test_leaves_that_are_tested_and_not_trained_are_warned_of_once(
    place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels = ["Tee", "Coat"] * 8 + ["Tee", "Jeans", "Jeans", "Shorts"] * 2
    path = write_cache(tmp_path / "c.h5", labels, ["train"] * 8 + ["val"] * 8 + ["test"] * 8)
    configs = [quick(place, method="flat", seed=seed, epochs=1) for seed in (0, 1)]
    for _ in range(2):
        list(train_all(path, configs, tmp_path / "runs"))
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        f"{path}: no row of the train split is labelled Jeans, Shorts; "
        "the 6 test rows that are cannot be answered right"
    ]


def test_groups_in_several_splits_are_warned_of_in_one_line(
    place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Of four groups, one is in all splits, one in train and val, one in train alone and one in rows without a label.
    labels, splits = ["Tee", "Coat"] * 6, ["train"] * 6 + ["val"] * 2 + ["test"] * 2 + ["train", "test"]
    labels[10:] = ["", ""]
    groups = ["a", "b", "c", "c", "", "", "a", "b", "a", "", "d", "d"]
    path = write_cache(tmp_path / "c.h5", labels, splits, groups=groups)
    configs = [quick(place, method="flat", seed=seed, epochs=1) for seed in (0, 1)]
    for _ in range(2):
        list(train_all(path, configs, tmp_path / "runs"))
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        f"{path}: 2 of 6 groups have rows in more than one split, 1 in train and test; test rows whose group was "
        "trained on are easier than those of new groups"
    ]


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
        data = TrainingData(tree, {"train": rows[:20], "val": rows[20:]}, target, unused={})
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
