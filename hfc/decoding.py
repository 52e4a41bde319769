"""How a head's probabilities become an answer: which leaf, and which node of each level.

Dimensions: B rows, H levels (coarse to fine), C^h nodes on level h, C leaves.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from hfc.heads.layers import Prediction


def leaf(prediction: Prediction, ancestors: Tensor) -> Prediction:
    """As the head says: the most probable leaf of P_final, and of each level its own most probable node."""
    return prediction


def product(prediction: Prediction, ancestors: Tensor) -> Prediction:
    """Leaves by the product of their path's probabilities, normalised; levels as the head says.

    Args:
        prediction: of a head.
        ancestors: (C, H) index of each leaf's ancestor on each level.
    """
    return Prediction(prediction.levels, _paths(prediction, ancestors))


def consistent(prediction: Prediction, ancestors: Tensor) -> Prediction:
    """The best path of the tree as a whole: leaves as in `product`, a node by the best leaf below it.

    The most probable node of a level is then always an ancestor of the most probable leaf.
    """
    paths = _paths(prediction, ancestors)
    levels = []
    for h, own in enumerate(prediction.levels):
        index = ancestors[:, h].expand_as(paths)
        levels.append(torch.zeros_like(own).scatter_reduce(1, index, paths, "amax"))
    return Prediction(tuple(levels), paths)


def least_cost(prediction: Prediction, ancestors: Tensor) -> Prediction:
    """Leaves by expected cost, the LCA height of a mistake (conditional risk minimisation; Karthik et al. 2021).

    The scores are 1 − cost/H, normalised over the leaves: they rank, but are no probabilities.
    """
    distance = (ancestors[:, None, :] != ancestors[None, :, :]).sum(dim=2).to(prediction.final.dtype)
    shares = torch.nn.functional.normalize(prediction.final, p=1.0, dim=1)
    scores = 1 - shares @ distance / ancestors.shape[1]
    return Prediction(prediction.levels, torch.nn.functional.normalize(scores, p=1.0, dim=1))


def _paths(prediction: Prediction, ancestors: Tensor) -> Tensor:
    """(B, C) product of the probabilities on each leaf's path, P_final for the leaf itself, normalised over leaves."""
    levels = (*prediction.levels[:-1], prediction.final)
    logs = [level.clamp_min(1e-30).log()[:, ancestors[:, h]] for h, level in enumerate(levels)]
    return torch.softmax(torch.stack(logs).sum(dim=0), dim=1)


DECODINGS: Mapping[str, Callable[[Prediction, Tensor], Prediction]] = {
    "leaf": leaf,
    "product": product,
    "consistent": consistent,
    "least-cost": least_cost,
}
