"""What a look at a cache counts."""

from pathlib import Path

import numpy as np
import pytest

from hfc import store
from hfc.provenance import digest
from tests.support.caches import KEY, put, regions


def test_a_survey_counts_what_is_there(tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(6, 1, 4)).astype(np.float32)
    features[0], features[:, 0, 2] = 0, 5
    features[4] = features[2]
    ok = np.arange(6) != 0
    features[~ok] = 0
    table = regions(6)
    table.label[3:] = "Tie"
    table.split[5] = ""
    put(tmp_path / "c.h5", table, features, key_fields=KEY, ok=ok, failures=[(0, "bad")])
    found = store.survey(tmp_path / "c.h5")
    norms = np.sqrt((features[1:, 0].astype(float) ** 2).sum(axis=1))
    assert (found.shape, found.dtype, found.key) == ((6, 1, 4), "float32", digest(KEY))
    assert (found.labels, found.splits) == ({"Tee": 3, "Tie": 3}, {"train": 5, "": 1})
    assert found.failures == [("röw 0", "bad")]
    assert found.norms == pytest.approx(
        {"least": norms.min(), "median": np.median(norms), "mean": norms.mean(), "greatest": norms.max()}
    )
    assert (found.dead, found.duplicates) == ([2], [["röw 2", "röw 4"]])
    assert found.mean == pytest.approx(features[1:].mean(), rel=1e-5)
    assert found.zeros == 0
