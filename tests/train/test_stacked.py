"""Runs trained as one batched model, against the same runs alone."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
import torch._guards
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.utils import counters

from hfc.config import METHODS, TrainConfig, resolve
from hfc.errors import ConfigError, RunError
from hfc.hierarchy import from_paths
from hfc.store import FeatureStore
from hfc.train.cache import Cache, load_cache
from hfc.train.data import TrainingData, prepare
from hfc.train.features import Resident, Streamed
from hfc.train.fit import fit
from hfc.train.groups import MOST, groups
from hfc.train.heads import HEADS, masks
from hfc.train.heads.layers import Target
from hfc.train.plan import parse_sweep
from hfc.train.settling import settle
from hfc.train.stacked import fit_stacked
from hfc.train.stage import train, train_all
from hfc.train.sweep import sweep
from hfc.train.training import Fitted
from hfc.train.weightings import WEIGHTINGS
from tests.support.made_up import settled_on

SHAPE = {"epochs": 3, "batch_size": 40, "reduced": 24, "width": 24, "dropout": 0.3, "precision": "fp32"}
# What sums in another order rounds. Adam divides a gradient by its size, so where one is near 0 rounding alone moves
# few weights, by a step at most. Another mask or batch moves all of them, by 1e-3 and more.
STEP, MOSTLY = 3e-3, 1e-4


@pytest.fixture(scope="module")
def data(place: Path, cache: Cache) -> TrainingData:
    return prepare(cache, str(place / "tree.csv"))


def three(place: Path, data: TrainingData, **changes: object) -> list[TrainConfig]:
    """Three runs that differ in what they may, of one epoch: a ReLU that rounding flips later leads apart for good."""
    given = {"hierarchy": str(place / "tree.csv"), "transform": "sqrt", **settled_on(SHAPE | {"epochs": 1}, **changes)}
    shared = settle(resolve(TrainConfig, given), data, torch.device("cpu"))
    return [
        replace(shared, seed=0),
        replace(shared, seed=1),
        replace(shared, seed=2, learning_rate=0.001),
    ]


def assert_same(stacked: Sequence[Fitted], alone: Sequence[Fitted]) -> None:
    for one, other in zip(stacked, alone, strict=True):
        assert one.best.epoch == other.best.epoch
        for module in ("head", "weighting"):
            states = getattr(one, module).state_dict(), getattr(other, module).state_dict()
            assert states[0].keys() == states[1].keys()
            for name, tensor in states[1].items():
                difference = (states[0][name].double() - tensor.double()).abs()
                assert difference.max() <= STEP, name
                assert difference.median() <= MOSTLY, name


def both_ways(
    cache: Cache, data: TrainingData, configs: Sequence[TrainConfig]
) -> tuple[list[Fitted], list[Fitted], Any]:
    lines: dict[str, list[Any]] = {"stacked": [], "alone": []}
    stacked = fit_stacked(
        cache.features, data, configs, lambda config, epoch: lines["stacked"].append((config.seed, epoch))
    )
    alone = [
        fit(cache.features, data, config, lambda config, epoch: lines["alone"].append((config.seed, epoch)))
        for config in configs
    ]
    return stacked, alone, lines


STACKABLE = [
    name
    for name, preset in METHODS.items()
    if WEIGHTINGS[str(preset["weighting"])].pure and not HEADS[str(preset["head"])].convex
]


@pytest.mark.parametrize("method", STACKABLE)
def test_a_run_in_a_stack_equals_the_same_run_alone(method: str, place: Path, cache: Cache, data: TrainingData) -> None:
    stacked, alone, lines = both_ways(cache, data, three(place, data, method=method))
    assert_same(stacked, alone)
    assert len(lines["stacked"]) == 3
    for (seed, line), (_, other) in zip(
        sorted(lines["stacked"], key=lambda item: item[0]), lines["alone"], strict=True
    ):
        assert line.number == other.number
        assert line.loss == pytest.approx(other.loss, rel=1e-4), seed
        assert line.weights == pytest.approx(other.weights, rel=1e-4)
        assert line.learning_rate == other.learning_rate
        assert line.val == pytest.approx(other.val, rel=1e-3, abs=1e-4)


@pytest.fixture(scope="module")
def uneven(cache: Cache, data: TrainingData) -> TrainingData:
    """The rows under a tree with leaves on three levels, a third of the labels cut back to an inner node."""
    below = {"Tee": ("Tops", "Tees"), "Tank": ("Tops", "Tees"), "Jeans": ("Bottoms",), "Coat": ()}
    paths = {leaf: (*below.get(leaf, ("Bottoms", "Other")), leaf) for leaf in data.hierarchy.leaves}
    tree = from_paths("uneven", ["1", "2", "3"], sorted(paths.values()))
    labels = [paths[label][0] if row % 3 == 0 else label for row, label in enumerate(cache.table.regions.label)]
    path = tree.find(labels, "labels")
    target = Target(torch.from_numpy(path), torch.from_numpy(tree.leaf(path)))
    return replace(data, hierarchy=tree, target=target, rows=data.rows | {"val": torch.arange(0)})


@pytest.mark.parametrize("method", STACKABLE)
def test_so_it_does_on_an_uneven_tree_with_inner_labels(
    method: str, place: Path, cache: Cache, uneven: TrainingData
) -> None:
    assert uneven.inner
    assert not uneven.hierarchy.even
    stacked, alone, lines = both_ways(cache, uneven, three(place, uneven, method=method, class_balance=0.9)[:2])
    assert_same(stacked, alone)
    for (_, line), (_, other) in zip(*lines.values(), strict=True):
        assert line.loss == pytest.approx(other.loss, rel=1e-4)


def test_so_it_does_over_several_epochs(place: Path, cache: Cache, data: TrainingData) -> None:
    stacked, alone, lines = both_ways(cache, data, three(place, data, method="flat", epochs=4))
    assert_same(stacked, alone)
    assert len(lines["stacked"]) == len(lines["alone"]) == 12


@pytest.mark.parametrize(
    "changes",
    [
        *({"weighting": name} for name in WEIGHTINGS if WEIGHTINGS[name].pure and name != "sum"),
        {"weighting": "uncertainty", "tasks": "levels"},
        {"class_balance": 0.9},
        {"members": 2},
    ],
    ids=str,
)
def test_so_it_does_with_other_settings(
    changes: dict[str, object], place: Path, cache: Cache, data: TrainingData
) -> None:
    stacked, alone, _ = both_ways(cache, data, three(place, data, method="hmcn-f", **changes))
    assert_same(stacked, alone)


@pytest.mark.parametrize("changes", [{"method": "hmcn-f+mtl"}, {"method": "levels", "members": 2}], ids=str)
def test_so_it_does_where_masks_are_drawn_at_once(
    changes: dict[str, object], place: Path, cache: Cache, data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: one draw a step and run."""
    seeds: list[int] = []
    draw = masks.draw

    def note(dropouts: Any, batch: int, own: Sequence[int], device: torch.device) -> Any:
        seeds.append(len(own))
        return draw(dropouts, batch, own, device)

    monkeypatch.setattr(masks, "at_once", lambda device: True)
    monkeypatch.setattr(masks, "draw", note)
    stacked, alone, _ = both_ways(cache, data, three(place, data, **changes))
    assert_same(stacked, alone)
    steps = len(seeds) // 4
    assert seeds == [3] * steps + [1] * 3 * steps


def test_in_bfloat16_a_run_in_a_stack_ends_near_the_same_run_alone(
    place: Path, cache: Cache, data: TrainingData
) -> None:
    stacked, alone, _ = both_ways(cache, data, three(place, data, method="hmcn-f+mtl", precision="bf16"))
    for one, other in zip(stacked, alone, strict=True):
        assert one.best.val["top1"] == pytest.approx(other.best.val["top1"], abs=0.05)
        assert one.weighting.weights() == pytest.approx(other.weighting.weights(), rel=0.01)


def test_several_views_are_drawn_as_alone(place: Path, cache: Cache, data: TrainingData) -> None:
    assert isinstance(cache.features, Resident)
    one = cache.features.tensor
    two = replace(cache, features=Resident(torch.cat([one, one + 0.5 * torch.randn(one.shape)], dim=1)))
    stacked, alone, _ = both_ways(two, data, three(place, data, method="flat"))
    assert_same(stacked, alone)


@pytest.mark.slow
def test_a_compiled_stack_equals_the_same_runs_alone(place: Path, cache: Cache, data: TrainingData) -> None:
    configs = three(place, data, method="hmcn-f+mtl", step="compiled")
    stacked = fit_stacked(cache.features, data, configs)
    assert_same(stacked, [fit(cache.features, data, config) for config in configs])


def test_a_compiled_step_is_one_graph_that_a_gpu_could_capture(
    place: Path, cache: Cache, data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Capturing asks that every tensor which the graph changes stays in its place; each stack begins anew."""
    graphs: list[tuple[set[int], set[int]]] = []
    compiled = torch.compile

    def record(graph: torch.fx.GraphModule, inputs: Sequence[Any]) -> Any:
        metadata = torch._guards.TracingContext.get().fw_metadata
        assert metadata is not None
        graphs.append((set(metadata.static_input_indices), set(metadata.mutated_inp_runtime_indices)))
        return make_boxed_func(graph.forward)

    monkeypatch.setattr(
        torch, "compile", lambda step, mode, dynamic: compiled(step, backend=aot_autograd(fw_compiler=record))
    )
    counters.clear()
    with torch._dynamo.config.patch(recompile_limit=2):  # which pytest would not put back
        for number, name in enumerate(("flat", "levels", "conditional"), 1):
            configs = three(place, data, method=name, step="compiled", epochs=2)[:2]
            assert len(data.rows["train"]) % configs[0].batch_size  # so the last batch has another shape
            stacked = fit_stacked(cache.features, data, configs)
            assert_same(stacked, [fit(cache.features, data, config) for config in configs])
            assert len(graphs) == number
    assert not counters["graph_break"]
    for static, changed in graphs:
        assert changed
        assert changed <= static


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"weighting": "gradnorm"}, "weighting=gradnorm"),
        ({"weighting": "dwa"}, "weighting=dwa"),
        ({"method": "linear"}, "head=linear"),
    ],
    ids=str,
)
def test_what_cannot_be_stacked_is_refused(
    changes: dict[str, object], problem: str, place: Path, cache: Cache, data: TrainingData
) -> None:
    with pytest.raises(ConfigError, match=f"step=stacked: not with {problem}; --set step=single"):
        fit_stacked(cache.features, data, three(place, data, **{"method": "hmcn-f", "step": "stacked", **changes}))


def test_streamed_features_cannot_be_stacked(place: Path, cache: Cache, data: TrainingData) -> None:
    with FeatureStore(place / "cache.h5") as store:
        streamed = Streamed(store, torch.device("cpu"), cache.features.views)
        with pytest.raises(ConfigError, match="step=stacked: not with streamed features"):
            fit_stacked(streamed, data, three(place, data, step="stacked"))


def test_a_diverging_run_of_a_stack_is_named(place: Path, cache: Cache, data: TrainingData) -> None:
    configs = three(place, data, method="flat")
    configs[1] = replace(configs[1], learning_rate=1e30)
    with pytest.raises(RunError, match="flat, seed 1: the loss is nan in epoch"):
        fit_stacked(cache.features, data, configs)


def test_runs_are_grouped_by_shape(place: Path, data: TrainingData) -> None:
    a, b, c = three(place, data, method="flat", step="stacked")
    other = replace(a, dropout=0.5)
    assert groups([a, other, b, replace(other, seed=9), c]) == [[0, 2, 4], [1, 3]]
    single = [replace(config, step="single") for config in (a, b, c)]
    assert groups(single) == [[0], [1], [2]]
    assert [len(group) for group in groups([replace(a, seed=seed) for seed in range(MOST + 2)])] == [MOST, 2]


def test_stacked_runs_leave_the_folders_that_single_ones_leave(place: Path, tmp_path: Path) -> None:
    names = ("flat", "levels")
    configs = [
        resolve(
            TrainConfig,
            {"hierarchy": str(place / "tree.csv"), **settled_on(SHAPE, method=name, seed=seed, step=step)},
        )
        for step in ("stacked", "single")
        for seed in (0, 1)
        for name in names
    ]
    calls: list[tuple[str, int, str, int]] = []
    found = list(
        train_all(
            place / "cache.h5",
            configs,
            tmp_path,
            on_epoch=lambda config, epoch: calls.append((config.method, config.seed, config.step, epoch.number)),
        )
    )
    assert [run.result.config["method"] for run, _ in found] == [config.method for config in configs]
    assert [run.result.seed for run, _ in found] == [config.seed for config in configs]
    assert sorted(calls) == sorted((c.method, c.seed, c.step, epoch) for c in configs for epoch in (1, 2, 3))
    for (stacked, new), (single, _) in zip(found[:4], found[4:], strict=True):
        assert new
        assert sorted(p.name for p in stacked.folder.iterdir()) == sorted(p.name for p in single.folder.iterdir())
        assert stacked.result.test["top1"] == pytest.approx(single.result.test["top1"], abs=0.02)
        assert stacked.result.changed == {**single.result.changed, "step": "stacked"}
    again = list(train_all(place / "cache.h5", configs, tmp_path))
    assert [trained for _, trained in again] == [False] * 8
    # One run of a stack that is gone is trained again by itself.
    cache = load_cache(place / "cache.h5")
    for file in found[0][0].folder.iterdir():
        file.unlink()
    run, trained = train(cache, configs[0], tmp_path)
    assert trained
    assert run.result.test["top1"] == pytest.approx(found[0][0].result.test["top1"], abs=0.02)


def test_a_search_finds_the_same_stacked(place: Path, tmp_path: Path) -> None:
    content = {
        **settled_on(SHAPE, method="flat"),
        **{"hierarchy": str(place / "tree.csv"), "seeds": [0, 1]},
        "grid": {"learning_rate": [1e-5, 0.003], "dropout": [0.1, 0.3]},
    }
    plans = [parse_sweep(tmp_path / "grid.toml", {**content, "step": step}) for step in ("single", "stacked")]
    single, stacked = (sweep(place / "cache.h5", plan, tmp_path / str(i)) for i, plan in enumerate(plans))
    assert [trial.settings for trial in stacked] == [trial.settings for trial in single]
    assert [trial.score for trial in stacked] == pytest.approx([trial.score for trial in single], abs=0.02)


def test_every_training_asks_for_sums_in_one_order(
    place: Path, cache: Cache, data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[torch.device] = []

    def note(device: torch.device) -> AbstractContextManager[None]:
        asked.append(device)
        return nullcontext()

    for module in ("fit", "stacked"):
        monkeypatch.setattr(f"hfc.train.{module}.reproducible", note)
    (config, *_) = three(place, data, method="conditional")
    fit(cache.features, data, config)
    fit_stacked(cache.features, data, [replace(config, step="stacked")])
    assert asked == [cache.features.device] * 2
