"""Runs of one shape are trained together where their `step` asks for it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from hfc.config import TrainConfig, plain
from hfc.errors import DivergedError
from hfc.train.data import TrainingData
from hfc.train.features import Features
from hfc.train.fit import Fitted, OnEpoch, fit, quiet
from hfc.train.stacked import FREE, fit_stacked

MOST = 16  # runs in one model: beyond that only memory grows

Outcome = TypeVar("Outcome")


def groups(configs: Sequence[TrainConfig]) -> list[list[int]]:
    """Group settings that are trained together: their places, in the order of their first."""
    places: list[list[int]] = []
    latest: dict[str, int] = {}
    for i, config in enumerate(configs):
        own = {"seed"} if config.train_share < 1 else set()  # it draws the rows, which runs of a group share
        shape = str({key: value for key, value in plain(config).items() if key not in FREE or key in own})
        group = places[latest[shape]] if shape in latest and config.step != "single" else []
        # The same run twice is trained once: the second is found in its folder.
        if group and len(group) < MOST and config not in [configs[place] for place in group]:
            group.append(i)
        else:
            latest[shape] = len(places)
            places.append([i])
    return places


def fit_group(
    features: Features, data: TrainingData, configs: Sequence[TrainConfig], on_epoch: OnEpoch = quiet
) -> list[Fitted]:
    """Train the runs of a group, without checkpoints; otherwise as `fit`.

    Raises:
        ConfigError: settings that cannot be trained as one model.
        DivergedError: the loss of a run became infinite or NaN.
    """
    if configs[0].step == "single":
        return [fit(features, data, config, on_epoch) for config in configs]
    return fit_stacked(features, data, configs, on_epoch)


def surviving(
    configs: Sequence[TrainConfig], attempt: Callable[[Sequence[TrainConfig]], Sequence[Outcome]]
) -> list[Outcome | DivergedError]:
    """Train runs together; where one diverges, train the others again without it.

    Args:
        configs: the settled settings.
        attempt: trains the runs of some settings.

    Returns:
        What `attempt` returns of each run; of one that diverged its error.
    """
    outcomes: dict[TrainConfig, Outcome | DivergedError] = {}
    waiting = list(configs)
    while waiting:
        try:
            outcomes |= zip(waiting, attempt(waiting), strict=True)
            break
        except DivergedError as error:
            if error.config not in waiting:
                raise
            outcomes[error.config] = error
            waiting.remove(error.config)
    return [outcomes[config] for config in configs]


def in_order(places: Sequence[Sequence[int]], results: Iterable[Sequence[Outcome]]) -> Iterator[Outcome]:
    """Give the outcomes of groups in the order of the runs, as soon as possible."""
    ready: dict[int, Outcome] = {}
    following = 0
    for group, outcomes in zip(places, results, strict=True):
        ready |= zip(group, outcomes, strict=True)
        while following in ready:
            yield ready.pop(following)
            following += 1
