"""Level losses, which compare one level's logits with its classes, and losses that know the tree.

Dimensions: B batch, C classes of a level or leaves, H levels (coarse to fine), C^h nodes on level h.
"""

import math
from collections.abc import Callable, Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

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


def node_log_probabilities(log_leaves: Tensor, ancestors: Tensor) -> list[Tensor]:
    """H tensors (B, C^h), coarse to fine: the logarithm of the sum of the probabilities of each node's leaves.

    Args:
        log_leaves: (B, C) log-probabilities of the leaves.
        ancestors: (C, H) index of each leaf's ancestor on each level.
    """
    nodes = []
    for column in ancestors.unbind(dim=1)[:-1]:
        members = F.one_hot(column).T.bool()  # (C^h, C)
        inside = log_leaves.unsqueeze(1).masked_fill(~members, -torch.inf)
        nodes.append(inside.logsumexp(dim=2))
    return [*nodes, log_leaves]


def hierarchical_cross_entropy(logits: Tensor, target: Tensor, ancestors: Tensor, alpha: float) -> Tensor:
    """−Σ_h exp(−α·height(h)) log P(y^h | y^{h−1}) of a softmax over leaves, mean over the batch.

    Bertinetto et al. 2020, equation 3; leaves have height 0. With α = 0 it is the softmax cross-entropy.

    Args:
        logits: (B, C) of the leaves.
        target: (B, H) index of the true node on each level.
        ancestors: (C, H) index of each leaf's ancestor on each level.
        alpha: α, how much less the choices near the root count.
    """
    nodes = node_log_probabilities(logits.log_softmax(dim=1), ancestors)
    true = [z.gather(1, y.unsqueeze(1)).squeeze(1) for z, y in zip(nodes, target.unbind(dim=1), strict=True)]
    steps = [true[0], *(below - above for above, below in pairwise(true))]
    weights = [math.exp(-alpha * height) for height in reversed(range(len(steps)))]
    total = torch.stack([weight * step for weight, step in zip(weights, steps, strict=True)]).sum(dim=0)
    return -total.mean()


def soft_label_cross_entropy(logits: Tensor, target: Tensor, ancestors: Tensor, beta: float) -> Tensor:
    """Cross-entropy against labels spread over the tree, mean over the batch.

    y(c) ∝ exp(−β d(c, y)/H), d the LCA height (Bertinetto et al. 2020, equation 5). For large β it is the softmax
    cross-entropy.

    Args:
        logits: (B, C) of the leaves.
        target: (B, H) index of the true node on each level; the last column is the leaf.
        ancestors: (C, H) index of each leaf's ancestor on each level.
        beta: β, how sharply the labels fall off.
    """
    distance = (ancestors[target[:, -1]].unsqueeze(1) != ancestors.unsqueeze(0)).sum(dim=2)
    labels = torch.softmax(-beta * distance.to(logits.dtype) / ancestors.shape[1], dim=1)
    return -(labels * logits.log_softmax(dim=1)).sum(dim=1).mean()
