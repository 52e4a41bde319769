"""Several heads of one kind as one head, which answers with their mean: a deep ensemble.

Dimensions: B batch, D features, H levels (coarse to fine), C^h nodes on level h, C leaves, K members.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from hfc.train.heads.base import Head
from hfc.train.heads.layers import Prediction, Target


class Members(nn.Module):
    """P = (1/K) Σ_k P_k, over the leaves and on each level.

    Lakshminarayanan et al. 2017, "Deep ensembles", section 2.4. The members differ in their initial weights and their
    dropout, and see the same batches. β blends within a member; what decodes and calibrates comes after the mean. A
    node's sum over its leaves is still one: the mean of sums.
    """

    def __init__(self, heads: Sequence[Head]) -> None:
        """Take K heads of one kind, untrained. They get standardised features, so they lose that layer of their own."""
        super().__init__()
        first = heads[0]
        self.blends, self.convex, self.sums, self.deepens = first.blends, first.convex, first.sums, first.deepens
        self.task_flows, self.tasks = first.task_flows, first.tasks
        self.standardise = first.standardise
        for head in heads:
            head.standardise = nn.Identity()  # type: ignore[assignment]
        self.members = nn.ModuleList(cast(Sequence[nn.Module], heads))

    @property
    def heads(self) -> Sequence[Head]:
        """The members."""
        return cast(Sequence[Head], self.members)

    @property
    def shared(self) -> Tensor:
        """The weight that every task of the first member passes through; its gradients are as in a head alone."""
        return self.heads[0].shared

    def forward(self, features: Tensor) -> tuple[Any, ...]:
        """(B, D) raw features to the logits of K members."""
        x = self.standardise(features)
        return tuple(head(x) for head in self.heads)

    def losses(self, logits: tuple[Any, ...], target: Target) -> dict[str, Tensor]:
        """Compute the mean of the members' losses of each task, (B,).

        Its gradient is that of their sum, so each member is trained as it would be alone: steps of Adam hardly
        depend on a factor, but its ε and gradnorm do. What a weighting learns for itself goes by the mean's size.
        """
        rows = [head.losses(own, target) for head, own in zip(self.heads, logits, strict=True)]
        sums = {task: torch.stack([losses[task] for losses in rows]).sum(dim=0) for task in self.tasks}
        return {task: total.detach() / len(rows) + (total - total.detach()) for task, total in sums.items()}

    def predict(self, logits: tuple[Any, ...], beta: float) -> Prediction:
        """Average the members' probabilities of each level, and P_final over the leaves."""
        parts = [head.predict(own, beta) for head, own in zip(self.heads, logits, strict=True)]
        levels = [torch.stack(level).mean(dim=0) for level in zip(*(part.levels for part in parts), strict=True)]
        if all(part.final is part.levels[-1] for part in parts):  # then they stay one
            return Prediction(tuple(levels), levels[-1])
        return Prediction(tuple(levels), torch.stack([part.final for part in parts]).mean(dim=0))


def member_count(head: Head) -> int:
    """Count the members of a head: 1 where it stands for itself."""
    return len(head.members) if isinstance(head, Members) else 1
