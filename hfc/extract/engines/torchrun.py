"""Processes that torchrun started, on one machine or several with a folder in common.

They meet in torchrun's own key-value store alone: shards are drawn from a counter there, so a fast GPU takes more of
them, and no collective can time out on a slow one.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import cast

from hfc.errors import HfcError
from hfc.extract.engines.base import Report, Value, Worker, until

CONNECT = timedelta(minutes=5)
PATIENCE = timedelta(days=30)  # of those who wait for another process to plan, make or assemble
POLL_S = 0.2


class Torchrun:
    """One process a GPU; rank 0 leads."""

    def __init__(self) -> None:
        from torch.distributed import rendezvous

        try:
            self._store, self.rank, self.world = next(rendezvous("env://", timeout=CONNECT))
        except (KeyError, ValueError, RuntimeError) as error:
            raise HfcError(
                f"--engine torchrun: start with torchrun --nproc-per-node N -m cli extract ({error})"
            ) from error
        self.leads = self.rank == 0
        self._turn = 0

    def share(self, make: Callable[[], Value]) -> Value:
        """Return what `make` returns in rank 0."""
        key = self._key("share")
        if not self.leads:
            self._store.wait([key], PATIENCE)
            shared = json.loads(self._store.get(key))
            if "error" in shared:
                raise HfcError(f"rank 0 stopped: {shared['error']}")
            return cast(Value, shared["value"])
        try:
            value = make()
        except HfcError as error:
            self._store.set(key, json.dumps({"error": str(error)}))
            raise
        self._store.set(key, json.dumps({"value": value}))
        return value

    def run(self, todo: Sequence[int], worker: Worker[Report], stop: Callable[[], bool]) -> Iterator[Report | None]:
        """Draw shards from the common counter; rank 0 then waits for the others."""
        key = self._key("run")
        drawn = iter(lambda: self._store.add(f"{key}/next", 1) - 1, None)
        own = (todo[i] for i in until(stop, _below(len(todo), drawn)))
        yield from worker(own)
        self._store.add(f"{key}/ended", 1)
        while self.leads and self._store.add(f"{key}/ended", 0) < self.world and not stop():
            time.sleep(POLL_S)
            yield None

    def tally(self, rows: int, failed: int) -> tuple[int, int]:
        """Add to the common counters of this turn, and read them."""
        key = f"hfc/tally/{self._turn}"
        return self._store.add(f"{key}/rows", rows), self._store.add(f"{key}/failed", failed)

    def _key(self, what: str) -> str:
        """Return a name of its own for every turn. Every process takes the same turns."""
        self._turn += 1
        return f"hfc/{what}/{self._turn}"


def _below(limit: int, numbers: Iterator[int]) -> Iterator[int]:
    for number in numbers:
        if number >= limit:
            return
        yield number
