"""Which runs are trained together, and what becomes of those beside one that diverges."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from hfc.config import TrainConfig, resolve
from hfc.errors import DivergedError
from hfc.train.groups import groups, in_order, surviving
from hfc.train.stage import train_all

FOUR = [replace(resolve(TrainConfig, {"method": "flat"}), seed=seed) for seed in range(4)]


def test_those_beside_a_run_that_diverges_are_trained_without_it() -> None:
    attempts: list[list[int]] = []

    def attempt(configs: Sequence[TrainConfig]) -> list[int]:
        attempts.append([config.seed for config in configs])
        if bad := next((config for config in configs if config.seed in (1, 3)), None):
            raise DivergedError(f"seed {bad.seed}", bad)
        return [10 * config.seed for config in configs]

    outcomes = surviving(FOUR, attempt)
    assert [str(outcome) if isinstance(outcome, DivergedError) else outcome for outcome in outcomes] == [
        *(0, "seed 1", 20, "seed 3"),
    ]
    assert attempts == [[0, 1, 2, 3], [0, 2, 3], [0, 2]]


def test_where_all_diverge_there_are_only_errors() -> None:
    def attempt(configs: Sequence[TrainConfig]) -> list[int]:
        raise DivergedError("made to fail", configs[-1])

    outcomes = surviving(FOUR, attempt)
    assert all(isinstance(outcome, DivergedError) for outcome in outcomes)
    assert [outcome.config for outcome in outcomes if isinstance(outcome, DivergedError)] == FOUR


def test_an_error_of_none_of_the_runs_is_raised() -> None:
    def attempt(configs: Sequence[TrainConfig]) -> list[int]:
        raise DivergedError("of another", replace(FOUR[0], seed=9))

    with pytest.raises(DivergedError, match="of another"):
        surviving(FOUR, attempt)


def test_outcomes_of_groups_come_in_the_order_of_the_runs_and_as_soon_as_they_can() -> None:
    done: list[str] = []

    def results() -> Iterator[list[str]]:
        for outcomes in (["a", "c"], ["b"], ["d", "f"], ["e"]):
            done.append("".join(outcomes))
            yield outcomes

    given = [(outcome, len(done)) for outcome in in_order([[0, 2], [1], [3, 5], [4]], results())]
    assert given == [("a", 1), ("b", 2), ("c", 2), ("d", 3), ("e", 4), ("f", 4)]


def test_runs_of_other_lengths_are_not_trained_together() -> None:
    left = [replace(config, step="stacked", epochs=epochs) for epochs in (0, 40) for config in FOUR[:2]]
    assert groups(left) == [[0, 1], [2, 3]]


@pytest.mark.parametrize(("step", "places"), [("single", [[0], [1], [2], [3]]), ("stacked", [[0, 1, 2, 3]])])
def test_seeds_are_trained_together_where_their_step_asks_for_it(step: str, places: list[list[int]]) -> None:
    assert groups([replace(config, step=step) for config in FOUR]) == places


def test_the_same_run_twice_is_trained_once(place: Path, tmp_path: Path) -> None:
    settings = {"method": "flat", "hierarchy": str(place / "tree.csv"), "epochs": 1, "reduced": 8, "step": "stacked"}
    twice = [resolve(TrainConfig, {**settings, "seed": seed}) for seed in (0, 1, 0)]
    assert groups(twice) == [[0, 1], [2]]
    outcomes = list(train_all(place / "cache.h5", twice, tmp_path))
    assert [trained for _, trained in outcomes] == [True, True, False]
    assert outcomes[0][0].folder == outcomes[2][0].folder


def test_runs_on_a_share_of_the_rows_are_together_only_with_those_of_their_seed() -> None:
    stacked = [replace(config, step="stacked", learning_rate=rate) for config in FOUR[:2] for rate in (0.1, 0.2)]
    assert groups(stacked) == [[0, 1, 2, 3]]
    assert groups([replace(config, train_share=0.5) for config in stacked]) == [[0, 1], [2, 3]]
