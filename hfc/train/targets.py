"""Turn the labels or paths of the estimator's caller into a tree and its nodes.

Dimensions: N rows, H levels (coarse to fine), C leaves.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.multiclass import check_classification_targets

from hfc.errors import HierarchyError
from hfc.hierarchy import Hierarchy, canonical, from_paths, join_path, load_hierarchy, some

Labels = NDArray[Any]
Ints = NDArray[np.int64]
Labelled = tuple[Any, ...]
"""A node: the labels on the way down to it."""

Place = tuple[int, ...]
"""A node: the indices on the way down to it."""

PAD = "only the end of a path may be blank"


class Tree(NamedTuple):
    """A tree over labels of any type."""

    hierarchy: Hierarchy
    """Its nodes, named by the text of their labels; its leaves stand in the order of the classes."""
    classes: Labels
    """(C,) what each leaf is called, sorted: its label, or the text of its path where several leaves have that."""
    paths: Labels
    """(C, H) the path of each leaf, "" below it."""


def as_table(where: str, y: Any) -> Any:
    """Bring labels or paths into one array: (N,) labels, or (N, H) paths with "" below their ends.

    None stays None.

    Args:
        where: what holds them, for messages.
        y: labels, paths of one length, paths filled up with "", None or NaN, or lists of several lengths.

    Raises:
        HierarchyError: a label is blank, or a node of a path but the last ones.
        ValueError: labels are numbers that are no classes.
    """
    if y is None:
        return y
    try:
        array = np.asarray(y)
    except ValueError:  # lists of several lengths
        return as_table(where, _filled(where, y))
    if (
        array.dtype == np.object_
        and array.ndim == 1
        and any(isinstance(row, list | tuple | np.ndarray) for row in array)
    ):
        return as_table(where, _filled(where, array.tolist()))
    if array.ndim not in (1, 2) or array.dtype.kind not in "OUf" or (array.ndim == 1 and array.dtype.kind == "f"):
        return array
    # As text, a list's missing names would be called nan and its numbers would be text.
    cells = np.asarray(y, dtype=np.object_)
    blank = np.array([_is_blank(cell) for cell in cells.flat], dtype=np.bool_).reshape(cells.shape)
    if array.ndim == 2 and array.shape[1] > 1:
        return _padded(where, array, cells, blank)
    if blank.any():
        raise HierarchyError(f"{where}: row {int(blank.argmax())}: no label; leave the row out")
    return array


def _filled(where: str, rows: Iterable[Any]) -> list[list[Any]]:
    """Fill paths up to one length."""
    paths = []
    for row, path in enumerate(rows):
        if not isinstance(path, list | tuple | np.ndarray):
            raise HierarchyError(f"{where}: row {row}: expected a path as in the other rows, found {path!r}")
        if any(isinstance(node, list | tuple | np.ndarray) for node in path):
            raise HierarchyError(f"{where}: row {row}: expected one path, coarse to fine, found {path!r}")
        paths.append(list(path))
    longest = max(2, *map(len, paths))
    return [path + [None] * (longest - len(path)) for path in paths]


def _padded(where: str, array: Labels, cells: Labels, blank: NDArray[np.bool_]) -> Labels:
    """Put "" into the (N, H) blank cells of paths."""
    gap = blank[:, 0] | (blank[:, :-1] & ~blank[:, 1:]).any(axis=1)
    if gap.any():
        row = int(gap.argmax())
        problem = "no label; leave the row out" if blank[row].all() else f"{PAD}, found {cells[row].tolist()}"
        raise HierarchyError(f"{where}: row {row}: {problem}")
    text = all(isinstance(cell, str) for cell in cells[~blank])
    if not blank.any():
        return array if text or array.dtype.kind == "f" else cells
    if array.dtype.kind == "f":
        check_classification_targets(array[~blank])
    padded: Labels = np.where(blank, "", cells)
    return np.array(padded.tolist()) if text else padded


def _is_blank(cell: object) -> bool:
    return not cell.strip() if isinstance(cell, str) else cell is None or str(cell) in ("nan", "NaT", "<NA>")


def tree_of(name: str, table: Labels, levels: Sequence[str] = ()) -> Tree:
    """Make the tree of paths. A path that begins another one is an inner node's.

    Args:
        name: what messages call it.
        table: (N, H) paths with "" below their ends, in any order, or (N, 1) labels.
        levels: names of the levels, coarse to fine; else they are numbered.

    Raises:
        HierarchyError: two labels are alike as text.
        ValueError: it has one leaf.
    """
    paths = dict.fromkeys(_ended(row) for row in table.tolist())
    inner = {path[:depth] for path in paths for depth in range(1, len(path))}
    ends = [path for path in paths if path not in inner]
    leaves = _named(ends)
    classes = _ordered(leaves)
    if len(ends) < 2:
        raise ValueError(f"{name}: expected at least two classes, found {classes}")
    ordered = [leaves[label] for label in classes]
    levels = levels or [f"level {h}" for h in range(1, max(map(len, ordered)) + 1)]
    hierarchy = from_paths(name, levels, [tuple(str(node) for node in path) for path in ordered])
    if len(hierarchy.ancestors) < len(ends):
        raise HierarchyError(f"{name}: expected labels that differ as text, found {some([*map(repr, ends)])}")
    kind = None if table.dtype.kind == "U" else table.dtype
    numbers = all(isinstance(label, int | float | np.number) for label in classes)
    own_kind = None if numbers and kind == np.object_ else kind  # scikit-learn scores no objects
    rows = [[*path, *[""] * (len(levels) - len(path))] for path in ordered]
    return Tree(hierarchy, np.array(classes, dtype=own_kind), np.array(rows, dtype=kind))


def _ended(row: Sequence[Any]) -> Labelled:
    """Leave out the "" below the end of a path."""
    return tuple(row[: row.index("")] if "" in row else row)


def _named(paths: Sequence[Labelled]) -> dict[Any, Labelled]:
    """Give leaves their names: the label, or the text of the path where several have that label."""
    times = Counter(canonical(str(path[-1])) for path in paths)
    return {
        path[-1] if times[canonical(str(path[-1]))] == 1 else join_path([str(node) for node in path]): path
        for path in paths
    }


def _ordered(labels: Iterable[Any]) -> list[Any]:
    """Sort labels; those of several types by their text."""
    try:
        return sorted(labels)
    except TypeError:
        return sorted(labels, key=str)


def given_tree(hierarchy: str | Path | Hierarchy | Mapping[Any, Sequence[Any]]) -> Tree:
    """Make the tree of a hierarchy as the estimator takes it.

    Raises:
        HierarchyError: there is no such hierarchy, or a path does not end in its leaf.
        ValueError: it has one leaf.
    """
    if not isinstance(hierarchy, Mapping):
        loaded = hierarchy if isinstance(hierarchy, Hierarchy) else load_hierarchy(str(hierarchy))
        paths = [loaded.path(leaf) for leaf in range(len(loaded.ancestors))]
        filled = [[*path, *[""] * (len(loaded.levels) - len(path))] for path in paths]
        return tree_of(loaded.name, np.array(filled), loaded.levels)
    for leaf, path in hierarchy.items():
        if isinstance(path, str) or len(path) == 0:
            raise HierarchyError(_no_path(leaf, path))
    table = as_table("hierarchy", [list(path) for path in hierarchy.values()])
    for leaf, path in zip(hierarchy, map(_ended, table.tolist()), strict=True):
        if leaf != path[-1] and leaf != join_path([str(node) for node in path]):
            raise HierarchyError(_no_path(leaf, list(path)))
    return tree_of("hierarchy", table)


def _no_path(leaf: Any, path: Any) -> str:
    return f"hierarchy: {leaf!r}: expected its path, coarse to fine and ending in {leaf!r}, found {path!r}"


def find(tree: Tree, table: Labels) -> Ints:
    """Find the node of each row: (N, H), its path of indices, −1 below it; −1 alone where there is none.

    Args:
        tree: the tree.
        table: (N, H') paths with "" below their ends, or (N, 1) labels. A label is a leaf's, else an inner node's. In a
            tree of text it may also be the text of a path, or of the end of one, and be in another Unicode form.

    Raises:
        HierarchyError: a label may be several nodes.
    """
    rows = [_ended(row) for row in table.tolist()]
    number = {row: i for i, row in enumerate(dict.fromkeys(rows))}
    nodes = _nodes(tree)
    meanings = {labels: [place] for labels, place in nodes.items()} if table.shape[1] > 1 else _by_label(tree, nodes)
    written = all(isinstance(labels[-1], str) for labels in nodes)
    lookup = tree.hierarchy.lookup
    result = np.full((len(number), len(tree.hierarchy.levels)), -1, dtype=np.int64)
    for row, i in number.items():
        places = meanings.get(row, [])
        if len(places) != 1 and written and all(isinstance(label, str) for label in row):
            places = lookup.find(row[0] if table.shape[1] == 1 else join_path(["", *row]))
        if len(places) > 1:
            paths = some(sorted(join_path(lookup.written[place]) for place in places))
            raise HierarchyError(f"y: the hierarchy has {row[0]!r} at several places; give its path: {paths}")
        for place in places:
            result[i, : len(place)] = place
    return result[[number[row] for row in rows]]


def _nodes(tree: Tree) -> dict[Labelled, Place]:
    """Give the indices on the way to each node by the labels on it."""
    paths = zip(map(_ended, tree.paths.tolist()), tree.hierarchy.ancestors.tolist(), strict=True)
    return {path[:depth]: tuple(row[:depth]) for path, row in paths for depth in range(1, len(path) + 1)}


def _by_label(tree: Tree, nodes: Mapping[Labelled, Place]) -> dict[Labelled, list[Place]]:
    """List the nodes of each label; where it is a class, that leaf."""
    named: defaultdict[Labelled, list[Place]] = defaultdict(list)
    for labels, place in nodes.items():
        named[labels[-1:]].append(place)
    classes = zip(tree.classes.tolist(), tree.paths.tolist(), strict=True)
    return {**named, **{(label,): [nodes[_ended(path)]] for label, path in classes}}


def refuse_unknown(tree: Tree, table: Labels, nodes: Ints) -> None:
    """Check that each row has a node.

    Args:
        tree: the tree.
        table: (N, H') paths or (N, 1) labels.
        nodes: (N, H) what `find` gave for them.

    Raises:
        HierarchyError: one has none.
    """
    rows = np.flatnonzero(nodes[:, 0] < 0).tolist()
    if not rows:
        return
    path = _ended(table[rows[0]].tolist())
    known = [list(labels) for labels in _nodes(tree) if labels[-1] == path[-1]]
    if known and table.shape[1] > 1:
        expected = f"the path {known[0]}" if len(known) == 1 else f"a path, such as {some([*map(str, known)])}"
        raise HierarchyError(f"y: row {rows[0]}: expected {expected}, found {list(path)}")
    unknown = _ordered({_ended(table[row].tolist())[-1] for row in rows})
    raise HierarchyError(
        f"y does not fit the hierarchy: no node for {some([*map(repr, unknown)])}; "
        f"its leaves are {some([*map(repr, tree.classes.tolist())])}"
    )
