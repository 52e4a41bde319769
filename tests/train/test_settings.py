"""Which settings shape a run: what is taken bites, what does not bite is refused, wherever settings come from."""

import json
import tomllib
from contextlib import nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from cli.main import main
from hfc.config import METHODS, TrainConfig, read_toml, resolve, to_toml
from hfc.errors import FORMER_METHODS, FORMER_SETTINGS, ConfigError
from hfc.predict.head import Trained, load_trained
from hfc.train.ablation import read_ablation
from hfc.train.cache import Cache, load_cache
from hfc.train.data import TrainingData, prepare
from hfc.train.estimator import HierarchicalClassifier
from hfc.train.evaluation import by_beta, decoded, evaluate, used_views
from hfc.train.features import Resident
from hfc.train.fit import fit
from hfc.train.plan import read_sweep
from hfc.train.prepared import changed_settings, prepare_run, run_key
from hfc.train.settings import (
    EPOCH_SETTINGS,
    HEAD_SETTINGS,
    PATH_SETTINGS,
    WEIGHTING_SETTINGS,
    refuse_unused,
    used_settings,
)
from hfc.train.settling import settle
from hfc.train.stage import train
from tests.support.made_up import settled_on, write_cache

CPU = torch.device("cpu")
SMALL = {
    "epochs": 4,
    "batch_size": 30,
    "learning_rate": 0.03,
    "reduced": 8,
    "width": 8,
    "dropout": 0.2,
    "precision": "fp32",
}
# Another value of each setting than any method ships with, or one for each of two.
OTHER: dict[str, Any] = {
    **{"seed": 1, "epochs": 3, "batch_size": 20, "learning_rate": 0.01, "schedule": "constant"},
    **{"views": "first", "standardise": False, "transform": "l2", "class_balance": 0.9},
    **{"precision": "bf16", "topk": (1, 2), "decode": "least-cost", "members": 2},
    **{"reduced": 9, "width": 9, "dropout": 0.4, "residual": False, "global_input_skip": True, "beta": 0.35},
    **{"blend": "logit", "violation_weight": 1.0, "hxe_alpha": 0.7, "soft_label_beta": 3.0, "label_share": 0.5},
    **{"l2": 0.5, "l2_last": 2.0, "inner_l2": (2,), "inner_scale": 0.7},
    **{"temperature": 0.5, "gradnorm_alpha": 50.0, "gradnorm_rate": 0.2},
    "loss": {"bce": "softmax", "softmax": "bce", "hxe": "softmax", "soft-labels": "softmax"},
    "weighting": {"sum": "uncertainty", "uncertainty": "imtl-l"}
    | dict.fromkeys(("positive-uncertainty", "imtl-l"), "sum"),
    "tasks": {"flows": "levels", "levels": "flows"},
    "head": {"flat": "levels"},
}
# Every method, and the paper's head under every weighting.
VARIANTS: dict[str, dict[str, Any]] = {
    **{name: {"method": name} for name in METHODS},
    **{name: dict(settings) for name, settings in FORMER_METHODS.items()},
}
# They name a run, or say where and how it is trained; `select` picks an epoch, `inner_labels`, `promise_share` and
# `train_share` rows, which their own tests look at.
ELSEWHERE = {
    *(
        "method",
        "hierarchy",
        "device",
        "checkpoint_seconds",
        "step",
        "select",
        "inner_labels",
        "promise_share",
        "train_share",
        "refit",
    ),
}


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """Two views of 100 rows that are hard to tell apart, in classes of several sizes."""
    leaves = ["Tee", "Tank", "Coat", "Jeans", "Chinos", "Shorts"]
    rng = np.random.default_rng(0)
    labels = [leaves[i] for i in rng.choice(6, 100, p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.1])]
    splits = [("train", "train", "train", "val", "test")[i % 5] for i in range(100)]
    cache = load_cache(write_cache(tmp_path_factory.mktemp("noisy") / "c.h5", labels, splits, dim=6), device="cpu")
    assert isinstance(cache.features, Resident)
    noise = torch.randn((100, 2, 6), generator=torch.Generator().manual_seed(0)) * 3
    return replace(cache, features=Resident(cache.features.tensor + noise.half()))


def outcome(cache: Cache, data: TrainingData, config: TrainConfig) -> list[Any]:
    """The weights and predictions that a run ends with, and what is measured of them."""
    settled = settle(config, data, CPU)
    fitted = fit(cache.features, replace(data, rows={**data.rows, "val": data.rows["val"][:0]}), settled)
    raw, _ = by_beta(fitted.head, used_views(cache.features, settled), data, "test", settled)
    read = decoded(raw, data.hierarchy, settled)
    tensors = [*fitted.head.state_dict().values(), *read.levels, read.final]
    return [tensor.double().numpy() for tensor in tensors] + [sorted(evaluate(read, data, "test", settled))]


def differs(one: list[Any], other: list[Any]) -> bool:
    """Whether more than a sum's order can round is not alike."""
    if [np.shape(a) for a in one] != [np.shape(b) for b in other] or one[-1] != other[-1]:
        return True
    return any(np.abs(a - b).max() > 1e-6 for a, b in zip(one[:-1], other[:-1], strict=True))


@pytest.fixture(scope="module")
def bases() -> dict[str, list[Any]]:
    """What the variants end with, which the outcome of every setting is compared with."""
    return {}


@pytest.mark.parametrize("name", [f.name for f in fields(TrainConfig) if f.name not in ELSEWHERE])
def test_a_setting_shapes_a_run_or_is_refused(
    name: str, place: Path, noisy: Cache, bases: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = prepare(noisy, str(place / "tree.csv"))
    used_by = set()
    everywhere = name not in HEAD_SETTINGS | WEIGHTING_SETTINGS | EPOCH_SETTINGS | PATH_SETTINGS
    methods = (["flat"] if name == "head" else ["flat", "hmcn-f+mtl"]) if everywhere else list(VARIANTS)
    for variant in methods:
        method = VARIANTS[variant]["method"]
        given = settled_on(SMALL, **VARIANTS[variant])
        base = resolve(TrainConfig, {"hierarchy": str(place / "tree.csv"), **given})
        other = OTHER[name]
        if isinstance(other, dict):
            other = other.get(getattr(base, name), "sum" if name == "weighting" else "flat")
        changed = replace(base, **{name: other})
        refused = name not in used_settings(changed)
        with pytest.raises(ConfigError) if refused else nullcontext() as caught:
            refuse_unused(changed)
        if caught:
            assert str(caught.value).startswith(f"{name}={other} with method {method}: ")
        # What the refusal says is true of the very training it keeps from running.
        monkeypatch.setattr("hfc.train.settling.refuse_unused", lambda config: None)
        if variant not in bases:
            bases[variant] = outcome(noisy, data, base)
        assert differs(bases[variant], outcome(noisy, data, changed)) != refused, variant
        was, now = (changed_settings(settle(config, data, CPU), data) for config in (base, changed))
        unrecorded = refused or name in ("seed", "precision")
        assert {key for key in was | now if was.get(key) != now.get(key)} == (set() if unrecorded else {name})
        if not refused:
            assert run_key(noisy, data, settle(changed, data, CPU)) != run_key(noisy, data, settle(base, data, CPU))
            used_by.add(variant)
    assert used_by, f"{name}: no method takes it"


def test_select_picks_the_epoch(place: Path, noisy: Cache) -> None:
    data = prepare(noisy, str(place / "tree.csv"))
    given = {"hierarchy": str(place / "tree.csv"), **settled_on(SMALL, method="flat", epochs=12)}
    chosen = {}
    for metric in ("top1", "top3", "top1_macro", "hF"):
        config = settle(resolve(TrainConfig, given, {"select": metric}), data, CPU)
        fitted = fit(noisy.features, data, config)
        scores = [epoch.val[metric] for epoch in fitted.epochs]
        chosen[metric] = fitted.best.epoch
        assert chosen[metric] == 1 + scores.index(max(scores))
    assert len(set(chosen.values())) > 1


def test_every_setting_has_another_value_to_try() -> None:
    assert set(OTHER) | ELSEWHERE == {f.name for f in fields(TrainConfig)}


@pytest.mark.parametrize("method", METHODS)
def test_a_whole_file_of_a_runs_settings_is_read_back(method: str, place: Path, tmp_path: Path) -> None:
    cache = load_cache(place / "cache.h5")
    given = {"hierarchy": str(place / "tree.csv"), **settled_on(SMALL, method=method)}
    run, _ = train(cache, resolve(TrainConfig, given), tmp_path)
    written = read_toml(run.folder / "config.toml")
    assert set(written) == {f.name for f in fields(TrainConfig)}
    again, trained = train(cache, resolve(TrainConfig, written), tmp_path)
    assert (again.result.key, trained) == (run.result.key, False)
    # With a flag for another method, nothing of the first one's is in the way.
    for other in METHODS:
        refuse_unused(resolve(TrainConfig, to_dict(method), {"method": other}))


def to_dict(method: str) -> dict[str, Any]:
    return tomllib.loads(to_toml(resolve(TrainConfig, {"method": method})))


@pytest.mark.parametrize(
    ("method", "ignored"),
    [("flat", {"width": 99, "beta": 0.2}), ("conditional", {"loss": "bce"}), ("hmcn-f-original", {"loss": "hxe"})],
)
def test_a_run_made_when_such_settings_were_ignored_is_read(
    method: str, ignored: dict[str, object], place: Path, tmp_path: Path
) -> None:
    cache = load_cache(place / "cache.h5", device="cpu")
    given = {"hierarchy": str(place / "tree.csv"), **settled_on(SMALL, method=method)}
    run, _ = train(cache, resolve(TrainConfig, given), tmp_path)
    before = load_trained(run.folder)
    file = run.folder / "result.json"
    result = json.loads(file.read_text("utf-8"))
    result["config"] |= ignored
    file.write_text(json.dumps(result), "utf-8")
    after = load_trained(run.folder)
    assert isinstance(cache.features, Resident)
    rows = cache.features.tensor[:5].numpy()
    assert torch.equal(after.predict(rows).final, before.predict(rows).final)


@pytest.mark.parametrize("former", ["hmcn-f+dwa", "hmcn-f+mtl-levels"])
def test_a_run_of_a_method_that_is_a_setting_now_is_read_and_reported(former: str, place: Path, tmp_path: Path) -> None:
    cache = load_cache(place / "cache.h5", device="cpu")
    given = {"hierarchy": str(place / "tree.csv"), **settled_on(SMALL, **FORMER_METHODS[former])}
    run, _ = train(cache, resolve(TrainConfig, given), tmp_path / "runs")
    before = load_trained(run.folder)
    file = run.folder / "result.json"
    result = json.loads(file.read_text("utf-8"))
    result |= {"method": former, "changed": {}, "config": result["config"] | {"method": former}}
    file.write_text(json.dumps(result), "utf-8")
    assert_read_as(before, run.folder, cache, tmp_path)
    table = (tmp_path / "report" / "report.md").read_text("utf-8")
    assert f"{former} (tree)" in table.replace("\\", "")


def assert_read_as(before: Trained, run: Path, cache: Cache, out: Path) -> None:
    """A run is reported and exported, and gives the answers that it gave before its result was changed."""
    for words in (("report", run, "--out", out / "report"), ("export", run, "--hf", out / "hf")):
        done = CliRunner().invoke(main, [str(word) for word in words])
        assert (done.exit_code, done.stderr) == (0, "")
    assert isinstance(cache.features, Resident)
    rows = cache.features.tensor[:5].numpy()
    for folder in (run, out / "hf"):
        after = load_trained(folder)
        assert torch.equal(after.predict(rows).final, before.predict(rows).final)
        assert [a.path for a in after.answers(rows, "abcde", 1, 0.0)] == [
            a.path for a in before.answers(rows, "abcde", 1, 0.0)
        ]


def test_a_method_that_is_a_setting_now_is_refused_with_what_to_give(place: Path, tmp_path: Path) -> None:
    words = ["train", str(place / "cache.h5"), "--hierarchy", str(place / "tree.csv"), "--out", str(tmp_path / "runs")]
    remedy = "it is method hmcn-f with weighting=dwa now: --method hmcn-f --set weighting=dwa"
    flag = CliRunner().invoke(main, [*words, "--method", "hmcn-f+dwa"])
    assert flag.exit_code == 1
    assert flag.stderr.endswith(f"Error: Invalid value for '--method': unknown method 'hmcn-f+dwa'; {remedy}\n")
    (tmp_path / "config.toml").write_text('method = "hmcn-f+dwa"\n')
    file = CliRunner().invoke(main, [*words, "--config", str(tmp_path / "config.toml")])
    assert (file.exit_code, file.stderr) == (1, f"Error: unknown method 'hmcn-f+dwa'; {remedy}\n")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("former", FORMER_SETTINGS)
def test_a_file_of_before_trains_the_same_where_a_former_setting_did_nothing(
    former: str, place: Path, tmp_path: Path
) -> None:
    cache = load_cache(place / "cache.h5", device="cpu")
    given = {"hierarchy": str(place / "tree.csv"), **settled_on(SMALL, method="flat")}
    run, _ = train(cache, resolve(TrainConfig, given), tmp_path / "runs")
    file = run.folder / "config.toml"
    file.write_text(f"{former} = {FORMER_SETTINGS[former]}\n" + file.read_text("utf-8"), "utf-8")
    words = ["train", place / "cache.h5", "--config", file, "--out", tmp_path / "runs", "--json"]
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert (done.exit_code, json.loads(done.stdout)["runs"][0]["trained"]) == (0, False)
    (tmp_path / "grid.toml").write_text(f"{former} = {FORMER_SETTINGS[former]}\n[grid]\ndropout = [0.1]\n")
    plan = read_sweep(tmp_path / "grid.toml")
    assert resolve(TrainConfig, plan.fixed, plan.points[0]) == resolve(TrainConfig, {"dropout": 0.1})


@pytest.mark.parametrize("former", FORMER_SETTINGS)
def test_a_former_setting_that_did_something_is_refused(former: str, place: Path, tmp_path: Path) -> None:
    remedy = f"{former} is gone, as it gained too little (notebooks/settings.md); leave it out"
    words = ["train", str(place / "cache.h5"), "--hierarchy", str(place / "tree.csv"), "--out", str(tmp_path / "runs")]
    flag = CliRunner().invoke(main, [*words, "--set", f"{former}=0.5"])
    assert (flag.exit_code, flag.stderr) == (1, f"Error: unknown setting {former!r}; {remedy}\n")
    (tmp_path / "config.toml").write_text(f"{former} = 0.5\n")
    file = CliRunner().invoke(main, [*words, "--config", str(tmp_path / "config.toml")])
    assert (file.exit_code, file.stderr) == (1, f"Error: unknown setting {former!r}; {remedy}\n")
    assert not (tmp_path / "runs").exists()
    for text in (f"{former} = 0.5\n[grid]\ndropout = [0.1]\n", f"[grid]\n{former} = [0.0, 0.5]\n"):
        (tmp_path / "grid.toml").write_text(text)
        with pytest.raises(ConfigError) as caught:
            read_sweep(tmp_path / "grid.toml")
        assert str(caught.value) == f"{tmp_path / 'grid.toml'}: unknown setting {former!r}; {remedy}"
    with pytest.raises(ConfigError) as caught:
        HierarchicalClassifier("flat", settings={former: 0.5}).fit(np.eye(4), [0, 1, 0, 1])
    assert str(caught.value) == f"unknown setting {former!r}; {remedy}"


def test_a_value_that_a_setting_had_once_is_refused_with_what_to_give(place: Path, tmp_path: Path) -> None:
    words = ["train", str(place / "cache.h5"), "--hierarchy", str(place / "tree.csv"), "--out", str(tmp_path / "runs")]
    error = (
        "Error: unknown decode 'product'; product is gone, as it gained too little (notebooks/settings.md); consistent "
        "gives the same leaves\n"
    )
    (tmp_path / "config.toml").write_text('decode = "product"\n')
    for more in (["--set", "decode=product"], ["--config", str(tmp_path / "config.toml")]):
        done = CliRunner().invoke(main, [*words, *more])
        assert (done.exit_code, done.stderr) == (1, error)
    assert not (tmp_path / "runs").exists()


def test_a_run_of_a_value_that_a_setting_had_once_gives_the_same_answers(place: Path, tmp_path: Path) -> None:
    cache = load_cache(place / "cache.h5", device="cpu")
    given = {"hierarchy": str(place / "tree.csv"), **settled_on(SMALL, method="levels", decode="consistent")}
    run, _ = train(cache, resolve(TrainConfig, given), tmp_path / "runs")
    before = load_trained(run.folder)
    file = run.folder / "result.json"
    result = json.loads(file.read_text("utf-8"))
    result["config"]["decode"] = result["changed"]["decode"] = "product"
    file.write_text(json.dumps(result), "utf-8")
    assert_read_as(before, run.folder, cache, tmp_path)
    assert "decode=product" in (tmp_path / "report" / "report.md").read_text("utf-8")


@pytest.mark.parametrize("value", ["neutral", 0.5])
def test_a_run_of_former_settings_is_read_and_reported(value: str | float, place: Path, tmp_path: Path) -> None:
    cache = load_cache(place / "cache.h5", device="cpu")
    given = {"hierarchy": str(place / "tree.csv"), **settled_on(SMALL, method="flat")}
    run, _ = train(cache, resolve(TrainConfig, given), tmp_path / "runs")
    before = load_trained(run.folder)
    file = run.folder / "result.json"
    result = json.loads(file.read_text("utf-8"))
    former = {name: neutral if value == "neutral" else value for name, neutral in FORMER_SETTINGS.items()}
    changes = {} if value == "neutral" else former
    result |= {"changed": result["changed"] | changes, "config": result["config"] | former}
    file.write_text(json.dumps(result), "utf-8")
    assert_read_as(before, run.folder, cache, tmp_path)
    table = (tmp_path / "report" / "report.md").read_text("utf-8").replace("\\", "")
    assert all((f"{name}={value}" in table) == bool(changes) for name in FORMER_SETTINGS)


REFUSED = [
    (
        {"method": "flat", "width": 99},
        "width=99 with method flat: head flat with loss softmax does not take it; it takes dropout, loss, "
        "reduced; leave width out",
    ),
    (
        {"method": "flat", "loss": "hxe", "soft_label_beta": 3.0},
        "soft_label_beta=3.0 with method flat: head flat with loss hxe does not take it; it takes dropout, hxe_alpha, "
        "loss, reduced; leave soft_label_beta out",
    ),
    (
        {"method": "conditional", "beta": 0.5},
        "beta=0.5 with method conditional: head conditional does not take it; it takes dropout, "
        "reduced; leave beta out",
    ),
    (
        {"method": "hmcn-f", "temperature": 1.0},
        "temperature=1.0 with method hmcn-f: weighting sum does not take it; it takes none of its own; "
        "leave temperature out",
    ),
    (
        {"method": "hmcn-f", "weighting": "gradnorm", "temperature": 1.0},
        "temperature=1.0 with method hmcn-f: weighting gradnorm does not take it; it takes gradnorm_alpha, "
        "gradnorm_rate; leave temperature out",
    ),
    (
        {"method": "hmcn-f", "tasks": "levels"},
        "tasks=levels with method hmcn-f: weighting sum adds up every level's loss; give another weighting, or leave "
        "tasks out",
    ),
    (
        {"method": "flat+hxe", "weighting": "dwa"},
        "weighting=dwa with method flat+hxe: head flat with loss hxe has a single loss, so there is nothing to weigh; "
        "leave weighting out",
    ),
    (
        {"method": "levels", "weighting": "dwa"},
        "weighting=dwa with method levels: head levels with loss softmax has a single flow, so there is nothing to "
        "weigh; give tasks=levels as well, or leave weighting out",
    ),
    ({"method": "hmcn-f", "loss": "hxe"}, "loss hxe is for the flat head; hmcn-f takes bce or softmax"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_a_refusal_says_what_is_taken(given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        refuse_unused(resolve(TrainConfig, given))
    assert str(caught.value) == message


def test_settings_of_another_head_are_taken_with_that_head() -> None:
    refuse_unused(resolve(TrainConfig, {"method": "flat", "head": "hmcn-f", "width": 99, "beta": 0.2}))
    refuse_unused(resolve(TrainConfig, {"method": "levels", "tasks": "levels", "weighting": "dwa", "temperature": 1.0}))
    refuse_unused(resolve(TrainConfig, {"method": "hmcn-f+mtl", "head": "flat"}))


def test_it_is_refused_on_the_command_line_before_any_training(place: Path, tmp_path: Path) -> None:
    words = ["train", place / "cache.h5", "--hierarchy", place / "tree.csv", "--out", tmp_path / "runs"]
    done = CliRunner().invoke(
        main, [*map(str, words), "--method", "hmcn-f", "--method", "flat", "--set", "width=99", "--set", "epochs=1"]
    )
    assert done.exit_code == 1
    assert done.stderr == f"Error: {REFUSED[0][1]}\n"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "text", ["width = 99\n[grid]\ndropout = [0.1]\n", "[grid]\nwidth = [99]\n", "trials = 1\n[random]\nwidth = [99]\n"]
)
def test_it_is_refused_in_a_search(text: str, tmp_path: Path) -> None:
    (tmp_path / "grid.toml").write_text(f"method = 'flat'\nhierarchy = 'deepfashion-5'\n{text}")
    with pytest.raises(ConfigError) as caught:
        read_sweep(tmp_path / "grid.toml")
    assert str(caught.value) == f"{tmp_path / 'grid.toml'}: {REFUSED[0][1]}"


@pytest.mark.parametrize(
    "text",
    [
        "width = 99\n[grid]\ndropout = [0.1]\n",
        "[grid]\nwidth = [99]\n",
        "[grid]\ndropout = [0.1]\n[own.flat]\nwidth = [99]\n",
    ],
)
def test_it_is_refused_in_a_comparison_before_its_first_search(text: str, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(f"methods = ['hmcn-f', 'flat']\nsearch_seeds = [0]\nseeds = [1]\n{text}")
    with pytest.raises(ConfigError) as caught:
        read_ablation(str(tmp_path / "plan.toml"), "deepfashion-5")
    assert str(caught.value) == f"{tmp_path / 'plan.toml'}: {REFUSED[0][1]}"


def test_it_is_refused_in_the_estimator() -> None:
    X = np.random.default_rng(0).normal(size=(8, 3))
    y = np.array([0, 1] * 4)
    for settings, message in (
        ({"width": 99}, REFUSED[0][1]),
        ({"step": "stacked"}, "settings: step: one model is trained, by itself; leave step out"),
        (
            {"checkpoint_seconds": 1.0},
            "settings: checkpoint_seconds: no checkpoint is written; leave checkpoint_seconds out",
        ),
        ({"views": "first"}, "settings: views: a row of X is one view; leave views out"),
    ):
        with pytest.raises(ConfigError) as caught:
            HierarchicalClassifier("flat", settings=settings).fit(X, y)
        assert str(caught.value) == message


def test_what_is_not_used_is_not_in_the_key(place: Path, noisy: Cache) -> None:
    # As where the default of a setting is another by the time its run is asked for again.
    data = prepare(noisy, str(place / "tree.csv"))
    config = settle(resolve(TrainConfig, {"method": "flat"}), data, CPU)
    for name in ("temperature", "width", "beta", "blend", "hxe_alpha", "gradnorm_rate", "violation_weight"):
        other = replace(config, **{name: OTHER[name]})
        assert run_key(noisy, data, other) == run_key(noisy, data, config)
        assert name not in used_settings(config)
    assert run_key(noisy, data, replace(config, reduced=9)) != run_key(noisy, data, config)


def test_views_are_chosen_where_there_are_several(place: Path, noisy: Cache) -> None:
    config = resolve(TrainConfig, {"method": "flat", "hierarchy": str(place / "tree.csv"), "views": "first"})
    assert prepare_run(noisy, config).config.views == "first"
    with pytest.raises(ConfigError) as caught:
        prepare_run(load_cache(place / "cache.h5"), config)
    assert str(caught.value) == f"views=first: {place / 'cache.h5'} holds one view of every crop; leave views out"
