"""Stage 2: train a head on cached features, pick its epoch on validation, test it once, and write the run's folder."""

import contextlib
import functools
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch

from hfc import parallel, provenance, runs
from hfc.config import AUTO, TrainConfig, plain, resolve, to_toml
from hfc.errors import ConfigError, DivergedError, RunError, StoreError
from hfc.hierarchy import Hierarchy, some
from hfc.store import CHUNK_ROWS, Predictions, encode_text
from hfc.store.records import CacheRecord
from hfc.train.data import Cache, Task, announce, open_cache, prepare, same_cache
from hfc.train.evaluation import best_beta, by_beta, climb, decoded, evaluate, used_views
from hfc.train.features import Streamed
from hfc.train.fit import Checkpoint, Fitted, settle
from hfc.train.folder import RunWriter, writing
from hfc.train.settings import used_settings
from hfc.train.stacked import fit_all, groups

# The hierarchy's file name, the device and the time between checkpoints shape no number.
NOT_IN_KEY = ("hierarchy", "device", "checkpoint_seconds")
# What the numbers of a run come from, beside what its key names: features, labels, tree and settings. Not here, though
# training imports it, is what cannot change them: what reads and checks (its results are in the key), names, writes,
# spreads over processes or reports.
RUN_SOURCES = (
    "hierarchy.py",
    "metrics.py",
    "train/data.py",
    "train/decoding.py",
    "train/evaluation.py",
    "train/features.py",
    "train/fit.py",
    "train/heads",
    "train/losses.py",
    "train/settings.py",
    "train/stacked.py",
    "train/stage.py",
    "train/weightings.py",
)


@functools.cache
def run_code_digest() -> str:
    """SHA-256 over the sources that shape a run: it changes the runs' keys, and nothing else of the code does."""
    return provenance.digest_sources(provenance.PACKAGE, RUN_SOURCES)


def run_key(cache: Cache, task: Task, config: TrainConfig) -> str:
    """Digest over everything a result depends on: features, labels, splits, hierarchy, settings, code, kind of device.

    A GPU draws other dropout than a CPU, and streaming another order of rows than memory.
    """
    used = used_settings(config) - set(NOT_IN_KEY)
    settings = {key: value for key, value in plain(config).items() if key in used}
    sources = [
        cache.meta.features_sha256,
        cache.meta.labels_digest,
        task.hierarchy.digest,
        run_code_digest(),
    ]
    features = cache.features
    order = ["streamed", CHUNK_ROWS] if isinstance(features, Streamed) else ["resident"]
    return provenance.digest([sources, settings, task.hierarchy.name, features.device.type, order])


def run_name(config: TrainConfig, hierarchy: Hierarchy, key: str) -> str:
    """A run's folder name: readable, and unique by its key."""
    return f"{config.method}--{hierarchy.name}--seed{config.seed}--{key[:8]}"


def changed_settings(config: TrainConfig, task: Task) -> dict[str, object]:
    """The settings, settled, in which a run differs from its method as it ships; what the data decide is no change."""
    preset = resolve(TrainConfig, {"method": config.method})
    ships = plain(settle(preset, task))
    # What the data decide, as they would beside the run's other settings.
    if preset.batch_size == AUTO:
        ships["batch_size"] = settle(replace(config, batch_size=AUTO), task).batch_size
    if preset.learning_rate == AUTO:
        ships["learning_rate"] = settle(replace(config, learning_rate=AUTO), task).learning_rate
    used = used_settings(config) - {"method", "seed", "precision", *NOT_IN_KEY}
    return {key: value for key, value in plain(config).items() if key in used and value != ships[key]}


def train(
    cache: Cache,
    config: TrainConfig,
    out: Path,
    *,
    overwrite: bool = False,
    report: Callable[[runs.Epoch], None] = lambda line: None,
) -> tuple[runs.Run, bool]:
    """Train one run and write its folder, unless a run of the same key is there already.

    Args:
        cache: the features.
        config: the settings; those left to the machine are resolved here.
        out: holds the run folders.
        overwrite: train even if the run is there.
        report: called with every epoch's line.

    Returns:
        The run, and whether it was trained now.

    Raises:
        HfcError: the cache, hierarchy or settings do not fit each other, training diverged, or the disk refuses.
    """
    (found,) = train_together(cache, [config], out, overwrite=overwrite, report=lambda number, line: report(line))
    return found


def train_together(
    cache: Cache,
    configs: Sequence[TrainConfig],
    out: Path,
    *,
    overwrite: bool = False,
    report: Callable[[int, runs.Epoch], None] = lambda number, line: None,
) -> list[tuple[runs.Run, bool]]:
    """Train runs that differ in seed and rates alone, as one batched model where their `step` says so.

    Args:
        cache, out, overwrite: as for `train`.
        configs: one run's settings, or several that `together` groups.
        report: called with a run's place among them and an epoch's line.

    Returns:
        What `train` returns, for each.

    Raises:
        HfcError: as `train`.
    """
    task = prepare(cache, configs[0].hierarchy)
    settled = [fitted_to(cache, task, config) for config in configs]
    keys = [run_key(cache, task, config) for config in settled]
    folders = [out / run_name(config, task.hierarchy, key) for config, key in zip(settled, keys, strict=True)]
    todo = [i for i, folder in enumerate(folders) if overwrite or not (folder / runs.RESULT).is_file()]
    _check_room(out, task, len(todo))
    with contextlib.ExitStack() as stack:
        writers = {i: stack.enter_context(writing(folders[i])) for i in todo}
        for i, writer in writers.items():
            writer.config(to_toml(settled[i]))
            writer.hierarchy(task.hierarchy.to_csv())
        if todo:  # all have the same test rows
            _check_ids(folders[todo[0]], cache, task)

        def both(place: int, line: runs.Epoch) -> None:
            writers[todo[place]].epoch(line)
            report(todo[place], line)

        checkpoints = [Checkpoint(_checkpoint(folders[i]), keys[i], settled[i].checkpoint_seconds) for i in todo]
        fitted = fit_all(cache.features, task, [settled[i] for i in todo], both, checkpoints)
        for i, each in zip(todo, fitted, strict=True):
            _test(writers[i], folders[i].name, keys[i], cache, task, settled[i], each)
    for i in todo:
        _checkpoint(folders[i]).unlink(missing_ok=True)
    return [(runs.read(folder), i in todo) for i, folder in enumerate(folders)]


def _check_ids(folder: Path, cache: Cache, task: Task) -> None:
    """Find before the first epoch what cannot be stored of the test rows. Raises a RunError where an id cannot."""
    try:
        encode_text("id", cache.table.regions.id[task.rows["test"].cpu().numpy()])
    except StoreError as error:
        raise RunError(f"{folder}: the run cannot be written: {error}") from error


def _check_room(out: Path, task: Task, count: int) -> None:
    """Check that the disk holds the predictions of some runs. Raises a RunError where it does not."""
    there = next((folder for folder in (out, *out.absolute().parents) if folder.is_dir()), None)
    if not there:
        return
    numbers = len(task.rows["test"]) * (sum(task.hierarchy.sizes) + len(task.hierarchy.leaves)) * count
    needed, free = numbers * np.dtype(np.float32).itemsize, shutil.disk_usage(there).free
    if needed > free:
        raise RunError(
            f"{out}: {count} runs write {needed / 1e6:.0f} MB of predictions, and {free / 1e6:.0f} MB are free; make "
            "room, or name another folder"
        )


def _checkpoint(folder: Path) -> Path:
    """Where a run keeps how far it got until its folder is there."""
    return folder.with_name(f".{folder.name}.checkpoint")


def _test(
    writer: RunWriter, name: str, key: str, cache: Cache, task: Task, config: TrainConfig, fitted: Fitted
) -> None:
    """Test a trained head once, and write what it answered and what that is worth."""
    started = time.perf_counter()
    rows = task.rows["test"].cpu().numpy()
    features = used_views(cache.features, config)
    prediction, test_betas = by_beta(fitted.head, features, task, "test", config)
    prediction = decoded(prediction, task.hierarchy, config)
    leaf = task.target[task.rows["test"], -1].cpu().numpy()
    test = evaluate(prediction, leaf, task.hierarchy, config)
    beta: runs.Betas | None = None
    climbs: tuple[runs.ClimbReading, ...] | None = None
    if fitted.head.blends:
        _, betas = by_beta(fitted.head, features, task, "val", config)
        best = best_beta(betas, config.beta)
        beta = runs.Betas(validation=betas, test=test_betas, best_on_validation=best)
    if config.decode != "least-cost":  # its scores are no probabilities, so no confidence can be read off them
        climbs = climb(prediction.final, leaf, task.hierarchy)
    levels = tuple(p.numpy() for p in prediction.levels)
    state = {name: tensor.cpu().numpy() for name, tensor in fitted.head.state_dict().items()}
    writer.predictions(Predictions(cache.table.regions.id[rows], leaf, levels, prediction.final.numpy(), key))
    writer.head(state, key)
    tree, code = task.hierarchy, provenance.code()
    writer.result(
        runs.Result(
            run=name,
            key=key,
            method=config.method,
            seed=config.seed,
            changed=changed_settings(config, task),
            config=plain(config),
            cache=cache.meta,
            hierarchy=runs.TreeRecord(name=tree.name, digest=tree.digest, levels=tree.levels, sizes=tree.sizes),
            rows=task.counts,
            selected=fitted.best,
            loss_weights=fitted.weighting.weights(),
            test=test,
            beta=beta,
            climb=climbs,
            seconds=runs.Seconds(
                train=round(fitted.seconds, 3),
                total=round(fitted.seconds + time.perf_counter() - started, 3),
            ),
            machine=runs.Machine(
                device=str(cache.features.device),
                precision=config.precision,
                threads=torch.get_num_threads(),
                platform=platform.platform(),
            ),
            code=runs.Code(version=code["version"], commit=code["commit"], digest=code["digest"]),
            versions=provenance.versions(),
            created=provenance.now(),
        )
    )


def train_all(
    path: Path,
    configs: Sequence[TrainConfig],
    out: Path,
    *,
    labels: Path | None = None,
    allow_unlabelled: bool = False,
    stream: bool = False,
    jobs: int = 1,
    overwrite: bool = False,
    report: Callable[[int, runs.Epoch], None] = lambda number, line: None,
) -> Iterator[tuple[runs.Run, bool]]:
    """Train several runs on one cache, which every process reads once.

    Args:
        path: the cache.
        configs: the settings of each run, on one device.
        out: holds the run folders.
        labels: other labels for the cache, joined by id.
        allow_unlabelled: even if most rows of a split have none.
        stream: leave the features on the disk.
        jobs: processes.
        overwrite: train even what is there.
        report: called with a run's number and an epoch's line; not where there are several processes.

    Yields:
        What `train` returns, in the order of the settings.

    Raises:
        HfcError: as `train`; whatever can be wrong with the settings of any run is found before the first.
        DivergedError: a run diverged; the others have been trained.
    """
    where = {
        "device": configs[0].device,
        "labels": labels,
        "allow_unlabelled": allow_unlabelled,
        "stream": stream,
    }
    try:
        cache = open_cache(path, **where)
        announce(cache, {config.hierarchy: check(cache, config)[0] for config in configs}.values())
        together = groups(configs)
        calls = [
            joblib.delayed(_train)(
                path,
                where,
                cache.meta,
                [configs[i] for i in group],
                out,
                overwrite,
                _numbered(report, group) if jobs == 1 else None,
            )
            for group in together
        ]
        ready: dict[int, tuple[runs.Run, bool] | DivergedError] = {}
        diverged: list[DivergedError] = []
        following = 0
        for group, found in zip(together, parallel.run(calls, jobs, ordered=True), strict=True):
            ready |= zip(group, found, strict=True)
            while following in ready:
                outcome = ready.pop(following)
                if isinstance(outcome, DivergedError):
                    diverged.append(outcome)
                else:
                    yield outcome
                following += 1
        if len(configs) == 1 and diverged:
            raise diverged[0]
        if diverged:
            reasons = some([str(error) for error in diverged], most=3)
            raise DivergedError(f"{len(diverged)} of {len(configs)} runs have no result: {reasons}")
    finally:
        open_cache.cache_clear()


def _numbered(report: Callable[[int, runs.Epoch], None], group: list[int]) -> Callable[[int, runs.Epoch], None]:
    """A report by place in a group as one by place among all."""
    return lambda number, line: report(group[number], line)


def _train(
    path: Path,
    where: dict[str, Any],
    known: CacheRecord,
    configs: Sequence[TrainConfig],
    out: Path,
    overwrite: bool,
    report: Callable[[int, runs.Epoch], None] | None,
) -> list[tuple[runs.Run, bool] | DivergedError]:
    """Train the runs of a group; of one that diverges its error, and those beside it are trained without it."""
    cache = same_cache(path, where, known)
    report = report or (lambda number, line: None)
    waiting = list(range(len(configs)))
    found: dict[int, tuple[runs.Run, bool] | DivergedError] = {}
    while waiting:
        these = [configs[i] for i in waiting]
        try:
            done = train_together(cache, these, out, overwrite=overwrite, report=_numbered(report, list(waiting)))
        except DivergedError as error:
            place = next(i for i in waiting if check(cache, configs[i])[1] == error.config)
            found[place] = error
            waiting.remove(place)
        else:
            found |= zip(waiting, done, strict=True)
            break
    return [found[i] for i in range(len(configs))]


def check(cache: Cache, config: TrainConfig) -> tuple[Task, TrainConfig]:
    """The task of a run and its settings as they are settled for it, if cache, hierarchy and settings fit each other.

    Raises:
        HfcError: they do not; the message says how.
    """
    task = prepare(cache, config.hierarchy)
    return task, fitted_to(cache, task, config)


def fitted_to(cache: Cache, task: Task, config: TrainConfig) -> TrainConfig:
    """A run's settings as they are settled for a task on a cache. Raises a ConfigError if they do not fit."""
    if cache.features.views == 1 and config.views != TrainConfig.views:
        raise ConfigError(f"views={config.views}: {cache.path} holds one view of every crop; leave views out")
    return settle(config, task)
