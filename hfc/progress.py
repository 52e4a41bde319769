"""Work that may take longer than a second says how far it is, to whoever watches; nobody does unless asked.

The command line watches and draws bars. Threads and processes beside the main one are not watched.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Watch = Callable[[Iterable[Any], str, int | None], Iterable[Any]]
"""Takes the items of some work, what it does, and how many there are (None: unknown); gives the items on."""

_watch: ContextVar[Watch] = ContextVar("watch", default=lambda items, what, total: items)


def steps(items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
    """The items one after the other, watched; how long it took goes to the log.

    Args:
        items: what is worked on.
        what: the work, in a few words: "reading features".
        total: how many items there are, where they do not know it themselves.
    """
    started = time.perf_counter()
    yield from _watch.get()(items, what, total)
    logger.info("%s: %.2f s", what, time.perf_counter() - started)


@contextmanager
def watched_by(watch: Watch) -> Iterator[None]:
    """Whoever works inside the block is watched by `watch`."""
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)
