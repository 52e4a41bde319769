"""HMCN-F as Wehrmann et al. 2018 wrote it.

Its outputs are over all nodes of the tree, and it has a loss on hierarchical violations.

Dimensions: B batch, D features, H levels (coarse to fine), C^h nodes on level h, C leaves, K = Σ_h C^h nodes in all.
"""

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from hfc.train.heads.layers import (
    Flows,
    Output,
    Prediction,
    Standardise,
    Target,
    full,
    level_sizes,
    parents,
    task_names,
)
from hfc.train.losses import binary_cross_entropy, hierarchical_violation


class Logits(NamedTuple):
    """Outputs of the original HMCN-F before the sigmoid."""

    local: tuple[Tensor, ...]
    """H tensors (B, C^h), coarse to fine."""
    nodes: Tensor
    """(B, K): the global output over all nodes, level after level."""


class OriginalHMCNF(nn.Module):
    """A_G^1 = block(x);  A_G^h = block([A_G^{h−1}; x]);  P_F = β [P_L^1; …; P_L^H] + (1−β) P_G, over all nodes.

    x are the features themselves. The losses are L_L, L_G and λ Σ max(0, P_child − P_parent)², the last on P_F: a sum
    over the edges of the tree, a mean over the batch. L_L sums the levels, each a mean over its own nodes.

    Layer by layer it is Tencent's NeuralClassifier (`HMCN`) with residuals, as the paper asks, and dropout in the local
    flow too. That blends logits where the paper blends probabilities, takes one mean over all local outputs for L_L,
    and has no loss on violations.
    """

    blends: ClassVar[bool] = True
    task_flows: ClassVar[tuple[str, ...]] = ("local", "global", "violation")
    ancestors: Tensor
    parents: Tensor
    starts: Tensor

    def __init__(
        self,
        dim: int,
        ancestors: Tensor,
        *,
        width: int,
        dropout: float,
        residual: bool,
        violation_weight: float,
        beta: float,
    ) -> None:
        """Build the head.

        Args:
            dim: D.
            ancestors: (C, H) index of each leaf's ancestor on each level.
            width: width of every hidden state.
            dropout: after every hidden layer.
            residual: add the previous hidden state of the same flow where widths agree.
            violation_weight: λ.
            beta: β of the P_F that the violation loss looks at.
        """
        super().__init__()
        self.violation_weight, self.beta = violation_weight, beta
        self.sizes = level_sizes(ancestors)
        starts = torch.tensor([0, *self.sizes[:-1]]).cumsum(dim=0)
        self.register_buffer("starts", starts, persistent=False)
        # (K − C^1,) the parent of each node below the first level, in the order of the nodes.
        below = [parent + start for parent, start in zip(parents(ancestors)[1:], starts, strict=False)]
        self.register_buffer("parents", torch.cat(below) if below else starts[:0], persistent=False)
        self.tasks = task_names(self.task_flows, len(self.sizes))
        self.standardise = Standardise(dim)
        self.flows = Flows(dim, self.sizes, width=width, dropout=dropout, residual=residual)
        self.global_out = Output(width, sum(self.sizes))

    @property
    def shared(self) -> Tensor:
        """The weight that every task passes through."""
        return self.flows.first.linear.weight

    def forward(self, features: Tensor) -> Logits:
        """(B, D) raw features to logits."""
        local, state = self.flows(self.standardise(features))
        return Logits(local, self.global_out(state))

    def losses(self, logits: Logits, target: Target) -> dict[str, Tensor]:
        """Compute L_L by level, L_G over all nodes and the weighted violation, (B,) each.

        The target of L_G is the true path.

        Args:
            logits: outputs of `forward`.
            target: the labels.
        """
        levels = zip(self.tasks[:-2], logits.local, target.path.unbind(dim=1), strict=True)
        local = {task: binary_cross_entropy(z.float(), y) for task, z, y in levels}
        nodes = logits.nodes.float()
        on_path = nodes.gather(1, target.path + self.starts).sum(dim=1)
        blended = self._blend(logits, self.beta)
        return local | {
            "global": (nn.functional.softplus(nodes).sum(dim=1) - on_path) / nodes.shape[1],
            "violation": self.violation_weight
            * hierarchical_violation(blended[:, self.sizes[0] :], blended[:, self.parents]),
        }

    def predict(self, logits: Logits, beta: float) -> Prediction:
        """The parts of P_F that belong to each level; the last one is ranked."""
        levels = self._blend(logits, beta).split(self.sizes, dim=1)
        return Prediction(levels, levels[-1])

    def _blend(self, logits: Logits, beta: float) -> Tensor:
        local = torch.cat([full(z) for z in logits.local], dim=1).sigmoid()
        return beta * local + (1 - beta) * full(logits.nodes).sigmoid()
