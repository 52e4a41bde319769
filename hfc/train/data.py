"""A cache seen through a hierarchy: what a head is trained on.

Dimensions: N rows, H levels, C leaves, B batch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hfc.config import SPLITS, TrainConfig
from hfc.errors import HierarchyError, RunError
from hfc.hierarchy import Hierarchy, load_hierarchy
from hfc.runs import Rows
from hfc.train.cache import Cache
from hfc.train.draws import by_hash, deal, nested_share, numbered
from hfc.train.heads.layers import Target

Ints = NDArray[np.int64]
INNER = "with inner label"
BEYOND = "beyond the share to train on"
SPARE = "beside a row of their group that proves the promise"


@dataclass(frozen=True)
class TrainingData:
    """A cache seen through a hierarchy: rows by split, and what is to be predicted.

    `prepare` makes it on the CPU; `fit` moves it to where the features are.
    """

    hierarchy: Hierarchy
    rows: Mapping[str, Tensor]
    """(N_split,) rows of each split that have features and a label; `promise`: those that prove one, if any."""
    target: Target
    """The labels of all N rows, without `below`; rows without one hold −1 and stand in no split."""
    signs: Tensor
    """(N, 2) what `hfc.train.features.signs` says of each row's features."""
    unused: dict[str, int]
    """How many rows are left out, by reason."""
    group: Ints | None = None
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
        inner = {split: int((self.leaf(split) < 0).sum()) for split in SPLITS} if self.inner else {}
        promise = len(self.rows.get("promise", ()))
        return Rows(train=train, val=val, test=test, unused=self.unused, inner=inner, promise=promise)

    def leaf(self, split: str) -> Ints:
        """(N_split,) true leaves of a split's rows; −1 where the label is an inner node."""
        leaf: Ints = self.target.leaf[self.rows[split]].cpu().numpy()
        return leaf

    def path(self, split: str) -> Ints:
        """(N_split, H) paths to the labels of a split's rows, −1 below the label."""
        path: Ints = self.target.path[self.rows[split]].cpu().numpy()
        return path

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


def prepare(
    cache: Cache,
    hierarchy_name: str,
    inner_labels: str = TrainConfig.inner_labels,
    promise_share: float = TrainConfig.promise_share,
    train_share: float = TrainConfig.train_share,
    seed: int = TrainConfig.seed,
) -> TrainingData:
    """Look at a cache through a hierarchy.

    Args:
        cache: the cache.
        hierarchy_name: a shipped hierarchy or a file.
        inner_labels: use or leave-out, what becomes of rows whose label is an inner node.
        promise_share: of the validation rows, set aside to prove a promise.
        train_share: of the groups of training rows, to train on.
        seed: draws these.

    Raises:
        HierarchyError: no such hierarchy, or it lacks a node that the cache's labels name.
        RunError: a split has no usable rows, val or test none whose label is a leaf, or the train split one label.
    """
    hierarchy = _hierarchy(hierarchy_name)
    regions, ok = cache.table.regions, cache.table.ok
    labelled, in_split = regions.label != "", np.isin(regions.split, SPLITS)
    target = find_target(cache, hierarchy)
    usable, unused = ok & labelled & in_split, dict[str, int]()
    if inner_labels == "leave-out":
        inner = usable & (target.leaf.numpy() < 0)
        usable, unused = usable & ~inner, {INNER: int(inner.sum())}
    rows = {split: np.flatnonzero(usable & (regions.split == split)) for split in SPLITS}
    if train_share < 1:
        rows["train"], unused[BEYOND] = _drawn(cache, rows["train"], target, train_share, seed)
    _refuse_too_few(cache, rows, target)
    if promise_share:
        rows, unused[SPARE] = _set_aside(cache, rows, promise_share, target)
    counts = {
        "without features": int((~ok).sum()),
        "without label": int((ok & ~labelled).sum()),
        "without split": int((ok & labelled & ~in_split).sum()),
    }
    tensors = {split: torch.from_numpy(numbers) for split, numbers in rows.items()}
    unused = {**counts, **unused}
    group = numbered(regions.group)
    return TrainingData(hierarchy, tensors, target, cache.signs, unused, group)


def _hierarchy(name: str) -> Hierarchy:
    if not name:
        raise HierarchyError("name a hierarchy: --hierarchy NAME or a file")
    return load_hierarchy(name)


def _drawn(cache: Cache, rows: Ints, target: Target, share: float, seed: int) -> tuple[Ints, int]:
    """Draw a share of the training rows, in whole groups and of each label; returns how many are left as well."""
    regions = cache.table.regions
    drawn = nested_share(regions.id[rows], regions.group[rows], label_numbers(target, rows), share, seed)
    return rows[drawn], int((~drawn).sum())


def _set_aside(cache: Cache, rows: Mapping[str, Ints], share: float, target: Target) -> tuple[dict[str, Ints], int]:
    """Set rows of validation aside that will prove a promise.

    They have no part in training, nor in any choice.

    They are drawn in whole groups. Of each, one row alone is kept: the rows of a group tell of each other, and a bound
    takes rows that do not.

    Returns:
        The rows of each split and those of the promise, which ascend; and how many are in none for their group's sake.

    Raises:
        RunError: none are set aside, or none with a leaf are left for validation.
    """
    val, regions = rows["val"], cache.table.regions
    name, group = regions.id[val], regions.group[val]
    unit = np.where(group == "", name, group)
    drawn = by_hash(unit, share)
    number = np.arange(len(val)) if (groups := numbered(group)) is None else groups
    aside = val[drawn][np.unique(number[drawn], return_index=True)[1]]
    left = val[~drawn]
    if not len(aside) or (target.leaf[left].numpy() < 0).all():
        raise RunError(
            f"{cache.path}: promise_share={share:g} sets {len(val) - len(left)} of the {len(val)} validation rows "
            "aside; some must be, and some whose label is a leaf must stay, to pick the epoch; give another share, or "
            "more validation rows"
        )
    return {**rows, "val": left, "promise": np.sort(aside)}, len(val) - len(left) - len(aside)


def find_target(cache: Cache, hierarchy: Hierarchy) -> Target:
    """Find the node that the label of each row names; without one there is none on any level.

    Raises:
        HierarchyError: the hierarchy lacks a node that a label names.
    """
    labels = cache.table.regions.label
    path = np.full((len(labels), len(hierarchy.levels)), -1, dtype=np.int64)
    path[labels != ""] = hierarchy.find(labels[labels != ""].tolist(), str(cache.meta.labels))
    return Target(torch.from_numpy(path), torch.from_numpy(hierarchy.leaf(path)))


def label_numbers(target: Target, rows: Ints) -> Ints:
    """Number the labels of n rows: a leaf by its own number, (n,), and inner nodes behind all leaves."""
    path, leaf = target.path[rows].numpy(), target.leaf.numpy()
    number = leaf[rows]
    inner = number < 0
    if inner.any():
        number[inner] = leaf.max() + 1 + np.unique(path[inner], axis=0, return_inverse=True)[1].ravel()
    return number


def _refuse_too_few(cache: Cache, rows: Mapping[str, Ints], target: Target) -> None:
    """Check that a head can be trained and tested.

    Args:
        cache: for the messages.
        rows: the usable ones of each split.
        target: of every row of the cache.

    Raises:
        RunError: a split is empty, val or test has no leaf, or the train split has one row or one label.
    """
    labels = cache.table.regions.label
    for split, numbers in rows.items():
        if len(numbers) == 0:
            raise RunError(f"{cache.path}: {_why_empty(cache, split)}")
        if split != "train" and (target.leaf[numbers] < 0).all():
            raise RunError(
                f"{cache.path}: no row of the {split} split has a leaf as its label, its {len(numbers)} rows have "
                f"inner nodes such as {labels[numbers[0]]}; accuracy is that of leaves, so label some of them by leaves"
            )
    if len(rows["train"]) < 2:
        raise RunError(f"{cache.path}: the train split has one row; batch normalisation needs two")
    if len(np.unique(label_numbers(target, rows["train"]))) < 2:
        raise RunError(
            f"{cache.path}: all {len(rows['train'])} rows of the train split have the label "
            f"{labels[rows['train'][0]]}; two labels are needed to train"
        )


def _why_empty(cache: Cache, split: str) -> str:
    """Why no row of a split can be used."""
    regions, ok = cache.table.regions, cache.table.ok
    inside = regions.split == split
    failed = [(regions.id[row], reason) for row, reason in cache.table.failures if inside[row] or not ok.any()]
    first = f"; the first is {failed[0][0]}: {failed[0][1]}" if failed else ""
    if len(ok) and not ok.any():
        return (
            f"no row has features, as all {len(ok)} images failed{first}; mend them, then run the same "
            "hfc extract again"
        )
    needed = "train, val (to select the epoch) and test rows are needed"
    if not inside.any():
        return f"the {split} split is empty; {needed}"
    unlabelled, inner = inside & ok & (regions.label == ""), inside & ok & (regions.label != "")
    without = f"{int((inside & ~ok).sum())} without features, {int(unlabelled.sum())} without label"
    without += f", {int(inner.sum())} {INNER}" if inner.any() else ""
    return f"the {split} split is empty: its {int(inside.sum())} rows are left out, {without}{first}; {needed}"


def fold_data(data: TrainingData, folds: int) -> list[TrainingData]:
    """Deal training and validation rows out anew, for cross-validation.

    Each fold is for validation once, the others then for training. No row of the test split is in any. No group is in
    two folds, and each label gives each fold its share.

    Raises:
        RunError: fewer rows or groups than folds, or a fold without a leaf as a label.
    """
    rows = torch.cat([data.rows["train"], data.rows["val"]]).sort().values
    group = None if data.group is None else data.group[rows]
    dealt = []
    for numbers in deal(label_numbers(data.target, rows.numpy()), group, folds):
        if (data.target.leaf[rows[numbers]] < 0).all():
            raise RunError(f"{folds} folds need a row each whose label is a leaf, for validation; give fewer folds")
        held = torch.zeros(len(rows), dtype=torch.bool)
        held[torch.from_numpy(numbers)] = True
        dealt.append(replace(data, rows={"train": rows[~held], "val": rows[held], "test": rows[:0]}))
    return dealt
