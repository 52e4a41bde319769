"""Runs to rows and groups: what is averaged, what may be compared, what the predictions hold."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hfc import runs, store
from hfc.errors import RunError
from hfc.report.cells import plus_minus
from hfc.report.checks import check
from hfc.report.rows import Row, read_leaderboards, summarise
from hfc.store import Predictions, write_predictions
from tests.support.made_runs import guess, tree_of, two_methods, write_run


def rows_of(folder: Path) -> list[Row]:
    return summarise(runs.find([folder]))


def test_seeds_become_one_row_with_mean_and_sample_deviation(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    for seed, top3 in ((1, 0.92), (0, 0.90), (2, 0.91)):
        write_run(tmp_path / "r" / str(seed), tree, seed=seed, test__top3=top3)
    (row,) = rows_of(tmp_path / "r")
    assert (row.seeds, row.label) == ([0, 1, 2], "flat (tree)")
    assert plus_minus(row.values("top3")) == "91.00 ± 1.00"
    assert row.values("level_accuracy/leaf") == row.values("top1")
    assert (row.values("nothing"), plus_minus([]), plus_minus([0.5])) == ([], "–", "50.00")


@pytest.mark.parametrize(
    "change",
    [
        {"method": "hmcn-f"},
        {"hierarchy__name": "0"},
        {"cache__features_sha256": "0"},
        {"cache__labels_sha256": "0"},
        {"cache__labels_digest": "0"},
        {"changed": {"beta": 0.5}},
        {"rows__train": 7},
    ],
)
def test_runs_that_differ_in_more_than_their_seed_are_kept_apart(change: dict[str, Any], tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    write_run(tmp_path / "r" / "a", tree)
    write_run(tmp_path / "r" / "b", tree, seed=1, **change)
    assert len(rows_of(tmp_path / "r")) == 2


def test_a_seed_that_was_run_twice_counts_once_and_the_latest_counts(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    write_run(tmp_path / "r" / "a", tree, test__top3=0.5, created="2026-02-01T00:00:00+00:00")
    write_run(tmp_path / "r" / "b", tree)
    (row,) = rows_of(tmp_path / "r")
    assert row.values("top3") == [0.5]


def test_changed_settings_and_random_weights_stand_in_the_label(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    write_run(tmp_path / "r", tree, changed={"beta": 0.5, "width": 64}, cache__random_weights=True)
    (row,) = rows_of(tmp_path / "r")
    assert row.label == "flat (tree) beta=0.5, width=64 [RANDOM WEIGHTS]"


def test_the_code_of_every_seed_is_named(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    for seed, commit in enumerate(("a" * 40, "b" * 40 + "+", "")):
        write_run(tmp_path / "r" / str(seed), tree, seed=seed, code__commit=commit)
    (row,) = rows_of(tmp_path / "r")
    assert row.commit == f"{'a' * 12}, {'b' * 12}+, code {'d' * 12}"


def test_only_deepfashions_whole_test_split_stands_beside_published_numbers(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    for name, origin, test in (("a", "DeepFashion", 40000), ("b", "DeepFashion", 39999), ("c", "CSV", 40000)):
        write_run(tmp_path / name, tree, cache__origin=origin, rows__test=test)
    assert [rows_of(tmp_path / name)[0].comparable for name in "abc"] == [True, False, False]


def test_rows_of_other_test_images_or_other_labels_are_other_groups(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    two_methods(tmp_path / "r", tree)
    write_run(tmp_path / "r" / "images", tree, method="levels", ids=[f"other{i}" for i in range(60)])
    write_run(tmp_path / "r" / "labels", tree, method="conditional", target=np.full(60, 1))
    boards = read_leaderboards(runs.find([tmp_path / "r"]))
    assert [[outcome.label for outcome in board.outcomes] for board in boards] == [
        ["conditional (tree)"],
        ["flat (tree)", "hmcn-f (tree)"],
        ["levels (tree)"],
    ]


def test_seeds_of_other_test_images_are_another_row(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    write_run(tmp_path / "r" / "a", tree)
    write_run(tmp_path / "r" / "b", tree, seed=1, ids=[f"other{i}" for i in range(60)])
    assert [board.best.row.seeds for board in read_leaderboards(runs.find([tmp_path / "r"]))] == [[0], [1]]


def test_answers_are_those_of_the_predictions(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    target = np.arange(60) % 6
    final = guess(tree, target, 1.0, 7)
    write_run(tmp_path / "r", tree, final=final, target=target)
    (board,) = read_leaderboards(runs.find([tmp_path / "r"]))
    found = board.best
    order = sorted(range(60), key=lambda i: f"images/{i:04d}.jpg")
    for place, i in enumerate(order):
        ranking = sorted(range(6), key=lambda leaf: (-final[i, leaf], leaf))
        assert found.predicted[0, place] == ranking[0]
        assert found.rank[0, place] == ranking.index(target[i])
        assert found.confidence[0, place] == pytest.approx(final[i].max() / final[i].sum())
        paths = tree.path(ranking[0]), tree.path(int(target[i]))
        same = [a == b for a, b in zip(*paths, strict=True)]
        assert found.height[0, place] == same.count(False)
        assert found.on_path[0, place].tolist() == same
    assert found.correct.mean() == pytest.approx(found.row.mean("top1"))


def test_nodes_and_categories_are_counted_as_by_hand(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    target = np.array([0, 0, 0, 1, 2, 2])  # no Hat, no Chinos, no Shorts
    said = np.array([0, 1, 2, 1, 3, 2])
    write_run(tmp_path / "r", tree, target=target, final=np.eye(6, dtype=np.float32)[said])
    (board,) = read_leaderboards(runs.find([tmp_path / "r"]))
    third = pytest.approx(1 / 3)
    assert [(name, path, n, scores) for name, path, n, scores in board.category_scores() if n] == [
        ("Tee", ("tops", "Tee"), 3, [third]),
        ("Tank", ("tops", "Tank"), 1, [1.0]),
        ("Jeans", ("trousers", "Jeans"), 2, [0.5]),
    ]
    assert {scores[0] for _, _, n, scores in board.category_scores() if not n} == {None}
    assert board.best.node_scores()[:3] == [(0, 0, 4, 0.75), (0, 1, 2, 1.0), (0, 2, 0, None)]
    assert board.best.node_scores()[3:6] == [(1, 0, 3, third), (1, 1, 1, 1.0), (1, 2, 2, 0.5)]


def test_damaged_predictions_are_refused_by_name(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    folder = write_run(tmp_path / "r", tree)
    found = runs.read(folder)
    good = folder / "predictions.h5"
    few = np.ones((3, 2), dtype=np.float32)
    ids = np.array(["a", "b", "c"], dtype=np.object_)
    for predictions, message in (
        (Predictions(ids, np.zeros(3, dtype=np.int64), (few,), few), "expected probabilities of 3 rows over 6 leaves"),
        (Predictions(ids, np.full(3, 6), (few,), np.ones((3, 6), dtype=np.float32)), "names a leaf"),
        (
            Predictions(ids, np.zeros(3, np.int64), (few,), np.ones((3, 6), np.float32), group=ids[:2]),
            "predictions.h5: expected a group for each of 3 rows, found 2; train the run again",
        ),
    ):
        write_predictions(good, predictions)
        with pytest.raises(RunError, match=message):
            read_leaderboards([found])
    good.write_text("no HDF5")
    with pytest.raises(RunError, match=r"predictions.h5: cannot read predictions: .*; train the run again"):
        read_leaderboards([found])
    good.unlink()
    with pytest.raises(RunError, match="train the run again"):
        read_leaderboards([found])


def test_groups_are_those_of_the_images_in_whatever_order_a_run_lists_them(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    names = [f"{i}.jpg" for i in range(60)]
    groups = [f"product {i // 4}" if i % 9 else "" for i in range(60)]
    for seed in range(2):
        order = np.random.default_rng(seed).permutation(60)
        picked = {"ids": [names[i] for i in order], "groups": [groups[i] for i in order]}
        write_run(tmp_path / "runs" / f"a{seed}", tree, seed=seed, target=(np.arange(60) % 6)[order], **picked)
    renamed = [group and f"other {group}" for group in groups]  # the same groups by other names
    write_run(tmp_path / "runs" / "b", tree, method="levels", ids=names, groups=renamed)
    (board,) = read_leaderboards(runs.find([tmp_path / "runs"]))
    assert len(board.outcomes) == 2
    for outcome in board.outcomes:
        by_id = dict(zip(names, groups, strict=True))
        own = [by_id[name] or name for name in outcome.predictions[0].id]
        number = outcome.groups.number.tolist()
        assert len(set(zip(own, number, strict=True))) == len(set(own)) == len(set(number)) == outcome.groups.count


@pytest.mark.parametrize("other", [None, [f"{i // 3}" for i in range(60)]])
def test_rows_with_other_groups_of_the_same_images_are_compared_apart(other: list[str] | None, tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    write_run(tmp_path / "runs" / "a", tree, groups=[f"{i // 2}" for i in range(60)])
    write_run(tmp_path / "runs" / "b", tree, method="levels", groups=other)
    first, second = read_leaderboards(runs.find([tmp_path / "runs"]))
    assert first.best.predictions[0].images == second.best.predictions[0].images
    (wrong,) = [
        line.text for line in check([first.best.row, second.best.row], [first, second]) if line.state == "wrong"
    ]
    apart = "60 images in 20 groups" if other else "60 images"
    assert wrong == (
        "Rows were not tested on the same groups of images, and are compared apart: flat (tree) on 60 images in 30 "
        f"groups; levels (tree) on {apart}; train them again on one cache with one column of groups."
    )


def test_runs_of_one_tree_in_two_orders_are_one_row(tmp_path: Path) -> None:
    """Seed 0 is of an older version, which kept the order of the rows in the file; the oracle speaks in names."""
    older = tree_of(tmp_path / "tree.csv")
    newer = older.in_canonical_order()
    assert older.digest != newer.digest
    ids = [f"{i:02d}" for i in range(40)]
    rng = np.random.default_rng(3)
    truth = rng.choice(older.leaves, 40).tolist()
    answers = [rng.choice(older.leaves, 40).tolist() for _ in range(2)]
    for seed, tree in enumerate((older, newer)):
        target, said = tree.index(truth, "truth"), tree.index(answers[seed], "answers")
        final = np.eye(6, dtype=np.float32)[said]
        write_run(tmp_path / "r" / str(seed), tree, seed=seed, ids=ids, target=target, final=final)
    (board,) = read_leaderboards(runs.find([tmp_path / "r"]))
    (outcome,) = board.outcomes
    assert outcome.row.seeds == [0, 1]
    names = np.array(outcome.tree.leaves)
    assert names[outcome.target].tolist() == truth
    assert names[outcome.predicted].tolist() == answers
    paths = {leaf: older.path(i) for i, leaf in enumerate(older.leaves)}
    for seed in (0, 1):
        for i, (true, answer) in enumerate(zip(truth, answers[seed], strict=True)):
            same = [a == b for a, b in zip(paths[true], paths[answer], strict=True)]
            assert outcome.on_path[seed, i].tolist() == same
            assert outcome.height[seed, i] == same.count(False)
    for name, _, support, (score,) in board.category_scores():
        right = sum(a == t == name for said in answers for a, t in zip(said, truth, strict=True))
        assert (support, score) == (truth.count(name), pytest.approx(right / 2 / truth.count(name)))


def test_where_all_runs_have_one_order_the_tree_keeps_its_digest(tmp_path: Path) -> None:
    older = tree_of(tmp_path / "tree.csv")
    for name, tree in (("older", older), ("newer", older.in_canonical_order())):
        write_run(tmp_path / "one" / name, tree)
        target = tree.index([older.leaves[i % 6] for i in range(60)], "names")
        write_run(tmp_path / "both" / name, tree, method=name, target=target)
        (board,) = read_leaderboards(runs.find([tmp_path / "one" / name]))
        assert board.best.row.first.hierarchy.digest == tree.digest
    (board,) = read_leaderboards(runs.find([tmp_path / "both"]))
    digest = older.in_canonical_order().digest
    assert {outcome.row.first.hierarchy.digest for outcome in board.outcomes} == {digest}


def test_predictions_of_the_best_leaves_alone_are_read_as_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    folder = write_run(tmp_path / "r", tree, ids=[f"{-i}" for i in range(60)])  # in another order than sorted
    (board,) = read_leaderboards([runs.read(folder)])
    whole = board.best.predictions[0]
    monkeypatch.setattr("hfc.store.predictions.MOST_LEAVES", 5)
    monkeypatch.setattr("hfc.store.predictions.KEPT", 2)
    shortened = store.shortened(store.read_predictions(folder / "predictions.h5"), tree.ancestors)
    write_predictions(folder / "predictions.h5", shortened)
    (board,) = read_leaderboards([runs.read(folder)])
    kept = board.best.predictions[0]
    assert kept.digest == whole.digest
    for name in ("id", "target", "predicted", "rank", "confidence"):
        assert getattr(kept, name).tolist() == getattr(whole, name).tolist()
    assert isinstance(shortened.final, store.Kept)
    for change, message in (
        ({"node": shortened.final.node[:3]}, r"expected probabilities of 60 rows over 6 leaves, found \(3, 2\); train"),
        ({"rank": shortened.final.rank[:3]}, "expected probabilities of 60 rows over 6 leaves"),
        ({"node": shortened.final.node + 6}, "names a leaf that the run's hierarchy lacks"),
    ):
        damaged = replace(shortened, final=replace(shortened.final, **change))
        write_predictions(folder / "predictions.h5", damaged)
        with pytest.raises(RunError, match=message):
            read_leaderboards([runs.read(folder)])
