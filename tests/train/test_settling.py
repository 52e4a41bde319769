"""What is left to the machine and the data is decided by them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from hfc.config import METHODS, TrainConfig, resolve
from hfc.hierarchy import from_paths
from hfc.train.cache import Cache, load_cache
from hfc.train.data import TrainingData, fold_data, prepare
from hfc.train.features import Resident, signs
from hfc.train.prepared import changed_settings, prepare_run
from hfc.train.settings import build_head
from hfc.train.settling import (
    fitting_batch_size,
    fitting_epochs,
    fitting_learning_rate,
    fitting_transform,
    left_to_data,
    settle,
    steps_in_all,
)
from hfc.train.stage import train


def test_the_batch_size_follows_the_training_rows() -> None:
    assert [fitting_batch_size(rows) for rows in (2, 800, 2830, 11018, 209_222)] == [64, 64, 128, 512, 1024]


def test_the_epochs_follow_the_training_rows() -> None:
    sizes = (2, 300, 2830, 2931, 9600, 15_000, 24_576, 50_000, 209_222, 10**6)
    assert [fitting_epochs(rows) for rows in sizes] == [40, 40, 40, 41, 74, 92, 118, 83, 41, 40]


@pytest.mark.parametrize("method", METHODS)
def test_the_epochs_follow_the_hidden_layers_that_levels_add(method: str, place: Path, cache: Cache) -> None:
    data = prepare(cache, str(place / "tree.csv"))
    epochs, hidden = [], []
    for levels in (1, 2, 3, 5):
        rows = [("top",) * (levels - 1) + (name,) for name in data.hierarchy.leaves]
        tree = from_paths("tree", [f"level {h}" for h in range(levels)], rows)
        config = settle(resolve(TrainConfig, {"method": method}), replace(data, hierarchy=tree), torch.device("cpu"))
        epochs.append(config.epochs)
        hidden.append(sum(isinstance(layer, nn.BatchNorm1d) for layer in build_head(config, tree, 8).modules()))
    if method in ("linear", "linear+ps"):
        assert epochs == [13] * 4
    elif len(set(hidden)) == 1:
        assert epochs == [40] * 4
    else:
        assert epochs == [40, 40, 60, 100]


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
        assert run.config == replace(config, epochs=13, precision="fp32", transform="none", topk=run.config.topk)
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


FEATURES: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "rectified": (lambda maps: maps.relu().mean(dim=2), "sqrt"),
    "swish": (lambda maps: F.silu(2 * maps).mean(dim=2), "sqrt"),
    "swish, mostly off": (lambda maps: F.silu(maps - 2).mean(dim=2), "none"),
    "normal": (lambda maps: maps.mean(dim=2), "none"),
    "layer norm": (lambda maps: F.layer_norm(maps.relu().mean(dim=2), (64,)), "none"),
    "unit length": (lambda maps: F.normalize(maps.mean(dim=2), dim=1), "none"),
    "all negative": (lambda maps: -maps.relu().mean(dim=2), "none"),
    "all zero": (lambda maps: maps.mean(dim=2) * 0, "sqrt"),
}


@pytest.mark.parametrize("kind", FEATURES)
def test_the_square_root_is_taken_of_rectified_features(kind: str, place: Path, cache: Cache) -> None:
    pooled, wanted = FEATURES[kind]
    maps = torch.randn(360, 64, 4, generator=torch.Generator().manual_seed(0))
    data = prepare(cache, str(place / "tree.csv"))
    data = replace(data, signs=signs(Resident(pooled(maps)[:, None]), torch.arange(360)))
    for method in METHODS:
        config = resolve(TrainConfig, {"method": method})
        assert config.transform == "auto"
        assert settle(config, data, torch.device("cpu")).transform == wanted
        for given in ("none", "sqrt", "l2"):
            assert settle(replace(config, transform=given), data, torch.device("cpu")).transform == given


def rectified(features: NDArray[np.float64], data: TrainingData) -> bool:
    """Whether less than a tenth of the sizes of the numbers trained on, added up one by one, are of negative ones."""
    numbers = features[data.rows["train"].numpy()].ravel().tolist()
    return bool(sum(-number for number in numbers if number < 0) <= 0.1 * sum(abs(number) for number in numbers))


def test_the_rows_trained_on_decide_also_in_a_fold(place: Path, cache: Cache) -> None:
    data = prepare(cache, str(place / "tree.csv"))
    features = np.abs(cache.features.tensor[:, 0].double().numpy())
    features[data.rows["test"]] *= -1  # no part in any choice
    features[0] = -1000  # one row for training
    data = replace(data, signs=signs(Resident(torch.from_numpy(features)[:, None]), torch.arange(360)))
    folds = [data, *fold_data(data, 3)]
    chosen = [fitting_transform(fold) for fold in folds]
    assert chosen == [("none", "sqrt")[rectified(features, fold)] for fold in folds]
    assert sorted(chosen) == ["none", "none", "none", "sqrt"]


def test_streamed_features_have_the_signs_of_those_in_memory(place: Path, cache: Cache) -> None:
    streamed = load_cache(place / "cache.h5", device="cpu", stream=True)
    assert torch.equal(streamed.signs, cache.signs)
    numbers = cache.features.tensor.double()
    wanted = torch.stack([(-numbers * (numbers < 0)).sum(dim=(1, 2)), numbers.abs().sum(dim=(1, 2))], dim=1)
    torch.testing.assert_close(cache.signs.double(), wanted)


@pytest.mark.parametrize(("transform", "other"), [("sqrt", "none"), ("none", "sqrt")])
def test_a_run_whose_transform_was_chosen_is_the_run_that_was_given_it(
    transform: str, other: str, place: Path, cache: Cache, tmp_path: Path
) -> None:
    if transform == "sqrt":
        cache = replace(cache, features=Resident(cache.features.tensor.abs()))
    config = resolve(TrainConfig, {"method": "flat", "hierarchy": str(place / "tree.csv"), "epochs": 1, "reduced": 8})
    chosen, was_trained = train(cache, config, tmp_path)
    given, is_new = train(cache, replace(config, transform=transform), tmp_path)
    assert (was_trained, is_new, chosen.folder) == (True, False, given.folder)
    assert chosen.result.config["transform"] == transform
    assert "transform" not in chosen.result.changed
    another, is_new = train(cache, replace(config, transform=other), tmp_path)
    assert (is_new, another.result.changed["transform"]) == (True, other)
    assert another.result.test["nll"] != chosen.result.test["nll"]


def test_a_search_knows_what_was_left_to_the_data() -> None:
    flat = resolve(TrainConfig, {"method": "flat"})
    assert left_to_data(flat) == ["batch_size", "epochs", "learning_rate", "transform"]
    assert left_to_data(replace(flat, transform="none", batch_size=8, epochs=3)) == ["learning_rate"]
