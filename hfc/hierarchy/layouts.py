"""What a file says of a tree, in each of three layouts: rows of leaves, edges, lines of paths.

Dimension: H levels.
"""

import difflib
import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from hfc.errors import HierarchyError, warn_once
from hfc.hierarchy.names import canonical
from hfc.regions import Rows

logger = logging.getLogger(__name__)

Path = tuple[str, ...]
Numbered = list[tuple[int, Path]]

EDGES = ["node", "parent"]
SIGN = " > "
ID = re.compile(r"\d+ - ")


class Listing(NamedTuple):
    """The leaves of a file, in its order."""

    levels: list[str]
    """H names, coarse to fine."""
    paths: Numbered
    """Of each leaf the row that names it, and the names of the nodes from the coarsest to the leaf."""


def from_rows(where: str, rows: Rows) -> Listing:
    """List the leaves of rows from the leaf to the coarsest level. A cell is blank where a leaf has no node.

    Args:
        where: names the file in messages.
        rows: header and leaves, with their numbers.

    Raises:
        HierarchyError: these are no leaves of a tree.
    """
    if len(rows) < 3:
        raise HierarchyError(f"{where}: expected a header and at least two leaves, found {len(rows)} rows")
    header = rows[0][1]
    if "" in header or len(set(map(canonical, header))) < len(header):
        raise HierarchyError(f"{where}: row 1: expected distinct level names, found {','.join(header)}")
    paths = _spelled((number, _path(where, number, cells, header)) for number, cells in rows[1:])
    _refuse_twice(where, paths, lambda path: f"leaf {path[-1]}")
    above = {path[:h]: (number, path) for number, path in reversed(paths) for h in range(1, len(path))}
    for number, path in paths:
        if path in above:
            row, leaf = above[path]
            raise HierarchyError(
                f"{where}: row {number}: {SIGN.join(path)} is no leaf: {SIGN.join(leaf)} lies below it in row {row}; "
                "an inner node needs no row of its own"
            )
    used = [name for h, name in enumerate(header) if any(cells[h] for _, cells in rows[1:])]
    return Listing(used[::-1][: max(len(path) for _, path in paths)], paths)


def _path(where: str, number: int, cells: Sequence[str], header: Sequence[str]) -> Path:
    """Return the path that a row of a leaf holds."""
    if len(cells) != len(header) or not cells[0]:
        hint = "" if any(cells[:1]) else "; an inner node needs no row of its own"
        raise HierarchyError(
            f"{where}: row {number}: expected a leaf and the nodes above it ({','.join(header)}; blank where there are "
            f"fewer), found {','.join(cells)!r}{hint}"
        )
    return tuple(cell for cell in reversed(cells) if cell)


def warn_of_namesakes(where: str, paths: Iterable[tuple[int, Path]]) -> None:
    """Warn of inner nodes of one name on one level: they are several, where one may have been meant."""
    rows: dict[Path, int] = {}
    for number, path in paths:
        for h in range(1, len(path)):
            rows.setdefault(path[:h], number)
    named: defaultdict[tuple[int, str], list[str]] = defaultdict(list)
    for node, number in rows.items():
        named[len(node), node[-1]].append(f"{SIGN.join(node)} (row {number})")
    if several := [" and ".join(places[:2]) for places in named.values() if len(places) > 1]:
        several[5:] = [f"{len(several) - 5} more"] if len(several) > 5 else []
        warn_once(
            logger,
            f"{where}: one name under several parents is several nodes: {', '.join(several)}; "
            "where one is meant, give it one parent",
        )


def is_edges(header: Sequence[str], rows: Rows) -> bool:
    """Return whether a table lists edges, a node and its parent in a row.

    Such a header may also be that of leaves and their groups. There no parent is blank, and none is another row's node.
    """
    if list(header) != EDGES:
        return False
    nodes = {canonical(cells[0]) for _, cells in rows}
    parents = [(canonical(cells[0]), canonical(cells[1])) for _, cells in rows if len(cells) > 1]
    return any(not above or (above != node and above in nodes) for node, above in parents)


def from_edges(where: str, rows: Rows) -> Listing:
    """List the leaves of edges: a node and its parent in a row. The parent of a node on the first level is blank.

    Args:
        where: names the file in messages.
        rows: edges, with their numbers.

    Raises:
        HierarchyError: these are no edges of a tree.
    """
    parent: dict[str, str] = {}
    row: dict[str, int] = {}
    for number, cells in rows:
        node, above = _edge(where, number, cells)
        if node in row:
            raise HierarchyError(f"{where}: row {number}: {_listed_before(node, above, parent[node], row[node])}")
        parent[node], row[node] = above, number
    for node, above in parent.items():
        if above and above not in parent:
            near = difflib.get_close_matches(above, parent, n=1, cutoff=0.75)
            hint = (
                f"did you mean {near[0]}?"
                if near
                else f"give it a row, on the first level with a blank parent: {above},"
            )
            raise HierarchyError(
                f"{where}: row {row[node]}: the parent {above} of {node} is no node of the file; {hint}"
            )
    paths = _climb(where, parent, row)
    inner = set(parent.values())
    shown = _spelling(cell for _, cells in rows for cell in cells)
    leaves = [(row[node], tuple(shown[name] for name in paths[node])) for node in parent if node not in inner]
    return _numbered_levels(where, leaves)


def _edge(where: str, number: int, cells: Sequence[str]) -> tuple[str, str]:
    problem = f"{where}: row {number}: expected a node and its parent, found {','.join(cells)!r}"
    if len(cells) < 2:
        raise HierarchyError(f"{problem}; on the first level the parent is blank: {','.join(cells)},")
    if len(cells) > 2 or not cells[0]:
        raise HierarchyError(problem)
    return canonical(cells[0]), canonical(cells[1])


def _listed_before(node: str, above: str, other: str, row: int) -> str:
    """Say what is wrong with a node that two rows list."""
    if above == other:
        return f"node {node} was named before, in row {row}; name each node once"
    here, there = (f"under {parent}" if parent else "on the first level" for parent in (above, other))
    return (
        f"node {node} stands {here} here and {there} in row {row}; one node has one parent, so rename one of them, or "
        "write a line for each path"
    )


def _climb(where: str, parent: dict[str, str], row: dict[str, int]) -> dict[str, Path]:
    """Return the path of each node. Raises a HierarchyError for a node that lies below itself."""
    paths: dict[str, Path] = {"": ()}
    for start in parent:
        climbed: dict[str, None] = {}
        node = start
        while node not in paths:
            if node in climbed:
                circle = [*list(climbed)[list(climbed).index(node) :], node][::-1]
                raise HierarchyError(
                    f"{where}: row {row[node]}: {node} lies below itself: {SIGN.join(circle)}; "
                    "give one of them another parent, or a blank one"
                )
            climbed[node] = None
            node = parent[node]
        for below in reversed(climbed):
            paths[below] = (*paths[parent[below]], below)
    return paths


def from_lines(where: str, lines: Iterable[str]) -> Listing:
    """List the leaves of lines of paths, `Apparel > Clothing > Dresses`: the nodes that have none below them.

    Lines that begin with # are comments. Numbers before paths, as in `166 - Apparel`, are passed over if all have one.

    Args:
        where: names the file in messages.
        lines: a node each.

    Raises:
        HierarchyError: these are no nodes of a tree.
    """
    written = [(number, line.strip()) for number, line in enumerate(lines, 1)]
    written = [(number, line) for number, line in written if line and not line.startswith("#")]
    ids = all(ID.match(line) for _, line in written)
    paths: Numbered = []
    for number, line in written:
        names = tuple(name.strip() for name in (ID.sub("", line, count=1) if ids else line).split(SIGN.strip()))
        if "" in names:
            raise HierarchyError(f"{where}: row {number}: expected a name on each side of every >, found {line!r}")
        paths.append((number, names))
    paths = _spelled(paths)
    _refuse_twice(where, paths, lambda path: f"node {SIGN.join(path)}")
    inner = {path[:h] for _, path in paths for h in range(1, len(path))}
    return _numbered_levels(where, [(number, path) for number, path in paths if path not in inner])


def _numbered_levels(where: str, paths: Numbered) -> Listing:
    """Name the levels of leaves by their number."""
    if len(paths) < 2:
        raise HierarchyError(f"{where}: expected at least two leaves, found {len(paths)}")
    return Listing([f"level {h}" for h in range(1, max(len(path) for _, path in paths) + 1)], paths)


def _spelled(paths: Iterable[tuple[int, Path]]) -> Numbered:
    """Write each node in one of the Unicode forms that rows write it in."""
    rows = [(number, path, tuple(map(canonical, path))) for number, path in paths]
    shown: dict[Path, str] = {}
    for _, path, key in rows:
        for h, name in enumerate(path, 1):
            shown[key[:h]] = _better(shown.get(key[:h], name), name)
    return [(number, tuple(shown[key[:h]] for h in range(1, len(key) + 1))) for number, _, key in rows]


def _spelling(names: Iterable[str]) -> dict[str, str]:
    """Choose one of the Unicode forms of each name."""
    shown: dict[str, str] = {}
    for name in names:
        key = canonical(name)
        shown[key] = _better(shown.get(key, name), name)
    return shown


def _better(form: str, other: str) -> str:
    """Choose one of two Unicode forms of a name: NFC if one is."""
    return min(form, other, key=lambda name: (name != canonical(name), name))


def _refuse_twice(where: str, paths: Numbered, called: Callable[[Path], str]) -> None:
    """Raise a HierarchyError where a path is listed twice."""
    rows: dict[Path, int] = {}
    for number, path in paths:
        if path in rows:
            kind = called(path)
            raise HierarchyError(
                f"{where}: row {number}: {kind} was named before, in row {rows[path]}; name each {kind.split()[0]} once"
            )
        rows[path] = number
