"""The baseline without a hierarchy: one classifier over the leaves, on the same reduced x.

Dimensions: B batch, D features, H levels, C^h nodes on level h, C leaves.
"""

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from hfc.train.heads.layers import Block, Output, Prediction, Standardise, Target, full, level_sizes
from hfc.train.losses import (
    LEVEL_LOSSES,
    hierarchical_cross_entropy,
    probabilities,
    soft_label_cross_entropy,
    soft_labels,
    sums_by,
)


class Logits(NamedTuple):
    """Outputs of the flat head."""

    leaf: Tensor
    """(B, C)."""


class Flat(nn.Module):
    """x = block(I_pool); leaf logits = W x + b.

    A level above the leaves has no output of its own: its probability is the sum over its leaves.
    """

    blends: ClassVar[bool] = False
    task_flows: ClassVar[tuple[str, ...]] = ("global",)
    tasks: tuple[str, ...] = ("global",)
    ancestors: Tensor

    def __init__(self, dim: int, ancestors: Tensor, *, reduced: int, dropout: float, loss: str) -> None:
        """Build the head.

        Args:
            dim: D.
            ancestors: (C, H) index of each leaf's ancestor on each level.
            reduced: width of x.
            dropout: after x.
            loss: bce or softmax.
        """
        super().__init__()
        self.loss = loss
        self.sizes = level_sizes(ancestors)
        self.register_buffer("ancestors", ancestors, persistent=False)
        self.standardise = Standardise(dim)
        self.reduce = Block(dim, reduced, dropout)
        self.leaf = Output(reduced, len(ancestors))

    @property
    def shared(self) -> Tensor:
        """The weight that every task passes through."""
        return self.reduce.linear.weight

    def forward(self, features: Tensor) -> Logits:
        """(B, D) raw features to logits."""
        return Logits(self.leaf(self.reduce(self.standardise(features))))

    def losses(self, logits: Logits, target: Target) -> dict[str, Tensor]:
        """Compute the loss of the one task, (B,)."""
        return {"global": LEVEL_LOSSES[self.loss](logits.leaf.float(), target.leaf)}

    def predict(self, logits: Logits, beta: float) -> Prediction:
        """Sum each node's leaves. There is no local output to blend with, so `beta` plays no part."""
        final = probabilities(full(logits.leaf), self.loss)
        # Sigmoids of different leaves do not add up to a probability: normalise before summing over a node's leaves.
        shares = F.normalize(final, p=1.0, dim=1)
        columns = zip(self.ancestors.unbind(dim=1)[:-1], self.sizes, strict=False)
        above = [sums_by(shares, column, size) for column, size in columns]
        return Prediction((*above, final), final)


class FlatHXE(Flat):
    """The flat head under the hierarchical cross-entropy of Bertinetto et al. 2020."""

    def __init__(self, dim: int, ancestors: Tensor, *, reduced: int, dropout: float, hxe_alpha: float) -> None:
        """Build the head; `hxe_alpha` is α, for the others see `Flat`."""
        super().__init__(dim, ancestors, reduced=reduced, dropout=dropout, loss="softmax")
        self.hxe_alpha = hxe_alpha

    def losses(self, logits: Logits, target: Target) -> dict[str, Tensor]:
        """Compute the loss of the one task, (B,)."""
        leaf = logits.leaf.float()
        return {"global": hierarchical_cross_entropy(leaf, target.path, self.ancestors, self.sizes, self.hxe_alpha)}


class FlatSoftLabels(Flat):
    """The flat head under the soft labels of Bertinetto et al. 2020."""

    def __init__(self, dim: int, ancestors: Tensor, *, reduced: int, dropout: float, soft_label_beta: float) -> None:
        """Build the head; `soft_label_beta` is β, for the others see `Flat`."""
        super().__init__(dim, ancestors, reduced=reduced, dropout=dropout, loss="softmax")
        self.soft_label_beta = soft_label_beta

    def losses(self, logits: Logits, target: Target) -> dict[str, Tensor]:
        """Compute the loss of the one task, (B,)."""
        labels = soft_labels(target.path, self.ancestors, self.sizes, self.soft_label_beta)
        return {"global": soft_label_cross_entropy(logits.leaf.float(), labels)}


# Losses that know the tree, and the flat head under each.
TREE_LOSSES: Mapping[str, type[Flat]] = {"hxe": FlatHXE, "soft-labels": FlatSoftLabels}
