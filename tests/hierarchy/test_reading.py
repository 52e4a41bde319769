"""Category trees."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hfc.errors import HierarchyError
from hfc.hierarchy import lca_height, load_hierarchy, parse_hierarchy
from tests.support.deepfashion_tree import categories
from tests.support.trees import named_trees, trees


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
    "t.csv": ("leaf,group\na,x\n\nb\n", "row 4: expected a leaf and the nodes above it (leaf,group; blank where there"),
    "e.csv": ("node,parent\na,\n\nb,b\n", "row 4: b lies below itself: b > b; give one of them another parent"),
    "p.txt": ("# c\na\n\na >\n", "row 4: expected a name on each side of every >, found 'a >'"),
    "one.csv": (
        "category\nTee\nmen > Hat\n",
        "row 1: expected a line of a path or the names of levels above 'men > Hat', found category; if lines are "
        "paths, take row 1 out or name the file .txt; else quote the names",
    ),
    "none.csv": ("", "expected a header and at least two leaves, found 0 rows"),
    "none.txt": ("\n", "expected a header and at least two leaves, found 0 rows"),
    "comment.txt": ("# Hat\n", "expected at least two leaves, found 0"),
    "nul.txt": ("Hat\nTee\0\n", "row 2: expected text, found a NUL character; take it out"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_tree_is_refused_with_file_and_row(name: str, tmp_path: Path) -> None:
    text, message = BROKEN[name]
    (tmp_path / name).write_text(text)
    with pytest.raises(HierarchyError) as caught:
        load_hierarchy(str(tmp_path / name))
    assert str(caught.value).startswith(f"{tmp_path / name}: {message}")


KINDS = {
    "not clear": ("t.csv", "Hat\r\nShoes > Boot\r\n\r\n# x > y\r\n", None),
    "paths by their first line": ("t.csv", "Shoes > Boot\nHat\n", {("Shoes", "Boot"), ("Hat",)}),
    "paths below the first line": (
        "t",
        "Food, Drink\nFood, Drink > Tea, black\nHat\n",
        {("Food, Drink", "Tea, black"), ("Hat",)},
    ),
    "paths by a comment": ("t.csv", "# version 1\nHat\nTee\n", {("Hat",), ("Tee",)}),
    "paths by the file's name": ("t.TXT", "Hat\nShoes>Boot\n", {("Hat",), ("Shoes", "Boot")}),
    "one name a line": ("t.txt", "Hat\nBags, Belts\n", {("Hat",), ("Bags, Belts",)}),
    "paths of Windows": ("t.txt", "\ufeffHat\r\nShoes > Boot\r\n", {("Hat",), ("Shoes", "Boot")}),
    "CSV named .txt": ("t.txt", "leaf;group\nHat;x\nmen > Tee;y\n", {("x", "Hat"), ("y", "men > Tee")}),
    "one level": ("t.csv", 'leaf\nHat\n"men > Tee"\n', {("Hat",), ("men > Tee",)}),
    "one level in quotes": ("t.csv", 'leaf\n"Hat"\n"men > Tee, long"\n', {("Hat",), ("men > Tee, long",)}),
    "rows": ("t.csv", "#leaf,group\nHat,x\nmen > Tee,y\n", {("x", "Hat"), ("y", "men > Tee")}),
    "edges": ("t.csv", "node;parent\nTee;\nHat;x\nx;\n", {("x", "Hat"), ("Tee",)}),
    "leaves and groups that are called so": ("t.csv", "node,parent\nHat,x\nTee,y\n", {("x", "Hat"), ("y", "Tee")}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_layout_of_a_file_is_recognised_by_what_it_holds(kind: str, tmp_path: Path) -> None:
    name, text, paths = KINDS[kind]
    (tmp_path / name).write_text(text, "utf-8", newline="")
    if paths is None:  # a first line that may be a level's name
        with pytest.raises(
            HierarchyError, match=r"row 1: expected a line of a path or .*, found Hat; if lines are paths"
        ):
            load_hierarchy(str(tmp_path / name))
        return
    tree = load_hierarchy(str(tmp_path / name))
    assert {tree.path(leaf) for leaf in range(len(tree.leaves))} == paths


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


@settings(max_examples=40)
@given(paths=named_trees(), data=st.data())
def test_a_tree_is_the_same_in_every_layout_and_order(
    paths: list[tuple[str, ...]], data: st.DataObject, folder: Path
) -> None:
    depth = max(map(len, paths))
    nodes = list(dict.fromkeys(path[:h] for path in paths for h in range(1, len(path) + 1)))
    header = ",".join(f"level {h}" for h in range(depth, 0, -1))
    written = {
        "rows.csv": [
            header,
            *(",".join([*p[::-1], *[""] * (depth - len(p))]) for p in data.draw(st.permutations(paths))),
        ],
        "blanks.csv": [header, *(",".join([p[-1], *[""] * (depth - len(p)), *p[-2::-1]]) for p in paths)],
        "nodes.txt": [" > ".join(node) for node in data.draw(st.permutations(nodes))],
        "leaves.txt": [">".join(path) for path in paths],
    }
    if len({node[-1] for node in nodes}) == len(nodes):
        edges = [f"{node[-1]},{('', *node)[-2]}" for node in nodes]
        written["edges.csv"] = ["node,parent", *data.draw(st.permutations(edges))]
    trees = []
    for name, lines in written.items():
        (folder / name).write_text("\n".join(lines))
        trees.append(load_hierarchy(str(folder / name)))
    (folder / "kept.csv").write_text(trees[0].to_csv())
    trees += [load_hierarchy(str(folder / "kept.csv")), parse_hierarchy("t", "t", io.StringIO(trees[0].to_csv()))]
    assert {tree.digest for tree in trees} == {trees[0].digest}
    for tree in trees:
        assert [tree.path(leaf) for leaf in range(len(paths))] == sorted(paths, key=lambda path: (path[-1], path))
        assert tree.ancestors.tolist() == trees[0].ancestors.tolist()
        firsts = [list(dict.fromkeys(column[column >= 0].tolist())) for column in tree.ancestors.T]
        assert firsts == [list(range(size)) for size in tree.sizes]


# In Google's layout: leaves at depths 1 to 7, single children, one name at two places, commas, signs, ids.
TAXONOMY = """\
# Google_Product_Taxonomy_Version: 2021-09-21
166 - Apparel & Accessories
1604 - Apparel & Accessories > Clothing
2271 - Apparel & Accessories > Clothing > Dresses
203 - Apparel & Accessories > Clothing > Outerwear
5598 - Apparel & Accessories > Clothing > Outerwear > Coats & Jackets
5506 - Apparel & Accessories > Clothing > Outerwear > Rain Suits
212 - Apparel & Accessories > Clothing > Shirts & Tops
5322 - Apparel & Accessories > Clothing > Activewear
5697 - Apparel & Accessories > Clothing > Activewear > Bicycle Activewear
3455 - Apparel & Accessories > Clothing > Activewear > Bicycle Activewear > Bicycle Tights
3188 - Apparel & Accessories > Clothing > Activewear > Bicycle Activewear > Bicycle Shorts & Briefs
187 - Apparel & Accessories > Shoes
1933 - Apparel & Accessories > Shoe Accessories
1856 - Apparel & Accessories > Shoe Accessories > Shoelaces
772 - Religious & Ceremonial
5605 - Religious & Ceremonial > Wedding Ceremony Supplies
503727 - Religious & Ceremonial > Wedding Ceremony Supplies > Aisle Runners
412 - Food, Beverages & Tobacco
422 - Food, Beverages & Tobacco > Food Items
1876 - Food, Beverages & Tobacco > Food Items > Bakery
424 - Food, Beverages & Tobacco > Food Items > Bakery > Bread
5740 - Food, Beverages & Tobacco > Food Items > Cooking & Baking Ingredients
5105 - Food, Beverages & Tobacco > Food Items > Cooking & Baking Ingredients > Bread
2092 - Software
536 - Home & Garden
638 - Home & Garden > Kitchen & Dining
2901 - Home & Garden > Kitchen & Dining > Small Parts, Other
7120 - Home & Garden > Kitchen & Dining > Small Parts, Other > Blender Accessories
8121 - Home & Garden > Kitchen & Dining > Small Parts, Other > Blender Accessories > Jars
9122 - Home & Garden > Kitchen & Dining > Small Parts, Other > Blender Accessories > Jars > Lids
9123 - Home & Garden > Kitchen & Dining > Small Parts, Other > Blender Accessories > Jars > Lids > 12 oz
"""


def test_googles_product_taxonomy(tmp_path: Path) -> None:
    path = tmp_path / "taxonomy.txt"
    path.write_text(TAXONOMY, newline="\r\n")
    tree = load_hierarchy(str(path))
    assert (tree.name, tree.levels) == ("taxonomy", tuple(f"level {h}" for h in range(1, 8)))
    bread = "Food, Beverages & Tobacco > Food Items > Bakery > Bread"
    other = "Food, Beverages & Tobacco > Food Items > Cooking & Baking Ingredients > Bread"
    assert dict(zip(tree.leaves, tree.depths.tolist(), strict=True)) == {
        "12 oz": 7,
        "Aisle Runners": 3,
        "Bicycle Shorts & Briefs": 5,
        "Bicycle Tights": 5,
        bread: 4,
        other: 4,
        "Coats & Jackets": 4,
        "Dresses": 3,
        "Rain Suits": 4,
        "Shirts & Tops": 3,
        "Shoelaces": 3,
        "Shoes": 2,
        "Software": 1,
    }
    assert tree.sizes == (5, 6, 9, 6, 3, 1, 1)
    assert tree.leaves[0] == "12 oz"
    assert tree.path(0)[2:] == ("Small Parts, Other", "Blender Accessories", "Jars", "Lids", "12 oz")
    meant = {
        "Software": ("Software",),
        "Shoe Accessories": ("Apparel & Accessories", "Shoe Accessories"),
        "Bakery>Bread": tuple(bread.split(" > ")),
        other: tuple(other.split(" > ")),
        "> Home & Garden": ("Home & Garden",),
        "Small Parts, Other > Blender Accessories": tree.path(0)[:4],
    }
    assert [tree.names(row) for row in tree.find(list(meant), "c.h5").tolist()] == list(meant.values())
    with pytest.raises(HierarchyError, match="has 'Bread' at several places; name one of them: > Food, Bev"):
        tree.find(["Bread"], "c.h5")
    # The same without ids, comment and inner nodes, in another order.
    lines = [" > ".join(tree.path(leaf)) for leaf in reversed(range(len(tree.leaves)))]
    (tmp_path / "leaves.txt").write_text("\n".join(lines))
    assert load_hierarchy(str(tmp_path / "leaves.txt")).digest == tree.digest


def test_a_tree_whose_leaves_are_repeated_in_blank_cells_reads_as_before(tmp_path: Path) -> None:
    (tmp_path / "tree.csv").write_text("leaf,sub,master\nTee,Tops,Apparel\nRing,Ring,Jewelry\nGift,Gift,Gift\n")
    tree = load_hierarchy(str(tmp_path / "tree.csv"))
    assert tree.nodes == (("Gift", "Jewelry", "Apparel"), ("Gift", "Ring", "Tops"), ("Gift", "Ring", "Tee"))
    assert (tree.ancestors.tolist(), tree.even) == ([[0, 0, 0], [1, 1, 1], [2, 2, 2]], True)
    assert tree.falls.tolist() == [[1, 1, 1]] * 3
    # As versions wrote it that knew no other trees.
    assert tree.digest == "def5a77202d30eb8a5ae98d076c4586464d541e777e196649240a63a248802c5"
    assert tree.index(["Gift", "Tee", "Ring"], "c.h5").tolist() == [0, 2, 1]


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
    expected = "no such hierarchy; give a file or one of deepfashion-10, deepfashion-5"
    assert str(caught.value) == f"deepfashion-6: {expected}; did you mean deepfashion-5?"
    with pytest.raises(HierarchyError, match=f"^tree.csv: {expected}$"):
        load_hierarchy("tree.csv")
    with pytest.raises(HierarchyError, match=": cannot read the hierarchy: "):
        load_hierarchy(str(tmp_path))
