"""Losses of one level's logits, and losses that know the tree.

Dimensions: B batch, C classes of a level or leaves, H levels (coarse to fine), C^h nodes on level h.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise, takewhile
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from hfc.train.wide import softplus_sums


class LevelLoss(Protocol):
    """A loss of one level's logits, or of the leaves'."""

    def __call__(self, logits: Tensor, target: Tensor, below: Tensor | None = None) -> Tensor:
        """Compute the loss of each row, (B,).

        Args:
            logits: (B, C).
            target: (B,) index of the true class.
            below: (B, C) the classes of which one is the true one, instead of `target`; no row without any.
        """


def binary_cross_entropy(logits: Tensor, target: Tensor, below: Tensor | None = None) -> Tensor:
    """(B,) ε of Cho et al. 2019, section 3.2.2: binary cross-entropy against the one-hot class, mean over classes.

    Where one of several classes is the true one, these have no term: which of them it is is unknown. To sum the
    likelihoods of their one-hot vectors would reward the head for settling on one, whichever it is: it would learn its
    own guesses. Arguments: `LevelLoss`.
    """
    # -t log σ(z) - (1 - t) log(1 - σ(z)) = softplus(z) - t z: no one-hot matrix is built.
    if below is None:
        return (softplus_sums(logits) - hit(logits, target, None)) / logits.shape[1]
    several = below.sum(dim=1, keepdim=True) > 1
    true = logits.masked_fill(~below | several, 0).sum(dim=1)
    return (softplus_sums(logits.masked_fill(below & several, -torch.inf)) - true) / logits.shape[1]


def softmax_cross_entropy(logits: Tensor, target: Tensor, below: Tensor | None = None) -> Tensor:
    """(B,) softmax cross-entropy, for labels that are one of C; of one of several classes −log of their sum.

    Arguments: `LevelLoss`.
    """
    if below is None:
        return F.cross_entropy(logits, target, reduction="none")
    return logits.logsumexp(dim=1) - hit(logits, target, below)


def softmax_cross_entropy_among(logits: Tensor, target: Tensor, columns: Tensor, real: Tensor) -> Tensor:
    """(B,) softmax cross-entropy among some of the classes.

    Args:
        logits: (B, C).
        target: (B,) index of the true class.
        columns: (B, S) the classes of each row, the true one among them.
        real: (B, S) which of these count.
    """
    among = logits.gather(1, columns).masked_fill(~real, -torch.inf)
    together = columns.new_zeros(columns.shape[1])
    return logsumexp_by(among, together, 1).squeeze(1) - hit(logits, target, None)


def hit(logits: Tensor, target: Tensor, below: Tensor | None) -> Tensor:
    """(B,) the true logit; of several the logarithm of the sum of their exponentials."""
    if below is None:
        return logits.gather(1, target.unsqueeze(1)).squeeze(1)
    return logits.masked_fill(~below, -torch.inf).logsumexp(dim=1)


def level_losses(epsilon: LevelLoss, levels: Sequence[Tensor], path: Tensor) -> list[Tensor]:
    """(B,) ε of each level; 0 where a row's path ends above the level.

    Args:
        epsilon: ε.
        levels: H tensors (B, C^h) of logits.
        path: (B, H) index of the true node on each level, −1 below the label.
    """
    pairs = zip(levels, path.unbind(dim=1), strict=True)
    return [torch.where(y < 0, 0.0, epsilon(z, y.clamp_min(0))) for z, y in pairs]


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
    return (children - parents).relu().square().sum(dim=1)


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


def hierarchical_cross_entropy(levels: Sequence[Tensor], path: Tensor, alpha: float) -> Tensor:
    """(B,) −Σ_h exp(−α (h − 1)) log P(y^h | y^{h−1}) of a softmax over leaves: the coarse choice counts most.

    Bertinetto et al. 2020, equation 3. Its word "height" misleads: in the authors' code (`get_exponential_weighting`)
    the weight of an edge falls with its distance from the root. They divide all weights by their sum over the tree;
    here an edge of the root weighs 1. The terms go down to the label, leaf or inner node; with α = 0 they are −log of
    its probability, as with one level.

    Args:
        levels: H tensors (B, C^h) of log P(node), the sum of its leaves' probabilities.
        path: (B, H) index of the true node on each level, −1 below the label.
        alpha: α, how much less the choices near the leaves count.
    """
    columns = path.unbind(dim=1)
    true = [z.gather(1, y.clamp_min(0).unsqueeze(1)).squeeze(1) for z, y in zip(levels, columns, strict=True)]
    return hierarchical_cross_entropy_of(true, path, alpha)


def hierarchical_cross_entropy_of(true: Sequence[Tensor], path: Tensor, alpha: float) -> Tensor:
    """(B,) the same of H tensors (B,): log P of the true node on each level, anything below the label."""
    columns = path.unbind(dim=1)
    steps = [true[0], *(below - above for above, below in pairwise(true))]
    steps = [torch.where(y < 0, 0.0, step) for y, step in zip(columns, steps, strict=True)]
    weights = [math.exp(-alpha * depth) for depth in range(len(steps))]
    return -torch.stack([weight * step for weight, step in zip(weights, steps, strict=True)]).sum(dim=0)


def path_cross_entropy(levels: Sequence[Tensor], path: Tensor, share: float) -> Tensor:
    """(B,) −Σ_h q_h log P(y^h), down to the label.

    The label has q = `share`, and the nodes above it have the rest in equal parts; a label on the first level has all.

    Args:
        levels: H tensors (B, C^h) of log P(node), the sum of its leaves' probabilities.
        path: (B, H) index of the true node on each level, −1 below the label.
        share: of the label, in (0, 1]; with 1 the loss is −log of its probability.
    """
    columns = path.unbind(dim=1)
    true = [z.gather(1, y.clamp_min(0).unsqueeze(1)).squeeze(1) for z, y in zip(levels, columns, strict=True)]
    depth = (path >= 0).sum(dim=1)
    above = (1 - share) / (depth - 1).clamp_min(1).to(true[0].dtype)
    own = torch.where(depth > 1, 1 - above * (depth - 1), 1.0)
    terms = [torch.where(depth > h, above, own) * log for h, log in enumerate(true, 1)]
    return -torch.stack([torch.where(y < 0, 0.0, term) for y, term in zip(columns, terms, strict=True)]).sum(dim=0)


def soft_labels(distance: Tensor, sizes: Sequence[int], beta: float, below: Tensor | None = None) -> Tensor:
    """(B, C) the soft label of each row. A table of all leaves' labels would grow with their square.

    It is y(c) ∝ exp(−β d(c, y)/max d), d the LCA height (Bertinetto et al. 2020, equation 5). As in the authors' code
    (`make_all_soft_labels`), distances are fractions of the largest one between two leaves: a root above all others
    changes nothing. For large β a label is one-hot. The leaves below a label that is an inner node count as one class
    at distance 0: they share its part equally.

    Args:
        distance: (B, C) LCA heights of each leaf and the label.
        sizes: C^h of each level.
        beta: β, how sharply the labels fall off.
        below: (B, C) the leaves at or below each label; None where every label is a leaf.
    """
    scores = soft_label_scores(distance, sizes, beta)
    if below is not None:
        scores = torch.where(below, -below.sum(dim=1, keepdim=True).log(), scores)
    return torch.softmax(scores, dim=1)


def soft_label_scores(distance: Tensor, sizes: Sequence[int], beta: float) -> Tensor:
    """Compute −β d/max d of some distances; for the other arguments see `soft_labels`."""
    # Two leaves part first on the first level that has several nodes.
    largest = max(len(sizes) - len(list(takewhile(lambda size: size == 1, sizes))), 1)
    return -beta * distance / largest


def soft_label_cross_entropy(logits: Tensor, labels: Tensor, below: Tensor | None = None) -> Tensor:
    """(B,) cross-entropy of a softmax over (B, C) logits against (B, C) distributions.

    The leaves that are or lie `below` a row's label, (B, C), are one class: its probability is their sum.

    The authors of the soft labels take `torch.nn.KLDivLoss`: less the entropy of the labels, which is constant, and a
    mean over the classes too, which makes every gradient C times smaller.
    """
    logs = logits.log_softmax(dim=1)
    if below is not None:
        logs = torch.where(below, hit(logs, labels, below)[:, None], logs)
    return -(labels * logs).sum(dim=1)


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
