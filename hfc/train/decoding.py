"""How a head's probabilities become an answer: which leaf, and which node of each level.

Dimensions: B rows, H levels (coarse to fine), C^h nodes on level h, C leaves.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import reduce

import torch
from torch import Tensor

from hfc.train.heads.layers import Prediction
from hfc.train.losses import sums_by


def leaf(prediction: Prediction, ancestors: Tensor) -> Prediction:
    """Leave a prediction as it is.

    The leaf is the most probable of P_final, the node of a level the most probable of that level.
    """
    return prediction


def path(prediction: Prediction, ancestors: Tensor) -> Prediction:
    """Take the most probable leaf of P_final and the nodes above it.

    It is the same leaf as by `leaf`. A node is as probable as the best leaf below it.
    """
    return Prediction(_best_below(prediction.levels, prediction.final, ancestors), prediction.final)


def consistent(prediction: Prediction, ancestors: Tensor) -> Prediction:
    """Take the best path of the tree as a whole: leaves by the product of their paths, a node by its best leaf.

    The most probable node of a level is then always an ancestor of the most probable leaf.
    """
    paths = _paths(prediction, ancestors)
    return Prediction(_best_below(prediction.levels, paths, ancestors), paths)


def _best_below(levels: Sequence[Tensor], leaves: Tensor, ancestors: Tensor) -> tuple[Tensor, ...]:
    """Give every node the greatest number of its leaves: (B, C) to H tensors (B, C^h), shaped as `levels`."""
    starts = (leaves.new_zeros(level.shape) for level in levels[:-1])
    pairs = zip(starts, ancestors.unbind(dim=1), strict=False)
    above = (zeros.scatter_reduce(1, column.expand_as(leaves), leaves, "amax") for zeros, column in pairs)
    return (*above, leaves)


def least_cost(prediction: Prediction, ancestors: Tensor) -> Prediction:
    """Rank leaves by expected cost, the LCA height of a mistake.

    This is conditional risk minimisation (Karthik et al. 2021). The scores are 1 − cost/H, normalised over the leaves:
    they rank, but are no probabilities. A mistake costs a level wherever the paths differ, so the cost of a leaf is the
    sum over its path of the probability that lies elsewhere.
    """
    return Prediction(prediction.levels, _scores(prediction, ancestors))


def _scores(prediction: Prediction, ancestors: Tensor) -> Tensor:
    """Score the leaves by expected cost: (B, C), normalised over the leaves."""
    shares = torch.nn.functional.normalize(prediction.final, p=1.0, dim=1)
    sizes = [level.shape[1] for level in prediction.levels]
    on_path = (sums_by(shares, h, size)[:, h] for h, size in zip(ancestors.unbind(dim=1), sizes, strict=True))
    scores = 1 - shares.sum(dim=1, keepdim=True) + reduce(torch.add, on_path) / len(sizes)
    return torch.nn.functional.normalize(scores, p=1.0, dim=1)


def climbed(final: Tensor, ancestors: Tensor, confidence: float) -> tuple[Tensor, Tensor]:
    """Climb to an inner node where the leaf is not certain enough.

    The answer is the deepest node on the path to the most probable leaf whose share of P_final is at least the
    confidence; the root, which says nothing, where even that of the first level is below. A node's share is the sum
    over its leaves, so it only grows towards the root.

    Args:
        final: (B, C) P_final, here normalised over the leaves; probabilities, which the scores of `least_cost` are not.
        ancestors: (C, H) index of each leaf's ancestor on each level.
        confidence: 0 always gives the leaf.

    Returns:
        (B,) depth of the answer, 0 for the root to H for a leaf, and (B,) its index among the nodes of that level, 0
        for the root.
    """
    return next(climbs(final, ancestors, [confidence]))


def climbs(final: Tensor, ancestors: Tensor, confidences: Iterable[float]) -> Iterator[tuple[Tensor, Tensor]]:
    """Climb as `climbed` for each of several confidences; a path's shares are computed once."""
    path = ancestors[final.argmax(dim=1)]
    shares = torch.nn.functional.normalize(final, p=1.0, dim=1)
    path_shares = []
    for h, own in enumerate(path.unbind(dim=1)):
        nodes = shares.new_zeros(len(shares), int(ancestors[:, h].max()) + 1).index_add_(1, ancestors[:, h], shares)
        path_shares.append(nodes.gather(1, own[:, None]))
    # Sums are rounded: the maximum from the leaf upwards keeps a node from falling below one under it.
    along = torch.cat(path_shares, dim=1).flip(1).cummax(dim=1).values
    for confidence in confidences:
        depth = (along >= confidence).sum(dim=1)
        yield depth, torch.nn.functional.pad(path, (1, 0)).gather(1, depth[:, None])[:, 0]


def _paths(prediction: Prediction, ancestors: Tensor) -> Tensor:
    """Multiply the probabilities on each leaf's path, P_final for the leaf itself: (B, C), normalised over leaves."""
    levels = (*prediction.levels[:-1], prediction.final)
    logs = (level.clamp_min(1e-30).log()[:, ancestors[:, h]] for h, level in enumerate(levels))
    return torch.softmax(reduce(torch.add, logs), dim=1)


def _final(prediction: Prediction, ancestors: Tensor) -> Tensor:
    return prediction.final


DECODINGS: Mapping[str, Callable[[Prediction, Tensor], Prediction]] = {
    "leaf": leaf,
    "path": path,
    "consistent": consistent,
    "least-cost": least_cost,
}
LEAVES: Mapping[str, Callable[[Prediction, Tensor], Tensor]] = {
    "leaf": _final,
    "path": _final,
    "consistent": _paths,
    "least-cost": _scores,
}
"""What the decodings give as P_final. Where the leaves' ranks alone count, the levels need not be decoded."""
