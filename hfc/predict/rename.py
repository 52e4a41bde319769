"""A run whose categories have other names. Nothing is trained: all numbers stay as they are."""

import io
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from hfc import runs
from hfc.errors import HierarchyError, RunError
from hfc.hierarchy import Hierarchy, canonical, parse_hierarchy
from hfc.regions import read_csv
from hfc.runs import Run, TreeRecord
from hfc.train.folder import writing

COLUMNS = ("old", "new")

Names = Mapping[str, str]
"""The new name of a node by what is written for it: its name, or its path where several have the name."""


def rename_run(folder: Path, names: Path, out: Path) -> tuple[Run, Names]:
    """Write a run anew with other names of its categories.

    Weights, settings, predictions and measures are copied as they are, and so is the run's key, which names what they
    come from. hierarchy.csv has the new names, in its old order, and result.json lists what was renamed.

    Args:
        folder: the run's.
        names: a CSV file with the columns `old,new`, a row for each node to rename.
        out: the folder of the new run.

    Returns:
        The new run, and what was renamed.

    Raises:
        RunError: the run cannot be read, or the new one not written.
        HierarchyError: the file cannot be read, names a node that the tree lacks, or gives two nodes one name.
    """
    if not (folder / runs.RESULT).is_file():
        raise RunError(f"{folder}: no run; name the folder of one, as hfc train prints it")
    run = runs.read(folder)
    if out.resolve() == folder.resolve():
        raise RunError(f"{out}: is the run itself; name another folder for the renamed one")
    tree = runs.hierarchy(run)
    wanted = read_names(names)
    renamed = rename(tree, wanted, str(names))
    record = TreeRecord(name=tree.name, digest=renamed.digest, levels=renamed.levels, sizes=renamed.sizes)
    result = replace(run.result, run=out.name, hierarchy=record, renamed={**run.result.renamed, **wanted})
    copied = {name: (folder / name).read_bytes() for name in runs.FILES if name not in (runs.RESULT, runs.HIERARCHY)}
    with writing(out) as writer:
        for name, content in copied.items():
            (writer.folder / name).write_bytes(content)
        writer.hierarchy(renamed.to_csv())
        writer.result(result)
    return runs.read(out), wanted


def read_names(file: Path) -> Names:
    """Read what is to be renamed.

    Raises:
        HierarchyError: no CSV with the columns `old,new`, a blank cell, or a node that is listed twice.
    """
    table = read_csv(file, "names", error=HierarchyError)
    if table.header != list(COLUMNS):
        raise HierarchyError(f"{file}: row 1: expected the columns old,new, found {','.join(table.header)!r}")
    names: dict[str, str] = {}
    for number, cells in table.rows:
        if len(cells) != len(COLUMNS) or not all(cells):
            raise HierarchyError(f"{file}: row {number}: expected an old and a new name, found {','.join(cells)!r}")
        if cells[0] in names:
            raise HierarchyError(f"{file}: row {number}: {cells[0]} was listed before; list each node once")
        names[cells[0]] = cells[1]
    if not names:
        raise HierarchyError(f"{file}: expected a row for each node to rename, found only the header")
    return names


def rename(tree: Hierarchy, names: Names, where: str) -> Hierarchy:
    """Give nodes of a tree other names. Nodes, leaves and their order stay.

    Args:
        tree: the tree.
        names: the new ones.
        where: what holds them, for messages.

    Raises:
        HierarchyError: no such node or several, one that is named twice, two nodes that would have one name and had
            none before, or a name that the file of a tree cannot hold.
    """
    nodes = [list(level) for level in tree.nodes]
    first: dict[tuple[int, ...], str] = {}
    for old, new in names.items():
        path = tree.lookup.only(old, where)
        if path in first:
            raise HierarchyError(f"{where}: {first[path]} and {old} are one node; list it once")
        first[path] = old
        nodes[len(path) - 1][path[-1]] = new
    renamed = replace(tree, nodes=tuple(map(tuple, nodes)))
    _refuse_collisions(tree, renamed, where)
    read = parse_hierarchy(tree.name, where, io.StringIO(renamed.to_csv(), newline=None))
    if read.digest != renamed.digest:
        raise HierarchyError(
            f"{where}: a name that the file of a tree cannot hold; leave out line breaks and blank names"
        )
    return renamed


def _refuse_collisions(tree: Hierarchy, renamed: Hierarchy, where: str) -> None:
    """Raise a HierarchyError where nodes of different names would have the same."""
    together: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for before, after in zip(tree.nodes, renamed.nodes, strict=True):
        for old, new in zip(before, after, strict=True):
            together[canonical(new)][canonical(old)] = None
    for new, names in together.items():
        if len(names) > 1:
            raise HierarchyError(
                f"{where}: {' and '.join(sorted(names))} would all be named {new}, so that no answer could tell them "
                "apart; give each a name of its own"
            )
