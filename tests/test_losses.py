"""Losses against naive loops."""

import math

import numpy as np
import pytest
import torch

from hfc.losses import (
    binary_cross_entropy,
    class_weights,
    hierarchical_cross_entropy,
    hierarchical_violation,
    probabilities,
    soft_label_cross_entropy,
    soft_labels,
    softmax_cross_entropy,
)


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


@pytest.mark.parametrize("alpha", [0.0, 0.4, 3.0])
def test_hierarchical_cross_entropy_weighs_each_choice_by_its_height(
    alpha: float, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    logits, leaf = batch
    total = 0.0
    for z, y in zip(logits.tolist(), leaf.tolist(), strict=True):
        p = naive_softmax(z)
        path = ANCESTORS[y].tolist()
        before = 1.0
        for h in range(3):
            below = sum(p[c] for c in range(5) if ANCESTORS[c, h] == path[h])
            total -= math.exp(-alpha * (2 - h)) * math.log(below / before)
            before = below
    got = hierarchical_cross_entropy(logits, ANCESTORS[leaf], ANCESTORS, SIZES, alpha).mean().item()
    assert got == pytest.approx(total / 7, rel=1e-10)
    if alpha == 0:
        assert got == pytest.approx(softmax_cross_entropy(logits, leaf).mean().item(), rel=1e-10)


@pytest.mark.parametrize("beta", [0.5, 4.0, 500.0])
def test_soft_labels_fall_off_with_the_distance_in_the_tree(
    beta: float, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    logits, leaf = batch
    total = 0.0
    for z, y in zip(logits.tolist(), leaf.tolist(), strict=True):
        p = naive_softmax(z)
        heights = [sum(ANCESTORS[c, h] != ANCESTORS[y, h] for h in range(3)) for c in range(5)]
        labels = naive_softmax([-beta * float(height) / 3 for height in heights])
        total -= sum(label * math.log(q) for label, q in zip(labels, p, strict=True))
    got = soft_label_cross_entropy(logits, soft_labels(ANCESTORS, beta)[leaf]).mean().item()
    assert got == pytest.approx(total / 7, rel=1e-6)
    if beta == 500:
        assert got == pytest.approx(softmax_cross_entropy(logits, leaf).mean().item(), rel=1e-10)


def test_losses_that_know_the_tree_stay_finite_where_a_softmax_saturates() -> None:
    logits = torch.tensor([[200.0, 0, 0, 0, -200]], requires_grad=True)
    values = (
        hierarchical_cross_entropy(logits, ANCESTORS[[4]], ANCESTORS, SIZES, 1.0).sum(),
        soft_label_cross_entropy(logits, soft_labels(ANCESTORS, 1.0)[[4]]).sum(),
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
