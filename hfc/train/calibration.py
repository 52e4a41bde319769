"""Temperature: one number, fitted on validation, so that probabilities mean what they say.

Dimensions: n rows, C leaves.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hfc import metrics
from hfc.config import TrainConfig
from hfc.hierarchy import Hierarchy
from hfc.store.records import Calibration
from hfc.train.data import TrainingData
from hfc.train.decoding import DERIVED, LEAVES, leaf_paths, tempered, with_leaves
from hfc.train.evaluation import joined, predict
from hfc.train.features import Features
from hfc.train.heads import Head
from hfc.train.heads.layers import Prediction

BOUNDS = (0.05, 20.0)
CELLS = 1 << 20  # of probabilities in a block of rows
ENOUGH = 1.92  # of log-likelihood that T must gain: half of χ²₁'s 95% quantile, as the likelihood-ratio test asks
AS_INTEGER = {torch.float32: torch.int32, torch.float64: torch.int64}

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def fit_temperature(final: Tensor, leaf: Ints, weight: Tensor | None = None) -> float:
    """Find the temperature of the least negative log-likelihood (Guo et al. 2017, section 4.2).

    ln T has a normal prior of deviation 1 that weighs as much as one row: rows without a mistake would ask for T = 0.
    Where T = 1 is not refuted at 5%, it stays: what chance alone would ask for makes other rows worse as often as not.

    Args:
        final: (n, C) P_final, or what is proportional to it.
        leaf: (n,) true leaves, −1 where the label is an inner node; which leaf is right there, no one knows.
        weight: (n,) of each row; None: all count alike.

    Returns:
        T within BOUNDS; 1 without a row that has a leaf.
    """
    known = leaf >= 0
    if not known.any():
        return 1.0
    if not known.all():  # else no copy is made
        final, leaf = final[torch.from_numpy(known)], leaf[known]
    shares = np.ones(len(leaf)) if weight is None else weight.double().numpy()[known]
    shares = shares / shares.mean()

    def cost(log_temperature: float) -> float:
        rows = _negative_log_likelihood(final, leaf, math.exp(log_temperature))
        return float(shares @ rows) + log_temperature**2 / 2

    from scipy.optimize import minimize_scalar  # on use: a head that is saved has its temperature

    low, high = map(math.log, BOUNDS)
    best = minimize_scalar(cost, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    return math.exp(best.x) if cost(0.0) - best.fun > ENOUGH else 1.0


def temperature_on(head: Head, features: Features, data: TrainingData, split: str, config: TrainConfig) -> float:
    """Fit the temperature of a head on the rows of a split, with their weights; 1 where there are none."""
    rows = data.rows[split]
    if not len(rows):
        return 1.0
    raw = predict(head, features, rows, config.beta)
    weight = None if data.weight is None else data.weight[rows]
    return fit_temperature(leaf_probabilities(raw, data.hierarchy, config), data.leaf(split), weight)


def _negative_log_likelihood(final: Tensor, leaf: Ints, temperature: float) -> Floats:
    """Compute −ln of the true leaf's calibrated share of each row, (n,)."""
    losses = np.empty(len(leaf))
    for rows in blocks(final):
        logs = final[rows].double().clamp_min(metrics.LEAST).log() / temperature
        own = logs.gather(1, torch.from_numpy(leaf[rows])[:, None])[:, 0]
        losses[rows] = (logs.logsumexp(dim=1) - own).numpy()
    return losses


def blocks(final: Tensor) -> Iterator[slice]:
    """Cut the rows into blocks of some CELLS cells; float64 of all rows would take much memory."""
    step = max(CELLS // final.shape[1], 1)
    yield from (slice(start, start + step) for start in range(0, len(final), step))


def leaf_probabilities(raw: Prediction, hierarchy: Hierarchy, config: TrainConfig) -> Tensor:
    """Read the probabilities of leaves, (n, C), off a prediction that is not decoded.

    They are those that answers tell. The scores of least-cost are none: there it is the head's P_final.
    """
    return raw.final if config.decode == "least-cost" else LEAVES[config.decode](raw, leaf_paths(hierarchy))


def calibrated(
    decoded: Prediction, hierarchy: Hierarchy, config: TrainConfig, sums: bool, temperature: float
) -> Prediction:
    """Calibrate a decoded prediction, on the CPU. Scores of least-cost stay as they are.

    Levels that come from the leaves follow: sums of leaves stay sums. What a level says by itself stays as it is.

    Args:
        decoded: the prediction.
        hierarchy: the tree.
        config: the settings.
        sums: whether the head's levels are sums of its leaves.
        temperature: T; at 1 nothing changes.
    """
    if temperature == 1 or config.decode == "least-cost":
        return decoded
    paths = leaf_paths(hierarchy)

    def followed(part: Prediction) -> Prediction:
        return with_leaves(part, ranked_alike(part.final, temperature), paths, config.decode, sums)

    if not sums or config.decode in DERIVED:
        return followed(decoded)
    # A sum by groups takes an index of 8 bytes for every number.
    parts = (
        Prediction(tuple(level[rows] for level in decoded.levels), decoded.final[rows])
        for rows in blocks(decoded.final)
    )
    return joined(map(followed, parts), len(decoded.final))


def ranked_alike(final: Tensor, temperature: float) -> Tensor:
    """Calibrate P_final, (n, C), on the CPU, and keep the order within a row.

    Where rounding makes two numbers one, the greater becomes the next number above.
    """
    whole = torch.empty_like(final)
    integer = AS_INTEGER[final.dtype]  # such numbers, if not negative, are ordered as their bits are
    for rows in blocks(final):
        order = torch.from_numpy(final[rows].numpy().argsort(axis=1))
        before = final[rows].gather(1, order)
        after = tempered(final[rows], temperature).to(final.dtype).gather(1, order)
        steps = torch.zeros(after.shape, dtype=integer)
        steps[:, 1:] = (before[:, 1:] > before[:, :-1]).cumsum(dim=1)
        bits = (after.view(integer) - steps).cummax(dim=1).values + steps
        whole[rows] = torch.empty_like(after).scatter_(1, order, bits.view(final.dtype))
    return whole


def at_temperature(final: Tensor, temperature: float) -> Tensor:
    """Calibrate P_final, (n, C), as answers tell it; at T = 1 it stays as it is."""
    return final if temperature == 1 else ranked_alike(final, temperature)


def measure(final: Tensor, answers: Tensor, leaf: Ints) -> Calibration | None:
    """Measure (n, C) probabilities and what calibration made of them against (n,) leaves; None without leaves."""
    known = leaf >= 0
    if not known.any():
        return None
    rows = slice(None) if known.all() else known  # of all no copy is made
    before, after = (metrics.calibration(shares.numpy()[rows], leaf[rows]) for shares in (final, answers))
    return Calibration(ece_before=before["ece"], nll_before=before["nll"], ece=after["ece"], nll=after["nll"])
