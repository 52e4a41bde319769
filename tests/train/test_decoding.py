"""Decodings against searches through the whole tree."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from hfc.train.decoding import DECODINGS, climbed
from hfc.train.heads.layers import Prediction
from tests.support.trees import trees

# Three levels: 2 > 3 > 5 leaves.
ANCESTORS = torch.tensor([[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3], [1, 2, 4]])
LEAVES = range(5)


@pytest.fixture
def prediction() -> Prediction:
    """Independent outputs for each level, which disagree in many rows."""
    generator = torch.Generator().manual_seed(0)
    levels = tuple(torch.rand(40, size, generator=generator) for size in (2, 3, 5))
    return Prediction(levels, torch.rand(40, 5, generator=generator))


def path_product(prediction: Prediction, row: int, leaf: int) -> float:
    a, b, _ = ANCESTORS[leaf].tolist()
    return float(prediction.levels[0][row, a] * prediction.levels[1][row, b] * prediction.final[row, leaf])


def test_leaf_changes_nothing(prediction: Prediction) -> None:
    assert DECODINGS["leaf"](prediction, ANCESTORS) is prediction


def test_a_path_is_the_best_leaf_and_the_nodes_above_it(prediction: Prediction) -> None:
    decoded = DECODINGS["path"](prediction, ANCESTORS)
    assert decoded.final is prediction.final
    best = prediction.final.argmax(dim=1)
    for h, level in enumerate(decoded.levels):
        assert level.shape == prediction.levels[h].shape
        assert torch.equal(level.argmax(dim=1), ANCESTORS[best, h])
        for node in range(level.shape[1]):
            below = prediction.final[:, ANCESTORS[:, h] == node].amax(dim=1)
            torch.testing.assert_close(level[:, node], below)


def test_consistent_leaves_are_ranked_by_the_product_of_their_path(prediction: Prediction) -> None:
    decoded = DECODINGS["consistent"](prediction, ANCESTORS)
    for row in range(40):
        products = np.array([path_product(prediction, row, leaf) for leaf in LEAVES])
        np.testing.assert_allclose(decoded.final[row].numpy(), products / products.sum(), rtol=1e-4)
    assert (decoded.final.argmax(dim=1) != prediction.final.argmax(dim=1)).any()


def test_consistent_levels_are_the_best_path(prediction: Prediction) -> None:
    decoded = DECODINGS["consistent"](prediction, ANCESTORS)
    own = torch.stack([level.argmax(dim=1) for level in decoded.levels], dim=1)
    for row in range(40):
        best = max(LEAVES, key=lambda leaf: path_product(prediction, row, leaf))
        assert own[row].tolist() == ANCESTORS[best].tolist()
    before = torch.stack([level.argmax(dim=1) for level in (*prediction.levels[:-1], prediction.final)], dim=1)
    assert (before != ANCESTORS[before[:, -1]]).any()


def test_least_cost_ranks_by_the_expected_height_to_climb(prediction: Prediction) -> None:
    decoded = DECODINGS["least-cost"](prediction, ANCESTORS)
    for row in range(40):
        p = (prediction.final[row] / prediction.final[row].sum()).tolist()
        costs = [sum(p[true] * int((ANCESTORS[guess] != ANCESTORS[true]).sum()) for true in LEAVES) for guess in LEAVES]
        for a, b in itertools.pairwise(decoded.final[row].argsort(descending=True).tolist()):
            assert costs[a] <= costs[b] + 1e-6
    assert (decoded.final.argmax(dim=1) != prediction.final.argmax(dim=1)).any()
    torch.testing.assert_close(decoded.final.sum(dim=1), torch.ones(40))


@given(tree=trees(), seed=st.integers(0, 2**32 - 1))
def test_least_cost_equals_the_table_of_all_distances(tree: NDArray[np.int64], seed: int) -> None:
    """The table grows with the square of the leaves; the decoding does without."""
    levels = tuple(torch.rand(4, size) for size in (tree.max(axis=0) + 1).tolist())
    final = torch.rand(4, len(tree), generator=torch.Generator().manual_seed(seed)).double()
    final[3] = 0  # sigmoids may all be 0
    distance = (tree[:, None] != tree[None]).sum(axis=2)
    shares = final[:3].numpy() / final[:3].numpy().sum(axis=1, keepdims=True)
    scores = 1 - shares @ distance / tree.shape[1]
    decoded = DECODINGS["least-cost"](Prediction(levels, final), torch.from_numpy(tree))
    np.testing.assert_allclose(decoded.final[:3].numpy(), scores / scores.sum(axis=1, keepdims=True), rtol=1e-12)
    np.testing.assert_allclose(decoded.final[3].numpy(), 1 / len(tree), rtol=1e-12)
    assert decoded.levels is levels


def naive_stop(counts: list[int], tree: list[list[int]], least: int) -> tuple[int, int]:
    """Depth and node of the deepest node above the best leaf whose leaves have `least` counts together."""
    path = tree[counts.index(max(counts))]
    for depth in range(len(path), 0, -1):
        below = [c for c, other in zip(counts, tree, strict=True) if other[depth - 1] == path[depth - 1]]
        if sum(below) >= least:
            return depth, path[depth - 1]
    return 0, 0


@given(tree=trees(), seed=st.integers(0, 2**32 - 1), least=st.integers(0, 65), scale=st.sampled_from([0.5, 1.0, 4.0]))
def test_stopping_early_equals_a_naive_loop(tree: NDArray[np.int64], seed: int, least: int, scale: float) -> None:
    # Multiples of 1/64 add up exactly, so that a node may lie on the threshold itself; P_final need not add up to 1.
    share = np.random.default_rng(seed).dirichlet(np.full(len(tree), 0.3))
    counts = np.random.default_rng(seed).multinomial(64, share, size=20)
    final = torch.from_numpy(counts / 64 * scale).float()
    depth, node = climbed(final, torch.from_numpy(tree), least / 64)
    expected = [naive_stop(row, tree.tolist(), least) for row in counts.tolist()]
    assert list(zip(depth.tolist(), node.tolist(), strict=True)) == expected


@given(tree=trees(), seed=st.integers(0, 2**32 - 1), confidences=st.lists(st.floats(0, 1.1), min_size=2, max_size=6))
def test_more_confidence_never_stops_deeper(tree: NDArray[np.int64], seed: int, confidences: list[float]) -> None:
    final = torch.rand(20, len(tree), generator=torch.Generator().manual_seed(seed)) ** 4
    ancestors = torch.from_numpy(tree)
    depths = [climbed(final, ancestors, confidence)[0] for confidence in sorted(confidences)]
    for lower, higher in itertools.pairwise(depths):
        assert (higher <= lower).all()


@given(tree=trees(), seed=st.integers(0, 2**32 - 1))
def test_no_confidence_needed_gives_the_leaf(tree: NDArray[np.int64], seed: int) -> None:
    final = torch.rand(20, len(tree), generator=torch.Generator().manual_seed(seed))
    final[0] = 0  # sigmoids may all be 0
    depth, node = climbed(final, torch.from_numpy(tree), 0)
    assert (depth == tree.shape[1]).all()
    assert node.tolist() == final.argmax(dim=1).tolist()


def test_a_row_without_any_probability_is_not_answered() -> None:
    assert [found.tolist() for found in climbed(torch.zeros(1, 5), ANCESTORS, 0.05)] == [[0], [0]]
