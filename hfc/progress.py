"""Long work says how far it is, to whoever watches; nobody does unless asked.

The command line watches and draws bars. Threads and processes beside the main one are not watched.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Protocol, TypeVar

logger = logging.getLogger(__name__)

Item = TypeVar("Item")


class Bar(Protocol):
    """How far a piece of work is."""

    def show(self, done: int, total: int | None = None, *, what: str = "", note: str = "") -> None:
        """Show how much is done.

        Args:
            done: how many items are done by now, those of an earlier call of the program included.
            total: how many there are; None: as said before.
            what: the work, in a few words; "": as said before.
            note: what else to show beside it, such as a score.
        """


Watch = Callable[[str, int | None, str], AbstractContextManager[Bar]]
"""Opens the bar of a piece of work, which closes with it. Takes what `bar` does; the unit of steps is ""."""


class _Unwatched:
    def show(self, done: int, total: int | None = None, *, what: str = "", note: str = "") -> None:
        pass


@contextmanager
def _unwatched(what: str, total: int | None, unit: str) -> Iterator[Bar]:
    yield _Unwatched()


_watch: ContextVar[Watch] = ContextVar("watch", default=_unwatched)


def bar(what: str, total: int | None = None, *, unit: str) -> AbstractContextManager[Bar]:
    """Open the bar of a command's main work.

    Args:
        what: the work, in a few words: "search".
        total: how many items there are; None: unknown as yet.
        unit: what an item is: "run".
    """
    return _watch.get()(what, total, unit)


def steps(items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
    """Give the items one after the other, watched; the log tells how long it took.

    Args:
        items: what is worked on.
        what: the work, in a few words: "reading features".
        total: how many items there are, where they do not know it themselves.
    """
    started = time.perf_counter()
    if total is None and isinstance(items, Sized):
        total = len(items)
    with _watch.get()(what, total, "") as shown:
        for done, item in enumerate(items, 1):
            yield item
            shown.show(done)
    logger.info("%s: %.2f s", what, time.perf_counter() - started)


@contextmanager
def watched_by(watch: Watch) -> Iterator[None]:
    """Let `watch` show whatever works inside the block."""
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)
