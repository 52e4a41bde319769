"""Settings that are left to the machine and the data, decided for a run."""

import math
from dataclasses import replace

import torch

from hfc import metrics
from hfc.config import AUTO, TrainConfig, resolve
from hfc.device import choose_precision
from hfc.errors import ConfigError
from hfc.train.data import TrainingData
from hfc.train.settings import head_class, refuse_unused

DECIDED = ("batch_size", "epochs", "learning_rate", "transform")  # where they are AUTO, or "auto"
LEAST = 40  # epochs of a training whose length is left to the data
NEGATIVE = 0.1  # of the sum of all sizes, what rectified features have in negative numbers at most


def settle(config: TrainConfig, data: TrainingData, device: torch.device) -> TrainConfig:
    """Decide the settings that are left to the machine and the data: a batch size first, then epochs, then a rate.

    Args:
        config: the settings as they were given.
        data: what is trained on.
        device: where.

    Raises:
        ConfigError: settings that do not fit each other or the hierarchy.
    """
    leaves = len(data.hierarchy.leaves)
    if config.topk == TrainConfig.topk:  # nobody asked for more leaves than there are
        config = replace(config, topk=tuple(k for k in config.topk if k <= leaves))
    metrics.check_topk(config.topk, leaves)
    known = [f"top{k}" for k in config.topk] + ["top1_macro", "hF", "full_path_accuracy", "nll"]
    if config.select not in known:
        raise ConfigError(f"select: expected one of {', '.join(known)}, found {config.select!r}")
    refuse_unused(config)
    if config.transform == "auto":
        config = replace(config, transform=fitting_transform(data))
    if config.promise_share and config.decode == "least-cost":
        raise ConfigError(
            "promise_share with decode=least-cost: its scores are no probabilities, of which a threshold could promise "
            "anything; leave promise_share out, or use another decode"
        )
    rows = len(data.rows["train"])
    if config.batch_size == 1:
        raise ConfigError("batch_size: batch normalisation needs two rows at least, found 1")
    if head_class(config).convex:
        if config.precision == "bf16":
            raise ConfigError(f"precision=bf16: head {config.head} is trained in float32; leave precision out")
        points = config.epochs or resolve(TrainConfig, {"method": "linear"}).epochs
        return replace(config, precision="fp32", epochs=points)
    config = replace(config, batch_size=config.batch_size or fitting_batch_size(rows))
    config = replace(config, epochs=config.epochs or _fitting_epochs(config, data))
    return replace(
        config,
        learning_rate=config.learning_rate or fitting_learning_rate(steps_in_all(config, data), config.batch_size),
        precision=choose_precision(config.precision, device, ("bf16",)),
    )


def left_to_data(config: TrainConfig) -> list[str]:
    """List the settings that the data will decide."""
    return [name for name in DECIDED if getattr(config, name) in (AUTO, "auto")]


def fitting_transform(data: TrainingData) -> str:
    """Choose the square root where the training rows' features are rectified: hardly any of them negative."""
    negative, whole = data.signs[data.rows["train"].cpu()].double().sum(dim=0).tolist()
    return "sqrt" if negative <= NEGATIVE * whole else "none"


def steps_in_all(config: TrainConfig, data: TrainingData) -> int:
    """Count the steps of a training whose batch size is settled."""
    return math.ceil(len(data.rows["train"]) / config.batch_size) * config.epochs


def fitting_batch_size(rows: int) -> int:
    """Choose the power of two, within 64 and 1024, for some 24 steps an epoch."""
    return int(2 ** min(max(round(math.log2(max(rows, 1) / 24)), 6), 10))


def fitting_epochs(rows: int) -> int:
    """Choose the passes over the rows: 0.75 √rows, fewer where an epoch has more than 24 steps of 1024, 40 at least.

    So a training has some 18 √rows steps. Neither do smaller batches ask for fewer passes, nor larger ones for more.
    """
    return max(LEAST, math.ceil(18 * math.sqrt(rows) / max(24, rows / 1024)))


def _fitting_epochs(config: TrainConfig, data: TrainingData) -> int:
    """Choose the passes of a head: as many times more as its hidden layers are more than under two levels."""
    epochs, levels = fitting_epochs(len(data.rows["train"])), len(data.hierarchy.levels)
    return math.ceil(epochs * max(levels, 2) / 2) if head_class(config).deepens else epochs


def fitting_learning_rate(steps: int, batch: int) -> float:
    """Choose a peak that takes a softmax head equally far in fewer steps.

    It is 0.16 over the steps, within 0.0003 and 0.003. Best by five-fold cross-validation with 100, 240, 800 and 2,588
    photographs to train on: 0.003, 0.001 to 0.003, 0.0003 and 0.0003. Their batches have 64 and 128 rows; larger ones,
    whose gradients have less noise, take steps as much longer as the root of their size (Malladi et al. 2022, of Adam).
    """
    return min(max(0.16 / steps, 3e-4) * max(math.sqrt(batch / 128), 1), 3e-3)
