"""This process alone, one shard after the other."""

from collections.abc import Callable, Iterable, Sequence


def run(todo: Sequence[int], work: Callable[[Iterable[int]], None]) -> None:
    """Work off the shards in order.

    Args:
        todo: numbers of the shards still to do.
        work: encodes and writes the shards it is given, decoding the next while it encodes the last.
    """
    work(todo)
