"""Category trees."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from hfc.errors import HierarchyError
from hfc.hierarchy import canonical, from_paths, lca_height, load_hierarchy, parse_hierarchy, spellings
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
    assert lca_height(levels[:, :, None], levels[:, None]).tolist() == [[0, 3, 2], [3, 0, 3], [2, 3, 0]]
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


@given(seed=st.integers(0, 2**32 - 1), depth=st.integers(1, 5))
def test_the_lca_height_equals_climbing_on_random_trees(seed: int, depth: int) -> None:
    rng = np.random.default_rng(seed)
    paths: list[list[str]] = [[]]
    for _ in range(depth):
        paths = [[*path, f"{'.'.join(path)}.{i}"] for path in paths for i in range(int(rng.integers(2, 4)))][:40]
    lines = [",".join(f"l{h}" for h in range(depth)), *(",".join(reversed(path)) for path in paths)]
    tree = parse_hierarchy("random", "random", lines)
    assert list(tree.leaves) == [path[-1] for path in paths]
    again = parse_hierarchy("random", "random", io.StringIO(tree.to_csv()))
    assert (again.nodes, again.digest) == (tree.nodes, tree.digest)
    height = lca_height(tree.ancestors.T[:, :, None], tree.ancestors.T[:, None])
    assert height.dtype == np.int64
    for a, one in enumerate(paths):
        for b, other in enumerate(paths):
            common = 0
            while common < depth and one[common] == other[common]:
                common += 1
            assert height[a, b] == depth - common


def test_the_digest_is_of_the_tree_not_of_its_name() -> None:
    lines = ["leaf,group", "a,x", "b,x", "c,y"]
    one, same = parse_hierarchy("one", "w", lines), parse_hierarchy("two", "w", lines)
    assert one.digest == same.digest
    assert one.digest != parse_hierarchy("one", "w", ["leaf,group", "a,x", "b,y", "c,y"]).digest


@pytest.mark.parametrize(
    ("levels", "columns"),
    [
        (("group", "category"), ("group", "category")),
        (("error", "id"), ("error level", "id level")),
        (("id level", "id"), ("id level", "id level level")),
        (("id", "id level"), ("id level", "id level level")),
        (("x probability", "x"), ("x probability", "x level")),
        (("x", "x probability"), ("x", "x probability level")),
        (("top1", "id probability"), ("top1 level", "id probability")),
    ],
)
def test_columns_of_levels_are_like_no_other(levels: tuple[str, str], columns: tuple[str, str]) -> None:
    tree = from_paths("mine", "y", levels, [(0, ("x", "a")), (1, ("x", "b"))])
    others = ["id", "top1", "error"]
    assert tree.columns(others) == columns
    every = [*others, *columns, *(f"{name} probability" for name in columns)]
    assert len(set(every)) == len(every)


BROKEN = {
    "few": ("leaf,group\na,x\n", r"bad.csv: expected a header and at least two leaves, found 2 rows"),
    "levels": ("leaf,leaf\na,x\nb,x\n", r"row 1: expected distinct level names, found leaf,leaf"),
    "cells": (
        "leaf,group\na,x\nb\n",
        r"row 3: expected 2 names \(leaf,group\), found 'b'; all leaves lie at one depth",
    ),
    "many": ("leaf,group\na,x\nb,y,z\n", r"row 3: expected 2 names \(leaf,group\), found 'b,y,z'$"),
    "blank": (
        "leaf,group\na,x\nb,\n",
        r"row 3: expected 2 names \(leaf,group\), found 'b,'; all leaves lie at one depth, "
        r"so repeat the leaf's name in the blank levels$",
    ),
    "twice": ("leaf,group\na,x\nb,y\na,y\n", r"row 4: leaf a was named before, in row 2; name each leaf once"),
    "two parents": ("l,s,m\na,x,p\nb,x,q\n", r"row 3: s x stands under q here and under p in row 2; one node"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_tree_is_refused_with_file_and_row(case: str, tmp_path: Path) -> None:
    text, message = BROKEN[case]
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(HierarchyError, match=message):
        load_hierarchy(str(tmp_path / "bad.csv"))


def test_a_ragged_tree_reads_once_it_is_padded_as_the_message_says(tmp_path: Path) -> None:
    ragged = "leaf,sub,master\nTee,Tops,Apparel\nRing,,Jewelry\nGift,,\n"
    path = tmp_path / "tree.csv"
    path.write_text(ragged)
    with pytest.raises(HierarchyError, match=r"row 3: .* found 'Ring,,Jewelry'; .*repeat the leaf's name"):
        load_hierarchy(str(path))
    path.write_text(ragged.replace("Ring,,", "Ring,Ring,").replace("Gift,,", "Gift,Gift,Gift"))
    tree = load_hierarchy(str(path))
    assert tree.nodes == (("Gift", "Jewelry", "Apparel"), ("Gift", "Ring", "Tops"), ("Gift", "Ring", "Tee"))
    assert tree.ancestors.tolist() == [[0, 0, 0], [1, 1, 1], [2, 2, 2]]


def test_paths_may_repeat_and_nodes_keep_their_order() -> None:
    tree = from_paths("mine", "y", ["group", "leaf"], [(0, ("x", "b")), (1, ("y", "a")), (2, ("x", "b"))])
    assert (tree.nodes, tree.ancestors.tolist()) == ((("x", "y"), ("b", "a")), [[0, 0], [1, 1]])
    with pytest.raises(HierarchyError, match=r"^y: row 7: leaf b stands under y here and under x in row 3; one node"):
        from_paths("mine", "y", ["group", "leaf"], [(3, ("x", "b")), (7, ("y", "b"))])


def test_unknown_leaves_are_named() -> None:
    tree = load_hierarchy("deepfashion-5")
    with pytest.raises(
        HierarchyError, match=r"deepfashion-5 does not fit c.h5: it has no leaf for Hat, Tie; its leaves"
    ):
        tree.index(["Tee", "Tie", "Hat"], "c.h5")
    with pytest.raises(HierarchyError, match=r"it has no leaf for Legings; is Legings meant to be Leggings\?$"):
        tree.index(["Tee", "Legings"], "c.h5")


CAFE, CAFE_NFD = "Caf\u00e9", "Cafe\u0301"


@pytest.mark.parametrize(
    ("leaf", "label"), [(CAFE, CAFE_NFD), (CAFE_NFD, CAFE), ("Pants", "\u00a0Pants "), (CAFE, CAFE)]
)
def test_a_label_may_be_written_in_another_form_than_its_leaf(leaf: str, label: str) -> None:
    tree = parse_hierarchy("mine", "mine.csv", ["leaf,group", "Coat,g", f" {leaf}  ,g"])
    assert tree.leaves == ("Coat", leaf)
    assert tree.index([label, "Coat", leaf], "c.h5").tolist() == [1, 0, 1]


def test_a_node_has_one_name_in_whatever_forms_it_is_written() -> None:
    tree = parse_hierarchy("mine", "mine.csv", ["leaf,group", f"a,{CAFE}", f"b,{CAFE_NFD}", "c,other"])
    assert tree.nodes == ((CAFE, "other"), ("a", "b", "c"))
    with pytest.raises(HierarchyError) as caught:
        parse_hierarchy("mine", "mine.csv", ["leaf,group", f"{CAFE},x", f"{CAFE_NFD},y"])
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


def test_names_are_one_in_several_spellings_where_their_forms_agree() -> None:
    names = ["Tee", " Tee", "Cafe\u0301", "Café", "café", "Tee", "Hat "]
    assert spellings(names) == [["Cafe\u0301", "Café"], [" Tee", "Tee"]]
    assert [canonical(name) for name in names] == ["Tee", "Tee", "Café", "Café", "café", "Tee", "Hat"]
