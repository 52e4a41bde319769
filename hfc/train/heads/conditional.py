"""A softmax among siblings: a leaf's probability is the product along its path.

Dimensions: B batch, D features, H levels, C^h nodes on level h.
"""

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from hfc.train.heads.layers import Block, Output, Prediction, Standardise, Target, full, task_names
from hfc.train.heads.tree import Tree
from hfc.train.losses import softmax_cross_entropy_among


class Logits(NamedTuple):
    """Outputs of the head."""

    levels: tuple[Tensor, ...]
    """H tensors (B, C^h), coarse to fine: each node's logit among its siblings."""


class Conditional(nn.Module):
    """x = block(I_pool); P(node | parent) = softmax of W x + b among siblings; P(node) = product along its path.

    Consistent by construction: a node's probability is the sum of its children's (Redmon & Farhadi 2017, section 4).
    A path may end on any level, a leaf's or a label's: there the product ends.
    """

    blends: ClassVar[bool] = False
    convex: ClassVar[bool] = False
    sums: ClassVar[bool] = True
    deepens: ClassVar[bool] = False
    task_flows: ClassVar[tuple[str, ...]] = ("local",)

    def __init__(self, dim: int, ancestors: Tensor, *, reduced: int, dropout: float) -> None:
        """Build the head.

        Args:
            dim: D.
            ancestors: (C, H) index of each leaf's node on each level, −1 below the leaf.
            reduced: width of x.
            dropout: after x.
        """
        super().__init__()
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
        """Compute −log P(y^h | y^{h−1}) of each level down to the label, (B,); their sum is −log P(label)."""
        losses = {}
        for h, (z, y) in enumerate(zip(logits.levels, target.path.unbind(dim=1), strict=True)):
            node = y.clamp_min(0)
            chosen = softmax_cross_entropy_among(full(z), node, *self.tree.siblings(h, node))
            losses[self.tasks[h]] = torch.where(y < 0, 0.0, chosen)
        return losses

    def predict(self, logits: Logits, beta: float) -> Prediction:
        """Multiply along the paths. There is nothing to blend, so `beta` plays no part."""
        given = self.tree.given_parent([full(z) for z in logits.levels])
        levels = tuple(level.exp() for level in self.tree.down(given))
        return Prediction(levels, self.tree.of_leaves(levels))
