"""Answers below one node of the tree: which node is meant, and what the tree is below it. Dimensions: C leaves."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hfc.errors import HierarchyError
from hfc.hierarchy import Hierarchy, canonical, some

SEPARATOR = ">"

Node = tuple[int, int]
"""Its level, from 0, and its index there."""


@dataclass(frozen=True, eq=False)
class Below:
    """The leaves that an answer may have."""

    path: tuple[str, ...]
    """Names from the coarsest level to the node that answers lie below; empty for the root."""
    leaves: NDArray[np.int64]
    """(K,) the leaves below the node, in the order of the tree; a leaf lies below itself."""
    ancestors: NDArray[np.int64]
    """(K, H) index of each such leaf's ancestor on each level; the last column counts 0…K-1."""


def below(tree: Hierarchy, node: str = "") -> Below:
    """Find a node, and the leaves below it.

    Args:
        tree: the tree.
        node: a name, or the end of a path such as `Apparel > Tops`; `> Tops` begins at the root. "": the root.

    Raises:
        HierarchyError: there is no such node, or several.
    """
    level, index = _find(tree, node) if node else (0, -1)
    leaves = np.flatnonzero(tree.ancestors[:, level] == index) if node else np.arange(len(tree.leaves))
    ancestors = tree.ancestors[leaves]
    path = tree.path(int(leaves[0]))[: level + 1] if node else ()
    ancestors[:, -1] = np.arange(len(leaves))
    return Below(path, leaves, ancestors)


def _find(tree: Hierarchy, node: str) -> Node:
    """Find the level and the index of the only node that is meant."""
    nodes = _nodes(tree)
    meant = next(filter(None, _readings(nodes, node)), [])
    if not meant:
        names = dict.fromkeys(path[-1] for path in nodes.values())
        near = difflib.get_close_matches(_words(node)[-1], names, n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join(near)}?" if near else f"it has {some(list(names))}"
        raise HierarchyError(f"within: hierarchy {tree.name} has no node {node!r}; {hint}")
    # A name that is repeated further down, where nothing parts from it, is one node.
    if len({tuple(np.flatnonzero(tree.ancestors[:, level] == index)) for level, index in meant}) > 1:
        paths = some([" > ".join(("", *nodes[key])).strip() for key in meant])
        raise HierarchyError(f"within: hierarchy {tree.name} has {node!r} at several places; name one of them: {paths}")
    return meant[-1]


def _readings(nodes: Mapping[Node, tuple[str, ...]], node: str) -> Iterator[list[Node]]:
    """List the nodes that may be meant: by name, by the whole path, and by the end of one."""
    words = _words(node)
    paths = {key: _words(SEPARATOR.join(path)) for key, path in nodes.items()}  # a name may hold the sign itself
    if len(words) > 1 and not words[0]:
        yield [key for key, path in paths.items() if path == words[1:]]
        return
    yield [key for key, path in nodes.items() if canonical(path[-1]) == canonical(node)]
    yield [key for key, path in paths.items() if path == words]
    yield [key for key, path in paths.items() if path[-len(words) :] == words]


def _nodes(tree: Hierarchy) -> dict[Node, tuple[str, ...]]:
    """List the path of every node by its level and index, coarse to fine."""
    paths = [tree.path(leaf) for leaf in range(len(tree.leaves))]
    return {
        (level, int(index)): paths[int(leaf)][: level + 1]
        for level in range(len(tree.levels))
        for index, leaf in zip(*np.unique(tree.ancestors[:, level], return_index=True), strict=True)
    }


def _words(text: str) -> list[str]:
    return [canonical(word) for word in text.split(SEPARATOR)]
