"""Runs on labels of any node, and trees at their limits: what comes out is what is defined."""

from pathlib import Path

import numpy as np
import pytest

from hfc.runs import Run, hierarchy
from hfc.store import Predictions, read_predictions
from hfc.train.cache import load_cache
from hfc.train.stage import train
from tests.support.made_up import write_cache
from tests.support.temperatures import powers
from tests.support.training import quick

LEAVES = ["Tee", "Tank", "Coat", "Jeans", "Chinos", "Shorts"]
SPLITS = ["train", "train", "train", "val", "test"]


def run_on(place: Path, out: Path, labels: list[str], tree: str = "", **changes: object) -> Run:
    """Train on rows of the leaves by turns, of which each five have the splits above, under some labels."""
    leaves = [LEAVES[i % 6] for i in range(len(labels))]
    cache = write_cache(out / "c.h5", leaves, [split_of(i) for i in range(len(labels))])
    (out / "labels.csv").write_text("id,label\n" + "".join(f"{i:05d}.jpg,{label}\n" for i, label in enumerate(labels)))
    (out / "tree.csv").write_text(tree or (place / "tree.csv").read_text())
    loaded = load_cache(cache, device="cpu", labels=out / "labels.csv")
    return train(loaded, quick(out, **{"epochs": 3, **changes}), out / "runs")[0]


def split_of(row: int) -> str:
    return SPLITS[row // 6 % 5]


def predictions(run: Run) -> Predictions:
    stored = read_predictions(run.folder / "predictions.h5")
    assert isinstance(stored, Predictions)
    return stored


@pytest.mark.parametrize(
    "method", ["flat", "linear", "hmcn-f", "levels+path", "conditional", "flat+hxe", "flat+soft-labels"]
)
def test_methods_learn_from_inner_labels_and_are_measured_where_they_are_known(
    method: str, place: Path, tmp_path: Path
) -> None:
    # Of each split a third has its group in place of its leaf, and some the whole kind.
    group = {
        "Tee": "tops",
        "Tank": "upper > tops",
        "Coat": "upper",
        "Jeans": "long",
        "Chinos": "long",
        "Shorts": "lower",
    }
    labels = [group[LEAVES[i % 6]] if i // 30 % 3 == 0 else LEAVES[i % 6] for i in range(360)]
    run = run_on(place, tmp_path, labels, method=method)
    result, stored, tree = run.result, predictions(run), hierarchy(run)
    assert result.rows.inner == {"train": 72, "val": 24, "test": 24}
    rows = [i for i in range(360) if split_of(i) == "test"]
    path = tree.find([labels[i] for i in rows], "here")
    assert stored.path is not None
    assert (stored.path == path).all()
    assert stored.target.tolist() == tree.leaf(path).tolist()
    known = stored.target >= 0
    assert result.test["top1"] == pytest.approx((stored.final.argmax(axis=1) == stored.target)[known].mean())
    for h, name in enumerate(tree.levels):
        own = stored.levels[h].argmax(axis=1) if h < 2 else stored.final.argmax(axis=1)
        inside = path[:, h] >= 0
        assert inside.sum() == (72, 64, 48)[h]
        assert result.test[f"level_accuracy/{name}"] == pytest.approx((own == path[:, h])[inside].mean())


@pytest.mark.parametrize("method", ["flat", "hmcn-f"])
def test_a_stack_learns_from_inner_labels_as_a_run_by_itself(method: str, place: Path, tmp_path: Path) -> None:
    labels = ["tops" if i % 4 == 0 and i % 6 < 2 else LEAVES[i % 6] for i in range(120)]
    finals = []
    for step in ("single", "stacked"):
        (tmp_path / step).mkdir()
        run = run_on(place, tmp_path / step, labels, method=method, step=step, dropout=0.0, precision="fp32")
        assert run.result.rows.inner["train"] > 0
        # Without the temperature: after three epochs it is near 0, and makes little differences large.
        finals.append(powers(predictions(run).final, 1 / run.result.calibrated_by))
    np.testing.assert_allclose(finals[1], finals[0], rtol=1e-3, atol=1e-4)


def test_without_inner_labels_no_path_is_stored(place: Path, tmp_path: Path) -> None:
    run = run_on(place, tmp_path, LEAVES * 20, method="flat", epochs=1)
    assert (predictions(run).path, run.result.rows.inner) == (None, {})
    assert '"inner"' not in (run.folder / "result.json").read_text()


@pytest.mark.parametrize("method", ["flat", "linear", "hmcn-f", "levels+path", "conditional", "hmcn-f-original"])
def test_a_tree_of_one_level_is_a_flat_problem(method: str, place: Path, tmp_path: Path) -> None:
    run = run_on(place, tmp_path, LEAVES * 20, "leaf\n" + "\n".join(LEAVES), method=method)
    test = run.result.test
    assert test["top1"] == test["level_accuracy/leaf"] == test["full_path_accuracy"] == test["hF"]
    assert (test["inconsistency"], test["mistake_severity"]) == (0, 1 if test["top1"] < 1 else 0)


def test_the_label_of_a_node_with_one_child_teaches_its_leaf(place: Path, tmp_path: Path) -> None:
    """Where one leaf lies below a node, both names say the same."""
    runs = []
    for name in ("Shorts", "short"):
        (tmp_path / name).mkdir()
        labels = [name if leaf == "Shorts" and split_of(i) == "train" else leaf for i, leaf in enumerate(LEAVES * 20)]
        runs.append(run_on(place, tmp_path / name, labels, method="flat"))
    leaf, node = runs
    assert (leaf.result.rows.inner, node.result.rows.inner) == ({}, {"train": 12, "val": 0, "test": 0})
    np.testing.assert_allclose(predictions(node).final, predictions(leaf).final, atol=1e-5)


@pytest.mark.parametrize("method", ["flat", "levels+path"])
def test_a_leaf_without_images_is_answered_to_nobody(method: str, place: Path, tmp_path: Path) -> None:
    tree = (place / "tree.csv").read_text() + "Skort,short,lower\nHat,hats,worn\n"
    run = run_on(place, tmp_path, LEAVES * 40, tree, method=method, epochs=10, learning_rate=0.02)
    final, leaves = predictions(run).final, hierarchy(run).leaves
    empty = [leaves.index("Skort"), leaves.index("Hat")]
    assert not np.isin(final.argmax(axis=1), empty).any()
    assert final[:, empty].mean() < 0.08  # of eight leaves
    assert run.result.test["top1"] > 0.9


@pytest.mark.parametrize("method", ["flat", "levels"])
def test_where_all_training_labels_are_inner_their_levels_are_learnt(method: str, place: Path, tmp_path: Path) -> None:
    group = {"Tee": "tops", "Tank": "tops", "Coat": "outer", "Jeans": "long", "Chinos": "long", "Shorts": "short"}
    labels = [group[leaf] if split_of(i) == "train" else leaf for i, leaf in enumerate(LEAVES * 40)]
    run = run_on(place, tmp_path, labels, method=method, epochs=10, learning_rate=0.02)
    test = run.result.test
    assert run.result.rows.inner == {"train": 144, "val": 0, "test": 0}
    assert test["level_accuracy/kind"] > 0.8
    assert test["level_accuracy/group"] > 0.8
    assert test["top1"] < 0.9  # of two leaves below a node it can only guess
