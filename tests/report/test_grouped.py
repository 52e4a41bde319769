"""Draws and tests over groups, against drawing by hand, enumeration, SciPy and simulations."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binomtest, permutation_test

from hfc.report.grouped import Groups, drawn_means, named_groups, sign_flip
from hfc.report.statistics import bootstrap, paired_test

Array = NDArray[np.float64]


def mean_difference(x: Array, y: Array, axis: int) -> Array:
    difference: Array = (x - y).mean(axis=axis)
    return difference


def of_size(count: int, size: int) -> Groups:
    return Groups(np.repeat(np.arange(count), size))


def test_images_of_one_name_are_a_group_and_images_without_one_are_groups_by_themselves() -> None:
    groups = named_groups(["b", "", "a", "b", "", "a"])
    assert groups.number.tolist() == [0, 1, 2, 0, 3, 2]
    assert (groups.count, groups.shared) == (4, True)
    assert groups.words() == "6 test images in 4 groups"
    assert named_groups(["Caf\u00e9", "x", "Cafe\u0301"]).number.tolist() == [0, 1, 0]
    alone = named_groups(["b", "", "a"])
    assert (alone.count, alone.shared, alone.words("images")) == (3, False, "3 images")
    assert named_groups(["x", "y", "x"]).number.tolist() == named_groups(["y", "x", "y"]).number.tolist()


def test_means_are_those_of_drawing_groups_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = named_groups(["a", "a", "a", "b", "", "c", "c", "b", "b", "b"])
    scores = np.random.default_rng(0).normal(size=(2, 10))
    monkeypatch.setattr("hfc.report.grouped.BLOCK", 12)  # three draws at a time
    means = drawn_means(scores, groups, draws=50, seed=7)
    rng = np.random.default_rng(7)
    for draw in range(50):
        drawn = rng.integers(4, size=4)
        images = [image for group in drawn for image in np.flatnonzero(groups.number == group)]
        np.testing.assert_allclose(means[draw], scores[:, images].mean(axis=1))


def test_groups_of_one_image_are_drawn_as_images_are() -> None:
    scores = np.random.default_rng(1).choice([-1, 0, 1], p=[0.1, 0.7, 0.2], size=300).astype(np.float64)
    means = drawn_means(scores[None], of_size(300, 1), draws=40_000)[:, 0]
    expected = bootstrap(scores, draws=40_000)
    assert np.quantile(means, [0.025, 0.975]) == pytest.approx([expected.low, expected.high], abs=0.004)


def test_intervals_over_groups_cover_the_truth_where_those_over_images_do_not() -> None:
    """Gains of 80 groups of 1 to 12 images, each group all alike."""
    rng = np.random.default_rng(2)
    over_groups = over_images = 0
    for _ in range(300):
        groups = Groups(np.repeat(np.arange(80), rng.integers(1, 13, 80)))
        scores = rng.choice([-1.0, 0.0, 1.0], p=[0.2, 0.5, 0.3], size=80)[groups.number]
        low, high = np.quantile(drawn_means(scores[None], groups, draws=500), [0.025, 0.975])
        over_groups += low <= 0.1 <= high
        alone = bootstrap(scores, draws=500)
        over_images += alone.low <= 0.1 <= alone.high
    assert 0.90 <= over_groups / 300 <= 0.985
    assert over_images / 300 < 0.7


@settings(max_examples=60)
@given(st.lists(st.integers(-4, 4), max_size=9))
def test_the_p_is_that_of_all_signs(gains: list[int]) -> None:
    sums = [abs(sum(s * g for s, g in zip(signs, gains, strict=True))) for signs in all_signs(len(gains))]
    expected = np.mean([total >= abs(sum(gains)) for total in sums])
    assert sign_flip(np.array(gains, dtype=np.int64)) == pytest.approx(expected, rel=1e-12)


def all_signs(count: int) -> list[tuple[int, ...]]:
    return list(itertools.product((-1, 1), repeat=count))


@pytest.mark.parametrize("seed", range(5))
def test_the_p_is_scipys_permutation_test(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, 6, (2, 11))
    expected = permutation_test(
        (first, second),
        mean_difference,
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    assert sign_flip(first - second) == pytest.approx(expected.pvalue, rel=1e-9)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 10))
def test_with_groups_of_one_image_it_is_mcnemars_exact_test(first: int, second: int, both: int) -> None:
    gains = np.array([1] * first + [-1] * second + [0] * both, dtype=np.int64)
    a, b = gains > 0, gains < 0
    assert sign_flip(gains) == pytest.approx(binomtest(first, first + second).pvalue if first + second else 1, rel=1e-9)
    assert paired_test(a[None], b[None], of_size(max(len(a), 1), 1)) == paired_test(a[None], b[None])


def test_of_many_groups_the_p_stays_exact() -> None:
    gains = np.repeat([1, -1], [30_400, 29_600])
    assert sign_flip(gains) == pytest.approx(binomtest(30_400, 60_000).pvalue, rel=1e-6)
    # Gains of one size are a coin each, whatever the size.
    assert sign_flip(3 * gains) == pytest.approx(sign_flip(gains), rel=1e-9)


def test_groups_that_are_right_together_are_no_evidence_of_their_own() -> None:
    """Two methods that are as good: over images a test finds a difference far too often, over groups in 5%."""
    rng = np.random.default_rng(4)
    groups, trials = of_size(50, 8), 500
    by_group = by_image = 0
    for _ in range(trials):
        first, second = (rng.random((2, 50)) < 0.6)[:, groups.number] ^ (rng.random((2, 400)) < 0.02)
        by_group += paired_test(first[None], second[None], groups).p < 0.05
        by_image += paired_test(first[None], second[None]).p < 0.05
    assert 0.02 <= by_group / trials <= 0.07
    assert by_image / trials > 0.3


def test_a_benchmark_of_40_000_images_in_10_000_groups_takes_seconds() -> None:
    rng = np.random.default_rng(5)
    groups = Groups(np.append(np.arange(10_000), rng.integers(0, 10_000, 30_000)))
    first, second = rng.random((2, 5, 40_000)) < 0.6
    started = time.process_time()
    means = drawn_means(np.stack([first[0], second[0]]).astype(np.float64), groups, draws=10_000)
    paired_test(first, second, groups)
    assert time.process_time() - started < 20
    assert means.std(axis=0) == pytest.approx([0.0025, 0.0025], rel=0.2)
