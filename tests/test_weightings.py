"""Task weightings against the equations of their papers."""

import math

import pytest
import torch

from hfc.config import TrainConfig
from hfc.settings import takes
from hfc.weightings import (
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
