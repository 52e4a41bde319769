"""Task weightings: the named task losses of a head to the one number that is minimised.

To add one: a class here and a line in WEIGHTINGS; its constructor takes `tasks` and, by keyword alone, the training
settings it uses. K tasks, L_k their losses.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Losses = Mapping[str, Tensor]


class Sum(nn.Module):
    """L = Σ L_k (Cho et al. 2019, section 3.2.2, without multi-task learning), and the base of the others."""

    pure = True
    """Whether it is a function of its parameters and the losses of the step alone."""

    def __init__(self, tasks: Sequence[str]) -> None:
        """Build the weighting of some named tasks."""
        super().__init__()
        self.tasks = tuple(tasks)

    def forward(self, losses: Losses) -> Tensor:
        """The weighted sum of the named task losses."""
        return self.stacked(losses).sum()

    def factors(self) -> Tensor:
        """(K,) the factor of each task loss now."""
        return torch.ones(len(self.tasks))

    def stacked(self, losses: Losses) -> Tensor:
        """(K,) the losses in the order of the tasks."""
        return torch.stack([losses[task] for task in self.tasks])

    def weights(self) -> dict[str, float]:
        """The factor of each task loss, by name."""
        return dict(zip(self.tasks, self.factors().tolist(), strict=True))

    def balance(self, losses: Losses, shared: Tensor) -> None:
        """Called in each step after the weighted sum; `shared` is a weight tensor that every task passes through."""

    def end_epoch(self, means: Mapping[str, float]) -> None:
        """Called after each epoch, with the mean of each task loss in it."""


class Uncertainty(Sum):
    """L = Σ L_k/σ_k² + log σ_k, σ_k learned (Kendall et al. 2018; Cho et al. 2019, "balanced loss").

    Learned is s = log σ², which starts at 0: L_k·exp(−s) + s/2 can neither divide by zero nor take the logarithm of a
    negative number. For fixed losses the minimum is σ_k² = 2 L_k. The total may be negative and is never clipped.

    This is Kendall's form for classification, as Cho et al. print it. LibMTL and mtan take that for regression,
    L_k/(2σ_k²) + log σ_k: with s − log 2 for s the same up to a constant. Only the start differs: a factor of 1 here,
    of 0.82 there.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        """Build it with every σ at 1."""
        super().__init__(tasks)
        self.log_variance = nn.Parameter(torch.zeros(len(self.tasks)))

    def forward(self, losses: Losses) -> Tensor:
        """The weighted sum of the task losses and its regulariser."""
        return (self.stacked(losses) * torch.exp(-self.log_variance) + self.log_variance / 2).sum()

    def factors(self) -> Tensor:
        """1/σ_k²."""
        return torch.exp(-self.log_variance.detach())


class PositiveUncertainty(Uncertainty):
    """L = Σ L_k/(2σ_k²) + log(1 + σ_k²): a regulariser that is never negative (Liebel & Körner 2018, equation 3)."""

    def forward(self, losses: Losses) -> Tensor:
        """The weighted sum of the task losses and its regulariser."""
        return (self.stacked(losses) * torch.exp(-self.log_variance) / 2 + F.softplus(self.log_variance)).sum()

    def factors(self) -> Tensor:
        """1/(2σ_k²)."""
        return torch.exp(-self.log_variance.detach()) / 2


class ImpartialLoss(Sum):
    """L = Σ e^{s_k} L_k − s_k, s_k learned (IMTL-L; Liu et al. 2021, section 3.2): scales every loss towards 1.

    LibMTL joins it with IMTL's balance of gradients; here it stands alone.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        """Build it with every scale at 1."""
        super().__init__(tasks)
        self.log_scale = nn.Parameter(torch.zeros(len(self.tasks)))

    def forward(self, losses: Losses) -> Tensor:
        """The scaled sum of the task losses and its regulariser."""
        return (self.stacked(losses) * torch.exp(self.log_scale) - self.log_scale).sum()

    def factors(self) -> Tensor:
        """e^{s_k}."""
        return torch.exp(self.log_scale.detach())


class _Given(Sum):
    """L = Σ w_k L_k with factors that no gradient flows through."""

    pure = False
    now: Tensor

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__(tasks)
        self.register_buffer("now", torch.ones(len(self.tasks)))

    def forward(self, losses: Losses) -> Tensor:
        """The weighted sum of the task losses."""
        return (self.stacked(losses) * self.now).sum()

    def factors(self) -> Tensor:
        """The factors as they are now."""
        return self.now.detach()


class _Tempered(_Given):
    """Factors that are a softmax at a temperature."""

    def __init__(self, tasks: Sequence[str], *, temperature: float) -> None:
        """Build it; `temperature` is T."""
        super().__init__(tasks)
        self.temperature = temperature


class SoftmaxUncertainty(_Tempered):
    """w = softmax(1/(L_k T)), the smoothed optimum of uncertainty weighting (UW-SO; Kirchdorfer et al. 2024).

    The losses inside the weights are constants, and the weights sum to 1, not to K. T is tuned: 1/L grows without bound
    as a loss falls.
    """

    def forward(self, losses: Losses) -> Tensor:
        """The weighted sum of the task losses."""
        values = self.stacked(losses).detach()
        inverse = 1 / values.clamp_min(torch.finfo(values.dtype).eps)
        self.now = torch.softmax(inverse / self.temperature, dim=0)
        return super().forward(losses)


class DynamicAverage(_Tempered):
    """w_k = K·softmax(r_k/T), r_k = L_k(t−1)/L_k(t−2) over epochs (DWA; Liu et al. 2019, equation 7).

    A task whose loss falls slowly gets more weight. The first two epochs have w = 1, as in the authors' code (mtan).
    """

    before: Tensor

    def __init__(self, tasks: Sequence[str], *, temperature: float) -> None:
        """Build it; `temperature` is T."""
        super().__init__(tasks, temperature=temperature)
        self.register_buffer("before", torch.zeros(len(self.tasks)))

    def end_epoch(self, means: Mapping[str, float]) -> None:
        """Take the rates for the next epoch."""
        last = torch.tensor([means[task] for task in self.tasks], device=self.now.device)
        if self.before.any():
            rates = last / self.before.clamp_min(torch.finfo(last.dtype).eps)
            self.now = len(self.tasks) * torch.softmax(rates / self.temperature, dim=0)
        self.before = last


class RandomWeights(_Given):
    """w = softmax of K standard normal numbers, drawn anew in every step (RLW; Lin et al. 2022)."""

    def forward(self, losses: Losses) -> Tensor:
        """The weighted sum of the task losses."""
        drawn = torch.softmax(torch.randn(len(self.tasks)), dim=0)
        self.now = drawn.to(self.now.device, non_blocking=True)  # a GPU is not waited for
        return super().forward(losses)


class GradNorm(_Given):
    """Weights that equalise the tasks' gradient norms on a shared weight (Chen et al. 2018).

    G_k = ‖∇_W w_k L_k‖, r_k = (L_k/L_k(0)) / mean, target = mean(G)·r_k^α held constant; one step down
    Σ|G_k − target_k| in w, which is then scaled to sum to K and weighs the next step's losses (algorithm 1).

    L_k(0) is the loss of the first step; LibMTL takes the mean of the first epoch, and the softmax of free parameters
    for w. No weight falls below 0.001: a negative one would climb its loss.
    """

    first: Tensor

    def __init__(self, tasks: Sequence[str], *, gradnorm_alpha: float, gradnorm_rate: float) -> None:
        """Build it.

        Args:
            tasks: their names.
            gradnorm_alpha: α, how strongly slow tasks are pulled.
            gradnorm_rate: length of a step in w.
        """
        super().__init__(tasks)
        self.alpha, self.rate = gradnorm_alpha, gradnorm_rate
        self.register_buffer("first", torch.zeros(len(self.tasks)))

    def balance(self, losses: Losses, shared: Tensor) -> None:
        """One step of the weights, for the next step of the head."""
        stacked = self.stacked(losses)
        values = stacked.detach()
        self.first = torch.where(self.first.any(), self.first, values)  # to ask for the answer would wait for a GPU
        grads = [torch.autograd.grad(loss, shared, retain_graph=True)[0] for loss in stacked.unbind()]
        norms = torch.stack([grad.float().norm() for grad in grads])
        weighted = self.now * norms
        ratio = values / self.first.clamp_min(torch.finfo(values.dtype).eps)
        target = weighted.mean() * (ratio / ratio.mean()) ** self.alpha
        # d/dw_k |w_k‖∇L_k‖ − target_k| = sign(·)·‖∇L_k‖
        moved = (self.now - self.rate * torch.sign(weighted - target) * norms).clamp_min(1e-3)
        self.now = len(self.tasks) * moved / moved.sum()


WEIGHTINGS: Mapping[str, type[Sum]] = {
    "sum": Sum,
    "uncertainty": Uncertainty,
    "positive-uncertainty": PositiveUncertainty,
    "uw-so": SoftmaxUncertainty,
    "dwa": DynamicAverage,
    "gradnorm": GradNorm,
    "random": RandomWeights,
    "imtl-l": ImpartialLoss,
}


def grouped(losses: Losses, tasks: str) -> dict[str, Tensor]:
    """Task losses as they are weighted.

    Args:
        losses: those of a head, such as local/1, local/2 and global.
        tasks: levels keeps them apart; flows adds up what is alike before the slash, as the paper weighs L_L and L_G.
    """
    if tasks == "levels":
        return dict(losses)
    sums: dict[str, Tensor] = {}
    for name, loss in losses.items():
        flow = name.split("/")[0]
        sums[flow] = sums[flow] + loss if flow in sums else loss
    return sums
