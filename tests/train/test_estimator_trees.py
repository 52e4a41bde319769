"""The scikit-learn face on uneven trees: paths of several lengths, and labels that are inner nodes."""

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score
from sklearn.model_selection import KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hfc.config import METHODS, TrainConfig
from hfc.errors import HierarchyError
from hfc.hierarchy import load_hierarchy
from hfc.train.data import TrainingData
from hfc.train.decoding import DECODINGS
from hfc.train.estimator import HierarchicalClassifier
from hfc.train.fit import fit
from tests.support.made_up import settled_on

Array = NDArray[Any]

QUICK = {"epochs": 8, "batch_size": 32, "reduced": 32, "width": 32, "dropout": 0.1, "learning_rate": 0.01}
PATHS = {
    "Hat": ("Hat",),
    "Tee": ("upper", "tops", "Tee"),
    "upper > tops > Other": ("upper", "tops", "Other"),
    "Coat": ("upper", "Coat"),
    "Jeans": ("lower", "Jeans"),
    "lower > Other": ("lower", "Other"),
}
INNER = {"upper": ("upper",), "tops": ("upper", "tops"), "lower": ("lower",)}


def clusters(rows: int = 120, seed: int = 0) -> tuple[Array, Array]:
    """Features and leaves: a noisy cluster for each of the six leaves."""
    rng = np.random.default_rng(seed)
    leaf = np.arange(rows) % len(PATHS)
    X = rng.normal(size=(len(PATHS), 8))[leaf] * 3 + rng.normal(size=(rows, 8))
    return X, np.array(list(PATHS))[leaf]


def filled(labels: Any, blank: Any = "") -> list[list[Any]]:
    """The path of each label, filled up to three nodes."""
    paths = [(PATHS | INNER)[label] for label in labels]
    return [[*path, *[blank] * (3 - len(path))] for path in paths]


def cut(y: Array, share: float = 0.5, seed: int = 1) -> Array:
    """Labels of which a share is cut back to an inner node above them, where there is one."""
    rng = np.random.default_rng(seed)
    above = {path: name for name, path in INNER.items()}
    cut_back = y.astype(object)
    for row in np.flatnonzero(rng.random(len(y)) < share):
        path = PATHS[y[row]]
        if len(path) > 1:
            cut_back[row] = above[path[: rng.integers(1, len(path))]]
    return cut_back.astype(str)


BRIEF = {"epochs": 1}  # enough where bits are compared


def model(method: str = "conditional", **changes: Any) -> HierarchicalClassifier:
    settings = settled_on(QUICK, method=method, **changes.pop("settings", {}))
    settings.pop("method")
    return HierarchicalClassifier(method, settings=settings, **({"hierarchy": PATHS, "random_state": 0} | changes))


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[TrainingData]:
    """What is trained on."""
    taken: list[TrainingData] = []

    def spy(features: Any, data: TrainingData, config: TrainConfig) -> Any:
        taken.append(data)
        return fit(features, data, config)

    monkeypatch.setattr("hfc.train.estimator.fit", spy)
    return taken


@pytest.mark.parametrize(
    ("method", "decode"), [*((m, "leaf") for m in METHODS), *(("hmcn-f+mtl", d) for d in DECODINGS if d != "leaf")]
)
def test_probabilities_labels_and_paths_agree(method: str, decode: str) -> None:
    X, y = clusters()
    fitted = model(method, settings={"decode": decode}).fit(X, cut(y, 0.3))
    assert fitted.classes_.tolist() == sorted(PATHS)
    assert fitted.paths_.tolist() == filled(sorted(PATHS))
    shares = fitted.predict_proba(X)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-12)
    answers = fitted.predict(X)
    assert (answers == fitted.classes_[shares.argmax(axis=1)]).all()
    assert fitted.predict_path(X).tolist() == filled(answers)
    assert (answers == y).mean() > 0.8
    assert fitted.score(X, y) == fitted.score(X, filled(y)) == accuracy_score(y, answers)


def test_labels_are_the_same_however_they_are_given(tmp_path: Path) -> None:
    X, y = clusters()
    labels = cut(y)
    expected = model(settings=BRIEF).fit(X, labels).predict_proba(X)
    csv = tmp_path / "tree.csv"
    rows = [",".join([*path[::-1], *[""] * (3 - len(path))]) for path in reversed(PATHS.values())]
    csv.write_text("\n".join(["leaf,group,kind", *rows, ""]))
    short = {"upper > tops > Other": "tops > Other", "lower > Other": "> lower > Other"}
    ragged: list[Any] = [list((PATHS | INNER)[label]) for label in labels]
    for hierarchy in (PATHS, csv, load_hierarchy(str(csv))):
        for given in (labels, [short.get(label, label) for label in labels], filled(labels), ragged):
            again = model(settings=BRIEF, hierarchy=hierarchy).fit(X, given)
            assert (again.predict_proba(X) == expected).all()
    blanks = [filled(labels, blank) for blank in (None, np.nan, "  ", pd.NA)]
    frames = [pd.DataFrame(paths, columns=["a", "b", "c"], dtype=object) for paths in blanks]
    for given in (filled(labels), ragged, *blanks, *frames):
        again = model(settings=BRIEF, hierarchy=None).fit(X, given)  # learned from the paths themselves
        assert (again.predict_proba(X) == expected).all()
        assert again.predict(X).tolist() == filled(again.classes_[again.predict_proba(X).argmax(axis=1)])


def test_numbers_are_labels_at_any_depth() -> None:
    X, y = clusters()
    number = {"Hat": (7,), "Tee": (1, 11, 111), "upper > tops > Other": (1, 11, 112), "Coat": (1, 12)}
    number |= {"Jeans": (2, 21), "lower > Other": (2, 22)}
    ragged = [list(number[label]) for label in y]
    ragged[1] = [1, 11]
    from_paths = model(hierarchy=None).fit(X, ragged)
    assert from_paths.classes_.tolist() == [7, 12, 21, 22, 111, 112]
    assert from_paths.predict(X[:1]).tolist() == [[7, "", ""]]
    labels = np.array([path[-1] for path in ragged])
    with_tree = model(hierarchy={path[-1]: path for path in number.values()}).fit(X, labels)
    assert (with_tree.predict_proba(X) == from_paths.predict_proba(X)).all()
    assert with_tree.predict(X).dtype == labels.dtype
    missing = pd.DataFrame([[*path, *[np.nan] * (3 - len(path))] for path in ragged])  # of floats, as NaN is one
    assert model(hierarchy=None).fit(X, missing).predict(X[:1]).tolist() == [[7.0, "", ""]]


def test_an_inner_label_is_right_where_the_answer_lies_below_it() -> None:
    X, y = clusters()
    fitted = model().fit(X, y)
    truth = cut(y)
    truth[:20] = np.roll(y, 1)[:20]
    truth[20] = "Gloves"  # which the tree lacks
    answers = [PATHS[answer] for answer in fitted.predict(X)]
    right = []
    for label, answer in zip(truth, answers, strict=True):
        path = (PATHS | INNER).get(label, ("Gloves",))
        right.append(answer[: len(path)] == path)
    weight = np.random.default_rng(2).random(len(y))
    assert 0.5 < np.mean(right) < 1
    assert fitted.score(X, truth) == np.mean(right)
    assert fitted.score(X, truth, weight) == pytest.approx(np.average(right, weights=weight))
    paths = [[*(PATHS | INNER).get(label, ("Gloves",))] for label in truth]
    assert fitted.score(X, paths) == np.mean(right)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        fitted.score(X[1:], truth)
    with pytest.raises(HierarchyError, match="'Other' at several places"):
        fitted.score(X[:1], ["Other"])


def test_paths_of_several_lengths_are_cross_validated() -> None:
    X, y = clusters()
    paths = filled(cut(y))
    scores = cross_val_score(model(hierarchy=None), X, paths, cv=KFold(3))
    assert scores.min() > 0.7
    assert (cross_val_score(model(hierarchy=None), X, paths, cv=3) == scores).all()
    ragged = [[node for node in path if node] for path in paths]
    assert (cross_val_score(model(hierarchy=None), X, ragged, cv=KFold(3)) == scores).all()
    pipeline = make_pipeline(StandardScaler(), model(hierarchy=None)).fit(X, ragged)
    assert pipeline.score(X, ragged) > 0.7


def test_only_rows_of_leaves_pick_the_epoch(seen: list[TrainingData]) -> None:
    X, y = clusters(240)
    labels = cut(y)
    fitted = model(settings=BRIEF, validation_fraction=0.25).fit(X, labels)
    data = seen[0]
    train, val = data.rows["train"].numpy(), data.rows["val"].numpy()
    is_leaf = np.isin(labels, list(PATHS))
    assert len(val) == round(0.25 * is_leaf.sum())
    assert is_leaf[val].all()
    assert sorted([*train, *val]) == list(range(240))
    assert (data.target.leaf.numpy() == np.where(is_leaf, np.searchsorted(fitted.classes_, labels), -1)).all()
    assert [fitted.hierarchy_.names(path) for path in data.target.path.tolist()] == [(PATHS | INNER)[x] for x in labels]
    kept = {leaf: int((labels == leaf).sum()) for leaf in PATHS}
    assert [int((labels[val] == leaf).sum()) for leaf in PATHS] == pytest.approx([n / 4 for n in kept.values()], abs=1)


def test_rows_of_a_group_that_is_held_out_are_not_trained_on(seen: list[TrainingData]) -> None:
    X, y = clusters(240)
    product = np.arange(240) // 24 * 6 + np.arange(240) % 6  # four rows each, of one leaf
    labels = cut(y)
    model(settings=BRIEF, validation_fraction=0.25).fit(X, labels, groups=product)
    train, val = seen[0].rows["train"].numpy(), seen[0].rows["val"].numpy()
    is_leaf = np.isin(labels, list(PATHS))
    assert is_leaf[val].all()
    assert not set(product[train]) & set(product[val])
    dropped = np.setdiff1d(np.arange(240), [*train, *val])
    assert len(dropped)
    assert not is_leaf[dropped].any()
    assert set(product[dropped]) <= set(product[val])


@pytest.mark.parametrize("method", ["flat", "levels+path"])
def test_inner_labels_may_be_left_out(method: str, seen: list[TrainingData]) -> None:
    X, y = clusters(240)
    labels = cut(y)
    is_leaf = np.isin(labels, list(PATHS))
    left_out = model(method, settings=BRIEF | {"inner_labels": "leave-out"}).fit(X, labels)
    assert is_leaf[torch.cat([seen[0].rows[split] for split in ("train", "val")]).numpy()].all()
    used = model(method, settings=BRIEF).fit(X, labels)
    assert (left_out.predict_proba(X) != used.predict_proba(X)).any()
    without = model(method, settings=BRIEF).fit(X[is_leaf], labels[is_leaf])
    assert (left_out.predict_proba(X) == without.predict_proba(X)).all()
    with pytest.raises(
        ValueError, match=r"^y: expected at least two rows whose label is a leaf, found 1; use the inner"
    ):
        model(settings=BRIEF | {"inner_labels": "leave-out"}).fit(X[:3], ["Tee", "tops", "upper"])


def test_rows_of_inner_labels_alone_train_what_they_know() -> None:
    X, y = clusters()
    kind = np.array([(INNER.keys() & {PATHS[leaf][0]} or {"Hat"}).pop() for leaf in y])
    inner = kind != "Hat"
    fitted = model().fit(X[inner], kind[inner])
    assert fitted.score(X[inner], kind[inner]) > 0.9
    assert fitted.epoch_ == 8  # nothing could pick another


@pytest.mark.parametrize("method", ["flat", "levels+path", "conditional", "hmcn-f"])
def test_inner_labels_teach_what_no_leaf_does(method: str) -> None:
    X, y = clusters()
    coats = y == "Coat"
    labels = np.where(coats, "upper", y)  # no row says which garment it is
    use, leave_out = (
        model(method, settings={"inner_labels": choice}).fit(X, labels).score(X[coats], labels[coats])
        for choice in ("use", "leave-out")
    )
    assert use == 1 > leave_out


def test_weights_count_for_inner_labels_too() -> None:
    X, y = clusters()
    labels = cut(y)
    is_leaf = np.isin(labels, list(PATHS))
    plain = model(settings=BRIEF).fit(X, labels).predict_proba(X)
    assert (model(settings=BRIEF).fit(X, labels, np.full(120, 3.0)).predict_proba(X) == plain).all()
    assert (model(settings=BRIEF).fit(X, labels, np.where(is_leaf, 1.0, 0.1)).predict_proba(X) != plain).any()
    zero = model(settings=BRIEF).fit(X, labels, is_leaf.astype(float)).predict_proba(X)
    assert (zero == model(settings=BRIEF).fit(X[is_leaf], labels[is_leaf]).predict_proba(X)).all()


@pytest.mark.parametrize(
    ("hierarchy", "y", "answers"),
    [
        ({"a": ["a"], "b": ["b"]}, ["a", "b"], [["a"], ["b"]]),  # one level
        ({"a": ["p", "q", "a"], "b": ["b"]}, ["a", "b"], [["p", "q", "a"], ["b", "", ""]]),  # only children
        ({"a": ["p", "a"], "b": ["p", "b"]}, ["a", "b"], [["p", "a"], ["p", "b"]]),  # one node above all
        ({"a": ["p", "a"], "b": ["b"], "c": ["p", "c"], "d": ["d", "e", "d"]}, ["a", "b"], None),  # leaves y lacks
    ],
    ids=["one level", "only children", "one root", "leaves that y lacks"],
)
@pytest.mark.parametrize("method", ["flat+hxe", "levels+path", "conditional", "hmcn-f"])
def test_odd_trees_train(hierarchy: dict[str, list[str]], y: list[str], answers: Any, method: str) -> None:
    X = np.eye(2).repeat(10, axis=0)
    fitted = model(method, hierarchy=hierarchy, settings={"epochs": 30}).fit(X, np.repeat(y, 10))
    assert fitted.classes_.tolist() == sorted(hierarchy)
    assert fitted.predict(X[::10]).tolist() == y
    assert answers is None or fitted.predict_path(X[::10]).tolist() == answers
    np.testing.assert_allclose(fitted.predict_proba(X).sum(axis=1), 1, rtol=1e-12)


def test_a_pickled_model_answers_and_scores_alike() -> None:
    X, y = clusters()
    labels = cut(y)
    fitted = model().fit(X, filled(labels))
    restored = pickle.loads(pickle.dumps(fitted))
    assert restored.predict(X).tolist() == fitted.predict(X).tolist()
    assert restored.score(X, filled(labels)) == fitted.score(X, filled(labels))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (
            ["Tee", "Other"],
            "y: the hierarchy has 'Other' at several places; give its path: lower > Other, upper > tops > Other",
        ),
        (
            ["Tee", "Tie"],
            "y does not fit the hierarchy: no node for 'Tie'; its leaves are 'Coat', 'Hat', 'Jeans', 'Tee', "
            "'lower > Other' and 1 more",
        ),
        ([["tops"], ["upper", "tops"]], "y: row 0: expected the path ['upper', 'tops'], found ['tops']"),
        ([["Hat"], ["upper", ""]], None),
        (["Tee", None], "y: row 1: no label; leave the row out"),
    ],
)
def test_labels_that_are_no_node_are_refused(y: Any, message: str | None) -> None:
    X = clusters()[0][:2]
    if message is None:
        model().fit(X, y)
        return
    with pytest.raises(HierarchyError, match=f"^{re.escape(message)}$"):
        model().fit(X, y)
