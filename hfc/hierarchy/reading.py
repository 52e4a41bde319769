"""Trees in files: CSV in, CSV out."""

import csv
import difflib
import io
import logging
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path

from hfc.errors import HierarchyError
from hfc.hierarchy.names import canonical
from hfc.hierarchy.tree import Hierarchy, from_paths
from hfc.provenance import explained, replacing
from hfc.regions import Rows, read_csv

logger = logging.getLogger(__name__)


def load_hierarchy(name_or_path: str) -> Hierarchy:
    """Load a hierarchy that ships with hfc by its name, or one from CSV.

    The CSV has a header and one row a leaf, its columns from the leaf to the coarsest level:
    `category,group` or `articleType,subCategory,masterCategory`, any depth; blank cells fill up the row of a leaf with
    fewer nodes above it. The order of its rows changes nothing: the tree is in canonical order.

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
    for number, row in rows[1:]:
        if len(row) != len(header) or not row[0]:
            raise HierarchyError(
                f"{where}: row {number}: expected a leaf and the nodes above it ({','.join(header)}; blank where there "
                f"are fewer), found {','.join(row)!r}"
            )
        paths.append((number, [cell for cell in reversed(row) if cell]))
    names = _spelled(path for _, path in paths)
    first: dict[tuple[str, ...], int] = {}
    for number, cells in paths:
        path = tuple(names[h, canonical(cell)] for h, cell in enumerate(cells))
        if path in first:
            raise HierarchyError(
                f"{where}: row {number}: leaf {path[-1]} was named before, in row {first[path]}; name each leaf once"
            )
        first[path] = number
    return from_paths(name, header[::-1][: max(map(len, first))], first)


def _spelled(paths: Iterable[Sequence[str]]) -> dict[tuple[int, str], str]:
    """Choose one of the Unicode forms in which paths write each name of a level: NFC if one does."""
    spelled: dict[tuple[int, str], str] = {}
    for path in paths:
        for h, cell in enumerate(path):
            name = h, canonical(cell)
            spelled[name] = min(spelled.get(name, cell), cell, key=lambda form: (form != canonical(form), form))
    return spelled
