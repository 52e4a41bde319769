"""A watcher of long work, who writes down what is shown."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from hfc.progress import Bar


@dataclass
class Shown:
    """A bar and the last that was shown on it."""

    what: str
    total: int | None
    unit: str
    done: int = 0
    note: str = ""
    closed: bool = False
    watcher: Callable[["Shown"], object] = field(default=lambda shown: None, repr=False, compare=False)

    def show(self, done: int, total: int | None = None, *, what: str = "", note: str = "") -> None:
        self.done, self.total, self.what, self.note = done, total or self.total, what or self.what, note or self.note
        self.watcher(self)


class Watcher:
    """Keeps all bars, the first first; calls `on_show` whenever one of them changes."""

    def __init__(self, on_show: Callable[[Shown], object] = lambda shown: None) -> None:
        self.bars: list[Shown] = []
        self.on_show = on_show

    @contextmanager
    def __call__(self, what: str, total: int | None, unit: str) -> Iterator[Bar]:
        shown = Shown(what, total, unit, watcher=self.on_show)
        self.bars.append(shown)
        yield shown
        shown.closed = True
