"""The constructors of a run's head and weighting say which settings shape it.

So no list can drift from them."""

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Any, cast

import torch

from hfc.config import TrainConfig, resolve
from hfc.errors import ConfigError
from hfc.hierarchy import Hierarchy
from hfc.train.heads import HEADS, TREE_LOSSES, Head
from hfc.train.heads.members import Members
from hfc.train.losses import LEVEL_LOSSES
from hfc.train.weightings import WEIGHTINGS, Sum, grouped


def takes(constructor: Callable[..., Any]) -> frozenset[str]:
    """List the settings that a head or a weighting takes: its constructor's keyword-only arguments."""
    parameters = inspect.signature(constructor).parameters.values()
    return frozenset(p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)


def head_class(config: TrainConfig) -> type[Head]:
    """Find the class of a run's head; the flat head has another under each loss that knows the tree."""
    return TREE_LOSSES.get(config.loss, HEADS["flat"]) if config.head == "flat" else HEADS[config.head]


# β blends what a head gives; `tasks` groups what a weighting weighs. All other settings stand in a constructor.
HEAD_SETTINGS = frozenset({"loss", "beta"}).union(*map(takes, (*HEADS.values(), *TREE_LOSSES.values())))
WEIGHTING_SETTINGS = frozenset({"weighting", "tasks"}).union(*map(takes, WEIGHTINGS.values()))

# How a head is trained: by Adam's epochs, or to the minimum of a convex loss.
EPOCH_SETTINGS, PATH_SETTINGS = (
    frozenset({"batch_size", "learning_rate", "schedule"}),
    frozenset({"l2", "l2_last", "inner_l2", "refit"}),
)


def head_settings(config: TrainConfig) -> frozenset[str]:
    """The settings that a run's head takes."""
    kind = head_class(config)
    chosen = {"loss"} if "loss" in takes(HEADS[config.head]) else set()
    return takes(kind) | chosen | ({"beta"} if kind.blends else set())


def weighs_several(config: TrainConfig) -> bool:
    """Whether a run has more than one task loss."""
    flows = head_class(config).task_flows
    return len(flows) > 1 or (config.tasks == "levels" and "local" in flows)


def weighting_class(config: TrainConfig) -> type[Sum]:
    """The class of a run's weighting; one loss alone is not weighed."""
    return WEIGHTINGS[config.weighting] if weighs_several(config) else Sum


def build_head(config: TrainConfig, hierarchy: Hierarchy, dim: int) -> Head:
    """An untrained head for a hierarchy and a number of features."""
    kind = head_class(config)
    settings: dict[str, Any] = {name: getattr(config, name) for name in takes(kind)}
    count = 1 if kind.convex else config.members
    heads = [kind(dim, torch.from_numpy(hierarchy.ancestors), **settings) for _ in range(count)]
    head = heads[0] if count == 1 else cast(Head, Members(heads))  # which has for itself what a kind has for all
    head.standardise.transform = config.transform
    return head


def build_weighting(config: TrainConfig, head: Head) -> Sum:
    """The weighting of a head's tasks, before the first step."""
    kind = weighting_class(config)
    settings: dict[str, Any] = {name: getattr(config, name) for name in takes(kind)}
    return kind(list(grouped(dict.fromkeys(head.tasks, torch.zeros(())), config.tasks)), **settings)


def weighting_settings(config: TrainConfig) -> frozenset[str]:
    """The settings of how a run's task losses are combined."""
    taken = takes(weighting_class(config))
    if weighs_several(config):
        taken |= {"weighting"}
    if "local" in head_class(config).task_flows and WEIGHTINGS[config.weighting] is not Sum:
        taken |= {"tasks"}
    return taken


def used_settings(config: TrainConfig) -> frozenset[str]:
    """The settings that a run uses; all others shape nothing of it."""
    always = frozenset(f.name for f in fields(TrainConfig)) - HEAD_SETTINGS - WEIGHTING_SETTINGS
    always -= EPOCH_SETTINGS | {"members"} if head_class(config).convex else PATH_SETTINGS
    return always | head_settings(config) | weighting_settings(config)


def refuse_unused(config: TrainConfig) -> None:
    """Check that a run uses every setting that its method does not ship.

    Raises:
        ConfigError: the head, its loss or the weighting does not take a setting that was changed.
    """
    if config.loss in TREE_LOSSES and "loss" in takes(head_class(config)):
        raise ConfigError(f"loss {config.loss} is for the flat head; {config.head} takes {' or '.join(LEVEL_LOSSES)}")
    ships = resolve(TrainConfig, {"method": config.method})
    used = used_settings(config)
    for name in (f.name for f in fields(TrainConfig)):
        value = getattr(config, name)
        if name not in used and value != getattr(ships, name):
            raise ConfigError(f"{name}={value} with method {config.method}: {_why_unused(name, config)}")


def _why_unused(name: str, config: TrainConfig) -> str:
    """What does not take a setting, what it takes, and what to do."""
    loss = f" with loss {config.loss}" if "loss" in head_settings(config) else ""
    head = f"head {config.head}{loss}"
    remedy = f"leave {name} out"
    if name == "members":
        return f"head {config.head} draws nothing, so its members would be alike; {remedy}"
    if name in EPOCH_SETTINGS | PATH_SETTINGS:
        how = "to the minimum of its loss" if head_class(config).convex else "by Adam's epochs"
        taken = ", ".join(sorted(PATH_SETTINGS if head_class(config).convex else EPOCH_SETTINGS))
        return f"head {config.head} is trained {how}, which takes {taken}; {remedy}"
    if name not in WEIGHTING_SETTINGS:
        return f"{head} does not take it; it takes {', '.join(sorted(head_settings(config)))}; {remedy}"
    if "local" not in head_class(config).task_flows:
        return f"{head} has a single loss, so there is nothing to weigh; {remedy}"
    if name == "tasks":
        return f"weighting sum adds up every level's loss; give another weighting, or {remedy}"
    if not weighs_several(config):
        return f"{head} has a single flow, so there is nothing to weigh; give tasks=levels as well, or {remedy}"
    taken = ", ".join(sorted(takes(weighting_class(config)))) or "none of its own"
    return f"weighting {config.weighting} does not take it; it takes {taken}; {remedy}"
