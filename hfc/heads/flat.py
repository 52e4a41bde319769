"""The baseline that knows no hierarchy: one classifier over the leaves, on the same reduced x.

Dimensions: B batch, D features, H levels, C^h nodes on level h, C leaves.
"""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from hfc.heads.layers import Block, Output, Prediction, Standardise
from hfc.losses import LEVEL_LOSSES, probabilities


class Logits(NamedTuple):
    """Outputs of the flat head."""

    leaf: Tensor
    """(B, C)."""


class Flat(nn.Module):
    """x = block(I_pool); leaf logits = W x + b.

    A level above the leaves has no output of its own: its probability is the sum over its leaves.
    """

    tasks = ("global",)
    settings = ("reduced", "dropout", "loss")
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
        self.register_buffer("ancestors", ancestors, persistent=False)
        self.standardise = Standardise(dim)
        self.reduce = Block(dim, reduced, dropout)
        self.leaf = Output(reduced, len(ancestors))

    def forward(self, features: Tensor) -> Logits:
        """(B, D) raw features to logits."""
        return Logits(self.leaf(self.reduce(self.standardise(features))))

    def losses(self, logits: Logits, target: Tensor) -> dict[str, Tensor]:
        """The unweighted loss of the one task; `target` (B, H) holds the class on each level."""
        return {"global": LEVEL_LOSSES[self.loss](logits.leaf.float(), target[:, -1])}

    def predict(self, logits: Logits, beta: float) -> Prediction:
        """Probabilities. There is no local output to blend with, so `beta` plays no part."""
        final = probabilities(logits.leaf.float(), self.loss)
        # Sigmoids of different leaves do not add up to a probability: normalise before summing over a node's leaves.
        shares = F.normalize(final, p=1.0, dim=1)
        above = [shares @ F.one_hot(column).to(shares.dtype) for column in self.ancestors.unbind(dim=1)[:-1]]
        return Prediction((*above, final), final)
