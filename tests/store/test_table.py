"""The rows of a cache as they are stored, and their digest by hand."""

import hashlib
import json
import struct
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from hfc.regions import strings
from hfc.store.table import Table, put_table, read_table
from tests.support.caches import fingerprints, regions

OK = np.array([True, False, True])


def test_rows_are_read_back(tmp_path: Path) -> None:
    table = Table(replace(regions(3), group=strings(["ä", "", "ä"])), OK, [(1, "bäd")], fingerprints(3))
    with h5py.File(tmp_path / "t.h5", "w") as file:
        put_table(file, table)
        back = read_table(file, Path("/elsewhere"), "folders", schema=2)
        old = read_table(file, Path("/elsewhere"), "folders", schema=1)
    assert (back.regions.root, back.regions.origin) == (Path("/elsewhere"), "folders")
    for name in ("id", "path", "label", "split", "group", "box"):
        np.testing.assert_array_equal(getattr(back.regions, name), getattr(table.regions, name))
    assert (back.ok.tolist(), back.failures) == (OK.tolist(), [(1, "bäd")])
    for name in ("sha256", "size", "modified"):
        np.testing.assert_array_equal(getattr(back.fingerprints, name), getattr(table.fingerprints, name))
    assert back.digest() == table.digest()
    assert (old.regions.group.tolist(), old.fingerprints) == (["", "", ""], None)
    assert old.digest() == Table(regions(3), OK, [(1, "bäd")]).digest()


@pytest.mark.parametrize("schema", [1, 2])
def test_the_digest_is_of_every_row(schema: int) -> None:
    names = [f"röw {i}" for i in range(3)]
    columns = [names, names, ["Tee"] * 3, ["train"] * 3]
    box = np.full((3, 4), np.nan, "<f4")
    box[0] = (1, 2, 3, 4)
    content = [columns, box.tobytes().hex(), [True, False, True], [[1, "bad"]]]
    if schema == 2:
        columns.append(["", "a", "a"])
        digests = b"".join(hashlib.sha256(str(i).encode()).digest() for i in range(3))
        numbers = struct.pack("<6q", 1000, 1001, 1002, 10**18, 10**18 + 1, 10**18 + 2)
        content.append(hashlib.sha256(digests + numbers).hexdigest())
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    rows = replace(regions(3), group=strings(["", "a", "a"])), OK, [(1, "bad")], fingerprints(3)
    assert Table(*rows[: schema + 2]).digest() == hashlib.sha256(text.encode()).hexdigest()
