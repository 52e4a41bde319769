"""A training between two epochs: its learning rate, and losses that explode."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hfc.errors import ConfigError, RunError
from hfc.train import training
from hfc.train.cache import Cache
from hfc.train.features import Resident
from hfc.train.fit import fit
from hfc.train.prepared import prepare_run
from hfc.train.stage import train
from tests.support.training import quick


def test_uncertainty_learns_its_weights_and_logs_unweighted_losses(place: Path, cache: Cache, tmp_path: Path) -> None:
    run, _ = train(cache, quick(place, method="hmcn-f+mtl", epochs=25, learning_rate=0.01), tmp_path)
    for line in run.epochs:
        assert set(line.loss) == {"local", "global", "total"}
        assert line.loss["local"] > 0
    assert run.result.loss_weights["global"] > 1  # a loss below 1/2 is weighted up
    assert run.epochs[0].weights != run.epochs[-1].weights


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "flat", "transform": "sqrt"},
        {"method": "flat+ps"},
        {"transform": "l2", "precision": "fp32"},
        {"views": 2},
    ],
    ids=str,
)
def test_features_standardised_once_for_all_epochs_give_the_same_bits(
    changes: dict[str, object], place: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = dict(changes)
    if given.pop("views", 1) == 2:
        assert isinstance(cache.features, Resident)
        two = torch.cat([cache.features.tensor, cache.features.tensor.flip(0)], dim=1)
        cache = replace(cache, features=Resident(two))
    run = prepare_run(cache, quick(place, **given))
    fits = []
    for most in (training.READY, 0):
        monkeypatch.setattr(training, "READY", most)
        fits.append(fit(cache.features, run.data, run.config))
    states = [fitted.head.state_dict().values() for fitted in fits]
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))
    assert [epoch.loss for epoch in fits[0].epochs] == [epoch.loss for epoch in fits[1].epochs]


def test_a_batch_of_one_is_refused_and_a_left_over_row_waits(place: Path, cache: Cache, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch_size: batch normalisation needs two rows at least, found 1"):
        train(cache, quick(place, batch_size=1), tmp_path)
    run, _ = train(cache, quick(place, batch_size=71, epochs=2), tmp_path)  # 214 training rows: 3 * 71 + 1
    assert np.isfinite(run.epochs[-1].loss["total"])


def test_learned_weights_that_explode_end_the_run(place: Path, cache: Cache, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"the loss is (nan|inf|-inf) in epoch"):
        train(cache, quick(place, method="hmcn-f+mtl", learning_rate=1e4, epochs=30), tmp_path)
