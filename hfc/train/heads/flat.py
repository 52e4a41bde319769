"""The baseline without a hierarchy: one classifier over the leaves, on the same reduced x.

Dimensions: B batch, D features, H levels, C^h nodes on level h, C leaves.
"""

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hfc.hierarchy import falls
from hfc.train.heads.layers import Block, Output, Prediction, Standardise, Target, full
from hfc.train.heads.tree import Tree
from hfc.train.losses import (
    LEVEL_LOSSES,
    hierarchical_cross_entropy,
    hierarchical_cross_entropy_of,
    probabilities,
    soft_label_cross_entropy,
    soft_label_scores,
    soft_labels,
)
from hfc.train.wide import has_own_slopes, is_wide, weighted_cross_entropy


class Logits(NamedTuple):
    """Outputs of the flat head."""

    leaf: Tensor
    """(B, C)."""


class OverLeaves(nn.Module):
    """What heads share whose only logits are those of the leaves.

    A level above the leaves has no output of its own: its probability is the sum over its leaves, wherever they lie. A
    label that is an inner node asks for that sum: −log Σ_{leaves below} P.
    """

    blends: ClassVar[bool] = False
    convex: ClassVar[bool] = False
    sums: ClassVar[bool] = True
    deepens: ClassVar[bool] = False
    task_flows: ClassVar[tuple[str, ...]] = ("global",)
    tasks: tuple[str, ...] = ("global",)

    def __init__(self, dim: int, ancestors: Tensor, loss: str = "softmax") -> None:
        """Build what stands before and behind the layers.

        Args:
            dim: D.
            ancestors: (C, H) index of each leaf's node on each level, −1 below the leaf.
            loss: bce or softmax.
        """
        super().__init__()
        self.loss = loss
        self.tree = Tree(ancestors)
        self.standardise = Standardise(dim)

    def losses(self, logits: Logits, target: Target) -> dict[str, Tensor]:
        """Compute the loss of the one task, (B,)."""
        return {"global": LEVEL_LOSSES[self.loss](full(logits.leaf), target.leaf, target.below)}

    def predict(self, logits: Logits, beta: float) -> Prediction:
        """Sum each node's leaves. There is no local output to blend with, so `beta` plays no part."""
        final = probabilities(full(logits.leaf), self.loss)
        # Sigmoids of different leaves do not add up to a probability: normalise before summing over a node's leaves.
        shares = F.normalize(final, p=1.0, dim=1)
        above = [self.tree.sums(shares, h) for h in range(len(self.tree.sizes) - 1)]
        return Prediction((*above, self.tree.on_last(final)), final)


class Flat(OverLeaves):
    """x = block(I_pool); leaf logits = W x + b."""

    def __init__(self, dim: int, ancestors: Tensor, *, reduced: int, dropout: float, loss: str) -> None:
        """Build the head.

        Args:
            dim: D.
            ancestors: (C, H) index of each leaf's node on each level, −1 below the leaf.
            reduced: width of x.
            dropout: after x.
            loss: bce or softmax.
        """
        super().__init__(dim, ancestors, loss)
        self.reduce = Block(dim, reduced, dropout)
        self.leaf = Output(reduced, len(ancestors))

    @property
    def shared(self) -> Tensor:
        """The weight that every task passes through."""
        return self.reduce.linear.weight

    def forward(self, features: Tensor) -> Logits:
        """(B, D) raw features to logits."""
        return Logits(self.leaf(self.reduce(self.standardise(features))))


class FlatHXE(Flat):
    """The flat head under the hierarchical cross-entropy of Bertinetto et al. 2020."""

    def __init__(self, dim: int, ancestors: Tensor, *, reduced: int, dropout: float, hxe_alpha: float) -> None:
        """Build the head; `hxe_alpha` is α, for the others see `Flat`."""
        super().__init__(dim, ancestors, reduced=reduced, dropout=dropout, loss="softmax")
        self.hxe_alpha = hxe_alpha

    def losses(self, logits: Logits, target: Target) -> dict[str, Tensor]:
        """Compute the loss of the one task, (B,)."""
        leaves = full(logits.leaf)
        if is_wide(leaves):
            true = self.tree.log_path(leaves, target)
            return {"global": hierarchical_cross_entropy_of(true, target.path, self.hxe_alpha)}
        levels = self.tree.log_sums(leaves.log_softmax(dim=1))
        return {"global": hierarchical_cross_entropy(levels, target.path, self.hxe_alpha)}


class FlatSoftLabels(Flat):
    """The flat head under the soft labels of Bertinetto et al. 2020."""

    def __init__(self, dim: int, ancestors: Tensor, *, reduced: int, dropout: float, soft_label_beta: float) -> None:
        """Build the head; `soft_label_beta` is β, for the others see `Flat`."""
        super().__init__(dim, ancestors, reduced=reduced, dropout=dropout, loss="softmax")
        self.soft_label_beta = soft_label_beta
        for h, (fall, column) in enumerate(zip(falls(ancestors.numpy()).T, ancestors.T, strict=True)):
            on = column >= 0
            of_nodes = torch.zeros(self.tree.sizes[h]).scatter(0, column[on], torch.from_numpy(fall).float()[on])
            self.register_buffer(f"fall{h}", of_nodes, persistent=False)

    def losses(self, logits: Logits, target: Target) -> dict[str, Tensor]:
        """Compute the loss of the one task, (B,)."""
        leaves, sizes = full(logits.leaf), self.tree.sizes
        heights = self._heights(target.path)
        if target.below is None and has_own_slopes(leaves):
            weights = soft_label_scores(heights, sizes, self.soft_label_beta).exp().to(leaves.dtype)
            return {"global": weighted_cross_entropy(leaves, self.tree.shared(target.path, weights))}
        distance = self.tree.shared(target.path, heights)
        labels = soft_labels(distance, sizes, self.soft_label_beta, target.below)
        return {"global": soft_label_cross_entropy(leaves, labels, target.below)}

    def _heights(self, path: Tensor) -> Tensor:
        """(B, H + 1) of the root and of the nodes of each path; anything below its end."""
        falls = [self.get_buffer(f"fall{h}")[y] for h, y in enumerate(path.clamp_min(0).unbind(dim=1))]
        return F.pad(len(falls) - torch.stack(falls, dim=1).cumsum(dim=1), (1, 0), value=len(falls))


# Losses that know the tree, and the flat head under each.
TREE_LOSSES: Mapping[str, type[Flat]] = {"hxe": FlatHXE, "soft-labels": FlatSoftLabels}
