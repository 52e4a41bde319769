"""What a trained head answers to the rows that prove a promise; see `hfc.store.promise`.

Dimensions: n rows, C leaves, H levels.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hfc.config import TrainConfig
from hfc.hierarchy import Hierarchy
from hfc.store.promise import CONFIDENCE, Promise, count, thresholds_of
from hfc.train.calibration import blocks, leaf_probabilities
from hfc.train.data import TrainingData
from hfc.train.decoding import leaf_paths, path_shares, shares_of
from hfc.train.evaluation import predict
from hfc.train.features import Features
from hfc.train.heads import Head
from hfc.train.training import Fitted


class Climbs(NamedTuple):
    """How sure a head is of some rows, and how far it is right."""

    along: NDArray[np.float64]
    """(n, H) shares of the nodes on the path to the best leaf; −∞ below it."""
    reach: NDArray[np.int64]
    """(n,) how many nodes of that path are the label's or above it; what is below an inner label, no one knows."""


def read_climbs(final: Tensor, path: NDArray[np.int64], tree: Hierarchy, temperature: float) -> Climbs:
    """Read off what answers tell: the shares of the nodes on the path to the best leaf.

    Args:
        final: (n, C) the leaves' probabilities, not calibrated.
        path: (n, H) true paths, −1 below the label.
        tree: the tree.
        temperature: T.
    """
    along = np.empty(path.shape)
    right = np.empty(path.shape, dtype=np.bool_)
    paths = leaf_paths(tree)
    for rows in blocks(final):
        shares = shares_of(final[rows], temperature)
        along[rows] = path_shares(shares, paths).numpy()
        truth = path[rows]
        right[rows] = (tree.ancestors[shares.argmax(dim=1).numpy()] == truth) & (truth >= 0)
    return Climbs(along, right.sum(axis=1))


def prove(
    fitted: Fitted, features: Features, data: TrainingData, config: TrainConfig, temperature: float
) -> Promise | None:
    """Count what the rows that prove a promise are answered, at thresholds that validation chooses.

    Args:
        fitted: a trained head; that which gave the temperature reads validation.
        features: of every row, with the views in use.
        data: the rows.
        config: the settings.
        temperature: T.

    Returns:
        None where no rows were set aside.
    """
    if not len(data.rows.get("promise", ())):
        return None
    chosen = _read(fitted.validated, features, data, "val", config, temperature)
    thresholds = thresholds_of(chosen.along)
    proof, test = (_read(fitted.head, features, data, split, config, temperature) for split in ("promise", "test"))
    own, proven, tested = (count(*climbs, thresholds) for climbs in (chosen, proof, test))
    return Promise(confidence=CONFIDENCE, thresholds=thresholds, chosen=own, proof=proven, test=tested)


def _read(
    head: Head, features: Features, data: TrainingData, split: str, config: TrainConfig, temperature: float
) -> Climbs:
    raw = predict(head, features, data.rows[split], config.beta)
    return read_climbs(leaf_probabilities(raw, data.hierarchy, config), data.path(split), data.hierarchy, temperature)
