"""Level losses and task weightings.

A level loss compares one level's logits with its classes. A task weighting turns the named task losses of a head into
the one number that is minimised. To add a weighting: a module here and a line in WEIGHTINGS.

Dimensions: B batch, C classes of a level.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LevelLoss = Callable[[Tensor, Tensor], Tensor]


def binary_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """ε of Cho et al. 2019, section 3.2.2: binary cross-entropy against the one-hot class, mean over batch and classes.

    Args:
        logits: (B, C) before the sigmoid.
        target: (B,) index of the true class.
    """
    # -log σ(z) = softplus(z) - z for the true class, softplus(z) for the others: no one-hot matrix is built.
    hit = logits.gather(1, target.unsqueeze(1)).sum()
    return (F.softplus(logits).sum() - hit) / logits.numel()


def softmax_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Softmax cross-entropy, mean over the batch: the option for labels that are one of C.

    Args:
        logits: (B, C) before the softmax.
        target: (B,) index of the true class.
    """
    return F.cross_entropy(logits, target)


LEVEL_LOSSES: Mapping[str, LevelLoss] = {"bce": binary_cross_entropy, "softmax": softmax_cross_entropy}


def probabilities(logits: Tensor, loss: str) -> Tensor:
    """(B, C) what logits trained under a level loss mean: sigmoids under bce, a softmax under softmax."""
    return logits.sigmoid() if loss == "bce" else logits.softmax(dim=-1)


def hierarchical_violation(children: Tensor, parents: Tensor) -> Tensor:
    """Wehrmann et al. 2018: Σ max(0, P_child − P_parent)², summed over the tree's edges, mean over the batch.

    Args:
        children: (B, E) probability of the lower node of each of E edges.
        parents: (B, E) probability of the upper node.
    """
    return (children - parents).clamp(min=0).square().sum(dim=1).mean()


class Sum(nn.Module):
    """L = Σ L_t (Cho et al. 2019, section 3.2.2, without multi-task learning)."""

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        self.tasks = tuple(tasks)

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The sum of the named task losses."""
        return torch.stack([losses[task] for task in self.tasks]).sum()

    def weights(self) -> dict[str, float]:
        """The factor of each task loss."""
        return dict.fromkeys(self.tasks, 1.0)


class Uncertainty(nn.Module):
    """L = Σ L_t/σ_t² + log σ_t, σ_t learned (Kendall et al. 2018; Cho et al. 2019, "balanced loss").

    Learned is s = log σ², which starts at 0: L_t·exp(−s) + s/2 can neither divide by zero nor take the logarithm of a
    negative number. For fixed losses the minimum is σ_t² = 2 L_t. The total may be negative and is never clipped.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        self.log_variance = nn.Parameter(torch.zeros(len(self.tasks)))

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum of the named task losses and its regulariser."""
        stacked = torch.stack([losses[task] for task in self.tasks])
        return (stacked * torch.exp(-self.log_variance) + self.log_variance / 2).sum()

    def weights(self) -> dict[str, float]:
        """The factor 1/σ_t² of each task loss."""
        return dict(zip(self.tasks, torch.exp(-self.log_variance).tolist(), strict=True))


WEIGHTINGS: Mapping[str, type[Sum] | type[Uncertainty]] = {"sum": Sum, "uncertainty": Uncertainty}
