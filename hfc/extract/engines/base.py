"""What an engine is, and how one stops."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar


class Finished(Protocol):
    """What every report says."""

    @property
    def finished(self) -> int | None:
        """The shard that is written now; None: none since the last report."""


Report = TypeVar("Report", bound=Finished)
Value = TypeVar("Value")
Worker = Callable[[Iterable[int]], Iterator[Report]]
"""Makes the shards it is given, taken up one by one, and reports as it goes."""


class Engine(Protocol):
    """It spreads shards over processes."""

    leads: bool
    """Whether this process plans, assembles and speaks for all."""

    def share(self, make: Callable[[], Value]) -> Value:
        """Return in every process what `make` returns in the process that leads. It must be of JSON's types.

        Raises:
            HfcError: `make` failed in the process that leads.
        """

    def run(self, todo: Sequence[int], worker: Worker[Report], stop: Callable[[], bool]) -> Iterator[Report | None]:
        """Make shards until none is left or `stop` says so. A shard that was begun is finished.

        Args:
            todo: numbers of the shards to make, the same in every process.
            worker: makes shards; an engine that spreads it over machines pickles it.
            stop: asked before each shard.

        Yields:
            The reports of this process, and None where time passes without one. In the process that leads, the end
            means that every process has ended, or that `stop` said so.
        """

    def tally(self, rows: int, failed: int) -> tuple[int, int]:
        """Add rows done and failed to the sums over all processes.

        The sums count since `run` began, and are returned.
        """


def until(stop: Callable[[], bool], todo: Iterable[int]) -> Iterator[int]:
    """Yield the shards to make, until told to stop."""
    for shard in todo:
        if stop():
            return
        yield shard
