"""What is said of rows before training: groups in several splits, and leaves that nothing trains."""

from pathlib import Path

import pytest

from hfc.train.cache import load_cache
from hfc.train.data import prepare
from hfc.train.notices import announce, untrained
from hfc.train.stage import train_all
from tests.support.made_up import write_cache
from tests.support.training import quick


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


def test_leaves_that_inner_labels_alone_train_are_warned_of_apart(
    place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Below tops a leaf is trained and one is not; below lower none is, and long is an inner node on the way.
    labels = ["Tee", "tops", "lower > long", "Tee", "Tee", "Tank", "Tank", "Coat", "Jeans", "Shorts", "upper"]
    path = write_cache(tmp_path / "c.h5", labels, ["train"] * 3 + ["val"] + ["test"] * 7)
    data = prepare(load_cache(path), str(place / "tree.csv"))
    assert untrained(data) == ({"Coat": 1, "Shorts": 1}, {"Jeans": 1, "Tank": 2})
    announce(path, [data], on_rows=lambda rows: None)
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        f"{path}: no row of the train split is labelled Coat, Shorts; "
        "the 2 test rows that are cannot be answered right",
        f"{path}: no row of the train split is labelled Jeans, Tank; the 3 test rows that are have leaves that are "
        "trained by labels above them alone, which tell no leaves apart",
    ]


def test_where_all_training_labels_are_inner_every_tested_leaf_is_warned_of(
    place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_cache(
        tmp_path / "c.h5", ["upper", "lower", "Tee", "Tank", "Jeans"], ["train"] * 2 + ["val"] + ["test"] * 2
    )
    announce(path, [prepare(load_cache(path), str(place / "tree.csv"))], on_rows=lambda rows: None)
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        f"{path}: no row of the train split is labelled Jeans, Tank; the 2 test rows that are have leaves that are "
        "trained by labels above them alone, which tell no leaves apart"
    ]
