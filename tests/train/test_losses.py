"""Losses against naive loops."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from hfc.train.heads.tree import Tree
from hfc.train.losses import (
    LEVEL_LOSSES,
    binary_cross_entropy,
    class_weights,
    hierarchical_cross_entropy,
    hierarchical_violation,
    level_losses,
    probabilities,
    soft_label_cross_entropy,
    soft_labels,
    softmax_cross_entropy,
    softmax_cross_entropy_among,
)
from hfc.train.wide import WIDE
from tests.support.trees import trees

Ints = NDArray[np.int64]


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(7, 5, generator=generator, dtype=torch.float64) * 4, torch.tensor([0, 4, 2, 2, 1, 3, 0])


def test_binary_cross_entropy_is_the_mean_over_batch_and_classes(
    batch: tuple[torch.Tensor, torch.Tensor],
) -> None:
    logits, target = batch
    total = 0.0
    for z, y in zip(logits.tolist(), target.tolist(), strict=True):
        for c, value in enumerate(z):
            p = 1 / (1 + math.exp(-value))
            total -= math.log(p) if c == y else math.log(1 - p)
    assert binary_cross_entropy(logits, target).mean().item() == pytest.approx(total / 35, rel=1e-12)


def test_softmax_cross_entropy_is_the_mean_over_the_batch(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, target = batch
    total = 0.0
    for z, y in zip(logits.tolist(), target.tolist(), strict=True):
        total -= math.log(math.exp(z[y]) / sum(math.exp(value) for value in z))
    assert softmax_cross_entropy(logits, target).mean().item() == pytest.approx(total / 7, rel=1e-12)


def test_where_one_of_several_classes_is_true(
    batch: tuple[torch.Tensor, torch.Tensor],
) -> None:
    logits, target = batch
    below = torch.nn.functional.one_hot(target, 5).bool()
    for loss in (binary_cross_entropy, softmax_cross_entropy):
        torch.testing.assert_close(loss(logits, target, below), loss(logits, target))
    below |= torch.randn(7, 5, generator=torch.Generator().manual_seed(4)) > 0
    for row, z in enumerate(logits.tolist()):
        classes = [c for c in range(5) if below[row, c]]
        p = naive_softmax(z)
        want = -math.log(sum(p[c] for c in classes))
        assert softmax_cross_entropy(logits, target, below)[row].item() == pytest.approx(want, rel=1e-12)
        s = [1 / (1 + math.exp(-value)) for value in z]
        others = math.prod(1 - s[c] for c in range(5) if c not in classes)
        likelihood = others * (s[classes[0]] if len(classes) == 1 else 1)  # which of several is there, no one knows
        got = binary_cross_entropy(logits, target, below)[row].item()
        assert got == pytest.approx(-math.log(likelihood) / 5, rel=1e-9)


@pytest.mark.parametrize("classes", [3, WIDE])
def test_a_label_half_way_asks_nothing_of_the_classes_below_it(classes: int) -> None:
    logits = torch.linspace(-2000, 2000, 2 * classes).view(2, classes).requires_grad_()
    below = torch.zeros(2, classes, dtype=torch.bool)
    below[0, :2] = below[1, 2] = True  # the second label is a class
    (slope,) = torch.autograd.grad(binary_cross_entropy(logits, torch.tensor([-1, 2]), below).sum(), logits)
    expected = logits.detach().sigmoid() / classes
    expected[0, :2] = 0
    expected[1, 2] -= 1 / classes
    torch.testing.assert_close(slope, expected)


def test_softmax_among_some_classes_asks_for_these_alone(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, target = batch
    logits.requires_grad_()
    columns = torch.stack([(target + 2) % 5, target, (target + 1) % 5], dim=1)
    real = torch.tensor([[True, True, True], [False, True, True], [False, True, False]])[target % 3]
    got = softmax_cross_entropy_among(logits, target, columns, real)
    for row, z in enumerate(logits.tolist()):
        among = [z[c] for c, counts in zip(columns[row].tolist(), real[row].tolist(), strict=True) if counts]
        want = math.log(sum(math.exp(value) for value in among)) - z[target[row]]
        assert got[row].item() == pytest.approx(want, rel=1e-12, abs=1e-12)
    (grad,) = torch.autograd.grad(got.sum(), logits)
    asked = torch.zeros(7, 5, dtype=torch.bool).scatter(1, columns, real)
    assert grad.isfinite().all()
    assert (grad[~asked] == 0).all()


def test_a_level_below_the_label_has_no_loss(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, target = batch
    logits.requires_grad_()
    path = torch.stack([target, torch.where(target < 2, target, -1)], dim=1)
    for loss in LEVEL_LOSSES.values():
        first, second = level_losses(loss, [logits, logits * 1e4], path)
        torch.testing.assert_close(first, loss(logits, target))
        torch.testing.assert_close(second, torch.where(target < 2, loss(logits * 1e4, target), 0))
        (grad,) = torch.autograd.grad(second[target >= 2].sum(), logits)
        assert grad.abs().sum() == 0


def test_probabilities_mean_what_the_loss_says(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    z = batch[0].numpy()
    np.testing.assert_allclose(probabilities(batch[0], "bce").numpy(), 1 / (1 + np.exp(-z)))
    softmax = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities(batch[0], "softmax").numpy(), softmax)


def test_violation_counts_children_above_their_parents_only() -> None:
    children = torch.tensor([[0.9, 0.2], [0.5, 0.8]])
    parents = torch.tensor([[0.4, 0.6], [0.5, 0.5]])
    assert hierarchical_violation(children, parents).tolist() == pytest.approx([0.5**2, 0.3**2])


# Five leaves on three levels: {0, 1} and {2} under the first kind, {3, 4} under the second.
ANCESTORS = torch.tensor([[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3], [1, 2, 4]])
SIZES = (2, 3, 5)


def naive_softmax(z: list[float]) -> list[float]:
    powers = [math.exp(value) for value in z]
    return [power / sum(powers) for power in powers]


def hxe(probabilities: Sequence[float], leaf: int, tree: Ints, alpha: float) -> float:
    """The loss of one row whose softmax gives these probabilities."""
    logits = torch.tensor([probabilities], dtype=torch.float64).log()
    ancestors = torch.from_numpy(tree)
    return hierarchical_cross_entropy(Tree(ancestors).log_sums(logits), ancestors[[leaf]], alpha).item()


def edges(inside: list[int], leaf: int, tree: list[list[int]], depth: int) -> list[tuple[int, list[int], list[int]]]:
    """From a node down to a leaf: the distance of each edge from the root, the leaves above it and those below it."""
    if depth == len(tree[leaf]):
        return []
    below = [other for other in inside if tree[other][depth] == tree[leaf][depth]]
    return [(depth, inside, below), *edges(below, leaf, tree, depth + 1)]


@given(tree=trees(), seed=st.integers(0, 2**32 - 1), alpha=st.sampled_from([0.0, 0.2, 0.5, 1.0, 3.0]))
def test_hierarchical_cross_entropy_weighs_each_edge_by_its_distance_from_the_root(
    tree: Ints, seed: int, alpha: float
) -> None:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(len(tree), 0.5)) + 1e-3
    p /= p.sum()
    leaf = int(rng.integers(len(tree)))
    want = 0.0
    for distance, above, below in edges(list(range(len(tree))), leaf, tree.tolist(), 0):
        want -= math.exp(-alpha * distance) * math.log(sum(p[below]) / sum(p[above]))
    assert hxe(p.tolist(), leaf, tree, alpha) == pytest.approx(want, rel=1e-9, abs=1e-9)
    if alpha == 0 or tree.shape[1] == 1:
        assert want == pytest.approx(-math.log(p[leaf]), rel=1e-9)


# Two groups of two leaves.
PAIRS = np.array([[0, 0], [0, 1], [1, 2], [1, 3]])


def test_hierarchical_cross_entropy_of_two_levels_by_hand() -> None:
    # Leaf 0 has 0.5, its group 0.6: -ln 0.6 = 0.510826, -ln(0.5 / 0.6) = 0.182322, exp(-0.2) = 0.818731.
    # 1 * 0.510826 + 0.818731 * 0.182322 = 0.660098
    p = [0.5, 0.1, 0.3, 0.1]
    assert hxe(p, 0, PAIRS, 0.2) == pytest.approx(0.660098, abs=1e-6)
    # Leaf 3 has 0.1, its group 0.4: -ln 0.4 = 0.916291, -ln(0.1 / 0.4) = 1.386294.
    # 1 * 0.916291 + 0.818731 * 1.386294 = 2.051293
    assert hxe(p, 3, PAIRS, 0.2) == pytest.approx(2.051293, abs=1e-6)


def test_hierarchical_cross_entropy_asks_for_the_group_more_as_alpha_grows() -> None:
    # The leaf keeps its 0.2 while its sibling takes 0.5 from the other group, or gives it back.
    near, far = [0.2, 0.6, 0.1, 0.1], [0.2, 0.1, 0.6, 0.1]
    group = math.log(0.8 / 0.3)  # how much less likely the group is in the second
    counts = []
    for alpha in (0.0, 0.05, 0.2, 0.5, 1.0, 3.0, 20.0):
        counts.append((hxe(far, 0, PAIRS, alpha) - hxe(near, 0, PAIRS, alpha)) / group)
    assert counts[0] == pytest.approx(0, abs=1e-9)
    assert all(before < after for before, after in pairwise(counts))
    assert counts[2] == pytest.approx(0.181269, abs=1e-6)  # 1 - exp(-0.2), of NLL(group), beside exp(-0.2) NLL(leaf)
    assert counts[-1] == pytest.approx(1, abs=1e-6)


UNEVEN = [0.40, 0.10, 0.25, 0.05, 0.20]
# What fiveai/making-better-mistakes (commit f0bb7d0: get_weighting(tree, "exponential", value=alpha) and
# HierarchicalCrossEntropyLoss) gives on ANCESTORS with UNEVEN for each leaf. Its weights sum to one over all nodes.
AUTHORS_HXE = {
    0.0: [0.083299, 0.209326, 0.126027, 0.272339, 0.146313],
    0.2: [0.085193, 0.188111, 0.131479, 0.273018, 0.170101],
    0.5: [0.084253, 0.154041, 0.130550, 0.270724, 0.200936],
    3.0: [0.013863, 0.014018, 0.015390, 0.062492, 0.062338],
}
# What jvlmdr/hiercls (commit 1b90787: FlatBertinettoHXE) gives on the same.
HIERCLS_HXE = {
    0.0: [0.916291, 2.302585, 1.386294, 2.995732, 1.609438],
    0.2: [0.769226, 1.698487, 1.187150, 2.465133, 1.535872],
    0.5: [0.615699, 1.125688, 0.954024, 1.978374, 1.468384],
    3.0: [0.308422, 0.311858, 0.342379, 1.390284, 1.386847],
}


@pytest.mark.parametrize("alpha", AUTHORS_HXE)
def test_hierarchical_cross_entropy_equals_public_implementations(alpha: float) -> None:
    got = np.array([hxe(UNEVEN, leaf, ANCESTORS.numpy(), alpha) for leaf in range(5)])
    np.testing.assert_allclose(got, HIERCLS_HXE[alpha], atol=1e-6)
    nodes_at_depth = (1, 2, 3, 5)
    total = sum(count * math.exp(-alpha * depth) for depth, count in enumerate(nodes_at_depth))
    np.testing.assert_allclose(got * math.exp(-alpha) / total, AUTHORS_HXE[alpha], atol=2e-6)


def distances(paths: torch.Tensor, ancestors: torch.Tensor) -> torch.Tensor:
    """LCA heights in an even tree: on how many levels two paths differ."""
    return (paths[:, None] != ancestors).sum(dim=2).float()


@pytest.mark.parametrize("beta", [0.5, 4.0, 500.0])
def test_soft_labels_fall_off_with_the_distance_in_the_tree(
    beta: float, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    logits, leaf = batch
    total = 0.0
    for z, y in zip(logits.tolist(), leaf.tolist(), strict=True):
        p = naive_softmax(z)
        heights = [sum(ANCESTORS[c, h] != ANCESTORS[y, h] for h in range(3)) for c in range(5)]
        powers = naive_softmax([-beta * float(height) / 3 for height in heights])
        total -= sum(label * math.log(q) for label, q in zip(powers, p, strict=True))
    labels = soft_labels(distances(ANCESTORS[leaf], ANCESTORS), SIZES, beta)
    got = soft_label_cross_entropy(logits, labels).mean().item()
    assert got == pytest.approx(total / 7, rel=1e-6)
    if beta == 500:
        assert got == pytest.approx(softmax_cross_entropy(logits, leaf).mean().item(), rel=1e-10)


# What fiveai/making-better-mistakes (commit f0bb7d0: make_all_soft_labels) gives on ANCESTORS for beta = 4.
AUTHORS_SOFT_LABELS = [
    [0.730081, 0.192447, 0.050729, 0.013372, 0.013372],
    [0.192447, 0.730081, 0.050729, 0.013372, 0.013372],
    [0.059105, 0.059105, 0.850631, 0.015580, 0.015580],
    [0.013891, 0.013891, 0.013891, 0.758412, 0.199915],
    [0.013891, 0.013891, 0.013891, 0.199915, 0.758412],
]


def test_soft_labels_equal_the_authors_code() -> None:
    np.testing.assert_allclose(
        soft_labels(distances(ANCESTORS, ANCESTORS), SIZES, 4.0).numpy(), AUTHORS_SOFT_LABELS, atol=1e-6
    )


def labels_of_leaves(tree: Ints, beta: float) -> torch.Tensor:
    """The soft label of every leaf of a tree, a row each."""
    ancestors = torch.from_numpy(tree)
    return soft_labels(distances(ancestors, ancestors), (tree.max(axis=0) + 1).tolist(), beta)


@given(tree=trees(), beta=st.sampled_from([0.5, 4.0, 30.0]))
def test_soft_labels_follow_fractions_of_the_largest_distance(tree: Ints, beta: float) -> None:
    paths = tree.tolist()
    distances = np.zeros((len(paths), len(paths)))
    for a, one in enumerate(paths):
        for b, other in enumerate(paths):
            common = next((h for h in range(len(one)) if one[h] != other[h]), len(one))
            distances[a, b] = len(one) - common
    powers = np.exp(-beta * distances / distances.max())
    want = powers / powers.sum(axis=0)  # a leaf a column
    got = labels_of_leaves(tree, beta)
    np.testing.assert_allclose(got.numpy(), want.T, rtol=1e-5)
    # The same tree below one more node that holds everything.
    under = np.concatenate([np.zeros((len(tree), 1), dtype=np.int64), tree], axis=1)
    torch.testing.assert_close(labels_of_leaves(under, beta), got)


def test_soft_labels_of_a_single_leaf_are_one_hot() -> None:
    assert labels_of_leaves(np.zeros((1, 2), dtype=np.int64), 4.0).tolist() == [[1.0]]


def test_soft_label_gradients_are_those_of_the_kl_divergence_times_the_classes(
    batch: tuple[torch.Tensor, torch.Tensor],
) -> None:
    logits, leaf = batch
    logits.requires_grad_()
    labels = soft_labels(distances(ANCESTORS[leaf], ANCESTORS), SIZES, 4.0).double()
    (got,) = torch.autograd.grad(soft_label_cross_entropy(logits, labels).mean(), logits)
    # KLDivLoss() of the authors' code: a mean over rows and classes.
    divergence = torch.nn.KLDivLoss(reduction="sum")(logits.log_softmax(dim=1), labels) / labels.numel()
    (want,) = torch.autograd.grad(divergence, logits)
    torch.testing.assert_close(got, 5 * want)


def test_losses_that_know_the_tree_stay_finite_where_a_softmax_saturates() -> None:
    logits = torch.tensor([[200.0, 0, 0, 0, -200]], requires_grad=True)
    values = (
        hierarchical_cross_entropy(Tree(ANCESTORS).log_sums(logits.log_softmax(dim=1)), ANCESTORS[[4]], 1.0).sum(),
        soft_label_cross_entropy(logits, soft_labels(distances(ANCESTORS[[4]], ANCESTORS), SIZES, 1.0)).sum(),
    )
    for value in values:
        (grad,) = torch.autograd.grad(value, logits)
        assert value.isfinite()
        assert grad.isfinite().all()


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.999])
def test_class_weights_follow_the_effective_number_of_rows(beta: float) -> None:
    counts = [100, 1, 0, 7]
    effective = [sum(beta**i for i in range(n)) for n in counts]  # (1 - beta^n) / (1 - beta), as a geometric series
    raw = [1 / e if e else 0.0 for e in effective]
    want = [3 * weight / sum(raw) for weight in raw]
    assert class_weights(torch.tensor(counts), beta).tolist() == pytest.approx(want, rel=1e-5)


def test_class_weights_equal_the_authors_where_every_class_occurs() -> None:
    # richardaecn/class-balanced-loss: (1 - beta) / (1 - beta^n), scaled to sum to the number of classes.
    counts, beta = np.array([500, 50, 5]), 0.99
    weights = (1.0 - beta) / (1.0 - np.power(beta, counts))
    weights = weights / np.sum(weights) * len(counts)
    np.testing.assert_allclose(weights, [0.126130, 0.317223, 2.556647], atol=1e-6)
    np.testing.assert_allclose(class_weights(torch.from_numpy(counts), beta).numpy(), weights, rtol=1e-6)
