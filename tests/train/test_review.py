"""Every labelled row judged by a head that never saw it, nor its group."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hfc.config import TrainConfig, resolve
from hfc.errors import ConfigError, HfcError, HierarchyError, RunError
from hfc.store import FeatureStore, HeldOut
from hfc.train import review
from hfc.train.data import TrainingData
from hfc.train.features import Features
from hfc.train.groups import fit_group
from hfc.train.review import held_out
from hfc.train.training import Fitted
from tests.support.made_up import write_cache, write_tree_csv

LEAVES = ("Tee", "Tank", "Coat", "Jeans", "Chinos", "Shorts")
QUICK = {"method": "flat", "epochs": 3, "batch_size": 32, "reduced": 16, "dropout": 0.2, "learning_rate": 0.01}


def settings(place: Path, **changes: object) -> TrainConfig:
    return resolve(TrainConfig, {"hierarchy": str(place / "tree.csv"), **QUICK, **changes})


def cache_of(place: Path, labels: Sequence[str], **changes: Any) -> Path:
    """A cache and its tree; every third row is in test, and every fifth in no split."""
    write_tree_csv(place / "tree.csv")
    splits = ["" if row % 5 == 0 else ("train", "val", "test")[row % 3] for row in range(len(labels))]
    return write_cache(place / "c.h5", labels, splits, **changes)


def give_features(monkeypatch: pytest.MonkeyPatch, features: NDArray[np.float32]) -> None:
    """Every cache has these features, (N, D)."""
    monkeypatch.setattr(FeatureStore, "features", lambda store: features[:, None])


@pytest.fixture
def folds(monkeypatch: pytest.MonkeyPatch) -> list[tuple[TrainingData, Fitted]]:
    """What is trained on, and the heads that come of it."""
    trained: list[tuple[TrainingData, Fitted]] = []

    def spy(features: Features, data: TrainingData, configs: Sequence[TrainConfig]) -> list[Fitted]:
        fits = fit_group(features, data, configs)
        trained.append((data, fits[0]))
        return fits

    monkeypatch.setattr(review, "fit_group", spy)
    return trained


def test_each_labelled_row_is_judged_once_by_a_head_that_saw_nothing_of_its_group(
    tmp_path: Path, folds: list[tuple[TrainingData, Fitted]]
) -> None:
    labels = [*LEAVES * 30, "", ""]
    group = [f"product {row // 2}" if row < 60 else "" for row in range(182)]
    held = held_out(cache_of(tmp_path, labels, failed=[7], groups=group), settings(tmp_path), 4)
    labelled = [row for row in range(180) if row != 7]
    judged = []
    for data, _ in folds:
        parts = [set(data.rows[name].tolist()) for name in ("train", "val", "test")]
        assert sorted(row for part in parts for row in part) == labelled
        assert (all(parts[::2]), parts[1]) == (True, set())
        groups = [{group[row] or row for row in part} for part in parts]
        assert len(set().union(*groups)) == sum(map(len, groups))
        counts = Counter(labels[row] for row in parts[2])
        assert max(counts.values()) - min(counts.values()) <= 4  # stratified: 7.5 of a label, in groups of two
        judged += sorted(parts[2])
    assert len(folds) == 4
    assert sorted(judged) == labelled
    assert held.predictions.id.tolist() == [f"{row:05d}.jpg" for row in labelled]
    assert [held.hierarchy.leaves[leaf] for leaf in held.predictions.target] == [labels[row] for row in labelled]
    assert (held.lone.tolist(), held.folds, held.settings["epochs"]) == ([], 4, 3)


def test_probabilities_are_those_of_the_heads_as_shares(
    tmp_path: Path, folds: list[tuple[TrainingData, Fitted]]
) -> None:
    cache = cache_of(tmp_path, LEAVES * 20)
    held = held_out(cache, settings(tmp_path, method="hmcn-f", width=16), 3)
    with FeatureStore(cache) as store:
        features = torch.from_numpy(store.features()[:, 0]).float()
    np.testing.assert_allclose(held.predictions.final.sum(axis=1), 1, rtol=1e-5)
    for data, fitted in folds:
        rows = data.rows["test"]
        with torch.no_grad():
            final = fitted.head.eval().predict(fitted.head(features[rows]), TrainConfig.beta).final.double().numpy()
        assert abs(final.sum(axis=1) - 1).max() > 0.01  # sigmoids: no shares yet
        np.testing.assert_allclose(held.predictions.final[rows], final / final.sum(axis=1, keepdims=True), rtol=1e-4)


def accuracy(held: HeldOut) -> float:
    return float((held.predictions.final.argmax(axis=1) == held.predictions.target).mean())


def test_a_head_that_learns_by_heart_has_not_seen_the_row_it_judges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folds: list[tuple[TrainingData, Fitted]]
) -> None:
    rng = np.random.default_rng(0)
    labels = [LEAVES[leaf] for leaf in rng.integers(6, size=240)]
    features = rng.normal(size=(240, 256)).astype(np.float32)  # each row's own, and labels that mean nothing
    give_features(monkeypatch, features)
    config = settings(tmp_path, epochs=12, reduced=256, dropout=0.0)
    held = held_out(cache_of(tmp_path, labels, dim=256), config, 4)
    for data, fitted in folds:
        rows = data.rows["train"]
        with torch.no_grad():
            final = fitted.head.eval().predict(fitted.head(torch.from_numpy(features[rows])), 1.0).final
        assert float((final.argmax(1) == data.target.leaf[rows]).float().mean()) > 0.8
    assert accuracy(held) < 0.3  # chance is 1 in 6; its standard deviation is 0.024


def test_rows_of_a_group_do_not_give_each_other_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    labels = [LEAVES[leaf] for leaf in np.repeat(rng.integers(6, size=80), 3)]
    features = np.repeat(rng.normal(size=(80, 64)), 3, axis=0) + 0.01 * rng.normal(size=(240, 64))
    give_features(monkeypatch, features.astype(np.float32))
    cache, config = cache_of(tmp_path, labels, dim=64), settings(tmp_path, epochs=12, reduced=128, dropout=0.0)
    assert accuracy(held_out(cache, config, 4)) > 0.6  # its pictures are of one product
    grouped = cache_of(tmp_path, labels, dim=64, groups=[f"product {row // 3}" for row in range(240)])
    assert accuracy(held_out(grouped, config, 4)) < 0.35


def test_a_row_whose_label_no_other_fold_has_is_not_judged(tmp_path: Path) -> None:
    labels = ["Tee", "Tank"] * 20 + ["Coat", "Jeans", "Jeans", "Chinos", "Chinos"]
    groups = [""] * 43 + ["one product"] * 2
    held = held_out(cache_of(tmp_path, labels, groups=groups), settings(tmp_path), 4)
    assert held.lone.tolist() == ["00040.jpg", "00043.jpg", "00044.jpg"]
    assert held.predictions.id.tolist() == [f"{row:05d}.jpg" for row in (*range(40), 41, 42)]


@pytest.mark.parametrize("inner_labels", ["use", "leave-out"])
def test_rows_with_an_inner_label_train_unless_they_are_left_out_and_are_not_judged(
    inner_labels: str, tmp_path: Path, folds: list[tuple[TrainingData, Fitted]]
) -> None:
    labels = [*LEAVES * 20, *["tops", "lower > long"] * 20]
    group = [f"product {row % 40}" if row % 3 else "" for row in range(160)]
    cache = cache_of(tmp_path, labels, failed=[125], groups=group)
    held = held_out(cache, settings(tmp_path, inner_labels=inner_labels), 4)
    inner = {row for row in range(120, 160) if row != 125}
    assert (held.inner, held.lone.tolist()) == (39, [])
    assert held.predictions.id.tolist() == [f"{row:05d}.jpg" for row in range(120)]
    times: Counter[int] = Counter()
    for data, _ in folds:
        train, test = (set(data.rows[name].tolist()) for name in ("train", "test"))
        assert test <= set(range(120))
        assert not {group[row] or str(row) for row in train} & {group[row] or str(row) for row in test}
        times.update(train & inner)
    assert times == (dict.fromkeys(inner, 3) if inner_labels == "use" else {})


def test_a_leaf_that_inner_labels_alone_train_is_not_judged(tmp_path: Path) -> None:
    labels = [*["Tee", "Coat"] * 15, "Tank", *["tops"] * 12]
    held = held_out(cache_of(tmp_path, labels), settings(tmp_path), 3)
    assert (held.lone.tolist(), held.inner, len(held.predictions.id)) == (["00030.jpg"], 12, 30)


@pytest.mark.parametrize("changes", [{}, {"method": "levels+path"}, {"method": "hmcn-f", "width": 16}])
def test_labels_of_an_uneven_tree_are_judged_as_well(changes: dict[str, object], tmp_path: Path) -> None:
    labels = [*["Hat", "Tee", "Tank", "Jeans"] * 25, *["tops"] * 8]
    cache = cache_of(tmp_path, labels)
    (tmp_path / "tree.csv").write_text("leaf,group,kind\nHat,,\nTee,tops,upper\nTank,tops,upper\nJeans,lower,\n")
    held = held_out(cache, settings(tmp_path, epochs=10, **changes), 3)
    assert (held.inner, accuracy(held) > 0.9) == (8, True)


def test_no_row_picks_the_epoch(tmp_path: Path, folds: list[tuple[TrainingData, Fitted]]) -> None:
    held_out(cache_of(tmp_path, LEAVES * 20), settings(tmp_path), 3)
    assert [(len(data.rows["val"]), fitted.best.epoch) for data, fitted in folds] == [(0, 3)] * 3


def test_the_same_seed_gives_the_same_numbers(tmp_path: Path) -> None:
    cache = cache_of(tmp_path, LEAVES * 20)
    one, again, other = (held_out(cache, settings(tmp_path, seed=n), 3).predictions.final for n in (0, 0, 1))
    assert (one == again).all()
    assert (one != other).any()


def test_streamed_features_are_judged_as_well(tmp_path: Path) -> None:
    cache, config = cache_of(tmp_path, LEAVES * 40), settings(tmp_path, epochs=8)
    streamed = held_out(cache, config, 3, stream=True)
    assert streamed.predictions.id.tolist() == held_out(cache, config, 3).predictions.id.tolist()
    assert accuracy(streamed) > 0.9


@pytest.mark.slow
def test_processes_share_the_folds(tmp_path: Path) -> None:
    cache, config = cache_of(tmp_path, LEAVES * 20), settings(tmp_path)
    alone, shared = (held_out(cache, config, 3, jobs=jobs).predictions for jobs in (1, 2))
    assert alone.id.tolist() == shared.id.tolist()
    np.testing.assert_allclose(shared.final, alone.final, rtol=1e-4)


CASES: dict[str, tuple[Sequence[str], int, dict[str, object], type[HfcError], str]] = {
    "no labels": ([""] * 20, 5, {}, RunError, "a review needs rows of two labels with features, found that none has"),
    "one label": (
        ["Tee"] * 20,
        5,
        {},
        RunError,
        r"c\.h5: a review needs rows of two labels with features, found that all 20 have Tee",
    ),
    "inner labels": (
        ["tops"] * 9 + ["Tee"] * 3,
        5,
        {},
        RunError,
        "found that all 3 have Tee; 9 rows have an inner node, and are not judged",
    ),
    "few rows": (["Tee", "Tank"], 5, {}, RunError, r"c\.h5: 5 folds need as many rows .*, found 2; give fewer --folds"),
    "one fold": (LEAVES * 4, 1, {}, ConfigError, "folds: expected two or more, found 1"),
    "another tree": (
        ["Tee", "Tank", "Hat"] * 9,
        3,
        {},
        HierarchyError,
        "hierarchy tree does not fit .*: it has no node for Hat",
    ),
    "no tree": (LEAVES * 4, 3, {"hierarchy": ""}, HierarchyError, "name a hierarchy"),
    "scores": (LEAVES * 4, 3, {"decode": "least-cost"}, ConfigError, "decode=least-cost: gives scores and no prob"),
    "no epoch to pick": (LEAVES * 4, 3, {"select": "hF"}, ConfigError, "select=hF: a review takes the last epoch"),
    "one view": (LEAVES * 4, 3, {"views": "first"}, ConfigError, "views=first: .* holds one view of every crop"),
    "one label to train on": (
        ["Tee"] * 8 + ["Tank"],
        2,
        {},
        RunError,
        "--folds 2: one fold leaves one label to train on; label more rows",
    ),
}


def test_where_no_label_is_in_two_folds_nothing_can_be_judged(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"c\.h5: no label has rows in two folds, so no row can be judged"):
        held_out(cache_of(tmp_path, LEAVES[:3]), settings(tmp_path), 3)


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_judged_is_an_error_before_the_first_training(
    case: str, tmp_path: Path, folds: list[tuple[TrainingData, Fitted]]
) -> None:
    labels, count, changes, kind, message = CASES[case]
    with pytest.raises(kind, match=message):
        held_out(cache_of(tmp_path, labels), settings(tmp_path, **changes), count)
    assert folds == []
