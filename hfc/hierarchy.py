"""The category tree: levels from coarse to fine, read from CSV.

Dimensions: H levels, C^h nodes on level h, C = C^H leaves.
"""

import csv
import difflib
import io
import logging
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfc.errors import HierarchyError
from hfc.provenance import digest, explained, replacing
from hfc.regions import Rows, read_csv

logger = logging.getLogger(__name__)

Ints = NDArray[np.int64]

PAD = "all leaves lie at one depth, so repeat the leaf's name in the blank levels"


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """A tree whose leaves all lie at the same depth.

    A node is named by its level and its name: the same name on two levels is two nodes.
    """

    name: str
    levels: tuple[str, ...]
    """Names of the H levels, coarse to fine."""
    nodes: tuple[tuple[str, ...], ...]
    """Names of the nodes of each level, coarse to fine; the last entry holds the leaves."""
    ancestors: Ints
    """(C, H): for each leaf the index of its ancestor on each level; the last column counts 0…C-1."""

    @property
    def leaves(self) -> tuple[str, ...]:
        """Names of the C leaves."""
        return self.nodes[-1]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of nodes on each level, coarse to fine."""
        return tuple(len(nodes) for nodes in self.nodes)

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

        The nodes above stand in the order of their first leaf. So the tree does not depend on who lists its leaves how,
        and neither do the numbers; those of a head over the leaves alone do not depend on the levels above either.
        """
        paths = (self.path(leaf) for leaf in range(len(self.leaves)))
        in_order = sorted(paths, key=lambda path: (canonical(path[-1]), path[-1]))
        return from_paths(self.name, self.name, self.levels, enumerate(in_order, 1))

    def to_csv(self) -> str:
        """Write the tree as `parse_hierarchy` reads it, nodes and leaves in the same order."""
        stream = io.StringIO()
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(self.levels[::-1])
        rows.writerows(self.path(leaf)[::-1] for leaf in range(len(self.leaves)))
        return stream.getvalue()

    def path(self, leaf: int) -> tuple[str, ...]:
        """Return the names of the nodes from the coarsest level to a leaf."""
        return tuple(nodes[node] for nodes, node in zip(self.nodes, self.ancestors[leaf], strict=True))

    def are_siblings(self, leaf: Any, other: Any) -> Any:
        """Return whether leaves have one parent: booleans, in the shape of the indices. One level has one parent."""
        parents = self.ancestors[:, -2] if len(self.levels) > 1 else np.zeros(len(self.leaves), dtype=np.int64)
        return parents[leaf] == parents[other]

    def index(self, labels: Sequence[str], where: str) -> Ints:
        """Return the (N,) leaf index of each label.

        A label may be written in another Unicode form, or with blanks around it.

        Args:
            labels: N leaf names.
            where: what holds the labels, for the message.

        Raises:
            HierarchyError: a label is no leaf of this tree.
        """
        position = {canonical(leaf): i for i, leaf in enumerate(self.leaves)}
        written = {label: canonical(label) for label in set(labels)}
        if unknown := sorted(label for label, name in written.items() if name not in position):
            near = difflib.get_close_matches(unknown[0], self.leaves, n=1, cutoff=0.75)
            hint = f"; is {unknown[0]} meant to be {near[0]}?" if near else f"; its leaves are {some(self.leaves)}"
            raise HierarchyError(
                f"hierarchy {self.name} does not fit {where}: it has no leaf for {some(unknown)}{hint}"
            )
        return np.array([position[written[label]] for label in labels], dtype=np.int64)


def lca_height(nodes: Iterable[Any], others: Iterable[Any]) -> Any:
    """Count the levels to climb from leaves to their lowest common ancestors with others.

    Two paths part once and do not meet again, so it is the number of levels on which they differ.

    Args:
        nodes: on each of H levels the nodes above the leaves, an integer array or tensor.
        others: the same of the others; the arrays of a level are broadcast.

    Returns:
        Integers, in the shape that the arrays of a level have together.
    """
    return sum(above != other for above, other in zip(nodes, others, strict=True))


def load_hierarchy(name_or_path: str) -> Hierarchy:
    """Load a hierarchy that ships with hfc by its name, or one from CSV.

    The CSV has a header and one row a leaf, its columns from the leaf to the coarsest level:
    `category,group` or `articleType,subCategory,masterCategory`, any depth. The order of its rows changes nothing: the
    tree is in canonical order.

    Raises:
        HierarchyError: no such name or file, or the rows are not a tree.
    """
    shipped = {Path(f.name).stem: f for f in (resources.files("hfc") / "hierarchies").iterdir()}
    if name_or_path in shipped:
        lines = io.StringIO(shipped[name_or_path].read_text("utf-8"))
        return parse_hierarchy(name_or_path, name_or_path, lines).in_canonical_order()
    path = Path(name_or_path)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        near = difflib.get_close_matches(name_or_path, shipped, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise HierarchyError(
            f"{path}: no such hierarchy; give a CSV file or one of {', '.join(sorted(shipped))}{hint}"
        ) from None
    except OSError as error:
        raise HierarchyError(f"{path}: cannot read the hierarchy: {error}") from error
    table = read_csv(path, "hierarchy", content, error=HierarchyError)
    rows = [(1, table.header), *table.rows] if table.header else []
    return _from_rows(path.stem, str(path), rows).in_canonical_order()


def tree_file(cache: Path) -> Path:
    """Return where the tree of a cache's data set is written. features.h5 has features.tree.csv beside it."""
    return cache.with_suffix(".tree.csv")


def keep_tree(file: Path, tree: str) -> None:
    """Write a tree as CSV, unless there is one already. Another one, perhaps mended by hand, stays, with a warning.

    Raises:
        RunError: the operating system refuses.
    """
    with explained(file, "the tree"):
        if file.exists():
            if file.read_bytes() != tree.encode("utf-8"):
                logger.warning("%s: is not the tree of the folders, and stays; remove it to have that written", file)
            return
    with replacing(file, "the tree", lambda other: False) as partial:
        partial.write_text(tree, "utf-8", newline="")


def parse_hierarchy(name: str, where: str, lines: Iterable[str]) -> Hierarchy:
    """Read a hierarchy from lines of CSV, as `to_csv` writes them, in their order.

    `where` names the file in messages.
    """
    try:
        rows = [(number, [cell.strip() for cell in row]) for number, row in enumerate(csv.reader(lines), 1)]
    except csv.Error as error:
        raise HierarchyError(f"{where}: not a CSV file: {error}") from error
    return _from_rows(name, where, [(number, row) for number, row in rows if any(row)])


def _from_rows(name: str, where: str, rows: Rows) -> Hierarchy:
    if len(rows) < 3:
        raise HierarchyError(f"{where}: expected a header and at least two leaves, found {len(rows)} rows")
    header = rows[0][1]
    if "" in header or len(set(map(canonical, header))) < len(header):
        raise HierarchyError(f"{where}: row 1: expected distinct level names, found {','.join(header)}")
    paths = []
    names = _spelled(row for _, row in rows[1:])
    for number, row in rows[1:]:
        if len(row) != len(header) or "" in row:
            hint = f"; {PAD}" if len(row) <= len(header) else ""
            raise HierarchyError(
                f"{where}: row {number}: expected {len(header)} names ({','.join(header)}), "
                f"found {','.join(row)!r}{hint}"
            )
        paths.append((number, tuple(names[h, canonical(cell)] for h, cell in enumerate(reversed(row)))))
    _check_leaves(where, paths)
    return from_paths(name, where, header[::-1], paths)


def _spelled(rows: Iterable[Sequence[str]]) -> dict[tuple[int, str], str]:
    """Choose one of the Unicode forms in which rows write each node: NFC if one does."""
    spelled: dict[tuple[int, str], str] = {}
    for row in rows:
        for h, cell in enumerate(reversed(row)):
            node = h, canonical(cell)
            spelled[node] = min(spelled.get(node, cell), cell, key=lambda form: (form != canonical(form), form))
    return spelled


def from_paths(name: str, where: str, levels: Sequence[str], paths: Iterable[tuple[int, tuple[str, ...]]]) -> Hierarchy:
    """Build a hierarchy from paths. Its nodes are in the order in which the paths name them.

    Args:
        name: the hierarchy's own name.
        where: what holds the paths, for the message.
        levels: H level names, coarse to fine.
        paths: of each row its number, for the message, and the H names from the coarsest node to the leaf; a path may
            come several times.

    Raises:
        HierarchyError: a node stands under two parents.
    """
    above: dict[tuple[int, str], tuple[int, tuple[str, ...]]] = {}
    for number, path in paths:
        for h, node in enumerate(path):
            row, other = above.setdefault((h, node), (number, path[:h]))
            if other != path[:h]:
                raise HierarchyError(
                    f"{where}: row {number}: {levels[h]} {node} stands under {' > '.join(path[:h])} here and under "
                    f"{' > '.join(other)} in row {row}; one node has one parent, so rename one of them"
                )
    leaves = [(*path, node) for (h, node), (_, path) in above.items() if h == len(levels) - 1]
    nodes = tuple(tuple(node for level, node in above if level == h) for h in range(len(levels)))
    position = [{node: i for i, node in enumerate(names)} for names in nodes]
    ancestors = np.array([[position[h][node] for h, node in enumerate(path)] for path in leaves], dtype=np.int64)
    return Hierarchy(name=name, levels=tuple(levels), nodes=nodes, ancestors=ancestors)


def _check_leaves(where: str, paths: list[tuple[int, tuple[str, ...]]]) -> None:
    """Raise a HierarchyError where a leaf is named twice."""
    seen: dict[str, int] = {}
    for number, path in paths:
        if path[-1] in seen:
            raise HierarchyError(
                f"{where}: row {number}: leaf {path[-1]} was named before, in row {seen[path[-1]]}; name each leaf once"
            )
        seen[path[-1]] = number


def canonical(name: str) -> str:
    """Return a class name as it is compared: in Unicode's NFC, without blanks around it."""
    return unicodedata.normalize("NFC", name.strip())


def spellings(names: Iterable[str]) -> list[list[str]]:
    """Return the names that are one name in several spellings, a sorted list for each."""
    together: defaultdict[str, set[str]] = defaultdict(set)
    for name in set(names):
        together[canonical(name)].add(name)
    return [sorted(same) for _, same in sorted(together.items()) if len(same) > 1]


def warn_of_spellings(where: str, labels: Iterable[str]) -> None:
    """Warn of labels that are one class in several spellings."""
    for same in spellings(labels):
        logger.warning("%s: one class in several spellings: %s", where, ", ".join(map(ascii, same)))


def some(names: Sequence[str], most: int = 5) -> str:
    """Join the first few names, and how many more there are, for a message."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
