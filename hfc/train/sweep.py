"""Search for settings, on the validation split or by cross-validation.

The test split is never looked at.
"""

import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Unpack

import joblib
import numpy as np
import tomli_w

from hfc import parallel, provenance
from hfc.config import TrainConfig
from hfc.errors import DivergedError, RunError, in_the_way
from hfc.metrics import metric
from hfc.progress import bar
from hfc.provenance import is_sealed, make_folder, replacing, sealed
from hfc.store.records import CacheRecord, nested
from hfc.train.cache import Cache, CacheSource, Reading, cache_source, open_cache, same_cache
from hfc.train.data import TrainingData, fold_data
from hfc.train.groups import fit_group, groups, surviving
from hfc.train.jobs import choose_crew, longest_first
from hfc.train.notices import OnRows, announce
from hfc.train.plan import Sweep, config_of
from hfc.train.prepared import PreparedRun, changed_settings, prepare_runs
from hfc.train.settling import left_to_data, settle
from hfc.train.training import Fitted

TRIALS = "trials.jsonl"
BEST = "best.toml"
TRIAL = b'{"key": "'  # how each line of the trials begins


@dataclass(frozen=True)
class PointRun:
    """A run of a search: a point with a seed, on a fold."""

    key: str
    fold: int | None
    """None: on the cache's own splits."""
    data: TrainingData
    config: TrainConfig
    """The settings, settled for these rows."""


@dataclass(frozen=True)
class Trial:
    """One point of the search, over all its seeds and folds."""

    settings: Mapping[str, object]
    """The settings that were searched."""
    score: float
    """Mean over seeds and folds of the selection metric on validation."""
    spread: float
    """Sample standard deviation over seeds, of each seed's mean over folds; 0 for one seed."""
    failed: str = ""
    """Why one of its trainings failed, if one did; then score and spread are NaN."""

    def to_json(self) -> dict[str, object]:
        """The point as a JSON object, which has no NaN."""
        unknown = {"score": None, "spread": None} if self.failed else {}
        return {**asdict(self), **unknown}


def sweep(
    cache: Path, plan: Sweep, out: Path, *, jobs: int = 1, on_rows: OnRows | None = None, **reading: Unpack[Reading]
) -> list[Trial]:
    """Try every point with every seed, on every fold, and write how each did.

    `out` gets `trials.jsonl`, a line for each training, from which an interrupted sweep goes on, and `best.toml`,
    which `hfc train --config` takes.

    Args:
        cache: a feature cache.
        plan: what to try.
        out: a folder.
        jobs: processes; 0: by what the trainings compute, see `hfc.train.jobs`; on a cluster inside `hfc.parallel.on`.
        on_rows: as for `hfc.train.notices.announce`, as no result says which rows were used.
        reading: how the cache is read, by the arguments of `load_cache`.

    Returns:
        The points, the best first; last those of which a training diverged. They are not tried again.

    Raises:
        HfcError: cache, hierarchy and settings do not fit each other, the disk refuses, or every point failed.
    """
    configs = [config_of(plan.fixed, point, seed) for point in plan.points for seed in plan.seeds]
    source = cache_source(cache, configs[0].device, jobs != 1 and plan.trainings > 1, **reading)
    try:
        opened = open_cache(source)
        runs = prepare_runs(opened, configs)
        announce(cache, {id(run.data): run.data for run in runs}.values(), on_rows)
        keyed = list(zip(configs, runs, strict=True))
        keys = [_key(config, run.key, fold, plan.folds) for config, run in keyed for fold in plan.fold_numbers]
        lines = _begin(out)
        # By all trainings, done or not: an interrupted search goes on with as many threads.
        whole, waiting = (list(_waiting(plan, configs, runs, opened, done)) for done in ((), lines.keys()))
        _search(out / TRIALS, keys, lines, _scores(source, opened, waiting, choose_crew(jobs, whole, opened)))
        trials = _trials(plan, [lines[key] for key in keys])
        if trials[0].failed:
            raise DivergedError(f"{out}: all {len(trials)} points failed; the first one: {trials[0].failed}")
        with replacing(out / BEST, "the sweep", is_sealed) as partial:
            partial.write_text(sealed(tomli_w.dumps({**plan.fixed, **trials[0].settings}), "#"), "utf-8")
    except OSError as error:
        raise RunError(f"{out}: the sweep cannot be written: {error}") from error
    finally:
        open_cache.cache_clear()
    return trials


def _scores(
    source: CacheSource, cache: Cache, waiting: Sequence[Sequence[PointRun]], crew: parallel.Crew
) -> Iterator[list[dict[str, Any]]]:
    """Train groups of points; yields their lines as they come."""
    order = longest_first(waiting, cache) if crew.jobs > 1 else range(len(waiting))
    shared = source.attached(cache, crew.jobs)
    calls = [joblib.delayed(_score)(shared, cache.meta, waiting[i]) for i in order]
    return parallel.run(calls, crew, ordered=False)


def _key(config: TrainConfig, key: str, fold: int | None, folds: int) -> str:
    """Of a run's key, the key of its training on a fold.

    What is left to the data may come out otherwise there, so this is a part of it.
    """
    return key if fold is None else provenance.digest([key, fold, folds, left_to_data(config)])


def _begin(out: Path) -> dict[str, dict[str, Any]]:
    """Make the folder of a sweep, and read an earlier call's lines by key.

    Raises:
        RunError: a file that no sweep wrote has the name of one that it writes.
    """
    make_folder(out)
    for name, is_own in ((TRIALS, _is_trials), (BEST, is_sealed)):
        if (out / name).exists() and not is_own(out / name):
            raise in_the_way(out / name)
    return _read_trials(out / TRIALS)


def _waiting(
    plan: Sweep,
    configs: Sequence[TrainConfig],
    runs: Sequence[PreparedRun],
    cache: Cache,
    done: Collection[str],
) -> Iterator[list[PointRun]]:
    """List the runs that are not done yet, in groups that are trained together.

    Args:
        plan: names the folds.
        configs: of every run, the settings as they were given.
        runs: the same, on the cache's own splits.
        cache: the features.
        done: the keys of the runs that are done.
    """
    dealt: dict[int, list[TrainingData]] = {}  # the folds of each table
    for fold in plan.fold_numbers:
        waiting: dict[str, tuple[TrainConfig, PointRun]] = {}
        for config, run in zip(configs, runs, strict=True):
            key = _key(config, run.key, fold, plan.folds)
            if key in done:
                continue
            if fold is None:
                waiting[key] = config, PointRun(key, None, run.data, run.config)
                continue
            if id(run.data) not in dealt:
                dealt[id(run.data)] = fold_data(run.data, plan.folds)
            data = dealt[id(run.data)][fold]
            waiting[key] = config, PointRun(key, fold, data, settle(config, data, cache.features.device))
        point_runs = [point_run for _, point_run in waiting.values()]
        for group in groups([config for config, _ in waiting.values()]):
            yield [point_runs[i] for i in group]


def _search(
    file: Path, keys: Sequence[str], lines: dict[str, dict[str, Any]], results: Iterable[Sequence[dict[str, Any]]]
) -> None:
    """Write a line for each training as it ends, and add it to `lines`."""
    _end_last_line(file)
    with bar("search", unit="run") as shown, file.open("a", encoding="utf-8") as stream:
        shown.show(sum(key in lines for key in keys), len(keys))
        for scored in results:
            lines |= {line["key"]: line for line in scored}
            stream.writelines(json.dumps(line) + "\n" for line in scored)
            stream.flush()
            shown.show(sum(key in lines for key in keys), len(keys))


def _score(source: CacheSource, known: CacheRecord, group: Sequence[PointRun]) -> list[dict[str, Any]]:
    """Train the points of a group once, in any process; returns their lines.

    Args:
        source, known: as for `same_cache`.
        group: on one fold.
    """
    features, data = same_cache(source, known).features, group[0].data
    outcomes = surviving([run.config for run in group], lambda configs: fit_group(features, data, configs))
    return [_line(run, outcome) for run, outcome in zip(group, outcomes, strict=True)]


def _line(run: PointRun, outcome: Fitted | DivergedError) -> dict[str, Any]:
    """Describe how a run did, as a line of the trials."""
    config = run.config
    line = {
        "key": run.key,
        "seed": config.seed,
        **({} if run.fold is None else {"fold": run.fold}),
        "method": config.method,
        "changed": changed_settings(config, run.data),
    }
    if isinstance(outcome, DivergedError):
        return {**line, "failed": str(outcome)}
    best = outcome.best
    return {**line, "score": best.val[config.select], "epoch": best.epoch, "val": nested(best.val)}


def _trials(plan: Sweep, lines: Sequence[Mapping[str, Any]]) -> list[Trial]:
    """Score the points over seeds and folds, the best first. Ties go to the one listed first."""
    scores = np.array([line.get("score", math.nan) for line in lines], dtype=np.float64)
    rows = scores.reshape(len(plan.points), len(plan.seeds), len(plan.fold_numbers)).mean(axis=2)
    spread = rows.std(axis=1, ddof=1) if rows.shape[1] > 1 else np.where(np.isnan(rows[:, 0]), math.nan, 0.0)
    sign = -1 if metric(plan.select).higher else 1
    order = np.argsort(sign * rows.mean(axis=1), kind="stable")  # NaN comes last
    count = len(plan.seeds) * len(plan.fold_numbers)
    reasons = [
        next((line["failed"] for line in lines[i * count : (i + 1) * count] if "failed" in line), "")
        for i in range(len(plan.points))
    ]
    return [Trial(dict(plan.points[i]), float(rows[i].mean()), float(spread[i]), reasons[i]) for i in order]


def _is_trials(file: Path) -> bool:
    """Whether a sweep wrote a file, perhaps only the beginning of its first line."""
    with file.open("rb") as opened:
        beginning = opened.read(len(TRIAL))
    return TRIAL.startswith(beginning)


def _read_trials(file: Path) -> dict[str, dict[str, Any]]:
    """Read the finished trainings by key; a line that a kill cut short is left out."""
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
    """End a line that a kill cut short; the next one would be joined to it."""
    if file.exists() and (text := file.read_bytes()) and not text.endswith(b"\n"):
        file.write_bytes(text + b"\n")
