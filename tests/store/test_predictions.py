"""Predictions as a file."""

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
    (tmp_path / "p.h5").write_text("x")
    with pytest.raises(StoreError, match="cannot read predictions"):
        store.read_predictions(tmp_path / "p.h5")
