"""HMCN-F as Cho et al. 2019 build it.

A global flow, a local flow that leaves it at every level, and leaf outputs.

Dimensions: B batch, D features, H levels (coarse to fine), C^h nodes on level h, C = C^H leaves.
"""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hfc.train.heads.layers import Block, Flows, Output, Prediction, Standardise, Target, full, task_names
from hfc.train.heads.tree import Tree
from hfc.train.losses import LEVEL_LOSSES, level_losses, probabilities


class Logits(NamedTuple):
    """Outputs of HMCN-F before the sigmoid."""

    local: tuple[Tensor, ...]
    """H tensors (B, C^h), coarse to fine."""
    leaf: Tensor
    """(B, C): the global output."""


class HMCNF(nn.Module):
    """The paper's head (section 3.2.1).

    x = block(I_pool);  A_G^1 = block(x);  A_G^h = block([A_G^{h−1}; x]);  P_G = σ(W A_G^H + b), over the leaves only;
    A_L^h = block(A_G^h);  P_L^h = σ(W A_L^h + b);  P_final = β P_L^H + (1−β) P_G. Of a leaf above level H, P_L^H is
    that of its own level times the probability that a path gets there, see `Tree.reach`.
    """

    blends: ClassVar[bool] = True
    convex: ClassVar[bool] = False
    sums: ClassVar[bool] = False
    deepens: ClassVar[bool] = True
    task_flows: ClassVar[tuple[str, ...]] = ("local", "global")

    def __init__(
        self,
        dim: int,
        ancestors: Tensor,
        *,
        reduced: int,
        width: int,
        dropout: float,
        residual: bool,
        global_input_skip: bool,
        loss: str,
        blend: str,
    ) -> None:
        """Build the head.

        Args:
            dim: D.
            ancestors: (C, H) index of each leaf's node on each level, −1 below the leaf.
            reduced: width of x.
            width: width of every hidden state of both flows.
            dropout: after every hidden layer.
            residual: add the previous hidden state of the same flow where widths agree.
            global_input_skip: concatenate x to A_G^H before the global output.
            loss: bce or softmax.
            blend: probability or logit: what β blends.
        """
        super().__init__()
        self.global_input_skip, self.loss, self.blend = global_input_skip, loss, blend
        self.tree = Tree(ancestors)
        self.tasks = task_names(self.task_flows, len(self.tree.sizes))
        self.standardise = Standardise(dim)
        self.reduce = Block(dim, reduced, dropout)
        self.flows = Flows(reduced, self.tree.sizes, width=width, dropout=dropout, residual=residual)
        self.global_out = Output(width + reduced * global_input_skip, len(ancestors))

    @property
    def shared(self) -> Tensor:
        """The weight that every task passes through."""
        return self.reduce.linear.weight

    def forward(self, features: Tensor) -> Logits:
        """(B, D) raw features to logits."""
        x = self.reduce(self.standardise(features))
        local, state = self.flows(x)
        last = torch.cat([state, x], dim=1) if self.global_input_skip else state
        return Logits(local, self.global_out(last))

    def losses(self, logits: Logits, target: Target) -> dict[str, Tensor]:
        """Compute the losses of both flows, (B,) each, unweighted (section 3.2.2).

        They are ε(P_L^h, Y^h) of each level down to the label, whose sum is L_L, and L_G = ε(P_G, Y^H).

        Args:
            logits: outputs of `forward`.
            target: the labels.
        """
        epsilon = LEVEL_LOSSES[self.loss]
        local = level_losses(epsilon, [full(z) for z in logits.local], target.path)
        leaf = epsilon(full(logits.leaf), target.leaf, target.below)
        return dict(zip(self.tasks, [*local, leaf], strict=True))

    def predict(self, logits: Logits, beta: float) -> Prediction:
        """P_L^h of every level, and P_final over the leaves."""
        own = [probabilities(full(z), self.loss) for z in logits.local]
        local = self.tree.reached(own)
        if self.blend == "logit":
            blended = beta * self._logits(logits.local, own) + (1 - beta) * full(logits.leaf)
            return Prediction(local, probabilities(blended, self.loss))
        leaf = probabilities(full(logits.leaf), self.loss)
        return Prediction(local, beta * self.tree.of_leaves(local) + (1 - beta) * leaf)

    def _logits(self, local: Sequence[Tensor], own: Sequence[Tensor]) -> Tensor:
        """Compute the logits of P_L^H, (B, C); under softmax its logarithms, which lead to the same shares.

        Args:
            local: H tensors (B, C^h), each level's own logits.
            own: the same as probabilities.
        """
        levels = [full(z) for z in local]
        if self.tree.even:
            return levels[-1]
        if self.loss == "softmax":
            levels = [z.log_softmax(dim=1) for z in levels]
        for h, reach in enumerate(self.tree.reach(own)):
            if reach is not None:
                z, reached = levels[h], reach.clamp_min(torch.finfo(reach.dtype).tiny).log()
                if self.loss == "softmax":
                    levels[h] = z + reached
                else:  # log P − log(1 − P), P = σ(z) · reach; 1 − P = σ(−z) + σ(z) (1 − reach)
                    missed = F.logsigmoid(z) + (1 - reach).log()
                    levels[h] = F.logsigmoid(z) + reached - torch.logaddexp(F.logsigmoid(-z), missed)
        return self.tree.of_leaves(levels)
