"""Decodings against searches through the whole tree."""

import itertools

import numpy as np
import pytest
import torch

from hfc.decoding import DECODINGS
from hfc.heads.layers import Prediction

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


@pytest.mark.parametrize("how", ["product", "consistent"])
def test_leaves_are_ranked_by_the_product_of_their_path(how: str, prediction: Prediction) -> None:
    decoded = DECODINGS[how](prediction, ANCESTORS)
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
