"""Category trees."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from hfc.errors import HierarchyError
from hfc.hierarchy import lca_height, load_hierarchy, parse_hierarchy
from tests.support.deepfashion_tree import categories
from tests.support.trees import trees


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trees")


@pytest.mark.parametrize(("name", "groups"), [("deepfashion-5", 5), ("deepfashion-10", 10)])
def test_shipped_trees_have_the_benchmarks_leaves(name: str, groups: int) -> None:
    tree = load_hierarchy(name)
    assert tree.leaves == tuple(sorted(category for category, _ in categories()))
    assert (tree.name, tree.levels, tree.sizes) == (name, ("group", "category"), (groups, 50))


def test_a_csv_of_three_levels_reads_from_leaf_to_coarsest(tmp_path: Path) -> None:
    path = tmp_path / "tree.csv"
    path.write_text("\ufeffarticle,sub,master\nTee,Tops,Apparel\nJeans,Bottoms,Apparel\nRing,Tops2,Tee\n\n")
    tree = load_hierarchy(str(path))
    assert tree.name == "tree"
    assert tree.levels == ("master", "sub", "article")
    # "Tee" is a leaf and a coarsest node: two nodes.
    assert tree.nodes == (("Apparel", "Tee"), ("Bottoms", "Tops2", "Tops"), ("Jeans", "Ring", "Tee"))
    assert tree.ancestors.tolist() == [[0, 0, 0], [1, 1, 1], [0, 2, 2]]
    levels = tree.ancestors.T
    assert lca_height(levels[:, :, None], levels[:, None], tree.falls.T[:, :, None]).tolist() == [
        [0, 3, 2],
        [3, 0, 3],
        [2, 3, 0],
    ]
    assert tree.index(["Ring", "Tee"], "labels").tolist() == [1, 2]


def test_lines_end_at_newlines_alone(tmp_path: Path) -> None:
    names = [f"a{odd}b" for odd in "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e"]
    for end in ("\n", "\r\n"):
        (tmp_path / "tree.csv").write_text(end.join(["leaf,group", *(f"{name},g" for name in names)]), newline="")
        assert load_hierarchy(str(tmp_path / "tree.csv")).leaves == tuple(sorted(names))


@given(tree=trees(), data=st.data())
def test_the_order_of_rows_changes_nothing(tree: NDArray[np.int64], data: st.DataObject, folder: Path) -> None:
    """Trees of any shape, with names in no order; the oracle sorts sets of paths."""
    names = data.draw(st.permutations([f"n{i:03d}" for i in range(tree.max() + 1)]))
    paths = [tuple(f"{names[node]}-{h}" for h, node in enumerate(path)) for path in tree.tolist()]
    shuffled = data.draw(st.permutations(paths))
    header = ",".join(f"level {h}" for h in range(tree.shape[1]))
    loaded = []
    for place, rows in enumerate((paths, shuffled)):
        file = folder / str(place) / "tree.csv"
        file.parent.mkdir(exist_ok=True)
        file.write_text("\n".join([header, *(",".join(path[::-1]) for path in rows)]))
        loaded.append(load_hierarchy(str(file)))
    one, other = loaded
    assert (one.digest, one.nodes, one.to_csv()) == (other.digest, other.nodes, other.to_csv())
    assert one.leaves == tuple(sorted(path[-1] for path in paths))
    assert [one.path(leaf) for leaf in range(len(paths))] == sorted(paths, key=lambda path: path[-1])
    written = parse_hierarchy("tree", "tree.csv", io.StringIO(one.to_csv()))  # as a run's folder keeps it
    assert (written.digest, written.ancestors.tolist()) == (one.digest, one.ancestors.tolist())
    as_listed = parse_hierarchy("tree", "tree.csv", [header, *(",".join(path[::-1]) for path in shuffled)])
    assert as_listed.leaves == tuple(path[-1] for path in shuffled)  # what an older run keeps is read in its order


def test_a_node_is_named_alike_whichever_spelling_comes_first(tmp_path: Path) -> None:
    digests = set()
    for place, rows in enumerate(([f"a,{CAFE}", f"b,{CAFE_NFD}"], [f"b,{CAFE_NFD}", f"a,{CAFE}"])):
        file = tmp_path / f"{place}.csv"
        file.write_text("\n".join(["leaf,group", *rows]), "utf-8")
        tree = load_hierarchy(str(file))
        assert tree.nodes == ((CAFE,), ("a", "b"))
        digests.add(tree.digest)
    assert len(digests) == 1


BROKEN = {
    "few": ("leaf,group\na,x\n", r"bad.csv: expected a header and at least two leaves, found 2 rows"),
    "levels": ("leaf,leaf\na,x\nb,x\n", r"row 1: expected distinct level names, found leaf,leaf"),
    "cells": (
        "leaf,group\na,x\nb\n",
        r"row 3: expected a leaf and the nodes above it \(leaf,group; blank where there are fewer\), found 'b'$",
    ),
    "many": ("leaf,group\na,x\nb,y,z\n", r"row 3: expected a leaf and the nodes above it .*, found 'b,y,z'$"),
    "no leaf": ("leaf,group\na,x\n,x\n", r"row 3: expected a leaf and the nodes above it .*, found ',x'$"),
    "twice": ("leaf,group\na,x\nb,y\na,x\n", r"row 4: leaf a was named before, in row 2; name each leaf once"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_tree_is_refused_with_file_and_row(case: str, tmp_path: Path) -> None:
    text, message = BROKEN[case]
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(HierarchyError, match=message):
        load_hierarchy(str(tmp_path / "bad.csv"))


def test_blank_cells_fill_up_the_row_of_a_leaf_with_fewer_nodes_above_it(tmp_path: Path) -> None:
    path = tmp_path / "tree.csv"
    path.write_text("leaf,sub,master\nTee,Tops,Apparel\nRing,,Jewelry\nGift,,\nHat,Apparel,\n")
    tree = load_hierarchy(str(path))
    assert tree.levels == ("master", "sub", "leaf")
    assert tree.nodes == (("Gift", "Apparel", "Jewelry"), ("Hat", "Ring", "Tops"), ("Tee",))
    assert tree.leaves == ("Gift", "Hat", "Ring", "Tee")
    assert tree.ancestors.tolist() == [[0, -1, -1], [1, 0, -1], [2, 1, -1], [1, 2, 0]]
    assert tree.to_csv() == "leaf,sub,master\nGift,,\nHat,Apparel,\nRing,Jewelry,\nTee,Tops,Apparel\n"
    assert parse_hierarchy("tree", "tree.csv", io.StringIO(tree.to_csv())).digest == tree.digest


CAFE, CAFE_NFD = "Caf\u00e9", "Cafe\u0301"


def test_a_node_has_one_name_in_whatever_forms_it_is_written() -> None:
    tree = parse_hierarchy("mine", "mine.csv", ["leaf,group", f"a,{CAFE}", f"b,{CAFE_NFD}", "c,other"])
    assert tree.nodes == ((CAFE, "other"), ("a", "b", "c"))
    with pytest.raises(HierarchyError) as caught:
        parse_hierarchy("mine", "mine.csv", ["leaf,group", f"{CAFE},x", f"{CAFE_NFD},x"])
    assert str(caught.value) == f"mine.csv: row 3: leaf {CAFE} was named before, in row 2; name each leaf once"
    with pytest.raises(HierarchyError, match="row 1: expected distinct level names"):
        parse_hierarchy("mine", "mine.csv", [f"{CAFE},{CAFE_NFD}", "a,x", "b,y"])


def test_a_name_too_long_for_csv_is_a_hierarchy_error() -> None:
    with pytest.raises(HierarchyError):
        parse_hierarchy("mine", "mine.csv", ["leaf,group", "a" * 140_000 + ",g", "b,g"])


def test_a_hierarchy_that_cannot_be_found_or_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HierarchyError) as caught:
        load_hierarchy("deepfashion-6")
    expected = "no such hierarchy; give a CSV file or one of deepfashion-10, deepfashion-5"
    assert str(caught.value) == f"deepfashion-6: {expected}; did you mean deepfashion-5?"
    with pytest.raises(HierarchyError, match=f"^tree.csv: {expected}$"):
        load_hierarchy("tree.csv")
    with pytest.raises(HierarchyError, match=": cannot read the hierarchy: "):
        load_hierarchy(str(tmp_path))
