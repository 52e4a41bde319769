"""Judge every row that a leaf labels by a head that never saw it: cross-validation over all splits.

Dimensions: N rows of a cache, n judged rows, C leaves.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import joblib
import numpy as np
import torch
from numpy.typing import NDArray

from hfc import parallel
from hfc.config import TrainConfig, plain, resolve
from hfc.errors import ConfigError, HierarchyError, RunError
from hfc.hierarchy import Hierarchy, load_hierarchy
from hfc.progress import bar
from hfc.store import HeldOut, Predictions
from hfc.store.records import CacheRecord
from hfc.train.cache import Cache, CacheSource, Reading, cache_source, open_cache, same_cache
from hfc.train.data import TrainingData, find_target, label_numbers
from hfc.train.draws import deal, numbered
from hfc.train.evaluation import decoded, predict, used_views
from hfc.train.groups import fit_group
from hfc.train.heads.layers import Target
from hfc.train.jobs import choose_crew
from hfc.train.prepared import refuse_views
from hfc.train.settling import settle

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Fold:
    """One training of the cross-validation."""

    data: TrainingData
    """Its split `test` is what the head is to judge."""
    config: TrainConfig
    """Settled for these rows."""


def held_out(path: Path, config: TrainConfig, folds: int, *, jobs: int = 1, **reading: Unpack[Reading]) -> HeldOut:
    """Compute the out-of-fold probabilities of all rows that a leaf labels, whatever their split.

    Rows whose label is an inner node are trained on, unless the settings leave them out, and not judged.
    Folds are stratified by label, and rows of one group share a fold. A head is taken after its last epoch: rows held
    back to pick one would be missed in training, and would pick the first of those that leave no mistake.

    Args:
        path: a feature cache.
        config: the settings of a training.
        folds: how many; two at least.
        jobs: processes; 0: by what the trainings compute, see `hfc.train.jobs`.
        reading: how the cache is read, by the arguments of `load_cache`.

    Raises:
        HfcError: cache, hierarchy and settings do not fit each other, there are too few labels or rows, or a training
            diverged.
    """
    _refuse_unused(config)
    source = cache_source(path, config.device, jobs != 1, **reading)
    try:
        cache = open_cache(source)
        refuse_views(cache, config)
        tree, target, labelled = _labelled(cache, config.hierarchy)
        dealt = _folds(cache, config, tree, target, labelled, folds)
        rows = labelled[target.leaf[labelled].numpy() >= 0]
        leaf = target.leaf[rows].numpy()
        final = np.empty((len(rows), len(tree.leaves)), dtype=np.float32)
        judged = np.zeros(len(rows), dtype=np.bool_)
        with bar("review", len(dealt), unit="fold") as shown:
            judgements = _judgements(source, cache, dealt, jobs)
            for number, (fold, shares) in enumerate(zip(dealt, judgements, strict=True)):
                places = np.searchsorted(rows, fold.data.rows["test"].numpy())
                final[places] = shares
                known = np.unique(fold.data.leaf("train"))
                judged[places] = np.isin(leaf[places], known)
                shown.show(number + 1)
    finally:
        open_cache.cache_clear()
    if not judged.any():
        raise RunError(f"{path}: no label has rows in two folds, so no row can be judged; label more rows")
    ids = cache.table.regions.id[rows]
    predictions = Predictions(ids[judged], leaf[judged], (), final[judged])
    inner = len(labelled) - len(rows)
    return HeldOut(cache.meta, cache.table, tree, predictions, ids[~judged], plain(config), folds, inner)


def _refuse_unused(config: TrainConfig) -> None:
    """Raise a ConfigError where a setting cannot have its effect."""
    if config.decode == "least-cost":
        raise ConfigError("decode=least-cost: gives scores and no probabilities; leave decode out")
    if config.train_share < 1:
        raise ConfigError("train_share: a review trains on all rows but those it judges; leave train_share out")
    if config.select != resolve(TrainConfig, {"method": config.method}).select:
        raise ConfigError(f"select={config.select}: a review takes the last epoch of each training; leave select out")


def _labelled(cache: Cache, hierarchy: str) -> tuple[Hierarchy, Target, Ints]:
    """Find the rows with features and a label; returns the tree, the labels of all rows, and those rows.

    Raises:
        HierarchyError: no such hierarchy, or it lacks a node that the labels name.
        RunError: fewer than two leaves are labels.
    """
    if not hierarchy:
        raise HierarchyError("name a hierarchy: --hierarchy NAME or a file")
    tree = load_hierarchy(hierarchy)
    target = find_target(cache, tree)
    rows = np.flatnonzero(cache.table.ok & (cache.table.regions.label != ""))
    leaf = target.leaf[rows].numpy()
    leaves, inner = np.unique(leaf[leaf >= 0]), int((leaf < 0).sum())
    if len(leaves) < 2:
        only = f"all {len(rows) - inner} have {tree.leaves[leaves[0]]}" if len(leaves) else "none has one"
        more = f"; {inner} rows have an inner node, and are not judged" if inner else ""
        raise RunError(f"{cache.path}: a review needs rows of two labels with features, found that {only}{more}")
    return tree, target, rows


def _folds(cache: Cache, config: TrainConfig, tree: Hierarchy, target: Target, rows: Ints, folds: int) -> list[Fold]:
    """Deal the labelled rows into folds: `test` is judged, and `train` trained on."""
    if folds < 2:
        raise ConfigError(f"folds: expected two or more, found {folds}")
    is_leaf = target.leaf[rows].numpy() >= 0
    if config.inner_labels == "leave-out":
        rows, is_leaf = rows[is_leaf], is_leaf[is_leaf]
    label = label_numbers(target, rows)
    try:
        dealt = deal(label, numbered(cache.table.regions.group[rows]), folds)
    except RunError as error:
        raise RunError(f"{cache.path}: {error}; give fewer --folds") from error
    made = []
    for judged in dealt:
        rest = np.delete(np.arange(len(rows)), judged)
        if len(np.unique(label[rest])) < 2:
            raise RunError(f"{cache.path}: --folds {folds}: one fold leaves one label to train on; label more rows")
        parts = {"train": rows[rest], "val": rows[:0], "test": rows[judged[is_leaf[judged]]]}
        split = {name: torch.from_numpy(numbers) for name, numbers in parts.items()}
        data = TrainingData(tree, split, target, cache.signs, unused={})
        if len(split["test"]):
            made.append(Fold(data, settle(config, data, cache.features.device)))
    return made


def _judgements(source: CacheSource, cache: Cache, folds: Sequence[Fold], jobs: int) -> Iterator[NDArray[np.float32]]:
    """Train on all folds, in so many processes; yields what `_judge` returns of each."""
    crew = choose_crew(jobs, [[fold] for fold in folds], cache)
    shared = source.attached(cache, crew.jobs)
    return parallel.run([joblib.delayed(_judge)(shared, cache.meta, fold) for fold in folds], crew, ordered=True)


def _judge(source: CacheSource, known: CacheRecord, fold: Fold) -> NDArray[np.float32]:
    """Train on a fold, in any process; returns the shares of all leaves, (n, C), for the rows to judge.

    Args:
        source, known: as for `same_cache`.
        fold: what is trained on, and what is judged.
    """
    features, config = same_cache(source, known).features, fold.config
    (fitted,) = fit_group(features, fold.data, [config])
    rows = fold.data.rows["test"].to(features.device)
    prediction = predict(fitted.head, used_views(features, config), rows, config.beta)
    final = decoded(prediction, fold.data.hierarchy, config).final.double().numpy() + np.finfo(np.float64).tiny
    shares: NDArray[np.float32] = (final / final.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares
