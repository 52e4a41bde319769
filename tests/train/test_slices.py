"""Losses by slices of rows against those of all rows at once."""

from collections.abc import Callable
from typing import cast

import pytest
import torch
from torch import Tensor

from hfc.config import METHODS
from hfc.train import slices, wide
from hfc.train.heads import Head
from hfc.train.heads.layers import Target
from hfc.train.slices import changed, row_losses, task_means, tensors_of
from hfc.train.weightings import GradNorm
from tests.support.equations import INNER, TARGET, UNEVEN, build, features

Losses = Callable[[Head, object, Target], dict[str, Tensor]]


def gradients(head: Head, target: Target, x: Tensor, losses: Losses) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
    """Losses and what they ask of every weight, each task and row by a factor of its own."""
    rows = losses(head, head(x), target)
    factors = torch.linspace(0.5, 2.0, len(rows) * len(x), dtype=torch.float64).view(len(rows), -1)
    total = sum(factor @ loss.double() for factor, loss in zip(factors, rows.values(), strict=True))
    return rows, torch.autograd.grad(total, list(head.parameters()))


@pytest.fixture
def sliced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small slices, and what is computed of many classes for few."""
    monkeypatch.setattr(slices, "LEAST", 0)
    monkeypatch.setattr(slices, "CELLS", 20)
    monkeypatch.setattr(wide, "WIDE", 1)


@pytest.mark.parametrize("width", [1, wide.WIDE])
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", METHODS)
def test_slices_of_any_size_give_what_the_whole_gives(
    method: str, dtype: torch.dtype, rows: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = build(method).to(dtype)
    x, target = torch.cat([features(), -features()])[:7].to(dtype), changed(TARGET, lambda t: torch.cat([t, t])[:7])
    want = gradients(head, target, x, whole)
    monkeypatch.setattr(slices, "LEAST", 0)
    monkeypatch.setattr(wide, "WIDE", width)
    sizes = []
    for name in ("losses", "sloped"):
        if inner := getattr(type(head), name, None):
            counted = lambda self, z, y, inner=inner: (sizes.append(len(y.leaf)), inner(self, z, y))[1]  # noqa: E731
            monkeypatch.setattr(type(head), name, counted)
    cells = sum(t.numel() for t in tensors_of(head(x)))
    monkeypatch.setattr(slices, "CELLS", -(-rows * cells // 7))
    found = gradients(head, target, x, row_losses)
    by_hand = hasattr(head, "sloped")
    want_sizes = [len(part) for part in torch.arange(7).split(rows)]
    # Once only; a head that knows its slopes is first asked whether it knows these.
    assert sizes == [size for size in want_sizes for _ in range(2 if by_hand and width > 1 else 1)]
    assert list(found[0]) == list(want[0])
    # Up to the ends of vectors: a processor computes those that do not fill one otherwise.
    rtol, atol = (1e-5, 1e-7) if dtype == torch.float32 else (1e-10, 1e-13)
    torch.testing.assert_close(found, want, rtol=rtol, atol=atol)


@pytest.mark.usefixtures("sliced")
@pytest.mark.parametrize("method", METHODS)
def test_slices_of_an_uneven_tree_under_inner_labels_give_what_the_whole_gives(method: str) -> None:
    head = build(method, UNEVEN)
    want = gradients(head, INNER, features(), whole)
    torch.testing.assert_close(gradients(head, INNER, features(), row_losses), want, rtol=1e-10, atol=1e-13)


def whole(head: Head, logits: object, target: Target) -> dict[str, Tensor]:
    return head.losses(logits, target)


@pytest.mark.usefixtures("sliced")
@pytest.mark.parametrize("method", METHODS)
def test_the_gradient_of_one_task_alone_is_that_of_the_whole(method: str) -> None:
    """As a weighting by gradients asks for it, task by task, and then of all from the same graph."""
    head = build(method)
    parameters = list(head.parameters())
    found, want = row_losses(head, head(features()), TARGET), whole(head, head(features()), TARGET)
    for factors in ({task: 0.3} for task in (*head.tasks, *head.tasks)):
        got, plain = (slopes(losses, factors, parameters) for losses in (found, want))
        torch.testing.assert_close(got, plain, rtol=1e-10, atol=1e-13)
    factors = {task: 0.7 + k for k, task in enumerate(head.tasks)}  # each weighs its own, all rows of one alike
    got, plain = (slopes(losses, factors, parameters) for losses in (found, want))
    torch.testing.assert_close(got, plain, rtol=1e-10, atol=1e-13)


def slopes(losses: dict[str, Tensor], factors: dict[str, float], of: list[torch.nn.Parameter]) -> tuple[Tensor, ...]:
    total = torch.stack([factor * losses[task].mean() for task, factor in factors.items()]).sum()
    return torch.autograd.grad(total, of, retain_graph=True, allow_unused=True, materialize_grads=True)


@pytest.mark.usefixtures("sliced")
def test_weightings_by_gradients_take_the_same_steps() -> None:
    head, found = build("hmcn-f-original"), []
    for losses in (whole, row_losses):
        weighting = GradNorm(head.tasks, gradnorm_alpha=1.5, gradnorm_rate=0.1)
        rows = losses(head, head(features()), TARGET)
        means = {task: loss.mean() for task, loss in rows.items()}
        total = weighting(means)
        weighting.balance(means, head.shared)
        total.backward()
        found.append((weighting.factors(), [parameter.grad for parameter in head.parameters()]))
        head.zero_grad()
    assert found[0][0].unique().numel() > 2
    torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("method", ["flat", "levels+path", "hmcn-f", "conditional"])
def test_in_bfloat16_a_batch_of_a_power_of_two_has_the_very_gradients(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = build(method)
    logits = changed(head(features()), lambda z: z.detach().bfloat16().requires_grad_())
    monkeypatch.setattr(slices, "LEAST", 0)
    monkeypatch.setattr(slices, "CELLS", 1000)  # one slice: all vectors are as full
    found = []
    for losses in (whole, row_losses):
        total = torch.stack([loss.mean() for loss in losses(head, logits, TARGET).values()]).sum()
        found.append(torch.autograd.grad(total, tensors_of(logits)))
    for got, want in zip(*found, strict=True):
        assert got.dtype == torch.bfloat16
        assert torch.equal(got, want)


@pytest.mark.usefixtures("sliced")
def test_a_factor_that_is_no_power_of_two_is_applied_in_float32() -> None:
    head = build("hmcn-f")
    logits = changed(head(features()), lambda z: z.detach().bfloat16().requires_grad_())
    for factors in (torch.full((4,), 0.3001), torch.tensor([0.1, 0.3, 0.7, 0.9])):
        (plain,) = torch.autograd.grad(whole(head, logits, TARGET)["global"].sum(), logits.leaf)
        (got,) = torch.autograd.grad(row_losses(head, logits, TARGET)["global"] @ factors, logits.leaf)
        assert torch.equal(got, (plain.float() * factors[:, None]).bfloat16())


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


def test_without_gradients_nothing_is_sliced(monkeypatch: pytest.MonkeyPatch) -> None:
    head = build("hmcn-f-original")
    want = head.losses(head(features()), TARGET)
    monkeypatch.setattr(slices, "LEAST", 0)
    monkeypatch.setattr(slices, "_sloped", None)
    with torch.inference_mode():
        torch.testing.assert_close(row_losses(head, head(features()), TARGET), want)


def test_a_row_with_an_inner_label_counts_as_a_leaf_of_mean_weight_does() -> None:
    # Leaf 1, an inner node, leaf 2, another inner node.
    target = Target(torch.zeros(4, 3), torch.tensor([1, -1, 2, -1]))
    rows, weight = {"global": torch.tensor([3.0, 5, 7, 11])}, torch.tensor([9.0, 0.5, 2.0, 9.0, 9.0])
    for rest in (None, torch.tensor([1.0, 2.0, 3.0, 4.0])):
        (mean,) = task_means(rows, target, weight, rest).values()
        factors = [1.0] * 4 if rest is None else rest.tolist()
        pairs = zip([0.5 * 3, 5, 2 * 7, 11], factors, strict=True)
        assert mean.item() == pytest.approx(sum(loss * factor for loss, factor in pairs) / 4)
    assert task_means(rows, target, None)["global"].item() == 6.5
