"""The losses of a batch, a slice of its rows at a time.

With thousands of leaves the logits of a batch outgrow the processor's cache: each operation of a loss fetches them from
memory, and waits for the system to hand out as much again. In slices it finds both where the last one left them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hfc.train.heads import Head
from hfc.train.heads.layers import Sloped, Target

CELLS = 1 << 20  # numbers of logits in a slice: 4 MB in float32
LEAST = 2  # slices: fewer are not worth their calls


def row_losses(head: Head, logits: Any, target: Any) -> dict[str, Tensor]:
    """Compute what `head.losses` does; on a CPU a large batch goes by slices.

    A row's losses depend on that row alone, so slices change nothing but the last bit where a vector is not full. The
    slopes of a slice are computed at once. They wait in the type of the logits for the factor of their row: unless it
    is a power of two, the product is rounded a second time.

    Args:
        head: the head.
        logits: what it gave; its tensors are (B, anything).
        target: of the same rows.
    """
    tensors = tensors_of(logits)
    rows, cells = len(tensors[0]), sum(tensor.numel() for tensor in tensors)
    if tensors[0].device.type != "cpu" or cells < LEAST * CELLS or not torch.is_grad_enabled():
        return head.losses(logits, target)

    def losses(part: slice) -> Sloped:
        own = changed(logits, lambda tensor: tensor[part].detach())
        return _sloped(head, own, changed(target, lambda tensor: tensor[part]))

    size = max(CELLS * rows // cells, 1)
    slices = [slice(start, start + size) for start in range(0, rows, size)]
    return dict(zip(head.tasks, _Sliced.apply(losses, slices, *tensors), strict=True))


def task_means(
    rows: Mapping[str, Tensor], target: Target, class_weight: Tensor | None, row_weight: Tensor | None = None
) -> dict[str, Tensor]:
    """Average the loss of each task over the batch, classes and rows weighted.

    Args:
        rows: (B,) each.
        target: the labels.
        class_weight: (C,) of each leaf; a row whose label is an inner node has the mean, 1.
        row_weight: (B,) of each row.
    """
    if class_weight is not None:
        weight = torch.where(target.leaf < 0, 1.0, class_weight[target.leaf.clamp_min(0)])
        rows = {task: weight * loss for task, loss in rows.items()}
    if row_weight is not None:
        rows = {task: row_weight * loss for task, loss in rows.items()}
    return {task: loss.mean() for task, loss in rows.items()}


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


def _sloped(head: Head, logits: Any, target: Any) -> Sloped:
    """Compute losses and their slopes: by the head's own formula, or else by autograd."""
    by_hand: Callable[[Any, Any], Sloped | None] = getattr(head, "sloped", lambda logits, target: None)
    if own := by_hand(logits, target):
        return own
    tensors = [tensor.requires_grad_() for tensor in tensors_of(logits)]
    with torch.enable_grad():
        losses = list(head.losses(logits, target).values())
    # As a row's loss depends on that row alone, the slopes of the sum over rows are those of all of them.
    slopes = [
        torch.autograd.grad(
            loss, tensors, torch.ones_like(loss), retain_graph=loss is not losses[-1], allow_unused=True
        )
        for loss in losses
    ]
    return Sloped([loss.detach() for loss in losses], slopes)


class _Sliced(torch.autograd.Function):
    """Losses (B,) of tensors (B, anything)."""

    @staticmethod
    def forward(
        ctx: Any, losses: Callable[[slice], Sloped], slices: Sequence[slice], *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        parts = [losses(part) for part in slices]
        ctx.slices, ctx.slopes = slices, [part.slopes for part in parts]
        ctx.set_materialize_grads(False)
        return tuple(torch.cat(task) for task in zip(*(part.losses for part in parts), strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        by_task = list(zip(*ctx.slopes, strict=True))  # of each task the slices' slopes by all tensors
        return (
            None,
            None,
            *(
                _gradient(ctx.slices, [[slopes[t] for slopes in task] for task in by_task], grads)
                for t in range(len(ctx.slopes[0][0]))
            ),
        )


def _gradient(
    slices: Sequence[slice], slopes: Sequence[Sequence[Tensor | None]], grads: Sequence[Tensor | None]
) -> Tensor | None:
    """Compute the gradient by one tensor, (B, anything); None where it is 0.

    Args:
        slices: of the rows.
        slopes: of each task in each slice.
        grads: (B,) of each task.
    """
    whole: Tensor | None = None
    for task, grad in zip(slopes, grads, strict=True):
        own = [slope for slope in task if slope is not None]
        if grad is None or not own:
            continue
        alike = bool((grad == grad[0]).all())  # then one number is enough, and one step
        first = whole is None
        if whole is None:
            whole = own[0].new_empty(len(grad), *own[0].shape[1:])
        for part, slope in zip(slices, own, strict=True):
            factor = grad[0] if alike else grad[part, None]
            if first:
                torch.mul(slope, factor, out=whole[part])
            elif alike:
                whole[part].add_(slope, alpha=factor.item())
            else:
                whole[part].add_(slope * factor)
    return whole
