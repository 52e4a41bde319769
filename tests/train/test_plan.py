"""What a search is to try, as a TOML file says it."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hfc.errors import ConfigError
from hfc.train.plan import config_of, read_sweep

FIXED = "method = 'flat'\nepochs = 3\nbatch_size = 64\nreduced = 16\nhierarchy = 'tree.csv'\n"


def write(folder: Path, text: str) -> Path:
    (folder / "grid.toml").write_text(FIXED + text)
    return folder / "grid.toml"


def test_a_grid_is_every_combination_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = "seeds = [3, 5]\nfolds = 2\n[grid]\ndropout = [0.5, 0.1]\nlearning_rate = [0.01, 0.1]\n"
    plan = read_sweep(write(tmp_path, text))
    assert plan.points == (
        {"dropout": 0.5, "learning_rate": 0.01},
        {"dropout": 0.5, "learning_rate": 0.1},
        {"dropout": 0.1, "learning_rate": 0.01},
        {"dropout": 0.1, "learning_rate": 0.1},
    )
    assert plan.fixed == {"method": "flat", "epochs": 3, "batch_size": 64, "reduced": 16, "hierarchy": "tree.csv"}
    assert (plan.seeds, list(plan.fold_numbers), plan.trainings) == ((3, 5), [0, 1], 4 * 2 * 2)
    assert list(replace(plan, folds=0).fold_numbers) == [None]


def test_a_random_search_draws_within_its_limits_and_repeats_itself(tmp_path: Path) -> None:
    text = (
        "trials = 200\n[random]\nlearning_rate = { low = 1e-4, high = 1e-1, log = true }\n"
        "reduced = { low = 8, high = 64 }\nloss = ['bce', 'softmax']\ndropout = { low = 0.1, high = 0.9 }\n"
    )
    plan = read_sweep(write(tmp_path, text))
    assert len(plan.points) == 200
    rates = np.log10([float(str(point["learning_rate"])) for point in plan.points])
    assert -4 <= rates.min() < -3.9
    assert -1.1 < rates.max() <= -1
    assert np.mean(rates) == pytest.approx(-2.5, abs=0.2)
    assert {type(point["reduced"]) for point in plan.points} == {int}
    assert {point["loss"] for point in plan.points} == {"bce", "softmax"}
    assert read_sweep(tmp_path / "grid.toml") == plan


BROKEN = [
    ("", "expected a table [grid] or [random]"),
    ("[grid]\ndropout = 0.5\n", "[grid] dropout: expected a list of values, found 0.5"),
    ("[grid]\ndropuot = [0.5]\n", "dropuot is no setting that can be searched or fixed"),
    ("[grid]\nseed = [1]\n", "seed is no setting"),
    ("[grid]\ndevice = ['cpu']\n", "device cannot be searched, as all points share one; give it at the top level"),
    ("[grid]\nselect = ['hF', 'top1']\n", "select cannot be searched, as it is what points are compared by; give it"),
    ("trials = 1\n[random]\ncheckpoint_seconds = [1.0]\n", "checkpoint_seconds cannot be searched, as it shapes no"),
    ("folds = 1\n[grid]\ndropout = [0.5]\n", "folds: expected two or more, or 0 for the validation split, found 1"),
    ("folds = 2.5\n[grid]\ndropout = [0.5]\n", "folds: expected two or more"),
    ("seeds = 3\n[grid]\ndropout = [0.5]\n", "seeds: expected a list of integers, found 3"),
    ("[random]\ndropout = [0.5]\n", "trials: expected how many points to draw, found 0"),
    ("trials = 2\n[random]\ndropout = { low = 1, high = 0 }\n", "[random] dropout: expected a list, or low < high"),
    ("trials = 2\n[random]\nlearning_rate = { low = 0.0, high = 1.0, log = true }\n", "expected a list, or low <"),
]


@pytest.mark.parametrize(("text", "message"), BROKEN)
def test_a_file_that_does_not_say_what_to_try_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"grid.toml: .*{re.escape(message)}"):
        read_sweep(write(tmp_path, text))


def test_what_is_fixed_for_all_points_is_so_whatever_methods_they_name(tmp_path: Path) -> None:
    """The methods' own values would go before it: linear and flat ship with other ones."""
    (tmp_path / "grid.toml").write_text(
        "method = 'levels'\nselect = 'top3'\ntransform = 'none'\n[grid]\nmethod = ['flat', 'linear', 'levels']\n"
    )
    plan = read_sweep(tmp_path / "grid.toml")
    configs = [config_of(plan.fixed, point, 7) for point in plan.points]
    assert [config.method for config in configs] == ["flat", "linear", "levels"]
    assert {(config.select, config.transform, config.seed) for config in configs} == {("top3", "none", 7)}
    assert (configs[0].dropout, configs[1].head, plan.select) == (0.8, "linear", "top3")
