"""One process makes all shards, and counts what it made."""

from collections.abc import Iterable, Iterator

from hfc.extract.engines.local import Local


def worker(shards: Iterable[int]) -> Iterator[str]:
    for shard in shards:
        yield f"shard {shard}"


def test_shards_are_made_in_order_until_told_to_stop() -> None:
    engine = Local()
    assert list(engine.run([4, 2, 3], worker, lambda: False)) == ["shard 4", "shard 2", "shard 3"]
    answers = iter([False, True])
    assert list(engine.run([4, 2, 3], worker, lambda: next(answers))) == ["shard 4"]


def test_it_leads_and_shares_with_itself() -> None:
    assert Local().leads
    assert Local().share(lambda: {"rows": 3}) == {"rows": 3}


def test_sums_begin_anew_with_every_run() -> None:
    engine = Local()
    assert [engine.tally(3, 1), engine.tally(2, 0)] == [(3, 1), (5, 1)]
    list(engine.run([1], worker, lambda: False))
    assert engine.tally(1, 1) == (1, 1)
