"""An open cache, and the same seen through a hierarchy: what a head is trained on.

Dimensions: N rows, V views, D features, H levels.
"""

import contextlib
import functools
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hfc import provenance
from hfc.config import SPLITS
from hfc.device import choose_device
from hfc.errors import HierarchyError, RunError, StoreError
from hfc.features import Features, Resident, Streamed
from hfc.hierarchy import Hierarchy, load_hierarchy
from hfc.labels import join_labels
from hfc.store import FeatureStore, Table


@dataclass(frozen=True)
class Cache:
    """A feature cache: its features once in memory, or streamed, shared by every run."""

    path: Path
    features: Features
    table: Table
    meta: dict[str, Any]
    """What a run records of where its features came from."""


@dataclass(frozen=True)
class Task:
    """A cache seen through a hierarchy: the rows of each split, and what is to be predicted."""

    hierarchy: Hierarchy
    rows: Mapping[str, Tensor]
    """(N_split,) rows of each split that have features and a label."""
    target: Tensor
    """(N, H) index of the true node on each level; rows without a label hold 0 and stand in no split."""
    unused: dict[str, int]
    """How many rows are left out, by reason."""


def load_cache(path: Path, *, device: str = "auto", labels: Path | None = None, stream: bool = False) -> Cache:
    """Read and check a feature cache; its features go to the device once and stay there, unless they are streamed.

    Args:
        path: the cache.
        device: auto, cpu, cuda or cuda:N.
        labels: a CSV whose labels, and splits if it has them, take the place of the cache's own, joined by id.
        stream: leave the features on the disk after checking them.

    Raises:
        DatasetError: the labels cannot be read or joined.
        StoreError: it cannot be read, is damaged, or holds NaN or infinite features.
        ConfigError: no such device.
    """
    target = choose_device(device)
    with contextlib.ExitStack() as stack:
        store = FeatureStore(path)
        stack.callback(store.close)
        table = store.table()
        labels_sha256 = ""
        if labels:
            regions, labels_sha256 = join_labels(table.regions, labels)
            table = replace(table, regions=regions)
        features: Features
        if stream:
            for _ in store.blocks():  # each is checked, and at the end the whole
                pass
            features = Streamed(path, store.shape[1], store.shape[2], target, store.dtype.itemsize, store=store)
        else:
            features = Resident(torch.from_numpy(store.features()).to(target))
        weights = store.provenance.get("weights", {})
        meta = {
            "path": str(path),
            "feature_key": store.key,
            "key_fields": store.key_fields,
            "features_sha256": store.features_sha256,
            "rows": store.shape[0],
            "dim": store.shape[2],
            "origin": store.provenance.get("dataset", {}).get("origin", "unknown"),
            "backbone": store.config.get("backbone", "unknown"),
            "image_size": store.config.get("image_size"),
            "weights": weights.get("source", "unknown"),
            "weights_digest": weights.get("digest", ""),
            "random_weights": bool(weights.get("random", False)),
            "labels": str(labels or path),
            "labels_digest": provenance.digest(
                [column.tolist() for column in (table.regions.id, table.regions.label, table.regions.split)]
            ),
            "labels_sha256": labels_sha256,  # of the CSV; "" = the cache's own labels, which its checksums cover
            "extracted_by": store.provenance.get("code", {}),
        }
        if stream:
            stack.pop_all()  # every epoch reads from it
    return Cache(path, features, table, meta)


# Processes that train one run after the other on a cache read it once.
open_cache = functools.lru_cache(maxsize=1)(load_cache)


def same_cache(path: Path, where: Mapping[str, Any], known: Mapping[str, Any]) -> Cache:
    """A cache as `open_cache` gives it, in another process.

    Args:
        path, where: as for `open_cache`.
        known: the `meta` of the cache as the process saw it that planned the work.

    Raises:
        StoreError: it, or its labels, are others by now.
    """
    cache = open_cache(path, **where)
    for name in ("features_sha256", "labels_digest"):
        if cache.meta[name] != known[name]:
            file = cache.meta["labels"] if name == "labels_digest" else path
            raise StoreError(f"{file}: was changed or replaced while it was in use; run the command again")
    return cache


def prepare(cache: Cache, hierarchy_name: str) -> Task:
    """Look at a cache through a hierarchy.

    Raises:
        HierarchyError: no such hierarchy, or it lacks a leaf that the cache's labels name.
        RunError: a split has no usable rows.
    """
    if not hierarchy_name:
        raise HierarchyError("name a hierarchy: --hierarchy NAME or a CSV file")
    hierarchy = load_hierarchy(hierarchy_name)
    regions, ok = cache.table.regions, cache.table.ok
    labelled = regions.label != ""
    in_split = np.isin(regions.split, SPLITS)
    usable = ok & labelled & in_split
    leaf = np.zeros(len(regions), dtype=np.int64)
    leaf[labelled] = hierarchy.index(regions.label[labelled].tolist(), str(cache.path))
    rows = {split: np.flatnonzero(usable & (regions.split == split)) for split in SPLITS}
    for split, found in rows.items():
        if len(found) == 0:
            raise RunError(
                f"{cache.path}: the {split} split is empty; train, val (to select the epoch) and test rows are needed"
            )
    if len(rows["train"]) < 2:
        raise RunError(f"{cache.path}: the train split has one row; batch normalisation needs two")
    device = cache.features.device
    return Task(
        hierarchy=hierarchy,
        rows={split: torch.from_numpy(found).to(device) for split, found in rows.items()},
        target=torch.from_numpy(hierarchy.ancestors[leaf]).to(device),
        unused={
            "without features": int((~ok).sum()),
            "without label": int((ok & ~labelled).sum()),
            "without split": int((ok & labelled & ~in_split).sum()),
        },
    )


def fold(task: Task, number: int, folds: int) -> Task:
    """A task of cross-validation: training and validation rows, shuffled and dealt out anew; no row of the test split.

    Args:
        task: the task as the cache splits it.
        number: which of the parts is for validation, from 0; the others are for training.
        folds: how many parts.

    Raises:
        RunError: fewer rows than parts.
    """
    from sklearn.model_selection import KFold  # imported on use: it takes a second

    rows = torch.cat([task.rows["train"], task.rows["val"]]).sort().values
    if len(rows) < folds:
        raise RunError(f"{folds} folds need as many rows for training and validation, found {len(rows)}")
    parts = KFold(folds, shuffle=True, random_state=0).split(np.arange(len(rows)))
    train, val = next(itertools.islice(parts, number, None))
    return replace(task, rows={"train": rows[train], "val": rows[val], "test": rows[:0]})
