"""Search for settings: grid (as the paper did) or random, on the validation split or by cross-validation.

The test split is never looked at.
"""

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import tomli_w

from hfc import parallel, provenance
from hfc.config import TrainConfig, read_toml, resolve
from hfc.errors import ConfigError, DivergedError, RunError, in_the_way
from hfc.metrics import nested
from hfc.provenance import is_sealed, make_folder, replacing, sealed
from hfc.store.records import CacheRecord
from hfc.train import stage
from hfc.train.data import Task, announce, fold, open_cache, same_cache
from hfc.train.fit import settle
from hfc.train.settings import refuse_unused
from hfc.train.stacked import fit_all, groups

TRIALS = "trials.jsonl"
BEST = "best.toml"
TRIAL = b'{"key": "'  # how each line of the trials begins
NOT_SEARCHED = {
    "device": "all points share one",
    "checkpoint_seconds": "it shapes no number",
    "select": "it is what points are compared by",
}


@dataclass(frozen=True)
class Sweep:
    """What to try, as a TOML file says it.

    Top level: `seeds` (a list), `folds` (of cross-validation over training and validation rows; without it the
    validation split judges), `trials` (how many points of a random search), and any setting that stays fixed.
    [grid]: a list of values for each setting; every combination is tried.
    [random]: for a setting a list to choose from, or { low, high, log }; `trials` points are drawn.
    """

    fixed: Mapping[str, object]
    points: tuple[Mapping[str, object], ...]
    seeds: tuple[int, ...]
    folds: int = 0
    """Of cross-validation; 0: the validation split judges."""

    @property
    def parts(self) -> Sequence[int | None]:
        """The folds by number; None for the cache's own splits."""
        return range(self.folds) if self.folds else [None]

    @property
    def trainings(self) -> int:
        """How many trainings it takes."""
        return len(self.points) * len(self.seeds) * len(self.parts)


@dataclass(frozen=True)
class Trial:
    """One point of the search, over all its seeds and folds."""

    settings: dict[str, Any]
    """The settings that were searched."""
    score: float
    """Mean over seeds and folds of the selection metric on validation."""
    spread: float
    """Sample standard deviation over seeds, of each seed's mean over folds; 0 for one seed."""
    failed: str = ""
    """Why one of its trainings failed, if one did; then score and spread are NaN."""


def read_sweep(file: Path) -> Sweep:
    """What to try.

    Raises:
        ConfigError: the file cannot be read, or does not say what to try.
    """
    return parse_sweep(file, read_toml(file))


def parse_sweep(file: Path, content: Mapping[str, object]) -> Sweep:
    """What to try, of what a TOML file holds; `file` is its name, for messages. Raises as `read_sweep` does."""
    content = dict(content)
    seeds, count = parse_seeds(file, "seeds", content.pop("seeds", [0])), content.pop("trials", 0)
    folds, grid, random = content.pop("folds", 0), content.pop("grid", {}), content.pop("random", {})
    if type(folds) is not int or folds == 1 or folds < 0:
        raise ConfigError(f"{file}: folds: expected two or more, or 0 for the validation split, found {folds!r}")
    if not isinstance(grid, dict) or not isinstance(random, dict) or not (grid or random):
        raise ConfigError(f"{file}: expected a table [grid] or [random] of the settings to search")
    known = {f.name for f in fields(TrainConfig)} - {"seed"}
    if unknown := next((key for key in (*content, *grid, *random) if key not in known), None):
        raise ConfigError(f"{file}: {unknown} is no setting that can be searched or fixed; see hfc train --help")
    if fixed := next((key for key in (*grid, *random) if key in NOT_SEARCHED), None):
        raise ConfigError(f"{file}: {fixed} cannot be searched, as {NOT_SEARCHED[fixed]}; give it at the top level")
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*_axes(file, grid))]
    if random:
        if type(count) is not int or count < 1:
            raise ConfigError(f"{file}: trials: expected how many points to draw, found {count!r}")
        points = [point | drawn for point in points for drawn in _draws(file, random, count)]
    for point in points:
        try:
            refuse_unused(resolve(TrainConfig, content, point))
        except ConfigError as error:
            raise ConfigError(f"{file}: {error}") from error
    return Sweep(content, tuple(points), seeds, folds)


def parse_seeds(file: Path, name: str, seeds: object) -> tuple[int, ...]:
    """A list of seeds in a TOML file. Raises a ConfigError if it is none."""
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise ConfigError(f"{file}: {name}: expected a list of integers, found {seeds!r}")
    return tuple(seeds)


def _axes(file: Path, grid: Mapping[str, object]) -> Iterator[list[object]]:
    for name, values in grid.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"{file}: [grid] {name}: expected a list of values, found {values!r}")
        yield values


def _draws(file: Path, random: Mapping[str, object], count: int) -> Iterator[dict[str, object]]:
    """Points of a random search; the same file gives the same ones."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield {name: _draw(file, name, spec, rng) for name, spec in random.items()}


def _draw(file: Path, name: str, spec: object, rng: np.random.Generator) -> object:
    match spec:
        case [_, *_]:
            return spec[int(rng.integers(len(spec)))]
        case {"low": int() | float() as low, "high": int() | float() as high, **more} if low < high:
            log = more.get("log", False)
            if not log or low > 0:
                value = math.exp(rng.uniform(math.log(low), math.log(high))) if log else rng.uniform(low, high)
                return round(value) if type(low) is int and type(high) is int else float(f"{value:.4g}")
    raise ConfigError(f"{file}: [random] {name}: expected a list, or low < high and optionally log, found {spec!r}")


def sweep(
    cache: Path,
    plan: Sweep,
    out: Path,
    *,
    labels: Path | None = None,
    allow_unlabelled: bool = False,
    stream: bool = False,
    jobs: int = 1,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> list[Trial]:
    """Try every point with every seed, on every fold, and write what was found.

    `out` gets `trials.jsonl`, a line for each training, from which an interrupted sweep goes on, and `best.toml`,
    which `hfc train --config` takes.

    Args:
        cache: a feature cache.
        plan: what to try.
        out: a folder.
        labels: other labels for the cache, joined by id.
        allow_unlabelled: even if most rows of a split have none.
        stream: leave the features on the disk.
        jobs: processes, each with the features in its memory; on a cluster inside `hfc.parallel.on`.
        report: called with how many trainings are done, of how many.

    Returns:
        The points, the best first; last those of which a training diverged. They are not tried again.

    Raises:
        HfcError: cache, hierarchy and settings do not fit each other, the disk refuses, or every point failed.
    """
    configs = [resolve(TrainConfig, plan.fixed, point, {"seed": seed}) for point in plan.points for seed in plan.seeds]
    where = {"device": configs[0].device, "labels": labels, "allow_unlabelled": allow_unlabelled, "stream": stream}
    opened = open_cache(cache, **where)
    whole: list[str] = []
    by_tree: dict[str, Task] = {}
    for config in configs:
        task, settled = stage.check(opened, config)
        by_tree.setdefault(task.hierarchy.digest, task)
        whole.append(stage.run_key(opened, task, settled))
    announce(opened, by_tree.values(), warn=True)
    keys = {(i, part): _key(key, part, plan.folds) for i, key in enumerate(whole) for part in plan.parts}
    try:
        make_folder(out)
        for name, ours in ((TRIALS, _is_trials), (BEST, is_sealed)):
            if (out / name).exists() and not ours(out / name):
                raise in_the_way(out / name)
        lines = _read_trials(out / TRIALS)
        report(sum(key in lines for key in keys.values()), len(keys))
        calls = []
        for part in plan.parts:
            todo = {keys[i, part]: config for i, config in enumerate(configs) if keys[i, part] not in lines}
            names, waiting = list(todo), list(todo.values())
            for group in groups(waiting):
                named = {names[i]: waiting[i] for i in group}
                calls.append(joblib.delayed(_score)(cache, where, opened.meta, part, plan.folds, named))
        _end_last_line(out / TRIALS)
        with (out / TRIALS).open("a", encoding="utf-8") as file:
            for found in parallel.run(calls, jobs, ordered=False):
                lines |= {line["key"]: line for line in found}
                file.writelines(json.dumps(line) + "\n" for line in found)
                file.flush()
                report(sum(key in lines for key in keys.values()), len(keys))
        trials = _trials(plan, [lines[key] for key in keys.values()])
        if trials[0].failed:
            raise DivergedError(f"{out}: all {len(trials)} points failed; the first one: {trials[0].failed}")
        with replacing(out / BEST, "the sweep", is_sealed) as partial:
            partial.write_text(sealed(tomli_w.dumps({**plan.fixed, **trials[0].settings}), "#"), "utf-8")
    except OSError as error:
        raise RunError(f"{out}: the sweep cannot be written: {error}") from error
    finally:
        open_cache.cache_clear()
    return trials


def _key(key: str, part: int | None, folds: int) -> str:
    """Of a run's key, the key of its training on a fold."""
    return key if part is None else provenance.digest([key, part, folds])


def _trials(plan: Sweep, lines: Sequence[Mapping[str, Any]]) -> list[Trial]:
    """The points with their scores over seeds and folds, the best first; of equals the one listed first."""
    scores = np.array([line.get("score", math.nan) for line in lines], dtype=np.float64)
    rows = scores.reshape(len(plan.points), len(plan.seeds), len(plan.parts)).mean(axis=2)
    spread = rows.std(axis=1, ddof=1) if rows.shape[1] > 1 else np.where(np.isnan(rows[:, 0]), math.nan, 0.0)
    order = np.argsort(-rows.mean(axis=1), kind="stable")  # NaN comes last
    each = len(plan.seeds) * len(plan.parts)
    reasons = [
        next((line["failed"] for line in lines[i * each : (i + 1) * each] if "failed" in line), "")
        for i in range(len(plan.points))
    ]
    return [Trial(dict(plan.points[i]), float(rows[i].mean()), float(spread[i]), reasons[i]) for i in order]


def _is_trials(file: Path) -> bool:
    """Whether a sweep wrote a file, perhaps only the beginning of its first line."""
    with file.open("rb") as opened:
        beginning = opened.read(len(TRIAL))
    return TRIAL.startswith(beginning)


def _read_trials(file: Path) -> dict[str, dict[str, Any]]:
    """The finished trainings by key; a line cut short by a kill is left out."""
    lines: dict[str, dict[str, Any]] = {}
    if file.exists():
        for text in file.read_text("utf-8").splitlines():
            try:
                line = json.loads(text)
                if "score" in line or "failed" in line:
                    lines[line["key"]] = line
            except (ValueError, KeyError, TypeError):
                continue
    return lines


def _end_last_line(file: Path) -> None:
    """A kill can leave half a line; what is written next must not be joined to it."""
    if file.exists() and (text := file.read_bytes()) and not text.endswith(b"\n"):
        file.write_bytes(text + b"\n")


def _score(
    cache: Path,
    where: dict[str, Any],
    known: CacheRecord,
    part: int | None,
    folds: int,
    named: Mapping[str, TrainConfig],
) -> list[dict[str, Any]]:
    """Train some points once, and say how they did on what is held out, or why they failed.

    Args:
        cache, where, known: as for `same_cache`.
        part, folds: the fold, None for the cache's own splits.
        named: the settings of each point by key.
    """
    opened = same_cache(cache, where, known)
    first, config = next(iter(named.items()))
    task, settled = stage.check(opened, config)
    if _key(stage.run_key(opened, task, settled), part, folds) != first:
        raise RunError(f"{config.hierarchy}: was changed while the sweep ran; run the command again")
    if part is not None:
        task = fold(task, part, folds)
    waiting = {key: settle(config, task) for key, config in named.items()}
    about = {
        key: {
            "key": key,
            "seed": config.seed,
            **({} if part is None else {"fold": part}),
            "changed": stage.changed_settings(config, task),
        }
        for key, config in waiting.items()
    }
    failed: list[dict[str, Any]] = []
    while waiting:
        try:
            fits = fit_all(opened.features, task, list(waiting.values()))
        except DivergedError as error:
            key = next(key for key, config in waiting.items() if config == error.config)
            failed.append({**about[key], "failed": str(error)})
            del waiting[key]  # those beside it are trained without it
            continue
        return failed + [
            {**about[key], "score": fit.best.val[config.select], "epoch": fit.best.epoch, "val": nested(fit.best.val)}
            for (key, config), fit in zip(waiting.items(), fits, strict=True)
        ]
    return failed
