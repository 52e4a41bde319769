"""An open cache, and the same seen through a hierarchy: what a head is trained on.

Dimensions: N rows, V views, D features, H levels.
"""

import contextlib
import functools
import itertools
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hfc import provenance
from hfc.config import SPLITS
from hfc.device import choose_device
from hfc.errors import HierarchyError, RunError, StoreError, printable, warn_once
from hfc.hierarchy import Hierarchy, load_hierarchy, some
from hfc.runs import Rows
from hfc.store import FeatureStore, Table
from hfc.store.records import CacheRecord
from hfc.train.features import Features, Resident, Streamed
from hfc.train.labels import join_labels, refuse_unlabelled

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cache:
    """A feature cache: its features once in memory, or streamed, shared by every run."""

    path: Path
    features: Features
    table: Table
    meta: CacheRecord
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
    weight: Tensor | None = None
    """(N,) factor of each row's loss, with mean 1 over the training rows; None: all count alike."""

    @property
    def counts(self) -> Rows:
        """How many rows the splits have."""
        train, val, test = (len(self.rows[split]) for split in SPLITS)
        return Rows(train=train, val=val, test=test, unused=self.unused)


def load_cache(
    path: Path,
    *,
    device: str = "auto",
    labels: Path | None = None,
    allow_unlabelled: bool = False,
    stream: bool = False,
) -> Cache:
    """Read and check a feature cache; its features go to the device once and stay there, unless they are streamed.

    Args:
        path: the cache.
        device: auto, cpu, cuda or cuda:N.
        labels: a CSV whose labels, and splits if it has them, take the place of the cache's own, joined by id.
        allow_unlabelled: take such a file even if most rows of a split have no label in it.
        stream: leave the features on the disk after checking them.

    Raises:
        DatasetError: the labels cannot be read or joined, or leave most rows of a split without one.
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
            if not allow_unlabelled:
                refuse_unlabelled(labels, regions, table.ok)
        features: Features
        if stream:
            for _ in store.blocks():  # each is checked, and at the end the whole
                pass
            features = Streamed(store, target, store.shape[1])
        else:
            features = Resident(torch.from_numpy(store.features()).to(target))
        weights = store.provenance.get("weights", {})
        meta = CacheRecord(
            path=printable(str(path)),
            feature_key=store.key,
            key_fields=store.key_fields,
            features_sha256=store.features_sha256,
            rows=store.shape[0],
            dim=store.shape[2],
            origin=printable(store.provenance.get("dataset", {}).get("origin", "unknown")),
            backbone=store.config.get("backbone", "unknown"),
            image_size=store.config.get("image_size"),
            weights=weights.get("source", "unknown"),
            weights_digest=weights.get("digest", ""),
            random_weights=bool(weights.get("random", False)),
            labels=printable(str(labels or path)),
            labels_digest=provenance.digest(
                [column.tolist() for column in (table.regions.id, table.regions.label, table.regions.split)]
            ),
            labels_sha256=labels_sha256,  # of the CSV; "" = the cache's own labels, which its checksums cover
            extracted_by=store.provenance.get("code", {}),
        )
        if stream:
            stack.pop_all()  # every epoch reads from it
    return Cache(path, features, table, meta)


# Processes that train one run after the other on a cache read it once.
open_cache = functools.lru_cache(maxsize=1)(load_cache)


def same_cache(path: Path, where: Mapping[str, Any], known: CacheRecord) -> Cache:
    """A cache as `open_cache` gives it, in another process.

    Args:
        path, where: as for `open_cache`.
        known: the `meta` of the cache as the process saw it that planned the work.

    Raises:
        StoreError: it, or its labels, are others by now.
    """
    cache = open_cache(path, **where)
    for name in ("features_sha256", "labels_digest"):
        if getattr(cache.meta, name) != getattr(known, name):
            file = cache.meta.labels if name == "labels_digest" else path
            raise StoreError(f"{file}: was changed or replaced while it was in use; run the command again")
    return cache


def prepare(cache: Cache, hierarchy_name: str) -> Task:
    """Look at a cache through a hierarchy.

    Raises:
        HierarchyError: no such hierarchy, or it lacks a leaf that the cache's labels name.
        RunError: a split has no usable rows, or the train split one leaf.
    """
    if not hierarchy_name:
        raise HierarchyError("name a hierarchy: --hierarchy NAME or a CSV file")
    hierarchy = load_hierarchy(hierarchy_name)
    regions, ok = cache.table.regions, cache.table.ok
    labelled = regions.label != ""
    in_split = np.isin(regions.split, SPLITS)
    usable = ok & labelled & in_split
    leaf = np.zeros(len(regions), dtype=np.int64)
    leaf[labelled] = hierarchy.index(regions.label[labelled].tolist(), str(cache.meta.labels))
    rows = {split: np.flatnonzero(usable & (regions.split == split)) for split in SPLITS}
    for split, found in rows.items():
        if len(found) == 0:
            raise RunError(f"{cache.path}: {_why_empty(cache.table, split)}")
    if len(rows["train"]) < 2:
        raise RunError(f"{cache.path}: the train split has one row; batch normalisation needs two")
    if len(np.unique(leaf[rows["train"]])) < 2:
        only = hierarchy.leaves[leaf[rows["train"][0]]]
        raise RunError(
            f"{cache.path}: all {len(rows['train'])} rows of the train split have the label {only}; "
            "two labels are needed to train"
        )
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


def _why_empty(table: Table, split: str) -> str:
    """What is the matter where no row of a split can be used."""
    regions, ok = table.regions, table.ok
    mine = regions.split == split
    failed = [(regions.id[row], reason) for row, reason in table.failures if mine[row] or not ok.any()]
    first = f"; the first is {failed[0][0]}: {failed[0][1]}" if failed else ""
    if len(ok) and not ok.any():
        return (
            f"no row has features, as all {len(ok)} images failed{first}; mend them, then run hfc extract with "
            "--retry-failures"
        )
    needed = "train, val (to select the epoch) and test rows are needed"
    if not mine.any():
        return f"the {split} split is empty; {needed}"
    without = f"{int((mine & ~ok).sum())} without features, {int((mine & ok).sum())} without label"
    return f"the {split} split is empty: its {int(mine.sum())} rows are left out, {without}{first}; {needed}"


def untrained(task: Task) -> dict[str, int]:
    """How many test rows each leaf has that the train split lacks: their answers cannot be right."""
    leaves = range(len(task.hierarchy.leaves))
    train, test = (
        task.target[task.rows[split], -1].bincount(minlength=len(leaves)).tolist() for split in ("train", "test")
    )
    return {task.hierarchy.leaves[leaf]: test[leaf] for leaf in leaves if test[leaf] and not train[leaf]}


def rows_used(rows: Rows) -> str:
    """How many rows a run uses and how many it leaves out, and why, as one line."""
    used = ", ".join(f"{getattr(rows, split)} {split}" for split in SPLITS)
    left_out = ", ".join(f"{count} {reason}" for reason, count in rows.unused.items() if count)
    return f"rows: {used}; left out: {left_out or 'none'}"


def announce(cache: Cache, tasks: Iterable[Task], *, warn: bool = False) -> None:
    """Log what runs on some tasks leave out, and warn of leaves that nothing is trained for.

    Args:
        cache: what the tasks look at.
        tasks: of the runs.
        warn: warn of rows that are left out, as nothing else tells of them.
    """
    for task in tasks:
        used = f"{cache.path} ({task.hierarchy.name}): {rows_used(task.counts)}"
        if warn and any(task.unused.values()):
            warn_once(logger, used)
        else:
            logger.info("%s", used)
        if missing := untrained(task):
            warn_once(
                logger,
                f"{cache.path}: no row of the train split is labelled {some(list(missing))}; "
                f"the {sum(missing.values())} test rows that are cannot be answered right",
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
