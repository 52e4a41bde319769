"""Accuracy against the number of training images: the same runs on nested shares of them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

import numpy as np

from hfc.config import TrainConfig
from hfc.errors import ConfigError
from hfc.train.cache import Reading, cache_source, open_cache
from hfc.train.data import prepare

FEWEST, MOST = 3, 7  # shares
LEAST = 2.0  # training images a class, of the smallest share


def points(
    path: Path,
    configs: Sequence[TrainConfig],
    shares: Sequence[float] = (),
    jobs: int = 1,
    **reading: Unpack[Reading],
) -> list[TrainConfig]:
    """List the runs of learning curves, those on the fewest images first.

    Args:
        path: a feature cache.
        configs: a run for each method and seed, on all training images.
        shares: of the training images; none: all, half of them and so on, down to two a class.
        jobs, reading: as `train_all` is given them, so that it takes the cache that was opened here.

    Raises:
        ConfigError: fewer than two shares, or settings that name a share themselves.
        HfcError: cache, hierarchy and settings do not fit each other.
    """
    if any(config.train_share < 1 for config in configs):
        raise ConfigError("train_share: is what hfc curve varies; leave it out, or give --shares")
    if not shares:
        config = configs[0]
        cache = open_cache(cache_source(path, config.device, jobs != 1, **reading))
        data = prepare(cache, config.hierarchy, config.inner_labels, config.promise_share)
        shares = halvings(len(data.rows["train"]), len(np.unique(data.leaf("train"))))
    if len(set(shares)) < 2:
        raise ConfigError("--shares: a curve needs two shares at least, such as 0.25,0.5,1")
    return [replace(config, train_share=share) for share in sorted(set(shares)) for config in configs]


def halvings(rows: int, classes: int) -> list[float]:
    """Halve the training rows as long as each class has LEAST of them on average."""
    shares = [0.5**k for k in range(MOST)]
    return [share for k, share in enumerate(shares) if k < FEWEST or share * rows >= LEAST * classes]
