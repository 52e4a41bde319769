"""Train a head and pick its epoch on validation.

Nothing here knows of run folders, and the test split is not touched.
"""

import time
from collections.abc import Callable

import torch

from hfc.config import TrainConfig
from hfc.device import reproducible
from hfc.errors import DivergedError
from hfc.runs import Epoch
from hfc.train.checkpoint import Checkpoint
from hfc.train.data import TrainingData
from hfc.train.features import Features
from hfc.train.lbfgs import PathTraining
from hfc.train.settings import head_class
from hfc.train.training import Fitted, Training

OnEpoch = Callable[[TrainConfig, Epoch], None]
"""Called after every epoch with the settled settings of its run."""


def quiet(config: TrainConfig, epoch: Epoch) -> None:
    """Do nothing after an epoch."""


def fit(
    features: Features,
    data: TrainingData,
    config: TrainConfig,
    on_epoch: OnEpoch = quiet,
    checkpoint: Checkpoint | None = None,
) -> Fitted:
    """Train on the training split, and pick the epoch on validation.

    Ties go to the first epoch. The test split is not touched.

    Args:
        features: of every row.
        data: what is to be predicted; where its validation split is empty, the last epoch is taken.
        config: the settled settings.
        on_epoch: called after every epoch, also after those that a checkpoint holds.
        checkpoint: where to keep how far it got; what is there of the same run is taken up, and ends in the same bits.

    Raises:
        DivergedError: the loss became infinite or NaN.
    """
    device = features.device
    with reproducible(device), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        training = _started(features, data, config, checkpoint)
        for epoch in training.epochs:
            on_epoch(config, epoch)
        saved = time.perf_counter()
        while len(training.epochs) < config.epochs:
            try:
                epoch = training.epoch()
            except DivergedError:
                if checkpoint:  # it would diverge again
                    checkpoint.discard()
                raise
            on_epoch(config, epoch)
            if checkpoint and time.perf_counter() - saved >= checkpoint.seconds:
                checkpoint.save(training.state())
                saved = time.perf_counter()
    return training.finish()


def _started(features: Features, data: TrainingData, config: TrainConfig, checkpoint: Checkpoint | None) -> Training:
    """Start a training where its checkpoint left it, or else anew."""
    torch.manual_seed(config.seed)
    kind = PathTraining if head_class(config).convex else Training
    training = kind.start(features, data, config)
    if checkpoint and (state := checkpoint.load(features.device)):
        try:
            training.restore(state)
        except Exception:  # whatever is wrong with it, the training begins anew: nothing half restored may stay
            torch.manual_seed(config.seed)
            return kind.start(features, data, config)
    return training
