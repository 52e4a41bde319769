"""Stage 2 on made-up features."""

import json
import re
import resource
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch

from cli.options import parse_setting
from hfc import runs
from hfc.config import METHODS, TrainConfig, read_toml, resolve
from hfc.errors import ConfigError, DivergedError, RunError, StoreError, printable
from hfc.report import write_report
from hfc.store import read_predictions
from hfc.train.cache import Cache, load_cache
from hfc.train.data import prepare
from hfc.train.features import Resident
from hfc.train.heads import HEADS
from hfc.train.prepared import prepare_run
from hfc.train.settings import build_head
from hfc.train.stage import train, train_all
from hfc.train.weightings import WEIGHTINGS
from tests.support.made_up import FIELDS, small_cache, write_cache, write_tree_csv
from tests.support.temperatures import powers
from tests.support.training import quick


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train")
    small_cache(folder / "cache.h5", failed=[3, 8])
    write_tree_csv(folder / "tree.csv")
    return folder


@pytest.fixture(scope="module")
def cache(place: Path) -> Cache:
    return load_cache(place / "cache.h5")


@pytest.mark.parametrize("method", METHODS)
def test_a_run_learns_and_leaves_a_complete_folder(method: str, place: Path, cache: Cache, tmp_path: Path) -> None:
    run, trained = train(cache, quick(place, method=method), tmp_path)
    assert trained
    assert sorted(path.name for path in run.folder.iterdir()) == [
        "config.toml",
        "head.safetensors",
        "hierarchy.csv",
        "metrics.jsonl",
        "predictions.h5",
        "result.json",
    ]
    test = run.result.test
    assert test["top1"] > 0.8
    assert test["top3"] <= test["top5"] <= 1
    assert set(test) == {
        *("top1", "top3", "top5", "top1_macro", "hF", "distance@1", "distance@3", "distance@5"),
        *("mistake_severity", "full_path_accuracy", "inconsistency", "ece", "nll"),
        *("level_accuracy/kind", "level_accuracy/group", "level_accuracy/leaf"),
    }
    assert run.result.rows.plain() == {
        "train": 214,
        "val": 72,
        "test": 72,
        "unused": {"without features": 2, "without label": 0, "without split": 0},
    }
    assert [line.number for line in run.epochs] == [1, 2, 3, 4, 5, 6]
    settled = prepare_run(cache, quick(place, method=method)).config
    assert resolve(TrainConfig, read_toml(run.folder / "config.toml")) == settled
    assert settled.precision in ("fp32", "bf16")
    assert (run.result.beta is not None) == HEADS[settled.head].blends


def test_a_run_holds_its_hierarchy_and_refuses_another(place: Path, cache: Cache, tmp_path: Path) -> None:
    run, _ = train(cache, quick(place, epochs=1), tmp_path)
    tree = prepare(cache, str(place / "tree.csv")).hierarchy
    kept = runs.hierarchy(run)
    assert (kept.name, kept.levels, kept.nodes) == (tree.name, tree.levels, tree.nodes)
    np.testing.assert_array_equal(kept.ancestors, tree.ancestors)
    assert run.result.cache.key_fields == FIELDS
    file = run.folder / "hierarchy.csv"
    text = file.read_text()
    for damage, message in (
        (text.replace("Jeans", "Trousers"), "hierarchy.csv: not the hierarchy the run was trained with"),
        ("leaf\n", "cannot read the run's hierarchy: .*expected a header"),
    ):
        file.write_text(damage)
        with pytest.raises(RunError, match=message):
            runs.hierarchy(run)
    file.unlink()
    with pytest.raises(RunError, match=r"cannot read the run's hierarchy: .*No such file"):
        runs.hierarchy(run)


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_bits(method: str, place: Path, cache: Cache, tmp_path: Path) -> None:
    first, _ = train(cache, quick(place, method=method), tmp_path / "a")
    torch.rand(7)  # the caller's generator must not matter
    second, _ = train(cache, quick(place, method=method), tmp_path / "b")
    other, _ = train(cache, quick(place, method=method, seed=1), tmp_path / "c")
    weights = [(run.folder / "head.safetensors").read_bytes() for run in (first, second, other)]
    assert weights[0] == weights[1] != weights[2]
    assert first.result.test == second.result.test


def test_a_run_that_is_there_is_not_trained_again(place: Path, cache: Cache, tmp_path: Path) -> None:
    first, _ = train(cache, quick(place), tmp_path)
    again, trained = train(cache, quick(place), tmp_path)
    assert (again.result, trained) == (first.result, False)
    _, trained = train(cache, quick(place), tmp_path, overwrite=True)
    assert trained
    _, trained = train(cache, quick(place, beta=0.5), tmp_path)
    assert trained
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("option", ["blend=logit", "loss=softmax", "global_input_skip=true", "residual=false"])
def test_options_change_the_result(option: str, place: Path, cache: Cache, tmp_path: Path) -> None:
    plain, _ = train(cache, quick(place), tmp_path)
    changed, _ = train(cache, quick(place, **parse_setting(TrainConfig, option)), tmp_path)
    assert changed.result.test["ece"] != plain.result.test["ece"]
    assert changed.result.changed.keys() > {option.partition("=")[0]}


@pytest.mark.parametrize(
    ("weighting", "tasks"), [("sum", "flows"), *((w, t) for w in WEIGHTINGS if w != "sum" for t in ("flows", "levels"))]
)
def test_every_weighting_trains(weighting: str, tasks: str, place: Path, cache: Cache, tmp_path: Path) -> None:
    run, _ = train(cache, quick(place, weighting=weighting, tasks=tasks), tmp_path)
    assert run.result.test["top1"] > 0.7
    names = {"local", "global"} if tasks == "flows" else {"local/1", "local/2", "local/3", "global"}
    assert set(run.result.loss_weights) == names
    assert set(run.epochs[0].loss) == names | {"total"}
    plain = sum(value for name, value in run.epochs[-1].loss.items() if name != "total")
    assert (run.epochs[-1].loss["total"] == pytest.approx(plain)) == (weighting == "sum")


def test_a_diverging_loss_stops_the_run_and_leaves_nothing(place: Path, cache: Cache, tmp_path: Path) -> None:
    config = quick(place, method="flat", learning_rate=1e25, epochs=3)
    with pytest.raises(RunError, match=r"flat, seed 0: the loss is (nan|inf) in epoch \d; try a smaller"):
        train(cache, config, tmp_path / "runs")
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.parametrize("step", ["single", "stacked"])
def test_a_length_left_to_the_data_is_recorded_as_a_number(
    step: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hfc.train.settling.fitting_epochs", lambda rows: 4)
    lengths = (0, 3, 0, 4)
    configs = [
        quick(place, method="flat", batch_size=64, step=step, epochs=epochs, seed=seed)
        for seed in (0, 1)
        for epochs in lengths
    ]
    asked: list[tuple[int, int]] = []
    found = list(
        train_all(
            place / "cache.h5",
            configs,
            tmp_path,
            on_epoch=lambda config, epoch: asked.append((config.epochs, epoch.number)),
        )
    )
    for (run, _), epochs in zip(found, 2 * (4, 3, 4, 4), strict=True):
        assert run.result.settings.epochs == run.result.config["epochs"] == epochs
        assert [epoch.number for epoch in run.epochs] == list(range(1, epochs + 1))
        assert read_toml(run.folder / "config.toml")["epochs"] == epochs
        assert run.result.changed.get("epochs", 4) == epochs  # that of the data is no change
    assert [new for _, new in found] == 2 * [True, True, False, False]  # 0 is what it comes to
    assert sorted(asked) == sorted(2 * [(length, n) for length in (3, 4) for n in range(1, length + 1)])
    by_length = {run.result.settings.epochs: run.epochs[-1].learning_rate for run, _ in found[:2]}
    assert by_length == {n: pytest.approx(0.003 * (1 + np.cos(np.pi * (n - 1) / n)) / 2) for n in (3, 4)}


@pytest.mark.parametrize("step", ["single", "stacked"])
def test_a_diverging_run_does_not_keep_the_others_from_training(step: str, place: Path, tmp_path: Path) -> None:
    rates = (0.003, 1e30, 0.002)
    configs = [quick(place, method="flat", epochs=2, step=step, learning_rate=rate) for rate in rates]
    lines: list[tuple[float, int]] = []
    found: list[float] = []
    with pytest.raises(DivergedError) as caught:
        for run, trained in train_all(
            place / "cache.h5",
            configs,
            tmp_path,
            on_epoch=lambda config, epoch: lines.append((config.learning_rate, epoch.number)),
        ):
            assert trained
            found.append(run.result.config["learning_rate"])
    assert found == [0.003, 0.002]
    assert re.fullmatch(
        r"1 of 3 runs have no result: flat, seed 0: the loss is (nan|inf) in epoch \d; try a smaller --set "
        "learning_rate or --set precision=fp32",
        str(caught.value),
    )
    assert {rate for rate, epoch in lines if epoch == 2} == {0.003, 0.002}
    assert len(runs.find([tmp_path])) == 2


def test_a_place_that_cannot_be_written_is_refused(place: Path, cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="the run cannot be written"):
        train(cache, quick(place), tmp_path / "file" / "runs")


LATIN = "caf\udce9"  # what Python makes of café in Latin-1


def test_a_cache_in_a_folder_that_is_no_utf8_trains_and_is_reported(place: Path, tmp_path: Path) -> None:
    folder = tmp_path / LATIN
    folder.mkdir()
    path = small_cache(folder / "c.h5", origin=f"folders of {LATIN}")
    run, _ = train(load_cache(path), quick(place, method="flat", epochs=1), folder / "runs")
    assert run.result.cache.path == printable(str(path))
    assert run.result.cache.origin == printable(f"folders of {LATIN}")
    write_report([folder / "runs"], tmp_path / "report")
    assert "caf\\xe9" in (tmp_path / "report" / "report.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        (f"{LATIN}.jpg", r"/id: caf\\xe9.jpg is not UTF-8 text"),
        ("a.jpg\0", "/id: a text that ends in a NUL character cannot be stored"),
    ],
)
def test_ids_that_cannot_be_written_are_found_before_the_first_epoch(
    name: str, problem: str, place: Path, cache: Cache, tmp_path: Path
) -> None:
    ids = cache.table.regions.id.copy()
    ids[np.flatnonzero(cache.table.regions.split == "test")[2]] = name
    table = replace(cache.table, regions=replace(cache.table.regions, id=ids))
    epochs: list[object] = []
    with pytest.raises(RunError, match=f"--seed0--[0-9a-f]{{8}}: the run cannot be written: {problem}$"):
        train(
            replace(cache, table=table), quick(place), tmp_path / "runs", on_epoch=lambda _, epoch: epochs.append(epoch)
        )
    assert epochs == []
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_full_disk_is_noticed_before_the_first_epoch(
    place: Path, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 72 test rows with 2 + 4 + 6 probabilities of the levels and 6 of P_final, in float32.
    need = 72 * (2 + 4 + 6 + 6) * 4
    epochs: list[object] = []
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=need - 1))
    with pytest.raises(RunError) as caught:
        train(cache, quick(place, epochs=1), tmp_path / "runs" / "deep", on_epoch=lambda _, epoch: epochs.append(epoch))
    assert str(caught.value) == (
        f"{tmp_path / 'runs' / 'deep'}: 1 runs write 0 MB of predictions, and 0 MB are free; make room, or name "
        "another folder"
    )
    assert epochs == []
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=need))
    assert train(cache, quick(place, epochs=1), tmp_path / "runs")[1]


def test_features_that_are_not_numbers_are_refused(place: Path, tmp_path: Path) -> None:
    path = small_cache(tmp_path / "nan.h5")
    with h5py.File(path, "r+") as file:
        file["features"][7, 0, 3] = np.nan
    with pytest.raises(StoreError, match=r"nan.h5: row 7 \(00007.jpg\) holds NaN or infinite features"):
        load_cache(path)


def test_a_damaged_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "result.json").write_text(json.dumps({"run": "x"}))
    with pytest.raises(RunError, match="damaged run"):
        runs.find([tmp_path])
    with pytest.raises(RunError, match="no such folder of runs"):
        runs.find([tmp_path / "nowhere"])


def test_features_are_not_copied_for_training(place: Path, tmp_path: Path) -> None:
    # 60 MB of features: training may allocate batches, weights and predictions, not a second copy.
    labels = ["Tee", "Tank", "Coat", "Jeans", "Chinos", "Shorts"] * 2500
    splits = [("train", "train", "train", "train", "val", "test")[i // 6 % 6] for i in range(15000)]
    cache = load_cache(write_cache(tmp_path / "c.h5", labels, splits, dim=2048))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    train(cache, quick(place, method="flat", epochs=1, batch_size=256), tmp_path / "runs")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    size = cache.features.tensor.numel() * 2
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert peak < size / 2
    assert grown < 3 * size  # evaluation blocks are float32; all training rows as float32 would be 2 * size more


@pytest.mark.slow
def test_a_cache_of_deepfashions_size_trains_without_a_second_copy(tmp_path: Path) -> None:
    # Processes of their own: what writing it, or another test, took from the system is no part of the peak.
    write = (
        "import sys; from pathlib import Path; from tests.support.made_up import deepfashion_sized;"
        "deepfashion_sized(Path(sys.argv[1]))"
    )
    measure = """
import json, resource, sys
from pathlib import Path
from hfc.config import TrainConfig, resolve
from hfc.train.cache import load_cache
from hfc.train.stage import train

cache = load_cache(Path(sys.argv[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
config = resolve(TrainConfig, {"method": "hmcn-f+mtl", "hierarchy": "deepfashion-5", "epochs": 1})
run, _ = train(cache, config, Path(sys.argv[2]))
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
print(json.dumps({"bytes": cache.features.tensor.numel() * 2, "grown": grown, "rows": run.result.rows.train}))
"""
    for code in (write, measure):
        command = [sys.executable, "-c", code, str(tmp_path / "c.h5"), str(tmp_path / "runs")]
        done = subprocess.run(command, check=True, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE)
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["bytes"], found["rows"]) == (289_222 * 2048 * 2, 209_222)
    assert found["grown"] < found["bytes"] / 2, found


def two_views(cache: Cache, second: torch.Tensor) -> Cache:
    return replace(cache, features=Resident(torch.cat([cache.features.tensor, second], dim=1)))


def test_views_are_drawn_in_training_and_averaged_in_evaluation(place: Path, cache: Cache, tmp_path: Path) -> None:
    one, _ = train(cache, quick(place), tmp_path / "one")
    # A second view of noise: nothing changes as long as only the first is used, and much when all are.
    noise = torch.randn(cache.features.tensor.shape, generator=torch.Generator().manual_seed(0)).half() * 9
    both = two_views(cache, noise)
    first, _ = train(both, quick(place, views="first"), tmp_path / "first")
    every, _ = train(both, quick(place), tmp_path / "every")
    assert first.result.test == one.result.test
    assert every.result.test["top1"] < one.result.test["top1"] - 0.1
    # What is stored is the mean of what the stored head says of each view.
    from safetensors.torch import load_file

    data = prepare(cache, str(place / "tree.csv"))
    head = build_head(quick(place, transform="none"), data.hierarchy, 16)
    head.load_state_dict(load_file(every.folder / "head.safetensors"))
    head.eval()
    with torch.inference_mode():
        views = [head.predict(head(both.features.tensor[data.rows["test"], v].float()), 0.7) for v in (0, 1)]
    stored = read_predictions(every.folder / "predictions.h5")
    wanted = powers((views[0].final + views[1].final) / 2, every.result.calibrated_by)
    np.testing.assert_allclose(stored.final, wanted, rtol=1e-4)
    for level, a, b in zip(stored.levels, views[0].levels, views[1].levels, strict=True):
        np.testing.assert_allclose(level, (a + b) / 2, rtol=1e-5)


def test_balanced_classes_change_the_run_and_it_still_learns(place: Path, cache: Cache, tmp_path: Path) -> None:
    plain, _ = train(cache, quick(place, epochs=12), tmp_path)
    changed, _ = train(cache, quick(place, epochs=12, class_balance=0.9), tmp_path)
    assert changed.result.test["top1"] > 0.8
    assert changed.result.test["ece"] != plain.result.test["ece"]


def test_a_class_without_training_rows_is_never_wrong_in_silence(place: Path, tmp_path: Path) -> None:
    labels = ["Tee", "Tank", "Coat", "Jeans", "Chinos", "Shorts"] * 60
    splits = [("train", "train", "train", "val", "test")[i // 6 % 5] for i in range(360)]
    splits = ["test" if label == "Shorts" else split for label, split in zip(labels, splits, strict=True)]
    cache = load_cache(write_cache(tmp_path / "c.h5", labels, splits))
    for method in ("flat", "hmcn-f+mtl", "conditional"):
        run, _ = train(cache, quick(place, method=method, class_balance=0.9 if method == "flat" else 0.0), tmp_path)
        assert run.result.test["top1"] < 0.6  # 60 of its 108 test rows are Shorts
        assert np.isfinite([value for value in run.result.test.values() if isinstance(value, float)]).all()


def test_streaming_trains_as_well_as_memory(place: Path, cache: Cache, tmp_path: Path) -> None:
    streamed = load_cache(place / "cache.h5", stream=True)
    config = quick(place, method="flat", epochs=8)
    resident, _ = train(cache, config, tmp_path / "resident")
    run, _ = train(streamed, config, tmp_path / "streamed")
    assert run.result.test["top1"] > 0.8
    assert run.result.rows == resident.result.rows
    # The cache is smaller than the buffer, so that only the order of rows can differ.
    assert run.epochs[0].loss["total"] == pytest.approx(resident.epochs[0].loss["total"], rel=0.2)


def test_several_processes_train_the_same_runs(place: Path, tmp_path: Path) -> None:
    configs = [quick(place, seed=seed, epochs=2) for seed in (0, 1)]
    found = {
        jobs: [run for run, _ in train_all(place / "cache.h5", configs, tmp_path / str(jobs), jobs=jobs)]
        for jobs in (1, 2)
    }
    for one, other in zip(found[1], found[2], strict=True):
        assert (one.result.run, one.result.key) == (other.result.run, other.result.key)
        assert one.result.test["top3"] == pytest.approx(other.result.test["top3"], abs=0.05)


def test_nothing_is_trained_where_one_run_cannot_be(place: Path, tmp_path: Path) -> None:
    configs = [quick(place), quick(place, select="top7")]
    with pytest.raises(ConfigError, match="select: expected one of"):
        list(train_all(place / "cache.h5", configs, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
