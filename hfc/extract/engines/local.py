"""This process alone, one shard after the other."""

from collections.abc import Callable, Iterator, Sequence

from hfc.extract.engines.base import Report, Value, Worker, until


class Local:
    """This process alone."""

    leads = True

    def __init__(self) -> None:
        self._rows, self._failed = 0, 0

    def share(self, make: Callable[[], Value]) -> Value:
        """Return what `make` returns."""
        return make()

    def run(self, todo: Sequence[int], worker: Worker[Report], stop: Callable[[], bool]) -> Iterator[Report | None]:
        """Make the shards in order."""
        self._rows, self._failed = 0, 0
        yield from worker(until(stop, todo))

    def tally(self, rows: int, failed: int) -> tuple[int, int]:
        """Return the sums so far."""
        self._rows, self._failed = self._rows + rows, self._failed + failed
        return self._rows, self._failed
