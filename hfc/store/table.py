"""The rows of a cache beside their features. Dimension: N regions."""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from hfc.provenance import digest
from hfc.regions import Regions
from hfc.store.files import Failures, get_failures, get_text, put_array, put_failures, put_text

COLUMNS = ("id", "path", "label", "split")


@dataclass(frozen=True)
class Table:
    """What a cache knows of its rows beside their features."""

    regions: Regions
    ok: NDArray[np.bool_]
    """(N,) whether the region has features; False rows hold zeros."""
    failures: Failures
    """Row and reason, where not ok."""

    def digest(self) -> str:
        """Compute the SHA-256 over every row."""
        columns = [getattr(self.regions, name).tolist() for name in COLUMNS]
        box = np.ascontiguousarray(self.regions.box, dtype="<f4").tobytes().hex()
        return digest([columns, box, self.ok.tolist(), [[row, reason] for row, reason in self.failures]])


def put_table(file: h5py.File, table: Table) -> None:
    """Write the rows into a cache."""
    for name in COLUMNS:
        put_text(file, name, getattr(table.regions, name))
    put_array(file, "box", table.regions.box)
    put_array(file, "ok", table.ok)
    put_failures(file, table.failures)


def read_table(file: h5py.File, root: Path, origin: str) -> Table:
    """Read the rows of `put_table`; root and origin are those of the data set."""
    ids, paths, labels, splits = (get_text(file, name) for name in COLUMNS)
    regions = Regions(root, origin, ids, paths, file["box"][:], labels, splits)
    return Table(regions, file["ok"][:], get_failures(file))
