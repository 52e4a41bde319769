"""A run's folder while it is written. Its name is temporary until the run is whole."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from hfc.errors import StoreError, explained, in_the_way
from hfc.provenance import followed, make_folder, remove, temporary
from hfc.runs import FILES, HEAD, HIERARCHY, METRICS, RESULT, Epoch, Result
from hfc.store import Predictions, Shortened, write_predictions


class RunWriter:
    """A run's folder while it is being written, under a temporary name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def config(self, toml: str) -> None:
        """Write the resolved settings."""
        (self.folder / "config.toml").write_text(toml, "utf-8")

    def hierarchy(self, csv: str) -> None:
        """Write the category tree."""
        (self.folder / HIERARCHY).write_text(csv, "utf-8")

    def epochs(self, epochs: Iterable[Epoch]) -> None:
        """Write a line for each epoch."""
        (self.folder / METRICS).write_bytes(b"".join(epoch.to_json() for epoch in epochs))

    def head(self, tensors: Mapping[str, NDArray[Any]], key: str) -> None:
        """Write the selected weights and the key of their run; equal weights give equal bytes."""
        arrays = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
        # Not save_file, whose files their owner alone may read.
        (self.folder / HEAD).write_bytes(save(arrays, {"key": key}))

    def predictions(self, predictions: Predictions | Shortened) -> None:
        """Write the test predictions."""
        try:
            write_predictions(self.folder / "predictions.h5", predictions)
        except StoreError as error:  # what the system refuses is the run's error, as with its other files
            if isinstance(error.__cause__, OSError):
                raise error.__cause__ from None
            raise

    def result(self, result: Result) -> None:
        """Write the result."""
        (self.folder / RESULT).write_bytes(result.to_json())


@contextmanager
def writing(folder: Path) -> Iterator[RunWriter]:
    """Write a run's folder; it gets its name when the block ends well.

    An earlier run's files in the folder are replaced; whatever else lies there stays.

    Raises:
        RunError: the operating system refuses, or a file that is not a run's has the name of one.
    """
    target = followed(folder)
    partial = temporary(target)
    with explained(folder, "the run"):
        try:
            _refuse_others(folder)
            make_folder(target.parent)
            remove(partial)
            partial.mkdir()
            yield RunWriter(partial)
            _refuse_others(folder)
            _move(partial, target)
        finally:
            remove(partial)


def _refuse_others(folder: Path) -> None:
    """Refuse a file that has the name of a run's but is none. Raises a RunError."""
    if not folder.is_dir():
        return
    result = folder / RESULT
    own = _is_result(result) or (not _is_json(result) and _key_of(folder / HEAD) is not None)
    for name in FILES:
        if (folder / name).exists() and not (own and (folder / name).is_file()):
            raise in_the_way(folder / name)


def _is_json(file: Path) -> bool:
    try:
        json.loads(file.read_bytes())
    except (OSError, ValueError):
        return False
    return True


def _is_result(file: Path) -> bool:
    try:
        return {"run", "key"} <= set(json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError):
        return False


def _key_of(head: Path) -> str | None:
    """Read the key in a head's file; None if hfc did not write it."""
    try:
        with safe_open(head, "numpy") as opened:
            return (opened.metadata() or {}).get("key")
    except (OSError, SafetensorError):
        return None


def _move(partial: Path, folder: Path) -> None:
    """Put a run in its place. Its result goes first and comes last: a run is finished when that is there."""
    if not folder.exists() or not any(folder.iterdir()):
        partial.replace(folder)
        return
    (folder / RESULT).unlink(missing_ok=True)
    for name in FILES:
        if (partial / name).exists():
            (partial / name).replace(folder / name)
