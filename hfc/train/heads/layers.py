"""What heads are made of.

Dimensions: B batch, D features, H levels (coarse to fine), C leaves.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

AS_INTEGER = {torch.float32: torch.int32, torch.bfloat16: torch.int16}
CACHED_ROWS = 64


class Target(NamedTuple):
    """What is to be predicted of a batch: any node of the tree, given by the path to it."""

    path: Tensor
    """(B, H) index of the node on each level, −1 below the label."""
    leaf: Tensor
    """(B,) index of the label among the leaves, −1 where it is an inner node."""
    below: Tensor | None = None
    """(B, C) whether each leaf is the label or lies below it; None where every label in use is a leaf."""

    def to(self, device: torch.device) -> "Target":
        """Move it to a device."""
        below = None if self.below is None else self.below.to(device)
        return Target(self.path.to(device), self.leaf.to(device), below)


class Prediction(NamedTuple):
    """What a head says of a batch, as probabilities."""

    levels: tuple[Tensor, ...]
    """H tensors (B, C^h): each level's own output, coarse to fine."""
    final: Tensor
    """(B, C): P_final over the leaves."""


class Sloped(NamedTuple):
    """The losses of a batch and their slopes by its logits."""

    losses: Sequence[Tensor]
    """(B,) of each task."""
    slopes: Sequence[Sequence[Tensor | None]]
    """Of each task by each tensor of the logits, in its shape and type; None where the loss knows nothing of it."""


def task_names(flows: Sequence[str], levels: int) -> tuple[str, ...]:
    """Name the task losses of some flows; the local one has a loss on every level, local/1 … local/H."""
    by_level = {"local": tuple(f"local/{h}" for h in range(1, levels + 1))}
    return tuple(task for flow in flows for task in by_level.get(flow, (flow,)))


def full(logits: Tensor) -> Tensor:
    """Bring logits to float32 where autocast made them bfloat16; float64 stays."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


TRANSFORMS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "none": lambda features: features,
    "sqrt": lambda features: features.sign() * features.abs().sqrt(),
    "l2": lambda features: F.normalize(features, dim=-1),
}


class Standardise(nn.Module):
    """(t(x) − mean)/std with a transform t, and statistics of t(x) over the training split.

    They are kept inside the model, so that it takes raw features.
    """

    transform: str = "none"
    """The name of t among TRANSFORMS; a run's settings choose it."""

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

    def transformed(self, features: Tensor) -> Tensor:
        """Compute t(x): (…, D) to (…, D)."""
        return TRANSFORMS[self.transform](features)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) numbers of any type to (B, D), under autocast in its type."""
        scale = 1 / self.std
        shift = -self.mean * scale
        if features.device.type != "cpu" or features.requires_grad:
            return torch.addcmul(shift, self.transformed(features.to(scale.dtype)), scale)
        # A few rows at a time stay in the CPU's own cache from one step to the next; a batch does not.
        kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else scale.dtype
        out = torch.empty(features.shape, dtype=kind)
        for source, target in zip(features.split(CACHED_ROWS), out.split(CACHED_ROWS), strict=True):
            target.copy_(torch.addcmul(shift, self.transformed(source.to(scale.dtype)), scale))
        return out


@contextlib.contextmanager
def standardised(head: Any) -> Iterator[None]:
    """Inside the block a head, of class `Head`, takes features that are standardised already."""
    layer, head.standardise = head.standardise, nn.Identity()
    try:
        yield
    finally:
        head.standardise = layer


def own_seed(generator: torch.Generator | None = None) -> int:
    """A seed for what draws on its own, out of torch's generator or another."""
    return int(torch.empty((), dtype=torch.int64).random_(generator=generator))


class Dropout(nn.Dropout):
    """Dropout by integer arithmetic.

    On a CPU PyTorch's own took a third of a training step.

    15 random bits a number decide whether it is kept: the probability is that asked for to the nearest of 32,768, and
    what is kept is scaled by the exact one. They come from a generator seeded by PyTorch's, so its seed rules them too.
    """

    given: Tensor | None = None
    """The mask of the next step, where it comes from outside."""

    @property
    def kept(self) -> int:
        """How many of 32,768 numbers are kept."""
        return min(max(round((1 - self.p) * 2**15), 1), 2**15 - 1)

    @property
    def scale(self) -> float:
        """The factor of what is kept."""
        return 2**15 / self.kept

    def draw(self, shape: Sequence[int], device: torch.device, seed: int) -> Tensor:
        """Draw a mask: int16, with all bits set where a number is kept, else none."""
        if device.type != "cpu":
            generator = torch.Generator(device).manual_seed(seed)
            words = torch.randint(2**15, tuple(shape), generator=generator, device=device, dtype=torch.int16)
        else:
            count = math.prod(shape)
            raw = torch.from_numpy(np.random.SFC64(seed).random_raw(-(-count // 4)).view(np.int16))
            words = raw[:count].view(*shape).bitwise_and_(2**15 - 1)
        return self.masks(words)

    def masks(self, words: Tensor) -> Tensor:
        """Turn int16 words of 15 random bits into masks, in their place."""
        # Below 0 after the subtraction where a number is kept; its sign is what shifting leaves.
        return words.sub_(self.kept).bitwise_right_shift_(15)

    def forward(self, inputs: Tensor) -> Tensor:
        """Zero numbers with probability p and scale the others; in evaluation the identity."""
        if not self.training or self.p == 0 or inputs.dtype not in AS_INTEGER:
            return super().forward(inputs)
        mask, self.given = self.given, None
        if mask is None:
            mask = self.draw(inputs.shape, inputs.device, own_seed())
        out: Tensor = _Masked.apply(inputs, mask.to(AS_INTEGER[inputs.dtype]), self.scale)
        return out


class _Masked(torch.autograd.Function):
    """inputs · scale where the mask has all bits set, 0 where it has none."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, mask: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(mask)
        ctx.scale = scale
        return (inputs.view(mask.dtype) & mask).view(inputs.dtype).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (mask,) = ctx.saved_tensors
        (grad,) = grads
        return (grad.contiguous().view(mask.dtype) & mask).view(grad.dtype).mul_(ctx.scale), None, None


class Block(nn.Module):
    """The paper's activation layer (Cho et al. 2019, section 4.1).

    It is dropout(batchnorm(ReLU(W z + b)) + residual).

    The residual is the previous hidden state of the same flow, where its width agrees: A_G^{h−1} for A_G^h, A_L^{h−1}
    for A_L^h, none for the first.
    """

    def __init__(self, inputs: int, width: int, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, width)
        self.norm = nn.BatchNorm1d(width)
        self.dropout = Dropout(dropout)

    def forward(self, inputs: Tensor, residual: Tensor | None = None) -> Tensor:
        """Send (B, inputs) to (B, width); `residual`, (B, anything), is added if it is as wide."""
        hidden: Tensor = self.norm(torch.relu(self.linear(inputs)))
        if residual is not None and residual.shape == hidden.shape:
            hidden = hidden + residual
        out: Tensor = self.dropout(hidden)
        return out


class Flows(nn.Module):
    """The global flow, and the local flow that leaves it on every level.

    Cho et al. 2019, section 3.2.1.

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
        """Send (B, inputs) through both flows.

        Returns:
            The local logits, H tensors (B, C^h), and the last global state A_G^H, (B, width).
        """
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
