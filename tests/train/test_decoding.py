"""Decodings against searches through the whole tree."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hfc.hierarchy import Hierarchy
from hfc.train.decoding import DECODINGS, LEAVES, Paths, climbed, leaf_paths
from hfc.train.heads.layers import Prediction
from tests.support.trees import Heights, hierarchies, named, prefixes, trees

# Three levels: 2 > 3 > 5 leaves.
ANCESTORS = torch.tensor([[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3], [1, 2, 4]])
PATHS = leaf_paths(named(ANCESTORS.numpy()))
PLACES = range(5)


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
    assert DECODINGS["leaf"](prediction, PATHS) is prediction


def test_a_path_is_the_best_leaf_and_the_nodes_above_it(prediction: Prediction) -> None:
    decoded = DECODINGS["path"](prediction, PATHS)
    assert decoded.final is prediction.final
    best = prediction.final.argmax(dim=1)
    for h, level in enumerate(decoded.levels):
        assert level.shape == prediction.levels[h].shape
        assert torch.equal(level.argmax(dim=1), ANCESTORS[best, h])
        for node in range(level.shape[1]):
            below = prediction.final[:, ANCESTORS[:, h] == node].amax(dim=1)
            torch.testing.assert_close(level[:, node], below)


def test_consistent_leaves_are_ranked_by_the_product_of_their_path(prediction: Prediction) -> None:
    decoded = DECODINGS["consistent"](prediction, PATHS)
    for row in range(40):
        products = np.array([path_product(prediction, row, leaf) for leaf in PLACES])
        np.testing.assert_allclose(decoded.final[row].numpy(), products / products.sum(), rtol=1e-4)
    assert (decoded.final.argmax(dim=1) != prediction.final.argmax(dim=1)).any()


def test_consistent_levels_are_the_best_path(prediction: Prediction) -> None:
    decoded = DECODINGS["consistent"](prediction, PATHS)
    own = torch.stack([level.argmax(dim=1) for level in decoded.levels], dim=1)
    for row in range(40):
        best = max(PLACES, key=lambda leaf: path_product(prediction, row, leaf))
        assert own[row].tolist() == ANCESTORS[best].tolist()
    before = torch.stack([level.argmax(dim=1) for level in (*prediction.levels[:-1], prediction.final)], dim=1)
    assert (before != ANCESTORS[before[:, -1]]).any()


def test_least_cost_answers_first_and_the_others_keep_the_order_of_probability(prediction: Prediction) -> None:
    decoded = DECODINGS["least-cost"](prediction, PATHS)
    moved = 0
    for row in range(40):
        p = (prediction.final[row] / prediction.final[row].sum()).tolist()
        costs = [sum(p[true] * int((ANCESTORS[guess] != ANCESTORS[true]).sum()) for true in PLACES) for guess in PLACES]
        answer = costs.index(min(costs))
        by_probability = sorted(PLACES, key=lambda leaf: -p[leaf])
        order = [answer, *(leaf for leaf in by_probability if leaf != answer)]
        assert decoded.final[row].argsort(descending=True).tolist() == order
        moved += order != by_probability
    assert moved > 3
    torch.testing.assert_close(decoded.final.sum(dim=1), torch.ones(40))


@given(tree=trees(), seed=st.integers(0, 2**32 - 1))
def test_least_cost_equals_the_table_of_all_distances(tree: NDArray[np.int64], seed: int) -> None:
    """The table grows with the square of the leaves; the decoding does without."""
    levels = tuple(torch.rand(4, size) for size in (tree.max(axis=0) + 1).tolist())
    final = torch.rand(4, len(tree), generator=torch.Generator().manual_seed(seed)).double()
    final[3] = 0  # sigmoids may all be 0
    distance = (tree[:, None] != tree[None]).sum(axis=2)
    shares = final[:3].numpy() / final[:3].numpy().sum(axis=1, keepdims=True)
    scores = (shares + np.eye(len(tree))[(shares @ distance).argmin(axis=1)]) / 2
    decoded = DECODINGS["least-cost"](Prediction(levels, final), leaf_paths(named(tree)))
    np.testing.assert_allclose(decoded.final[:3].numpy(), scores, rtol=1e-12)
    assert decoded.final[3].tolist() == [1.0] + [0.0] * (len(tree) - 1)
    assert decoded.levels is levels


QUICK = settings(max_examples=40)


def random_prediction(tree: Hierarchy, seed: int, rows: int = 6) -> Prediction:
    """Independent outputs for each level and for the leaves, in float64."""
    generator = torch.Generator().manual_seed(seed)
    sizes = (*tree.sizes, len(tree.ancestors))
    *levels, final = (torch.rand(rows, size, generator=generator, dtype=torch.float64) ** 3 for size in sizes)
    return Prediction(tuple(levels), final)


@QUICK
@given(tree=hierarchies(), seed=st.integers(0, 2**32 - 1))
def test_every_node_has_the_greatest_number_of_its_leaves(tree: Hierarchy, seed: int) -> None:
    prediction, paths = random_prediction(tree, seed), [tree.path(leaf) for leaf in range(len(tree.ancestors))]
    for decode in ("path", "consistent"):
        decoded = DECODINGS[decode](prediction, leaf_paths(tree))
        if decode == "path":
            assert decoded.final is prediction.final
        for level, nodes in zip(decoded.levels, prefixes(tree), strict=True):
            for node, numbers in zip(nodes, level.unbind(dim=1), strict=True):
                below = [c for c, path in enumerate(paths) if path[: len(node)] == node]
                assert torch.equal(numbers, decoded.final[:, below].amax(dim=1))


@QUICK
@given(tree=hierarchies(), seed=st.integers(0, 2**32 - 1))
def test_consistent_is_the_product_along_the_path_padded_by_the_leaf(tree: Hierarchy, seed: int) -> None:
    prediction = random_prediction(tree, seed)
    decoded = DECODINGS["consistent"](prediction, leaf_paths(tree)).final
    for row in range(len(decoded)):
        products = []
        for c, (path, depth) in enumerate(zip(tree.ancestors.tolist(), tree.depths.tolist(), strict=True)):
            inner = [float(prediction.levels[h][row, path[h]]) for h in range(depth - 1)]
            products.append(math.prod(inner) * float(prediction.final[row, c]) ** (len(path) - depth + 1))
        assert decoded[row].tolist() == pytest.approx([p / sum(products) for p in products], rel=1e-9)


@QUICK
@given(tree=hierarchies(), seed=st.integers(0, 2**32 - 1))
def test_consistent_and_path_are_those_of_the_tree_padded_to_one_depth(tree: Hierarchy, seed: int) -> None:
    """A leaf that ends early is repeated on each level below, where it has its own P_final as it has on its level."""
    prediction = random_prediction(tree, seed)
    padded = tree.ancestors.copy()
    levels = []
    for h, level in enumerate(prediction.levels):
        early = np.flatnonzero(tree.depths <= h)
        padded[early, h] = tree.sizes[h] + np.arange(len(early))
        own = np.flatnonzero(tree.depths == h + 1)
        with_leaves = level.clone()
        with_leaves[:, tree.ancestors[own, h]] = prediction.final[:, own]
        levels.append(torch.cat([with_leaves, prediction.final[:, early]], dim=1))
    order = np.argsort(padded[:, -1])  # an even tree's leaves are the nodes of its last level, in their order
    even = named(padded[order])
    final = prediction.final[:, order]
    for decode in ("path", "consistent"):
        ragged = DECODINGS[decode](prediction, leaf_paths(tree))
        whole = DECODINGS[decode](Prediction((*levels[:-1], final), final), leaf_paths(even))
        torch.testing.assert_close(ragged.final[:, order], whole.final)
        for h, level in enumerate(ragged.levels[:-1]):
            torch.testing.assert_close(level, whole.levels[h][:, : tree.sizes[h]])


@QUICK
@given(tree=hierarchies(), seed=st.integers(0, 2**32 - 1))
def test_least_cost_answers_what_is_expected_to_cost_least(tree: Hierarchy, seed: int) -> None:
    prediction = random_prediction(tree, seed)
    heights, paths = Heights(tree), [tree.path(leaf) for leaf in range(len(tree.ancestors))]
    table = np.array([[heights.between(guess, true) for guess in paths] for true in paths])
    shares = prediction.final.numpy() / prediction.final.numpy().sum(axis=1, keepdims=True)
    costs = shares @ table
    decoded = DECODINGS["least-cost"](prediction, leaf_paths(tree))
    answer = decoded.final.argmax(dim=1).numpy()
    best = np.take_along_axis(costs, answer[:, None], axis=1)[:, 0]
    np.testing.assert_allclose(best, costs.min(axis=1), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(decoded.final.numpy(), (shares + np.eye(len(paths))[answer]) / 2, rtol=1e-9)


@pytest.mark.parametrize("decode", DECODINGS)
@QUICK
@given(tree=hierarchies(), seed=st.integers(0, 2**32 - 1), data=st.data())
def test_leaves_below_one_node_are_ranked_as_a_tree_of_their_own(
    decode: str, tree: Hierarchy, seed: int, data: st.DataObject
) -> None:
    """The nodes above them are common to all, so they change no order, and a product's share not either."""
    prediction = random_prediction(tree, seed)
    leaf = data.draw(st.integers(0, len(tree.ancestors) - 1))
    h = data.draw(st.integers(0, int(tree.depths[leaf]) - 1))
    below = np.flatnonzero(tree.ancestors[:, h] == tree.ancestors[leaf, h])
    part = Prediction(prediction.levels, prediction.final[:, below])
    got = DECODINGS[decode](part, leaf_paths(tree, below)).final
    whole = torch.zeros_like(prediction.final)
    whole[:, below] = part.final
    expected = DECODINGS[decode](Prediction(prediction.levels, whole), leaf_paths(tree)).final[:, below]
    if decode in ("leaf", "path"):
        assert torch.equal(got, part.final)
    else:
        torch.testing.assert_close(got, expected / expected.sum(dim=1, keepdim=True))


@QUICK
@given(tree=hierarchies(), seed=st.integers(0, 2**32 - 1))
def test_the_leaves_alone_are_decoded_as_with_the_levels(tree: Hierarchy, seed: int) -> None:
    prediction, paths = random_prediction(tree, seed), leaf_paths(tree)
    for decode, alone in LEAVES.items():
        assert torch.equal(alone(prediction, paths), DECODINGS[decode](prediction, paths).final)


def test_decodings_can_be_traced_with_the_paths_as_buffers() -> None:
    """So does an exported graph, whatever the number of rows."""
    tree = named(np.array([[0, -1, -1], [1, 0, -1], [2, 1, 0], [2, 1, 1], [2, 2, -1]]))

    class All(torch.nn.Module):
        ancestors: torch.Tensor
        falls: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("ancestors", torch.from_numpy(tree.ancestors))
            self.register_buffer("falls", torch.from_numpy(tree.falls))

        def forward(self, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, final: torch.Tensor) -> list[torch.Tensor]:
            paths = Paths(self.ancestors, self.falls, tree.even)
            decoded = [decode(Prediction((a, b, c), final), paths) for decode in DECODINGS.values()]
            return [tensor for one in decoded for tensor in (*one.levels, one.final)]

    def inputs(rows: int) -> tuple[torch.Tensor, ...]:
        prediction = random_prediction(tree, rows, rows)
        return (*prediction.levels, prediction.final)

    traced = torch.export.export(All(), inputs(3), dynamic_shapes=[{0: torch.export.Dim("rows")}] * 4).module()
    for rows in (1, 4):
        torch.testing.assert_close(traced(*inputs(rows)), All()(*inputs(rows)))


def naive_depth(counts: list[int], paths: list[tuple[str, ...]], least: int) -> int:
    """Depth of the deepest node above the best leaf whose leaves have `least` counts together."""
    best = paths[counts.index(max(counts))]
    for depth in range(len(best), 0, -1):
        if sum(n for n, path in zip(counts, paths, strict=True) if path[:depth] == best[:depth]) >= least:
            return depth
    return 0


@QUICK
@given(
    tree=hierarchies(), seed=st.integers(0, 2**32 - 1), least=st.integers(0, 65), scale=st.sampled_from([0.5, 1.0, 4.0])
)
def test_stopping_early_equals_a_naive_loop(tree: Hierarchy, seed: int, least: int, scale: float) -> None:
    # Multiples of 1/64 add up exactly, so that a node may lie on the threshold itself; P_final need not add up to 1.
    paths = [tree.path(leaf) for leaf in range(len(tree.ancestors))]
    share = np.random.default_rng(seed).dirichlet(np.full(len(paths), 0.3))
    counts = np.random.default_rng(seed).multinomial(64, share, size=20)
    depth = climbed(torch.from_numpy(counts / 64 * scale).float(), leaf_paths(tree), least / 64)
    assert depth.tolist() == [naive_depth(row, paths, least) for row in counts.tolist()]


@QUICK
@given(
    tree=hierarchies(), seed=st.integers(0, 2**32 - 1), confidences=st.lists(st.floats(0, 1.1), min_size=2, max_size=6)
)
def test_more_confidence_never_stops_deeper(tree: Hierarchy, seed: int, confidences: list[float]) -> None:
    final = torch.rand(20, len(tree.ancestors), generator=torch.Generator().manual_seed(seed)) ** 4
    depths = [climbed(final, leaf_paths(tree), confidence) for confidence in sorted(confidences)]
    for lower, higher in itertools.pairwise(depths):
        assert (higher <= lower).all()


@QUICK
@given(tree=hierarchies(), seed=st.integers(0, 2**32 - 1))
def test_no_confidence_needed_gives_the_leaf(tree: Hierarchy, seed: int) -> None:
    final = torch.rand(20, len(tree.ancestors), generator=torch.Generator().manual_seed(seed))
    final[0] = 0  # sigmoids may all be 0
    depth = climbed(final, leaf_paths(tree), 0)
    assert depth.tolist() == tree.depths[final.argmax(dim=1).numpy()].tolist()


def test_a_row_without_any_probability_is_not_answered() -> None:
    assert climbed(torch.zeros(1, 5), PATHS, 0.05).tolist() == [0]
