"""HMCN-F as Cho et al. 2019 build it.

A global flow, a local flow that leaves it at every level, and leaf outputs.

Dimensions: B batch, D features, H levels (coarse to fine), C^h nodes on level h, C = C^H leaves.
"""

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from hfc.train.heads.layers import Block, Flows, Output, Prediction, Standardise, Target, full, level_sizes, task_names
from hfc.train.losses import LEVEL_LOSSES, probabilities


class Logits(NamedTuple):
    """Outputs of HMCN-F before the sigmoid."""

    local: tuple[Tensor, ...]
    """H tensors (B, C^h), coarse to fine."""
    leaf: Tensor
    """(B, C): the global output."""


class HMCNF(nn.Module):
    """The paper's head (section 3.2.1).

    x = block(I_pool);  A_G^1 = block(x);  A_G^h = block([A_G^{h−1}; x]);  P_G = σ(W A_G^H + b), over the leaves only;
    A_L^h = block(A_G^h);  P_L^h = σ(W A_L^h + b);  P_final = β P_L^H + (1−β) P_G.
    """

    blends: ClassVar[bool] = True
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
            ancestors: (C, H) index of each leaf's ancestor on each level.
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
        sizes = level_sizes(ancestors)
        self.tasks = task_names(self.task_flows, len(sizes))
        self.standardise = Standardise(dim)
        self.reduce = Block(dim, reduced, dropout)
        self.flows = Flows(reduced, sizes, width=width, dropout=dropout, residual=residual)
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

        They are ε(P_L^h, Y^h) of each level, whose sum is L_L, and L_G = ε(P_G, Y^H).

        Args:
            logits: outputs of `forward`.
            target: the labels.
        """
        epsilon = LEVEL_LOSSES[self.loss]
        levels = zip(self.tasks[:-1], logits.local, target.path.unbind(dim=1), strict=True)
        local = {task: epsilon(z.float(), y) for task, z, y in levels}
        return local | {"global": epsilon(logits.leaf.float(), target.leaf)}

    def predict(self, logits: Logits, beta: float) -> Prediction:
        """P_L^h of every level, and P_final over the leaves."""
        local = tuple(probabilities(full(z), self.loss) for z in logits.local)
        if self.blend == "logit":
            blended = beta * full(logits.local[-1]) + (1 - beta) * full(logits.leaf)
            return Prediction(local, probabilities(blended, self.loss))
        return Prediction(local, beta * local[-1] + (1 - beta) * probabilities(full(logits.leaf), self.loss))
