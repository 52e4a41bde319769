"""Task weightings against the equations of their papers."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode

from hfc.config import TrainConfig
from hfc.train.estimator import HierarchicalClassifier
from hfc.train.settings import takes
from hfc.train.weightings import (
    WEIGHTINGS,
    DynamicAverage,
    GradNorm,
    ImpartialLoss,
    PositiveUncertainty,
    RandomWeights,
    SoftmaxUncertainty,
    Sum,
    Uncertainty,
    grouped,
)

TASKS = ["local", "global"]
LOSSES = {"local": torch.tensor(2.0), "global": torch.tensor(0.5)}


def test_every_weighting_can_be_asked_for() -> None:
    choices = next(f for f in TrainConfig.__dataclass_fields__.values() if f.name == "weighting").metadata["choices"]
    assert set(choices) == set(WEIGHTINGS)


def test_task_losses_are_weighted_by_flow_or_by_level() -> None:
    losses = {"local/1": torch.tensor(1.0), "local/2": torch.tensor(2.0), "global": torch.tensor(4.0)}
    flows = grouped(losses, "flows")
    assert {name: loss.item() for name, loss in flows.items()} == {"local": 3.0, "global": 4.0}
    assert list(grouped(losses, "levels")) == ["local/1", "local/2", "global"]


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


def test_positive_uncertainty_equals_the_papers_formula_and_finds_its_optimum() -> None:
    weighting = PositiveUncertainty(TASKS)
    with torch.no_grad():
        weighting.log_variance.copy_(torch.tensor([0.7, -1.3]))
    expected = sum(loss / (2 * math.exp(s)) + math.log(1 + math.exp(s)) for loss, s in ((2.0, 0.7), (0.5, -1.3)))
    assert weighting(LOSSES).item() == pytest.approx(expected, rel=1e-6)
    # d/dv (L/(2v) + log(1+v)) = 0 at 2 v^2 = L (1 + v).
    optimiser = torch.optim.Adam(weighting.parameters(), lr=0.05)
    for _ in range(800):
        optimiser.zero_grad()
        total = weighting(LOSSES)
        total.backward()
        optimiser.step()
    variances = [(loss + math.sqrt(loss**2 + 8 * loss)) / 4 for loss in (2.0, 0.5)]
    assert weighting.weights() == pytest.approx(
        dict(zip(TASKS, [1 / (2 * v) for v in variances], strict=True)), rel=1e-3
    )
    assert total.item() > 0


def test_impartial_losses_are_scaled_to_one() -> None:
    weighting = ImpartialLoss(TASKS)
    with torch.no_grad():
        weighting.log_scale.copy_(torch.tensor([0.3, -0.2]))
    expected = math.exp(0.3) * 2 - 0.3 + math.exp(-0.2) * 0.5 + 0.2
    assert weighting(LOSSES).item() == pytest.approx(expected, rel=1e-6)
    optimiser = torch.optim.Adam(weighting.parameters(), lr=0.05)
    for _ in range(600):
        optimiser.zero_grad()
        weighting(LOSSES).backward()
        optimiser.step()
    assert weighting.weights() == pytest.approx({"local": 1 / 2, "global": 1 / 0.5}, rel=1e-3)


def test_softmax_uncertainty_weighs_by_the_inverse_loss_and_lets_no_gradient_through() -> None:
    weighting = SoftmaxUncertainty(TASKS, temperature=1.5)
    local = torch.tensor(2.0, requires_grad=True)
    total = weighting({"local": local, "global": torch.tensor(0.5)})
    powers = [math.exp(1 / 2 / 1.5), math.exp(1 / 0.5 / 1.5)]
    weights = [power / sum(powers) for power in powers]
    assert total.item() == pytest.approx(2 * weights[0] + 0.5 * weights[1], rel=1e-6)
    total.backward()
    assert local.grad is not None
    assert local.grad.item() == pytest.approx(weights[0], rel=1e-6)
    assert math.isfinite(weighting({"local": torch.tensor(0.0), "global": torch.tensor(0.5)}).item())


def test_dynamic_average_weighs_by_how_slowly_losses_fall() -> None:
    weighting = DynamicAverage(TASKS, temperature=2.0)
    assert weighting(LOSSES).item() == 2.5
    weighting.end_epoch({"local": 4.0, "global": 1.0})
    assert weighting(LOSSES).item() == 2.5  # one epoch gives no rate yet
    weighting.end_epoch({"local": 3.0, "global": 0.25})
    powers = [math.exp(0.75 / 2), math.exp(0.25 / 2)]
    weights = [2 * power / sum(powers) for power in powers]
    assert weighting.weights() == pytest.approx(dict(zip(TASKS, weights, strict=True)), rel=1e-6)
    assert weighting(LOSSES).item() == pytest.approx(2 * weights[0] + 0.5 * weights[1], rel=1e-6)


def test_random_weights_are_drawn_anew_and_sum_to_one() -> None:
    weighting = RandomWeights(TASKS)
    torch.manual_seed(0)
    drawn = []
    for _ in range(200):
        total = weighting(LOSSES).item()
        weights = weighting.weights()
        assert sum(weights.values()) == pytest.approx(1, rel=1e-5)
        assert total == pytest.approx(2 * weights["local"] + 0.5 * weights["global"], rel=1e-5)
        drawn.append(weights["local"])
    assert len(set(drawn)) == 200
    assert sum(drawn) / 200 == pytest.approx(0.5, abs=0.06)
    torch.manual_seed(0)
    weighting(LOSSES)
    assert weighting.weights()["local"] == drawn[0]


def test_random_weights_are_a_softmax_of_standard_normal_numbers() -> None:
    # LibMTL's RLW with dist="Normal". The logarithm of the ratio of two weights is the difference of two such numbers.
    weighting = RandomWeights(TASKS)
    torch.manual_seed(1)
    ratios = []
    for _ in range(2000):
        weighting(LOSSES)
        local, others = weighting.weights().values()
        ratios.append(math.log(local / others))
    assert np.mean(ratios) == pytest.approx(0, abs=0.15)
    assert np.var(ratios) == pytest.approx(2, abs=0.3)
    assert np.mean(np.abs(ratios) < math.sqrt(2)) == pytest.approx(0.6827, abs=0.05)


def test_gradnorm_takes_the_step_of_the_papers_gradient() -> None:
    shared = torch.tensor([1.0, -2.0], requires_grad=True)
    weighting = GradNorm(TASKS, gradnorm_alpha=1.5, gradnorm_rate=0.01)

    def losses() -> dict[str, torch.Tensor]:
        return {"local": (3 * shared).square().sum(), "global": shared.square().sum()}

    weighting.balance(losses(), shared)  # the first losses are the reference: all rates are 1
    norms = [18 * math.sqrt(5), 2 * math.sqrt(5)]
    target = sum(norms) / 2
    raw = [1 - 0.01 * math.copysign(norm, norm - target) for norm in norms]
    first = [2 * w / sum(raw) for w in raw]
    assert weighting.weights() == pytest.approx(dict(zip(TASKS, first, strict=True)), rel=1e-5)
    # A second step, with autograd as the oracle: w is the variable, the targets are constants.
    with torch.no_grad():
        shared.copy_(torch.tensor([0.5, 0.25]))
    values = [loss.item() for loss in losses().values()]
    norms_now = torch.tensor([18 * math.sqrt(0.3125), 2 * math.sqrt(0.3125)])
    w = torch.tensor(first, requires_grad=True)
    rates = torch.tensor([values[0] / 45, values[1] / 5])
    weighted = w * norms_now
    targets = (weighted.mean() * (rates / rates.mean()) ** 1.5).detach()
    (grad,) = torch.autograd.grad((weighted - targets).abs().sum(), w)
    moved = (w - 0.01 * grad).detach()
    weighting.balance(losses(), shared)
    assert weighting.weights() == pytest.approx(
        dict(zip(TASKS, (2 * moved / moved.sum()).tolist(), strict=True)), rel=1e-5
    )
    assert sum(weighting.weights().values()) == pytest.approx(2, rel=1e-6)
    total = weighting(losses())
    assert total.item() == pytest.approx(sum(a * b for a, b in zip(weighting.weights().values(), values, strict=True)))


def test_gradnorm_weighs_a_step_before_it_learns_from_it() -> None:
    # Chen et al. 2018, algorithm 1: the step of the network takes w(t), and w(t+1) comes out of it. So the first step
    # is that of the plain sum, and the second is not.
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 5)), rng.integers(0, 3, 60)
    tree = {0: ["a", 0], 1: ["a", 1], 2: ["b", 2]}

    def trained(weighting: str, epochs: int) -> NDArray[np.float64]:
        settings = {
            "weighting": weighting,
            "epochs": epochs,
            "batch_size": 64,
            "width": 8,
            "reduced": 8,
            "learning_rate": 0.1,
        }
        model = HierarchicalClassifier(
            "hmcn-f", hierarchy=tree, settings=settings, validation_fraction=None, random_state=0
        )
        return model.fit(X, y).predict_proba(X)

    np.testing.assert_array_equal(trained("gradnorm", 1), trained("sum", 1))
    assert not np.array_equal(trained("gradnorm", 2), trained("sum", 2))


THREE = ("a", "b", "c")


def named(values: Sequence[float]) -> dict[str, torch.Tensor]:
    return {task: torch.tensor(value) for task, value in zip(THREE, values, strict=True)}


# What median-research-group/LibMTL (commit 4336804) gives: DWA.backward with T = 2 in the epochs 0 to 3, from the means
# of the epochs before, a task a row. lorenmt/mtan (im2im_pred/utils.py) has the same formula and starts alike.
LIBMTL_MEANS = [[2.0, 1.5, 1.2], [0.8, 0.7, 0.1], [3.0, 3.0, 3.3]]
LIBMTL_DWA = [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [0.938191, 0.998699, 1.063110], [1.041021, 0.749485, 1.209494]]


def test_dynamic_average_equals_libmtl() -> None:
    weighting = DynamicAverage(THREE, temperature=2.0)
    got = []
    for epoch in range(4):
        got.append(list(weighting.weights().values()))
        if epoch < 3:
            weighting.end_epoch({task: row[epoch] for task, row in zip(THREE, LIBMTL_MEANS, strict=True)})
    np.testing.assert_allclose(got, LIBMTL_DWA, atol=1e-6)


def test_uncertainty_is_that_of_libmtl_with_another_start() -> None:
    # LibMTL's UW takes L / (2 e^s) + s / 2. At s = 0.7, -1.3 and 0.1 with losses of 2, 0.5 and 1 it gives these factors
    # and gradients of s. Here e^s is twice as large.
    scale = [0.7, -1.3, 0.1]
    weighting = Uncertainty(THREE)
    with torch.no_grad():
        weighting.log_variance.copy_(torch.tensor(scale) + math.log(2))
    total = weighting(named([2.0, 0.5, 1.0]))
    total.backward()
    assert weighting.log_variance.grad is not None
    assert list(weighting.weights().values()) == pytest.approx([0.248293, 1.834648, 0.452419], abs=1e-6)
    np.testing.assert_allclose(weighting.log_variance.grad.numpy(), [0.003415, -0.417324, 0.047581], atol=1e-6)
    public = sum(loss / (2 * math.exp(s)) + s / 2 for loss, s in zip((2.0, 0.5, 1.0), scale, strict=True))
    assert total.item() == pytest.approx(public + 1.5 * math.log(2), rel=1e-6)


def test_impartial_losses_equal_libmtl() -> None:
    # IMTL's scaled losses in LibMTL, before it balances gradients, at s = 0.3, -0.2 and 1.1.
    weighting = ImpartialLoss(THREE)
    with torch.no_grad():
        weighting.log_scale.copy_(torch.tensor([0.3, -0.2, 1.1]))
    assert weighting(named([2.0, 0.5, 1.0])).item() == pytest.approx(2.399718 + 0.609365 + 1.904166, abs=3e-6)


def test_softmax_uncertainty_equals_a_public_implementation() -> None:
    # UW_SO of a fork of LibMTL, softmax(1 / (L + 1e-8) / T), at T = 1.5; the weights sum to 1.
    weighting = SoftmaxUncertainty(THREE, temperature=1.5)
    weighting(named([2.0, 0.5, 1.0]))
    assert list(weighting.weights().values()) == pytest.approx([0.195546, 0.531548, 0.272906], abs=1e-6)


def test_positive_uncertainty_equals_a_public_implementation() -> None:
    # Mikoto10032/AutomaticWeightedLoss: 0.5 / p^2 L + log(1 + p^2), here at p = 1.2 and 0.7; p starts at 1.
    weighting = PositiveUncertainty(TASKS)
    assert weighting.weights() == {"local": 0.5, "global": 0.5}
    with torch.no_grad():
        weighting.log_variance.copy_(2 * torch.tensor([1.2, 0.7]).log())
    assert weighting(LOSSES).item() == pytest.approx(1.586442 + 0.908980, abs=2e-6)


def test_gradnorm_equals_a_public_implementation() -> None:
    # lucidrains/gradnorm-pytorch (commit ed51e0b) at learning_rate 0.02, restoring_force_alpha 1.5: it takes the mean
    # over two tasks where the paper takes the sum. From commit 3e3e632 on it raises the rates to the power of -alpha,
    # unlike the paper and LibMTL: L(t) / L(0) is an inverse rate already.
    shared = torch.tensor([0.0, 0.0], requires_grad=True)
    weighting = GradNorm(TASKS, gradnorm_alpha=1.5, gradnorm_rate=0.01)
    got = []
    for values in ([1.0, -2.0], [0.5, 0.25], [0.4, -0.1]):
        with torch.no_grad():
            shared.copy_(torch.tensor(values))
        losses = {"local": (3 * shared).square().sum(), "global": (shared - 1).square().sum()}
        weighting.balance(losses, shared)
        got.append(list(weighting.weights().values()))
    np.testing.assert_allclose(got, [[0.720971, 1.279029], [0.647071, 1.352929], [0.587289, 1.412711]], atol=1e-6)


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_gradients_reach_the_tasks_under_every_weighting(name: str) -> None:
    kind = WEIGHTINGS[name]
    settings = {key: TrainConfig.__dataclass_fields__[key].default for key in takes(kind)}
    weighting = kind(TASKS, **settings)
    shared = torch.tensor([1.0, 2.0], requires_grad=True)
    for _ in range(3):
        losses = {"local": shared.square().sum(), "global": (shared - 1).square().sum()}
        weighting.balance(losses, shared)
        (grad,) = torch.autograd.grad(weighting(losses), shared)
        assert grad.isfinite().all()
        assert (grad != 0).all()
        weighting.end_epoch({task: loss.item() for task, loss in losses.items()})
        assert set(weighting.weights()) == set(TASKS)


class Copies(TorchDispatchMode):
    """Notes for every copy inside the block whether it waits."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[bool] = []

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        if function is torch.ops.aten._to_copy.default and "device" in (options or {}):
            self.waits.append(not options.get("non_blocking"))
        return function(*arguments, **(options or {}))


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_no_step_waits_for_the_device(name: str) -> None:
    """A device without numbers stands for a GPU: what asks one for a number fails."""
    meta = torch.device("meta")
    others = {"gradnorm_alpha": 1.5, "gradnorm_rate": 0.1} if name == "gradnorm" else {}
    others |= {"temperature": 1.0} if name in ("uw-so", "dwa") else {}
    weighting = WEIGHTINGS[name](TASKS, **others).to(meta)
    shared = torch.ones(2, device=meta, requires_grad=True)
    with Copies() as copies:
        for _ in range(2):
            losses = {"local": (3 * shared).square().sum(), "global": shared.square().sum()}
            total = weighting(losses)
            weighting.balance(losses, shared)
            total.backward()
    assert copies.waits == [False] * (2 if name == "random" else 0)
