"""Fitting picks the first epoch that is best on validation, and sees no test row."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hfc.config import TrainConfig
from hfc.metrics import METRICS
from hfc.runs import Epoch
from hfc.train.cache import Cache
from hfc.train.features import Resident
from hfc.train.fit import fit
from hfc.train.prepared import PreparedRun, prepare_run
from hfc.train.training import Fitted
from tests.support.training import quick


@pytest.fixture(scope="module")
def run(place: Path, cache: Cache) -> PreparedRun:
    return prepare_run(cache, quick(place, method="flat", epochs=8, schedule="constant", select="top1"))


def same_head(one: Fitted, other: Fitted) -> bool:
    states = one.head.state_dict(), other.head.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0] | states[1])


def test_the_head_is_that_of_the_first_epoch_that_is_best_on_validation(run: PreparedRun, cache: Cache) -> None:
    epochs: list[Epoch] = []

    def note(config: TrainConfig, epoch: Epoch) -> None:
        assert config is run.config
        epochs.append(epoch)

    fitted = fit(cache.features, run.data, run.config, note)
    scores = [epoch.val[run.config.select] for epoch in epochs]
    assert [epoch.number for epoch in epochs] == list(range(1, 9))
    assert fitted.best.epoch == scores.index(max(scores)) + 1
    assert sorted(epochs[0].val) == ["top1", "top1_macro", "top3", "top5"]
    # Of the epoch that is kept every metric is measured in the end.
    place = fitted.best.epoch - 1
    kept = fitted.epochs[place]
    assert kept.val == fitted.best.val
    assert {key: kept.val[key] for key in epochs[place].val} == epochs[place].val
    assert {*METRICS} < {*kept.val}
    assert kept.seconds > epochs[place].seconds
    epochs[place] = replace(epochs[place], val=kept.val, seconds=kept.seconds)
    assert tuple(epochs) == fitted.epochs
    # At a constant rate a training that ends there is the same until then.
    until = fit(cache.features, run.data, replace(run.config, epochs=fitted.best.epoch))
    assert same_head(fitted, until)


def test_without_validation_rows_the_last_epoch_counts(run: PreparedRun, cache: Cache) -> None:
    data = replace(run.data, rows={**run.data.rows, "val": run.data.rows["val"][:0]})
    fitted = fit(cache.features, data, run.config)
    assert (fitted.best.epoch, fitted.best.val) == (8, {})


def test_test_rows_and_the_callers_random_numbers_are_left_alone(run: PreparedRun, cache: Cache) -> None:
    assert isinstance(cache.features, Resident)
    spoilt = cache.features.tensor.clone()
    spoilt[run.data.rows["test"]] = torch.nan
    torch.manual_seed(5)
    state = torch.get_rng_state()
    fitted = fit(Resident(spoilt), run.data, run.config)
    assert torch.equal(torch.get_rng_state(), state)
    assert same_head(fitted, fit(cache.features, run.data, run.config))
