"""Files that are whole or not there."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hfc import store
from hfc.errors import StoreError
from hfc.regions import strings
from hfc.store import files
from tests.support.caches import KEY, fingerprints, regions, shard_of, write


def test_leftovers_of_killed_processes_are_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in ("c.h5", "c.h5.12.part", "c[1].h5.3.part", "cc.h5.12.part"):
        (tmp_path / name).touch()
    store.remove_leftovers(tmp_path / "c.h5", tmp_path / "c[1].h5")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.h5", "cc.h5.12.part"]


def test_a_full_disk_leaves_the_old_cache_and_no_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write(tmp_path / "c.h5", 300)
    before = (tmp_path / "c.h5").read_bytes()
    with store.FeatureStore(tmp_path / "c.h5") as cache:
        old = cache.table()
    shard = shard_of(np.ones((3, 1, 8), np.float16))
    store.write_shard(tmp_path / "0.h5", shard, KEY)
    table = store.Table(regions(3), shard.ok, [], fingerprints(3))
    settings: dict[str, Any] = {"key_fields": KEY, "config": {}, "provenance": {}}
    predictions = store.Predictions(strings(["a"]), np.zeros(1, np.int64), (), np.ones((1, 2), np.float32))
    monkeypatch.setattr(os, "fsync", full)
    writers: list[Callable[[Path], None]] = [
        lambda path: store.write_shard(path, shard, KEY),
        lambda path: store.assemble(path, table, [tmp_path / "0.h5"], np.zeros(3), np.arange(3), **settings),
        lambda path: store.write_predictions(path, predictions),
    ]
    for writer in writers:
        with pytest.raises(StoreError, match=r"new\.h5: cannot be written: No space left on device"):
            writer(tmp_path / "new.h5")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["0.h5", "c.h5"]
    with pytest.raises(StoreError, match=r"c\.h5: cannot be written: No space left on device"):
        store.assemble(tmp_path / "c.h5", old, [tmp_path / "c.h5"], np.zeros(300), np.arange(300), **settings)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.h5", "c.h5"]
    assert (tmp_path / "c.h5").read_bytes() == before


def test_text_is_read_back_whatever_its_length(tmp_path: Path) -> None:
    texts = ["", "größe", "x" * 5000, *map(str, range(files.TEXT_ROWS))]
    with files.create(tmp_path / "t.h5") as file:
        files.put_text(file, "id", texts)
        files.put_attribute(file, "note", "größe")
        files.put_failures(file, [(3, "bäd"), (7, "")])
    with files.view(tmp_path / "t.h5") as file:
        assert files.get_text(file, "id").tolist() == texts
        assert files.get_attribute(file, "note") == "größe"
        assert files.get_failures(file) == [(3, "bäd"), (7, "")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (os.fsdecode(b"f\xe4h"), "/id: f\\xe4h is not UTF-8 text"),
        ("a\0", "/id: a text that ends in a NUL character cannot be stored"),
    ],
)
def test_text_that_cannot_be_stored_is_refused(text: str, message: str) -> None:
    with pytest.raises(StoreError) as caught:
        files.encode_text("id", ["fine", text])
    assert str(caught.value) == message
