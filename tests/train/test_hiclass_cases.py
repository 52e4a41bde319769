"""Cases of HiClass's own tests on uneven trees and inner labels, as facts about `HierarchicalClassifier`.

HiClass 5.0.8 (github.com/scikit-learn-contrib/hiclass, commit 6384239b29c6). Each test names the file of HiClass's
`tests`, and the cases in it, that its data and its outcome are from. What they say of HiClass's interface alone has no
place here.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hfc import metrics
from hfc.errors import HierarchyError
from hfc.train.estimator import HierarchicalClassifier
from hfc.train.heads.layers import Target
from hfc.train.targets import as_table, find
from tests.support.made_up import settled_on

Array = NDArray[Any]

SETTINGS = {"epochs": 40, "batch_size": 16, "reduced": 32, "width": 32, "dropout": 0.0, "learning_rate": 0.02}
METHODS = ["flat", "linear", "flat+hxe", "flat+soft-labels", "levels+path", "conditional", "hmcn-f", "hmcn-f-original"]


def fitted(X: Any, y: Any, method: str = "conditional", **changes: Any) -> HierarchicalClassifier:
    """A classifier that has learned its few rows by heart."""
    settings = settled_on(SETTINGS, method=method) | changes
    settings.pop("method")
    return HierarchicalClassifier(method, settings=settings, random_state=0, validation_fraction=None).fit(X, y)


def node_paths(model: HierarchicalClassifier) -> list[tuple[str, ...]]:
    """All nodes of its tree, each by the names on the way to it."""
    tree = model.hierarchy_
    paths = [tree.path(leaf) for leaf in range(len(tree.leaves))]
    return sorted({path[:depth] for path in paths for depth in range(1, len(path) + 1)})


@pytest.mark.parametrize("method", METHODS)
def test_empty_levels(method: str) -> None:
    """test_LocalClassifiers.py: test_empty_levels."""
    X = [[1], [2], [3]]
    y = np.empty(3, dtype=np.object_)
    y[:] = [["1"], ["2", "2.1"], ["3", "3.1", "3.1.2"]]
    model = fitted(X, y, method)
    assert model.predict(X).tolist() == [["1", "", ""], ["2", "2.1", ""], ["3", "3.1", "3.1.2"]]
    assert node_paths(model) == [("1",), ("2",), ("2", "2.1"), ("3",), ("3", "3.1"), ("3", "3.1", "3.1.2")]
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1)
    assert model.score(X, y) == 1


@pytest.mark.parametrize("method", ["flat", "conditional"])
def test_different_number_of_levels(method: str) -> None:
    """docs/examples/plot_empty_levels.py."""
    X = [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]]
    y = [["Bird"], ["Reptile", "Snake"], ["Reptile", "Lizard"], ["Mammal", "Cat"], ["Mammal", "Wolf", "Dog"]]
    model = fitted(X, y, method)
    assert model.predict(X[::-1]).tolist() == [[*path, *[""] * (3 - len(path))] for path in reversed(y)]


def test_make_leveled() -> None:
    """test_HierarchicalClassifier.py: test_make_leveled, test_make_leveled_non_iterable_y."""
    X = [[1], [2], [3]]
    model = fitted(X, [["a"], ["b", "c"], ["d", "e", "f"]])
    assert sorted(model.paths_.tolist()) == [["a", "", ""], ["b", "c", ""], ["d", "e", "f"]]
    labels = fitted(X, [1, 2, 3])
    assert labels.classes_.tolist() == [1, 2, 3]
    assert labels.predict(X).tolist() == [1, 2, 3]


@pytest.mark.parametrize("method", ["flat+hxe", "levels+path", "conditional"])
@pytest.mark.parametrize("y", [[["a", "b"], ["b", "c"]], [[1, 2], [2, 3]]], ids=["str", "int"])
def test_disambiguate_and_fit_predict(y: list[list[Any]], method: str) -> None:
    """A name on two levels is two nodes.

    test_HierarchicalClassifier.py: test_disambiguate_str, test_disambiguate_int; test_LocalClassifierPerNode.py,
    test_LocalClassifierPerLevel.py, test_LocalClassifierPerParentNode.py, test_FlatClassifier.py: test_fit_predict; the
    first three of these: test_fit_calibrate_predict_proba.
    """
    X = np.array([[1, 2], [3, 4]])
    model = fitted(X, y, method)
    assert model.predict(X).tolist() == y
    first, second = ([str(node) for node in path] for path in y)
    assert node_paths(model) == [(first[0],), (first[0], first[1]), (second[0],), (second[0], second[1])]
    shares = model.predict_proba(X)
    assert shares.shape == (2, 2)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-10)


def test_create_digraph() -> None:
    """The nodes are those of the paths, whatever the shape of y.

    test_HierarchicalClassifier.py: test_create_digraph_1d, test_create_digraph_1d_disguised_as_2d,
    test_create_digraph_2d, test_create_digraph_3d, test_convert_1d_y_to_2d.
    """
    X = [[1], [2], [3], [4]]
    with pytest.warns(UserWarning, match="column-vector"):
        column = fitted(X, [["a"], ["b"], ["c"], ["d"]])
    for model in (fitted(X, ["a", "b", "c", "d"]), column):
        assert node_paths(model) == [("a",), ("b",), ("c",), ("d",)]
        assert model.predict_path(X).tolist() == [["a"], ["b"], ["c"], ["d"]]
    model = fitted(X[:2], [["a", "b", "c"], ["d", "e", "f"]])
    assert node_paths(model) == [("a",), ("a", "b"), ("a", "b", "c"), ("d",), ("d", "e"), ("d", "e", "f")]
    with pytest.raises(ValueError, match="dim 3"):
        fitted(X[:3], np.arange(27).reshape(3, 3, 3))


def test_add_artificial_root_multiple_roots() -> None:
    """Roots are the nodes of the first level.

    test_HierarchicalClassifier.py: test_add_artificial_root_multiple_roots.
    """
    model = fitted([[1, 2], [3, 4], [5, 6]], [["a", "b"], ["c", "d"], ["e", "f"]])
    assert model.hierarchy_.nodes == (("a", "c", "e"), ("b", "d", "f"))


def test_assert_digraph_is_dag(tmp_path: Path) -> None:
    """test_HierarchicalClassifier.py: test_assert_digraph_is_dag."""
    edges = tmp_path / "edges.csv"
    edges.write_text("node,parent\nb,a\nc,b\na,c\n")
    with pytest.raises(HierarchyError, match="b lies below itself: b > c > a > b"):
        HierarchicalClassifier(hierarchy=edges).fit([[1], [2]], ["a", "b"])


def test_fit_1_class() -> None:
    """One class is nothing to train on, nor is one row: both are refused, where HiClass answers it always.

    test_LocalClassifiers.py: test_fit_1_class; test_ConstantClassifier.py: test_fit_1.
    """
    with pytest.raises(ValueError, match="minimum of 2 is required"):
        fitted([[1, 2]], [["1", "2"]])
    with pytest.raises(ValueError, match=r"^y: expected at least two classes, found \['2'\]$"):
        fitted([[1, 2]] * 2, [["1", "2"]] * 2)


def test_predict() -> None:
    """Answers are those of the rows that were learned.

    test_LocalClassifierPerNode.py, test_LocalClassifierPerLevel.py, test_LocalClassifierPerParentNode.py: test_predict,
    test_predict_proba.
    """
    X, y = [[1, 2], [3, 4], [5, 6], [7, 8]], [["1", "1.1"], ["1", "1.2"], ["2", "2.1"], ["2", "2.2"]]
    model = fitted(X, y)
    assert model.predict(X[::-1]).tolist() == y[::-1]
    shares = model.predict_proba(X[::-1])
    assert shares.shape == (4, 4)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-10)


def taught(model: HierarchicalClassifier, X: Any, y: list[list[str]], node: list[str]) -> list[int]:
    """What each row teaches a node of `conditional`: 1 that it is so, −1 that it is not, 0 nothing.

    It is the sign of the gradient of the row's losses at the bias of the node's output.
    """
    paths = find(model._tree, as_table("y", y))
    place = find(model._tree, as_table("y", [node, [*node, "", ""]]))[0]
    depth, number = len(node) - 1, int(place[len(node) - 1])
    path, leaf = torch.from_numpy(paths), torch.from_numpy(model.hierarchy_.leaf(paths))
    signs = []
    for row, features in enumerate(torch.tensor(X, dtype=torch.float64)):
        head: Any = model.head_.eval()
        losses = head.losses(head(features[None]), Target(path[row : row + 1], leaf[row : row + 1]))
        bias = next(value for name, value in head.outputs[depth].named_parameters() if name.endswith("bias"))
        (gradient,) = torch.autograd.grad(sum(loss.sum() for loss in losses.values()), bias, allow_unused=True)
        signs.append(0 if gradient is None else -int(np.sign(round(float(gradient[number]), 12))))
    return signs


POLICY_X = [[2 * row + 1, 2 * row + 2] for row in range(8)]
# HiClass gives the last two nodes of a path of three; here they are whole.
POLICY_Y = [
    ["1", "1.1"],
    ["1", "1.2"],
    ["2", "2.1"],
    ["2", "2.2"],
    ["2", "2.1", "2.1.1"],
    ["2", "2.1", "2.1.2"],
    ["2", "2.2", "2.2.1"],
    ["2", "2.2", "2.2.2"],
]


@pytest.mark.parametrize(
    ("node", "signs"),
    [
        (["1"], [1, 1, -1, -1, -1, -1, -1, -1]),
        (["2"], [-1, -1, 1, 1, 1, 1, 1, 1]),
        (["2", "2.1"], [0, 0, 1, -1, 1, 1, -1, -1]),
    ],
)
def test_siblings_policy_with_partial_labels(node: list[str], signs: list[int]) -> None:
    """Rows 2 and 3 have inner labels. Rows below a node teach it yes, those below its siblings no, others nothing.

    test_BinaryPolicy.py: test_inclusive_policy_positive_examples_labels_2d_1 to _3 (those of SiblingsPolicy too),
    test_siblings_policy_negative_examples_labels_2d_1 to _3.
    """
    model = fitted(POLICY_X, POLICY_Y, epochs=1)
    assert taught(model, POLICY_X, POLICY_Y, node) == signs


@pytest.mark.parametrize("method", METHODS)
def test_rows_with_partial_labels_are_answered_below_them(method: str) -> None:
    """test_BinaryPolicy.py: the fixture labels_2d, of which rows 2 and 3 end at inner nodes."""
    X = np.eye(8)
    model = fitted(X, POLICY_Y, method)
    for answer, path in zip(model.predict(X).tolist(), POLICY_Y, strict=True):
        assert answer[: len(path)] == path
    assert model.classes_.tolist() == ["1.1", "1.2", "2.1.1", "2.1.2", "2.2.1", "2.2.2"]
    assert model.score(X, POLICY_Y) == 1


def test_get_successors() -> None:
    """test_LocalClassifierPerParentNode.py: test_get_successors. An only child is certain and learns nothing."""
    X, y = [[1, 2, 3], [4, 5, 6], [7, 8, 9]], [["a", "b", "c"], ["a", "e", "f"], ["d", "g", "h"]]
    model = fitted(X, y, epochs=1)
    assert taught(model, X, y, ["a", "b"]) == [1, -1, 0]
    assert taught(model, X, y, ["a", "e"]) == [-1, 1, 0]
    for only in (["d", "g"], ["a", "b", "c"]):
        assert taught(model, X, y, only) == [0, 0, 0]


@pytest.mark.parametrize(
    ("order", "score"), [([1, 0, 2], 0.5), ([0, 1, 2], 1.0)], ids=["empty_levels_2d_list_1", "empty_levels_2d_list_2"]
)
def test_f1_of_empty_levels(order: list[int], score: float) -> None:
    """test_metrics.py: test_empty_levels_2d_list_1, test_empty_levels_2d_list_2."""
    y = [["1"], ["2", "3"], ["4", "5", "6"]]
    model = fitted([[1], [2], [3]], y, epochs=1)
    tree, leaf = model.hierarchy_, np.searchsorted(model.classes_, [path[-1] for path in y])
    final = np.eye(3)[leaf]  # certain of each row's leaf
    levels = [np.eye(size)[tree.ancestors[leaf, h].clip(0)] for h, size in enumerate(tree.sizes)]
    truth = leaf[order]
    numbers = metrics.evaluate(levels, final, tree.ancestors[truth], truth, tree=tree, topk=(1,))
    assert numbers["hF"] == pytest.approx(score)
