"""A run's folder: training writes it, and a report reads it without torch.

config.toml         the resolved settings; `hfc train CACHE --config` takes them back
hierarchy.csv       the category tree
metrics.jsonl       a line an epoch: `Epoch`
result.json         every test metric, other β and inner nodes, where it all came from, and how long it took: `Result`
head.safetensors    the selected weights
predictions.h5      probabilities of every test row; beyond 1,000 leaves those of the best 20 and of the true one;
                    where labels are inner nodes, their paths

A field with a default was not written by older versions.
"""

import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Self

from hfc.config import SPLITS
from hfc.errors import HierarchyError, RunError
from hfc.hierarchy import Hierarchy, parse_hierarchy
from hfc.metrics import Metrics
from hfc.progress import steps
from hfc.store.promise import Promise
from hfc.store.records import REMEDY, CacheRecord, Code, Machine, OuterRecord, Record, Temperature

RESULT = "result.json"
METRICS = "metrics.jsonl"
HIERARCHY = "hierarchy.csv"
HEAD = "head.safetensors"
FILES = ("config.toml", HIERARCHY, METRICS, HEAD, "predictions.h5", RESULT)


@dataclass(frozen=True, kw_only=True)
class Epoch(Record):
    """A line of metrics.jsonl."""

    number: int = field(metadata={"key": "epoch"})
    """Counted from 1."""
    learning_rate: float | None = None  # of Adam
    l2: float | None = None
    inner_l2: int | None = None
    """The L2 strength of a point of `hfc.train.lbfgs`, in an epoch's place, and what multiplies it on inner nodes."""
    loss: Mapping[str, float]
    """The mean unweighted loss of each task, and `total`, their weighted sum."""
    weights: Mapping[str, float]
    """The weight of each task at the epoch's end."""
    val: Metrics
    """On validation: top-k accuracies and the metric that picks the epoch, of the picked one every metric.

    Empty where no rows are for it.
    """
    seconds: float
    train_seconds: float | None = None
    """Of these, those of training alone."""

    def to_json(self) -> bytes:
        """Write the line as it stands in the file."""
        return json.dumps(self.plain()).encode() + b"\n"


@dataclass(frozen=True, kw_only=True)
class TreeRecord(Record):
    """The category tree of a run in short; hierarchy.csv holds the whole."""

    name: str
    digest: str
    levels: tuple[str, ...]
    """Their names, coarse to fine."""
    sizes: tuple[int, ...]
    """Nodes on each level."""


@dataclass(frozen=True, kw_only=True)
class Rows(Record):
    """How many rows each split has, and how many are in none."""

    train: int
    val: int
    test: int
    unused: Mapping[str, int]
    """By reason."""
    inner: Mapping[str, int] = field(default_factory=dict)
    """How many of each split have an inner label; empty where every label is a leaf."""
    promise: int = 0
    """How many validation rows were set aside to prove a promise; `val` is without them."""

    def __str__(self) -> str:
        """Say how many rows are used, and how many are left out and why."""
        used = ", ".join(f"{getattr(self, split)} {split}{self._inner(split)}" for split in SPLITS)
        used += f", {self.promise} for the promise" if self.promise else ""
        left_out = ", ".join(f"{count} {reason}" for reason, count in self.unused.items() if count)
        return f"rows: {used}; left out: {left_out or 'none'}"

    def _inner(self, split: str) -> str:
        count = self.inner.get(split, 0)
        return f" ({count} with an inner label)" if count else ""


@dataclass(frozen=True, kw_only=True)
class Selected(Record):
    """The epoch whose weights were kept."""

    epoch: int
    metric: str
    """The validation metric that picked it."""
    val: Metrics


@dataclass(frozen=True, kw_only=True)
class BetaReading(Record):
    """The accuracy of a trained head at one β. `others` holds that of other k, by `top{k}`."""

    beta: float
    top1: float
    others: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Betas(Record):
    """Readings of a trained head at many β."""

    validation: tuple[BetaReading, ...]
    test: tuple[BetaReading, ...]
    best_on_validation: float


@dataclass(frozen=True, kw_only=True)
class ClimbReading(Record):
    """How good answers are that climb until a node has this confidence; see `metrics.climb`."""

    confidence: float
    specificity: float
    correct: float
    precision: float | None


@dataclass(frozen=True, kw_only=True)
class Seconds(Record):
    """How long a run took."""

    train: float
    total: float


@dataclass(frozen=True, kw_only=True)
class Settings(Record):
    """The settings of a run that its readers use; `others` holds the rest."""

    topk: tuple[int, ...]
    beta: float
    head: str
    epochs: int
    decode: str = "leaf"


@dataclass(frozen=True, kw_only=True)
class Result(Record):
    """Everything that result.json holds."""

    run: str
    """Its name."""
    key: str
    method: str
    seed: int
    changed: Mapping[str, object]
    """The settings in which it differs from its method as that ships."""
    config: Mapping[str, object]
    """Every setting, by the names of the version that trained it."""
    cache: CacheRecord
    hierarchy: TreeRecord
    rows: Rows
    selected: Selected
    loss_weights: Mapping[str, float]
    test: Metrics
    beta: Betas | None = None
    """None also where the head does not blend."""
    climb: tuple[ClimbReading, ...] | None = field(default=None, metadata={"key": "stopping"})
    """None also where the decoding gives no probabilities."""
    temperature: Temperature | None = None
    """None: nothing was calibrated."""
    promise: Promise | None = None
    """None: no rows were set aside for one."""
    outer: OuterRecord | None = None  # None: on the cache's own splits
    renamed: Mapping[str, str] = field(default_factory=dict)
    """New names of nodes by their old ones, where `hfc rename` made the run of another; the key is the other's."""
    seconds: Seconds
    machine: Machine
    code: Code
    versions: Mapping[str, str]
    """Of Python and the packages."""
    created: str

    @classmethod
    def read(cls, value: object, where: str, remedy: str = REMEDY) -> Self:
        """Read a result; damaged settings are named as well."""
        result = super().read(value, where, remedy)
        Settings.read(result.config, f"{where}: config", remedy)
        return result

    @cached_property
    def settings(self) -> Settings:
        """The settings of `config` that readers use."""
        return Settings.read(self.config, "config")

    @property
    def calibrated_by(self) -> float:
        """T; 1 where nothing was calibrated."""
        return self.temperature.value if self.temperature else 1.0

    def to_json(self) -> bytes:
        """Write the bytes of result.json."""
        text = json.dumps(self.plain(), indent=2, ensure_ascii=False) + "\n"
        # A path that is no UTF-8 holds surrogates; their escapes are those of JSON, which reads them back.
        return text.encode("utf-8", "backslashreplace")


@dataclass(frozen=True, repr=False)
class Run:
    """A finished run."""

    folder: Path
    result: Result
    epochs: tuple[Epoch, ...]
    parts: "tuple[Run, ...]" = ()  # of outer folds, which it pools

    def __repr__(self) -> str:
        """Return the folder and the accuracy on test: a list of runs can be read."""
        k = min(self.result.settings.topk)
        return f"<{self.folder}: test top-{k} {100 * self.result.test[f'top{k}']:.2f}>"


def hierarchy(run: Run) -> Hierarchy:
    """Read the category tree of a run. Its nodes are in the order of the predictions.

    Raises a RunError where it is missing, damaged, or another one.
    """
    file = run.folder / HIERARCHY
    try:
        tree = parse_hierarchy(run.result.hierarchy.name, str(file), io.StringIO(file.read_text("utf-8")))
    except PermissionError as error:
        raise closed(file, error) from error
    except (OSError, ValueError, HierarchyError) as error:
        raise RunError(f"{run.folder}: cannot read the run's hierarchy: {error}; train it again") from error
    if tree.digest != run.result.hierarchy.digest:
        raise RunError(f"{file}: not the hierarchy the run was trained with; train it again")
    return tree


def find(roots: Iterable[Path]) -> list[Run]:
    """Read the finished runs in some folders and below, in the order of their names.

    Raises:
        RunError: a folder is missing, holds no runs, or a run is damaged.
    """
    finished: dict[Path, Run] = {}
    for root in roots:
        if not root.is_dir():
            raise RunError(f"{root}: no such folder of runs; make runs with hfc train")
        results = sorted(path for path in _walk(root) if not path.parent.name.startswith("."))
        if not results:
            raise RunError(f"{root}: holds no finished runs (no {RESULT} in or below it); make some with hfc train")
        for path in steps(results, "reading runs"):
            finished.setdefault(path.parent.resolve(), read(path.parent))
    return list(finished.values())


def _walk(root: Path) -> Iterator[Path]:
    """Find the results in a folder and below. A closed folder is an error, as a run may lie in it."""

    def refuse(error: OSError) -> None:
        raise closed(Path(error.filename), error)

    for folder, _, names in os.walk(root, onerror=refuse):
        if RESULT in names:
            yield Path(folder) / RESULT


def closed(path: Path, error: OSError) -> RunError:
    """Make the error of a path that may not be read."""
    return RunError(f"{path}: cannot be read: {error.strerror or error}; ask its owner for permission to read it")


def read(folder: Path) -> Run:
    """Read one finished run. Raises a RunError if a file is missing or damaged."""
    try:
        content, lines = (folder / RESULT).read_bytes(), (folder / METRICS).read_bytes().splitlines()
    except PermissionError as error:
        raise closed(Path(error.filename), error) from error
    except OSError as error:
        raise RunError(f"{folder}: damaged run: {error!r}; train it again") from error
    epochs = [Epoch.from_json(line, f"{folder / METRICS}: line {number}") for number, line in enumerate(lines, 1)]
    return Run(folder, Result.from_json(content, str(folder / RESULT)), tuple(epochs))
