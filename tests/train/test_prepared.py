"""What is decided before the first epoch is decided once: the data of a tree, and the settings of a run."""

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hfc.config import METHODS, TrainConfig, read_toml, resolve
from hfc.errors import ConfigError, HfcError, HierarchyError
from hfc.train import prepared
from hfc.train.cache import Cache
from hfc.train.data import TrainingData
from hfc.train.fit import fit
from hfc.train.plan import parse_sweep
from hfc.train.prepared import changed_settings, prepare_run, prepare_runs
from hfc.train.settling import fitting_batch_size
from hfc.train.stage import train, train_all
from hfc.train.sweep import sweep
from tests.support.training import quick

FLAT = {"method": "flat", "epochs": 1, "reduced": 8, "precision": "fp32"}


def flat(place: Path, **changes: object) -> TrainConfig:
    return resolve(TrainConfig, {"hierarchy": str(place / "tree.csv"), **FLAT, **changes})


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a tree was looked at, and settings were settled, by what they are."""
    seen: Counter[str] = Counter()

    def counted(name: str, label: Callable[..., str]) -> None:
        function: Callable[..., Any] = getattr(prepared, name)

        def call(*arguments: Any) -> Any:
            seen[label(*arguments)] += 1
            return function(*arguments)

        monkeypatch.setattr(prepared, name, call)

    counted("prepare", lambda cache, hierarchy, *rows: Path(hierarchy).name)
    counted("settle", lambda config, data, device: f"seed {config.seed}")
    # What a run changed of its method is settled apart; it is no run.
    monkeypatch.setattr("hfc.train.result.changed_settings", lambda config, data: {})
    monkeypatch.setattr("hfc.train.sweep.changed_settings", lambda config, data: {})
    return seen


def test_runs_on_one_tree_share_its_data_and_each_is_settled_once(
    place: Path, tmp_path: Path, counts: Counter[str]
) -> None:
    shutil.copy(place / "tree.csv", tmp_path / "other.csv")
    configs = [flat(place, seed=0), flat(place, seed=1), flat(place, seed=2, hierarchy=str(tmp_path / "other.csv"))]
    runs = [run for run, _ in train_all(place / "cache.h5", configs, tmp_path / "runs")]
    assert counts == {"tree.csv": 1, "other.csv": 1, "seed 0": 1, "seed 1": 1, "seed 2": 1}
    assert [run.result.hierarchy.name for run in runs] == ["tree", "tree", "other"]


def test_a_setting_that_the_run_does_not_use_is_no_change(place: Path, cache: Cache) -> None:
    run = prepare_run(cache, resolve(TrainConfig, {"hierarchy": str(place / "tree.csv"), "method": "linear"}))
    assert changed_settings(replace(run.config, batch_size=16, l2=0.5), run.data) == {"l2": 0.5}


def test_one_run_is_prepared_once(place: Path, cache: Cache, tmp_path: Path, counts: Counter[str]) -> None:
    train(cache, flat(place), tmp_path)
    assert counts == {"tree.csv": 1, "seed 0": 1}


@pytest.mark.parametrize("step", ["single", "stacked"])
def test_a_search_prepares_once_whatever_diverges(step: str, place: Path, tmp_path: Path, counts: Counter[str]) -> None:
    fixed = {**FLAT, "hierarchy": str(place / "tree.csv"), "seeds": [0, 1], "step": step}
    plan = parse_sweep(tmp_path / "g.toml", {**fixed, "grid": {"learning_rate": [1e30, 0.01]}})
    sweep(place / "cache.h5", plan, tmp_path / "out")
    assert counts == {"tree.csv": 1, "seed 0": 2, "seed 1": 2}


def test_a_prepared_run_holds_what_its_folder_says(place: Path, cache: Cache, tmp_path: Path) -> None:
    config = flat(place)
    run = prepare_run(cache, config)
    assert run.config.batch_size > 0
    assert run.config.learning_rate > 0
    assert run.name == f"flat--tree--seed0--{run.key[:8]}"
    trained, _ = train(cache, config, tmp_path)
    assert (trained.folder.name, trained.result.key) == (run.name, run.key)
    assert resolve(TrainConfig, read_toml(trained.folder / "config.toml")) == run.config
    assert prepare_run(cache, run.config).key == run.key  # settling settled settings changes nothing


def test_data_are_prepared_on_the_cpu_and_moved_whole(place: Path, cache: Cache) -> None:
    data = replace(prepare_run(cache, flat(place)).data, weight=torch.ones(360))
    moved = data.to(torch.device("meta"))  # a device of any kind will do
    assert {rows.device.type for rows in moved.rows.values()} == {"meta"}
    assert moved.weight is not None
    assert (moved.target.path.device.type, moved.weight.device.type) == ("meta", "meta")
    assert (moved.hierarchy, moved.unused) == (data.hierarchy, data.unused)
    same = data.to(torch.device("cpu"))
    assert same.target.path is data.target.path  # nothing is copied


def test_the_data_decide_what_is_left_to_them(place: Path, cache: Cache) -> None:
    first, second = prepare_runs(cache, [flat(place), flat(place, seed=1)])
    assert first.data is second.data
    assert first.key != second.key
    leaves = dict(zip(cache.table.regions.id, cache.table.regions.label, strict=True))
    rows = first.data.rows["test"].tolist()
    names = [first.data.hierarchy.leaves[leaf] for leaf in first.data.leaf("test")]
    assert names == [leaves[cache.table.regions.id[row]] for row in rows]


def test_the_first_run_that_does_not_fit_is_named(place: Path, cache: Cache) -> None:
    with pytest.raises(ConfigError, match=r"select: expected one of top1, top3, top5, .* found 'top2'"):
        prepare_runs(cache, [flat(place), flat(place, select="top2")])
    with pytest.raises(HierarchyError, match=r"nowhere\.csv: no such hierarchy"):
        prepare_runs(cache, [flat(place), flat(place, hierarchy="nowhere.csv")])


def test_fit_takes_settled_settings_as_they_are(place: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    run = prepare_run(cache, flat(place))

    def refuse(*arguments: object) -> TrainingData:
        raise AssertionError("fit must neither settle nor prepare")

    for name in ("hfc.train.settling.settle", "hfc.train.prepared.settle", "hfc.train.prepared.prepare"):
        monkeypatch.setattr(name, refuse)
    seen: list[TrainConfig] = []
    fitted = fit(cache.features, run.data, run.config, lambda config, epoch: seen.append(config))
    assert seen == [run.config]
    assert [epoch.number for epoch in fitted.epochs] == [1]


def test_what_was_left_to_the_data_is_no_change(place: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    config = resolve(TrainConfig, {"method": "flat", "hierarchy": str(place / "tree.csv")})
    run = prepare_run(cache, config)
    data, settled = run.data, run.config
    assert settled.batch_size == fitting_batch_size(len(data.rows["train"]))
    assert changed_settings(settled, data) == {}
    assert changed_settings(prepare_run(cache, replace(config, batch_size=33)).config, data) == {"batch_size": 33}
    # Where the data decide how long: how long that is. The run is the one that is asked for by this number.
    monkeypatch.setattr("hfc.train.settling.fitting_epochs", lambda rows: rows // 4)
    left = prepare_run(cache, replace(config, epochs=0))
    assert left.config.epochs == len(data.rows["train"]) // 4
    assert changed_settings(left.config, data) == {}
    assert prepare_run(cache, replace(config, epochs=left.config.epochs)).key == left.key != run.key
    shipped = {**METHODS, "flat": {**METHODS["flat"], "epochs": 0}}  # as a method might ship it
    monkeypatch.setattr("hfc.config.METHODS", shipped)
    assert changed_settings(left.config, data) == {}
    assert changed_settings(settled, data) == {"epochs": 40}
    other = prepare_run(cache, replace(config, epochs=0, batch_size=200)).config
    assert changed_settings(other, data) == {"batch_size": 200}


def test_what_does_not_fit_is_refused(place: Path, cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "lacking.csv").write_text("leaf,group\nTee,a\nTank,a\nCoat,b\n")
    cases: list[tuple[dict[str, object], type[HfcError], str]] = [
        ({"hierarchy": ""}, HierarchyError, "name a hierarchy"),
        ({"hierarchy": "nowhere.csv"}, HierarchyError, "nowhere.csv: no such hierarchy"),
        (
            {"hierarchy": str(tmp_path / "lacking.csv")},
            HierarchyError,
            "hierarchy lacking does not fit .*cache.h5: it has no node for Chinos, Jeans, Shorts",
        ),
        ({"topk": [1, 7]}, ConfigError, "top-7 of 6 classes does not exist; give --set topk=1"),
        ({"loss": "hxe"}, ConfigError, "loss hxe is for the flat head; hmcn-f takes bce or softmax"),
        ({"select": "top2"}, ConfigError, "select: expected one of top1, top3, top5, .* found 'top2'"),
    ]
    for changes, kind, message in cases:
        with pytest.raises(kind, match=message):
            train(cache, quick(place, **changes), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
