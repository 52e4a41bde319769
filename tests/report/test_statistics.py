"""Intervals, tests and corrections against naive loops and SciPy."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap as scipy_bootstrap

from hfc import runs
from hfc.report import statistics
from hfc.report.rows import Outcome, read_leaderboards
from hfc.report.statistics import all_pairs, bootstrap, holm, paired_test
from tests.support.made_runs import tree_of, write_run


def test_the_interval_is_scipys_percentile_bootstrap() -> None:
    rng = np.random.default_rng(1)
    scores = rng.choice([-1, -1 / 3, 0, 1 / 3, 1], p=[0.05, 0.1, 0.6, 0.15, 0.1], size=400)
    found = bootstrap(scores, draws=40_000)
    expected = scipy_bootstrap((scores,), np.mean, n_resamples=40_000, method="percentile", rng=2).confidence_interval
    assert found.difference == pytest.approx(scores.mean())
    assert found.low == pytest.approx(expected.low, abs=0.003)
    assert found.high == pytest.approx(expected.high, abs=0.003)


def test_the_interval_is_that_of_drawing_images_one_by_one() -> None:
    scores = np.array([1, 1, 0, 0, 0, -1, 0, 1, 0, 0], dtype=np.float64)
    rng = np.random.default_rng(3)
    means = sorted(scores[rng.integers(0, 10, 10)].mean() for _ in range(20_000))
    found = bootstrap(scores, draws=20_000, level=0.8)
    assert found.low == pytest.approx(means[2_000], abs=0.101)  # means are tenths
    assert found.high == pytest.approx(means[18_000], abs=0.101)
    assert found.low < 0.2 < found.high


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    hits = 0
    for trial in range(400):
        found = bootstrap(rng.choice([-1, 0, 1], p=[0.1, 0.7, 0.2], size=300), draws=1000, seed=trial)
        hits += found.low <= 0.1 <= found.high
    assert 0.92 <= hits / 400 <= 0.98


def test_equal_scores_leave_nothing_open_and_equal_seeds_give_equal_intervals() -> None:
    assert bootstrap(np.zeros(7)) == statistics.Interval(0.0, 0.0, 0.0)
    scores = np.random.default_rng(0).normal(size=50)
    assert bootstrap(scores) == bootstrap(scores) != bootstrap(scores, seed=1)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 10))
def test_mcnemar_is_the_two_sided_test_of_a_fair_coin(first: int, second: int, both: int) -> None:
    a = np.array([True] * first + [False] * second + [True] * both, dtype=np.bool_)
    b = np.array([False] * first + [True] * second + [True] * both, dtype=np.bool_)
    tosses = first + second
    chances = [math.comb(tosses, k) / 2**tosses for k in range(tosses + 1)]
    expected = sum(chance for chance in chances if chance <= chances[first] * (1 + 1e-9))
    found = paired_test(a[None], b[None])
    assert found.name == "McNemar's exact test"
    assert (found.only_first, found.only_second) == (first, second)
    assert found.p == pytest.approx(min(expected, 1.0))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_steps_down_as_it_is_defined(p: list[float]) -> None:
    def adjusted(i: int) -> float:
        """The greatest of (m − rank) p over everything at least as significant."""
        ranked = sorted(range(len(p)), key=lambda j: (p[j], j))
        before = ranked[: ranked.index(i) + 1]
        return min(max((len(p) - rank) * p[j] for rank, j in enumerate(before)), 1.0)

    assert holm(p) == pytest.approx([adjusted(i) for i in range(len(p))])


def test_holm_of_a_textbooks_numbers() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


@pytest.mark.parametrize("seeds", [2, 3])
def test_the_test_of_several_seeds_swaps_the_methods_image_by_image(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    first, second = rng.random((2, seeds, 10)) < np.array([[[0.8]], [[0.4]]])
    right = [(int(first[:, i].sum()), int(second[:, i].sum())) for i in range(10)]
    furthest = abs(sum(a - b for a, b in right))
    swapped = [
        abs(sum(b - a if swap else a - b for swap, (a, b) in zip(throw, right, strict=True)))
        for throw in itertools.product([False, True], repeat=10)
    ]
    found = paired_test(first, second)
    assert found.name == "exact sign-flip test"
    assert found.p == pytest.approx(sum(sum_ >= furthest for sum_ in swapped) / 2**10)
    assert (found.only_first, found.only_second) == (sum(a > b for a, b in right), sum(b > a for a, b in right))


def test_a_difference_that_its_interval_tells_from_zero_is_told_by_the_test(tmp_path: Path) -> None:
    """The first of two seeds has no difference, the second a clear one: the interval is over both, and so is p."""
    tree, target = tree_of(tmp_path / "tree.csv"), np.arange(240) % 6
    for method, wrong in (("flat", (0, 0)), ("levels", (0, 40))):
        for seed, count in enumerate(wrong):
            answers = np.where(np.arange(240) < count, (target + 1) % 6, target)
            final = np.full((240, 6), 0.01, np.float32) + 0.94 * np.eye(6, dtype=np.float32)[answers]
            write_run(tmp_path / f"{method}{seed}", tree, method=method, seed=seed, target=target, final=final)
    (found,) = all_pairs(outcomes(tmp_path))
    assert (found.intervals["top1"].low > 0, found.by_seed[0]) == (True, 1.0)
    assert found.significant


def outcomes(folder: Path) -> list[Outcome]:
    (board,) = read_leaderboards(runs.find([folder]))
    return list(board.outcomes)


def test_a_difference_is_that_of_the_means_over_seeds_and_pairs_go_by_id(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    names = [f"{i}.jpg" for i in range(60)]
    rng = np.random.default_rng(0)
    for method, skill, seeds in (("flat", 3.0, 3), ("hmcn-f", 1.0, 2)):
        for seed in range(seeds):
            order = rng.permutation(60)  # every run lists the images in another order
            target = (np.arange(60) % 6)[order]
            ids = [names[i] for i in order]
            out = tmp_path / "runs" / f"{method}{seed}"
            write_run(out, tree, method=method, seed=seed, skill=skill, target=target, ids=ids)
    good, poor = outcomes(tmp_path / "runs")
    assert good.label == "flat (tree)"
    (found,) = all_pairs([good, poor])
    for k in (1, 3, 5):
        expected = good.row.mean(f"top{k}") - poor.row.mean(f"top{k}")
        assert found.intervals[f"top{k}"].difference == pytest.approx(expected)
    assert found.intervals["hF"].difference == pytest.approx(good.row.mean("hF") - poor.row.mean("hF"))
    assert good.predictions[0].id.tolist() == poor.predictions[1].id.tolist() == sorted(names)
    assert sorted(found.by_seed) == [0, 1]


def test_as_many_seeds_of_both_count(tmp_path: Path) -> None:
    """One seed against three: their sums could not be swapped, and the test were unfair."""
    tree = tree_of(tmp_path / "tree.csv")
    for seed in range(3):
        write_run(tmp_path / "runs" / f"a{seed}", tree, seed=seed)
    write_run(tmp_path / "runs" / "b", tree, method="levels", seed=1)
    by_label = {outcome.label: outcome for outcome in outcomes(tmp_path / "runs")}
    three, one = by_label["flat (tree)"], by_label["levels (tree)"]
    (found,) = statistics.differences([(three, one)])
    assert found.test == paired_test(three.correct[[1]], one.correct[[0]])
    assert found.p == found.by_seed[1] == found.test.p
    write_run(tmp_path / "other" / "b", tree, method="conditional", seed=7)
    (other,) = outcomes(tmp_path / "other")
    (found,) = statistics.differences([(three, other)])
    assert found.test == paired_test(three.correct[[0]], other.correct[[0]])
    assert found.by_seed == {}


def test_all_pairs_are_corrected_together(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    for method, skill in (("flat", 3.0), ("levels", 2.0), ("conditional", 0.0)):
        write_run(tmp_path / "runs" / method, tree, method=method, skill=skill)
    found = all_pairs(outcomes(tmp_path / "runs"))
    assert [(each.first.row.first.method, each.second.row.first.method) for each in found] == [
        ("flat", "levels"),
        ("flat", "conditional"),
        ("levels", "conditional"),
    ]
    assert [each.p for each in found] == holm([each.test.p for each in found])
    assert [each.significant for each in found] == [each.p < 0.05 for each in found]
    assert found[1].significant


def test_groups_of_images_are_drawn_and_tested_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "DRAWS", 400)
    tree = tree_of(tmp_path / "tree.csv")
    groups = [f"product {i // 5}" if i < 40 else "" for i in range(60)]
    for method, skill in (("flat", 3.0), ("levels", 2.0), ("conditional", 1.0)):
        for seed in range(2):
            write_run(tmp_path / "runs" / f"{method}{seed}", tree, method=method, seed=seed, skill=skill, groups=groups)
    rows = outcomes(tmp_path / "runs")
    assert {outcome.groups.words() for outcome in rows} == {"60 test images in 28 groups"}
    rng = np.random.default_rng(0)
    draws = [rng.integers(28, size=28) for _ in range(400)]
    images = [np.flatnonzero(rows[0].groups.number == number) for number in range(28)]
    first, second = rows[0], rows[1]
    found = {(pair.first.label, pair.second.label): pair for pair in all_pairs(rows)}[first.label, second.label]
    assert found.test.name == "exact sign-flip test"
    for metric, right in (
        ("top1", [(outcome.rank < 1).mean(axis=0) for outcome in (first, second)]),
        ("top3", [(outcome.rank < 3).mean(axis=0) for outcome in (first, second)]),
        ("hF", [outcome.on_path.mean(axis=(0, 2)) for outcome in (first, second)]),
    ):
        gap = right[0] - right[1]
        means = [gap[np.concatenate([images[number] for number in draw])].mean() for draw in draws]
        interval = found.intervals[metric]
        assert interval.difference == pytest.approx(gap.mean())
        assert [interval.low, interval.high] == pytest.approx(np.quantile(means, [0.025, 0.975]).tolist(), abs=1e-9)
    gains = [int(first.correct[:, i].sum() - second.correct[:, i].sum()) for i in images]
    throws = np.array(list(itertools.product([-1, 1], repeat=sum(gain != 0 for gain in gains))))
    sums = np.abs(throws @ [gain for gain in gains if gain])
    assert found.test.p == pytest.approx((sums >= abs(sum(gains))).mean())
    assert found.by_seed[1] == paired_test(first.correct[[1]], second.correct[[1]], first.groups).p


def test_groups_of_one_image_change_no_number(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    for name, groups in (("with", [f"product {i}" for i in range(60)]), ("without", None)):
        for method, skill in (("flat", 3.0), ("levels", 1.0)):
            write_run(tmp_path / name / method, tree, method=method, skill=skill, groups=groups)
    (found,), (expected,) = (all_pairs(outcomes(tmp_path / name)) for name in ("with", "without"))
    assert (found.intervals, found.test, found.p) == (expected.intervals, expected.test, expected.p)
    assert found.test.name == "McNemar's exact test"
    assert found.first.predictions[0].digest == expected.first.predictions[0].digest


def test_the_method_says_whether_images_or_groups_are_drawn(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    for name, groups in (("pairs", [f"{i // 2}" for i in range(60)]), ("alone", None)):
        for method in ("flat", "levels"):
            write_run(tmp_path / name / method, tree, method=method, groups=groups)
    alone, pairs = (statistics.method(all_pairs(outcomes(tmp_path / name))) for name in ("alone", "pairs"))
    assert alone == statistics.method([])
    assert alone.startswith(
        "Intervals: paired percentile bootstrap, 10,000 draws of the test images, 95%, each by its mean over a "
        "method's seeds. They say how other images would change the difference, not how other seeds would, which is "
        "the ± of the tables. They are not corrected for the number of pairs. p: exact sign-flip test over "
        "images, of the sums of right answers over the seeds that both methods have"
    )
    assert pairs.startswith(
        "Intervals: paired percentile bootstrap, 10,000 draws of the test images, 95%, in whole groups with all their "
        "images, each image by its mean over a method's seeds. They say how other groups would change the difference, "
        "not how other seeds would, which is the ± of the tables. They are not corrected for the number of pairs. p: "
        "exact sign-flip test over groups, of the sums of right answers over the seeds that both methods have"
    )
    assert alone.partition("the sums of right answers")[2] == pairs.partition("the sums of right answers")[2]
