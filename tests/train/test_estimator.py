"""The scikit-learn face: scikit-learn's own checks, and facts about trees and probabilities."""

import contextlib
import io
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from hfc.config import METHODS, TrainConfig, resolve
from hfc.errors import ConfigError, HierarchyError
from hfc.hierarchy import load_hierarchy
from hfc.runs import Selected
from hfc.train.data import TrainingData
from hfc.train.decoding import DECODINGS
from hfc.train.draws import hold_out
from hfc.train.estimator import HierarchicalClassifier
from hfc.train.evaluation import predict
from hfc.train.features import Features, Resident, signs
from hfc.train.fit import fit
from hfc.train.heads.layers import Target
from hfc.train.settling import settle
from hfc.train.training import Training
from tests.support.made_up import settled_on, write_tree_csv

SMALL = {"epochs": 20, "batch_size": 32, "reduced": 32, "width": 32, "dropout": 0.2}
QUICK = SMALL | {"epochs": 5}
NARROW = {name: value for name, value in SMALL.items() if name != "width"}
PATHS = {
    "Tee": ("upper", "tops", "Tee"),
    "Tank": ("upper", "tops", "Tank"),
    "Coat": ("upper", "outer", "Coat"),
    "Jeans": ("lower", "long", "Jeans"),
    "Chinos": ("lower", "long", "Chinos"),
    "Shorts": ("lower", "short", "Shorts"),
}
Array = NDArray[Any]


def not_met(estimator: HierarchicalClassifier) -> dict[str, str]:
    """The checks of scikit-learn that batches in random order cannot meet."""
    reason = "a row repeated k times falls into other batches, where dropout and batch normalisation differ, than one"
    return {"check_sample_weight_equivalence_on_dense_data": f"{reason} of weight k"}


@parametrize_with_checks(
    [
        HierarchicalClassifier(settings=NARROW),
        HierarchicalClassifier("conditional", settings=NARROW | {"decode": "least-cost"}),
    ],
    expected_failed_checks=not_met,
)
def test_scikit_learns_own_checks(estimator, check, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")  # or scikit-learn skips its check of other libraries' arrays
    check(estimator)


def clusters(rows: int = 120, seed: int = 0) -> tuple[Array, Array]:
    """Features and leaf names: a noisy cluster for each of the six leaves."""
    rng = np.random.default_rng(seed)
    leaf = np.arange(rows) % len(PATHS)
    X = rng.normal(size=(len(PATHS), 8))[leaf] * 3 + rng.normal(size=(rows, 8))
    return X, np.array(list(PATHS))[leaf]


def paths_of(y: Array) -> Array:
    return np.array([PATHS[leaf] for leaf in y])


def model(method: str = "hmcn-f+mtl", *, settings: Mapping[str, Any] = QUICK, **changes: Any) -> HierarchicalClassifier:
    taken = settled_on(QUICK, method=method) if settings is QUICK else settings
    given = {name: value for name, value in taken.items() if name != "method"}
    return HierarchicalClassifier(method, settings=given, **({"hierarchy": PATHS, "random_state": 0} | changes))


@pytest.mark.parametrize(
    ("method", "decode"), [*((m, "leaf") for m in METHODS), *(("hmcn-f+mtl", d) for d in DECODINGS if d != "leaf")]
)
def test_probabilities_labels_and_paths_agree(method: str, decode: str) -> None:
    X, y = clusters()
    fitted = model(method, settings=settled_on(SMALL, method=method, decode=decode)).fit(X, y)
    shares = fitted.predict_proba(X)
    assert shares.shape == (120, 6)
    assert (shares >= 0).all()
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-12)
    assert fitted.classes_.tolist() == sorted(PATHS)
    assert (fitted.predict(X) == fitted.classes_[shares.argmax(axis=1)]).all()
    assert (fitted.predict_path(X) == paths_of(fitted.predict(X))).all()
    assert (fitted.predict(X) == y).mean() > 0.8
    assert fitted.score(X, y) == fitted.score(X, paths_of(y)) == (fitted.predict(X) == y).mean()


def test_a_hierarchy_is_the_same_tree_however_it_is_given(tmp_path: Path) -> None:
    X, y = clusters()
    csv = write_tree_csv(tmp_path / "tree.csv")
    from_mapping = model().fit(X, y)
    shuffled = dict(reversed(PATHS.items()))
    for hierarchy in (csv, str(csv), load_hierarchy(str(csv)), shuffled):
        assert (model(hierarchy=hierarchy).fit(X, y).predict_proba(X) == from_mapping.predict_proba(X)).all()
    for given in (None, PATHS):
        from_paths = model(hierarchy=given).fit(X, paths_of(y))
        assert (from_paths.predict_proba(X) == from_mapping.predict_proba(X)).all()
        assert (from_paths.predict(X) == paths_of(from_mapping.predict(X))).all()
        assert from_paths.score(X, paths_of(y)) == from_mapping.score(X, y)


@pytest.mark.parametrize("method", ["levels+path", "hmcn-f"])
def test_the_order_of_a_mapping_changes_no_bit(method: str) -> None:
    X, y = clusters()
    expected = model(method).fit(X, y)
    for seed in range(2):
        order = np.random.default_rng(seed).permutation(len(PATHS))
        shuffled = {list(PATHS)[i]: list(PATHS.values())[i] for i in order}
        again = model(method, hierarchy=shuffled).fit(X, y)
        assert (again.predict_proba(X) == expected.predict_proba(X)).all()
        assert again.hierarchy_.digest == expected.hierarchy_.digest
        assert again.paths_.tolist() == expected.paths_.tolist()


def test_the_square_root_is_chosen_by_the_rows_trained_on() -> None:
    X, y = clusters()
    for features, wanted in ((X, "none"), (np.abs(X), "sqrt")):
        chosen = model(settings=QUICK).fit(features, y)
        given = model(settings=QUICK | {"transform": wanted}).fit(features, y)
        assert chosen.config_ == given.config_
        assert given.config_.transform == wanted
        assert np.array_equal(chosen.predict_proba(features), given.predict_proba(features))


@pytest.mark.parametrize("transform", ["sqrt", "l2"])
def test_a_transform_is_that_of_the_features_beforehand(transform: str) -> None:
    X, y = clusters()
    X = X.astype(np.float32)
    lengths = np.linalg.norm(X, axis=1, keepdims=True)
    changed = np.sign(X) * np.sqrt(np.abs(X)) if transform == "sqrt" else X / lengths
    plain = NARROW | {"precision": "fp32", "epochs": 5, "learning_rate": 0.01, "transform": "none"}
    inside = HierarchicalClassifier("flat", settings=plain | {"transform": transform}, random_state=0).fit(X, y)
    before = HierarchicalClassifier("flat", settings=plain, random_state=0).fit(changed, y)
    np.testing.assert_allclose(inside.predict_proba(X), before.predict_proba(changed), atol=1e-3)
    raw = HierarchicalClassifier("flat", settings=plain, random_state=0).fit(X, y)
    assert np.abs(raw.predict_proba(X) - inside.predict_proba(X)).max() > 0.03


def test_a_shipped_hierarchy_answers_over_all_its_leaves() -> None:
    X, y = clusters()
    y = np.where(np.isin(y, ["Tee", "Jeans"]), y, "Tank")
    fitted = model(hierarchy="deepfashion-5", settings=SMALL).fit(X, y)
    assert fitted.classes_.tolist() == sorted(load_hierarchy("deepfashion-5").leaves)
    assert set(fitted.predict(X)) <= {"Tee", "Jeans", "Tank"}
    assert fitted.predict_path(X[y == "Jeans"][:1]).tolist() == [["trousers", "Jeans"]]


def test_without_a_hierarchy_labels_are_one_level() -> None:
    X, y = clusters()
    numbers = np.searchsorted(sorted(PATHS), y) * 10
    fitted = model("flat", hierarchy=None).fit(X, numbers)
    assert fitted.hierarchy_.levels == ("level 1",)
    assert (fitted.classes_ == np.arange(6) * 10).all()
    assert fitted.predict(X).dtype == numbers.dtype
    assert (fitted.predict_path(X) == fitted.predict(X)[:, None]).all()
    named = model("flat", hierarchy=None).fit(X, y)
    assert (named.predict_proba(X) == fitted.predict_proba(X)).all()


def test_labels_need_not_be_text() -> None:
    X, y = clusters()
    numbers = np.searchsorted(sorted(PATHS), y)
    tree = {i: (PATHS[leaf][0], i) for i, leaf in enumerate(sorted(PATHS))}
    fitted = model(hierarchy=tree, settings=SMALL).fit(X, numbers)
    assert fitted.predict_path(X[numbers == 0][:1]).tolist() == [["lower", 0]]
    mixed = [[PATHS[leaf][0], sorted(PATHS).index(leaf)] for leaf in y]
    from_paths = model(hierarchy=None, settings=SMALL).fit(X, mixed)
    assert (from_paths.predict_path(X) == fitted.predict_path(X)).all()
    assert from_paths.classes_.tolist() == [0, 1, 2, 3, 4, 5]
    paths = np.stack([numbers // 2, numbers], axis=1)
    assert fitted.set_params(hierarchy=None).fit(X, paths).predict(X).dtype == paths.dtype
    assert fitted.score(X, paths) > 0.8


def test_it_trains_as_the_training_loop_does() -> None:
    X, y = clusters()
    fitted = model(validation_fraction=None).fit(X, y)
    leaf = torch.from_numpy(np.searchsorted(fitted.classes_, y))
    rows = {"train": torch.arange(120), "val": torch.arange(0), "test": torch.arange(120)}
    tree = fitted.hierarchy_
    features = Resident(torch.from_numpy(X).float()[:, None])
    target = Target(torch.from_numpy(tree.ancestors)[leaf], leaf)
    data = TrainingData(tree, rows, target, signs(features, rows["train"]), {})
    config = resolve(TrainConfig, {"method": fitted.method}, QUICK, {"seed": fitted.config_.seed})
    config = settle(config, data, features.device)
    direct = fit(features, data, config)
    assert direct.best == Selected(epoch=5, metric="top1", val={})
    final = predict(direct.head, features, rows["test"], config.beta).final
    np.testing.assert_allclose(fitted.predict_proba(X), final / final.sum(dim=1, keepdim=True), atol=1e-5)


def test_every_class_is_trained_on_and_gives_its_share_to_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Features, TrainingData]] = []

    def spy(features: Features, data: TrainingData, config: TrainConfig) -> Any:
        seen.append((features, data))
        return fit(features, data, config)

    monkeypatch.setattr("hfc.train.estimator.fit", spy)
    X, y = clusters(121)
    y[-1] = "Tee"
    y[y == "Coat"] = "Tank"
    y[2] = "Coat"  # seen once
    fitted = model(validation_fraction=0.25).fit(X, y)
    features, data = seen[0]
    train, val = data.rows["train"].numpy(), data.rows["val"].numpy()
    assert sorted([*train, *val]) == list(range(121))
    assert len(val) == 30
    assert set(y[train]) == set(PATHS)
    assert [int((y[val] == leaf).sum()) for leaf in ("Coat", "Jeans")] == [0, 5]
    assert np.array_equal(torch.cat(list(features.blocks(torch.arange(121))))[:, 0].numpy(), X.astype(np.float32))
    assert (fitted.classes_[data.target.leaf] == y).all()
    # Fewer rows than classes would be held out: none are, and the last epoch is taken.
    few = model(validation_fraction=0.1).fit(X[:12], clusters()[1][:12])
    assert len(seen[1][1].rows["val"]) == 0
    assert few.epoch_ == 5


def test_rows_of_a_group_are_all_trained_on_or_all_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[TrainingData] = []

    def spy(features: Features, data: TrainingData, config: TrainConfig) -> Any:
        seen.append(data)
        return fit(features, data, config)

    monkeypatch.setattr("hfc.train.estimator.fit", spy)
    X, y = clusters(240)
    rows = np.arange(240)
    views = rows // 6 % 10 * 6 + rows % 6  # four views of each of 60 products, one label each
    for groups in (views, views.tolist(), pd.Series(views), [f"product {i}" for i in views]):
        model(validation_fraction=0.25).fit(X, y, groups=groups)
        train, val = seen[-1].rows["train"].numpy(), seen[-1].rows["val"].numpy()
        assert not set(views[train]) & set(views[val])
        assert sorted([*train, *val]) == list(range(240))
        assert [int((y[val] == leaf).sum()) for leaf in PATHS] == pytest.approx([10] * 6, abs=4)
        assert len(val) == pytest.approx(60, abs=4)
    without = np.where(views < 6, views, np.nan)  # most rows are groups by themselves
    for blank in (without, [None if v != v else v for v in without], ["" if v != v else str(v) for v in without]):
        model(validation_fraction=0.25).fit(X, y, groups=blank)
        train, val = seen[-1].rows["train"].numpy(), seen[-1].rows["val"].numpy()
        assert len(val) == pytest.approx(60, abs=2)
        assert not set(views[train][views[train] < 6]) & set(views[val])
    model(validation_fraction=0.25).fit(X, y, groups=[None] * 240)
    alone = seen[-1].rows["val"]
    model(validation_fraction=0.25).fit(X, y)
    assert torch.equal(alone, seen[-1].rows["val"])
    weights = np.where(rows % 2, 1.0, 0.0)
    model(validation_fraction=0.25).fit(X, y, sample_weight=weights, groups=views)
    train, val = (views[rows % 2 == 1][seen[-1].rows[split].numpy()] for split in ("train", "val"))
    assert len(val)
    assert not set(train) & set(val)
    model(validation_fraction=0.25).fit(X, y, groups=np.zeros(240))  # nothing can be held out
    assert len(seen[-1].rows["val"]) == 0


@pytest.mark.parametrize("groups", [[1, 2], [], np.zeros((120, 2)), 7])
def test_groups_that_are_not_one_a_row_are_refused(groups: Any) -> None:
    with pytest.raises(
        ValueError,
        match=re.escape(
            "groups: expected a group for each of the 120 rows of X, found the shape " + str(np.asarray(groups).shape)
        ),
    ):
        model().fit(*clusters(), groups=groups)


def test_groups_reach_it_through_pipelines_and_cross_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[list[str]] = []

    def spy(leaf: Array, group: Array, share: float, rng: Any) -> Any:
        taken.append(group.tolist())
        return hold_out(leaf, group, share, rng)

    monkeypatch.setattr("hfc.train.estimator.hold_out", spy)
    X, y = clusters(240)
    groups = np.arange(240) // 12
    with config_context(enable_metadata_routing=True):
        asking = make_pipeline(StandardScaler(), model("flat").set_fit_request(groups=True))
        scores = cross_val_score(asking, X, y, cv=GroupKFold(3), params={"groups": groups})
        assert len(scores) == len(taken) == 3
        assert [len(set(group)) for group in taken] == pytest.approx([20 * 2 / 3] * 3, abs=1)
        taken.clear()
        cross_val_score(model("flat").set_fit_request(groups=False), X, y, cv=GroupKFold(3), params={"groups": groups})
        assert all(len(set(group)) == len(group) for group in taken)
    taken.clear()
    cross_val_score(model("flat"), X, y, cv=GroupKFold(3), groups=groups)  # without routing they reach the folds alone
    assert all(len(set(group)) == len(group) for group in taken)


def test_tiny_data_train() -> None:
    X, y = clusters()
    for rows in (2, 3, 6, 7):
        for share in (None, 0.1, 0.5, 0.99):
            fitted = model(validation_fraction=share).fit(X[:rows], y[:rows])
            assert fitted.predict(X[:rows]).shape == (rows,)
    same = model(validation_fraction=0.5).fit(X[[0, 6]], y[[0, 6]])  # one leaf of the tree, twice
    assert same.predict(X[[0, 6]]).tolist() == ["Tee", "Tee"]


def test_a_seed_repeats_a_fit_and_torchs_own_generator_stays() -> None:
    X, y = clusters()
    before = torch.random.get_rng_state()
    first, again, other = (model(random_state=seed).fit(X, y).predict_proba(X) for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert (first == again).all()
    assert (first != other).any()
    states = [np.random.RandomState(1), np.random.RandomState(1)]
    drawn = [model(random_state=state).fit(X, y).predict_proba(X) for state in states]
    assert (drawn[0] == first).all()
    assert (drawn[1] == first).all()


@pytest.mark.parametrize("method", METHODS)
def test_pickled_and_cloned_models_answer_alike(method: str) -> None:
    X, y = clusters()
    fitted = model(method).fit(X, y)
    restored = pickle.loads(pickle.dumps(fitted))
    assert (restored.predict_proba(X) == fitted.predict_proba(X)).all()
    assert (restored.predict_path(X) == fitted.predict_path(X)).all()
    assert {tensor.device.type for tensor in restored.head_.state_dict().values()} == {"cpu"}
    assert (clone(fitted).fit(X, y).predict_proba(X) == fitted.predict_proba(X)).all()


def test_it_works_in_a_pipeline_and_a_search() -> None:
    X, y = clusters()
    pipeline = make_pipeline(StandardScaler(), model("flat"))
    grid = {
        "hierarchicalclassifier__method": ["flat", "levels"],
        "hierarchicalclassifier__settings": [NARROW, NARROW | {"epochs": 1, "learning_rate": 1e-6}],
    }
    search = GridSearchCV(pipeline, grid, cv=3).fit(X, y)
    assert search.best_params_["hierarchicalclassifier__settings"] == NARROW
    assert search.best_score_ > 0.8
    assert not np.isnan(search.cv_results_["mean_test_score"]).any()
    assert cross_val_score(pipeline, X, y, cv=3, scoring="neg_log_loss").max() < 0
    assert cross_val_score(model(hierarchy=None, settings=SMALL), X, paths_of(y), cv=3).min() > 0.8


def test_data_frames_and_numpy_settings_are_taken() -> None:
    X, y = clusters()
    frame = pd.DataFrame(X, columns=[f"f{i}" for i in range(8)])
    paths = pd.DataFrame(paths_of(y), columns=["kind", "group", "leaf"])
    fitted = model(hierarchy=None, settings=QUICK | {"dropout": np.float64(0.2)}).fit(frame, paths)
    assert (fitted.predict_proba(frame) == model().fit(X, y).predict_proba(X)).all()
    assert fitted.feature_names_in_.tolist() == frame.columns.tolist()


def refusal(kind: type[Exception], y: object, X: object = None, **changes: Any) -> str:
    with pytest.raises(kind) as caught:
        model(**changes).fit(clusters()[0][: len(y)] if X is None else X, y)  # type: ignore[arg-type]
    return str(caught.value)


def test_labels_that_do_not_fit_the_hierarchy_are_refused() -> None:
    known = "its leaves are 'Chinos', 'Coat', 'Jeans', 'Shorts', 'Tank' and 1 more"
    message = f"y does not fit the hierarchy: no node for 'Hat', 'Tie'; {known}"
    assert refusal(HierarchyError, ["Tie", "Tee", "Hat"]) == message
    assert refusal(HierarchyError, [["upper", "long", "Tee"], PATHS["Coat"]]) == (
        "y: row 0: expected the path ['upper', 'tops', 'Tee'], found ['upper', 'long', 'Tee']"
    )
    message = "y: row 0: expected the path ['upper', 'tops', 'Tee'], found ['upper', 'Tee']"
    assert refusal(HierarchyError, [["upper", "Tee"], ["upper", "Coat"]]) == message


def test_mappings_that_are_no_tree_are_refused() -> None:
    message = "hierarchy: 'Tee': expected its path, coarse to fine and ending in 'Tee', found "
    assert refusal(HierarchyError, ["Tee", "Tee"], hierarchy={"Tee": "tops"}) == message + "'tops'"
    assert refusal(HierarchyError, ["Tee", "Tee"], hierarchy={"Tee": ["tops"]}) == message + "['tops']"
    gap = {"Tee": ["tops", None, "Tee"], "Hat": ["Hat"]}
    message = "hierarchy: row 0: only the end of a path may be blank, found ['tops', None, 'Tee']"
    assert refusal(HierarchyError, ["Tee", "Hat"], hierarchy=gap) == message
    one = {"Tee": ["tops", "Tee"]}
    expected = "expected at least two classes, found"
    assert refusal(ValueError, ["Tee", "Tee"], hierarchy=one) == f"hierarchy: {expected} ['Tee']"
    assert refusal(ValueError, ["Tee", "Tee"], hierarchy={}) == f"hierarchy: {expected} []"
    assert refusal(ValueError, ["a", "a"], hierarchy=None) == f"y: {expected} ['a']"
    assert refusal(ValueError, [["g", "a"]] * 2, hierarchy=None) == f"y: {expected} ['a']"
    assert refusal(ValueError, [[0.5, 1.5], [0.5, 2.5]], hierarchy=None).startswith("Unknown label type: continuous")


def test_settings_that_do_not_fit_are_refused() -> None:
    y = clusters()[1]
    assert refusal(ConfigError, y, settings={"seed": 1}) == (
        "settings: seed does not go here; it is the argument random_state"
    )
    assert refusal(ConfigError, y, settings={"epoch": 1}) == "unknown setting 'epoch'; did you mean epochs?"
    assert refusal(ConfigError, y, method="flatt") == "unknown method 'flatt'; did you mean flat?"
    message = "top-9 of 6 classes does not exist; give --set topk=1"
    assert refusal(ConfigError, y, settings={"topk": [1, 9]}) == message
    assert refusal(ConfigError, y, validation_fraction=1.0) == (
        "validation_fraction: expected None or a share from 0 to below 1, found 1.0"
    )


def weights(rows: int = 120) -> Array:
    return np.random.default_rng(3).uniform(0.5, 4, rows)


@pytest.mark.parametrize("method", ["hmcn-f+mtl", "flat", "conditional"])
def test_rows_of_weight_0_are_as_good_as_not_there(method: str) -> None:
    X, y = clusters()
    weight = weights() * (np.arange(120) % 5 > 0)
    there = weight > 0
    all_rows = model(method).fit(X, y, sample_weight=weight)
    some_rows = model(method).fit(X[there], y[there], sample_weight=weight[there])
    assert (all_rows.predict_proba(X) == some_rows.predict_proba(X)).all()
    assert (all_rows.predict_proba(X) != model(method).fit(X, y).predict_proba(X)).any()


def test_only_the_relation_of_weights_counts() -> None:
    X, y = clusters()
    plain = model().fit(X, y).predict_proba(X)
    for weight in (np.ones(120), [0.1] * 120, pd.Series(np.full(120, 1e300)), 7):
        assert (model().fit(X, y, sample_weight=weight).predict_proba(X) == plain).all()
    weight = weights()
    weighted = model().fit(X, y, sample_weight=weight).predict_proba(X)
    assert (weighted != plain).any()
    np.testing.assert_array_equal(model().fit(X, y, sample_weight=weight * 4).predict_proba(X), weighted)


@pytest.mark.parametrize("more", [{}, {"class_balance": 0.9}], ids=str)
def test_a_weight_multiplies_its_rows_loss(more: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = clusters()
    seen: list[Any] = []
    trained = Training._pass

    def spy(self: Training) -> dict[str, float]:
        seen.append(self)
        return trained(self)

    monkeypatch.setattr(Training, "_pass", spy)
    weight = weights()
    model("flat", settings=NARROW | {"epochs": 1, "dropout": 0.0, "precision": "fp32"} | more).fit(
        X, y, sample_weight=weight
    )
    training = seen[0]
    train = training.data.rows["train"].numpy()
    relative = weight / weight[train].mean()
    rows = torch.from_numpy(train[:8])
    features, target = training.features.tensor[rows, 0], training.data.batch(rows)
    training.head.float().eval()
    found = training._losses(features, target, training.data.weight[rows])["global"].item()
    # The same by hand, from the log-probabilities of each row.
    logs = training.head(features).leaf.log_softmax(dim=1).detach().double().numpy()
    leaf = target.leaf.numpy()
    balance = np.ones(6) if training.class_weight is None else training.class_weight.numpy()
    want = (-relative[train[:8]] * balance[leaf] * logs[np.arange(8), leaf]).mean()
    assert found == pytest.approx(want, rel=1e-4)


def test_a_length_may_be_left_to_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hfc.train.settling.fitting_epochs", lambda rows: rows // 20)
    X, y = clusters()
    given = NARROW | {"batch_size": 64}
    left, fixed = (
        model("flat", settings=given | {"epochs": epochs}, validation_fraction=None).fit(X, y) for epochs in (0, 6)
    )
    assert (left.config_, left.epoch_) == (fixed.config_, 6)
    assert (left.predict_proba(X) == fixed.predict_proba(X)).all()


def test_heavy_rows_win_where_labels_contradict_each_other() -> None:
    X, _ = clusters()
    X = np.concatenate([X, X])
    y = np.array(["a"] * 120 + ["b"] * 120)
    for heavy, weight in (("a", [9.0] * 120 + [1.0] * 120), ("b", [1.0] * 120 + [9.0] * 120)):
        settings = NARROW | {"learning_rate": 0.01}
        fitted = model("flat", hierarchy=None, settings=settings, validation_fraction=None).fit(X, y, weight)
        assert (fitted.predict(X) == heavy).mean() > 0.9
        assert fitted.predict_proba(X)[:, "ab".index(heavy)].mean() == pytest.approx(0.9, abs=0.07)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([-1.0] + [1.0] * 119, "sample_weight: expected no negative weight, found -1.0 in row 0"),
        ([1.0] + [0.0] * 119, "sample_weight: expected at least two weights that are not zero, found 1"),
        ([0.0] * 120, "(?i)sample.weight.*zero"),
        ([np.nan] + [1.0] * 119, "Input sample_weight contains NaN."),
        ([np.inf] + [1.0] * 119, "Input sample_weight contains infinity"),
        ([1.0] * 119, r"sample_weight.shape == \(119,\), expected \(120,\)!"),
        (np.ones((120, 2)), "Sample weights must be 1D array or scalar"),
    ],
)
def test_weights_that_are_none_are_refused(weight: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model().fit(*clusters(), sample_weight=weight)


def test_weights_reach_the_classifier_through_a_pipeline() -> None:
    X, y = clusters()
    weight = weights()
    pipeline = make_pipeline(StandardScaler(), model("flat")).fit(X, y, hierarchicalclassifier__sample_weight=weight)
    scaled = StandardScaler().fit_transform(X)
    assert (pipeline.predict_proba(X) == model("flat").fit(scaled, y, weight).predict_proba(scaled)).all()


def test_the_examples_of_its_page_run() -> None:
    text = (Path(__file__).parents[2] / "notebooks" / "python.md").read_text("utf-8")
    blocks = [block for block in re.findall(r"```python\n(.*?)```", text, re.S) if "HierarchicalClassifier" in block]
    plain, uneven, grouped = (io.StringIO() for _ in blocks)
    scope: dict[str, Any] = {}
    for block, printed, names in zip(blocks, (plain, uneven, grouped), (scope, {}, {}), strict=True):
        with contextlib.redirect_stdout(printed):
            exec(block, names)
    assert plain.getvalue().startswith("[['trousers' 'Jeans']] [[")
    promised = [line.split("  # ")[1].split(": ")[0] for line in blocks[1].splitlines() if line.startswith("print(")]
    assert uneven.getvalue().splitlines() == promised
    assert [float(accuracy) > 0.9 for accuracy in grouped.getvalue().strip("[]\n ").split()] == [True] * 4
    assert scope["model"].classes_.tolist() == ["Jeans", "Tank", "Tee"]
    assert scope["model"].score(scope["X"], scope["y"]) > 0.9
