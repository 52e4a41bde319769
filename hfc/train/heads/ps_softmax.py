"""Scores of nodes, added up along each leaf's path: what related leaves have in common is learned once.

Dimensions: B batch, D features, H levels (coarse to fine), C leaves.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hfc.train.heads.flat import Logits, OverLeaves
from hfc.train.heads.layers import Block, Output, Target, full
from hfc.train.losses import path_cross_entropy


class PSSoftmax(OverLeaves):
    """x = block(I_pool); leaf logits z_y = Σ_{v on the path to y} a_v (w_v x + b_v), a_v = 1 for a leaf.

    Valmadre 2022, "Hierarchical classification at multiple operating points" (PS: parameter sharing).
    """

    scale: Tensor
    """(nodes, 1) a_v."""

    def __init__(
        self, dim: int, ancestors: Tensor, *, reduced: int, dropout: float, label_share: float, inner_scale: float
    ) -> None:
        """Build the head.

        Args:
            dim: D.
            ancestors: (C, H) index of each leaf's node on each level, −1 below the leaf.
            reduced: width of x.
            dropout: after x.
            label_share: the label's share of the loss, see `path_cross_entropy`.
            inner_scale: a_v of inner nodes. With 0 it is the flat head. A step moves what leaves have in common by
                that much less; beside an L2 on all weights it would be an L2 of 1/a² on those of inner nodes.
        """
        super().__init__(dim, ancestors)
        self.label_share = label_share
        self.reduce = Block(dim, reduced, dropout)
        self.nodes = Output(reduced, sum(self.tree.sizes))
        scale = torch.full((sum(self.tree.sizes), 1), inner_scale).index_fill(0, self.tree.place, 1)
        self.register_buffer("scale", scale, persistent=False)
        # A softmax needs no rate of its classes to start at; added up, it would put deep leaves behind the others.
        nn.init.zeros_(self.nodes.bias)

    @property
    def shared(self) -> Tensor:
        """The weight that every task passes through."""
        return self.reduce.linear.weight

    def forward(self, features: Tensor) -> Logits:
        """(B, D) raw features to logits."""
        x = self.reduce(self.standardise(features))
        # The weights are added up before they meet x: one product over the leaves is all that there is to compute.
        weight, bias = self.scale * self.nodes.weight, self.scale[:, 0] * self.nodes.bias
        return Logits(F.linear(x, self.tree.along_paths(weight), self.tree.along_paths(bias)))

    def losses(self, logits: Logits, target: Target) -> dict[str, Tensor]:
        """Compute the loss of the one task, (B,)."""
        if self.label_share == 1:
            return super().losses(logits, target)
        levels = self.tree.log_sums(full(logits.leaf).log_softmax(dim=1))
        return {"global": path_cross_entropy(levels, target.path, self.label_share)}
