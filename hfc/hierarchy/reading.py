"""Trees in files: which there are, which layout one has, and what is written."""

import csv
import difflib
import io
import logging
import re
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from hfc.errors import HierarchyError
from hfc.hierarchy.layouts import SIGN, Listing, from_edges, from_lines, from_rows, is_edges, warn_of_namesakes
from hfc.hierarchy.tree import Hierarchy, from_paths
from hfc.provenance import explained, replacing
from hfc.regions import DELIMITERS, decode_text, read_csv

logger = logging.getLogger(__name__)


def load_hierarchy(name_or_path: str) -> Hierarchy:
    """Load a hierarchy that ships with hfc by its name, or one from a file.

    A file has one of three layouts:

    - CSV with a header and a row for each leaf, its columns from the leaf to the coarsest level: `category,group` or
      `articleType,subCategory,masterCategory`; a cell is blank where a leaf has no node.
    - CSV with the header `node,parent` and a row for each node; the parent of a node of the first level is blank.
    - Lines of paths, `Apparel > Clothing > Dresses`, as in Google's product taxonomy; the leaves are the nodes that
      have none below them.

    The order of rows changes nothing: the tree is in canonical order.

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
            f"{path}: no such hierarchy; give a file or one of {', '.join(sorted(shipped))}{hint}"
        ) from None
    except OSError as error:
        raise HierarchyError(f"{path}: cannot read the hierarchy: {error}") from error
    listing = _listing(path, content)
    return from_paths(path.stem, listing.levels, [names for _, names in listing.paths]).in_canonical_order()


def _listing(path: Path, content: bytes) -> Listing:
    """Recognise a file's layout by what it holds, and read it."""
    text = decode_text(path, content, HierarchyError)
    if _holds_lines(path, text):
        return from_lines(str(path), io.StringIO(text, newline=None))
    table = read_csv(path, "hierarchy", content, error=HierarchyError)
    if is_edges(table.header, table.rows):
        return from_edges(str(path), table.rows)
    if len(table.header) == 1 and (line := re.search(f'^[^"\n]*{SIGN}.*$', text, re.MULTILINE)):
        raise HierarchyError(
            f"{path}: row 1: expected a line of a path or the names of levels above {line[0].strip()!r}, found "
            f"{table.header[0]}; if lines are paths, take row 1 out or name the file .txt; else quote the names"
        )
    listing = from_rows(str(path), [(1, table.header), *table.rows] if table.header else [])
    warn_of_namesakes(str(path), listing.paths)
    return listing


def _holds_lines(path: Path, text: str) -> bool:
    """Return whether a file is lines of paths, and no CSV.

    The first line is a path or a comment, or others lie below it. Or the file is named .txt, and some line has nothing
    that parts cells.
    """
    lines = [line.strip() for line in io.StringIO(text, newline=None) if line.strip()]
    if not lines or lines[0].startswith("# ") or SIGN in lines[0]:
        return bool(lines)
    if any(line.startswith(lines[0] + SIGN) for line in lines):
        return True
    return path.suffix.lower() == ".txt" and not all(any(sign in line for sign in DELIMITERS) for line in lines)


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
    listing = from_rows(where, [(number, row) for number, row in rows if any(row)])
    return from_paths(name, listing.levels, [names for _, names in listing.paths])
