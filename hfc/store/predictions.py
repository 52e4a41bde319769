"""What heads predicted for rows; that of a run as a file.

Dimensions: N rows, H levels, C^h nodes on level h, C leaves, K nodes that are kept of a level.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hfc import metrics
from hfc.errors import StoreError
from hfc.hierarchy import Hierarchy
from hfc.regions import Strings
from hfc.store.files import (
    READ_ERRORS,
    atomically,
    create,
    get_attribute,
    get_text,
    put_array,
    put_attribute,
    put_text,
    view,
)
from hfc.store.records import CacheRecord
from hfc.store.table import Table

SCHEMA, SCHEMA_KEPT = 1, 2
MOST_LEAVES = 1000  # of trees whose probabilities are all kept
KEPT = 20

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Predictions:
    """What a run predicted for its test rows."""

    id: Strings
    """(N,) ids of the rows."""
    target: NDArray[np.int64]
    """(N,) true leaves; −1 where the label is an inner node."""
    levels: tuple[NDArray[np.float32], ...]
    """H arrays (N, C^h): probabilities of each level's own output, coarse to fine."""
    final: NDArray[np.float32]
    """(N, C): P_final over the leaves."""
    key: str = ""
    """Of their run; "" where a file does not say."""
    group: Strings | None = None
    """(N,) names of groups of rows, "" = a row by itself; None where no row has one, as in a file without them."""
    path: NDArray[np.int64] | None = None
    """(N, H) the nodes from the coarsest down to each label, −1 below it; None where every label is a leaf."""


@dataclass(frozen=True, eq=False)
class Kept:
    """The probabilities of each row's best nodes alone, where a level has thousands.

    Where a path ends above the level, there is no node: its rank is −1, and its probability NaN.
    """

    node: NDArray[np.int32]
    """(N, K) the most probable nodes, best first."""
    probability: Floats
    """(N, K)"""
    rank: NDArray[np.int32]
    """(N,) how many nodes come before the true one."""
    true: Floats
    """(N,) probability of the true node."""
    answer: Floats
    """(N,) probability of the node above the most probable leaf of P_final."""
    total: Floats
    """(N,) sum over all nodes."""


@dataclass(frozen=True)
class Shortened:
    """What is kept of a run's predictions where the tree has thousands of leaves."""

    id: Strings
    """(N,) as of `Predictions`, like all that follows."""
    target: NDArray[np.int64]
    levels: tuple[Kept, ...]
    final: Kept
    key: str = ""
    group: Strings | None = None
    path: NDArray[np.int64] | None = None


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What heads predicted for rows that they never saw: cross-validation over a whole cache."""

    cache: CacheRecord
    table: Table
    """All rows of the cache, with the labels in use."""
    hierarchy: Hierarchy
    predictions: Predictions
    """Of the judged rows, in the order of the cache. The target is the label; P_final is made to sum to 1."""
    lone: Strings
    """Ids of the rows with a leaf as a label that no head can judge, as no row outside their fold has their label."""
    settings: Mapping[str, object]
    """Of the trainings, as they were given."""
    folds: int
    inner: int = 0
    """How many rows have an inner node as a label; they are not judged."""


def shortened(predictions: Predictions, ancestors: NDArray[np.int64]) -> Predictions | Shortened:
    """Keep the best nodes alone where there are more than MOST_LEAVES leaves; else everything.

    Args:
        predictions: all of them.
        ancestors: (C, H) index of each leaf's ancestor on each level, −1 below the leaf.
    """
    target, final, path = predictions.target, predictions.final, predictions.path
    if final.shape[1] <= MOST_LEAVES:
        return predictions
    truth, answer = ancestors[target] if path is None else path, final.argmax(axis=1)
    columns = zip(predictions.levels, truth.T, ancestors[answer].T, strict=True)
    levels = tuple(_kept(level, true, answered) for level, true, answered in columns)
    best = _kept(final, target, answer)
    return Shortened(predictions.id, target, levels, best, predictions.key, predictions.group, path)


def _kept(probabilities: Floats, true: NDArray[np.int64], answer: NDArray[np.int64]) -> Kept:
    node = metrics.top(probabilities, KEPT)
    return Kept(
        node.astype(np.int32),
        np.take_along_axis(probabilities, node, axis=1),
        np.where(true < 0, -1, metrics.rank(probabilities, true)).astype(np.int32),
        _probability(probabilities, true),
        _probability(probabilities, answer),
        probabilities.sum(axis=1),
    )


def _probability(probabilities: Floats, node: NDArray[np.int64]) -> Floats:
    """Read the probability of a node of each row, (N,); NaN where there is none."""
    return np.where(node < 0, np.float32(np.nan), probabilities[np.arange(len(node)), node])


def count_kept(sizes: tuple[int, ...]) -> int:
    """Count the numbers that are kept of a row.

    Args:
        sizes: C^h of each level.
    """
    if sizes[-1] <= MOST_LEAVES:
        return sum(sizes) + sizes[-1]
    return sum(2 * min(size, KEPT) + 4 for size in (*sizes, sizes[-1]))


def write_predictions(path: Path, predictions: Predictions | Shortened) -> None:
    """Write a run's predictions, atomically. Raises StoreError if they cannot be written."""
    with atomically(path) as partial, create(partial) as file:
        file.attrs["schema"] = SCHEMA_KEPT if isinstance(predictions, Shortened) else SCHEMA
        put_attribute(file, "key", predictions.key)
        put_text(file, "id", predictions.id)
        put_array(file, "target", predictions.target)
        levels: tuple[Floats | Kept, ...] = predictions.levels
        for h, probabilities in enumerate(levels):
            _put(file, f"level/{h}", probabilities)
        _put(file, "final", predictions.final)
        if predictions.group is not None and (predictions.group != "").any():
            put_text(file, "group", predictions.group)
        if predictions.path is not None:
            put_array(file, "path", predictions.path)


def read_predictions(path: Path) -> Predictions | Shortened:
    """Read a run's predictions. Raises StoreError if they cannot be read."""
    try:
        with view(path) as file:
            kind = Shortened if isinstance(file["final"], h5py.Group) else Predictions
            return kind(
                id=get_text(file, "id"),
                target=file["target"][:],
                levels=tuple(_get(file[f"level/{h}"]) for h in range(len(file.get("level", ())))),
                final=_get(file["final"]),
                key=get_attribute(file, "key") if "key" in file.attrs else "",
                group=get_text(file, "group") if "group" in file else None,
                path=file["path"][:] if "path" in file else None,
            )
    except READ_ERRORS as error:
        raise StoreError(f"{path}: cannot read predictions: {error}") from error


def _put(file: h5py.File, name: str, probabilities: Floats | Kept) -> None:
    if isinstance(probabilities, Kept):
        for part in fields(Kept):
            put_array(file, f"{name}/{part.name}", getattr(probabilities, part.name))
    else:
        put_array(file, name, probabilities)


def _get(place: h5py.Dataset | h5py.Group) -> Any:
    """Read the probabilities of a level: all, or what is kept of them."""
    return (
        Kept(**{part.name: place[part.name][:] for part in fields(Kept)}) if isinstance(place, h5py.Group) else place[:]
    )
