"""Confident learning, against its definitions written out, and an example worked by hand."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import csr_array

from hfc.hierarchy import Hierarchy
from hfc.report.doubts import confident_joint, estimated_joint, find_doubts, thresholds

Numbers = list[list[float]]


def tree(*parents: int) -> Hierarchy:
    """Leaves 0, 1, …, each below the parent of its number."""
    leaves = tuple(f"leaf {i}" for i in range(len(parents)))
    ancestors = np.stack([np.array(parents), np.arange(len(parents))], axis=1)
    groups = tuple(f"group {i}" for i in range(max(parents) + 1))
    return Hierarchy("t", ("group", "leaf"), (groups, leaves), ancestors)


def naive(probability: Numbers, label: list[int]) -> tuple[list[list[int]], list[list[float]], list[int]]:
    """The definitions of Northcutt et al. 2021, in plain Python: the confident joint, its estimate, and the list."""
    leaves = range(len(probability[0]))
    threshold = {}
    for j in set(label):
        own = [row[j] for row, given in zip(probability, label, strict=True) if given == j]
        threshold[j] = sum(own) / len(own)
    joint = [[0 for _ in leaves] for _ in leaves]
    for row, given in zip(probability, label, strict=True):
        candidates = [j for j in threshold if row[j] >= threshold[j]]
        if candidates:
            joint[given][max(candidates, key=lambda j: (row[j], -j))] += 1
    estimate = [[joint[i][j] / max(sum(joint[i]), 1) * label.count(i) for j in leaves] for i in leaves]
    listed = []
    for i in set(label):
        rows = sorted((n for n, given in enumerate(label) if given == i), key=lambda n: probability[n][i])
        wrong = sum(joint[i]) - joint[i][i]
        listed += [n for n in rows[:wrong] if max(probability[n][j] for j in threshold) > probability[n][i]]
    return joint, estimate, sorted(listed, key=lambda n: (probability[n][label[n]], n))


BY_HAND = np.array(
    [
        *([0.9, 0.1, 0.0], [0.7, 0.2, 0.1], [0.2, 0.8, 0.0]),  # leaf 0, of threshold (0.9 + 0.7 + 0.2) / 3 = 0.6
        *([0.1, 0.9, 0.0], [0.3, 0.6, 0.1], [0.65, 0.25, 0.1]),  # leaf 1, of threshold 1.75 / 3 = 0.583
        *([0.0, 0.2, 0.8], [0.1, 0.1, 0.8], [0.1, 0.7, 0.2]),  # leaf 2, of threshold 1.8 / 3 = 0.6
    ]
)
LABELS = np.repeat([0, 1, 2], 3)


def test_an_example_by_hand() -> None:
    np.testing.assert_allclose(thresholds(BY_HAND, LABELS), [0.6, 1.75 / 3, 0.6])
    doubts = find_doubts(BY_HAND, LABELS, tree(0, 0, 1))
    assert doubts.confident.toarray().tolist() == [[2, 1, 0], [1, 2, 0], [0, 1, 2]]
    assert doubts.estimated.toarray().tolist() == [[2, 1, 0], [1, 2, 0], [0, 1, 2]]
    assert doubts.estimated_errors == 3
    assert doubts.row.tolist() == [2, 8, 5]
    assert doubts.suggested.tolist() == [1, 1, 0]
    assert doubts.p_label.tolist() == [0.2, 0.2, 0.25]
    assert doubts.p_suggested.tolist() == [0.8, 0.7, 0.65]
    assert doubts.are_siblings.tolist() == [True, False, True]


def test_the_estimate_scales_each_label_to_its_rows() -> None:
    # Of five rows of leaf 0 three are sure, one of them of leaf 1; leaf 2 labels no row.
    estimate = estimated_joint(csr_array([[2, 1, 0], [1, 3, 0], [0, 0, 0]]), np.array([6, 4, 0]))
    np.testing.assert_allclose(estimate.toarray(), [[4, 2, 0], [1, 3, 0], [0, 0, 0]])


@pytest.mark.parametrize("seed", range(20))
def test_a_slow_implementation_of_the_definitions_agrees(seed: int) -> None:
    rng = np.random.default_rng(seed)
    leaves = int(rng.integers(2, 8))
    label = rng.choice(leaves, size=60, p=rng.dirichlet(np.ones(leaves)))  # rare leaves and missing ones among them
    logits = rng.normal(size=(60, leaves))
    logits[np.arange(60), np.where(rng.random(60) < 0.2, rng.integers(leaves, size=60), label)] += 2
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    doubts = find_doubts(probability, label, tree(*[leaf // 2 for leaf in range(leaves)]))
    joint, estimate, listed = naive(probability.tolist(), label.tolist())
    assert doubts.confident.toarray().tolist() == joint
    np.testing.assert_allclose(doubts.estimated.toarray(), estimate)
    assert doubts.row.tolist() == listed
    assert doubts.estimated.sum() == pytest.approx(60)
    assert (doubts.p_suggested > doubts.p_label).all()
    assert doubts.are_siblings.tolist() == [
        label[row] // 2 == leaf // 2 for row, leaf in zip(doubts.row, doubts.suggested, strict=True)
    ]


def test_a_leaf_that_labels_no_row_is_neither_counted_nor_suggested() -> None:
    probability = np.array([[0.1, 0.2, 0.7], [0.3, 0.1, 0.6], [0.2, 0.3, 0.5], [0.3, 0.2, 0.5]])
    label = np.array([0, 0, 1, 1])
    assert thresholds(probability, label).tolist() == [0.2, 0.25, np.inf]
    doubts = find_doubts(probability, label, tree(0, 0, 0))
    assert doubts.confident.toarray()[:, 2].tolist() == [0, 0, 0]
    assert set(doubts.suggested.tolist()) <= {0, 1}
    assert doubts.row.tolist() == [3]


def test_a_leaf_with_one_row_is_sure_of_itself_alone() -> None:
    # Its threshold is what its own row has, however little that is.
    probability = np.array([[0.9, 0.1, 0.0], [0.8, 0.1, 0.1], [0.1, 0.85, 0.05], [0.6, 0.1, 0.3]])
    label = np.array([0, 0, 1, 2])
    doubts = find_doubts(probability, label, tree(0, 0, 0))
    assert doubts.confident.toarray().tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert doubts.row.tolist() == []


def test_a_leaf_that_nobody_is_confident_in_gives_its_rows_away() -> None:
    probability = np.array([[0.9, 0.1], [0.9, 0.1], [0.95, 0.05], [0.97, 0.03]])
    label = np.array([0, 0, 1, 1])
    doubts = find_doubts(probability, label, tree(0, 0))
    assert doubts.confident.toarray().tolist() == [[2, 0], [2, 0]]
    assert doubts.row.tolist() == [3, 2]
    assert doubts.estimated_errors == 2


def test_equal_probabilities_reach_their_mean_whatever_it_is_rounded_to() -> None:
    probability = np.tile([0.1, 0.9], (3, 1)).astype(np.float64)
    assert sum([0.1] * 3) / 3 > 0.1
    assert confident_joint(probability[:, ::-1], np.array([1, 1, 1])).toarray().tolist() == [[0, 0], [0, 3]]


def test_a_label_as_probable_as_the_best_leaf_is_not_doubtful() -> None:
    probability: NDArray[np.float64] = np.array([[0.5, 0.5], [0.5, 0.5], [0.1, 0.9], [0.5, 0.5]])
    assert find_doubts(probability, np.array([0, 0, 1, 1]), tree(0, 0)).row.tolist() == []


def test_of_one_level_all_leaves_are_siblings() -> None:
    flat = Hierarchy("t", ("leaf",), (("a", "b", "c"),), np.arange(3)[:, None])
    assert find_doubts(BY_HAND, LABELS, flat).are_siblings.all()
