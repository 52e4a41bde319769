"""Losses against naive loops, the weighting against its analytic optimum."""

import math

import numpy as np
import pytest
import torch

from hfc.losses import (
    Sum,
    Uncertainty,
    binary_cross_entropy,
    hierarchical_violation,
    probabilities,
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
    assert binary_cross_entropy(logits, target).item() == pytest.approx(total / 35, rel=1e-12)


def test_softmax_cross_entropy_is_the_mean_over_the_batch(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, target = batch
    total = 0.0
    for z, y in zip(logits.tolist(), target.tolist(), strict=True):
        total -= math.log(math.exp(z[y]) / sum(math.exp(value) for value in z))
    assert softmax_cross_entropy(logits, target).item() == pytest.approx(total / 7, rel=1e-12)


def test_probabilities_mean_what_the_loss_says(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    z = batch[0].numpy()
    np.testing.assert_allclose(probabilities(batch[0], "bce").numpy(), 1 / (1 + np.exp(-z)))
    softmax = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities(batch[0], "softmax").numpy(), softmax)


def test_violation_counts_children_above_their_parents_only() -> None:
    children = torch.tensor([[0.9, 0.2], [0.5, 0.8]])
    parents = torch.tensor([[0.4, 0.6], [0.5, 0.5]])
    assert hierarchical_violation(children, parents).item() == pytest.approx((0.5**2 + 0.3**2) / 2)


def test_sum_adds_its_tasks() -> None:
    losses = {"local": torch.tensor(2.0), "global": torch.tensor(0.5)}
    assert Sum(["local", "global"])(losses).item() == 2.5
    assert Sum(["local", "global"]).weights() == {"local": 1.0, "global": 1.0}


def test_uncertainty_starts_as_the_plain_sum() -> None:
    losses = {"local": torch.tensor(2.0), "global": torch.tensor(0.5)}
    assert Uncertainty(["local", "global"])(losses).item() == 2.5


def test_uncertainty_equals_the_papers_formula() -> None:
    weighting = Uncertainty(["local", "global"])
    with torch.no_grad():
        weighting.log_variance.copy_(torch.tensor([0.7, -1.3]))
    sigma1, sigma2 = math.exp(0.35), math.exp(-0.65)
    expected = 2.0 / sigma1**2 + 0.5 / sigma2**2 + math.log(sigma1) + math.log(sigma2)
    losses = {"local": torch.tensor(2.0), "global": torch.tensor(0.5)}
    assert weighting(losses).item() == pytest.approx(expected, rel=1e-6)


def test_uncertainty_finds_the_analytic_optimum_on_fixed_losses() -> None:
    # d/ds (L e^-s + s/2) = 0 at e^s = 2 L, so the weights become 1/(2 L); the total there may be negative.
    weighting = Uncertainty(["local", "global"])
    losses = {"local": torch.tensor(0.03), "global": torch.tensor(0.2)}
    optimiser = torch.optim.Adam(weighting.parameters(), lr=0.05)
    for _ in range(600):
        optimiser.zero_grad()
        weighting(losses).backward()
        optimiser.step()
    assert weighting.weights() == pytest.approx({"local": 1 / 0.06, "global": 1 / 0.4}, rel=1e-3)
    minimum = sum(0.5 + 0.5 * math.log(2 * loss) for loss in (0.03, 0.2))
    assert minimum < 0
    assert weighting(losses).item() == pytest.approx(minimum, rel=1e-4)
