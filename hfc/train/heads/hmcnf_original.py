"""HMCN-F as Wehrmann et al. 2018 wrote it.

Its outputs are over all nodes of the tree, and it has a loss on hierarchical violations.

Dimensions: B batch, D features, H levels (coarse to fine), C^h nodes on level h, C leaves, K = Σ_h C^h nodes in all.
"""

from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hfc.train.heads.layers import Flows, Output, Prediction, Sloped, Standardise, Target, full, task_names
from hfc.train.heads.tree import Tree
from hfc.train.losses import binary_cross_entropy, hierarchical_violation, level_losses
from hfc.train.wide import has_own_slopes, softplus, softplus_sums


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

    Below an early leaf a path has no node. So P_L^h in P_F is the level's own output times the probability that a path
    gets there, see `Tree.reach`; L_G takes the nodes below a leaf as absent, those below any other label as unknown.

    Layer by layer it is Tencent's NeuralClassifier (`HMCN`) with residuals, as the paper asks, and dropout in the local
    flow too. That blends logits where the paper blends probabilities, takes one mean over all local outputs for L_L,
    and has no loss on violations.
    """

    blends: ClassVar[bool] = True
    convex: ClassVar[bool] = False
    sums: ClassVar[bool] = False
    deepens: ClassVar[bool] = True
    task_flows: ClassVar[tuple[str, ...]] = ("local", "global", "violation")
    parents: Tensor
    starts: Tensor
    depths: Tensor
    first: Tensor

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
            ancestors: (C, H) index of each leaf's node on each level, −1 below the leaf.
            width: width of every hidden state.
            dropout: after every hidden layer.
            residual: add the previous hidden state of the same flow where widths agree.
            violation_weight: λ.
            beta: β of the P_F that the violation loss looks at.
        """
        super().__init__()
        self.violation_weight, self.beta = violation_weight, beta
        self.tree = Tree(ancestors)
        sizes = self.tree.sizes
        starts = torch.tensor([0, *sizes[:-1]]).cumsum(dim=0)
        self.register_buffer("starts", starts, persistent=False)
        # (K − C^1,) the parent of each node below the first level, in the order of the nodes.
        above = [self.tree.parent(h) + start for h, start in enumerate(starts[:-1].tolist(), 1)]
        self.register_buffer("parents", torch.cat(above) if above else starts[:0], persistent=False)
        # (K,) the level of each node, counted from 1, and a leaf at or below it.
        levels = torch.arange(1, len(sizes) + 1).repeat_interleave(torch.tensor(sizes))
        self.register_buffer("depths", levels, persistent=False)
        leaves = torch.arange(len(ancestors))
        first = [torch.zeros(size, dtype=torch.int64) for size in sizes]
        for numbers, column in zip(first, ancestors.unbind(dim=1), strict=True):
            numbers.scatter_(0, column[column >= 0], leaves[column >= 0])
        self.register_buffer("first", torch.cat(first), persistent=False)
        self.tasks = task_names(self.task_flows, len(sizes))
        self.standardise = Standardise(dim)
        self.flows = Flows(dim, sizes, width=width, dropout=dropout, residual=residual)
        self.global_out = Output(width, sum(sizes))

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

        The target of L_G is the true path. Nodes below a label that is an inner node have no term, as which of them is
        true is not known; it is divided by K all the same.

        Args:
            logits: outputs of `forward`.
            target: the labels.
        """
        local = level_losses(binary_cross_entropy, [full(z) for z in logits.local], target.path)
        nodes, path = full(logits.nodes), target.path
        on_path = nodes.gather(1, path.clamp_min(0) + self.starts).masked_fill(path < 0, 0).sum(dim=1)
        blended = self._blend(logits, self.beta)
        known = nodes
        if target.below is not None:
            depth = (path >= 0).sum(dim=1, keepdim=True)
            unknown = target.below.index_select(1, self.first) & (self.depths > depth)
            known = nodes.masked_fill(unknown, -torch.inf)  # which adds nothing
        terms = softplus_sums(known)
        violation = hierarchical_violation(blended[:, self.tree.sizes[0] :], blended.index_select(1, self.parents))
        flow = (terms - on_path) / nodes.shape[1]
        return dict(zip(self.tasks, [*local, flow, self.violation_weight * violation], strict=True))

    @torch.no_grad()
    def sloped(self, logits: Logits, target: Target) -> Sloped | None:
        """Compute what `losses` does and its slopes, in a third of torch's steps; None where it is not for them.

        Of many classes of an even tree, with leaves as labels.
        """
        if target.below is not None or not self.tree.even or not has_own_slopes(logits.nodes):
            return None
        sizes, dtype = self.tree.sizes, logits.nodes.dtype
        local, nodes = full(torch.cat(logits.local, dim=1)), full(logits.nodes)
        p, r, places = local.sigmoid(), nodes.sigmoid(), target.path + self.starts
        means = [terms.sum(dim=1) for terms in softplus(local).split(sizes, dim=1)]
        means = [(z - y) / size for z, y, size in zip(means, local.gather(1, places).unbind(dim=1), sizes, strict=True)]
        flow = (softplus(nodes).sum(dim=1) - nodes.gather(1, places).sum(dim=1)) / nodes.shape[1]
        blended = self.beta * p + (1 - self.beta) * r
        excess = (blended[:, sizes[0] :] - blended.index_select(1, self.parents)).relu_()
        violation = self.violation_weight * excess.square().sum(dim=1)
        # By the probabilities, then by the logits: σ' = σ (1 − σ).
        by_blended = F.pad(excess.mul_(2 * self.violation_weight), (sizes[0], 0))
        by_blended.scatter_add_(1, self.parents.expand_as(excess), excess.neg_())
        by_local = torch.ops.aten.sigmoid_backward(by_blended * self.beta, p).to(dtype)
        by_nodes = torch.ops.aten.sigmoid_backward(by_blended * (1 - self.beta), r).to(dtype)
        # Of a binary cross-entropy: σ − 1 for the true class, σ for the others.
        hits = torch.full_like(places, -1, dtype=p.dtype)
        own = p.scatter_add_(1, places, hits).split(sizes, dim=1)
        zeros = [None] * len(sizes)
        slopes: list[list[Tensor | None]] = [[*zeros, None] for _ in sizes]
        for h, slope in enumerate(own):
            slopes[h][h] = (slope / sizes[h]).to(dtype)
        slopes.append([*zeros, (r.scatter_add_(1, places, hits) / nodes.shape[1]).to(dtype)])
        slopes.append([*by_local.split(sizes, dim=1), by_nodes])
        return Sloped([*means, flow, violation], slopes)

    def predict(self, logits: Logits, beta: float) -> Prediction:
        """The parts of P_F that belong to each level; those of the leaves are ranked."""
        levels = self._blend(logits, beta).split(self.tree.sizes, dim=1)
        return Prediction(levels, self.tree.of_leaves(levels))

    def _blend(self, logits: Logits, beta: float) -> Tensor:
        if self.tree.even:
            local = full(torch.cat(logits.local, dim=1)).sigmoid()
        else:
            local = torch.cat(self.tree.reached([full(z).sigmoid() for z in logits.local]), dim=1)
        return beta * local + (1 - beta) * full(logits.nodes).sigmoid()
