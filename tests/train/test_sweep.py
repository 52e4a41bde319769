"""Searches for settings, on made-up features."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from cli.main import main
from hfc import metrics, parallel
from hfc.config import TrainConfig, read_toml, resolve
from hfc.errors import ConfigError, DivergedError, RunError
from hfc.parallel import Crew
from hfc.progress import watched_by
from hfc.train import settling
from hfc.train.cache import load_cache
from hfc.train.data import prepare
from hfc.train.fit import fit
from hfc.train.groups import fit_group
from hfc.train.plan import read_sweep
from hfc.train.prepared import prepare_run
from hfc.train.settling import settle
from hfc.train.sweep import sweep
from tests.support.made_up import small_cache, write_cache
from tests.support.watching import Watcher

QUICK = "method = 'flat'\nepochs = 3\nselect = 'top1'\nbatch_size = 64\nreduced = 16\nhierarchy = '{tree}'\n"
GRID = "seeds = [0, 1]\n[grid]\nlearning_rate = [1e-6, 0.01]\ndropout = [0.0, 0.5]\n"


def write(folder: Path, place: Path, text: str) -> Path:
    (folder / "grid.toml").write_text(QUICK.format(tree=place / "tree.csv") + text)
    return folder / "grid.toml"


def searches_shown_to(watcher: Callable[[int, int | None], object]) -> AbstractContextManager[None]:
    """Searches inside the block show the watcher how many trainings are done, of how many."""
    return watched_by(Watcher(lambda bar: watcher(bar.done, bar.total) if bar.what == "search" else None))


def test_rows_that_are_left_out_are_told_once(place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    labels = [("Tee", "Tank", "Coat", "Jeans", "Chinos", "")[i % 6] for i in range(180)]
    splits = [("train", "train", "train", "val", "test")[i // 6 % 5] for i in range(180)]
    cache = write_cache(tmp_path / "some.h5", labels, splits)
    plan = read_sweep(write(tmp_path, place, "[grid]\ndropout = [0.0, 0.5]\n"))
    for out in ("out", "again"):
        sweep(cache, plan, tmp_path / out)
    told = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert told == [f"{cache} (tree): rows: 90 train, 30 val, 30 test; left out: 30 without label"]


def test_the_command_says_once_how_many_rows_are_left_out_and_why(place: Path, tmp_path: Path) -> None:
    labels, splits = ["Tee", "Tank", ""] * 30, ["train"] * 45 + ["val"] * 24 + [""] * 9 + ["test"] * 12
    cache = write_cache(tmp_path / "some.h5", labels, splits, failed=[0])
    grid = write(tmp_path, place, "[grid]\ndropout = [0.0, 0.5]\n")
    (tmp_path / "plan.toml").write_text(
        'methods = ["flat", "levels"]\nsearch_seeds = [0]\nseeds = [1]\nepochs = 1\n[grid]\nreduced = [8]\n'
    )
    common = (str(cache), "--out", str(tmp_path / "out"))
    tree = ("--hierarchy", str(place / "tree.csv"), "--plan", str(tmp_path / "plan.toml"))
    for words in (("sweep", *common, "--grid", str(grid)), ("ablation", *common[:2], str(tmp_path / "a"), *tree)):
        text, answer = (CliRunner().invoke(main, [*words, *more], catch_exceptions=False) for more in ((), ("--json",)))
        assert [line for line in text.stdout.splitlines() if "rows:" in line] == [
            "rows: 29 train, 16 val, 8 test; left out: 1 without features, 30 without label, 6 without split"
        ]
        assert (text.stderr, answer.stderr) == ("", "")
        unused = {"without features": 1, "without label": 30, "without split": 6}
        assert json.loads(answer.stdout)["rows"] == [{"train": 29, "val": 16, "test": 8, "unused": unused}]


def test_every_combination_is_tried_and_the_best_on_validation_wins(place: Path, tmp_path: Path) -> None:
    plan = read_sweep(write(tmp_path, place, GRID))
    found = sweep(place / "cache.h5", plan, tmp_path / "out")
    # By hand: train each with `fit`, and average over seeds.
    cache = load_cache(place / "cache.h5")
    scores = {}
    for rate in (1e-6, 0.01):
        for dropout in (0.0, 0.5):
            values = []
            for seed in (0, 1):
                point = {"learning_rate": rate, "dropout": dropout, "seed": seed}
                config = resolve(TrainConfig, plan.fixed, point)
                run = prepare_run(cache, config)
                fitted = fit(cache.features, run.data, run.config)
                values.append(fitted.best.val["top1"])
            scores[rate, dropout] = float(np.mean(values))
    assert {(t.settings["learning_rate"], t.settings["dropout"]): t.score for t in found} == pytest.approx(scores)
    assert found[0].score == max(scores.values()) > found[-1].score
    best = resolve(TrainConfig, read_toml(tmp_path / "out" / "best.toml"))
    assert (best.learning_rate, best.dropout) == tuple(found[0].settings.values())
    assert (best.method, best.epochs) == ("flat", 3)


@pytest.mark.parametrize("grouped", [False, True])
def test_folds_are_those_of_scikit_learn_over_training_and_validation_rows(
    grouped: bool, place: Path, tmp_path: Path
) -> None:
    names = np.array([f"product {i // 4}" if grouped else "" for i in range(360)])
    path = small_cache(tmp_path / "c.h5", groups=names.tolist())
    text = "seeds = [0, 1]\nfolds = 3\n[grid]\nlearning_rate = [1e-6, 0.01]\n"
    plan = read_sweep(write(tmp_path, place, text))
    found = sweep(path, plan, tmp_path / "out")
    cache = load_cache(path)
    whole = prepare(cache, str(place / "tree.csv"))
    rows = np.flatnonzero(np.isin(cache.table.regions.split, ["train", "val"]))
    leaf, (_, product) = whole.target.leaf[rows].numpy(), np.unique(names[rows], return_inverse=True)
    splitter = (StratifiedGroupKFold if grouped else StratifiedKFold)(3, shuffle=True, random_state=0)
    folds = list(splitter.split(rows, leaf, product if grouped else None))
    scores = {}
    for rate in (1e-6, 0.01):
        by_seed = []
        for seed in (0, 1):
            config = resolve(TrainConfig, plan.fixed, {"learning_rate": rate, "seed": seed})
            values = []
            for train_rows, val_rows in folds:
                parts = {"train": torch.from_numpy(rows[train_rows]), "val": torch.from_numpy(rows[val_rows])}
                data = replace(whole, rows=parts)
                settled = settle(config, data, torch.device("cpu"))
                values.append(fit(cache.features, data, settled).best.val["top1"])
            by_seed.append(np.mean(values))
        scores[rate] = float(np.mean(by_seed)), float(np.std(by_seed, ddof=1))
    for trial in found:
        assert (trial.score, trial.spread) == pytest.approx(scores[trial.settings["learning_rate"]])
    lines = [json.loads(text) for text in (tmp_path / "out" / "trials.jsonl").read_text().splitlines()]
    assert {line["method"] for line in lines} == {resolve(TrainConfig, plan.fixed).method}
    assert len({line["key"] for line in lines}) == len(lines) == plan.trainings == 12
    # Nothing is left to do, and a search on the validation split is another one.
    shown: list[tuple[int, int | None]] = []
    with searches_shown_to(lambda done, total: shown.append((done, total))):
        sweep(path, plan, tmp_path / "out")
        assert shown == [(12, 12)]
        sweep(path, replace(plan, folds=0), tmp_path / "out")
        assert shown[1] == (0, 4)


@pytest.mark.parametrize("step", ["single", "stacked"])
def test_a_length_is_left_to_the_rows_of_each_fold(
    step: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of 216 training rows 4 epochs, of the 192 in each of three folds 5: there 0 is not 4.
    monkeypatch.setattr("hfc.train.settling.fitting_epochs", lambda rows: {216: 4, 192: 5}[rows])
    file = write(tmp_path, place, "folds = 3\n[grid]\nepochs = [4, 0]\n")
    file.write_text(file.read_text().replace("epochs = 3\n", f"step = '{step}'\n"))
    plan = read_sweep(file)
    found = sweep(place / "cache.h5", plan, tmp_path / "out")
    lines = [json.loads(text) for text in (tmp_path / "out" / "trials.jsonl").read_text().splitlines()]
    assert len({line["key"] for line in lines}) == len(lines) == plan.trainings == 6
    assert sorted(line["changed"].get("epochs", 5) for line in lines) == [4, 4, 4, 5, 5, 5]
    assert sorted(trial.settings["epochs"] for trial in found) == [0, 4]
    assert read_toml(tmp_path / "out" / "best.toml")["epochs"] == found[0].settings["epochs"]
    # On the cache's own splits 0 and 4 are one training.
    again = sweep(place / "cache.h5", replace(plan, folds=0), tmp_path / "own")
    assert len((tmp_path / "own" / "trials.jsonl").read_text().splitlines()) == 1
    assert again[0].score == again[1].score


def test_folds_of_other_groups_are_trained_anew(place: Path, tmp_path: Path) -> None:
    plan = read_sweep(write(tmp_path, place, "folds = 2\n[grid]\ndropout = [0.1]\n"))
    ids = load_cache(place / "cache.h5").table.regions.id
    shown: list[tuple[int, int | None]] = []
    for labels in ("product", "other", ""):
        rows = [f"{name},{('Tee', 'Tank')[i % 2]},{labels and f'{labels}{i // 4}'}" for i, name in enumerate(ids)]
        (tmp_path / "l.csv").write_text("\n".join(["id,label,group", *rows]))
        with searches_shown_to(lambda done, total: shown.append((done, total))):
            sweep(place / "cache.h5", plan, tmp_path / "out", labels=tmp_path / "l.csv")
    assert [done for done, _ in shown if done == 0] == [0, 0, 0]
    lines = (tmp_path / "out" / "trials.jsonl").read_text().splitlines()
    assert len({json.loads(line)["key"] for line in lines}) == len(lines) == 6


def test_more_folds_than_rows_are_refused(place: Path, tmp_path: Path) -> None:
    plan = read_sweep(write(tmp_path, place, "folds = 1000\n[grid]\ndropout = [0.1]\n"))
    with pytest.raises(RunError, match="1000 folds need as many rows for training and validation, found"):
        sweep(place / "cache.h5", plan, tmp_path / "out")


def test_the_test_split_is_never_looked_at(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = load_cache(place / "cache.h5")
    sizes: list[int] = []
    evaluate, rank = metrics.evaluate, metrics.rank

    def watch(levels: object, final: np.ndarray, *rest: object, **more: object) -> object:
        sizes.append(len(final))
        return evaluate(levels, final, *rest, **more)  # type: ignore[arg-type]

    def watch_rank(final: np.ndarray, target: np.ndarray) -> object:
        sizes.append(len(final))
        return rank(final, target)

    monkeypatch.setattr(metrics, "evaluate", watch)
    monkeypatch.setattr(metrics, "rank", watch_rank)
    sweep(place / "cache.h5", read_sweep(write(tmp_path, place, "[grid]\ndropout = [0.1]\n")), tmp_path / "out")
    splits = cache.table.regions.split.tolist()
    assert sizes == [splits.count("val")] * 4  # three epochs, and all metrics of the one that is kept
    (line,) = (json.loads(text) for text in (tmp_path / "out" / "trials.jsonl").read_text().splitlines())
    assert "test" not in json.dumps(line)


def test_an_interrupted_sweep_goes_on(place: Path, tmp_path: Path) -> None:
    plan = read_sweep(write(tmp_path, place, GRID))

    def stop(done: int, total: int | None) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), searches_shown_to(stop):
        sweep(place / "cache.h5", plan, tmp_path / "out")
    file = tmp_path / "out" / "trials.jsonl"
    assert len(file.read_text().splitlines()) == 5
    with file.open("a") as stream:
        stream.write('{"key": "half a li')
    shown: list[tuple[int, int | None]] = []
    with searches_shown_to(lambda done, total: shown.append((done, total))):
        resumed = sweep(place / "cache.h5", plan, tmp_path / "out")
    assert shown == [(5, 8), (6, 8), (7, 8), (8, 8)]
    assert resumed == sweep(place / "cache.h5", plan, tmp_path / "whole")
    # What was written after the half line counts too: nothing is left to do.
    shown.clear()
    with searches_shown_to(lambda done, total: shown.append((done, total))):
        assert sweep(place / "cache.h5", plan, tmp_path / "out") == resumed
    assert shown == [(8, 8)]


def test_a_search_where_the_planned_device_is_not_is_refused(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a cluster whose machines have no GPU, while the one that planned the search has."""
    plan = read_sweep(write(tmp_path, place, "device = 'cpu'\n[grid]\ndropout = [0.0, 0.5]\n"))

    def on_other_machines(calls: Iterable[Any], crew: Crew, *, ordered: bool) -> Iterator[Any]:
        for function, (source, known, group), _ in calls:
            assert source.device == "cpu"
            yield function(replace(source, device="cuda:77"), known, group)

    monkeypatch.setattr("hfc.train.sweep.parallel.run", on_other_machines)
    with pytest.raises(
        ConfigError, match=r"^device cuda:77 cannot be used here: .*; every process needs the device of the one that"
    ):
        sweep(place / "cache.h5", plan, tmp_path / "out")
    assert (tmp_path / "out" / "trials.jsonl").read_text() == ""


def hfc(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def test_the_command_prints_the_best_and_what_comes_next(place: Path, tmp_path: Path) -> None:
    file = write(tmp_path, place, "seeds = [0, 1]\n[grid]\nlearning_rate = [1e-6, 0.01]\n")
    result = hfc("sweep", place / "cache.h5", "--grid", file, "--out", tmp_path / "out", "--jobs", 2)
    assert result.exit_code == 0, result.output
    rows, first, second, count, then = result.stdout.splitlines()
    assert rows == "rows: 216 train, 72 val, 72 test; left out: none"
    assert first.endswith("learning_rate=0.01")
    assert second.endswith("learning_rate=1e-06")
    assert count == "2 points, 2 seeds each, on validation alone"
    assert then == f"next: hfc train {place / 'cache.h5'} --config {tmp_path / 'out' / 'best.toml'}"
    ran = hfc("train", place / "cache.h5", "--config", tmp_path / "out" / "best.toml", "--out", tmp_path / "runs")
    assert ran.exit_code == 0, ran.output
    assert hfc("sweep", place / "cache.h5", "--grid", tmp_path / "no.toml", "--out", tmp_path).exit_code == 1


def test_a_sweep_may_stream(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object) -> None:
        raise AssertionError("the features were read into memory")

    monkeypatch.setattr("hfc.store.FeatureStore.features", refuse)
    grid = write(tmp_path, place, "[grid]\nlearning_rate = [1e-6, 0.01]\n")
    found = sweep(place / "cache.h5", read_sweep(grid), tmp_path / "out", stream=True)
    assert found[0].settings == {"learning_rate": 0.01}
    assert found[0].score > 0.8 > found[1].score


DIVERGING = "seeds = [0, 1]\n[grid]\nlearning_rate = [1e25, 0.01, 1e-6]\n"


def test_a_diverging_point_is_recorded_and_the_others_go_on(place: Path, tmp_path: Path) -> None:
    plan = read_sweep(write(tmp_path, place, DIVERGING))
    found = sweep(place / "cache.h5", plan, tmp_path / "out")
    assert [trial.settings["learning_rate"] for trial in found] == [0.01, 1e-6, 1e25]
    assert [bool(trial.failed) for trial in found] == [False, False, True]
    assert re.fullmatch(
        r"flat, seed 0: the loss is (nan|inf) in epoch \d; try a smaller --set learning_rate or --set precision=fp32",
        found[2].failed,
    )
    assert np.isnan([found[2].score, found[2].spread]).all()
    without = replace(plan, points=plan.points[1:])
    assert sweep(place / "cache.h5", without, tmp_path / "without") == found[:2]
    assert read_toml(tmp_path / "out" / "best.toml")["learning_rate"] == 0.01
    lines = [json.loads(text) for text in (tmp_path / "out" / "trials.jsonl").read_text().splitlines()]
    failed = [line for line in lines if "failed" in line]
    assert [set(line) for line in failed] == [{"key", "seed", "method", "changed", "failed"}] * 2
    assert [line["changed"]["learning_rate"] for line in failed] == [1e25, 1e25]
    # It is not tried again.
    shown: list[tuple[int, int | None]] = []
    with searches_shown_to(lambda done, total: shown.append((done, total))):
        again = sweep(place / "cache.h5", plan, tmp_path / "out")
    assert shown == [(6, 6)]
    assert again[:2] == found[:2]
    assert (again[2].settings, again[2].failed) == (found[2].settings, found[2].failed)


def test_a_diverging_fold_fails_its_point(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "folds = 3\n[grid]\nlearning_rate = [0.01, 0.003]\n"
    monkeypatch.setattr("hfc.train.sweep.fit_group", failing_once(fit_group, learning_rate=0.01))
    found = sweep(place / "cache.h5", read_sweep(write(tmp_path, place, text)), tmp_path / "out")
    assert [(trial.settings["learning_rate"], trial.failed) for trial in found] == [(0.003, ""), (0.01, "made to fail")]
    lines = [json.loads(text) for text in (tmp_path / "out" / "trials.jsonl").read_text().splitlines()]
    assert sum("failed" in line for line in lines) == 1
    assert sum("score" in line for line in lines) == 5


def failing_once(function: Any, learning_rate: float) -> Any:
    """`fit_group` that diverges the first time it is to train at a rate."""
    left = [None]

    def fail(features: Any, data: Any, configs: Any) -> Any:
        config = next((config for config in configs if config.learning_rate == learning_rate), None)
        if config and left:
            left.pop()
            raise DivergedError("made to fail", config)
        return function(features, data, configs)

    return fail


def test_a_diverging_run_of_a_stack_does_not_take_the_others_with_it(place: Path, tmp_path: Path) -> None:
    text = "step = 'stacked'\n[grid]\nlearning_rate = [0.01, 1e30, 1e-6]\n"
    plan = read_sweep(write(tmp_path, place, text))
    found = sweep(place / "cache.h5", plan, tmp_path / "out")
    assert [(trial.settings["learning_rate"], bool(trial.failed)) for trial in found] == [
        (0.01, False),
        (1e-6, False),
        (1e30, True),
    ]


def test_where_every_point_fails_that_is_said(place: Path, tmp_path: Path) -> None:
    file = write(tmp_path, place, "[grid]\nlearning_rate = [1e25, 1e26]\n")
    for _ in range(2):  # from what is there, too
        result = hfc("sweep", place / "cache.h5", "--grid", file, "--out", tmp_path / "out")
        assert result.exit_code == 1
        assert re.fullmatch(
            rf"Error: {tmp_path / 'out'}: all 2 points failed; the first one: flat, seed 0: the loss is (nan|inf) in "
            r"epoch \d; try a smaller --set learning_rate or --set precision=fp32\n",
            result.stderr,
        )
    assert not (tmp_path / "out" / "best.toml").exists()


def test_the_command_shows_what_failed(place: Path, tmp_path: Path) -> None:
    words = ["sweep", place / "cache.h5", "--grid", write(tmp_path, place, DIVERGING), "--out", tmp_path / "out"]
    result = hfc(*words)
    assert result.exit_code == 0, result.output
    _, _, _, failed, count, _ = result.stdout.splitlines()
    assert failed.startswith("failed (flat, seed 0: the loss is ")
    assert failed.endswith(")  learning_rate=1e+25")
    assert count == "3 points, 2 seeds each, on validation alone; 1 failed"
    answer = json.loads(hfc(*words, "--json").stdout, parse_constant=pytest.fail)  # no NaN, which is no JSON
    assert (answer["failed"], answer["trials"][2]["score"]) == (1, None)
    assert answer["trials"][2]["failed"].startswith("flat, seed 0: the loss is ")


def test_points_of_linear_are_compared_by_likelihood_and_the_least_comes_first(place: Path, tmp_path: Path) -> None:
    text = f"method = 'linear'\nepochs = 1\nhierarchy = '{place / 'tree.csv'}'\n[grid]\nl2 = [10.0, 0.01, 1.0]\n"
    (tmp_path / "grid.toml").write_text(text)
    found = sweep(place / "cache.h5", read_sweep(tmp_path / "grid.toml"), tmp_path / "out")
    scores = [trial.score for trial in found]
    assert scores == sorted(scores)
    assert found[-1].settings == {"l2": 10.0}  # shrinks everything


def test_points_that_different_metrics_judge_are_refused(place: Path, tmp_path: Path) -> None:
    (tmp_path / "grid.toml").write_text(f"hierarchy = '{place / 'tree.csv'}'\n[grid]\nmethod = ['levels', 'linear']\n")
    with pytest.raises(ConfigError) as caught:
        read_sweep(tmp_path / "grid.toml")
    assert str(caught.value) == (
        f"{tmp_path / 'grid.toml'}: points are compared by what picks the epoch, which is nll or top1 by their "
        "methods; give select at the top level"
    )


@pytest.mark.parametrize("folds", [0, 2])
def test_what_is_left_to_the_machine_is_settled_where_the_search_was_started(
    folds: int, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes of a cluster train what they are sent, under its keys, whatever they would choose themselves."""
    plan = read_sweep(write(tmp_path, place, f"folds = {folds}\n" * bool(folds) + "[grid]\ndropout = [0.1]\n"))
    machine = {"here": "bf16"}
    monkeypatch.setattr(settling, "choose_precision", lambda precision, *rest: machine["here"])
    run, group = parallel.run, fit_group

    def elsewhere(calls: Sequence[object], jobs: int, *, ordered: bool) -> Iterator[object]:
        waiting = list(calls)
        machine["here"] = "fp32"
        yield from run(waiting, jobs, ordered=ordered)

    trained: list[str] = []

    def note(features: object, data: object, configs: Sequence[TrainConfig]) -> object:
        trained.extend(config.precision for config in configs)
        return group(features, data, configs)  # type: ignore[arg-type]

    monkeypatch.setattr(parallel, "run", elsewhere)
    monkeypatch.setattr("hfc.train.sweep.fit_group", note)
    sweep(place / "cache.h5", plan, tmp_path / "out")
    assert trained == ["bf16"] * max(folds, 1)
    machine["here"] = "bf16"
    sweep(place / "cache.h5", plan, tmp_path / "out")  # finds every key
    assert len(trained) == max(folds, 1)
