"""Labels and paths of the estimator's caller become a tree and leaves; messages are tested with the estimator."""

from pathlib import Path

import numpy as np
import pytest

from hfc.errors import HierarchyError
from hfc.hierarchy import load_hierarchy
from hfc.train.targets import as_table, given_tree, leaves, ordered, tree_of
from tests.support.made_up import write_tree_csv

PATHS = [["upper", "tops", "Tee"], ["lower", "long", "Jeans"], ["upper", "tops", "Tank"], ["lower", "long", "Jeans"]]


def test_a_table_keeps_the_types_of_its_cells() -> None:
    assert as_table("y", None) is None
    assert as_table("y", ["b", "a"]).tolist() == ["b", "a"]
    assert as_table("y", [[1, 2], [3, 4]]).dtype.kind == "i"
    assert as_table("y", [["a", 1], ["b", 2]]).tolist() == [["a", 1], ["b", 2]]
    lists = np.empty(2, dtype=np.object_)
    lists[:] = [["a", "x"], ["b", "y"]]
    assert as_table("y", lists).shape == (2, 2)


@pytest.mark.parametrize("paths", [PATHS, PATHS[::-1]])
def test_leaves_stand_in_the_order_of_the_classes(paths: list[list[str]]) -> None:
    classes = np.array(["Jeans", "Tank", "Tee"])
    hierarchy = ordered(tree_of("y", np.array(paths)), classes)
    assert hierarchy.leaves == ("Jeans", "Tank", "Tee")
    assert hierarchy.levels == ("level 1", "level 2", "level 3")
    parents = {path[2]: tuple(path) for path in paths}
    for row, leaf in zip(hierarchy.ancestors, hierarchy.leaves, strict=True):
        assert tuple(hierarchy.nodes[h][node] for h, node in enumerate(row)) == parents[leaf]


def test_the_leaf_of_a_row_is_its_place_among_the_classes() -> None:
    classes, paths = np.array(["Jeans", "Tee"]), np.array([PATHS[1], PATHS[0]])
    rows = [PATHS[0], PATHS[1], PATHS[0]]
    assert leaves(np.array(rows), classes, paths).tolist() == [classes.tolist().index(row[2]) for row in rows]
    labels = np.array([["Jeans"], ["Tee"], ["Jeans"]])
    assert leaves(labels, classes, paths).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([["Hat"]], "y does not fit the hierarchy: no leaf for 'Hat'; its leaves are 'Jeans', 'Tee'"),
        ([["upper", "Tee"]], "y: expected paths of 3 levels as in the hierarchy, found 2"),
        (
            [PATHS[0], ["lower", "tops", "Tee"]],
            "y: row 1: expected the path ['upper', 'tops', 'Tee'], found ['lower', 'tops', 'Tee']",
        ),
    ],
)
def test_rows_that_do_not_fit_the_tree_are_named(table: list[list[str]], message: str) -> None:
    with pytest.raises(HierarchyError) as caught:
        leaves(np.array(table), np.array(["Jeans", "Tee"]), np.array([PATHS[1], PATHS[0]]))
    assert str(caught.value) == message


def test_a_tree_is_the_same_however_it_is_given(tmp_path: Path) -> None:
    csv = write_tree_csv(tmp_path / "tree.csv")
    loaded = load_hierarchy(str(csv))
    mapping = {
        leaf: [loaded.nodes[h][node] for h, node in enumerate(row)]
        for leaf, row in zip(loaded.leaves, loaded.ancestors, strict=True)
    }
    expected = sorted(map(tuple, mapping.values()))
    for hierarchy in (csv, str(csv), loaded, mapping):
        assert sorted(map(tuple, given_tree(hierarchy).paths.tolist())) == expected
    assert given_tree(loaded).levels == ["kind", "group", "leaf"]
