"""What heads are made of.

Dimensions: B batch, D features.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Prediction(NamedTuple):
    """What a head says of a batch, as probabilities."""

    levels: tuple[Tensor, ...]
    """H tensors (B, C^h): each level's own output, coarse to fine."""
    final: Tensor
    """(B, C): P_final over the leaves."""


def level_sizes(ancestors: Tensor) -> list[int]:
    """C^h of each level, coarse to fine, from the (C, H) index of each leaf's ancestor on each level."""
    sizes: list[int] = (ancestors.max(dim=0).values + 1).tolist()
    return sizes


def level_tasks(levels: int) -> tuple[str, ...]:
    """Names of the tasks of a flow that has a loss on every level: local/1 … local/H."""
    return tuple(f"local/{h}" for h in range(1, levels + 1))


def full(logits: Tensor) -> Tensor:
    """Logits in float32 where autocast made them bfloat16; those of a head in float64 stay."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


class Standardise(nn.Module):
    """(x − mean)/std with statistics of the training split, kept inside the model so that it takes raw features."""

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    def set(self, mean: Tensor, std: Tensor) -> None:
        """Take over statistics, both (D,); a feature that never varies is only centred."""
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > 0, std, torch.ones_like(std)))

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) to (B, D)."""
        return torch.addcmul(-self.mean / self.std, features, 1 / self.std)  # one pass over the batch


class Dropout(nn.Dropout):
    """Dropout that on a CPU draws 16 random bits a number, four numbers at a time.

    PyTorch's own draws one number after the other there, which took a third of a training step. The probability is
    that asked for to the nearest of 65,536, and what is kept is scaled by the exact one.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """Zero each number with probability p and scale the others by 1/(1 − p); in evaluation the identity."""
        if not self.training or self.p == 0 or inputs.device.type != "cpu":
            return super().forward(inputs)
        kept = min(max(round((1 - self.p) * 2**16), 1), 2**16 - 1)
        words = torch.empty(-(-inputs.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int16)[: inputs.numel()].view(inputs.shape)
        return inputs * (bits < kept - 2**15).to(inputs.dtype).mul_(2**16 / kept)


class Block(nn.Module):
    """The paper's activation layer: dropout(batchnorm(ReLU(W z + b)) + residual) (Cho et al. 2019, section 4.1).

    The residual is the previous hidden state of the same flow, where its width agrees: A_G^{h−1} for A_G^h, A_L^{h−1}
    for A_L^h, none for the first.
    """

    def __init__(self, inputs: int, width: int, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, width)
        self.norm = nn.BatchNorm1d(width)
        self.dropout = Dropout(dropout)

    def forward(self, inputs: Tensor, residual: Tensor | None = None) -> Tensor:
        """(B, inputs) to (B, width); `residual` is (B, anything), added if it is as wide as the output."""
        hidden: Tensor = self.norm(torch.relu(self.linear(inputs)))
        if residual is not None and residual.shape == hidden.shape:
            hidden = hidden + residual
        out: Tensor = self.dropout(hidden)
        return out


class Flows(nn.Module):
    """The global flow and the local flow that leaves it on every level (Cho et al. 2019, section 3.2.1).

    A_G^1 = block(x);  A_G^h = block([A_G^{h−1}; x]);  A_L^h = block(A_G^h);  local logits of level h = W A_L^h + b.
    """

    def __init__(self, inputs: int, sizes: Sequence[int], *, width: int, dropout: float, residual: bool) -> None:
        """Build both flows.

        Args:
            inputs: width of x.
            sizes: C^h of each level, coarse to fine.
            width: width of every hidden state.
            dropout: after every hidden layer.
            residual: add the previous hidden state of the same flow.
        """
        super().__init__()
        self.residual = residual
        widths = [inputs] + [width + inputs] * (len(sizes) - 1)
        self.global_flow = nn.ModuleList(Block(n, width, dropout) for n in widths)
        self.local_flow = nn.ModuleList(Block(width, width, dropout) for _ in sizes)
        self.local_out = nn.ModuleList(Output(width, size) for size in sizes)

    @property
    def first(self) -> Block:
        """The block of A_G^1, which everything passes through."""
        block = self.global_flow[0]
        assert isinstance(block, Block)
        return block

    def forward(self, x: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """(B, inputs) to the local logits, H tensors (B, C^h), and the last global state A_G^H, (B, width)."""
        state = self.global_flow[0](x)
        branch = self.local_flow[0](state)
        local = [self.local_out[0](branch)]
        for h in range(1, len(self.local_out)):
            state = self.global_flow[h](torch.cat([state, x], dim=1), state if self.residual else None)
            branch = self.local_flow[h](state, branch if self.residual else None)
            local.append(self.local_out[h](branch))
        return tuple(local), state


class Output(nn.Linear):
    """A classifier over C classes that starts by giving each of them 1/C.

    A sigmoid that starts at 1/2 spends hundreds of steps on learning that most classes are absent; Lin et al. 2017
    ("Focal loss", section 4.1) start it at the rate of the class, with small weights, and so do we.
    """

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__(inputs, classes)
        nn.init.normal_(self.weight, std=0.01)
        nn.init.constant_(self.bias, -math.log(max(classes - 1, 1)))
