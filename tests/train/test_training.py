"""A training between two epochs: its learning rate, and losses that explode."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hfc.config import TrainConfig, resolve
from hfc.errors import ConfigError, RunError
from hfc.train.cache import Cache
from hfc.train.heads.layers import Target
from hfc.train.stage import train
from hfc.train.training import learning_rate, task_means
from tests.support.training import quick


def test_uncertainty_learns_its_weights_and_logs_unweighted_losses(place: Path, cache: Cache, tmp_path: Path) -> None:
    run, _ = train(cache, quick(place, method="hmcn-f+mtl", epochs=25, learning_rate=0.01), tmp_path)
    for line in run.epochs:
        assert set(line.loss) == {"local", "global", "total"}
        assert line.loss["local"] > 0
    assert run.result.loss_weights["global"] > 1  # a loss below 1/2 is weighted up
    assert run.epochs[0].weights != run.epochs[-1].weights


def test_the_learning_rate_follows_half_a_cosine() -> None:
    config = resolve(TrainConfig, {"learning_rate": 2.0, "epochs": 4})
    assert [learning_rate(config, epoch) for epoch in (1, 2, 3, 4)] == pytest.approx(
        [2.0, 1 + np.cos(np.pi / 4), 1.0, 1 - np.cos(np.pi / 4)]
    )


def test_a_row_with_an_inner_label_counts_as_a_leaf_of_mean_weight_does() -> None:
    # Leaf 1, an inner node, leaf 2, another inner node.
    target = Target(torch.zeros(4, 3), torch.tensor([1, -1, 2, -1]))
    rows, weight = {"global": torch.tensor([3.0, 5, 7, 11])}, torch.tensor([9.0, 0.5, 2.0, 9.0, 9.0])
    for rest in (None, torch.tensor([1.0, 2.0, 3.0, 4.0])):
        (mean,) = task_means(rows, target, weight, rest).values()
        factors = [1.0] * 4 if rest is None else rest.tolist()
        pairs = zip([0.5 * 3, 5, 2 * 7, 11], factors, strict=True)
        assert mean.item() == pytest.approx(sum(loss * factor for loss, factor in pairs) / 4)
    assert task_means(rows, target, None)["global"].item() == 6.5


def test_a_batch_of_one_is_refused_and_a_left_over_row_waits(place: Path, cache: Cache, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch_size: batch normalisation needs two rows at least, found 1"):
        train(cache, quick(place, batch_size=1), tmp_path)
    run, _ = train(cache, quick(place, batch_size=71, epochs=2), tmp_path)  # 214 training rows: 3 * 71 + 1
    assert np.isfinite(run.epochs[-1].loss["total"])


def test_learned_weights_that_explode_end_the_run(place: Path, cache: Cache, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"the loss is (nan|inf|-inf) in epoch"):
        train(cache, quick(place, method="hmcn-f+mtl", learning_rate=1e4, epochs=30), tmp_path)
