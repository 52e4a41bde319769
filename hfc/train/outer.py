"""Nested cross-validation: every labelled row is tested once, in one of several outer folds.

A fold is a cache with other splits. Its test rows are the fold; the rows of all other folds are dealt anew to training
and validation. Whatever chooses or trains then sees the others alone, as it does with the cache's own splits.

Dimension: n labelled rows.
"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hfc.config import SPLITS
from hfc.errors import ConfigError, RunError, warn_once
from hfc.hierarchy import canonical, some
from hfc.regions import strings
from hfc.store import Table
from hfc.store.records import OuterRecord
from hfc.train.draws import deal, numbered

logger = logging.getLogger(__name__)

VALIDATION = 8  # parts of the rows outside a fold; one of them is for validation

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class OuterFold:
    """An outer fold, and for which row of a comparison its runs are."""

    number: int
    """Counted from 0."""
    folds: int
    row: str = ""
    """Its name in the plan."""
    search: str = ""
    """Digest over what is searched for the row, and how."""
    searched: tuple[str, ...] = ()
    """Names of the settings that are."""

    @property
    def record(self) -> OuterRecord:
        """What a run keeps of it."""
        return OuterRecord(**vars(self))


def refuse_count(folds: int) -> None:
    """Raise a ConfigError for a number of outer folds that there cannot be."""
    if folds < 0 or folds == 1:
        raise ConfigError(f"--outer-folds: expected two or more, or 0 for the cache's own splits, found {folds}")


def with_splits_of(outer: OuterFold, table: Table, path: Path) -> Table:
    """Give the rows of a cache the splits of an outer fold.

    Rows without features, label or split stay as they are. Groups stay together, and each label gives each part its
    share. Which rows a fold tests depends on their ids, labels and groups, and never on what trains on the others.

    Args:
        outer: the fold.
        table: of the cache, with the labels in use.
        path: of the cache, for messages.

    Raises:
        ConfigError: a number of folds that there cannot be.
        RunError: fewer rows or groups than folds.
    """
    refuse_count(outer.folds)
    rows, label, group = _labelled(table)
    units = np.arange(len(rows)) if group is None else group
    what, count = _what(group), len(np.unique(units))
    if count < max(outer.folds, 3):
        wanted = f"{outer.folds} outer folds need as many labelled {what}, and three at least"
        raise RunError(f"{path}: {wanted}; found {count}")
    test = deal(label, group, outer.folds)[outer.number]
    rest = np.setdiff1d(np.arange(len(rows)), test)
    parts = min(VALIDATION, len(np.unique(units[rest])))
    validation = deal(label[rest], None if group is None else group[rest], parts)[0]
    split = table.regions.split.tolist()
    for name, places in (("train", rest), ("val", rest[validation]), ("test", test)):
        for row in rows[places].tolist():
            split[row] = name
    return replace(table, regions=replace(table.regions, split=strings(split)))


def warn_of_rare(outer: OuterFold, table: Table, path: Path) -> None:
    """Warn of labels that have fewer rows, or groups, than there are folds."""
    rows, label, group = _labelled(table)
    different = np.unique(np.stack([label, np.arange(len(rows)) if group is None else group]), axis=1)[0]
    names = dict(zip(label.tolist(), table.regions.label[rows].tolist(), strict=True))
    rare = [names[number] for number, count in enumerate(np.bincount(different)) if count < outer.folds]
    if rare:
        warn_once(
            logger,
            f"{path}: {len(rare)} of {len(names)} labels have fewer {_what(group)} than the {outer.folds} outer folds, "
            f"so that some folds test none of them: {some(rare)}",
        )


def _labelled(table: Table) -> tuple[Ints, Ints, Ints | None]:
    """Find the rows with features, a label and a split; returns numbers of their labels and groups, (n,), as well."""
    regions = table.regions
    rows = np.flatnonzero(table.ok & (regions.label != "") & np.isin(regions.split, SPLITS))
    label = np.unique([canonical(name) for name in regions.label[rows].tolist()], return_inverse=True)[1]
    return rows, label.astype(np.int64), numbered(regions.group[rows])


def _what(group: Ints | None) -> str:
    return "rows" if group is None else "groups of rows"
