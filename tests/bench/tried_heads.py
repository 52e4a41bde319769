"""Heads that `tests.bench.tried` trains: losses of other papers on the trunk of the flat head; labels are leaves.

They are no part of the product: what earned no place there is kept here, so that its figures can be had again.

Dimensions: B batch, H levels (coarse to fine), n nodes of all levels, C leaves.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hfc.hierarchy import falls, lca_height
from hfc.train.heads.flat import Flat, Logits
from hfc.train.heads.layers import Output, Prediction, Target, full


def path_table(ancestors: Tensor) -> Tensor:
    """Mark the nodes on each leaf's path: (C, H) to (C, n), the levels after each other."""
    columns = [F.one_hot(column + 1)[:, 1:].bool() for column in ancestors.unbind(dim=1)]
    return torch.cat(columns, dim=1)


def soft_margin(scores: Tensor, true: Tensor, cost: Tensor, alpha: float) -> Tensor:
    """(B,) log Σ_y exp(z_y + α C(y, y*)) − z_{y*} (Valmadre 2022, "soft-max-margin").

    Args:
        scores: (B, K) z of what may be answered.
        true: (B,) index of y* among it.
        cost: (B, K) C of each answer, 0 for y*.
        alpha: α.
    """
    return (scores + alpha * cost).logsumexp(dim=1) - scores.gather(1, true[:, None])[:, 0]


class Tried(Flat):
    """The flat head under softmax with one setting more, which its class holds."""

    strength: ClassVar[float] = 1.0

    def __init__(self, dim: int, ancestors: Tensor, *, reduced: int, dropout: float) -> None:
        super().__init__(dim, ancestors, reduced=reduced, dropout=dropout, loss="softmax")

    @classmethod
    def at(cls, strength: float) -> type["Tried"]:
        """The same with another strength."""
        return type(cls.__name__, (cls,), {"strength": strength})


class LeafMargin(Tried):
    """Soft-max-margin over the leaves; C is the LCA height as a share of the tree's."""

    cost: Tensor

    def __init__(self, dim: int, ancestors: Tensor, *, reduced: int, dropout: float) -> None:
        super().__init__(dim, ancestors, reduced=reduced, dropout=dropout)
        fall = torch.from_numpy(falls(ancestors.numpy()))
        heights = lca_height(ancestors.T[:, :, None], ancestors.T[:, None], fall.T[:, :, None])
        self.register_buffer("cost", heights / ancestors.shape[1], persistent=False)

    def losses(self, logits: Logits, target: Target) -> dict[str, Tensor]:
        return {"global": soft_margin(full(logits.leaf), target.leaf, self.cost[target.leaf], self.strength)}


class NodeMargin(Tried):
    """Soft-max-margin as its authors train it: over all nodes, the root too; C = 0 on the label's path, else 1."""

    cost: Tensor

    def __init__(self, dim: int, ancestors: Tensor, *, reduced: int, dropout: float) -> None:
        super().__init__(dim, ancestors, reduced=reduced, dropout=dropout)
        self.leaf = _of_nodes(reduced, 1 + sum(self.tree.sizes))
        self.register_buffer("cost", F.pad((~path_table(ancestors)).float(), (1, 0)), persistent=False)

    def losses(self, logits: Logits, target: Target) -> dict[str, Tensor]:
        true = 1 + self.tree.place[target.leaf]
        return {"global": soft_margin(full(logits.leaf), true, self.cost[target.leaf], self.strength)}

    def predict(self, logits: Logits, beta: float) -> Prediction:
        """A softmax over the leaves' scores: those of inner nodes are no answer here."""
        return super().predict(Logits(logits.leaf[:, 1 + self.tree.place]), beta)


class HierCos(Tried):
    """Hier-COS (Sani and Anand, CVPR 2026), as the authors' public code defines it.

    An axis for every node; a leaf's score is the length of x along the axes of its path, √Σ_{v on the path} x_v².
    The loss is KL(q ‖ softmax |x|), q_v ∝ exp(2/(levels from v down to the leaf, both counted)) on the path, plus α
    times Σ_h ‖e − |x^h|/‖x^h‖‖₁, e one-hot at the path's node on level h; below the leaf Σ_v |x_v^h|. The authors
    average each of the two over its own rows; here every row counts alike.
    """

    paths: Tensor
    share: Tensor

    def __init__(self, dim: int, ancestors: Tensor, *, reduced: int, dropout: float) -> None:
        super().__init__(dim, ancestors, reduced=reduced, dropout=dropout)
        self.leaf = _of_nodes(reduced, sum(self.tree.sizes))
        depth = (ancestors >= 0).sum(dim=1, keepdim=True)
        level = torch.arange(len(self.tree.sizes)).repeat_interleave(torch.tensor(self.tree.sizes))
        paths = path_table(ancestors)
        share = torch.where(paths, torch.exp(2 / (depth - level).clamp_min(1)), 0.0)
        self.register_buffer("paths", paths.float(), persistent=False)
        self.register_buffer("share", share / share.sum(dim=1, keepdim=True), persistent=False)

    def losses(self, logits: Logits, target: Target) -> dict[str, Tensor]:
        lengths = full(logits.leaf).abs()
        share = self.share[target.leaf]
        divergence = (torch.xlogy(share, share) - share * lengths.log_softmax(dim=1)).sum(dim=1)
        paths, along = self.paths[target.leaf].split(self.tree.sizes, dim=1), lengths.split(self.tree.sizes, dim=1)
        aside = torch.zeros_like(divergence)
        for marks, own in zip(paths, along, strict=True):
            apart = (marks - F.normalize(own, dim=1)).abs().sum(dim=1)
            aside = aside + torch.where(marks.any(dim=1), apart, own.sum(dim=1))
        return {"global": divergence + self.strength * aside}

    def predict(self, logits: Logits, beta: float) -> Prediction:
        """A softmax over the leaves' scores; the authors rank by them and have no probabilities."""
        return super().predict(Logits((full(logits.leaf).square() @ self.paths.T).sqrt()), beta)


class Adjusted(Tried):
    """Cross-entropy of z + τ log π, π the leaves' shares of the training rows (Menon et al. 2021, equation 10)."""

    log_prior: ClassVar[Tensor]

    def losses(self, logits: Logits, target: Target) -> dict[str, Tensor]:
        return super().losses(Logits(full(logits.leaf) + self.strength * self.log_prior), target)


def _of_nodes(reduced: int, nodes: int) -> Output:
    output = Output(reduced, nodes)
    nn.init.zeros_(output.bias)  # a softmax needs no rate of its classes to start at
    return output
