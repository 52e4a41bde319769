"""The methods that `tests.bench tried` tries, against their equations in loops over paths of names."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from hfc.hierarchy import Hierarchy, from_paths
from hfc.train.heads.layers import Target
from tests.bench.tried_heads import Adjusted, HierCos, LeafMargin, NodeMargin, Tried
from tests.bench.tried_scores import adjusted, hie, neighbours, parents_of, votes
from tests.support.trees import Heights, prefixes

Path = tuple[str, ...]
EVEN = [("a", "b", "c"), ("a", "b", "d"), ("a", "e", "f"), ("g", "h", "i"), ("g", "h", "j")]
# Leaves on every level, an only child, and a node with both leaves and inner nodes below it.
UNEVEN = [("a",), ("b", "c"), ("b", "d", "e"), ("b", "d", "f"), ("g", "h", "i"), ("j",)]
TREES = pytest.mark.parametrize("paths", [EVEN, UNEVEN], ids=["even", "uneven"])
DIM, ROWS = 6, 7


def tree_of(paths: list[Path]) -> Hierarchy:
    tree = from_paths("tree", ["1", "2", "3"], paths)
    assert [tree.path(leaf) for leaf in range(len(paths))] == paths
    return tree


def nodes(tree: Hierarchy) -> list[Path]:
    """The paths of all nodes, the levels after each other."""
    return [node for level in prefixes(tree) for node in level]


def scored(kind: type[Tried], tree: Hierarchy, strength: float) -> tuple[Tried, Tensor, Target]:
    """A head, the scores that it gives some rows, and their labels: every leaf has a row."""
    torch.manual_seed(3)
    head = kind.at(strength)(DIM, torch.from_numpy(tree.ancestors), reduced=8, dropout=0.0).double().eval()
    torch.nn.init.normal_(head.leaf.weight)
    leaf = torch.arange(ROWS) % len(tree.leaves)
    scores = head(torch.randn(ROWS, DIM, dtype=torch.float64)).leaf
    return head, scores.detach(), Target(torch.from_numpy(tree.ancestors)[leaf], leaf)


def loss_of(head: Tried, scores: Tensor, target: Target) -> list[float]:
    """The head's loss of given scores, (B,)."""
    logits = type(head(torch.zeros(1, DIM, dtype=torch.float64)))(scores)
    return head.losses(logits, target)["global"].tolist()


def final_of(head: Tried, scores: Tensor) -> list[list[float]]:
    logits = type(head(torch.zeros(1, DIM, dtype=torch.float64)))(scores)
    return head.predict(logits, 0.0).final.tolist()


def softmax(scores: list[float]) -> list[float]:
    total = sum(math.exp(score) for score in scores)
    return [math.exp(score) / total for score in scores]


@TREES
def test_soft_max_margin_over_leaves_costs_the_share_of_the_height(paths: list[Path]) -> None:
    tree = tree_of(paths)
    head, scores, target = scored(LeafMargin, tree, 1.7)
    heights = Heights(tree)
    expected = []
    for row, true in zip(scores.tolist(), target.leaf.tolist(), strict=True):
        costs = [heights.between(paths[true], other) / 3 for other in paths]
        expected.append(math.log(sum(math.exp(z + 1.7 * c) for z, c in zip(row, costs, strict=True))) - row[true])
    assert loss_of(head, scores, target) == pytest.approx(expected, rel=1e-6)
    assert final_of(head, scores) == [pytest.approx(softmax(row)) for row in scores.tolist()]


@TREES
def test_soft_max_margin_over_nodes_spares_the_path_and_the_root(paths: list[Path]) -> None:
    tree = tree_of(paths)
    head, scores, target = scored(NodeMargin, tree, 1.7)
    answers = [(), *nodes(tree)]
    assert scores.shape[1] == len(answers)
    places = [answers.index(path) for path in paths]
    expected = []
    for row, true in zip(scores.tolist(), target.leaf.tolist(), strict=True):
        wrong = [paths[true][: len(answer)] != answer for answer in answers]
        total = sum(math.exp(z + 1.7 * w) for z, w in zip(row, wrong, strict=True))
        expected.append(math.log(total) - row[places[true]])
    assert loss_of(head, scores, target) == pytest.approx(expected, rel=1e-6)
    assert final_of(head, scores) == [pytest.approx(softmax([row[p] for p in places])) for row in scores.tolist()]


@TREES
def test_hier_cos_shares_the_path_and_holds_the_other_axes_down(paths: list[Path]) -> None:
    tree = tree_of(paths)
    head, scores, target = scored(HierCos, tree, 0.3)
    every, levels = nodes(tree), prefixes(tree)
    expected = []
    for row, true in zip(scores.tolist(), target.leaf.tolist(), strict=True):
        length = {node: abs(x) for node, x in zip(every, row, strict=True)}
        path = [paths[true][:depth] for depth in range(1, len(paths[true]) + 1)]
        weights = {node: math.exp(1 / (len(path) - h)) ** 2 for h, node in enumerate(path)}
        total = sum(math.exp(x) for x in length.values())
        loss = 0.0
        for node, weight in weights.items():
            q = weight / sum(weights.values())
            loss += q * (math.log(q) - math.log(math.exp(length[node]) / total))
        for h, level in enumerate(levels):
            norm = math.sqrt(sum(length[node] ** 2 for node in level))
            below = h >= len(path)
            parts = [length[n] if below else abs((n == path[h]) - length[n] / norm) for n in level]
            loss += 0.3 * sum(parts)
        expected.append(loss)
    assert loss_of(head, scores, target) == pytest.approx(expected, rel=1e-6)
    for row, final in zip(scores.tolist(), final_of(head, scores), strict=True):
        on = [[every.index(path[:depth]) for depth in range(1, len(path) + 1)] for path in paths]
        lengths = [math.sqrt(sum(row[node] ** 2 for node in nodes)) for nodes in on]
        assert final == pytest.approx(softmax(lengths))


@TREES
def test_logit_adjustment_adds_the_logarithm_of_the_share_in_training_alone(paths: list[Path]) -> None:
    tree = tree_of(paths)
    prior = [(leaf + 1) / sum(range(len(paths) + 1)) for leaf in range(len(paths))]
    kind = type("Adjusted", (Adjusted,), {"log_prior": torch.tensor(prior, dtype=torch.float64).log()})
    head, scores, target = scored(kind, tree, 0.6)
    expected = []
    for row, true in zip(scores.tolist(), target.leaf.tolist(), strict=True):
        chances = softmax([z + 0.6 * math.log(p) for z, p in zip(row, prior, strict=True)])
        expected.append(-math.log(chances[true]))
    assert loss_of(head, scores, target) == pytest.approx(expected, rel=1e-6)
    assert final_of(head, scores) == [pytest.approx(softmax(row)) for row in scores.tolist()]


def shares(rows: int, columns: int, seed: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).softmax(dim=1)


def test_logit_adjustment_afterwards_divides_by_a_power_of_the_share() -> None:
    final, prior = shares(4, 3, 0), [0.7, 0.2, 0.1]
    changed = adjusted(final, torch.tensor(prior).double().log(), 0.5).tolist()
    for row, after in zip(final.tolist(), changed, strict=True):
        scores = [p / share**0.5 for p, share in zip(row, prior, strict=True)]
        assert after == pytest.approx([score / sum(scores) for score in scores])
    assert torch.allclose(adjusted(final, torch.tensor(prior).double().log(), 0.0), final)


@TREES
def test_hie_multiplies_by_a_power_of_the_parent(paths: list[Path]) -> None:
    tree = tree_of(paths)
    coarse, parent = parents_of(tree)
    parents = [path[:-1] or path for path in paths]  # a leaf below the root has no parent that says anything
    names = [" > ".join(path) for path in parents]
    assert [coarse.leaves[number] for number in parent] == names
    assert len(coarse.leaves) == len(set(names))
    fine, group = shares(5, len(paths), 1), shares(5, len(coarse.leaves), 2)
    for exponent in (0.25, 1.0):
        for row in range(5):
            products = []
            for leaf, name in enumerate(names):
                products.append(fine[row, leaf].item() * group[row, coarse.leaves.index(name)].item() ** exponent)
            expected = [product / sum(products) for product in products]
            assert hie(fine, group, parent, exponent)[row].tolist() == pytest.approx(expected)


def test_neighbours_vote_by_their_cosine() -> None:
    rng = np.random.default_rng(0)
    train, rows, leaf = rng.normal(size=(30, 4)), rng.normal(size=(5, 4)), rng.integers(3, size=30)
    near, index = neighbours(torch.from_numpy(rows), torch.from_numpy(train), 9)
    found = votes(near, torch.from_numpy(leaf)[index], 3, 6, 0.07)
    for row, share in zip(rows, found.tolist(), strict=True):
        cosines = [float(row @ other / np.linalg.norm(row) / np.linalg.norm(other)) for other in train]
        best = sorted(range(30), key=lambda other: -cosines[other])[:6]
        counts = [sum(math.exp(cosines[other] / 0.07) for other in best if leaf[other] == c) for c in range(3)]
        assert share == pytest.approx([count / sum(counts) for count in counts])


def test_neighbours_are_no_more_than_there_are_rows() -> None:
    near, index = neighbours(torch.eye(3), torch.eye(3), 200)
    assert near.shape == index.shape == (3, 3)
    assert index[:, 0].tolist() == [0, 1, 2]
