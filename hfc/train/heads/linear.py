"""Softmax regression: one linear layer on the standardised features. The baseline of the field.

Dimensions: B batch, D features, H levels, C leaves.
"""

from typing import ClassVar

from torch import Tensor

from hfc.train.heads.flat import Logits, OverLeaves
from hfc.train.heads.layers import Output


class Linear(OverLeaves):
    """Leaf logits = W x + b, x the standardised features.

    Its loss is convex, so `hfc.train.lbfgs` trains it to the minimum.
    """

    convex: ClassVar[bool] = True

    def __init__(self, dim: int, ancestors: Tensor) -> None:
        """Build the head.

        Args:
            dim: D.
            ancestors: (C, H) index of each leaf's node on each level, −1 below the leaf.
        """
        super().__init__(dim, ancestors)
        self.leaf = Output(dim, len(ancestors))

    @property
    def shared(self) -> Tensor:
        """The only weight."""
        return self.leaf.weight

    def forward(self, features: Tensor) -> Logits:
        """(B, D) raw features to logits."""
        return Logits(self.leaf(self.standardise(features)))
