"""Choices among siblings, against their equations."""

import numpy as np
import pytest
import torch

from hfc.train.losses import log_softmax_among_siblings
from tests.support.equations import TARGET, Naive, build, features, reduced


def test_conditional_multiplies_choices_among_siblings() -> None:
    head = build("conditional")
    naive = Naive(head)
    logits = head(features())
    prediction = head.predict(logits, 0.7)
    losses = head.losses(logits, TARGET)
    # Families by hand: the root has kinds 0 1; kind 0 has groups 0 1, kind 1 group 2; leaves 0 1 | 2 | 3 4.
    families = [[[0, 1]], [[0, 1], [2]], [[0, 1], [2], [3, 4]]]
    parents = [[], [0, 0, 1], [0, 0, 1, 2, 2]]
    for row, x in enumerate(reduced(naive)):
        above = np.ones(1)
        for h in range(3):
            z = naive.linear(f"outputs.{h}", x)
            given = np.empty(len(z))
            for family in families[h]:
                given[family] = np.exp(z[family]) / np.exp(z[family]).sum()
            above = given if h == 0 else given * above[parents[h]]
            np.testing.assert_allclose(prediction.levels[h][row].detach().numpy(), above, rtol=1e-5)
            assert above.sum() == pytest.approx(1)
        np.testing.assert_allclose(prediction.final[row].detach().numpy(), above, rtol=1e-5)
    # The losses of the levels add up to that of the leaf.
    leaves = prediction.final.gather(1, TARGET.leaf[:, None]).log().mean()
    assert sum(loss.mean().item() for loss in losses.values()) == pytest.approx(-leaves.item(), rel=1e-6)


def test_a_softmax_among_siblings_does_not_overflow() -> None:
    logits = torch.tensor([[1000.0, 0.0, -1000.0, 5.0, 5.0]], requires_grad=True)
    found = log_softmax_among_siblings(logits, torch.tensor([0, 0, 1, 2, 2]), 3)
    torch.testing.assert_close(found, torch.tensor([[0.0, -1000.0, 0.0, -np.log(2), -np.log(2)]], dtype=torch.float32))
    (grad,) = torch.autograd.grad(found[0, 1], logits)
    torch.testing.assert_close(grad, torch.tensor([[-1.0, 1.0, 0.0, 0.0, 0.0]]))
