"""A run's folder: what a training leaves behind and a report reads. Torch is not needed to read it.

config.toml         the resolved settings; `hfc train CACHE --config` takes them back
hierarchy.csv       the category tree
metrics.jsonl       a line an epoch
result.json         every test metric, other β and inner nodes, where it all came from, and how long it took
head.safetensors    the selected weights
predictions.h5      probabilities of every test row
"""

import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from hfc.errors import HierarchyError, RunError, StoreError, explained, in_the_way
from hfc.hierarchy import Hierarchy, parse_hierarchy
from hfc.progress import steps
from hfc.provenance import followed, make_folder, part, remove
from hfc.store import Predictions, write_predictions

RESULT = "result.json"
METRICS = "metrics.jsonl"
HIERARCHY = "hierarchy.csv"
HEAD = "head.safetensors"
FILES = ("config.toml", HIERARCHY, METRICS, HEAD, "predictions.h5", RESULT)


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path
    result: dict[str, Any]
    epochs: list[dict[str, Any]]
    """The lines of metrics.jsonl."""


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

    def epoch(self, line: Mapping[str, Any]) -> None:
        """Append an epoch's metrics."""
        with (self.folder / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def head(self, tensors: Mapping[str, NDArray[Any]], key: str) -> None:
        """Write the selected weights and the key of their run; equal weights give equal bytes."""
        arrays = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
        # Not save_file, whose files their owner alone may read.
        (self.folder / HEAD).write_bytes(save(arrays, {"key": key}))

    def predictions(self, predictions: Predictions) -> None:
        """Write the test predictions."""
        try:
            write_predictions(self.folder / "predictions.h5", predictions)
        except StoreError as error:  # what the system says is said of the run, like of its other files
            if isinstance(error.__cause__, OSError):
                raise error.__cause__ from None
            raise

    def result(self, result: Mapping[str, Any]) -> None:
        """Write the result."""
        text = json.dumps(result, indent=2, ensure_ascii=False) + "\n"
        # A path that is no UTF-8 holds surrogates; their escapes are those of JSON, which reads them back.
        (self.folder / RESULT).write_text(text, "utf-8", errors="backslashreplace")


@contextmanager
def writing(folder: Path) -> Iterator[RunWriter]:
    """Write a run's folder, which is there when the block ends well.

    An earlier run's files in the folder are replaced; whatever else lies there stays.

    Raises:
        RunError: the operating system refuses, or a file that is not a run's has the name of one.
    """
    target = followed(folder)
    partial = part(target)
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
    """Raise a RunError where a file in a folder has the name of a run's but is none."""
    if not folder.is_dir():
        return
    result = folder / RESULT
    mine = _is_result(result) or (not _is_json(result) and _key_of(folder / HEAD) is not None)
    for name in FILES:
        if (folder / name).exists() and not (mine and (folder / name).is_file()):
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
    """The key that the file of a head carries; None if it is none of hfc's."""
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


def hierarchy(run: Run) -> Hierarchy:
    """The category tree of a run, nodes in the order of its predictions.

    Raises:
        RunError: it is missing, damaged, or another one.
    """
    file = run.folder / HIERARCHY
    try:
        found = parse_hierarchy(run.result["hierarchy"]["name"], str(file), io.StringIO(file.read_text("utf-8")))
    except PermissionError as error:
        raise _closed(file, error) from error
    except (OSError, ValueError, HierarchyError) as error:
        raise RunError(f"{run.folder}: cannot read the run's hierarchy: {error}; train it again") from error
    if found.digest != run.result["hierarchy"]["digest"]:
        raise RunError(f"{file}: not the hierarchy the run was trained with; train it again")
    return found


def head(run: Run, name: str = HEAD) -> dict[str, NDArray[Any]]:
    """The selected weights of a run.

    Args:
        run: the run.
        name: the file in its folder that holds them.

    Raises:
        RunError: they are missing, damaged, or those of another run.
    """
    file = run.folder / name
    try:
        file.open("rb").close()  # safetensors calls a file that may not be read a missing one
        with safe_open(file, "numpy") as opened:
            key = (opened.metadata() or {}).get("key", "none")
            tensors = {tensor: opened.get_tensor(tensor) for tensor in opened.keys()}  # noqa: SIM118 (no mapping)
    except PermissionError as error:
        raise _closed(file, error) from error
    except (OSError, SafetensorError) as error:
        raise RunError(f"{file}: cannot read the head: {error}; train the run again") from error
    if key != run.result["key"]:
        raise RunError(f"{file}: the head of another run: expected key {run.result['key'][:12]}…, found {key[:12]}…")
    return tensors


def find(roots: Iterable[Path]) -> list[Run]:
    """The finished runs in some folders and below, in the order of their names.

    Raises:
        RunError: a folder is missing, holds no runs, or a run is damaged.
    """
    found: dict[Path, Run] = {}
    for root in roots:
        if not root.is_dir():
            raise RunError(f"{root}: no such folder of runs; make runs with hfc train")
        results = sorted(path for path in _walk(root) if not path.parent.name.startswith("."))
        if not results:
            raise RunError(f"{root}: holds no finished runs (no {RESULT} in or below it); make some with hfc train")
        for path in steps(results, "reading runs"):
            found.setdefault(path.parent.resolve(), read(path.parent))
    return list(found.values())


def _walk(root: Path) -> Iterator[Path]:
    """The results in a folder and below; a folder that may not be entered is an error, as a run may lie in it."""

    def refuse(error: OSError) -> None:
        raise _closed(Path(error.filename), error)

    for folder, _, names in os.walk(root, onerror=refuse):
        if RESULT in names:
            yield Path(folder) / RESULT


def _closed(path: Path, error: OSError) -> RunError:
    return RunError(f"{path}: cannot be read: {error.strerror or error}; ask its owner for permission to read it")


def read(folder: Path) -> Run:
    """One finished run.

    Raises:
        RunError: a file is missing or damaged.
    """
    try:
        result = json.loads((folder / RESULT).read_text("utf-8"))
        epochs = [json.loads(line) for line in (folder / METRICS).read_text("utf-8").splitlines()]
        if missing := {"run", "test", "key", "config", "cache", "hierarchy", "rows"} - set(result):
            raise KeyError(", ".join(sorted(missing)))
    except PermissionError as error:
        raise _closed(Path(error.filename), error) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder}: damaged run: {error!r}; train it again") from error
    return Run(folder, result, epochs)
