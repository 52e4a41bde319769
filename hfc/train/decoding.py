"""How a head's probabilities become an answer: which leaf, and which node of each level.

Dimensions: B rows, H levels (coarse to fine), C^h nodes on level h, C leaves that may be answered.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import reduce
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hfc import metrics
from hfc.hierarchy import Hierarchy
from hfc.train.heads.layers import Prediction
from hfc.train.losses import sums_by

LEAST = {torch.float32: 1e-30, torch.float64: 1e-300}
"""What a factor of a product is at least, as 0 has no logarithm."""
DERIVED = ("path", "consistent")
"""The decodings that read the levels off the leaves."""


class Paths(NamedTuple):
    """The paths to the leaves that may be answered: all of a tree, or those below one node."""

    ancestors: Tensor
    """(C, H) index of each leaf's node on each level, −1 below the leaf."""
    falls: Tensor
    """(C, H) how much lower each node of a path is than its parent; see `Hierarchy.falls`."""
    even: bool
    """Whether the leaves are the nodes of the last level, in their order."""

    def on_level(self, h: int, values: Tensor) -> tuple[Tensor, Tensor]:
        """Bring (B, C) numbers of leaves to a level, counted from 0.

        Returns:
            (C,) the node of each leaf; and the numbers, 0 where a leaf ends above the level, at node 0.
        """
        column = self.ancestors[:, h]
        return (column, values) if self.even else (column.clamp_min(0), values.masked_fill(column < 0, 0))


def leaf_paths(tree: Hierarchy, leaves: NDArray[np.int64] | None = None) -> Paths:
    """Read the paths to some leaves off a tree; None: to all."""
    if leaves is None:
        return Paths(torch.from_numpy(tree.ancestors), torch.from_numpy(tree.falls), tree.even)
    return Paths(torch.from_numpy(tree.ancestors[leaves]), torch.from_numpy(tree.falls[leaves]), even=False)


def leaf(prediction: Prediction, paths: Paths) -> Prediction:
    """Leave a prediction as it is.

    The leaf is the most probable of P_final, the node of a level the most probable of that level.
    """
    return prediction


def path(prediction: Prediction, paths: Paths) -> Prediction:
    """Take the most probable leaf of P_final and the nodes above it.

    It is the same leaf as by `leaf`. A node is as probable as the best leaf below it.
    """
    return Prediction(_best_below(prediction.levels, prediction.final, paths), prediction.final)


def consistent(prediction: Prediction, paths: Paths) -> Prediction:
    """Take the best path of the tree as a whole: leaves by the product of their paths, a node by its best leaf.

    The most probable node of a level is then always an ancestor of the most probable leaf, where that reaches it.
    """
    products = _products(prediction, paths)
    return Prediction(_best_below(prediction.levels, products, paths), products)


def _best_below(levels: Sequence[Tensor], leaves: Tensor, paths: Paths) -> tuple[Tensor, ...]:
    """Give every node the greatest number of its leaves: (B, C) to H tensors (B, C^h), shaped as `levels`."""
    above = levels[:-1] if paths.even else levels
    best = []
    for h, level in enumerate(above):
        column, values = paths.on_level(h, leaves)
        best.append(leaves.new_zeros(level.shape).scatter_reduce(1, column.expand_as(values), values, "amax"))
    return (*best, leaves) if paths.even else tuple(best)


def least_cost(prediction: Prediction, paths: Paths) -> Prediction:
    """Answer with the leaf of the least expected cost; the others keep their order.

    A mistake costs its LCA height. This is conditional risk minimisation (Karthik et al. 2021), for the answer alone.
    The scores are half the leaf's share of P_final, and another half for the answer: they rank, but are no
    probabilities.
    """
    return Prediction(prediction.levels, _scores(prediction, paths))


def _scores(prediction: Prediction, paths: Paths) -> Tensor:
    """Put the leaf of the least expected cost first: (B, C) scores, normalised over the leaves."""
    shares = torch.nn.functional.normalize(prediction.final, p=1.0, dim=1)
    answer = torch.nn.functional.one_hot(_savings(prediction, shares, paths).argmax(dim=1), shares.shape[1])
    return torch.nn.functional.normalize(shares + answer, p=1.0, dim=1)


def _savings(prediction: Prediction, shares: Tensor, paths: Paths) -> Tensor:
    """Compute how much less than the height of the root, H, a leaf should cost: (B, C).

    A mistake costs what the heights fall along the path where it differs. So a leaf saves, for each node of its path,
    the node's fall times the probability that lies below it.
    """
    return reduce(torch.add, (_above(shares, level.shape[1], h, paths) for h, level in enumerate(prediction.levels)))


def _above(shares: Tensor, size: int, h: int, paths: Paths) -> Tensor:
    """Give every leaf the fall to its node on a level times the node's share: (B, C) to (B, C)."""
    column, values = paths.on_level(h, shares)
    return sums_by(values, column, size)[:, column] * paths.falls[:, h]


def climbed(final: Tensor, paths: Paths, confidence: float) -> Tensor:
    """Climb to an inner node where the leaf is not certain enough.

    The answer is the deepest node on the path to the most probable leaf whose share of P_final is at least the
    confidence; the root, which says nothing, where even that of the first level is below. A node's share is the sum
    over its leaves, so it only grows towards the root.

    Args:
        final: (B, C) P_final, here normalised over the leaves; probabilities, which the scores of `least_cost` are not.
        paths: to the leaves.
        confidence: 0 always gives the leaf.

    Returns:
        (B,) depth of the answer: 0 for the root to that of the leaf.
    """
    return next(climbs(final, paths, [confidence]))


def climbs(final: Tensor, paths: Paths, confidences: Iterable[float]) -> Iterator[Tensor]:
    """Climb as `climbed` for each of several confidences; a path's shares are computed once."""
    along = path_shares(final, paths)
    for confidence in confidences:
        yield (along >= confidence).sum(dim=1)


def path_shares(final: Tensor, paths: Paths) -> Tensor:
    """Sum up the shares of the nodes on the path to the most probable leaf: (B, C) to (B, H), −∞ below the leaf."""
    path = paths.ancestors[final.argmax(dim=1)]
    shares = torch.nn.functional.normalize(final, p=1.0, dim=1)
    levels = []
    for h, own in enumerate(path.unbind(dim=1)):
        column, values = paths.on_level(h, shares)
        nodes = shares.new_zeros(len(shares), int(column.max()) + 1).index_add_(1, column, values)
        levels.append(nodes.gather(1, own.clamp_min(0)[:, None]).masked_fill(own[:, None] < 0, -torch.inf))
    # Sums are rounded: the maximum from the leaf upwards keeps a node from falling below one under it.
    return torch.cat(levels, dim=1).flip(1).cummax(dim=1).values.flip(1)


def tempered(final: Tensor, temperature: float) -> Tensor:
    """Calibrate P_final by a temperature T: P^(1/T), normalised over the leaves (Guo et al. 2017, section 4.2).

    Args:
        final: (B, C) P_final, or what is proportional to it.
        temperature: T. Above 1 it makes probabilities more alike, below 1 less; the order of a row stays.

    Returns:
        (B, C) in float64.
    """
    return torch.softmax(final.double().clamp_min(metrics.LEAST).log() / temperature, dim=1)


def shares_of(final: Tensor, temperature: float) -> Tensor:
    """Calibrate leaves, (n, C), in float64, so that their shares sum to 1."""
    final = final.double()
    return torch.nn.functional.normalize(tempered(final, temperature) if temperature != 1 else final, p=1.0, dim=1)


def with_leaves(decoded: Prediction, final: Tensor, paths: Paths, decode: str, sums: bool) -> Prediction:
    """Put calibrated leaves into a decoded prediction; levels that come from its leaves follow.

    Args:
        decoded: the prediction.
        final: (B, C) the calibrated leaves.
        paths: to all leaves.
        decode: how it was decoded.
        sums: whether the head's levels are sums of its leaves.
    """
    levels = decoded.levels
    if decode in DERIVED:
        levels = _best_below(levels, final, paths)
    elif sums:
        columns = (paths.on_level(h, final) for h in range(len(levels)))
        levels = tuple(sums_by(values, column, p.shape[1]) for (column, values), p in zip(columns, levels, strict=True))
    return Prediction((*levels[:-1], final) if levels[-1] is decoded.final or (sums and paths.even) else levels, final)


def _products(prediction: Prediction, paths: Paths) -> Tensor:
    """Multiply the probabilities on each leaf's path: (B, C), normalised over the leaves.

    P_final stands for the leaf itself, and once more for each level below it: all products have H factors.
    """
    own = prediction.final.clamp_min(LEAST[prediction.final.dtype]).log()
    if not paths.even:
        own = own * (1 + (paths.ancestors[:, 1:] < 0).sum(dim=1))
    return torch.softmax(reduce(torch.add, chain(_inner(prediction, paths), [own])), dim=1)


def _inner(prediction: Prediction, paths: Paths) -> Iterator[Tensor]:
    """Give the logarithms of the nodes above the leaves, (B, C) a level; 0 at and below a leaf."""
    for h, level in enumerate(prediction.levels[:-1]):
        logs = level.clamp_min(1e-30).log()[:, paths.ancestors[:, h].clamp_min(0)]
        yield logs if paths.even else logs.masked_fill(paths.ancestors[:, h + 1] < 0, 0)


def _final(prediction: Prediction, paths: Paths) -> Tensor:
    return prediction.final


DECODINGS: Mapping[str, Callable[[Prediction, Paths], Prediction]] = {
    "leaf": leaf,
    "path": path,
    "consistent": consistent,
    "least-cost": least_cost,
}
LEAVES: Mapping[str, Callable[[Prediction, Paths], Tensor]] = {
    "leaf": _final,
    "path": _final,
    "consistent": _products,
    "least-cost": _scores,
}
"""What the decodings give as P_final. Where the leaves' ranks alone count, the levels need not be decoded."""
