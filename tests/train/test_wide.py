"""What a CPU computes otherwise for a thousand classes and more, against the formulas for fewer."""

import math

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap

from hfc.train import wide
from hfc.train.heads.layers import Target
from hfc.train.heads.tree import Tree
from hfc.train.losses import hierarchical_cross_entropy, hierarchical_cross_entropy_of
from hfc.train.wide import WIDE, softplus_sums, weighted_cross_entropy
from tests.support.equations import ANCESTORS, INNER, TARGET, UNEVEN, build, features

TREES = {"even": (ANCESTORS, TARGET), "uneven": (UNEVEN, INNER)}


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wide, "WIDE", 1)


@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize("method", ["hmcn-f", "flat+hxe", "flat+soft-labels", "hmcn-f-original"])
def test_losses_of_many_classes_are_those_of_few(method: str, tree: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ancestors, target = TREES[tree]
    head = build(method, ancestors)
    found = []
    for width in (WIDE, 1):
        monkeypatch.setattr(wide, "WIDE", width)
        rows = head.losses(head(3 * features()), target)
        slopes = torch.autograd.grad(torch.stack(list(rows.values())).sum(), list(head.parameters()))
        found.append((rows, slopes))
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_softplus_is_exact_to_rounding(dtype: torch.dtype) -> None:
    z = torch.cat([torch.linspace(-80, 100, 3001), torch.tensor([-1e-9, 0.0, 1e-9, 1e4])]).to(dtype)
    want = [max(value, 0) + math.log1p(math.exp(-abs(value))) for value in z.tolist()]
    got = softplus_sums(z[:, None])
    torch.testing.assert_close(
        got.double(), torch.tensor(want, dtype=torch.float64), rtol=4 * torch.finfo(dtype).eps, atol=0
    )
    assert softplus_sums(torch.tensor([[-1e4, -torch.inf, 2e4]], dtype=dtype)).tolist() == [2e4]


@pytest.mark.usefixtures("many")
def test_softplus_has_the_slope_of_a_sigmoid_also_under_vmap() -> None:
    z = 9 * torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.autograd.gradcheck(softplus_sums, z[0].requires_grad_())
    slopes = vmap(grad(lambda part: softplus_sums(part).sum()))(z)
    torch.testing.assert_close(slopes, z.sigmoid())


@pytest.mark.usefixtures("many")
def test_what_is_compiled_takes_pytorchs_softplus() -> None:
    z = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    slopes = torch.compile(vmap(grad(lambda part: softplus_sums(part).sum())), backend="eager")
    torch.testing.assert_close(slopes(z), z.sigmoid())


def test_labels_by_weight_have_the_loss_and_slopes_of_their_shares_also_under_vmap() -> None:
    generator = torch.Generator().manual_seed(0)
    z, w = (torch.randn(2, 3, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    z, w = 9 * z, w.exp()
    want = -(w / w.sum(dim=2, keepdim=True) * z.log_softmax(dim=2)).sum(dim=2)
    torch.testing.assert_close(weighted_cross_entropy(z[0], w[0]), want[0])
    assert torch.autograd.gradcheck(weighted_cross_entropy, (z[0].requires_grad_(), w[0]))
    slopes = vmap(grad(lambda part, weights: weighted_cross_entropy(part, weights).sum()))(z.detach(), w)
    torch.testing.assert_close(slopes, z.detach().softmax(dim=2) - w / w.sum(dim=2, keepdim=True))
    huge = torch.tensor([[3e4, -3e4, 0.0]], requires_grad=True)
    loss = weighted_cross_entropy(huge, torch.tensor([[1.0, 1.0, 2.0]]))
    loss.sum().backward()
    assert loss.item() == 3e4
    assert huge.grad is not None
    assert huge.grad.tolist() == [[0.75, -0.25, -0.5]]


def on_path(logits: Tensor, ancestors: Tensor, target: Target, alpha: float) -> tuple[Tensor, Tensor]:
    """The hierarchical cross-entropy by `log_path`, and by `log_sums`."""
    tree = Tree(ancestors)
    quick = hierarchical_cross_entropy_of(tree.log_path(logits, target), target.path, alpha)
    return quick, hierarchical_cross_entropy(tree.log_sums(logits.log_softmax(dim=1)), target.path, alpha)


@pytest.mark.parametrize("tree", TREES)
def test_the_sums_above_a_label_pass_gradcheck(tree: str) -> None:
    ancestors, target = TREES[tree]
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: on_path(z, ancestors, target, 0.5)[0], logits)


def test_improbable_labels_have_exact_losses_down_to_e_to_the_minus_129_and_finite_ones_below() -> None:
    target = Target(ANCESTORS[[4]], torch.tensor([4]))
    for gap in (50.0, 120.0, 1000.0):
        logits = torch.tensor([[0.0, -1, -2, 1 - gap, -gap]], requires_grad=True)
        quick, exact = on_path(logits, ANCESTORS, target, 1.0)
        slopes = [torch.autograd.grad(loss.sum(), logits)[0] for loss in (quick, exact)]
        assert all(slope.isfinite().all() for slope in slopes)
        if gap < 129:
            torch.testing.assert_close(quick, exact)
            torch.testing.assert_close(*slopes)
        else:  # the kind and the group count as the leaf: its sibling plays no part
            assert quick.item() == pytest.approx(gap + math.log(1 + math.exp(-1) + math.exp(-2)), rel=1e-6)
            assert slopes[0][0, 4].item() == pytest.approx(-1)
            assert quick.item() == pytest.approx(exact.item(), rel=2e-3)
