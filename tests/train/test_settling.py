"""What is left to the machine and the data is decided by them."""

from dataclasses import replace
from pathlib import Path

import torch

from hfc.config import TrainConfig, resolve
from hfc.train.cache import Cache
from hfc.train.data import prepare
from hfc.train.prepared import changed_settings, prepare_run
from hfc.train.settling import fitting_batch_size, fitting_learning_rate, settle, steps_in_all


def test_the_batch_size_follows_the_training_rows() -> None:
    assert [fitting_batch_size(rows) for rows in (2, 800, 2830, 11018, 209_222)] == [64, 64, 128, 512, 1024]


def test_the_learning_rate_left_to_the_data_follows_the_steps(place: Path, cache: Cache) -> None:
    assert [fitting_learning_rate(steps) for steps in (1, 80, 160, 400, 8000)] == [0.003, 0.002, 0.001, 0.0004, 0.0003]
    config = resolve(TrainConfig, {"method": "flat", "hierarchy": str(place / "tree.csv"), "epochs": 10})
    run = prepare_run(cache, replace(config, batch_size=8))
    data, settled = run.data, run.config
    steps = sum(1 for _ in cache.features.batches(data.rows["train"], 8, torch.Generator())) * 10
    assert settled.learning_rate == fitting_learning_rate(steps)
    assert 0.0003 < settled.learning_rate < 0.003
    assert changed_settings(settled, data) == {"epochs": 10, "batch_size": 8}
    assert changed_settings(replace(settled, learning_rate=0.5), data)["learning_rate"] == 0.5


def test_settled_settings_have_nothing_left_to_decide(place: Path, cache: Cache) -> None:
    data = prepare(cache, str(place / "tree.csv"))
    settled = settle(resolve(TrainConfig, {"method": "flat"}), data, torch.device("cpu"))
    assert settled.batch_size
    assert settled.learning_rate
    assert settled.precision in ("fp32", "bf16")
    assert settle(settled, data, torch.device("cpu")) == settled
    given = replace(settled, batch_size=33, learning_rate=0.5, precision="fp32")
    assert settle(given, data, torch.device("cpu")) == given
    assert steps_in_all(given, data) == -(-len(data.rows["train"]) // 33) * given.epochs
