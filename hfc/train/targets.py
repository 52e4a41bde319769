"""Turn the labels or paths of the estimator's caller into a tree and leaves.

Dimensions: N rows, H levels (coarse to fine), C leaves.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hfc.errors import HierarchyError
from hfc.hierarchy import Hierarchy, from_paths, load_hierarchy, some

Labels = NDArray[Any]
Ints = NDArray[np.int64]

PAD = "all leaves lie at one depth, so repeat the last name of a shorter path down to the deepest level"


class Tree(NamedTuple):
    """A tree over labels of any type; its leaves are in no order and may repeat."""

    name: str
    """What messages call it."""
    levels: list[str]
    """Names of the levels, coarse to fine."""
    paths: Labels
    """(C, H) the path of each leaf."""


def as_table(where: str, y: Any) -> Any:
    """Check that labels or paths are neither ragged nor blank; returns an array, None as it is."""
    if y is None:
        return y
    if (
        isinstance(y, np.ndarray)
        and y.dtype == np.object_
        and y.ndim == 1
        and y.size
        and isinstance(y[0], list | tuple)
    ):
        y = y.tolist()
    try:
        array = np.asarray(y)
    except ValueError as error:
        raise HierarchyError(f"{where}: expected paths of one length; {PAD}") from error
    if array.ndim != 2 or array.shape[1] < 2 or array.dtype.kind not in "OU":
        return array
    # As text, a list's missing names would be called nan and its numbers would be text.
    cells = np.asarray(y, dtype=np.object_)
    for row, path in enumerate(cells.tolist()):
        if any(_is_blank(node) for node in path):
            raise HierarchyError(f"{where}: row {row}: a blank in the path {path}; {PAD}")
    return array if all(isinstance(node, str) for node in cells.flat) else cells


def _is_blank(node: object) -> bool:
    return not node.strip() if isinstance(node, str) else node is None or str(node) in ("nan", "NaT", "<NA>")


def tree_of(name: str, paths: Labels) -> Tree:
    """Make the tree of (N, H) paths."""
    return Tree(name, [f"level {h}" for h in range(1, paths.shape[1] + 1)], paths)


def given_tree(hierarchy: str | Path | Hierarchy | Mapping[Any, Sequence[Any]]) -> Tree:
    """Make the tree of a hierarchy as the estimator takes it.

    Raises:
        HierarchyError: there is no such hierarchy, or a path does not end in its leaf.
        ValueError: it has one leaf.
    """
    if isinstance(hierarchy, Mapping):
        for leaf, path in hierarchy.items():
            if isinstance(path, str) or len(path) == 0 or path[-1] != leaf:
                raise HierarchyError(
                    f"hierarchy: {leaf!r}: expected its path, coarse to fine and ending in {leaf!r}, found {path!r}"
                )
        if len(hierarchy) < 2:
            raise ValueError(f"hierarchy: expected at least two classes, found {list(hierarchy)}")
        return tree_of("hierarchy", as_table("hierarchy", [list(path) for path in hierarchy.values()]))
    loaded = hierarchy if isinstance(hierarchy, Hierarchy) else load_hierarchy(str(hierarchy))
    paths = [[loaded.nodes[h][node] for h, node in enumerate(row)] for row in loaded.ancestors]
    return Tree(loaded.name, list(loaded.levels), np.array(paths))


def leaves(table: Labels, classes: Labels, paths: Labels) -> Ints:
    """Find the leaf of each row, (N,).

    Args:
        table: (N, H) paths or (N, 1) labels.
        classes: (C,) the leaves.
        paths: (C, H) of each leaf.

    Raises:
        HierarchyError: there is no such leaf, or its path is another.
    """
    order = {label: i for i, label in enumerate(classes.tolist())}
    labels, inverse = np.unique(table[:, -1], return_inverse=True)
    if unknown := [repr(label) for label in labels.tolist() if label not in order]:
        known = [repr(label) for label in order]
        raise HierarchyError(f"y does not fit the hierarchy: no leaf for {some(unknown)}; its leaves are {some(known)}")
    leaf = np.array([order[label] for label in labels.tolist()], dtype=np.int64)[inverse]
    if table.shape[1] == 1:
        return leaf
    if table.shape[1] != paths.shape[1]:
        raise HierarchyError(
            f"y: expected paths of {paths.shape[1]} levels as in the hierarchy, found {table.shape[1]}"
        )
    wrong = (table != paths[leaf]).any(axis=1)
    if wrong.any():
        row = int(wrong.argmax())
        raise HierarchyError(
            f"y: row {row}: expected the path {paths[leaf[row]].tolist()}, found {table[row].tolist()}"
        )
    return leaf


def ordered(tree: Tree, classes: Labels) -> Hierarchy:
    """Make the hierarchy whose leaves stand in the order of some classes.

    Each is named by its text. So the head depends on the labels, not on who lists them how.
    """
    order = {label: i for i, label in enumerate(classes.tolist())}
    rows = {tuple(path): row for row, path in reversed(list(enumerate(tree.paths.tolist())))}
    sorted_rows = sorted(rows.items(), key=lambda item: (order[item[0][-1]], item[1]))
    return from_paths(tree.name, tree.levels, [tuple(str(node) for node in path) for path, _ in sorted_rows])
