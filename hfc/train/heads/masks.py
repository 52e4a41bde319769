"""The masks of a head's dropouts, on a GPU drawn all at once.

There a step of a small head takes as long as its launches, of which each draw has several.

Dimensions: S runs, B batch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hfc.train.heads.layers import Block, Dropout, own_seed


def at_once(device: torch.device) -> bool:
    """Whether one draw a step is quicker than one a dropout; it gives other numbers."""
    return device.type != "cpu"


def draw(
    dropouts: Sequence[tuple[Dropout, int]], batch: int, seeds: Sequence[int], device: torch.device
) -> list[Tensor]:
    """Draw every mask of a step: of each dropout (S, B, width), as `Dropout.draw` gives it.

    Args:
        dropouts: of one probability, each with its width.
        batch: B.
        seeds: of each run; its masks depend on no other run.
        device: where.
    """
    sizes = [batch * width for _, width in dropouts]
    words = torch.empty(len(seeds), sum(sizes), dtype=torch.int16, device=device)
    for own, seed in zip(words, seeds, strict=True):
        own.random_(0, 2**15, generator=torch.Generator(device).manual_seed(seed))
    masks = dropouts[0][0].masks(words).split(sizes, dim=1)
    return [mask.unflatten(1, (batch, width)) for mask, (_, width) in zip(masks, dropouts, strict=True)]


def dropouts_of(head: nn.Module) -> list[tuple[Dropout, int]]:
    """List a head's dropouts that drop anything, each with its width."""
    blocks = [module for module in head.modules() if isinstance(module, Block)]
    return [(block.dropout, block.linear.out_features) for block in blocks if block.dropout.p]


def hand_out(dropouts: Sequence[tuple[Dropout, int]], batch: int, device: torch.device) -> None:
    """Give each dropout its mask of the next step, where they are drawn at once; else it draws its own."""
    if dropouts and at_once(device):
        for (dropout, _), mask in zip(dropouts, draw(dropouts, batch, [own_seed()], device), strict=True):
            dropout.given = mask[0]
