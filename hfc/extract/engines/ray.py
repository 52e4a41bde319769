"""Ray: actors, on one machine or a cluster, take shards from a queue.

The machines of a cluster have a folder in common.

Ray restarts an actor whose process dies and gives it the shard again.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hfc.errors import HfcError
from hfc.extract.engines.base import Report, Worker
from hfc.extract.engines.local import Local
from hfc.parallel import cluster

RESTARTS = 8  # of one actor: a preempted machine comes back, a shard that kills every process does not go on for ever


def cluster_gpus() -> int:
    """Return how many GPUs the cluster has that RAY_ADDRESS names; 0 without one: this machine is the cluster then."""
    if not os.environ.get("RAY_ADDRESS"):
        return 0
    with cluster() as ray:
        return int(ray.cluster_resources().get("GPU", 0))


class _Actor:
    """A process that makes one shard after the other. It begins the next before one is finished."""

    def __init__(self, worker: Worker[Any], beside: int) -> None:
        self._worker = worker
        self._todo: deque[int] = deque()
        self._begun: set[int] = set()
        self._reports: Iterator[Any] = iter(())
        os.environ["LOCAL_WORLD_SIZE"] = str(beside)  # of processes on this machine, which share its cores

    def make(self, shard: int, following: int | None) -> list[Any]:
        """Make a shard, and return the reports until it is written.

        An actor that was started again gets its call again, and begins anew.

        Args:
            shard: it may have been begun.
            following: the next one, so that the GPU has work when this one ends.
        """
        for number in (shard, following):
            if number is not None and number not in self._begun:
                self._begun.add(number)
                self._todo.append(number)
        reports = []
        while True:
            for report in self._reports:
                reports.append(report)
                if report.finished == shard:
                    return reports
            if not self._todo:
                return reports
            self._reports = self._worker(self._given())

    def _given(self) -> Iterator[int]:
        while self._todo:
            yield self._todo.popleft()


class Ray(Local):
    """One actor a GPU, or one a CPU where the cluster has no GPU. The calling process leads."""

    def run(self, todo: Sequence[int], worker: Worker[Report], stop: Callable[[], bool]) -> Iterator[Report | None]:
        """Give each free actor the next shard."""
        self._rows, self._failed = 0, 0
        if not todo:
            return
        with cluster() as ray:
            try:
                yield from _shared_out(ray, todo, worker, stop)
            except ray.exceptions.RayActorError as error:
                raise HfcError(f"--engine ray: a process died {RESTARTS} times over one shard: {error}") from error


def _shared_out(ray: Any, todo: Sequence[int], worker: Worker[Report], stop: Callable[[], bool]) -> Iterator[Report]:
    have = ray.cluster_resources()
    gpus, cpus = int(have.get("GPU", 0)), int(have.get("CPU", 1))
    needs = {"num_gpus": 1, "num_cpus": 1} if gpus else {"num_cpus": 1}
    kind = ray.remote(max_restarts=RESTARTS, max_task_retries=RESTARTS, **needs)(_Actor)
    shared = ray.put(worker)
    count = min(gpus or cpus, len(todo))
    beside = min(count, max(int(node["Resources"].get("GPU" if gpus else "CPU", 0)) for node in ray.nodes()))
    queue = deque(todo)
    first = [(kind.remote(shared, beside), queue.popleft()) for _ in range(count)]
    flying: dict[Any, tuple[Any, int | None]] = {}

    def give(actor: Any, shard: int) -> None:
        following = queue.popleft() if queue and not stop() else None
        flying[actor.make.remote(shard, following)] = actor, following

    for actor, shard in first:
        give(actor, shard)
    while flying:
        (done, *_), _ = ray.wait(list(flying), num_returns=1)
        actor, begun = flying.pop(done)
        yield from ray.get(done)
        if begun is not None:
            give(actor, begun)
