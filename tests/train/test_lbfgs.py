"""Softmax regression along its path, against scikit-learn's and SciPy's minima."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax
from sklearn.linear_model import LogisticRegression

from hfc.config import TrainConfig, resolve
from hfc.errors import ConfigError, DivergedError
from hfc.hierarchy import from_paths
from hfc.runs import Epoch
from hfc.store import FeatureStore
from hfc.train.cache import Cache
from hfc.train.checkpoint import Checkpoint
from hfc.train.data import TrainingData
from hfc.train.evaluation import predict
from hfc.train.features import Resident, Streamed, signs
from hfc.train.fit import fit
from hfc.train.heads import Head
from hfc.train.heads.layers import Target
from hfc.train.lbfgs import ALONE, PathTraining, strength
from hfc.train.prepared import prepare_run
from hfc.train.settling import settle
from hfc.train.stage import train
from tests.support.training import quick

Floats = NDArray[np.float64]
CPU = torch.device("cpu")
TREE = [("tops", "Tee"), ("tops", "Tank"), ("tops", "knitwear", "Cardigan"), ("Coat",), ("trousers", "Jeans")]
LEAVES, DIM = 5, 8
CLOSE = 1e-3
"""How near probabilities come to the exact minimum's."""


def made_up(inner: bool = False, rows: int = 240, views: int = 1) -> tuple[Resident, TrainingData]:
    """Rows of five leaves on three levels that are hard to tell apart; of each two thirds are for training."""
    rng = np.random.default_rng(0)
    tree = from_paths("uneven", ["1", "2", "3"], sorted(TREE))
    leaf = rng.choice(LEAVES, rows, p=[0.35, 0.25, 0.2, 0.1, 0.1])
    x = rng.normal(size=(LEAVES, DIM))[leaf][:, None] + 1.5 * rng.normal(size=(rows, views, DIM)) + 5
    path = tree.ancestors[leaf].copy()
    if inner:
        path[::3, 1:] = -1
    numbers = torch.arange(rows)
    split = {"train": numbers[numbers % 6 < 4], "val": numbers[numbers % 6 == 4], "test": numbers[numbers % 6 == 5]}
    target = Target(torch.from_numpy(path), torch.from_numpy(tree.leaf(path)))
    features = Resident(torch.from_numpy(x).float())
    return features, TrainingData(tree, split, target, signs(features, numbers), unused={})


def linear(data: TrainingData, **changes: object) -> TrainConfig:
    return settle(
        resolve(TrainConfig, {"method": "linear", "transform": "none", "epochs": 5, "l2_last": 0.003, **changes}),
        data,
        CPU,
    )


def probabilities(head: Head, features: Resident, rows: torch.Tensor) -> Floats:
    return predict(head, features, rows, 0.0).final.double().numpy()


def standardised(features: Resident, rows: torch.Tensor) -> Floats:
    """(N, D) the first view of all rows, by mean and deviation of some."""
    x = features.tensor[:, 0].double().numpy()
    return np.asarray((x - x[rows].mean(axis=0)) / x[rows].std(axis=0))


def test_every_point_of_the_path_is_scikit_learns_minimum() -> None:
    features, data = made_up()
    training, x, leaf = PathTraining.start(features, data, linear(data)), *exact(features, data)
    rows, val = data.rows["train"].numpy(), data.rows["val"]
    strengths = [1.0, 0.003**0.25, 0.003**0.5, 0.003**0.75, 0.003]
    for number, l2 in enumerate(strengths, 1):
        epoch = training.epoch()
        oracle = LogisticRegression(C=1 / (l2 * len(rows)), tol=1e-7, solver="newton-cg").fit(x[rows], leaf[rows])
        expected = oracle.predict_proba(x[val])
        np.testing.assert_allclose(probabilities(training.head, features, val), expected, atol=CLOSE)
        logs = np.log(oracle.predict_proba(x[rows])[np.arange(len(rows)), leaf[rows]])
        penalty = l2 / 2 * np.square(oracle.coef_).sum()
        assert epoch.loss == pytest.approx({"global": -logs.mean(), "total": penalty - logs.mean()}, rel=1e-3)
        assert (epoch.number, epoch.l2, epoch.learning_rate) == (number, pytest.approx(l2), None)
        assert epoch.val["top1"] == (expected.argmax(axis=1) == leaf[val]).mean()
        logs = np.log(expected[np.arange(len(val)), leaf[val]])
        assert epoch.val["nll"] == pytest.approx(-logs.mean(), rel=1e-3)


def exact(features: Resident, data: TrainingData) -> tuple[Floats, NDArray[np.int64]]:
    """(N, D) features as the training rows standardise them, and (N,) leaves."""
    return standardised(features, data.rows["train"]), data.target.leaf.numpy()


def below(data: TrainingData, rows: torch.Tensor) -> NDArray[np.bool_]:
    """(n, C) whether each leaf is the label of a row or lies below it, by paths."""
    tree = data.hierarchy
    labels = [tuple(path[path >= 0]) for path in data.target.path[rows].numpy()]
    return np.array([[tuple(path[: len(label)]) == label for path in tree.ancestors] for label in labels])


def objective(flat: Floats, x: Floats, right: NDArray[np.bool_], l2: float) -> tuple[float, Floats]:
    """The mean of −log Σ P of the right leaves + λ/2 ‖W‖², and its gradient by W and b."""
    weight, bias = flat[:-LEAVES].reshape(LEAVES, DIM), flat[-LEAVES:]
    z = x @ weight.T + bias
    inside = np.where(right, z, -np.inf)
    slope = (softmax(z, axis=1) - softmax(inside, axis=1)) / len(x)
    value = (logsumexp(z, axis=1) - logsumexp(inside, axis=1)).mean() + l2 / 2 * np.square(weight).sum()
    return value, np.concatenate([(slope.T @ x + l2 * weight).ravel(), slope.sum(axis=0)])


@pytest.mark.parametrize("inner", [False, True])
def test_the_gradient_is_next_to_nothing_and_the_minimum_scipys(inner: bool) -> None:
    features, data = made_up(inner)
    rows = data.rows["train"]
    x, right = standardised(features, rows)[rows], below(data, rows)
    assert (right.sum(axis=1) > 1).any() == inner
    for l2 in (0.3, 0.003):
        head = fit(features, data, linear(data, epochs=1, l2=l2)).head
        state = {name: tensor.double().numpy() for name, tensor in head.state_dict().items()}
        found = np.concatenate([state["leaf.weight"].ravel(), state["leaf.bias"]])
        value, slope = objective(found, x, right, l2)
        least = minimize(objective, np.zeros_like(found), (x, right, l2), jac=True, tol=1e-12, method="L-BFGS-B")
        assert np.abs(slope).max() < 3e-4 < 0.01 < np.abs(objective(np.zeros_like(found), x, right, l2)[1]).max()
        assert value == pytest.approx(least.fun, abs=1e-6)
        z = x @ least.x[:-LEAVES].reshape(LEAVES, DIM).T + least.x[-LEAVES:]
        np.testing.assert_allclose(probabilities(head, features, rows), softmax(z, axis=1), atol=CLOSE)


def assert_alike(one: Head, other: Head, atol: float = CLOSE) -> None:
    features, data = made_up()
    rows = torch.cat(list(data.rows.values()))
    np.testing.assert_allclose(*(probabilities(head, features, rows) for head in (one, other)), rtol=0, atol=atol)


def test_two_trainings_give_the_same_bits_whatever_their_seeds() -> None:
    features, data = made_up()
    one, other = (fit(features, data, linear(data, seed=seed)) for seed in (0, 7))
    states = one.head.state_dict(), other.head.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert [epoch.loss for epoch in one.epochs] == [epoch.loss for epoch in other.epochs]


def test_a_start_where_the_point_before_ended_comes_to_the_minimum_of_a_start_at_0() -> None:
    features, data = made_up()
    training = PathTraining.start(features, data, linear(data, l2_last=0.02))
    for _ in range(5):
        training.epoch()
    assert_alike(training.head, fit(features, data, linear(data, epochs=1, l2=0.02)).head)


def test_the_best_point_on_validation_is_taken_by_likelihood_or_another_metric() -> None:
    features, data = made_up()
    for metric, best in (("nll", min), ("top1", max)):
        fitted = fit(features, data, linear(data, epochs=9, select=metric))
        scores = [epoch.val[metric] for epoch in fitted.epochs]
        assert fitted.best.epoch == 1 + scores.index(best(scores))
        l2 = fitted.epochs[fitted.best.epoch - 1].l2
        assert_alike(fitted.head, fit(features, data, linear(data, epochs=1, l2=l2)).head)
    assert fitted.best.epoch > 1


def test_without_validation_rows_the_strength_is_by_their_number() -> None:
    features, data = made_up()
    data = replace(data, rows=data.rows | {"val": data.rows["val"][:0]})
    config = linear(data, l2=10.0, l2_last=0.01, epochs=13)
    fitted = fit(features, data, config)
    wanted = ALONE / len(data.rows["train"])
    distance = [abs(np.log(strength(config, number) / wanted)) for number in range(1, 14)]
    assert (fitted.best.epoch, fitted.best.val) == (1 + int(np.argmin(distance)), {})
    shared = fit(features, data, linear(data, inner_l2=[1, 4, 30]))
    assert {epoch.inner_l2 for epoch in shared.epochs} == {4}  # the one in the middle


@pytest.mark.parametrize("inner", [[0], [1, 30]])
def test_a_refit_trains_at_the_chosen_strengths_on_training_and_validation_rows(inner: list[int]) -> None:
    features, data = made_up()
    alone, refit = (fit(features, data, linear(data, refit=refit, inner_l2=inner)) for refit in ("train", "train+val"))
    assert (alone.best, alone.refit_seconds) == (refit.best, 0)
    assert refit.seconds > sum(epoch.seconds for epoch in refit.epochs)
    both = torch.cat([data.rows["train"], data.rows["val"]]).sort().values
    joined = replace(data, rows=data.rows | {"train": both})
    best = alone.epochs[alone.best.epoch - 1]
    again = linear(joined, epochs=1, l2=best.l2, inner_l2=[best.inner_l2 or 0])
    assert_alike(refit.head, fit(features, joined, again).head)
    assert_alike(refit.validated, alone.head, 0.0)  # what the temperature is fitted by
    assert alone.validated is alone.head
    assert torch.equal(refit.head.standardise.mean, features.tensor[both, 0].double().mean(dim=0).float())
    with pytest.raises(AssertionError):
        assert_alike(refit.head, alone.head)


def test_a_weight_of_two_is_a_row_twice_and_every_view_is_a_row() -> None:
    features, data = made_up()
    features.tensor.sub_(5)  # about their mean, as nothing standardises them here
    rows = data.rows["train"]
    weight = torch.ones(240)
    weight[rows[:60]] = 2
    twice = replace(data, rows=data.rows | {"train": torch.cat([rows[:60], rows]).sort().values})
    config = linear(data, epochs=1, l2=0.01, standardise=False)
    weighed = fit(features, replace(data, weight=weight / weight[rows].mean()), config)
    assert_alike(weighed.head, fit(features, twice, config).head)
    seen, data = made_up(views=2)
    flat = Resident(seen.tensor.flatten(0, 1)[:, None])
    path, leaf = data.target.path.repeat_interleave(2, dim=0), data.target.leaf.repeat_interleave(2)
    split = {name: torch.stack([2 * rows, 2 * rows + 1], dim=1).flatten() for name, rows in data.rows.items()}
    apart = replace(data, rows=split, target=Target(path, leaf))
    config = linear(data, epochs=1, l2=0.01)
    assert_alike(fit(seen, data, config).head, fit(flat, apart, config).head, 1e-5)


def test_rare_leaves_weigh_as_scikit_learn_weighs_them() -> None:
    features, data = made_up()
    (x, leaf), rows = exact(features, data), data.rows["train"].numpy()
    counts = np.bincount(leaf[rows])
    factors = 0.01 / (1 - 0.99**counts)
    weights = dict(enumerate(factors * LEAVES / factors.sum()))
    head = fit(features, data, linear(data, epochs=1, l2=0.01, class_balance=0.99)).head
    mean = np.array([weights[k] for k in leaf[rows]]).sum()
    oracle = LogisticRegression(C=1 / (0.01 * len(rows)), tol=1e-7, solver="newton-cg", class_weight=weights)
    expected = oracle.fit(x[rows], leaf[rows]).predict_proba(x)
    assert mean != pytest.approx(len(rows), rel=0.01)
    np.testing.assert_allclose(probabilities(head, features, torch.arange(240)), expected, atol=CLOSE)


def test_streamed_features_give_the_same_path(place: Path, cache: Cache) -> None:
    run = prepare_run(cache, quick(place, method="linear", epochs=3))
    with FeatureStore(place / "cache.h5") as store:
        streamed = fit(Streamed(store, CPU, 1), run.data, run.config)
    resident = fit(cache.features, run.data, run.config)
    assert streamed.best.epoch == resident.best.epoch
    for name, tensor in resident.head.state_dict().items():
        torch.testing.assert_close(streamed.head.state_dict()[name], tensor, atol=1e-5, rtol=1e-4)


class KilledError(Exception):
    """The process ends here."""


def test_a_killed_path_goes_on_and_ends_in_the_same_bits(tmp_path: Path) -> None:
    features, data = made_up()
    config = linear(data, inner_l2=[0, 2], refit="train+val")
    whole, checkpoint = fit(features, data, config), Checkpoint(tmp_path / "c", "key", 0)

    def kill(_: TrainConfig, epoch: Epoch) -> None:
        if epoch.number == 4:
            raise KilledError

    with pytest.raises(KilledError):
        fit(features, data, config, kill, checkpoint)
    numbers: list[int] = []
    again = fit(features, data, config, lambda _, epoch: numbers.append(epoch.number), checkpoint)
    assert [epoch.loss for epoch in again.epochs] == [epoch.loss for epoch in whole.epochs]
    assert numbers == [1, 2, 3, 4, 5]
    assert all(torch.equal(again.head.state_dict()[name], value) for name, value in whole.head.state_dict().items())


def test_features_that_are_no_numbers_end_the_run() -> None:
    features, data = made_up()
    features.tensor[data.rows["train"][0], 0, 0] = torch.nan
    message = "linear, seed 0: the loss is nan in epoch 1; are all features finite numbers?"
    with pytest.raises(DivergedError, match=re.escape(message)):
        fit(features, data, linear(data))


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        (
            "linear",
            {"batch_size": 64},
            "batch_size=64 with method linear: head linear is trained to the minimum of its loss, which takes "
            "inner_l2, l2, l2_last, refit; leave batch_size out",
        ),
        (
            "flat",
            {"l2": 0.1},
            "l2=0.1 with method flat: head flat is trained by Adam's epochs, which takes batch_size, learning_rate, "
            "schedule; leave l2 out",
        ),
        ("linear", {"precision": "bf16"}, "precision=bf16: head linear is trained in float32; leave precision out"),
        (
            "linear",
            {"weighting": "dwa"},
            "weighting=dwa with method linear: head linear has a single loss, so there is nothing to weigh; "
            "leave weighting out",
        ),
        (
            "linear",
            {"step": "stacked"},
            "step=stacked: not with head=linear; --set step=single trains one run after the other",
        ),
    ],
)
def test_what_does_not_apply_is_refused(
    method: str, changes: dict[str, object], message: str, place: Path, cache: Cache, tmp_path: Path
) -> None:
    config = resolve(TrainConfig, {"method": method, "hierarchy": str(place / "tree.csv"), **changes})
    with pytest.raises(ConfigError) as caught:
        train(cache, config, tmp_path)
    assert str(caught.value) == message


def lines(run: Path) -> Sequence[str]:
    return (run / "metrics.jsonl").read_text().splitlines()


def test_a_run_records_its_path(place: Path, cache: Cache, tmp_path: Path) -> None:
    run, _ = train(cache, quick(place, method="linear", epochs=3), tmp_path)
    assert [epoch.l2 for epoch in run.epochs] == pytest.approx([1, 0.01, 1e-4])
    assert all('"l2": ' in line and "learning_rate" not in line for line in lines(run.folder))
    assert (run.result.selected.metric, run.result.changed) == ("nll", {"epochs": 3})
    flat, _ = train(cache, quick(place, method="flat", epochs=2), tmp_path)
    assert all('"learning_rate": ' in line and "l2" not in line for line in lines(flat.folder))
