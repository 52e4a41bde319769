"""Formulas of fewer and faster steps for a thousand classes and more; their results differ in rounding.

Dimensions: B batch, C classes.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

WIDE = 1000
"""Classes from which on they are taken."""


def is_wide(logits: Tensor) -> bool:
    """Whether logits, (B, C), are of so many classes."""
    return logits.shape[1] >= WIDE


def has_own_slopes(logits: Tensor) -> bool:
    """Whether slopes of logits, (B, C), are computed here: of many classes, on a CPU, and not where it is compiled."""
    return is_wide(logits) and logits.device.type == "cpu" and not torch.compiler.is_compiling()


def softplus_sums(logits: Tensor) -> Tensor:
    """(B,) Σ log(1 + e^z) over the classes."""
    if not has_own_slopes(logits):
        return F.softplus(logits).sum(dim=1)
    out: Tensor = _SoftplusSums.apply(logits)
    return out


def softplus(logits: Tensor) -> Tensor:
    """Compute log(1 + e^z) without log1p; autograd does not see it.

    It is max(z, 0) + 2 artanh(s / (2 − s)), s = σ(−|z|). PyTorch's own took six times as long.
    """
    s = logits.abs().neg_().sigmoid_()
    return logits.relu().add_(s.div_(2 - s).atanh_(), alpha=2)


class _SoftplusSums(torch.autograd.Function):
    """Σ log(1 + e^z), and its slopes σ(z)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(logits: Tensor) -> Tensor:
        return softplus(logits).sum(dim=1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (logits,) = ctx.saved_tensors
        slopes: Tensor = logits.sigmoid()
        return slopes.mul_(grads[0][:, None])


def weighted_cross_entropy(logits: Tensor, weights: Tensor) -> Tensor:
    """(B,) cross-entropy of a softmax over (B, C) logits: labels are proportional to (B, C) weights."""
    out: Tensor = _WeightedCrossEntropy.apply(logits, weights)[0]
    return out


class _WeightedCrossEntropy(torch.autograd.Function):
    """Losses and slopes: log Σ e^z − Σ w z / Σ w, and softmax(z) − w / Σ w."""

    generate_vmap_rule = True

    @staticmethod
    def forward(logits: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        shares = logits.softmax(dim=1)
        whole = weights.sum(dim=1)
        true = torch.linalg.vecdot(weights, logits) / whole
        losses = logits.amax(dim=1) - shares.amax(dim=1).log() - true
        return losses, shares.sub_(weights * (1 / whole)[:, None])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (slopes,) = ctx.saved_tensors
        return slopes * grads[0][:, None], None
