"""What heads are made of."""

import numpy as np
import pytest
import torch

from hfc.train.heads.layers import Block, Dropout, Standardise


def test_dropout_acts_after_the_residual() -> None:
    block = Block(4, 4, dropout=0.9).train()
    out = block(torch.randn(64, 4), torch.full((64, 4), 100.0))
    assert (out == 0).float().mean() > 0.8


def test_a_residual_of_another_width_is_left_out() -> None:
    block = Block(4, 3, dropout=0.5).eval()
    inputs = torch.randn(2, 4)
    torch.testing.assert_close(block(inputs, torch.randn(2, 5)), block(inputs))


def test_a_feature_that_never_varies_is_only_centred() -> None:
    layer = Standardise(2)
    layer.set(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 2.0]))
    torch.testing.assert_close(layer(torch.tensor([[1.0, 6.0]])), torch.tensor([[0.0, 2.0]]))


@pytest.mark.parametrize("transform", ["none", "sqrt", "l2"])
def test_features_are_transformed_before_they_are_standardised(transform: str) -> None:
    rng = np.random.default_rng(0)
    raw = rng.normal(size=(150, 5)).astype(np.float16)  # rows go by in parts of 64
    raw[0] = 0
    x = raw.astype(np.float64)
    length = np.sqrt(np.square(x).sum(axis=1, keepdims=True))
    wanted = {
        "none": x,
        "sqrt": np.where(x < 0, -1, 1) * np.sqrt(np.abs(x)),
        "l2": np.divide(x, length, out=np.zeros_like(x), where=length > 0),
    }[transform]
    layer = Standardise(5)
    layer.transform = transform
    mean, std = torch.from_numpy(rng.normal(size=5)), torch.from_numpy(rng.uniform(0.5, 2, size=5))
    layer.set(mean, std)
    wanted = (wanted - mean.numpy()) / std.numpy()
    for features in (torch.from_numpy(raw), torch.from_numpy(raw).float().requires_grad_()):
        np.testing.assert_allclose(layer(features).detach().numpy(), wanted, atol=2e-6)


@pytest.mark.parametrize("p", [0.7, 0.1, 0.999, 1e-6])
def test_dropout_zeroes_as_often_as_asked_and_keeps_the_mean(p: float) -> None:
    torch.manual_seed(0)
    dropout = Dropout(p)
    inputs = torch.ones(1000, 1001, requires_grad=True)
    out = dropout(inputs)
    kept = out != 0
    count = kept.numel()
    assert kept.sum().item() == pytest.approx(count * (1 - p), abs=5 * np.sqrt(count * p * (1 - p)) + count / 2**15)
    assert out.unique().numel() <= 2
    assert out.mean().item() == pytest.approx(1, abs=0.05)
    # Neighbours in a row and in a column are independent of each other, also where they share a random word.
    for other in (kept[:, 1:], kept[1:]):
        mine = kept[: other.shape[0], : other.shape[1]]
        both = (mine & other).float().mean().item()
        assert both == pytest.approx((1 - p) ** 2, abs=0.003)
    out.sum().backward()
    assert inputs.grad is not None
    torch.testing.assert_close(inputs.grad, out.detach())
    assert dropout.eval()(inputs) is inputs
