"""Intervals of metrics and of differences from a baseline, against drawing images one by one."""

from pathlib import Path

import numpy as np
import pytest

from hfc import metrics, runs
from hfc.errors import RunError
from hfc.report import resampled, write_report
from hfc.report.grouped import named_groups
from hfc.report.resampled import draws_of, measures, with_baseline
from hfc.report.rows import Leaderboard, read_leaderboards
from tests.report.test_outer import UNEVEN
from tests.support.made_runs import TREE, tree_of, write_folds, write_run


def board_of(folder: Path, detailed: bool = False) -> Leaderboard:
    (board,) = read_leaderboards(runs.find([folder]), detailed)
    return board


@pytest.mark.parametrize("text", [TREE, UNEVEN])
def test_of_every_image_once_a_metric_is_that_of_the_tables(text: str, tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv", text)
    for seed in (0, 1):
        write_folds(tmp_path / "r", tree, seed=seed)
    outcome = board_of(tmp_path / "r").best
    found = {key: measure(np.ones((1, 60))) for key, measure in measures(outcome).items()}
    assert found.keys() == {
        *("top1", "top3", "top5", "top1_macro", "hF", "distance@1", "distance@3", "distance@5"),
        *("mistake_severity", "nll"),
    }
    for key, value in found.items():
        assert value.tolist() == [pytest.approx(outcome.row.mean(key), abs=1e-7)]


@pytest.mark.parametrize("text", [TREE, UNEVEN])
def test_of_drawn_images_a_metric_is_that_of_these_images(text: str, tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv", text)
    final = write_folds(tmp_path / "r", tree)
    own = measures(board_of(tmp_path / "r").best)
    rng, target = np.random.default_rng(2), np.arange(60) % 6
    drawn = [rng.integers(0, 60, 60) for _ in range(5)] + [np.full(60, 6)]  # the last: one leaf, one image
    weights = np.stack([np.bincount(rows, minlength=60) for rows in drawn]).astype(np.float64)
    values = {key: measure(weights) for key, measure in own.items()}
    for i, rows in enumerate(drawn):
        chosen, leaf = final[rows], target[rows]
        levels = [np.zeros((60, size), dtype=np.float32) for size in tree.sizes]
        expected = metrics.evaluate(levels, chosen, tree.ancestors[leaf], leaf, tree=tree, topk=(1, 3, 5))
        for key in own:
            assert values[key][i] == pytest.approx(expected[key], abs=1e-6), key


def test_intervals_are_those_of_drawing_images_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    finals = [
        write_folds(tmp_path / "r", tree, method=name, skill=skill) for name, skill in (("flat", 1), ("levels", 2))
    ]
    monkeypatch.setattr(resampled, "DRAWS", 4000)
    board, (pair,) = with_baseline(board_of(tmp_path / "r"))
    assert board.baseline is not None
    assert (board.baseline.label, pair.first.label, pair.second.label) == (
        "flat (tree)",
        "levels (tree)",
        "flat (tree)",
    )
    rng, target = np.random.default_rng(9), np.arange(60) % 6
    right = [final.argmax(axis=1) == target for final in finals]

    def macro(correct: np.ndarray, rows: np.ndarray) -> float:
        leaves = sorted(set(target[rows].tolist()))
        return float(np.mean([correct[rows][target[rows] == leaf].mean() for leaf in leaves]))

    own, gaps = [], []
    for _ in range(4000):
        rows = rng.integers(0, 60, 60)
        own.append(macro(right[1], rows))
        gaps.append(own[-1] - macro(right[0], rows))
    for interval, values in (
        (board.intervals[pair.first]["top1_macro"], own),
        (pair.intervals["top1_macro"], gaps),
    ):
        low, high = np.quantile(values, [0.025, 0.975])
        assert (interval.low, interval.high) == (pytest.approx(low, abs=0.015), pytest.approx(high, abs=0.015))
    gap = pair.intervals["mistake_severity"]
    severity = [pair.first.row.mean("mistake_severity"), pair.second.row.mean("mistake_severity")]
    assert gap.difference == pytest.approx(severity[0] - severity[1])


def test_rows_with_the_same_answers_differ_by_nothing_in_every_draw(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    final = write_folds(tmp_path / "r", tree)
    write_folds(tmp_path / "r", tree, method="levels", final=final)
    _, (pair,) = with_baseline(board_of(tmp_path / "r"))
    assert {(i.difference, i.low, i.high) for i in pair.intervals.values()} == {(0.0, 0.0, 0.0)}
    assert (pair.test.p, pair.p) == (1.0, 1.0)


def test_groups_are_drawn_as_a_whole(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    groups = [f"g{i // 20}" for i in range(60)]
    right = np.arange(60) >= 40  # of the last group all, of the others none
    target = np.arange(60) % 6
    final = np.eye(6, dtype=np.float32)[np.where(right, target, (target + 1) % 6)]
    write_folds(tmp_path / "r", tree, final=final, groups=groups)
    board, _ = with_baseline(board_of(tmp_path / "r"))
    assert board.best.groups.number.tolist() == named_groups(groups).number.tolist()
    top1 = board.intervals[board.best]["top1"]
    assert (top1.difference, top1.low, top1.high) == (
        pytest.approx(1 / 3),
        0.0,
        1.0,
    )  # 1 / 27 of the draws are all of it


def test_the_baseline_is_flat_else_the_best_and_any_row_that_is_named(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    for method, skill in (("levels", 1.0), ("hmcn-f", 4.0), ("conditional", 2.0)):
        write_folds(tmp_path / "r", tree, method=method, skill=skill)
    board, pairs = with_baseline(board_of(tmp_path / "r"))
    assert board.reference.label == "hmcn-f (tree)"
    assert [pair.first.label for pair in pairs] == ["conditional (tree)", "levels (tree)"]
    for name in ("levels", "levels (tree)"):
        assert with_baseline(board_of(tmp_path / "r"), name)[0].reference.label == "levels (tree)"
    write_folds(tmp_path / "r", tree, skill=0.1)
    assert with_baseline(board_of(tmp_path / "r"))[0].reference.label == "flat (tree)"
    with pytest.raises(RunError) as caught:
        write_report([tmp_path / "r"], tmp_path / "out", baseline="lvels")
    assert str(caught.value) == (
        "--baseline lvels: expected the name of one row, or its label; the rows are hmcn-f (tree); conditional (tree); "
        "levels (tree); flat (tree)"
    )


def test_p_is_corrected_for_the_comparisons_with_the_baseline_alone(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    for method, skill in (("flat", 1.0), ("levels", 3.0), ("hmcn-f", 2.0)):
        write_run(tmp_path / "r" / method, tree, method=method, skill=skill)
    _, pairs = with_baseline(board_of(tmp_path / "r", detailed=True))
    p = sorted(pair.test.p for pair in pairs)
    assert len(p) == 2
    assert sorted(pair.p for pair in pairs) == [pytest.approx(min(2 * p[0], 1)), pytest.approx(max(2 * p[0], p[1]))]


def test_of_many_images_fewer_draws_are_made() -> None:
    assert [draws_of(count) for count in (814, 20_000, 20_001)] == [10_000, 10_000, 2_000]


def test_of_several_rows_of_a_name_the_best_is_the_baseline_and_a_label_names_another(tmp_path: Path) -> None:
    trees = [tree_of(tmp_path / "one.csv"), tree_of(tmp_path / "two.csv", TREE.replace("Hat,hats", "Hat,tops"))]
    for tree, skill in zip(trees, (1.0, 2.0), strict=True):
        write_run(tmp_path / "r" / f"flat-{tree.name}", tree, skill=skill)
        write_run(tmp_path / "r" / f"levels-{tree.name}", tree, method="levels", skill=3.0)
    board = board_of(tmp_path / "r", detailed=True)
    for name, label in (("flat", "flat (two)"), ("flat (one)", "flat (one)")):
        compared, pairs = with_baseline(board, name)
        assert compared.baseline
        assert compared.baseline.label == label
        assert len(pairs) == 3
        assert {pair.second.label for pair in pairs} == {label}
    write_report([tmp_path / "r"], tmp_path / "out", baseline="flat")
    assert "Differences from flat (two)" in (tmp_path / "out" / "report.md").read_text("utf-8").replace("\\", "")
