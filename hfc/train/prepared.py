"""The prepared run: everything that is decided before the first epoch, once."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from hfc import provenance
from hfc.config import TrainConfig, plain, resolve
from hfc.errors import ConfigError
from hfc.store import CHUNK_ROWS
from hfc.train.cache import Cache
from hfc.train.data import TrainingData, prepare
from hfc.train.features import Streamed
from hfc.train.outer import OuterFold, warn_of_rare
from hfc.train.settings import used_settings
from hfc.train.settling import left_to_data, settle

# What the numbers of a run come from, beside what its key names: features, labels, tree and settings. Not here, though
# training imports it, is what cannot change them: what reads and checks (its results are in the key), names, writes,
# spreads over processes or reports.
RUN_SOURCES = (
    "hierarchy/lookup.py",
    "hierarchy/names.py",
    "hierarchy/tree.py",
    "metrics.py",
    "store/promise.py",
    "train/adam.py",
    "train/calibration.py",
    "train/checkpoint.py",
    "train/data.py",
    "train/decoding.py",
    "train/draws.py",
    "train/evaluation.py",
    "train/features.py",
    "train/fit.py",
    "train/groups.py",
    "train/heads",
    "train/lbfgs.py",
    "train/losses.py",
    "train/outer.py",
    "train/prepared.py",
    "train/promise.py",
    "train/result.py",
    "train/settings.py",
    "train/settling.py",
    "train/sharing.py",
    "train/slices.py",
    "train/stacked.py",
    "train/stage.py",
    "train/training.py",
    "train/weightings.py",
    "train/wide.py",
)
# The hierarchy's file name, the device and the time between checkpoints shape no number.
NOT_IN_KEY = ("hierarchy", "device", "checkpoint_seconds")


@dataclass(frozen=True)
class PreparedRun:
    """A run before its first epoch."""

    data: TrainingData
    config: TrainConfig
    """The settled settings."""
    key: str
    """See `run_key`."""
    name: str
    """Of its folder."""


def prepare_runs(cache: Cache, configs: Sequence[TrainConfig]) -> list[PreparedRun]:
    """Prepare runs on a cache; runs on the same rows and tree share their data.

    Raises:
        HfcError: cache, hierarchy and settings do not fit each other; the message says how.
    """
    by_tree: dict[tuple[str, str, float, float, int], TrainingData] = {}
    runs = []
    if cache.outer:
        warn_of_rare(cache.outer, cache.table, cache.path)
    for config in configs:
        share = config.train_share, config.seed if config.train_share < 1 else 0
        tree = config.hierarchy, config.inner_labels, config.promise_share, *share
        if tree not in by_tree:
            by_tree[tree] = prepare(cache, *tree)
        data = by_tree[tree]
        refuse_views(cache, config)
        settled = settle(config, data, cache.features.device)
        key = run_key(cache, data, settled)
        runs.append(PreparedRun(data, settled, key, run_name(settled, data, key, cache.outer)))
    return runs


def refuse_views(cache: Cache, config: TrainConfig) -> None:
    """Raise a ConfigError where settings choose among views and the cache holds one."""
    if cache.features.views == 1 and config.views != TrainConfig.views:
        raise ConfigError(f"views={config.views}: {cache.path} holds one view of every crop; leave views out")


def prepare_run(cache: Cache, config: TrainConfig) -> PreparedRun:
    """Prepare one run; see `prepare_runs`."""
    return prepare_runs(cache, [config])[0]


@functools.cache
def run_code_digest() -> str:
    """Compute the SHA-256 of the sources that shape a run.

    Of the code, it alone changes the keys of runs.
    """
    return provenance.digest_sources(provenance.PACKAGE, RUN_SOURCES)


def run_key(cache: Cache, data: TrainingData, config: TrainConfig) -> str:
    """Compute a digest over everything that a result depends on.

    That is features, labels, splits, hierarchy, settings, code and the kind of device: a GPU draws other dropout than a
    CPU. Streaming draws another order of rows than memory. An outer fold has other splits, for a row of a plan.
    """
    used = used_settings(config) - set(NOT_IN_KEY)
    settings = {key: value for key, value in plain(config).items() if key in used}
    sources = [
        cache.meta.features_sha256,
        cache.meta.labels_digest,
        data.hierarchy.digest,
        run_code_digest(),
    ]
    features = cache.features
    order = ["streamed", CHUNK_ROWS] if isinstance(features, Streamed) else ["resident"]
    outer = [vars(cache.outer)] if cache.outer else []
    return provenance.digest([sources, settings, data.hierarchy.name, features.device.type, order, *outer])


def run_name(config: TrainConfig, data: TrainingData, key: str, outer: OuterFold | None = None) -> str:
    """Name the folder of a run: readable, and unique by its key."""
    part = f"--fold{outer.number}" if outer else ""
    part += f"--share{config.train_share:g}" if config.train_share < 1 else ""
    return f"{config.method}--{data.hierarchy.name}{part}--seed{config.seed}--{key[:8]}"


def changed_settings(config: TrainConfig, data: TrainingData) -> dict[str, object]:
    """List the settings in which a run differs from its method as that ships.

    What the data decide is no change.
    """
    preset = resolve(TrainConfig, {"method": config.method})
    ships = plain(settle(preset, data, torch.device("cpu")))
    used = used_settings(config)
    unused: dict[str, Any] = {name: getattr(preset, name) for name in plain(config) if name not in used}
    for name in left_to_data(preset):  # as they would come out beside the run's other settings
        left: dict[str, Any] = {**unused, name: getattr(preset, name), "precision": preset.precision}
        ships[name] = getattr(settle(replace(config, **left), data, torch.device("cpu")), name)
    used -= {"method", "seed", "precision", *NOT_IN_KEY}
    return {key: value for key, value in plain(config).items() if key in used and value != ships[key]}
