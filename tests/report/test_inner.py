"""Runs whose test images have inner labels too: leaves are judged by the others, and the report counts them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hfc import runs, store
from hfc.errors import RunError
from hfc.hierarchy import Hierarchy
from hfc.regions import strings
from hfc.report import write_report
from hfc.report.rows import read_leaderboards
from hfc.store import Predictions, read_predictions, write_predictions
from tests.support.made_runs import tree_of, write_run

TREE = "leaf,kind,group\nTee,short,tops\nTank,short,tops\nShirt,,tops\nJeans,,trousers\nHat,,\n"


def with_inner(folder: Path, tree: Hierarchy, labels: list[str]) -> Path:
    """Add test images with inner labels to a run's predictions, here and there among the others."""
    file = folder / "predictions.h5"
    before = read_predictions(file)
    assert isinstance(before, Predictions)
    path = np.concatenate([tree.ancestors[before.target], tree.find(labels, "a test")])
    target = np.concatenate([before.target, np.full(len(labels), -1)])
    rng = np.random.default_rng(0)
    order = rng.permutation(len(target))
    final = np.concatenate([before.final, rng.random((len(labels), len(tree.leaves)), dtype=np.float32)])[order]
    levels = tuple(rng.random((len(order), size), dtype=np.float32) for size in tree.sizes)
    ids = np.concatenate([before.id, strings([f"images/{i:04d}i.jpg" for i in range(len(labels))])])[order]
    write_predictions(file, Predictions(ids, target[order], levels, final, before.key, path=path[order]))
    return folder


@pytest.mark.parametrize("shortened", [False, True])
def test_leaves_are_judged_by_the_images_whose_label_is_one(
    shortened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tree_of(tmp_path / "tree.csv", TREE)
    write_run(tmp_path / "runs" / "leaves", tree, changed={"inner_labels": "leave-out"})
    inner = {"train": 30, "test": 3}
    folder = with_inner(
        write_run(tmp_path / "runs" / "inner", tree, rows__inner=inner, rows__train=130),
        tree,
        ["tops", "tops", "short"],
    )
    if shortened:
        monkeypatch.setattr("hfc.store.predictions.MOST_LEAVES", 3)
        whole = read_predictions(folder / "predictions.h5")
        assert isinstance(whole, Predictions)
        write_predictions(folder / "predictions.h5", store.shortened(whole, tree.ancestors))
    (board,) = read_leaderboards(runs.find([tmp_path / "runs"]))
    by_label = {outcome.label: outcome.predictions[0] for outcome in board.outcomes}
    assert by_label.keys() == {"flat (tree) inner_labels=leave-out", "flat (tree)"}
    plain, other = by_label["flat (tree) inner_labels=leave-out"], by_label["flat (tree)"]
    assert plain.digest == other.digest  # tested on the same images with a leaf label
    for name in ("id", "target", "predicted", "rank", "confidence"):
        assert getattr(plain, name).tolist() == getattr(other, name).tolist()
    summary = write_report([tmp_path / "runs"], tmp_path / "out")
    assert "(1 seed, 60 test images)" in summary.table
    text = (tmp_path / "out" / "report.md").read_text("utf-8")
    assert (
        "The label of some images is an inner node: 30 for training, 3 for test (flat (tree)); none "
        "(flat (tree) inner_labels=leave-out). Test images of this kind count on the levels down to their label, and "
        "not where leaves are judged."
    ) in text.replace("\\", "")
    assert "130 / 20 / 60, inner labels: 30 / 0 / 3" in text
    assert "numbers of training and validation images." in text  # with a leaf as their label: they are the same
    assert "Every run's stored predictions give the top-1 that it reports." in text


def test_rows_with_other_inner_labels_are_told_apart(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv", TREE)
    write_run(tmp_path / "runs" / "a", tree)
    write_run(tmp_path / "runs" / "b", tree, seed=1, rows__inner={"train": 1200})
    write_run(tmp_path / "runs" / "c", tree, seed=2, config__inner_labels="use")  # as of a, which does not record it
    (board,) = read_leaderboards(runs.find([tmp_path / "runs"]))
    assert {outcome.label: outcome.row.seeds for outcome in board.outcomes} == {
        "flat (tree) 0 inner labels": [0, 2],
        "flat (tree) 1,200 inner labels": [1],
    }


def test_a_level_has_a_column_where_a_run_has_measured_it(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv", TREE)
    for name, levels in (("a", {"group": 0.75}), ("b", {"group": 0.5, "kind": 0.25})):
        folder = write_run(tmp_path / "runs" / name, tree, method=name, test__level_accuracy=levels)
        assert runs.read(folder).result.test["level_accuracy/group"]
    write_report([tmp_path / "runs"], tmp_path / "out")
    lines = (tmp_path / "out" / "report.md").read_text("utf-8").partition("own answer, %")[2].splitlines()
    assert sorted([line for line in lines if line.startswith("|")][:4]) == [
        "| --- | --- | --- |",
        "| a (tree) | **75.00** | – |",
        "| b (tree) | 50.00 | 25.00 |",
        "| method | group | kind |",
    ]


def test_predictions_without_a_leaf_label_are_refused(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv", TREE)
    folder = write_run(tmp_path / "r", tree, rows=5)
    before = read_predictions(folder / "predictions.h5")
    assert isinstance(before, Predictions)
    none = replace(before, target=np.full(5, -1), path=tree.find(["tops"] * 5, "a test"))
    for predictions, message in (
        (none, "predictions.h5: expected a test row whose label is a leaf, found none; train the run again"),
        (replace(none, path=None), "predictions.h5: names a leaf that the run's hierarchy lacks; train the run again"),
    ):
        write_predictions(folder / "predictions.h5", predictions)
        with pytest.raises(RunError, match=message):
            read_leaderboards([runs.read(folder)])
