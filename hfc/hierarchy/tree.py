"""The category tree: nodes by level, a path for each leaf, heights.

Dimensions: H levels (coarse to fine), C^h nodes on level h, C leaves, N labels.
"""

import csv
import difflib
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfc.errors import HierarchyError
from hfc.hierarchy.lookup import Lookup, from_root, join_path, split_path
from hfc.hierarchy.names import canonical, some
from hfc.provenance import digest

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """A tree whose leaves may lie at any depth.

    A level is a depth: the nodes of level h have h − 1 nodes between them and the root, which is no node itself. A node
    is its path: nodes of one name in two places are two nodes. A leaf that ends above the last level has no node below.
    """

    name: str
    levels: tuple[str, ...]
    """Names of the H levels, coarse to fine."""
    nodes: tuple[tuple[str, ...], ...]
    """Names of the nodes of each level, coarse to fine."""
    ancestors: Ints
    """(C, H): for each leaf the index of its node on each level, −1 below the leaf. Of an even tree, where all leaves
    lie on the last level, the last column counts 0…C-1."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of nodes on each level, coarse to fine."""
        return tuple(len(nodes) for nodes in self.nodes)

    @cached_property
    def even(self) -> bool:
        """Whether all leaves lie on the last level."""
        return bool((self.ancestors >= 0).all())

    @cached_property
    def depths(self) -> Ints:
        """(C,) on which level each leaf lies, counted from 1."""
        depths: Ints = (self.ancestors >= 0).sum(axis=1)
        return depths

    @cached_property
    def leaves(self) -> tuple[str, ...]:
        """What each of the C leaves is called: its name, or its path where several leaves have that name.

        The path begins with `>` where it would be read as a name else, as that of a leaf on the first level.
        """
        paths = [self.path(leaf) for leaf in range(len(self.ancestors))]
        times = Counter(canonical(path[-1]) for path in paths)

        def text(path: Sequence[str]) -> str:
            written = join_path(path)
            return from_root(path) if canonical(written) in times else written

        return tuple(path[-1] if times[canonical(path[-1])] == 1 else text(path) for path in paths)

    @cached_property
    def falls(self) -> Ints:
        """(C, H): how much lower each node of a leaf's path is than its parent; 0 below the leaf.

        A node's height is the longest way from it down to a leaf, in levels; the root's is H. Of an even tree all
        falls are 1.
        """
        return falls(self.ancestors)

    def columns(self, others: Iterable[str]) -> tuple[str, ...]:
        """Name a column for every level in a table, coarse to fine.

        It is the level's own name where no other column has it; else `level` is put behind it, as often as it takes. No
        column is named `NAME probability` either.

        Args:
            others: names of the table's other columns.
        """
        taken, names = set(others), []
        for level in self.levels:
            name = level
            while {name, f"{name} probability"} & taken:
                name += " level"
            taken |= {name, f"{name} probability"}
            names.append(name)
        return tuple(names)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of level names, node names and ancestors, in their order. The tree's own name does not change it."""
        return digest([self.levels, self.nodes, self.ancestors.tolist()])

    def in_canonical_order(self) -> "Hierarchy":
        """Put the leaves in the order of their names.

        Leaves of one name are in the order of their paths.

        The nodes above stand in the order of their first leaf. So the tree does not depend on who lists its leaves how,
        and neither do the numbers; those of a head over the leaves alone do not depend on the levels above either.
        """
        paths = (self.path(leaf) for leaf in range(len(self.ancestors)))
        in_order = sorted(paths, key=lambda path: (canonical(path[-1]), path[-1], path))
        return from_paths(self.name, self.levels, in_order)

    def to_csv(self) -> str:
        """Write the tree as `parse_hierarchy` reads it, nodes and leaves in the same order.

        A row holds a leaf and the nodes above it, from the leaf upwards; blank cells fill it up.
        """
        stream = io.StringIO()
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(self.levels[::-1])
        for leaf, depth in enumerate(self.depths.tolist()):
            rows.writerow([*self.path(leaf)[::-1], *[""] * (len(self.levels) - depth)])
        return stream.getvalue()

    def path(self, leaf: int) -> tuple[str, ...]:
        """Return the names of the nodes from the coarsest level down to a leaf."""
        return self.names(self.ancestors[leaf].tolist())

    def names(self, path: Sequence[int]) -> tuple[str, ...]:
        """Return the names on a path of indices, which ends at the first −1."""
        return tuple(nodes[node] for nodes, node in zip(self.nodes, path, strict=False) if node >= 0)

    def are_siblings(self, leaf: Any, other: Any) -> Any:
        """Return whether leaves have one parent: booleans, in the shape of the indices."""
        above = np.concatenate([np.full((len(self.ancestors), 1), -1), self.ancestors], axis=1)
        parents = np.take_along_axis(above, self.depths[:, None] - 1, axis=1)[:, 0]
        return (parents[leaf] == parents[other]) & (self.depths[leaf] == self.depths[other])

    @cached_property
    def lookup(self) -> Lookup:
        """The nodes by what may be written for them."""
        paths = {tuple(row[: h + 1]): None for row in self.ancestors.tolist() for h in range(len(row)) if row[h] >= 0}
        leaves = {tuple(node for node in row if node >= 0) for row in self.ancestors.tolist()}
        return Lookup(self.name, [(path, self.names(path)) for path in sorted(paths, key=len)], leaves)

    def find(self, labels: Sequence[str], where: str) -> Ints:
        """Find the node that each label means: (N, H), its path of indices, −1 below it.

        A label is the name of a leaf or of an inner node, or a path such as `Tops > Other`, whole or its end; it may be
        written in another Unicode form, or with blanks around it.

        Args:
            labels: N of them.
            where: what holds the labels, for the message.

        Raises:
            HierarchyError: a label is no node of this tree, or may be several.
        """
        lookup = self.lookup
        meant = {label: lookup.find(label) for label in dict.fromkeys(labels)}
        unknown = sorted(label for label, nodes in meant.items() if not nodes)
        if unknown:
            names = list(dict.fromkeys(node for nodes in reversed(self.nodes) for node in nodes))
            near = difflib.get_close_matches(split_path(unknown[0])[-1], names, n=1, cutoff=0.75)
            hint = f"; is {unknown[0]} meant to be {near[0]}?" if near else f"; its leaves are {some(self.leaves)}"
            raise HierarchyError(
                f"hierarchy {self.name} does not fit {where}: it has no node for {some(unknown)}{hint}"
            )
        place = {label: i for i, label in enumerate(meant)}
        paths = np.full((len(meant), len(self.levels)), -1, dtype=np.int64)
        for row, (label, nodes) in enumerate(meant.items()):
            path = lookup.pick(nodes, label, where)
            paths[row, : len(path)] = path
        return paths[[place[label] for label in labels]]

    def leaf(self, paths: Ints) -> Ints:
        """Find the leaf at the end of each of (N, H) paths, (N,): −1 where that is an inner node."""
        leaf, depth = np.full(len(paths), -1, dtype=np.int64), (paths >= 0).sum(axis=1)
        for h, size in enumerate(self.sizes):
            ends, rows = np.flatnonzero(self.depths == h + 1), np.flatnonzero(depth == h + 1)
            number = np.full(size, -1, dtype=np.int64)
            number[self.ancestors[ends, h]] = ends
            leaf[rows] = number[paths[rows, h]]
        return leaf

    def index(self, labels: Sequence[str], where: str) -> Ints:
        """Find the leaf that each label means, (N,).

        Raises:
            HierarchyError: a label is no leaf of this tree; see `find`.
        """
        leaf = self.leaf(self.find(labels, where))
        if (leaf < 0).any():
            inner = sorted({label for label, number in zip(labels, leaf.tolist(), strict=True) if number < 0})
            raise HierarchyError(
                f"hierarchy {self.name} does not fit {where}: it has no leaf for {some(inner)}, an inner node"
            )
        return leaf


def falls(ancestors: Ints) -> Ints:
    """Compute what `Hierarchy.falls` gives, from the ancestors of its leaves alone."""
    fall = np.zeros_like(ancestors)
    depths = (ancestors >= 0).sum(axis=1)
    above = np.full(len(ancestors), ancestors.shape[1])
    for h, column in enumerate(ancestors.T):
        on = column >= 0
        deepest = np.zeros(column.max() + 1, dtype=np.int64)
        np.maximum.at(deepest, column[on], depths[on])
        height = deepest[column[on]] - (h + 1)
        fall[on, h] = above[on] - height
        above[on] = height
    return fall


def lca_height(nodes: Iterable[Any], others: Iterable[Any], falls: Iterable[Any]) -> Any:
    """Compute the heights of the lowest common ancestors of leaves and other leaves.

    From the lowest common ancestor down to a leaf the heights fall to 0, and it is there that the paths differ: so it
    is the sum of the falls on the levels on which they do. On an even tree that is the number of those levels.

    Args:
        nodes: on each of H levels the nodes above the leaves, an integer array or tensor, −1 below a leaf.
        others: the same of the others; the arrays of a level are broadcast.
        falls: on each level those of the leaves, see `Hierarchy.falls`.

    Returns:
        Integers, in the shape that the arrays of a level have together.
    """
    levels = zip(nodes, others, falls, strict=True)
    return sum((above != other) * fall for above, other, fall in levels)


def from_paths(name: str, levels: Sequence[str], paths: Iterable[tuple[str, ...]]) -> Hierarchy:
    """Build a hierarchy from paths. Its nodes are in the order in which the paths name them.

    Args:
        name: the hierarchy's own name.
        levels: H level names, coarse to fine.
        paths: names from the coarsest node down, at most H each. A path may come several times; one that begins another
            names an inner node.
    """
    numbers: dict[tuple[str, ...], int] = {}
    sizes = [0] * len(levels)
    for path in paths:
        for depth in range(1, len(path) + 1):
            if path[:depth] not in numbers:
                numbers[path[:depth]] = sizes[depth - 1]
                sizes[depth - 1] += 1
    inner = {path[:-1] for path in numbers}
    leaves = [path for path in numbers if path not in inner]
    ancestors = np.full((len(leaves), len(levels)), -1, dtype=np.int64)
    for row, path in enumerate(leaves):
        ancestors[row, : len(path)] = [numbers[path[:depth]] for depth in range(1, len(path) + 1)]
    nodes = tuple(tuple(path[-1] for path in numbers if len(path) == h) for h in range(1, len(levels) + 1))
    return Hierarchy(name=name, levels=tuple(levels), nodes=nodes, ancestors=ancestors)
