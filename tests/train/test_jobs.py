"""How many processes train some runs, with how many threads, and in which order."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import joblib
import pytest
import torch
from joblib.externals.loky import get_reusable_executor

from hfc import parallel
from hfc.config import AUTO, TrainConfig, resolve
from hfc.parallel import Crew
from hfc.runs import Epoch
from hfc.store.records import CacheRecord
from hfc.train import jobs
from hfc.train.cache import Cache, CacheSource, cache_source, open_cache, same_cache
from hfc.train.features import Resident
from hfc.train.jobs import choose_crew, longest_first, measure
from hfc.train.prepared import PreparedRun, prepare_runs
from hfc.train.settings import build_head
from hfc.train.stage import train_all
from tests.support.training import quick

Groups = list[list[PreparedRun]]


def planned(cache: Cache, place: Path, *changes: dict[str, object]) -> Groups:
    """A group for each run, with the settings of its method but for some."""
    tree = {"hierarchy": str(place / "tree.csv")}
    return [[run] for run in prepare_runs(cache, [resolve(TrainConfig, {**tree, **change}) for change in changes])]


@pytest.fixture
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)


SEEDS = [{"method": "flat", "seed": seed, "epochs": 2000} for seed in range(5)]


@pytest.mark.usefixtures("_eight_cores")
def test_several_small_runs_go_to_processes_of_one_thread(cache: Cache, place: Path) -> None:
    assert choose_crew(AUTO, planned(cache, place, *SEEDS), cache) == Crew(5, 1)
    assert choose_crew(AUTO, planned(cache, place, *SEEDS, *SEEDS), cache) == Crew(8, 1)


@pytest.mark.usefixtures("_eight_cores")
def test_a_run_alone_keeps_all_threads(cache: Cache, place: Path) -> None:
    assert choose_crew(AUTO, planned(cache, place, SEEDS[0]), cache) == Crew(1, None)


@pytest.mark.usefixtures("_eight_cores")
def test_short_runs_are_done_before_a_process_has_started(cache: Cache, place: Path) -> None:
    assert choose_crew(AUTO, planned(cache, place, *({**run, "epochs": 2} for run in SEEDS)), cache) == Crew(1, None)


@pytest.mark.usefixtures("_eight_cores")
def test_wide_heads_take_all_threads_in_turn(cache: Cache, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = planned(cache, place, *SEEDS, {**SEEDS[0], "reduced": 1024})
    largest = max(work.products for group in measure(groups, cache.features.dim) for work in group)
    monkeypatch.setattr(jobs, "SMALL", largest)
    assert choose_crew(AUTO, groups, cache).jobs == 6
    monkeypatch.setattr(jobs, "SMALL", largest - 1)
    assert choose_crew(AUTO, groups, cache) == Crew(1, None)


@pytest.mark.usefixtures("_eight_cores")
def test_a_number_of_processes_is_taken_as_it_is(cache: Cache, place: Path) -> None:
    for number in (1, 3, 20):
        assert choose_crew(number, planned(cache, place, *SEEDS), cache) == Crew(number, None)


@pytest.mark.usefixtures("_eight_cores")
def test_a_number_of_threads_that_the_environment_names_stays(
    cache: Cache, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert choose_crew(AUTO, planned(cache, place, *SEEDS), cache) == Crew(4, 2)
    monkeypatch.setattr(jobs, "cores", lambda: 2)
    assert choose_crew(AUTO, planned(cache, place, *SEEDS), cache) == Crew(1, None)


@pytest.mark.usefixtures("_eight_cores")
def test_where_processes_cannot_share_a_core_there_is_one(
    cache: Cache, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = planned(cache, place, *SEEDS)
    on_gpu: Any = SimpleNamespace(device=torch.device("cuda"), dim=cache.features.dim)
    assert choose_crew(AUTO, groups, replace(cache, features=on_gpu)) == Crew(1, None)
    monkeypatch.setattr(jobs, "is_local", lambda: False)
    assert choose_crew(AUTO, groups, cache) == Crew(1, None)


@pytest.mark.parametrize("method", ["flat", "hmcn-f+mtl", "flat+ps", "linear"])
def test_a_step_multiplies_every_row_by_every_weight(method: str, cache: Cache, place: Path) -> None:
    batch = {} if method == "linear" else {"batch_size": 64}
    ((run,),) = planned(cache, place, {"method": method, "epochs": 3, **batch})
    before = torch.get_rng_state()
    ((work,),) = measure([[run]], cache.features.dim)
    assert torch.equal(torch.get_rng_state(), before)
    head = build_head(run.config, run.data.hierarchy, cache.features.dim)
    weights = [p.shape for p in head.parameters() if p.ndim == 2]
    rows = len(run.data.rows["train"])
    expected = sum((rows if method == "linear" else 64) * a * b for a, b in weights)
    assert (work.layers, work.products) == (len(weights), expected)
    assert work.steps == (3 * jobs.PASSES if method == "linear" else 3 * -(-rows // 64))
    assert work.seconds(2) < work.seconds(1) < 2 * work.seconds(2)


def test_the_longest_come_first(cache: Cache, place: Path) -> None:
    kinds = [("flat", 40), ("hmcn-f+mtl", 40), ("flat+ps", 40), ("flat", 400), ("levels+path", 40)]
    groups = planned(cache, place, *({"method": method, "epochs": epochs} for method, epochs in kinds))
    assert [kinds[i] for i in longest_first(groups, cache)] == [
        ("flat", 400),
        ("hmcn-f+mtl", 40),
        ("flat+ps", 40),
        ("levels+path", 40),
        ("flat", 40),
    ]
    pair = [groups[0][0], groups[3][0]]  # what is trained together takes the time of both
    assert longest_first([groups[3], pair], cache) == [1, 0]


@pytest.fixture
def _own_processes() -> Iterator[None]:
    """End the processes afterwards: another test may not want what they have loaded."""
    yield
    get_reusable_executor().shutdown(wait=True)


def where_features_are(source: CacheSource, known: CacheRecord) -> tuple[int, str, int]:
    """Of a process its number, the name of the memory that it has the features in, and its threads."""
    features = same_cache(source, known).features
    assert isinstance(features, Resident)
    address = features.tensor.data_ptr()
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(number, 16) for number in line.split()[0].split("-"))
        if start <= address < end:
            return os.getpid(), line.split(maxsplit=5)[-1], torch.get_num_threads()
    return os.getpid(), "", 0


@pytest.mark.slow
@pytest.mark.usefixtures("_own_processes")
def test_every_process_has_the_features_of_the_first(place: Path) -> None:
    source = cache_source(place / "cache.h5", "cpu", share=True)
    try:
        cache = open_cache(source)
        own = where_features_are(source, cache.meta)
        calls = [joblib.delayed(where_features_are)(source.attached(cache, 2), cache.meta) for _ in range(8)]
        others = list(parallel.run(calls, Crew(2, 1), ordered=False))
    finally:
        open_cache.cache_clear()
    assert own[0] not in {process for process, _, _ in others}
    assert isinstance(cache.features, Resident)
    assert cache.features.place
    assert {name for _, name, _ in [own, *others]} == {f"/memfd:{cache.features.place.name} (deleted)"}
    assert {threads for _, _, threads in others} == {1}


@pytest.mark.slow
@pytest.mark.usefixtures("_own_processes")
def test_processes_train_what_one_thread_trains(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = [quick(place, method=method, seed=seed, epochs=2) for method in ("flat", "hmcn-f+mtl") for seed in (0, 1)]
    seen: list[tuple[str, int, int]] = []

    def note(config: TrainConfig, epoch: Epoch) -> None:
        seen.append((config.method, config.seed, epoch.number))

    monkeypatch.setattr(jobs, "START", 0)
    monkeypatch.setattr(jobs, "cores", lambda: 2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    threads = torch.get_num_threads()
    several = [run for run, _ in train_all(place / "cache.h5", configs, tmp_path / "a", jobs=AUTO, on_epoch=note)]
    try:
        torch.set_num_threads(1)
        one = [run for run, _ in train_all(place / "cache.h5", configs, tmp_path / "b", jobs=1)]
    finally:
        torch.set_num_threads(threads)
    assert [(run.result.method, run.result.seed) for run in several] == [(c.method, c.seed) for c in configs]
    assert [method for method, _, _ in seen] == ["hmcn-f+mtl"] * 4 + ["flat"] * 4  # the longest first
    assert [number for _, _, number in seen] == [1, 2] * 4
    for run, other in zip(several, one, strict=True):
        assert run.result.machine.threads == 1
        assert run.result.test == other.result.test
        name = "head.safetensors"
        assert (run.folder / name).read_bytes() == (other.folder / name).read_bytes()
