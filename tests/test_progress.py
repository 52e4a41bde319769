"""Long work is watched by whoever asks, and by nobody else."""

import logging
from pathlib import Path

import pytest

from hfc import store
from hfc.progress import bar, steps, watched_by
from tests.support.made_up import small_cache
from tests.support.watching import Shown, Watcher


def test_steps_are_counted_as_they_are_done() -> None:
    watcher = Watcher()
    with watched_by(watcher):
        letters = steps("abc", "spelling")
        assert [(next(letters), watcher.bars[0].done) for _ in "abc"] == [("a", 0), ("b", 1), ("c", 2)]
        assert list(letters) == []
        assert list(steps(iter("ab"), "reading", 2)) == ["a", "b"]
        assert list(steps(iter("a"), "reading")) == ["a"]
    assert watcher.bars == [
        Shown("spelling", 3, "", 3, closed=True),
        Shown("reading", 2, "", 2, closed=True),
        Shown("reading", None, "", 1, closed=True),
    ]


def test_nobody_watches_unless_asked() -> None:
    watcher = Watcher()
    with watched_by(watcher):
        pass
    assert list(steps("abc", "spelling")) == ["a", "b", "c"]
    with bar("search", unit="run") as shown:
        shown.show(1, 3, what="search again", note="a note")
    assert watcher.bars == []


def test_a_bar_says_the_unit_and_what_changes() -> None:
    watcher = Watcher()
    with watched_by(watcher), bar("loading", unit="run") as shown:
        assert watcher.bars == [Shown("loading", None, "run")]
        shown.show(2, 7, what="search", note="val top1 0.5")
        shown.show(3)
    assert watcher.bars == [Shown("search", 7, "run", 3, "val top1 0.5", closed=True)]


def test_how_long_steps_took_goes_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "hfc.progress"):
        list(steps("abc", "spelling"))
    (message,) = caplog.messages
    assert message.startswith("spelling: 0.0")
    assert message.endswith(" s")


def test_checking_a_cache_is_watched(tmp_path: Path) -> None:
    small_cache(tmp_path / "c.h5")
    watcher = Watcher()
    with watched_by(watcher):
        assert list(store.problems(tmp_path / "c.h5")) == []
    assert watcher.bars == [Shown("reading features", 2, "", 2, closed=True)]
