"""Shards are given out until somebody says stop."""

from hfc.extract.engines.base import until


def test_no_shard_is_begun_after_the_word_to_stop() -> None:
    answers = iter([False, False, True])
    assert list(until(lambda: next(answers), [5, 6, 7, 8])) == [5, 6]


def test_without_it_all_are_given_out() -> None:
    assert list(until(lambda: False, iter([3, 1, 2]))) == [3, 1, 2]
