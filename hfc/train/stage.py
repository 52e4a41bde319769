"""Stage 2 trains heads on cached features, tests them once, and writes run folders."""

import contextlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Unpack

import joblib
import numpy as np

from hfc import parallel, runs
from hfc.config import TrainConfig, to_toml
from hfc.errors import DivergedError, RunError, StoreError
from hfc.hierarchy import some
from hfc.store import count_kept, encode_text
from hfc.store.records import CacheRecord
from hfc.train.cache import Cache, CacheSource, Reading, cache_source, open_cache, same_cache
from hfc.train.checkpoint import Checkpoint
from hfc.train.fit import OnEpoch, fit, quiet
from hfc.train.folder import RunWriter, writing
from hfc.train.groups import fit_group, groups, in_order, surviving
from hfc.train.jobs import choose_crew, longest_first
from hfc.train.notices import announce
from hfc.train.prepared import PreparedRun, prepare_run, prepare_runs
from hfc.train.result import test
from hfc.train.training import Fitted

Outcomes = list[tuple[runs.Run, bool] | DivergedError]
"""What `train` returns of each run of a group; of one that diverged its error."""


def train(
    cache: Cache, config: TrainConfig, out: Path, *, overwrite: bool = False, on_epoch: OnEpoch = quiet
) -> tuple[runs.Run, bool]:
    """Train one run and write its folder, unless it is there already.

    Args:
        cache: the features.
        config: the settings; those left to the machine and the data are settled here.
        out: holds the run folders.
        overwrite: train even if the run is there.
        on_epoch: called after every epoch.

    Returns:
        The run, and whether it was trained now.

    Raises:
        HfcError: the cache, hierarchy or settings do not fit each other, training diverged, or the disk refuses.
    """
    run = prepare_run(cache, config)
    if config.step == "single":
        return _train_one(cache, run, out, overwrite, on_epoch)
    return _train_together(cache, [run], out, overwrite, on_epoch)[0]


def train_all(
    path: Path,
    configs: Sequence[TrainConfig],
    out: Path,
    *,
    jobs: int = 1,
    overwrite: bool = False,
    on_epoch: OnEpoch = quiet,
    **reading: Unpack[Reading],
) -> Iterator[tuple[runs.Run, bool]]:
    """Train several runs on one cache, which every process reads once.

    Args:
        path: the cache.
        configs: the settings of each run, on one device.
        out: holds the run folders.
        jobs: processes; 0: by what the runs compute, see `hfc.train.jobs`.
        overwrite: train even what is there.
        on_epoch: called after every epoch; where there are several processes for all epochs of a run when it ends.
        reading: how the cache is read, by the arguments of `load_cache`.

    Yields:
        What `train` returns, in the order of the settings.

    Raises:
        HfcError: as `train`; whatever can be wrong with the settings of any run is found before the first.
        DivergedError: a run diverged; the others have been trained.
    """
    source = cache_source(path, configs[0].device, jobs != 1 and len(configs) > 1, **reading)
    diverged: list[DivergedError] = []
    try:
        for outcome in _outcomes(source, configs, out, jobs, overwrite, on_epoch):
            if isinstance(outcome, DivergedError):
                diverged.append(outcome)
            else:
                yield outcome
    finally:
        open_cache.cache_clear()
    if len(configs) == 1 and diverged:
        raise diverged[0]
    if diverged:
        reasons = some([str(error) for error in diverged], most=3)
        raise DivergedError(f"{len(diverged)} of {len(configs)} runs have no result: {reasons}")


def _outcomes(
    source: CacheSource, configs: Sequence[TrainConfig], out: Path, jobs: int, overwrite: bool, on_epoch: OnEpoch
) -> Iterator[tuple[runs.Run, bool] | DivergedError]:
    """Give in order what `train` returns of each run; of one that diverged its error."""
    cache = open_cache(source)
    prepared = prepare_runs(cache, configs)
    tables = {id(run.data): run.data for run in prepared}.values()
    announce(cache.path, tables, on_rows=lambda rows: None)  # each result says which it used
    places = groups(configs)
    planned = [[prepared[i] for i in group] for group in places]
    idle = not overwrite and all(_is_finished(out / run.name) for run in prepared)
    crew = parallel.Crew(1) if idle else choose_crew(jobs, planned, cache)
    several = crew.jobs > 1
    if several:
        places = [places[i] for i in longest_first(planned, cache)]
    shared = source.attached(cache, crew.jobs)
    watch = quiet if several else on_epoch
    calls = [
        joblib.delayed(_train_group)(shared, cache.meta, [prepared[i] for i in group], out, overwrite, watch)
        for group in places
    ]
    results = parallel.run(calls, crew, ordered=True)
    if several:
        results = _watched([[prepared[i].config for i in group] for group in places], results, on_epoch)
    yield from in_order(places, results)


def _watched(
    configs: Sequence[Sequence[TrainConfig]], results: Iterable[Outcomes], on_epoch: OnEpoch
) -> Iterator[Outcomes]:
    """Tell of the epochs of every run that another process trained."""
    for group, outcomes in zip(configs, results, strict=True):
        for config, outcome in zip(group, outcomes, strict=True):
            run, is_new = (None, False) if isinstance(outcome, DivergedError) else outcome
            for epoch in run.epochs if run and is_new else ():
                on_epoch(config, epoch)
        yield outcomes


def _train_group(
    source: CacheSource,
    known: CacheRecord,
    group: Sequence[PreparedRun],
    out: Path,
    overwrite: bool,
    on_epoch: OnEpoch,
) -> Outcomes:
    """Train the runs of a group, in any process; returns of one that diverges its error."""
    cache = same_cache(source, known)
    by_config = {run.config: run for run in group}

    def attempt(configs: Sequence[TrainConfig]) -> list[tuple[runs.Run, bool]]:
        waiting = [by_config[config] for config in configs]
        if waiting[0].config.step == "single":
            return [_train_one(cache, run, out, overwrite, on_epoch) for run in waiting]
        return _train_together(cache, waiting, out, overwrite, on_epoch)

    return surviving([run.config for run in group], attempt)


def _train_one(cache: Cache, run: PreparedRun, out: Path, overwrite: bool, on_epoch: OnEpoch) -> tuple[runs.Run, bool]:
    """Train a run by itself, with a checkpoint beside its folder."""
    folder = out / run.name
    if _is_finished(folder) and not overwrite:
        return runs.read(folder), False
    _check_room(out, [run])
    checkpoint = Checkpoint(folder.with_name(f".{run.name}.checkpoint"), run.key, run.config.checkpoint_seconds)
    with _writing(folder, cache, run) as writer:
        fitted = fit(cache.features, run.data, run.config, on_epoch, checkpoint)
        _finish(writer, cache, run, fitted)
    checkpoint.discard()
    return runs.read(folder), True


def _train_together(
    cache: Cache, group: Sequence[PreparedRun], out: Path, overwrite: bool, on_epoch: OnEpoch
) -> list[tuple[runs.Run, bool]]:
    """Train those runs of a group that are not there yet, as one batched model."""
    waiting = [run for run in group if overwrite or not _is_finished(out / run.name)]
    if waiting:
        _check_room(out, waiting)
        with contextlib.ExitStack() as stack:
            writers = [stack.enter_context(_writing(out / run.name, cache, run)) for run in waiting]
            fits = fit_group(cache.features, waiting[0].data, [run.config for run in waiting], on_epoch)
            for writer, run, fitted in zip(writers, waiting, fits, strict=True):
                _finish(writer, cache, run, fitted)
    return [(runs.read(out / run.name), run in waiting) for run in group]


def _is_finished(folder: Path) -> bool:
    return (folder / runs.RESULT).is_file()


@contextlib.contextmanager
def _writing(folder: Path, cache: Cache, run: PreparedRun) -> Iterator[RunWriter]:
    """Write a run's folder, which is there when the block ends well.

    What cannot be written is known before the first epoch.
    """
    with writing(folder) as writer:
        writer.config(to_toml(run.config))
        writer.hierarchy(run.data.hierarchy.to_csv())
        try:
            for name in ("id", "group"):
                encode_text(name, getattr(cache.table.regions, name)[run.data.rows["test"].numpy()])
        except StoreError as error:
            raise RunError(f"{folder}: the run cannot be written: {error}") from error
        yield writer


def _finish(writer: RunWriter, cache: Cache, run: PreparedRun, fitted: Fitted) -> None:
    """Test a trained head once, and write all that the run leaves behind."""
    writer.epochs(fitted.epochs)
    predictions, result = test(cache, run, fitted)
    writer.predictions(predictions)
    writer.head({name: tensor.cpu().numpy() for name, tensor in fitted.head.state_dict().items()}, run.key)
    writer.result(result)


def _check_room(out: Path, waiting: Sequence[PreparedRun]) -> None:
    """Check that the disk holds the predictions of some runs. Raises a RunError where it does not."""
    there = next((folder for folder in (out, *out.absolute().parents) if folder.is_dir()), None)
    if not there:
        return
    data = waiting[0].data
    numbers = len(data.rows["test"]) * count_kept(data.hierarchy.sizes) * len(waiting)
    needed, free = numbers * np.dtype(np.float32).itemsize, shutil.disk_usage(there).free
    if needed > free:
        raise RunError(
            f"{out}: {len(waiting)} runs write {needed / 1e6:.0f} MB of predictions, and {free / 1e6:.0f} MB are free; "
            "make room, or name another folder"
        )
