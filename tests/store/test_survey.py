"""What a look at a cache counts."""

from pathlib import Path

import numpy as np
import pytest

from hfc import store
from hfc.provenance import digest
from hfc.store.survey import Crossing
from tests.support.caches import KEY, fingerprints, put, regions

MADE = Path(__file__).parents[1] / "made_before"


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
    assert (found.copies, found.groups) == ([], Crossing(0, 0, 0, 0))
    assert found.mean == pytest.approx(features[1:].mean(), rel=1e-5)
    assert found.zeros == 0


def test_images_that_are_there_twice_and_groups_are_counted_with_what_they_cross(tmp_path: Path) -> None:
    table = regions(10)
    table.split[:] = ["train", "test", "train", "train", "val", "train", "", "train", "train", "train"]
    table.label[:] = ["Tee", "Tee", "Tie", "Tie", "Tie", "Tee", "Tie", "", "Tee", "Tie"]
    table.group[:] = ["a", "a", "b", "b", "b", "", "", "c", "c", "d"]
    prints = fingerprints(10)
    copies = {2: 1, 5: 1, 7: 6, 8: 4, 9: 0}  # row 0 has a box, so that row 9 is of other pixels
    for row, first in copies.items():
        prints.sha256[row] = prints.sha256[first]
    prints.sha256[3] = 0
    put(tmp_path / "c.h5", table, np.ones((10, 1, 4), np.float32), key_fields=KEY, prints=prints)
    found = store.survey(tmp_path / "c.h5")
    assert found.copies == [[f"röw {row}" for row in rows] for rows in ([1, 2, 5], [4, 8], [6, 7])]
    assert found.copies_crossing == Crossing(sets=3, rows=7, across_splits=2, of_several_labels=2)
    assert found.groups == Crossing(sets=4, rows=8, across_splits=2, of_several_labels=0)


def test_a_cache_of_schema_1_does_not_know_its_images() -> None:
    found = store.survey(MADE / "cache.h5")
    assert (found.copies, found.copies_crossing, found.groups) == ([], None, Crossing(0, 0, 0, 0))
