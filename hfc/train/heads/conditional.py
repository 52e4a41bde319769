"""A softmax among siblings: a leaf's probability is the product along its path.

Dimensions: B batch, D features, H levels, C^h nodes on level h.
"""

from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from hfc.train.heads.layers import Block, Output, Prediction, Standardise, Target, Tree, full, level_sizes, task_names


class Logits(NamedTuple):
    """Outputs of the head."""

    levels: tuple[Tensor, ...]
    """H tensors (B, C^h), coarse to fine: log P(node | its parent)."""


class Conditional(nn.Module):
    """x = block(I_pool); P(node | parent) = softmax of W x + b among siblings; P(node) = product along its path.

    Consistent by construction: a node's probability is the sum of its children's (Redmon & Farhadi 2017, section 4).
    """

    blends: ClassVar[bool] = False
    task_flows: ClassVar[tuple[str, ...]] = ("local",)

    def __init__(self, dim: int, ancestors: Tensor, *, reduced: int, dropout: float) -> None:
        """Build the head.

        Args:
            dim: D.
            ancestors: (C, H) index of each leaf's ancestor on each level.
            reduced: width of x.
            dropout: after x.
        """
        super().__init__()
        sizes = level_sizes(ancestors)
        self.tasks = task_names(self.task_flows, len(sizes))
        self.tree = Tree(ancestors)
        self.standardise = Standardise(dim)
        self.reduce = Block(dim, reduced, dropout)
        self.outputs = nn.ModuleList(Output(reduced, size) for size in sizes)

    @property
    def shared(self) -> Tensor:
        """The weight that every task passes through."""
        return self.reduce.linear.weight

    def forward(self, features: Tensor) -> Logits:
        """(B, D) raw features to log-probabilities given the parent."""
        x = self.reduce(self.standardise(features))
        return Logits(self.tree.given_parent([full(output(x)) for output in self.outputs]))

    def losses(self, logits: Logits, target: Target) -> dict[str, Tensor]:
        """Compute −log P(y^h | y^{h−1}) of each level, (B,); their sum is −log P(leaf)."""
        levels = zip(self.tasks, logits.levels, target.path.unbind(dim=1), strict=True)
        return {task: -z.gather(1, y[:, None]).squeeze(1) for task, z, y in levels}

    def predict(self, logits: Logits, beta: float) -> Prediction:
        """Multiply along the paths. There is nothing to blend, so `beta` plays no part."""
        levels = tuple(level.exp() for level in self.tree.down(logits.levels))
        return Prediction(levels, levels[-1])
