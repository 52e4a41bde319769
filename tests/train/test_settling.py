"""What is left to the machine and the data is decided by them."""

from dataclasses import replace
from pathlib import Path

import torch

from hfc.config import TrainConfig, resolve
from hfc.train.cache import Cache
from hfc.train.data import prepare
from hfc.train.prepared import changed_settings, prepare_run
from hfc.train.settling import fitting_batch_size, fitting_epochs, fitting_learning_rate, settle, steps_in_all


def test_the_batch_size_follows_the_training_rows() -> None:
    assert [fitting_batch_size(rows) for rows in (2, 800, 2830, 11018, 209_222)] == [64, 64, 128, 512, 1024]


def test_the_epochs_follow_the_training_rows() -> None:
    sizes = (2, 300, 2830, 2931, 9600, 15_000, 24_576, 50_000, 209_222, 10**6)
    assert [fitting_epochs(rows) for rows in sizes] == [40, 40, 40, 41, 74, 92, 118, 83, 41, 40]


def test_epochs_left_to_the_data_are_settled_before_the_rate(place: Path, cache: Cache) -> None:
    config = resolve(TrainConfig, {"method": "flat", "hierarchy": str(place / "tree.csv"), "epochs": 0})
    data = prepare(cache, config.hierarchy)
    for times, epochs in ((1, 40), (50, 78)):  # 216 rows, and 10,800
        more = replace(data, rows={**data.rows, "train": data.rows["train"].repeat(times)})
        for batch_size in (0, 16, 4096):
            settled = settle(replace(config, batch_size=batch_size), more, torch.device("cpu"))
            assert settled.epochs == epochs
            assert settled.learning_rate == fitting_learning_rate(steps_in_all(settled, more), settled.batch_size)
            assert settle(settled, more, torch.device("cpu")) == settled


def test_epochs_left_to_the_data_are_of_linear_the_points_of_its_path(place: Path, cache: Cache) -> None:
    for settings in ({"method": "linear"}, {"method": "flat", "head": "linear"}):
        config = resolve(TrainConfig, {**settings, "hierarchy": str(place / "tree.csv"), "epochs": 0})
        run = prepare_run(cache, config)
        assert run.config == replace(config, epochs=13, precision="fp32", topk=run.config.topk)
        changed = changed_settings(run.config, run.data)
        assert "epochs" not in changed


def test_the_learning_rate_left_to_the_data_follows_the_steps(place: Path, cache: Cache) -> None:
    steps = (1, 80, 160, 400, 8000)
    for batch in (8, 64, 128):
        assert [fitting_learning_rate(count, batch) for count in steps] == [0.003, 0.002, 0.001, 0.0004, 0.0003]
    assert [fitting_learning_rate(count, 512) for count in steps] == [0.003, 0.003, 0.002, 0.0008, 0.0006]
    config = resolve(TrainConfig, {"method": "flat", "hierarchy": str(place / "tree.csv"), "epochs": 10})
    run = prepare_run(cache, replace(config, batch_size=8))
    data, settled = run.data, run.config
    steps = sum(1 for _ in cache.features.batches(data.rows["train"], 8, torch.Generator())) * 10
    assert settled.learning_rate == fitting_learning_rate(steps, 8)
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
