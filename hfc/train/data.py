"""A cache seen through a hierarchy: what a head is trained on.

Dimensions: N rows, H levels, C leaves, B batch.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hfc.config import SPLITS
from hfc.errors import HierarchyError, RunError, warn_once
from hfc.hierarchy import Hierarchy, load_hierarchy, some
from hfc.runs import Rows
from hfc.store import Table
from hfc.train.cache import Cache
from hfc.train.draws import deal, numbered
from hfc.train.heads.layers import Target

logger = logging.getLogger(__name__)

OnRows = Callable[[Rows], object]


@dataclass(frozen=True)
class TrainingData:
    """A cache seen through a hierarchy: rows by split, and what is to be predicted.

    `prepare` makes it on the CPU; `fit` moves it to where the features are.
    """

    hierarchy: Hierarchy
    rows: Mapping[str, Tensor]
    """(N_split,) rows of each split that have features and a label."""
    target: Target
    """The labels of all N rows, without `below`; rows without one hold 0 and stand in no split."""
    unused: dict[str, int]
    """How many rows are left out, by reason."""
    group: NDArray[np.int64] | None = None
    """(N,) number of the group that each row is in; None: no row shares one."""
    weight: Tensor | None = None
    """(N,) factor of each row's loss, with mean 1 over the training rows; None: all count alike."""

    def to(self, device: torch.device) -> "TrainingData":
        """Move it to a device."""
        return replace(
            self,
            rows={split: rows.to(device) for split, rows in self.rows.items()},
            target=self.target.to(device),
            weight=None if self.weight is None else self.weight.to(device),
        )

    @property
    def counts(self) -> Rows:
        """How many rows the splits have."""
        train, val, test = (len(self.rows[split]) for split in SPLITS)
        return Rows(train=train, val=val, test=test, unused=self.unused)

    def leaf(self, split: str) -> NDArray[np.int64]:
        """(N_split,) true leaves of a split's rows."""
        leaf: NDArray[np.int64] = self.target.leaf[self.rows[split]].cpu().numpy()
        return leaf

    @cached_property
    def inner(self) -> bool:
        """Whether a row's label is an inner node."""
        return any(bool((self.target.leaf[rows] < 0).any()) for rows in self.rows.values())

    def batch(self, rows: Tensor) -> Target:
        """Give the labels of B rows; with `below` where the data have inner labels."""
        path, leaf = self.target.path[rows], self.target.leaf[rows]
        if not self.inner:
            return Target(path, leaf)
        place, first, end = self._spans
        return Target(path, leaf, (place >= first[rows][..., None]) & (place < end[rows][..., None]))

    @cached_property
    def _spans(self) -> tuple[Tensor, Tensor, Tensor]:
        """Order the leaves by path: those below a node stand together.

        A table of the leaves below every node would grow with the square of the leaves.

        Returns:
            (C,) place of each leaf; (N,) the first place below each row's label, and (N,) the place behind the last.
        """
        ancestors, path = self.hierarchy.ancestors, self.target.path.cpu().numpy()
        place = np.argsort(np.lexsort(ancestors.T[::-1])).astype(np.int32)
        depth = (path >= 0).sum(axis=1)
        first, count = np.zeros((2, len(path)), dtype=np.int32)
        for h, column in enumerate(ancestors.T):
            rows, inside = depth == h + 1, column >= 0
            least = np.full(column.max() + 1, len(place), dtype=np.int32)
            np.minimum.at(least, column[inside], place[inside])
            first[rows] = least[path[rows, h]]
            count[rows] = np.bincount(column[inside])[path[rows, h]]
        spans = (torch.from_numpy(numbers) for numbers in (place, first, first + count))
        leaves, start, end = (numbers.to(self.target.path.device) for numbers in spans)
        return leaves, start, end


def prepare(cache: Cache, hierarchy_name: str) -> TrainingData:
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
    _refuse_too_few(cache, hierarchy, rows, leaf)
    return TrainingData(
        hierarchy=hierarchy,
        rows={split: torch.from_numpy(numbers) for split, numbers in rows.items()},
        target=Target(torch.from_numpy(hierarchy.ancestors[leaf]), torch.from_numpy(leaf)),
        group=numbered(regions.group),
        unused={
            "without features": int((~ok).sum()),
            "without label": int((ok & ~labelled).sum()),
            "without split": int((ok & labelled & ~in_split).sum()),
        },
    )


def _refuse_too_few(
    cache: Cache, hierarchy: Hierarchy, rows: Mapping[str, NDArray[np.int64]], leaf: NDArray[np.int64]
) -> None:
    """Check that a head can be trained and tested.

    Args:
        cache: for the messages.
        hierarchy: names the leaves.
        rows: the usable ones of each split.
        leaf: (N,) of every row of the cache.

    Raises:
        RunError: a split is empty, or the train split has one row or one label.
    """
    for split, numbers in rows.items():
        if len(numbers) == 0:
            raise RunError(f"{cache.path}: {_why_empty(cache.table, split)}")
    if len(rows["train"]) < 2:
        raise RunError(f"{cache.path}: the train split has one row; batch normalisation needs two")
    if len(np.unique(leaf[rows["train"]])) < 2:
        only = hierarchy.leaves[leaf[rows["train"][0]]]
        raise RunError(
            f"{cache.path}: all {len(rows['train'])} rows of the train split have the label {only}; "
            "two labels are needed to train"
        )


def _why_empty(table: Table, split: str) -> str:
    """Why no row of a split can be used."""
    regions, ok = table.regions, table.ok
    inside = regions.split == split
    failed = [(regions.id[row], reason) for row, reason in table.failures if inside[row] or not ok.any()]
    first = f"; the first is {failed[0][0]}: {failed[0][1]}" if failed else ""
    if len(ok) and not ok.any():
        return (
            f"no row has features, as all {len(ok)} images failed{first}; mend them, then run the same "
            "hfc extract again"
        )
    needed = "train, val (to select the epoch) and test rows are needed"
    if not inside.any():
        return f"the {split} split is empty; {needed}"
    without = f"{int((inside & ~ok).sum())} without features, {int((inside & ok).sum())} without label"
    return f"the {split} split is empty: its {int(inside.sum())} rows are left out, {without}{first}; {needed}"


def untrained(data: TrainingData) -> dict[str, int]:
    """Count the test rows of each leaf that the train split lacks.

    No prediction for them can be right.
    """
    leaves = range(len(data.hierarchy.leaves))
    train, test = (np.bincount(data.leaf(split), minlength=len(leaves)).tolist() for split in ("train", "test"))
    return {data.hierarchy.leaves[leaf]: test[leaf] for leaf in leaves if test[leaf] and not train[leaf]}


def parted(data: TrainingData) -> str:
    """Say how many groups have rows in more than one split; "" where none has."""
    if data.group is None:
        return ""
    groups = {split: set(data.group[rows.cpu().numpy()].tolist()) for split, rows in data.rows.items()}
    train, val, test = (groups[split] for split in SPLITS)
    if not (several := train & val | train & test | val & test):
        return ""
    return (
        f"{len(several)} of {len(train | val | test)} groups have rows in more than one split, {len(train & test)} in "
        "train and test; test rows whose group was trained on are easier than those of new groups"
    )


def announce(path: Path, tables: Iterable[TrainingData], on_rows: OnRows | None = None) -> None:
    """Say which rows runs use, and warn where splits part groups or lack leaves.

    Args:
        path: the cache.
        tables: the data of the runs, each once.
        on_rows: called with the rows of each; None: what is left out is warned of.
    """
    for data in tables:
        used = f"{path} ({data.hierarchy.name}): {data.counts}"
        logger.info("%s", used)
        if on_rows:
            on_rows(data.counts)
        elif any(data.unused.values()):
            warn_once(logger, used)
        if groups := parted(data):
            warn_once(logger, f"{path}: {groups}")
        if missing := untrained(data):
            warn_once(
                logger,
                f"{path}: no row of the train split is labelled {some(list(missing))}; "
                f"the {sum(missing.values())} test rows that are cannot be answered right",
            )


def fold_data(data: TrainingData, folds: int) -> list[TrainingData]:
    """Deal training and validation rows out anew, for cross-validation.

    Each fold is for validation once, the others then for training. No row of the test split is in any. No group is in
    two folds, and each label gives each fold its share.

    Raises:
        RunError: fewer rows or groups than folds.
    """
    rows = torch.cat([data.rows["train"], data.rows["val"]]).sort().values
    group = None if data.group is None else data.group[rows]
    dealt = []
    for numbers in deal(data.target.leaf[rows].numpy(), group, folds):
        held = torch.zeros(len(rows), dtype=torch.bool)
        held[torch.from_numpy(numbers)] = True
        dealt.append(replace(data, rows={"train": rows[~held], "val": rows[held], "test": rows[:0]}))
    return dealt
