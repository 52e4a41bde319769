"""Several heads as one: the mean of what each gives, and each trained as it would be alone."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from hfc.config import METHODS, resolve
from hfc.config import TrainConfig as Config
from hfc.errors import ConfigError
from hfc.predict.export import export_hf
from hfc.predict.head import load_trained
from hfc.store import read_predictions
from hfc.train import evaluation, slices
from hfc.train.cache import Cache
from hfc.train.data import prepare
from hfc.train.estimator import HierarchicalClassifier
from hfc.train.features import Resident
from hfc.train.fit import fit
from hfc.train.heads import HEADS, Head
from hfc.train.heads.members import Members
from hfc.train.settings import build_head
from hfc.train.settling import settle
from hfc.train.slices import row_losses
from hfc.train.stage import train
from tests.support.equations import build, features
from tests.support.training import quick
from tests.train.test_wide import TREES

DRAWN = [name for name, preset in METHODS.items() if not HEADS[str(preset["head"])].convex]


def other(method: str, ancestors: Tensor) -> Head:
    """A head of the method with other weights."""
    head = build(method, ancestors)
    generator = torch.Generator().manual_seed(5)
    for parameter in head.parameters():
        parameter.data += 0.5 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return head


def joined(*heads: Head) -> Head:
    """Copies of some heads as one."""
    return cast(Head, Members([copy.deepcopy(head) for head in heads]))


@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize("method", DRAWN)
def test_a_prediction_is_the_mean_of_the_members(method: str, tree: str) -> None:
    heads = build(method, TREES[tree][0]), other(method, TREES[tree][0])
    whole = joined(*heads).eval()
    alone = [head.predict(head(features()), 0.3) for head in heads]
    read = whole.predict(whole(features()), 0.3)
    for got, *parts in zip((*read.levels, read.final), *((*one.levels, one.final) for one in alone), strict=True):
        assert not torch.allclose(*parts)
        torch.testing.assert_close(got, (parts[0] + parts[1]) / 2)
    assert (read.final is read.levels[-1]) == (alone[0].final is alone[0].levels[-1])
    if whole.sums:
        for h, column in enumerate(TREES[tree][0].T):
            for node in range(int(column.max()) + 1):
                torch.testing.assert_close(read.levels[h][:, node], read.final[:, column == node].sum(dim=1))


@pytest.mark.parametrize("sliced", [False, True])
@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize("method", DRAWN)
def test_a_loss_is_the_mean_and_its_gradient_each_members_own(
    method: str, tree: str, sliced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ancestors, target = TREES[tree]
    heads = build(method, ancestors), other(method, ancestors)
    whole = joined(*heads).eval()
    if sliced:
        monkeypatch.setattr(slices, "LEAST", 0)
        monkeypatch.setattr(slices, "CELLS", 20)
    rows = row_losses(whole, whole(features()), target)
    alone = [head.losses(head(features()), target) for head in heads]
    assert tuple(rows) == whole.tasks == heads[0].tasks
    for task, loss in rows.items():
        torch.testing.assert_close(loss, (alone[0][task] + alone[1][task]) / 2)
    total(rows).backward()
    for one, head, losses in zip(cast(Any, whole).members, heads, alone, strict=True):
        total(losses).backward()
        for (name, parameter), mine in zip(head.named_parameters(), one.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, parameter.grad, msg=name)


def total(losses: dict[str, Tensor]) -> Tensor:
    """Every task and row by a factor of its own."""
    stacked = torch.stack(list(losses.values()))
    return (stacked * torch.linspace(0.5, 2, stacked.numel(), dtype=torch.float64).view(stacked.shape)).sum()


@pytest.mark.parametrize("weighting", ["uncertainty", "dwa", "gradnorm"])  # by parameters, means, gradients
def test_members_that_are_alike_are_trained_as_one_head(
    weighting: str, place: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, also what the weighting learns: nothing depends on how many there are."""
    data = prepare(cache, str(place / "tree.csv"))
    torch.manual_seed(0)
    given = quick(place, method="hmcn-f", weighting=weighting, dropout=0.0, epochs=2)
    config = settle(given, data, torch.device("cpu"))
    head = build_head(config, data.hierarchy, 16)
    single, double = (trained_from(start, cache, data, config, monkeypatch) for start in (head, joined(head, head)))
    states = single.head.state_dict(), double.head.state_dict()
    assert len(states[1]) == 2 * len(states[0]) - 2  # there is one layer that standardises
    for name, tensor in states[0].items():
        for prefix in ("",) if name.startswith("standardise") else ("members.0.", "members.1."):
            assert torch.equal(states[1][prefix + name], tensor), name
    for name, tensor in single.weighting.state_dict().items():
        assert torch.equal(double.weighting.state_dict()[name], tensor), name
    assert [epoch.loss for epoch in double.epochs] == [epoch.loss for epoch in single.epochs]


def trained_from(start: Head, cache: Cache, data: Any, config: Config, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("hfc.train.training.build_head", lambda *given: copy.deepcopy(start))
    return fit(cache.features, data, config)


def test_members_start_apart_the_first_as_the_head_alone(place: Path, cache: Cache) -> None:
    data = prepare(cache, str(place / "tree.csv"))
    config = quick(place, method="levels")
    heads = []
    for members in (1, 3):
        torch.manual_seed(4)
        heads.append(build_head(replace(config, members=members), data.hierarchy, 16))
    assert type(heads[0]) is HEADS["levels"]
    first, second, third = (member.state_dict() for member in cast(Any, heads[1]).members)
    assert {"standardise.mean", "standardise.std"} | first.keys() == heads[0].state_dict().keys()
    assert all(torch.equal(tensor, heads[0].state_dict()[name]) for name, tensor in first.items())
    assert not torch.equal(second["reduce.linear.weight"], first["reduce.linear.weight"])
    assert not torch.equal(third["reduce.linear.weight"], second["reduce.linear.weight"])


def test_members_have_dropout_of_their_own() -> None:
    head = build("flat", dropout=0.5)
    logits = joined(head, head).train()(features().float().double())
    assert not torch.equal(logits[0].leaf, logits[1].leaf)


def test_a_block_of_rows_is_the_smaller_the_more_members(monkeypatch: pytest.MonkeyPatch) -> None:
    """The logits of all members are there together: with thousands of leaves they would be K times the memory."""
    monkeypatch.setattr(evaluation, "CELLS", 12 * 8)  # of 8 cells at the widest
    head = build("flat")
    rows = Resident(torch.randn(30, 1, 6))
    alone = [len(view.leaf) for (view,) in evaluation.outputs(head, rows, torch.arange(30))]
    three = [len(view[2].leaf) for (view,) in evaluation.outputs(joined(head, head, head), rows, torch.arange(30))]
    assert alone == [12, 12, 6]
    assert three == [4] * 7 + [2]


@pytest.mark.parametrize("method", ["levels+path", "hmcn-f"])
def test_a_run_of_several_is_stored_and_answers_as_any_other(
    method: str, place: Path, cache: Cache, tmp_path: Path
) -> None:
    config = quick(place, method=method, members=3, epochs=2)
    run, _ = train(cache, config, tmp_path)
    assert run.result.changed["members"] == 3
    stored = read_predictions(run.folder / "predictions.h5")
    export_hf(run.folder, tmp_path / "hf")
    assert isinstance(cache.features, Resident)
    places = [cache.table.regions.id.tolist().index(name) for name in stored.id]
    answers = []
    for folder in (run.folder, tmp_path / "hf"):
        trained = load_trained(folder)
        assert len(cast(Any, trained.head).members) == 3
        answers.append(list(trained.answers(cache.features.tensor[places].numpy(), stored.id.tolist(), 3, 0.0)))
    assert answers[0] == answers[1]
    best = np.sort(stored.final / stored.final.sum(axis=1, keepdims=True), axis=1)[:, :-4:-1]
    np.testing.assert_allclose([[leaf.probability for leaf in a.top] for a in answers[0]], best, atol=1e-5)


def test_the_estimator_answers_by_the_mean(cache: Cache) -> None:
    assert isinstance(cache.features, Resident)
    rows = cache.features.tensor[:120, 0].numpy()
    labels = cache.table.regions.label[:120]
    model = HierarchicalClassifier("flat", settings={"members": 2, "epochs": 3, "reduced": 8}, random_state=0)
    given = model.fit(rows, labels).predict_proba(rows)
    x = model.head_.standardise(torch.from_numpy(rows).double())
    parts = [one.predict(one(x), 0.0).final for one in model.head_.members]
    mean = (sum(parts) / 2).detach().numpy() ** (1 / model.temperature_)
    np.testing.assert_allclose(given, mean / mean.sum(axis=1, keepdims=True), rtol=1e-9)


def test_members_of_a_head_that_draws_nothing_are_refused(place: Path, cache: Cache, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        train(
            cache, resolve(Config, {"method": "linear", "members": 4, "hierarchy": str(place / "tree.csv")}), tmp_path
        )
    assert str(caught.value) == (
        "members=4 with method linear: head linear draws nothing, so its members would be alike; leave members out"
    )
