"""Predictions as a file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hfc import store
from hfc.errors import StoreError
from hfc.regions import strings


def test_predictions_are_read_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    levels = tuple(rng.random((4, size), dtype=np.float32) for size in (2, 3))
    written = store.Predictions(strings(["a", "b", "ü", "d"]), np.array([0, 2, 1, 1]), levels, levels[1] / 2)
    store.write_predictions(tmp_path / "p.h5", written)
    got = store.read_predictions(tmp_path / "p.h5")
    assert (got.id.tolist(), got.target.tolist()) == (["a", "b", "ü", "d"], [0, 2, 1, 1])
    for mine, theirs in zip((*got.levels, got.final), (*levels, levels[1] / 2), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert got.group is None
    (tmp_path / "p.h5").write_text("x")
    with pytest.raises(StoreError, match="cannot read predictions"):
        store.read_predictions(tmp_path / "p.h5")


def test_a_file_without_groups_is_the_same_to_the_byte(tmp_path: Path) -> None:
    final = np.ones((2, 3), dtype=np.float32)
    written = store.Predictions(strings(["a", "b"]), np.array([0, 2]), (final,), final, "key")
    groups = {"none": None, "blank": strings(["", ""]), "some": strings(["", "dress"])}
    for name, group in groups.items():
        store.write_predictions(tmp_path / name, replace(written, group=group))
    none, blank, some = ((tmp_path / name).read_bytes() for name in groups)
    assert none == blank != some
    assert store.read_predictions(tmp_path / "blank").group is None
    got = store.read_predictions(tmp_path / "some")
    assert got.group is not None
    assert got.group.tolist() == ["", "dress"]
