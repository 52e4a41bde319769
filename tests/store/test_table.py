"""The rows of a cache as they are stored, and their digest by hand."""

import hashlib
import json
from pathlib import Path

import h5py
import numpy as np

from hfc.store.table import Table, put_table, read_table
from tests.support.caches import regions

OK = np.array([True, False, True])


def test_rows_are_read_back(tmp_path: Path) -> None:
    table = Table(regions(3), OK, [(1, "bäd")])
    with h5py.File(tmp_path / "t.h5", "w") as file:
        put_table(file, table)
        back = read_table(file, Path("/elsewhere"), "folders")
    assert (back.regions.root, back.regions.origin) == (Path("/elsewhere"), "folders")
    for name in ("id", "path", "label", "split", "box"):
        np.testing.assert_array_equal(getattr(back.regions, name), getattr(table.regions, name))
    assert (back.ok.tolist(), back.failures) == (OK.tolist(), [(1, "bäd")])
    assert back.digest() == table.digest()


def test_the_digest_is_of_every_row() -> None:
    names = [f"röw {i}" for i in range(3)]
    columns = [names, names, ["Tee"] * 3, ["train"] * 3]
    box = np.full((3, 4), np.nan, "<f4")
    box[0] = (1, 2, 3, 4)
    content = [columns, box.tobytes().hex(), [True, False, True], [[1, "bad"]]]
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    assert Table(regions(3), OK, [(1, "bad")]).digest() == hashlib.sha256(text.encode()).hexdigest()
