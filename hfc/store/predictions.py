"""What heads predicted for rows; that of a run as a file. Dimensions: N rows, C^h nodes on level h, C leaves."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

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

SCHEMA = 1


@dataclass(frozen=True)
class Predictions:
    """What a run predicted for its test rows."""

    id: Strings
    """(N,) ids of the rows."""
    target: NDArray[np.int64]
    """(N,) true leaves."""
    levels: tuple[NDArray[np.float32], ...]
    """H arrays (N, C^h): probabilities of each level's own output, coarse to fine."""
    final: NDArray[np.float32]
    """(N, C): P_final over the leaves."""
    key: str = ""
    """Of their run; "" where a file does not say."""
    group: Strings | None = None
    """(N,) names of groups of rows, "" = a row by itself; None where no row has one, as in a file without them."""


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
    """Ids of the labelled rows that no head can judge, as no row outside their fold has their label."""
    settings: Mapping[str, object]
    """Of the trainings, as they were given."""
    folds: int


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write a run's predictions, atomically. Raises StoreError if they cannot be written."""
    with atomically(path) as partial, create(partial) as file:
        file.attrs["schema"] = SCHEMA
        put_attribute(file, "key", predictions.key)
        put_text(file, "id", predictions.id)
        put_array(file, "target", predictions.target)
        for h, probabilities in enumerate(predictions.levels):
            put_array(file, f"level/{h}", probabilities)
        put_array(file, "final", predictions.final)
        if predictions.group is not None and (predictions.group != "").any():
            put_text(file, "group", predictions.group)


def read_predictions(path: Path) -> Predictions:
    """Read a run's predictions. Raises StoreError if they cannot be read."""
    try:
        with view(path) as file:
            return Predictions(
                id=get_text(file, "id"),
                target=file["target"][:],
                levels=tuple(file[f"level/{h}"][:] for h in range(len(file.get("level", ())))),
                final=file["final"][:],
                key=get_attribute(file, "key") if "key" in file.attrs else "",
                group=get_text(file, "group") if "group" in file else None,
            )
    except READ_ERRORS as error:
        raise StoreError(f"{path}: cannot read predictions: {error}") from error
