"""The losses of a batch, a slice of its rows at a time.

With thousands of leaves the logits of a batch outgrow the processor's cache: each operation of a loss fetches them from
memory, and waits for the system to hand out as much again. In slices it finds both where the last one left them.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hfc.train.heads import Head

CELLS = 1 << 20  # numbers of logits in a slice: 4 MB in float32
LEAST = 4  # slices: for fewer, computing losses twice takes longer than memory does

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
    """Losses (B,) of tensors (B, anything)."""

    @staticmethod
    def forward(ctx: Any, losses: Losses, slices: Sequence[slice], *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.losses, ctx.slices = losses, slices
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        parts = [losses([tensor[part] for tensor in tensors], part).values() for part in slices]
        return tuple(torch.cat(task) for task in zip(*parts, strict=True))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        whole = [torch.empty_like(tensor) for tensor in ctx.saved_tensors]
        for part in ctx.slices:
            own = [tensor[part].detach().requires_grad_() for tensor in ctx.saved_tensors]
            with torch.enable_grad():
                losses = ctx.losses(own, part).values()
            asked = [(loss, grad[part]) for loss, grad in zip(losses, grads, strict=True) if grad is not None]
            outputs, factors = zip(*asked, strict=True)
            slopes = torch.autograd.grad(outputs, own, factors, allow_unused=True, materialize_grads=True)
            for target, slope in zip(whole, slopes, strict=True):
                target[part] = slope
        return None, None, *whole
