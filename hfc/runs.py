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
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from hfc.errors import HierarchyError, RunError, StoreError
from hfc.hierarchy import Hierarchy, parse_hierarchy
from hfc.progress import steps
from hfc.store import Predictions, write_predictions

RESULT = "result.json"
METRICS = "metrics.jsonl"
HIERARCHY = "hierarchy.csv"
HEAD = "head.safetensors"


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
        save_file(arrays, self.folder / HEAD, metadata={"key": key})

    def predictions(self, predictions: Predictions) -> None:
        """Write the test predictions."""
        write_predictions(self.folder / "predictions.h5", predictions)

    def result(self, result: Mapping[str, Any]) -> None:
        """Write the result."""
        text = json.dumps(result, indent=2, ensure_ascii=False) + "\n"
        # A path that is no UTF-8 holds surrogates; their escapes are those of JSON, which reads them back.
        (self.folder / RESULT).write_text(text, "utf-8", errors="backslashreplace")


@contextmanager
def replacing(path: Path, what: str) -> Iterator[Path]:
    """A temporary name beside `path`, for a file or a folder that takes its place when the block ends well.

    Args:
        path: what is written; nothing of it is left when the block fails.
        what: its name in an error: "the run".

    Raises:
        RunError: the operating system refuses.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove(partial)
            yield partial
            if path.is_dir():
                shutil.rmtree(path)
            partial.replace(path)
        finally:
            _remove(partial)
    except UnicodeEncodeError as error:
        shown = error.object[max(error.start - 40, 0) : error.end + 40].encode("utf-8", "backslashreplace").decode()
        raise RunError(f"{path}: {what} cannot be written: {shown!r} is no text in UTF-8") from error
    except (OSError, StoreError) as error:
        raise RunError(f"{path}: {what} cannot be written: {getattr(error, 'strerror', None) or error}") from error


def _remove(partial: Path) -> None:
    if partial.is_dir():
        shutil.rmtree(partial, ignore_errors=True)
    else:
        partial.unlink(missing_ok=True)


@contextmanager
def writing(folder: Path) -> Iterator[RunWriter]:
    """Write a run's folder, which is there when the block ends well; raises as `replacing` does."""
    with replacing(folder, "the run") as partial:
        partial.mkdir()
        yield RunWriter(partial)


def hierarchy(run: Run) -> Hierarchy:
    """The category tree of a run, nodes in the order of its predictions.

    Raises:
        RunError: it is missing, damaged, or another one.
    """
    file = run.folder / HIERARCHY
    try:
        found = parse_hierarchy(run.result["hierarchy"]["name"], str(file), io.StringIO(file.read_text("utf-8")))
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
        with safe_open(file, "numpy") as opened:
            key = (opened.metadata() or {}).get("key", "none")
            tensors = {tensor: opened.get_tensor(tensor) for tensor in opened.keys()}  # noqa: SIM118 (no mapping)
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
        results = sorted(path for path in root.rglob(RESULT) if not path.parent.name.startswith("."))
        if not results:
            raise RunError(f"{root}: holds no finished runs (no {RESULT} in or below it); make some with hfc train")
        for path in steps(results, "reading runs"):
            found.setdefault(path.parent.resolve(), read(path.parent))
    return list(found.values())


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
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder}: damaged run: {error!r}; train it again") from error
    return Run(folder, result, epochs)
