"""The three layouts of files, and what is wrong with one."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfc.errors import HierarchyError
from hfc.hierarchy.layouts import (
    Listing,
    from_edges,
    from_lines,
    from_rows,
    is_edges,
    warn_of_namesakes,
)
from tests.support.trees import named_trees

CAFE, CAFE_NFD = "Caf\u00e9", "Cafe\u0301"


def rows(*lines: str) -> list[tuple[int, list[str]]]:
    return [(number, line.split(",")) for number, line in enumerate(lines, 1)]


def read(layout: str, *lines: str) -> Listing:
    if layout == "lines":
        return from_lines("t", lines)
    return from_rows("t", rows(*lines)) if layout == "rows" else from_edges("t", rows(*lines)[1:])


def refusal(layout: str, *lines: str) -> str:
    with pytest.raises(HierarchyError) as caught:
        read(layout, *lines)
    return str(caught.value).removeprefix("t: ")


@given(paths=named_trees(), data=st.data())
def test_all_layouts_of_a_tree_have_its_leaves(paths: list[tuple[str, ...]], data: st.DataObject) -> None:
    depth = max(map(len, paths))
    header = ",".join(f"level {h}" for h in range(depth, 0, -1))
    blanks = [",".join([*path[::-1], *[""] * (depth - len(path))]) for path in paths]
    between = [",".join([path[-1], *[""] * (depth - len(path)), *path[-2::-1]]) for path in paths]
    nodes = list(dict.fromkeys(path[:h] for path in paths for h in range(1, len(path) + 1)))
    lines = [" > ".join(node) for node in data.draw(st.permutations(nodes))]
    levels = [f"level {h}" for h in range(1, depth + 1)]
    for written in (blanks, between):
        listing = read("rows", header, *written)
        assert (listing.levels, listing.paths) == (levels, list(enumerate(paths, 2)))
    for written in (
        lines,
        [f"{number} - {line}" for number, line in enumerate(lines)],
        [" > ".join(path) for path in paths],
    ):
        listing = read("lines", "# a comment", *written, "")
        assert (listing.levels, sorted(path for _, path in listing.paths)) == (levels, sorted(paths))
    # In edges a name is a node, so each has its path for a name here.
    edges = ["/".join(node) + "," + "/".join(node[:-1]) for node in data.draw(st.permutations(nodes))]
    listing = read("edges", "node,parent", *edges)
    named = [tuple("/".join(path[:h]) for h in range(1, len(path) + 1)) for path in paths]
    assert (listing.levels, sorted(path for _, path in listing.paths)) == (levels, sorted(named))


def test_a_column_without_any_node_is_no_level() -> None:
    assert read("rows", "leaf,sub,master", "a,,x", "b,,y").levels == ["master", "leaf"]
    assert read("rows", "leaf,sub,master", "a,,x", "b,y,").levels == ["master", "sub"]


ROWS = "row 3: expected a leaf and the nodes above it (leaf,group; blank where there are fewer), found "
BROKEN: dict[str, tuple[str, list[str], str]] = {
    "few rows": ("rows", ["leaf,group", "a,x"], "expected a header and at least two leaves, found 2 rows"),
    "levels": ("rows", ["leaf,leaf", "a,x", "b,x"], "row 1: expected distinct level names, found leaf,leaf"),
    "no level": ("rows", ["leaf,", "a,x", "b,x"], "row 1: expected distinct level names, found leaf,"),
    "few cells": ("rows", ["leaf,group", "a,x", "b"], f"{ROWS}'b'"),
    "many cells": ("rows", ["leaf,group", "a,x", "b,y,z"], f"{ROWS}'b,y,z'"),
    "no leaf": ("rows", ["leaf,group", "a,x", ",x"], f"{ROWS}',x'; an inner node needs no row of its own"),
    "leaf twice": (
        "rows",
        ["leaf,group", "a,x", "a,y", "a,x"],
        "row 4: leaf a was named before, in row 2; name each leaf once",
    ),
    "leaf twice by blanks": (
        "rows",
        ["leaf,sub,group", "a,x,", "a,,x", "b,,"],
        "row 3: leaf a was named before, in row 2; name each leaf once",
    ),
    "row of an inner node": (
        "rows",
        ["leaf,sub,group", "x,,", "a,x,", "b,x,"],
        "row 2: x is no leaf: x > a lies below it in row 3; an inner node needs no row of its own",
    ),
    "one edge": ("edges", ["node,parent", "a,", "b,a"], "expected at least two leaves, found 1"),
    "no node": ("edges", ["node,parent", "a,", ",a"], "row 3: expected a node and its parent, found ',a'"),
    "many names": ("edges", ["node,parent", "a,", "b,a,c"], "row 3: expected a node and its parent, found 'b,a,c'"),
    "no parent": (
        "edges",
        ["node,parent", "a", "b,a"],
        "row 2: expected a node and its parent, found 'a'; on the first level the parent is blank: a,",
    ),
    "node twice": (
        "edges",
        ["node,parent", "a,", "b,a", "c,a", "b,a"],
        "row 5: node b was named before, in row 3; name each node once",
    ),
    "two parents": (
        "edges",
        ["node,parent", "a,", "b,a", "c,", "b,c"],
        "row 5: node b stands under c here and under a in row 3; one node has one parent, so rename one of them, or "
        "write a line for each path",
    ),
    "two places": (
        "edges",
        ["node,parent", "a,", "b,a", "b,"],
        "row 4: node b stands on the first level here and under a in row 3; one node has one parent, so rename one of "
        "them, or write a line for each path",
    ),
    "mistyped parent": (
        "edges",
        ["node,parent", "Apparel,", "Tops,Aparel", "Hat,"],
        "row 3: the parent Aparel of Tops is no node of the file; did you mean Apparel?",
    ),
    "unknown parent": (
        "edges",
        ["node,parent", "Tee,Tops", "Tops,Apparel", "Hat,"],
        "row 3: the parent Apparel of Tops is no node of the file; give it a row, on the first level with a blank "
        "parent: Apparel,",
    ),
    "itself": (
        "edges",
        ["node,parent", "a,a", "b,", "c,"],
        "row 2: a lies below itself: a > a; give one of them another parent, or a blank one",
    ),
    "cycle": (
        "edges",
        ["node,parent", "r,", "d,b", "a,b", "b,c", "c,a", "e,r"],
        "row 5: b lies below itself: b > a > c > b; give one of them another parent, or a blank one",
    ),
    "one line": ("lines", ["a > b > c"], "expected at least two leaves, found 1"),
    "no line": ("lines", ["# nothing", ""], "expected at least two leaves, found 0"),
    "blank part": ("lines", ["a", "b > > c"], "row 2: expected a name on each side of every >, found 'b > > c'"),
    "blank end": ("lines", ["# x", "a", "b >"], "row 3: expected a name on each side of every >, found 'b >'"),
    "blank after an id": (
        "lines",
        ["1 - a", "2 - > b"],
        "row 2: expected a name on each side of every >, found '2 - > b'",
    ),
    "line twice": (
        "lines",
        ["a", "a > b", "c", "a>b"],
        "row 4: node a > b was named before, in row 2; name each node once",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_tree_is_refused_with_its_row(case: str) -> None:
    layout, lines, message = BROKEN[case]
    assert refusal(layout, *lines) == message


def test_numbers_before_paths_are_ids_where_all_lines_have_one() -> None:
    lines = ["1 - Hats", "2 - Sets", "3 - Sets > 2 - Piece", "4 - Sets > 3 - Piece"]
    assert [path for _, path in read("lines", *lines).paths] == [
        ("Hats",),
        ("Sets", "2 - Piece"),
        ("Sets", "3 - Piece"),
    ]
    assert [path for _, path in read("lines", *lines, "Shoes").paths][:2] == [("1 - Hats",), ("2 - Sets",)]


@pytest.mark.parametrize(
    ("layout", "lines", "paths"),
    [
        ("rows", ["leaf,group", f"a,{CAFE_NFD}", f"b,{CAFE}"], [(CAFE, "a"), (CAFE, "b")]),
        ("edges", ["node,parent", f"{CAFE_NFD},", f"a,{CAFE}", f"b,{CAFE_NFD}"], [(CAFE, "a"), (CAFE, "b")]),
        ("lines", [f"{CAFE_NFD} > a", f"{CAFE} > b"], [(CAFE, "a"), (CAFE, "b")]),
        ("lines", [f"{CAFE_NFD} > a", f"{CAFE_NFD} > b"], [(CAFE_NFD, "a"), (CAFE_NFD, "b")]),
    ],
)
def test_a_node_has_one_name_in_whatever_forms_it_is_written(
    layout: str, lines: list[str], paths: list[tuple[str, ...]]
) -> None:
    assert [path for _, path in read(layout, *lines).paths] == paths


def test_leaves_of_one_name_may_stand_at_two_places_and_groups_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    paths = read("rows", "leaf,sub,master", "Other,Tops,men", "Tee,Tops,men", "Other,Tops,women", "Tops,,kids").paths
    warn_of_namesakes("t", [(3, ("men", "Other")), (4, ("women", "Other")), (5, ("women", "Sub", "men"))])
    assert caplog.messages == []
    warn_of_namesakes("t", paths)
    assert [(record.levelno, record.message) for record in caplog.records] == [
        (
            logging.WARNING,
            "t: one name under several parents is several nodes: men > Tops (row 2) and women > Tops (row 4); where "
            "one is meant, give it one parent",
        )
    ]
    caplog.clear()
    many: list[tuple[int, tuple[str, ...]]] = [
        (2 * i + j, (group, f"n{i}", "leaf")) for i in range(7) for j, group in enumerate("ab")
    ]
    warn_of_namesakes("t", many)
    assert caplog.messages[0].endswith(
        "a > n4 (row 8) and b > n4 (row 9), 2 more; where one is meant, give it one parent"
    )


@pytest.mark.parametrize(
    ("lines", "edges"),
    [
        (["node,parent", "a,", "b,a"], True),
        (["node,parent", "a,b", "b,a"], True),
        (["node,parent", "a,x", "b,a"], True),
        (["node,parent", "a,x", "b,x"], False),  # leaves and their groups
        (["node,parent", "a,x", "b,b"], False),  # the same, padded
        (["parent,node", "a,", "b,a"], False),
        (["leaf,group", "a,", "b,a"], False),
        (["node,parent"], False),
    ],
)
def test_edges_are_told_from_leaves_and_their_groups(lines: list[str], edges: bool) -> None:
    (_, header), *content = rows(*lines)
    assert is_edges(header, content) is edges
