"""Ray's actors take shards from a queue; a module in memory stands for Ray."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace

import pytest

from hfc.config import ExtractConfig, resolve
from hfc.errors import ConfigError, HfcError
from hfc.extract.engines.ray import Ray, _Actor
from hfc.extract.stage import _for_actors


class ActorDiedError(Exception):
    pass


class Actor:
    """A process that makes a shard when it is waited for."""

    def __init__(self, kind: type, worker: object, beside: int) -> None:
        self.real = kind(worker, beside)
        self.make = SimpleNamespace(remote=lambda *shards: (id(self), lambda: self.real.make(*shards)))


def stand_in(log: list[dict[str, int]], cpus: int, gpus: int = 0) -> SimpleNamespace:
    def remote(**needs: int) -> Callable[[type], SimpleNamespace]:
        log.append(needs)
        return lambda kind: SimpleNamespace(remote=lambda *arguments: Actor(kind, *arguments))

    return SimpleNamespace(
        is_initialized=lambda: True,
        cluster_resources=lambda: {"CPU": float(cpus), "GPU": float(gpus)} if gpus else {"CPU": float(cpus)},
        nodes=lambda: [{"Resources": {"CPU": cpus / 2, "GPU": gpus / 2}}] * 2,
        remote=remote,
        put=lambda thing: thing,
        wait=lambda flying, num_returns: ([flying[-1]], flying[:-1]),
        get=lambda work: work[1](),
        exceptions=SimpleNamespace(RayActorError=ActorDiedError),
    )


class Said(str):
    """A report: a text, and the shard that it finishes."""

    finished: int | None = None


def worker(shards: Iterable[int]) -> Iterator[Said]:
    for shard in shards:
        yield Said(f"begun {shard}")
        done = Said(f"done {shard}")
        done.finished = shard
        yield done


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restores what actors set, which are no processes of their own here."""
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")


@pytest.mark.parametrize(("cpus", "gpus"), [(1, 0), (2, 0), (9, 0), (16, 3)])
def test_every_shard_is_made_once(cpus: int, gpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[dict[str, int]] = []
    monkeypatch.setitem(sys.modules, "ray", stand_in(log, cpus, gpus))
    reports = [report for report in Ray().run([3, 1, 4, 0], worker, lambda: False) if report]
    assert sorted(reports) == sorted(f"{word} {shard}" for shard in (3, 1, 4, 0) for word in ("begun", "done"))
    (needs,) = log
    assert (needs["num_cpus"], needs.get("num_gpus")) == (1, 1 if gpus else None)


def test_told_to_stop_it_gives_out_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", stand_in([], cpus=2))
    reports = list(Ray().run([3, 1, 4, 0], worker, lambda: True))
    assert sorted(str(report) for report in reports) == ["begun 1", "begun 3", "done 1", "done 3"]


def test_a_shard_that_kills_every_process_ends_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def dying(shards: Iterable[int]) -> Iterator[Said]:
        raise ActorDiedError("gone")
        yield Said()

    monkeypatch.setitem(sys.modules, "ray", stand_in([], cpus=1))
    with pytest.raises(HfcError, match=r"^--engine ray: a process died 8 times over one shard: gone$"):
        list(Ray().run([3], dying, lambda: False))


def test_it_is_asked_for_where_there_is_work_and_no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert list(Ray().run([], worker, lambda: False)) == []
    with pytest.raises(ConfigError, match=r'^--engine ray needs Ray: python -m pip install "hfc\[ray\]"$'):
        list(Ray().run([3], worker, lambda: False))


def test_an_actor_is_not_drained_between_shards() -> None:
    log: list[str] = []

    def ahead(shards: Iterable[int]) -> Iterator[Said]:
        """It takes up the next shard before it finishes one, as stage 1 does."""
        log.append("started")
        before: int | None = None
        for shard in _with_end(shards):
            log.append(f"took {shard}")
            if before is not None:
                done = Said()
                done.finished = before
                yield done
            before = shard

    actor = _Actor(ahead, 3)
    assert os.environ["LOCAL_WORLD_SIZE"] == "3"
    reports = [actor.make(7, 5), actor.make(5, 2), actor.make(2, None)]
    assert log == ["started", "took 7", "took 5", "took 2", "took None"]
    assert [[report.finished for report in part] for part in reports] == [[7], [5], [2]]
    again = _Actor(ahead, 3)  # as after a restart: the call comes again, and its shard is made anew
    assert [report.finished for report in again.make(5, 2)] == [5]


def _with_end(shards: Iterable[int]) -> Iterator[int | None]:
    yield from shards
    yield None


def test_actors_of_a_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", stand_in([], cpus=64, gpus=8))
    list(Ray().run(range(20), worker, lambda: False))
    assert os.environ["LOCAL_WORLD_SIZE"] == "4"  # eight GPUs on two machines


def test_the_clusters_gpus_decide_the_precision_and_no_gpu_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def settled(**settings: object) -> str:
        return _for_actors(resolve(ExtractConfig, {"engine": "ray", **settings})).precision

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert settled() == "auto"  # this machine is the cluster
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setitem(sys.modules, "ray", stand_in([], cpus=64, gpus=8))
    assert [settled(), settled(precision="bf16"), settled(device="cpu")] == ["fp16", "bf16", "auto"]
    monkeypatch.setitem(sys.modules, "ray", stand_in([], cpus=64))
    assert settled() == "auto"
    with pytest.raises(ConfigError, match=r"^--engine ray: an actor sees its own GPU alone; leave --device cuda:1"):
        settled(device="cuda:1")
