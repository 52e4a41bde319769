"""The losses of a batch, a slice of its rows at a time.

With thousands of leaves the logits of a batch outgrow the processor's cache: each operation of a loss fetches them from
memory, and waits for the system to hand out as much again. In slices it finds both where the last one left them.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hfc.train.heads import Head

CELLS = 1 << 20  # numbers of logits in a slice: 4 MB in float32
LEAST = 2  # slices

Losses = Callable[[Sequence[Tensor], slice], dict[str, Tensor]]


def row_losses(head: Head, logits: Any, target: Any) -> dict[str, Tensor]:
    """Compute what `head.losses` does; on a CPU a large batch goes by slices.

    A row's losses depend on that row alone, so slices change nothing but the last bit where a vector is not full. They
    are computed again on the way back.

    Args:
        head: the head.
        logits: what it gave; its tensors are (B, anything).
        target: of the same rows.
    """
    tensors = tensors_of(logits)
    rows, cells = len(tensors[0]), sum(tensor.numel() for tensor in tensors)
    if tensors[0].device.type != "cpu" or cells < LEAST * CELLS:
        return head.losses(logits, target)

    def losses(parts: Sequence[Tensor], part: slice) -> dict[str, Tensor]:
        following = iter(parts)
        return head.losses(changed(logits, lambda _: next(following)), changed(target, lambda tensor: tensor[part]))

    size = max(CELLS * rows // cells, 1)
    slices = [slice(start, start + size) for start in range(0, rows, size)]
    return dict(zip(head.tasks, _Sliced.apply(losses, slices, *tensors), strict=True))


def tensors_of(value: Any) -> list[Tensor]:
    """List every tensor in a tuple, a named tuple or a dataclass."""
    tensors: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        tensors.append(tensor)
        return tensor

    changed(value, note)
    return tensors


def changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Change every tensor in a tuple, a named tuple or a dataclass."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple):
        parts = [changed(part, change) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: changed(getattr(value, field.name), change) for field in fields(value)})
    return value


class _Sliced(torch.autograd.Function):
    """Losses (B,) of tensors (B, anything), and at once their slopes while a slice is in the cache."""

    @staticmethod
    def forward(ctx: Any, losses: Losses, slices: Sequence[slice], *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.slices, ctx.slopes = slices, []
        ctx.shapes = [(tensor.shape, tensor.dtype) for tensor in tensors]
        ctx.set_materialize_grads(False)
        parts = []
        for part in slices:
            own = [tensor[part].detach().requires_grad_() for tensor in tensors]
            with torch.enable_grad():
                tasks = list(losses(own, part).values())
            ctx.slopes.append(_slopes(tasks, own))
            parts.append([task.detach() for task in tasks])
        return tuple(torch.cat(task) for task in zip(*parts, strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        factors = [None if grad is None else _factor(grad) for grad in grads]
        whole: list[Tensor | None] = []
        for t, (shape, dtype) in enumerate(ctx.shapes):
            target = torch.empty(shape, dtype=dtype)
            for part, slopes in zip(ctx.slices, ctx.slopes, strict=True):
                pairs = [(slope[t], factor) for slope, factor in zip(slopes, factors, strict=True)]
                asked = [slope * (factor[part] if factor.ndim else factor) for slope, factor in pairs if slope is not None and factor is not None]
                target[part] = sum(asked[1:], asked[0]) if asked else 0
            whole.append(target)
        return None, None, *whole


def _slopes(tasks: Sequence[Tensor], tensors: Sequence[Tensor]) -> list[tuple[Tensor | None, ...]]:
    """Of each task by each tensor; None where it is 0. A row's loss depends on that row alone, so rows may be summed."""
    return [
        torch.autograd.grad(task, tensors, torch.ones_like(task), retain_graph=task is not tasks[-1], allow_unused=True)
        for task in tasks
    ]


def _factor(grad: Tensor) -> Tensor:
    """(B, 1), or one number where it is the same for all rows."""
    return grad[0] if (grad == grad[0]).all() else grad[:, None]
