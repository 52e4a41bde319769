"""Processes of torchrun, on a key-value store in memory in place of torchrun's own."""

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import timedelta

import pytest
import torch

from hfc.errors import HfcError
from hfc.extract.engines.torchrun import Torchrun


class Store:
    """What torchrun's store does, for processes that take turns."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.counts: Counter[str] = Counter()

    def set(self, key: str, text: str) -> None:
        self.texts[key] = text

    def get(self, key: str) -> str:
        return self.texts[key]

    def wait(self, keys: list[str], patience: timedelta) -> None:
        assert set(keys) <= set(self.texts)
        assert patience >= timedelta(days=1)

    def add(self, key: str, amount: int) -> int:
        self.counts[key] += amount
        return self.counts[key]


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> tuple[Torchrun, Torchrun]:
    """Rank 0 and rank 1 of two."""
    store, ranks = Store(), iter((0, 1))
    monkeypatch.setattr(
        torch.distributed, "rendezvous", lambda address, timeout: iter([(store, next(ranks), 2)]), raising=True
    )
    return Torchrun(), Torchrun()


def worker(shards: Iterable[int]) -> Iterator[int]:
    yield from shards


def test_rank_0_leads_and_what_it_makes_is_everybodys(pair: tuple[Torchrun, Torchrun]) -> None:
    first, second = pair
    assert (first.leads, second.leads) == (True, False)
    plan = {"complete": False, "todo": [1, 2]}
    assert first.share(lambda: plan) == plan
    assert second.share(lambda: {"of rank 1": "never asked"}) == plan


def test_its_error_ends_the_others_too(pair: tuple[Torchrun, Torchrun]) -> None:
    first, second = pair

    def fail() -> str:
        raise HfcError("no such place")

    with pytest.raises(HfcError, match=r"^no such place$"):
        first.share(fail)
    with pytest.raises(HfcError, match=r"^rank 0 stopped: no such place$"):
        second.share(fail)


def test_every_shard_is_drawn_once_and_the_sums_are_of_both(pair: tuple[Torchrun, Torchrun]) -> None:
    first, second = pair
    one, two = (engine.run([7, 8, 9], worker, lambda: False) for engine in (first, second))
    assert [next(one), next(two), next(two)] == [7, 8, 9]
    assert (second.tally(4, 1), first.tally(3, 0)) == ((4, 1), (7, 1))
    assert list(two) == []
    assert list(one) == []  # it waited for rank 1


def test_rank_0_lets_time_pass_until_the_others_have_ended(
    pair: tuple[Torchrun, Torchrun], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hfc.extract.engines.torchrun.POLL_S", 0)
    first, second = pair
    one, two = (engine.run([7], worker, lambda: False) for engine in (first, second))
    assert [next(one), next(one), next(one)] == [7, None, None]
    assert list(two) == []
    assert list(one) == []


def test_outside_torchrun_it_says_how_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(HfcError, match="start with torchrun --nproc-per-node N -m cli extract"):
        Torchrun()
