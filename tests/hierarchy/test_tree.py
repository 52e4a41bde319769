"""The category tree."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfc.hierarchy import Hierarchy, from_paths, lca_height, parse_hierarchy
from tests.support.trees import named_trees


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
    height = lca_height(tree.ancestors.T[:, :, None], tree.ancestors.T[:, None], tree.falls.T[:, :, None])
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
    tree = from_paths("mine", levels, [("x", "a"), ("x", "b")])
    others = ["id", "top1", "error"]
    assert tree.columns(others) == columns
    every = [*others, *columns, *(f"{name} probability" for name in columns)]
    assert len(set(every)) == len(every)


def uneven() -> Hierarchy:
    paths = [("Hat",), ("Cloth", "Tops", "Tee"), ("Cloth", "Other"), ("Shoes", "Other"), ("Cloth", "Tops", "Polo")]
    return from_paths("mine", ["one", "two", "three"], paths)


def test_leaves_may_lie_at_any_depth() -> None:
    tree = uneven()
    assert tree.nodes == (("Hat", "Cloth", "Shoes"), ("Tops", "Other", "Other"), ("Tee", "Polo"))
    assert tree.leaves == ("Hat", "Tee", "Cloth > Other", "Shoes > Other", "Polo")
    assert tree.ancestors.tolist() == [[0, -1, -1], [1, 0, 0], [1, 1, -1], [2, 2, -1], [1, 0, 1]]
    assert (tree.even, tree.depths.tolist()) == (False, [1, 3, 2, 2, 3])
    # Heights: root 3, Cloth 2, Shoes 1, Tops 1, leaves 0.
    assert tree.falls.tolist() == [[3, 0, 0], [1, 1, 1], [1, 2, 0], [2, 1, 0], [1, 1, 1]]
    levels = tree.ancestors.T
    height = lca_height(levels[:, :, None], levels[:, None], tree.falls.T[:, :, None])
    assert height.tolist() == [
        [0, 3, 3, 3, 3],
        [3, 0, 2, 3, 1],
        [3, 2, 0, 3, 2],
        [3, 3, 3, 0, 3],
        [3, 1, 2, 3, 0],
    ]
    assert tree.leaf(tree.ancestors).tolist() == [0, 1, 2, 3, 4]
    assert tree.leaf(np.array([[1, -1, -1], [1, 0, -1], [2, 2, -1]])).tolist() == [-1, -1, 3]
    every = np.arange(5)
    assert [np.flatnonzero(tree.are_siblings(leaf, every)).tolist() for leaf in every] == [
        [0],
        [1, 4],
        [2],
        [3],
        [1, 4],
    ]


def test_a_path_that_begins_another_is_an_inner_node() -> None:
    tree = from_paths("mine", ["one", "two"], [("x",), ("x", "b"), ("x", "b"), ("y", "a"), ("y",)])
    assert (tree.nodes, tree.ancestors.tolist()) == ((("x", "y"), ("b", "a")), [[0, 0], [1, 1]])


@given(paths=named_trees())
def test_an_uneven_tree_equals_naive_loops_over_its_paths(paths: list[tuple[str, ...]]) -> None:
    deepest = max(map(len, paths))
    tree = from_paths("mine", [f"level {h}" for h in range(deepest)], paths)

    def height(node: tuple[str, ...]) -> int:
        return max(len(path) - len(node) for path in paths if path[: len(node)] == node)

    assert [tree.path(leaf) for leaf in range(len(paths))] == paths
    assert tree.depths.tolist() == [len(path) for path in paths]
    assert tree.even == (len({len(path) for path in paths}) == 1)
    assert tree.sizes == tuple(len({path[: h + 1] for path in paths if len(path) > h}) for h in range(deepest))
    falls = [[height(path[: h - 1]) - height(path[:h]) for h in range(1, len(path) + 1)] for path in paths]
    assert tree.falls.tolist() == [fall + [0] * (deepest - len(fall)) for fall in falls]
    levels = tree.ancestors.T
    heights = lca_height(levels[:, :, None], levels[:, None], tree.falls.T[:, :, None])
    for a, one in enumerate(paths):
        for b, other in enumerate(paths):
            common = max(h for h in range(deepest + 1) if one[:h] == other[:h])
            assert heights[a, b] == (height(one[:common]) if a != b else 0)
            assert tree.are_siblings(a, b) == (one[:-1] == other[:-1])
            for h in range(deepest):
                same = one[: h + 1] == other[: h + 1] and min(len(one), len(other)) > h
                assert same == (tree.ancestors[a, h] == tree.ancestors[b, h] >= 0)
    nodes = sorted({path[:h] for path in paths for h in range(1, len(path) + 1)})
    rows = tree.find([f"> {' > '.join(node)}" for node in nodes], "c.h5")
    assert tree.leaf(rows).tolist() == [paths.index(node) if node in paths else -1 for node in nodes]
