"""Losses of one level's logits, and losses that know the tree.

Dimensions: B batch, C classes of a level or leaves, H levels (coarse to fine), C^h nodes on level h.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

LevelLoss = Callable[[Tensor, Tensor], Tensor]


def binary_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """(B,) ε of Cho et al. 2019, section 3.2.2: binary cross-entropy against the one-hot class, mean over classes.

    Args:
        logits: (B, C) before the sigmoid.
        target: (B,) index of the true class.
    """
    # -t log σ(z) - (1 - t) log(1 - σ(z)) = softplus(z) - t z: no one-hot matrix is built.
    hit = logits.gather(1, target.unsqueeze(1)).squeeze(1)
    return (F.softplus(logits).sum(dim=1) - hit) / logits.shape[1]


def softmax_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """(B,) softmax cross-entropy: the option for labels that are one of C.

    Args:
        logits: (B, C) before the softmax.
        target: (B,) index of the true class.
    """
    return F.cross_entropy(logits, target, reduction="none")


LEVEL_LOSSES: Mapping[str, LevelLoss] = {"bce": binary_cross_entropy, "softmax": softmax_cross_entropy}


def probabilities(logits: Tensor, loss: str) -> Tensor:
    """(B, C) what logits trained under a level loss mean: sigmoids under bce, a softmax under softmax."""
    return logits.sigmoid() if loss == "bce" else logits.softmax(dim=-1)


def hierarchical_violation(children: Tensor, parents: Tensor) -> Tensor:
    """(B,) Wehrmann et al. 2018: Σ max(0, P_child − P_parent)², summed over the tree's edges.

    Args:
        children: (B, E) probability of the lower node of each of E edges.
        parents: (B, E) probability of the upper node.
    """
    return (children - parents).clamp(min=0).square().sum(dim=1)


def sums_by(values: Tensor, group: Tensor, groups: int) -> Tensor:
    """(B, groups) the sum of each group of columns.

    Args:
        values: (B, C).
        group: (C,) which group each column belongs to.
        groups: how many there are; read off the index, it could not be known where a head is exported.
    """
    return values.new_zeros(values.shape[0], groups).scatter_add(1, group.expand_as(values), values)


def logsumexp_by(logits: Tensor, group: Tensor, groups: int) -> Tensor:
    """(B, groups) the logarithm of the sum of exponentials in each group of columns.

    Args:
        logits: (B, C).
        group: (C,) which group each column belongs to; none is empty.
        groups: how many there are; read off the index, a GPU would be waited for in every step.
    """
    index = group.expand_as(logits)
    shape = (logits.shape[0], groups)  # len() would fix the number of rows where a head is exported
    # The greatest of each group is taken off first, so that nothing overflows.
    top = logits.new_full(shape, -torch.inf).scatter_reduce(1, index, logits.detach(), "amax")
    return top + sums_by((logits - top.gather(1, index)).exp(), group, groups).log()


def log_softmax_among_siblings(logits: Tensor, parent: Tensor, parents: int) -> Tensor:
    """(B, C) logits to log-probabilities that sum to one among the nodes of each parent.

    Args:
        logits: (B, C).
        parent: (C,) index of each node's parent.
        parents: how many parents there are.
    """
    return logits - logsumexp_by(logits, parent, parents).gather(1, parent.expand_as(logits))


def hierarchical_cross_entropy(
    logits: Tensor, target: Tensor, ancestors: Tensor, sizes: Sequence[int], alpha: float
) -> Tensor:
    """(B,) −Σ_h exp(−α (h − 1)) log P(y^h | y^{h−1}) of a softmax over leaves: the coarse choice counts most.

    Bertinetto et al. 2020, equation 3. Its word "height" misleads: in the authors' code (`get_exponential_weighting`)
    the weight of an edge falls with its distance from the root. They divide all weights by their sum over the tree;
    here an edge of the root weighs 1. With α = 0 or one level it is the softmax cross-entropy.

    Args:
        logits: (B, C) of the leaves.
        target: (B, H) index of the true node on each level.
        ancestors: (C, H) index of each leaf's ancestor on each level.
        sizes: C^h of each level.
        alpha: α, how much less the choices near the leaves count.
    """
    nodes = [logits.log_softmax(dim=1)]
    columns = ancestors.unbind(dim=1)
    for h in range(len(sizes) - 2, -1, -1):  # from the level below, which has fewer nodes than there are leaves
        parent = columns[h].new_zeros(sizes[h + 1]).scatter(0, columns[h + 1], columns[h])
        nodes.insert(0, logsumexp_by(nodes[0], parent, sizes[h]))
    true = [z.gather(1, y.unsqueeze(1)).squeeze(1) for z, y in zip(nodes, target.unbind(dim=1), strict=True)]
    steps = [true[0], *(below - above for above, below in pairwise(true))]
    weights = [math.exp(-alpha * depth) for depth in range(len(steps))]
    return -torch.stack([weight * step for weight, step in zip(weights, steps, strict=True)]).sum(dim=0)


def soft_labels(target: Tensor, ancestors: Tensor, sizes: Sequence[int], beta: float) -> Tensor:
    """(B, C) the soft label of each row. A table of all leaves' labels would grow with their square.

    It is y(c) ∝ exp(−β d(c, y)/max d), d the LCA height (Bertinetto et al. 2020, equation 5). As in the authors' code
    (`make_all_soft_labels`), distances are fractions of the largest one between two leaves: a root above all others
    changes nothing. For large β a label is one-hot.

    Args:
        target: (B, H) index of the true node on each level.
        ancestors: (C, H) index of each leaf's ancestor on each level.
        sizes: C^h of each level.
        beta: β, how sharply the labels fall off.
    """
    pairs = zip(ancestors.unbind(dim=1), target.unbind(dim=1), strict=True)
    # As `lca_height`, in bytes: an eighth of the memory that integers take.
    distance = reduce(torch.add, ((column != own[:, None]).to(torch.uint8) for column, own in pairs))
    largest = max(sum(size > 1 for size in sizes), 1)  # two leaves part on the first level that has several nodes
    return torch.softmax(-beta * distance.float() / largest, dim=1)


def soft_label_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """(B,) cross-entropy of a softmax over (B, C) logits against (B, C) distributions.

    The authors of the soft labels take `torch.nn.KLDivLoss`: less the entropy of the labels, which is constant, and a
    mean over the classes too, which makes every gradient C times smaller.
    """
    return -(labels * logits.log_softmax(dim=1)).sum(dim=1)


def class_weights(counts: Tensor, beta: float) -> Tensor:
    """Weigh the loss of each class by the effective number of its training rows: ∝ (1 − β)/(1 − β^n).

    Cui et al. 2019, "Class-balanced loss", equation 10; scaled so that the classes that occur have mean 1. A class
    that never occurs has weight 0: no loss asks for it.

    Args:
        counts: (C,) training rows of each class.
        beta: β in [0, 1); 0: all alike, towards 1: inverse to the count.

    Returns:
        (C,) in float32.
    """
    occurs = counts > 0
    weights = torch.where(occurs, (1 - beta) / (1 - beta ** counts.clamp(min=1).double()), 0.0)
    return (weights * occurs.sum() / weights.sum()).float()
