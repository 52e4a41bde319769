"""Outer folds become one run: its metrics are those of all images together."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hfc import metrics, runs
from hfc.report import write_report
from hfc.report.checks import check
from hfc.report.grouped import named_groups
from hfc.report.rows import read_leaderboards
from tests.support.made_runs import TREE, tree_of, write_folds, write_run

UNEVEN = "leaf,group,kind\nTee,tops,short\nTank,tops,\nJeans,trousers,\nChinos,trousers,long\nShorts,,\nHat,,\n"


@pytest.mark.parametrize("text", [TREE, UNEVEN])
def test_pooled_metrics_are_those_of_all_images_at_once(text: str, tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv", text)
    final = write_folds(tmp_path / "r", tree)
    sizes = [run.result.rows.test for run in runs.find([tmp_path / "r"])]
    assert sizes == [30, 15, 15]
    (board,) = read_leaderboards(runs.find([tmp_path / "r"]))
    target = np.arange(60) % 6
    path = tree.ancestors[target]
    levels = []
    for h, size in enumerate(tree.sizes):
        levels.append(np.stack([final[:, tree.ancestors[:, h] == node].sum(axis=1) for node in range(size)], axis=1))
    expected = metrics.evaluate(levels, final, path, target, tree=tree, topk=(1, 3, 5))
    pooled = board.best.row.first.test
    assert pooled.keys() == expected.keys()
    assert pooled == pytest.approx(expected, abs=1e-7)
    assert board.best.row.first.rows.test == 60


def test_the_folds_of_a_seed_are_one_run_and_seeds_one_row(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    finals = [write_folds(tmp_path / "r", tree, seed=seed) for seed in (3, 5)]
    (board,) = read_leaderboards(runs.find([tmp_path / "r"]))
    row, seeds = board.best.row, board.best.predictions
    assert (row.label, row.seeds) == ("flat (tree)", [3, 5])
    assert [seed.id.tolist() for seed in seeds] == [[f"images/{i:04d}.jpg" for i in range(60)]] * 2
    assert [seed.predicted.tolist() for seed in seeds] == [final.argmax(axis=1).tolist() for final in finals]
    assert [name for name, _ in row.trainings] == [f"{seed}, fold {k}" for seed in (3, 5) for k in range(3)]
    # What folds share, and what they chose.
    assert row.first.changed == {"width": 64}
    assert row.first.config["learning_rate"] == [0.1, 0.2]
    assert (row.first.rows.train, row.first.rows.val) == (100, 20)


def test_of_a_fold_that_was_run_twice_the_later_counts(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    write_folds(tmp_path / "old", tree, skill=-5.0)
    final = write_folds(tmp_path / "new", tree, created="2026-02-01T00:00:00+00:00")
    (board,) = read_leaderboards(runs.find([tmp_path / "new", tmp_path / "old"]))
    assert board.best.predicted.tolist() == [final.argmax(axis=1).tolist()]


@pytest.mark.parametrize(
    "change",
    [
        {"outer__search": "6" * 64},
        {"outer__row": "other"},
        {"cache__features_sha256": "0"},
        {"cache__labels_digest": "0"},
    ],
)
def test_folds_of_other_searches_or_data_are_another_row(change: dict[str, Any], tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    write_folds(tmp_path / "r", tree)
    write_folds(tmp_path / "other", tree, seed=1, **change)
    (board,) = read_leaderboards(runs.find([tmp_path]))
    assert sorted(outcome.row.seeds for outcome in board.outcomes) == [[0], [1]]
    assert len({outcome.label for outcome in board.outcomes}) == 2


def test_folds_never_mix_with_runs_on_the_caches_own_splits(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    write_folds(tmp_path / "r", tree)
    write_run(tmp_path / "r" / "own", tree, seed=1)  # of the same images
    (board,) = read_leaderboards(runs.find([tmp_path / "r"]))
    assert sorted((outcome.label, outcome.row.seeds) for outcome in board.outcomes) == [
        ("flat (tree)", [1]),
        ("flat (tree) 3 outer folds", [0]),
    ]


def test_a_missing_fold_is_wrong_and_named(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    write_folds(tmp_path / "r", tree)
    write_folds(tmp_path / "r", tree, method="levels", seed=1, missing=[0, 2])
    boards = read_leaderboards(runs.find([tmp_path / "r"]))
    checks = check([outcome.row for board in boards for outcome in board.outcomes], boards)
    wrong = [line.text for line in checks if line.state == "wrong"]
    assert wrong[0] == (
        "Rows were not tested on the same images and labels, and are compared apart: flat (tree) on 60 images; levels "
        "(tree) on 15 images."
    )
    assert "Outer folds are missing, so that not all images are tested: levels (tree), seed 1: fold 0, 2." in wrong


def test_whole_folds_are_said_to_test_each_image_once(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    write_folds(tmp_path / "r", tree)
    boards = read_leaderboards(runs.find([tmp_path / "r"]))
    texts = [(line.state, line.text) for line in check([boards[0].best.row], boards)]
    said = "All images are tested once, by runs that were tuned and trained without them (3 folds)."
    assert ("ok", said) in texts


def test_groups_are_those_of_all_images(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    groups = [f"g{i // 5}" if i % 7 else "" for i in range(60)]
    write_folds(tmp_path / "r", tree, groups=groups)
    (board,) = read_leaderboards(runs.find([tmp_path / "r"]))
    assert board.best.groups.number.tolist() == named_groups(groups).number.tolist()


def test_calibration_before_the_temperature_is_that_of_all_images(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    rng = np.random.default_rng(4)
    before = np.exp(rng.normal(size=(60, 6)) + 2 * np.eye(6)[np.arange(60) % 6])
    before /= before.sum(axis=1, keepdims=True)
    after = before ** (1 / 1.6)
    after = (after / after.sum(axis=1, keepdims=True)).astype(np.float32)
    target = np.arange(60) % 6
    trust = {"ece_before": 0.5, "nll_before": metrics.negative_log_likelihood(before, target), "ece": 0.5, "nll": 0.5}
    write_folds(tmp_path / "r", tree, final=after, temperature={"value": 1.6, "test": trust})
    (board,) = read_leaderboards(runs.find([tmp_path / "r"]))
    kept = board.best.row.first.temperature
    assert kept is not None
    assert kept.test is not None
    assert kept.value == pytest.approx(1.6)
    assert kept.test.ece_before == pytest.approx(metrics.calibration_error(before, target), abs=1e-6)
    assert kept.test.nll_before == pytest.approx(trust["nll_before"])
    assert kept.test.ece == pytest.approx(metrics.calibration_error(after, target))


def test_a_report_lists_the_run_of_every_fold(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    write_folds(tmp_path / "runs", tree, folds=2, temperature={"value": 1.0})
    summary = write_report([tmp_path / "runs"], tmp_path / "out")
    content = json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))
    (row,) = content["rows"]
    assert (summary.runs, row["seeds"], row["outer_folds"]) == (2, [0], 2)
    assert row["runs"] == ["flat-0-0", "flat-0-1"]
    assert row["folders"] == [str(tmp_path / "runs" / name) for name in row["runs"]]
    assert [run["outer"]["number"] for run in content["runs"]] == [0, 1]
