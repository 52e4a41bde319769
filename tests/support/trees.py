"""Random trees for property tests."""

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from numpy.typing import NDArray

from hfc.hierarchy import Hierarchy


@st.composite
def trees(draw: st.DrawFn) -> NDArray[np.int64]:
    """(C, H) ancestors of a tree of 1 to 6 levels and at least two leaves, which come in any order."""
    depth = draw(st.integers(1, 6))
    paths: list[tuple[int, ...]] = [(i,) for i in range(draw(st.integers(1, 4)))]
    for _ in range(depth - 1):
        most = 3 if len(paths) < 12 else 1
        counts = draw(st.lists(st.integers(1, most), min_size=len(paths), max_size=len(paths)))
        parents = [path for path, count in zip(paths, counts, strict=True) for _ in range(count)]
        paths = [(*path, i) for i, path in enumerate(parents)]
    assume(len(paths) > 1)
    tree = np.array(draw(st.permutations(paths)), dtype=np.int64)
    tree[:, -1] = np.arange(len(tree))
    return tree


Node = tuple[int, ...]
"""The places of the nodes on the path to it, each among its siblings."""


def grow(rng: np.random.Generator, depth: int, most: int) -> list[Node]:
    """Paths of the leaves of a random tree: at any depth down to `depth`, single children among them, in any order."""
    open_: list[Node] = [()]
    paths: list[Node] = []
    while open_:
        node = open_.pop(int(rng.integers(len(open_))))
        for child in range(int(rng.choice([1, 1, 2, 3, 6]))):
            path = (*node, child)
            is_leaf = len(path) == depth or len(paths) + len(open_) >= most or rng.random() < 0.3
            (paths if is_leaf else open_).append(path)
    return [paths[i] for i in rng.permutation(len(paths))][:most]


def nodes_of(paths: list[Node]) -> list[list[Node]]:
    """The nodes of each level, in the order of their first leaf."""
    levels = range(1, max(map(len, paths)) + 1)
    return [list(dict.fromkeys(path[:h] for path in paths if len(path) >= h)) for h in levels]


def path_to(node: Node, levels: list[list[Node]]) -> list[int]:
    """(H,) index of each node on the path to one, −1 below it; `levels` as `nodes_of` gives them."""
    return [nodes.index(node[: h + 1]) if len(node) > h else -1 for h, nodes in enumerate(levels)]


def ancestors_of(paths: list[Node]) -> NDArray[np.int64]:
    """(C, H) index of each leaf's node on each level, −1 below the leaf."""
    levels = nodes_of(paths)
    return np.array([path_to(path, levels) for path in paths], dtype=np.int64)


@st.composite
def uneven_trees(draw: st.DrawFn, most: int = 200) -> list[Node]:
    """Paths of the 1 to `most` leaves of a tree of depth 1 to 7."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return grow(rng, draw(st.integers(1, 7)), draw(st.sampled_from([1, 2, 5, 20, most])))


@st.composite
def named_trees(draw: st.DrawFn) -> list[tuple[str, ...]]:
    """Paths of at least two leaves of a tree of depth 1 to 7; nodes at several places have one name."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    paths = grow(rng, draw(st.integers(1, 7)), draw(st.sampled_from([2, 5, 20])))
    assume(len(paths) > 1)
    return [tuple("abcdef"[child] for child in path) for path in paths]


def named(ancestors: NDArray[np.int64]) -> Hierarchy:
    """Give the nodes of a tree names; its leaves keep their order.

    Args:
        ancestors: (C, H) index of each leaf's ancestor on each level, −1 below the leaf.
    """
    sizes = (ancestors.max(axis=0) + 1).tolist()
    nodes = tuple(tuple(f"n{h}.{i}" for i in range(size)) for h, size in enumerate(sizes))
    return Hierarchy("tree", tuple(f"level {h}" for h in range(len(sizes))), nodes, ancestors)


def hierarchies() -> st.SearchStrategy[Hierarchy]:
    """Even and uneven trees of 1 to 7 levels and 1 to 200 leaves."""
    return st.one_of(trees(), uneven_trees().map(ancestors_of)).map(named)


def prefixes(tree: Hierarchy) -> list[list[tuple[str, ...]]]:
    """List the path of every node, by level and in the order of the nodes."""
    nodes: list[list[tuple[str, ...]]] = [[()] * size for size in tree.sizes]
    for leaf, row in enumerate(tree.ancestors.tolist()):
        for h, node in enumerate(row):
            if node >= 0:
                nodes[h][node] = tree.path(leaf)[: h + 1]
    return nodes


class Heights:
    """Heights of the lowest common ancestors of leaves, in loops over their paths."""

    def __init__(self, tree: Hierarchy) -> None:
        """Measure the height of every node: the longest way down to a leaf."""
        self.height: dict[tuple[str, ...], int] = {}
        for path in map(tree.path, range(len(tree.ancestors))):
            for depth in range(len(path) + 1):
                self.height[path[:depth]] = max(self.height.get(path[:depth], 0), len(path) - depth)

    def between(self, leaf: tuple[str, ...], other: tuple[str, ...]) -> int:
        """Climb from a leaf until the other one lies below too."""
        return self.height[next(leaf[:depth] for depth in range(len(leaf), -1, -1) if leaf[:depth] == other[:depth])]
