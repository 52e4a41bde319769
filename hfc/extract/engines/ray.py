"""Ray: actors, on one machine or a cluster, take shards from a queue.

The machines of a cluster have a folder in common.

Ray restarts an actor whose process dies and gives it the shard again.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hfc.errors import HfcError
from hfc.extract.engines.base import Report, Worker
from hfc.extract.engines.local import Local
from hfc.parallel import cluster

RESTARTS = 8  # of one actor: a preempted machine comes back, a shard that kills every process does not go on for ever


class _Actor:
    """A process that makes one shard after the other."""

    def __init__(self, worker: Worker[Any]) -> None:
        self.worker = worker

    def make(self, shard: int) -> list[Any]:
        """Make one shard, and return all its reports."""
        return list(self.worker([shard]))


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
    actors = [kind.remote(shared) for _ in range(min(gpus or cpus, len(todo)))]
    queue = deque(todo)
    flying = {actor.make.remote(queue.popleft()): actor for actor in actors}
    while flying:
        (done, *_), _ = ray.wait(list(flying), num_returns=1)
        actor = flying.pop(done)
        yield from ray.get(done)
        if queue and not stop():
            flying[actor.make.remote(queue.popleft())] = actor
