"""A classifier for each level on one trunk: the plainest way to use a hierarchy.

Dimensions: B batch, D features, H levels, C^h nodes on level h.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from hfc.train.heads.layers import Block, Output, Prediction, Standardise, Target, full, task_names
from hfc.train.heads.tree import Tree
from hfc.train.losses import LEVEL_LOSSES, level_losses, probabilities


@dataclass
class Logits:
    """Outputs of the head."""

    levels: tuple[Tensor, ...]
    """H tensors (B, C^h), coarse to fine."""
    top_down: Tensor | None = None
    """(B, C) P_top-down, once it was asked for: β changes nothing of it."""


class Levels(nn.Module):
    """x = block(I_pool); logits of level h = W^h x + b^h; P_final = β P_top-down + (1−β) P^H.

    P^H is the leaves' own output; of a leaf above level H, that of its level times the probability that a path gets
    there, see `Tree.reach`. P_top-down walks the tree: P(node) = P(parent) · P^h(node) / Σ_siblings P^h, so that what
    the levels above say counts.
    """

    blends: ClassVar[bool] = True
    convex: ClassVar[bool] = False
    sums: ClassVar[bool] = False
    deepens: ClassVar[bool] = False
    task_flows: ClassVar[tuple[str, ...]] = ("local",)

    def __init__(self, dim: int, ancestors: Tensor, *, reduced: int, dropout: float, loss: str) -> None:
        """Build the head.

        Args:
            dim: D.
            ancestors: (C, H) index of each leaf's node on each level, −1 below the leaf.
            reduced: width of x.
            dropout: after x.
            loss: bce or softmax.
        """
        super().__init__()
        self.loss = loss
        self.tree = Tree(ancestors)
        self.tasks = task_names(self.task_flows, len(self.tree.sizes))
        self.standardise = Standardise(dim)
        self.reduce = Block(dim, reduced, dropout)
        self.outputs = nn.ModuleList(Output(reduced, size) for size in self.tree.sizes)

    @property
    def shared(self) -> Tensor:
        """The weight that every task passes through."""
        return self.reduce.linear.weight

    def forward(self, features: Tensor) -> Logits:
        """(B, D) raw features to logits."""
        x = self.reduce(self.standardise(features))
        return Logits(tuple(output(x) for output in self.outputs))

    def losses(self, logits: Logits, target: Target) -> dict[str, Tensor]:
        """Compute the loss of each level, (B,); 0 below the label."""
        levels = level_losses(LEVEL_LOSSES[self.loss], [full(z) for z in logits.levels], target.path)
        return dict(zip(self.tasks, levels, strict=True))

    def predict(self, logits: Logits, beta: float) -> Prediction:
        """Compute the probabilities of each level by itself, and P_final over the leaves."""
        levels = self.tree.reached([probabilities(full(z), self.loss) for z in logits.levels])
        own = self.tree.of_leaves(levels)
        if beta == 0:
            return Prediction(levels, own)
        if logits.top_down is None:
            logs = [F.logsigmoid(full(z)) if self.loss == "bce" else full(z) for z in logits.levels]
            logits.top_down = self.tree.of_leaves(self.tree.down(self.tree.given_parent(logs))).exp()
        return Prediction(levels, beta * logits.top_down + (1 - beta) * F.normalize(own, p=1.0, dim=1))
