"""What a trained head answers at every β and at every confidence."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hfc import metrics
from hfc.config import TrainConfig, resolve
from hfc.runs import BetaReading, Result
from hfc.train import evaluation
from hfc.train import features as features_module
from hfc.train.cache import Cache, load_cache
from hfc.train.data import prepare
from hfc.train.evaluation import (
    BETAS,
    CONFIDENCES,
    best_beta,
    brief,
    by_beta,
    climb,
    decoded,
    evaluate,
    joined,
    predict,
    ranked,
)
from hfc.train.features import Resident
from hfc.train.heads.layers import Prediction, Target
from hfc.train.settings import build_head
from hfc.train.stage import train
from tests.support.made_up import settled_on

QUICK = {"epochs": 1, "batch_size": 32, "reduced": 32, "width": 32, "dropout": 0.2, "transform": "sqrt"}


@pytest.fixture(scope="module")
def cache(place: Path) -> Cache:
    """So noisy that one epoch leaves something to be wrong about."""
    found = load_cache(place / "cache.h5")
    assert isinstance(found.features, Resident)
    noise = torch.randn(found.features.tensor.shape, generator=torch.Generator().manual_seed(0)) * 4
    return replace(found, features=Resident(found.features.tensor + noise.half()))


def quick(place: Path, **changes: object) -> TrainConfig:
    return resolve(TrainConfig, {"hierarchy": str(place / "tree.csv"), **settled_on(QUICK, **changes)})


def result(cache: Cache, config: TrainConfig, out: Path) -> Result:
    run, _ = train(cache, config, out)
    return run.result


@pytest.mark.parametrize(
    ("method", "decode"),
    [*(("hmcn-f", decode) for decode in ("leaf", "consistent", "least-cost")), ("hmcn-f-original", "leaf")],
)
def test_each_beta_gives_what_a_run_of_that_beta_gives(
    method: str, decode: str, place: Path, cache: Cache, tmp_path: Path
) -> None:
    # One epoch leaves validation nothing to pick, and without the violation loss β plays no part in training.
    settings = {"method": method, "decode": decode, **({} if method == "hmcn-f" else {"violation_weight": 0.0})}
    swept = result(cache, quick(place, **settings, beta=0.25), tmp_path).beta
    assert swept
    assert [reading.beta for reading in swept.test] == sorted([*BETAS, 0.25])
    assert len({reading.top1 for reading in swept.test}) > 2
    for i in (0, 3, 6, 11):
        beta = swept.test[i].beta
        own = result(cache, quick(place, **settings, beta=beta), tmp_path)
        for readings, scores in ((swept.test, own.test), (swept.validation, own.selected.val)):
            others = {f"top{k}": scores[f"top{k}"] for k in (3, 5)}
            assert readings[i] == BetaReading(beta=beta, top1=scores["top1"], others=others)
    assert swept.best_on_validation == best_beta(swept.validation, 0.25)


def test_all_betas_take_one_pass_whatever_the_blocks(
    place: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(cache.features, Resident)
    both = Resident(torch.cat([cache.features.tensor, cache.features.tensor.flip(0)], dim=1))
    config, data = quick(place, method="levels+path"), prepare(cache, str(place / "tree.csv"))
    torch.manual_seed(0)
    head = build_head(config, data.hierarchy, 16)
    for parameter in head.parameters():  # it starts with equal classes, which no β would rank otherwise
        torch.nn.init.normal_(parameter)
    rows = []
    head.register_forward_hook(lambda module, inputs, logits: rows.append(len(inputs[0])))
    whole, swept = by_beta(head, both, data, "test", config)
    assert rows == [72, 72]  # two views of one block
    monkeypatch.setattr(features_module, "BLOCK_ROWS", 32)
    rows.clear()
    parts, again = by_beta(head, both, data, "test", config)
    assert rows == [32, 32, 32, 32, 8, 8]
    assert again == swept
    np.testing.assert_allclose(parts.final.numpy(), whole.final.numpy(), rtol=1e-4)
    monkeypatch.setattr(evaluation, "CELLS", 20 * 32)  # of logits: the head's widest layer has 32
    rows.clear()
    parts, again = by_beta(head, both, data, "test", config)
    assert rows == [20, 20, 12, 12, 20, 20, 12, 12, 8, 8]
    assert again == swept
    for part, level in zip((*parts.levels, parts.final), (*whole.levels, whole.final), strict=True):
        np.testing.assert_allclose(part.numpy(), level.numpy(), rtol=1e-4)
    leaf = data.leaf("test")
    curve = climb(whole.final, leaf, data.hierarchy)
    monkeypatch.setattr(evaluation, "CELLS", 1)  # a row a block
    assert climb(whole.final, leaf, data.hierarchy) == curve


@pytest.mark.parametrize("shared", [True, False])
def test_blocks_are_joined_in_their_order_and_what_is_one_stays_one(shared: bool) -> None:
    level, final = torch.rand(5, 2), torch.rand(5, 3)
    own = final if shared else torch.rand(5, 3)
    split = zip(level.split(2), own.split(2), final.split(2), strict=True)
    whole = joined((Prediction((a, c if shared else b), c) for a, b, c in split), 5)
    assert [torch.equal(got, want) for got, want in zip(whole.levels, (level, own), strict=True)] == [True, True]
    assert torch.equal(whole.final, final)
    assert (whole.final is whole.levels[-1]) == shared


def test_the_best_beta_of_equals_is_the_nearest_to_the_runs_own() -> None:
    scores = [0.5, 0.6, 0.6, 0.4, 0.6]
    readings = [BetaReading(beta=i / 10, top1=score) for i, score in enumerate(scores)]
    assert [best_beta(readings, own) for own in (0.0, 0.2, 0.3, 0.4, 0.7)] == [0.1, 0.2, 0.2, 0.4, 0.4]


def test_stopping_begins_at_the_leaves_and_climbs(place: Path, cache: Cache, tmp_path: Path) -> None:
    found = result(cache, quick(place), tmp_path)
    curve, test = found.climb, found.test
    assert curve
    assert [reading.confidence for reading in curve] == list(CONFIDENCES)
    assert CONFIDENCES[:2] + CONFIDENCES[-2:] == (0.0, 0.05, 0.95, 0.99)
    assert (curve[0].confidence, curve[0].specificity, curve[0].correct) == (0.0, 1.0, test["top1"])
    assert curve[0].precision == pytest.approx(
        test["hF"]
    )  # of paths equally long, precision, recall and F are the same
    depths = [reading.specificity for reading in curve]
    assert depths == sorted(depths, reverse=True)
    correct = [reading.correct for reading in curve]
    assert correct == sorted(correct)
    assert correct[-1] > correct[0]


@pytest.mark.parametrize("decode", ["leaf", "consistent", "least-cost"])
def test_rows_with_an_inner_label_are_left_out_where_leaves_are_measured(
    decode: str, place: Path, cache: Cache
) -> None:
    config = quick(place, method="levels", decode=decode, topk=[1, 2])
    data = prepare(cache, str(place / "tree.csv"))
    torch.manual_seed(0)
    head = build_head(config, data.hierarchy, 16)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    inner = torch.arange(len(data.target.leaf)) % 3 == 0
    path = torch.where(inner[:, None] & (torch.arange(data.target.path.shape[1]) > 0), -1, data.target.path)
    mixed = replace(data, target=Target(path, torch.where(inner, -1, data.target.leaf)))
    test = data.rows["test"]
    named = replace(data, rows={**data.rows, "test": test[~inner[test]]})
    raw, readings = by_beta(head, cache.features, mixed, "test", config)
    part, expected = by_beta(head, cache.features, named, "test", config)
    assert len(raw.final) == len(test) > len(part.final) > 0
    assert readings == expected
    assert len({reading.top1 for reading in readings}) > 1
    whole, fewer = decoded(raw, data.hierarchy, config), decoded(part, data.hierarchy, config)
    measured, alone = evaluate(whole, mixed, "test", config), evaluate(fewer, named, "test", config)
    on_level_1 = evaluate(whole, data, "test", config)
    coarse, *_ = (f"level_accuracy/{level}" for level in data.hierarchy.levels)
    expected_metrics = alone | {key: on_level_1[key] for key in (coarse, "inconsistency")}
    assert measured == pytest.approx(expected_metrics, abs=1e-6)
    if decode != "least-cost":
        curve = climb(whole.final, mixed.leaf("test"), data.hierarchy)
        assert curve == climb(fewer.final, named.leaf("test"), data.hierarchy)
        assert len({reading.correct for reading in curve}) > 1


def test_scores_that_are_no_probabilities_stop_nowhere(place: Path, cache: Cache, tmp_path: Path) -> None:
    assert result(cache, quick(place, decode="least-cost"), tmp_path).climb is None


@pytest.mark.parametrize("labels", ["leaves", "some inner", "inner"])
@pytest.mark.parametrize("select", ["top1", "nll", "hF", "full_path_accuracy"])
def test_an_epochs_metrics_are_some_of_all(select: str, labels: str, place: Path, cache: Cache) -> None:
    """To the bit, with many equal probabilities and whole rows of zeros."""
    config = quick(place, select=select, topk=[1, 3])
    data = prepare(cache, str(place / "tree.csv"))
    if labels != "leaves":
        inner = torch.arange(len(data.target.leaf)) % (3 if labels == "some inner" else 1) == 0
        path = data.target.path.clone()
        path[inner, -1] = -1
        leaf = data.target.leaf.masked_fill(inner, -1)
        data = replace(data, target=Target(path, leaf))
    rng = np.random.default_rng(0)
    final = torch.from_numpy(rng.integers(0, 4, (len(data.rows["val"]), len(data.hierarchy.leaves)))).float()
    levels = tuple(torch.from_numpy(rng.random((len(final), size))) for size in data.hierarchy.sizes[:-1])
    prediction = Prediction((*levels, final), final)
    whole, part = (measure(prediction, data, "val", config) for measure in (evaluate, brief))
    if labels == "inner":
        assert part == whole
        return
    assert part == {key: whole[key] for key in ("top1", "top3", "top1_macro", select)}
    assert 0 < part["top1"] < 1


def test_ranks_of_tensors_are_those_of_arrays() -> None:
    rng = np.random.default_rng(0)
    final = rng.integers(0, 4, (500, 7)).astype(np.float32)
    final[::50] = np.nan
    leaf = rng.integers(0, 7, 500)
    assert ranked(torch.from_numpy(final), torch.from_numpy(leaf)).tolist() == metrics.rank(final, leaf).tolist()
    assert ranked(torch.from_numpy(final[:1]), torch.tensor([-1])).shape == (1,)


def test_what_is_no_number_is_never_right(place: Path, cache: Cache) -> None:
    data = prepare(cache, str(place / "tree.csv"))
    final = torch.full((len(data.rows["val"]), len(data.hierarchy.leaves)), torch.nan)
    part = brief(Prediction((final,), final), data, "val", quick(place))
    assert {part["top1"], part["top3"], part["top5"], part["top1_macro"]} == {0}


def test_every_prediction_asks_for_sums_in_one_order(
    place: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU: also those after a training, whose numbers a run's result holds."""
    inside: list[torch.device] = []

    @contextmanager
    def note(device: torch.device) -> Iterator[None]:
        inside.append(device)
        yield
        inside.pop()

    monkeypatch.setattr(evaluation, "reproducible", note)
    config, data = quick(place, method="levels+path"), prepare(cache, str(place / "tree.csv"))
    head, asked = build_head(config, data.hierarchy, 16), []
    head.register_forward_hook(lambda *_: asked.extend(inside))  # type: ignore[attr-defined]
    predict(head, cache.features, data.rows["test"], config.beta)
    by_beta(head, cache.features, data, "test", config)
    assert asked == [cache.features.device] * 2
