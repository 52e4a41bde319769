"""Ray's actors take shards from a queue; a module in memory stands for Ray."""

import sys
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace

import pytest

from hfc.errors import ConfigError, HfcError
from hfc.extract.engines.ray import Ray


class ActorDiedError(Exception):
    pass


class Actor:
    """A process that makes a shard when it is waited for."""

    def __init__(self, kind: type, worker: object) -> None:
        self.real = kind(worker)
        self.make = SimpleNamespace(remote=lambda shard: (id(self), lambda: self.real.make(shard)))


def stand_in(log: list[dict[str, int]], cpus: int, gpus: int = 0) -> SimpleNamespace:
    def remote(**needs: int) -> Callable[[type], SimpleNamespace]:
        log.append(needs)
        return lambda kind: SimpleNamespace(remote=lambda worker: Actor(kind, worker))

    return SimpleNamespace(
        is_initialized=lambda: True,
        cluster_resources=lambda: {"CPU": float(cpus), "GPU": float(gpus)} if gpus else {"CPU": float(cpus)},
        remote=remote,
        put=lambda thing: thing,
        wait=lambda flying, num_returns: ([flying[-1]], flying[:-1]),
        get=lambda work: work[1](),
        exceptions=SimpleNamespace(RayActorError=ActorDiedError),
    )


def worker(shards: Iterable[int]) -> Iterator[str]:
    for shard in shards:
        yield f"begun {shard}"
        yield f"done {shard}"


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
    def dying(shards: Iterable[int]) -> Iterator[str]:
        raise ActorDiedError("gone")
        yield ""

    monkeypatch.setitem(sys.modules, "ray", stand_in([], cpus=1))
    with pytest.raises(HfcError, match=r"^--engine ray: a process died 8 times over one shard: gone$"):
        list(Ray().run([3], dying, lambda: False))


def test_it_is_asked_for_where_there_is_work_and_no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert list(Ray().run([], worker, lambda: False)) == []
    with pytest.raises(ConfigError, match=r'^--engine ray needs Ray: python -m pip install "hfc\[ray\]"$'):
        list(Ray().run([3], worker, lambda: False))
