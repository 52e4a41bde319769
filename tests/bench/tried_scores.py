"""What `tests.bench.tried` does without training, or to probabilities that are there.

Dimensions: N rows, M training rows, D features, C leaves, G groups of leaves.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from hfc.hierarchy import Hierarchy, from_paths
from hfc.metrics import LEAST


def shares(logs: Tensor) -> Tensor:
    """Normalise (N, C) logarithms of probabilities."""
    return logs.double().softmax(dim=1)


def logs(probabilities: Tensor) -> Tensor:
    """(N, C) logarithms in float64."""
    return probabilities.double().clamp_min(LEAST).log()


def adjusted(final: Tensor, log_prior: Tensor, tau: float) -> Tensor:
    """Logit adjustment afterwards: P · π^−τ, normalised (Menon et al. 2021, equation 9)."""
    return shares(logs(final) - tau * log_prior)


def parents_of(tree: Hierarchy) -> tuple[Hierarchy, Tensor]:
    """The leaves' parents as a tree of one level, and (C,) each leaf's; a leaf below the root is a class of its own."""
    paths = [path[:-1] or path for path in map(tree.path, range(len(tree.leaves)))]
    names = list(dict.fromkeys(paths))
    coarse = from_paths("parents", ["parent"], [(" > ".join(path),) for path in names])
    return coarse, torch.tensor([names.index(path) for path in paths])


def hie(fine: Tensor, coarse: Tensor, parent: Tensor, exponent: float) -> Tensor:
    """Hierarchical ensembles: P(leaf) · P_coarse(its parent)^exponent, normalised (Jain et al. 2023; exponent 1).

    Args:
        fine: (N, C).
        coarse: (N, G), of a classifier trained apart.
        parent: (C,) of each leaf.
        exponent: of the coarse classifier.
    """
    return shares(logs(fine) + exponent * logs(coarse)[:, parent])


def neighbours(rows: Tensor, train: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The cosines of the nearest training rows, and which they are: (N, D) and (M, D) to (N, most) each."""
    cosines = F.normalize(rows, dim=1) @ F.normalize(train, dim=1).T
    nearest = cosines.topk(min(most, len(train)), dim=1)
    return nearest.values, nearest.indices


def votes(cosines: Tensor, leaf: Tensor, leaves: int, k: int, temperature: float) -> Tensor:
    """Soft votes of k nearest neighbours: Σ exp(cosine/T) by leaf, normalised (Caron et al. 2021, DINO's evaluation).

    Args:
        cosines: (N, K) of neighbours, nearest first.
        leaf: (N, K) of each.
        leaves: C.
        k: how many vote.
        temperature: T.
    """
    weight = (cosines[:, :k].double() / temperature).softmax(dim=1)
    return weight.new_zeros(len(weight), leaves).scatter_add(1, leaf[:, :k], weight)
