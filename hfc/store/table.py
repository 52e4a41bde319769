"""The rows of a cache beside their features. Dimension: N regions."""

from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from hfc.provenance import digest
from hfc.regions import Regions
from hfc.store.files import Failures, get_failures, get_text, put_array, put_failures, put_text
from hfc.store.fingerprints import Fingerprints, identities

Rows = NDArray[np.int64]
FIRST_COLUMNS = ("id", "path", "label", "split")  # those of schema 1
COLUMNS = (*FIRST_COLUMNS, "group")


@dataclass(frozen=True)
class Table:
    """What a cache knows of its rows beside their features."""

    regions: Regions
    ok: NDArray[np.bool_]
    """(N,) whether the region has features; False rows hold zeros."""
    failures: Failures
    """Row and reason, where not ok."""
    fingerprints: Fingerprints | None = None
    """Of the rows' images. None: read from a cache of schema 1, which has neither them nor groups."""

    def fingerprinted(self) -> "Table":
        """Return the same rows as schema 2 holds them."""
        return self if self.fingerprints else replace(self, fingerprints=Fingerprints.unknown(len(self.ok)))

    def copies(self) -> list[Rows]:
        """Find the sets of rows whose images have the same bytes and boxes.

        Each is in order, the largest first.
        """
        if self.fingerprints is None:
            return []
        rows: defaultdict[bytes, list[int]] = defaultdict(list)
        for row, identity in enumerate(identities(self.fingerprints.sha256, self.regions.box)):
            if identity:
                rows[identity].append(row)
        return sorted((np.array(some) for some in rows.values() if len(some) > 1), key=len, reverse=True)

    def groups(self) -> list[Rows]:
        """Find the groups, each with its rows in order. A row by itself is in none."""
        rows: defaultdict[str, list[int]] = defaultdict(list)
        for row, group in enumerate(self.regions.group.tolist()):
            if group:
                rows[group].append(row)
        return [np.array(some) for some in rows.values()]

    def digest(self) -> str:
        """Compute the SHA-256 over every row, by the rule of its schema."""
        names = COLUMNS if self.fingerprints else FIRST_COLUMNS
        columns = [getattr(self.regions, name).tolist() for name in names]
        box = np.ascontiguousarray(self.regions.box, dtype="<f4").tobytes().hex()
        content = [columns, box, self.ok.tolist(), [[row, reason] for row, reason in self.failures]]
        return digest([*content, self.fingerprints.digest()] if self.fingerprints else content)


def put_table(file: h5py.File, table: Table) -> None:
    """Write the rows into a cache of schema 2."""
    fingerprints = table.fingerprints or Fingerprints.unknown(len(table.ok))
    for name in COLUMNS:
        put_text(file, name, getattr(table.regions, name))
    put_array(file, "box", table.regions.box)
    put_array(file, "ok", table.ok)
    put_failures(file, table.failures)
    put_array(file, "sha256", fingerprints.sha256)
    put_array(file, "size", fingerprints.size)
    put_array(file, "modified", fingerprints.modified)


def read_table(file: h5py.File, root: Path, origin: str, schema: int) -> Table:
    """Read the rows of a cache of a schema; root and origin are those of the data set."""
    ids, paths, labels, splits = (get_text(file, name) for name in FIRST_COLUMNS)
    regions = Regions(root, origin, ids, paths, file["box"][:], labels, splits)
    table = Table(regions, file["ok"][:], get_failures(file))
    if schema == 1:
        return table
    fingerprints = Fingerprints(file["sha256"][:], file["size"][:], file["modified"][:])
    return replace(table, regions=replace(regions, group=get_text(file, "group")), fingerprints=fingerprints)
