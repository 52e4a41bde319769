"""Labels and paths of the estimator's caller become a tree and its nodes."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hfc.errors import HierarchyError
from hfc.hierarchy import load_hierarchy
from hfc.train.targets import Tree, as_table, find, given_tree, refuse_unknown, tree_of
from tests.support.made_up import write_tree_csv

Paths = list[tuple[Any, ...]]
EVEN: Paths = [
    ("upper", "tops", "Tee"),
    ("lower", "long", "Jeans"),
    ("upper", "tops", "Tank"),
    ("lower", "long", "Jeans"),
]
UNEVEN: Paths = [("Hat",), ("tops", "Tee"), ("tops", "Other"), ("shoes", "flat", "Other"), ("tops",), ("shoes", "flat")]


def filled(paths: Paths) -> list[list[Any]]:
    """Paths of one length, with None below their ends."""
    longest = max(map(len, paths))
    return [[*path, *[None] * (longest - len(path))] for path in paths]


def tree(paths: Paths) -> Tree:
    return tree_of("y", as_table("y", filled(paths)))


def nodes_by_hand(paths: Paths, rows: Paths, classes: list[Any]) -> list[list[int]]:
    """The path of indices to each row's node, counted along the leaves in the order of the classes."""
    below = {path for path in paths if not any(other[: len(path)] == path != other for other in paths)}
    named = {path: path[-1] if [p[-1] for p in below].count(path[-1]) == 1 else " > ".join(path) for path in below}
    order = sorted(below, key=lambda path: classes.index(named[path]))
    depth = max(map(len, below))
    on = [list(dict.fromkeys(path[:h] for path in order if len(path) >= h)) for h in range(1, depth + 1)]
    return [[on[h].index(row[: h + 1]) if h < len(row) else -1 for h in range(depth)] for row in rows]


def test_a_table_keeps_the_types_of_its_cells() -> None:
    assert as_table("y", None) is None
    assert as_table("y", ["b", "a"]).tolist() == ["b", "a"]
    assert as_table("y", [[1, 2], [3, 4]]).dtype.kind == "i"
    assert as_table("y", [["a", 1], ["b", 2]]).tolist() == [["a", 1], ["b", 2]]
    lists = np.empty(2, dtype=np.object_)
    lists[:] = [["a", "x"], ["b", "y"]]
    assert as_table("y", lists).shape == (2, 2)


@pytest.mark.parametrize("blank", ["", "  ", None, np.nan, pd.NA], ids=str)
def test_paths_may_end_in_blanks_or_be_lists_of_several_lengths(blank: object) -> None:
    y = [["a", "x", "1"], ["b", blank, blank], ["a", "x", blank]]
    want = [["a", "x", "1"], ["b", "", ""], ["a", "x", ""]]
    for given in (y, np.array(y, dtype=np.object_), pd.DataFrame(y, dtype=object)):
        table = as_table("y", given)
        assert table.tolist() == want
        assert table.dtype.kind == "U"
    ragged: list[Any] = [["a", "x", "1"], ("b",), np.array(["a", "x"])]
    objects = np.empty(3, dtype=np.object_)
    objects[:] = ragged
    of_one_type = np.empty(3, dtype=np.object_)
    of_one_type[:] = [np.array(list(path)) for path in ragged]
    for given in (ragged, objects, of_one_type, pd.Series(ragged)):
        assert as_table("y", given).tolist() == want


def test_numbers_may_be_filled_up_too() -> None:
    assert as_table("y", [[1, 2], [3]]).tolist() == [[1, 2], [3, ""]]
    assert as_table("y", np.array([[1, 2], [3, np.nan]])).tolist() == [[1.0, 2.0], [3.0, ""]]
    assert as_table("y", np.array([[1.0, 2.0], [3.0, 4.0]])).dtype.kind == "f"
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        as_table("y", np.array([[1.5, 2.5], [3.5, np.nan]]))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([["a", "x"], ["", "y"]], "y: row 1: only the end of a path may be blank, found ['', 'y']"),
        ([["a", None, "x"]] * 2, "y: row 0: only the end of a path may be blank, found ['a', None, 'x']"),
        ([["a", "x"], [None, ""]], "y: row 1: no label; leave the row out"),
        ([["a", "x"], []], "y: row 1: no label; leave the row out"),
        (["a", ""], "y: row 1: no label; leave the row out"),
        ([np.nan, "a"], "y: row 0: no label; leave the row out"),
        ([["a", "x"], "b"], "y: row 1: expected a path as in the other rows, found 'b'"),
        ([["a", "x"], 7], "y: row 1: expected a path as in the other rows, found 7"),
        ([[["a"], ["b", "x"]], [["c"]]], "y: row 0: expected one path, coarse to fine, found [['a'], ['b', 'x']]"),
        ([["a", "x"], ["b", ["x"]]], "y: row 1: expected one path, coarse to fine, found ['b', ['x']]"),
    ],
)
def test_blanks_elsewhere_are_refused(y: Any, message: str) -> None:
    with pytest.raises(HierarchyError, match=f"^{re.escape(message)}$"):
        as_table("y", y)


@pytest.mark.parametrize("paths", [EVEN, EVEN[::-1]])
def test_leaves_stand_in_the_order_of_the_classes(paths: Paths) -> None:
    hierarchy, classes, in_order = tree(paths)
    assert classes.tolist() == list(hierarchy.leaves) == ["Jeans", "Tank", "Tee"]
    assert hierarchy.levels == ("level 1", "level 2", "level 3")
    assert [hierarchy.path(leaf) for leaf in range(3)] == [tuple(path) for path in in_order.tolist()]
    assert sorted(map(tuple, in_order.tolist())) == sorted(set(paths))


@pytest.mark.parametrize("seed", range(3))
def test_a_path_that_begins_another_is_an_inner_nodes(seed: int) -> None:
    paths = [UNEVEN[i] for i in np.random.default_rng(seed).permutation(len(UNEVEN))]
    hierarchy, classes, in_order = tree(paths)
    assert classes.tolist() == ["Hat", "Tee", "shoes > flat > Other", "tops > Other"]
    assert in_order.tolist() == [
        ["Hat", "", ""],
        ["tops", "Tee", ""],
        ["shoes", "flat", "Other"],
        ["tops", "Other", ""],
    ]
    assert hierarchy.leaves == tuple(classes.tolist())
    assert hierarchy.sizes == (3, 3, 1)
    table = as_table("y", filled(paths))
    assert find(tree(paths), table).tolist() == nodes_by_hand(paths, paths, classes.tolist())


def test_a_label_is_a_leafs_or_an_inner_nodes_or_a_paths_text() -> None:
    made = tree(UNEVEN)
    labels = [
        "Hat",
        "Tee",
        "tops",
        "shoes",
        "flat",
        "tops > Other",
        "flat > Other",
        "shoes>flat",
        " Tee ",
        "no",
        "no > Tee",
    ]
    rows: Paths = [
        *UNEVEN[:2],
        ("tops",),
        ("shoes",),
        ("shoes", "flat"),
        UNEVEN[2],
        UNEVEN[3],
        ("shoes", "flat"),
        UNEVEN[1],
    ]
    got = find(made, np.array(labels)[:, None])
    assert got[:-2].tolist() == nodes_by_hand(UNEVEN, rows, made.classes.tolist())
    assert (got[-2:] == -1).all()
    with pytest.raises(HierarchyError) as caught:
        find(made, np.array([["Other"]]))
    assert str(caught.value) == (
        "y: the hierarchy has 'Other' at several places; give its path: shoes > flat > Other, tops > Other"
    )


def test_a_leafs_name_is_none_of_an_inner_node() -> None:
    made = tree([("a", "b"), ("b", "c"), ("d", "b", "e")])
    got = find(made, np.array([["b"], ["a > b"], ["> b"], ["d > b"]]))
    paths: Paths = [("a", "b"), ("a", "b"), ("b",), ("d", "b")]
    assert got.tolist() == find(made, as_table("y", [*filled(paths), ["d", "b", "e"]]))[:4].tolist()
    numbers = tree([(1, 2), (2, 3)])
    assert find(numbers, np.array([[2], [1]])).tolist() == find(numbers, as_table("y", [[1, 2], [1, None]])).tolist()


def test_a_name_that_is_repeated_on_the_way_down_is_one_node() -> None:
    made = tree([("tops", "tops", "Tee"), ("tops", "tops", "Tank"), ("Hat", "Hat", "Hat")])
    assert (
        find(made, np.array([["tops"], ["Hat"]])).tolist()
        == find(made, np.array([EVEN[0][1:2] * 2 + ("",), ("Hat",) * 3])).tolist()
    )


def test_labels_keep_their_types() -> None:
    numbers: Paths = [(1, 10), (1, 20), (2, 10), (3,), (1,)]
    made = tree(numbers)
    assert made.classes.tolist() == ["1 > 10", "2 > 10", 20, 3]  # as of several types: by their text
    assert made.paths.tolist() == [[1, 10], [2, 10], [1, 20], [3, ""]]
    labels = np.empty((5, 1), dtype=np.object_)
    labels[:, 0] = [20, 3.0, 1, "1 > 10", "20"]
    rows: Paths = [(1, 20), (3,), (1,), (1, 10)]
    assert find(made, labels).tolist() == [*find(made, as_table("y", filled([*rows, (1, 10)])))[:4].tolist(), [-1, -1]]
    with pytest.raises(HierarchyError, match=r"^y: expected labels that differ as text, found \(1,\), \('1',\)$"):
        tree_of("y", np.array([[1], ["1"]], dtype=np.object_))


def test_other_spellings_of_text_are_the_same_node(tmp_path: Path) -> None:
    csv = tmp_path / "tree.csv"
    csv.write_text("leaf,group\nCaf\u00e9,Bar\nHat,\n", "utf-8")
    made = given_tree(csv)
    assert find(made, np.array([["Cafe\u0301"]])).tolist() == find(made, np.array([["Caf\u00e9"]])).tolist()
    assert find(made, np.array([["Bar", "Cafe\u0301"]])).tolist() == find(made, np.array([["Caf\u00e9"]])).tolist()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            [["Jeans"], ["Hat"], ["Cap"]],
            "y does not fit the hierarchy: no node for 'Cap', 'Hat'; its leaves are 'Jeans', 'Tank', 'Tee'",
        ),
        (
            [["upper", "Hat"]],
            "y does not fit the hierarchy: no node for 'Hat'; its leaves are 'Jeans', 'Tank', 'Tee'",
        ),
        ([["upper", "Tee"]], "y: row 0: expected the path ['upper', 'tops', 'Tee'], found ['upper', 'Tee']"),
        (
            [EVEN[0], ["lower", "tops", "Tee"]],
            "y: row 1: expected the path ['upper', 'tops', 'Tee'], found ['lower', 'tops', 'Tee']",
        ),
    ],
)
def test_rows_that_do_not_fit_the_tree_are_named(table: list[list[str]], message: str) -> None:
    made, rows = tree(EVEN), np.array(table)
    with pytest.raises(HierarchyError) as caught:
        refuse_unknown(made, rows, find(made, rows))
    assert str(caught.value) == message
    refuse_unknown(made, rows[:0], find(made, rows[:0]))


def test_a_path_that_may_be_several_is_told_of_them() -> None:
    made, rows = tree(UNEVEN), np.array([["shoes", "Other"]])
    with pytest.raises(HierarchyError) as caught:
        refuse_unknown(made, rows, find(made, rows))
    assert str(caught.value) == (
        "y: row 0: expected a path, such as ['shoes', 'flat', 'Other'], ['tops', 'Other'], found ['shoes', 'Other']"
    )


def test_a_tree_is_the_same_however_it_is_given(tmp_path: Path) -> None:
    csv = write_tree_csv(tmp_path / "tree.csv")
    loaded = load_hierarchy(str(csv))
    mapping = {leaf: loaded.path(number) for number, leaf in enumerate(loaded.leaves)}
    expected = sorted(mapping.values())
    for hierarchy in (csv, str(csv), loaded, mapping):
        assert sorted(map(tuple, given_tree(hierarchy).paths.tolist())) == expected
    assert given_tree(loaded).hierarchy.levels == ("kind", "group", "leaf")


def test_an_uneven_tree_is_the_same_however_it_is_given(tmp_path: Path) -> None:
    csv = tmp_path / "tree.csv"
    csv.write_text("leaf,group,kind\nHat,,\nTee,tops,\nOther,tops,\nOther,flat,shoes\n")
    mapping = {
        "Hat": ["Hat"],
        "Tee": ("tops", "Tee", None),
        "tops > Other": ["tops", "Other", ""],
        "shoes > flat > Other": ["shoes", "flat", "Other"],
    }
    expected = tree(UNEVEN)
    for hierarchy in (csv, load_hierarchy(str(csv)), mapping):
        made = given_tree(hierarchy)
        assert made.classes.tolist() == expected.classes.tolist()
        assert made.paths.tolist() == expected.paths.tolist()
        assert made.hierarchy.ancestors.tolist() == expected.hierarchy.ancestors.tolist()


def test_a_mapping_may_name_inner_nodes_too() -> None:
    made = given_tree({"tops": ["tops"], "Tee": ["tops", "Tee"], "Hat": ["Hat"], "Tank": ["tops", "Tank"]})
    assert made.classes.tolist() == ["Hat", "Tank", "Tee"]
    assert made.paths.tolist() == [["Hat", ""], ["tops", "Tank"], ["tops", "Tee"]]


def test_a_name_that_is_repeated_down_to_the_last_level_is_a_path_like_others() -> None:
    made = tree([("a", "x"), ("b", "b")])
    assert made.classes.tolist() == ["b", "x"]
    assert made.paths.tolist() == [["b", "b"], ["a", "x"]]
