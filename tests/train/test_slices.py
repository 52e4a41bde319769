"""Losses by slices of rows against those of all rows at once."""

from collections.abc import Callable
from typing import cast

import pytest
import torch
from torch import Tensor

from hfc.config import METHODS
from hfc.train import slices
from hfc.train.heads import Head
from hfc.train.heads.layers import Target
from hfc.train.slices import changed, row_losses, tensors_of
from tests.support.equations import TARGET, build, features

Losses = Callable[[Head, object, Target], dict[str, Tensor]]


def gradients(head: Head, target: Target, x: Tensor, losses: Losses) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
    """Losses and what they ask of every weight, each task and row by a factor of its own."""
    rows = losses(head, head(x), target)
    factors = torch.linspace(0.5, 2.0, len(rows) * len(x), dtype=torch.float64).view(len(rows), -1)
    total = sum(factor @ loss.double() for factor, loss in zip(factors, rows.values(), strict=True))
    return rows, torch.autograd.grad(total, list(head.parameters()))


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", METHODS)
def test_slices_of_any_size_give_what_the_whole_gives(
    method: str, dtype: torch.dtype, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = build(method).to(dtype)
    x, target = torch.cat([features(), -features()])[:7].to(dtype), changed(TARGET, lambda t: torch.cat([t, t])[:7])
    want = gradients(head, target, x, lambda head, logits, target: head.losses(logits, target))
    monkeypatch.setattr(slices, "LEAST", 0)
    sizes = []
    inner = type(head).losses
    monkeypatch.setattr(type(head), "losses", lambda self, z, y: (sizes.append(len(y.leaf)), inner(self, z, y))[1])
    cells = sum(t.numel() for t in tensors_of(head(x)))
    monkeypatch.setattr(slices, "CELLS", -(-rows * cells // 7))
    found = gradients(head, target, x, row_losses)
    assert sizes == 2 * [len(part) for part in torch.arange(7).split(rows)]  # there and back
    assert list(found[0]) == list(want[0])
    # Up to the ends of vectors: a processor computes those that do not fill one otherwise.
    torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-7)


def test_the_gradient_of_one_task_alone_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a weighting by gradients asks for it, task by task, from one graph."""
    head = build("hmcn-f")
    want = {task: head_gradient(head, head.losses(head(features()), TARGET), task) for task in head.tasks}
    monkeypatch.setattr(slices, "LEAST", 0)
    monkeypatch.setattr(slices, "CELLS", 20)
    losses = row_losses(head, head(features()), TARGET)
    for task in head.tasks:
        assert torch.equal(head_gradient(head, losses, task), want[task])


def head_gradient(head: Head, losses: dict[str, Tensor], task: str) -> Tensor:
    return torch.autograd.grad(losses[task].mean(), head.shared, retain_graph=True)[0]


class Products:
    """Losses in float64: every task is of all logits, and smooth."""

    tasks = ("local/1", "global")

    def losses(self, logits: tuple[Tensor, Tensor], target: Target) -> dict[str, Tensor]:
        first, second = (z.gather(1, target.path[:, -1:])[:, 0] for z in logits)
        return {"local/1": logits[0].exp().sum(dim=1) * second, "global": first * second.sin()}


def test_slices_pass_gradcheck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "LEAST", 0)
    monkeypatch.setattr(slices, "CELLS", 30)  # three rows and one
    logits = [torch.randn(4, 5, dtype=torch.float64, requires_grad=True) for _ in range(2)]

    def losses(*parts: Tensor) -> tuple[Tensor, ...]:
        return tuple(row_losses(cast(Head, Products()), parts, TARGET).values())

    assert torch.autograd.gradcheck(losses, logits, check_undefined_grad=False)


def test_few_numbers_are_not_sliced(monkeypatch: pytest.MonkeyPatch) -> None:
    head = build("flat")
    logits = head(features())  # 4 x 5
    monkeypatch.setattr(slices, "LEAST", 2)
    monkeypatch.setattr(slices, "CELLS", 10)
    assert "Sliced" in row_losses(head, logits, TARGET)["global"].grad_fn.name()
    monkeypatch.setattr(slices, "CELLS", 11)
    assert "Sliced" not in row_losses(head, logits, TARGET)["global"].grad_fn.name()
