"""What a call of stage 1 reports: how far it is, and in the end what it did."""

from dataclasses import replace
from pathlib import Path

import pytest

from hfc.extract.stage import extract
from hfc.extract.summary import Progress
from hfc.hierarchy import tree_file
from tests.support.deepfashion_tree import write_images
from tests.support.extraction import config

pytestmark = pytest.mark.usefixtures("small_turns")


def test_a_summary_says_all_that_was_done(manifest: Path, tmp_path: Path) -> None:
    reports: list[Progress] = []
    summary = extract(manifest, tmp_path / "c.h5", config(), report=lambda progress: reports.append(replace(progress)))
    assert summary
    assert (summary.path, summary.rows, summary.shards, summary.written) == (tmp_path / "c.h5", 10, 3, True)
    assert (summary.origin, summary.dim, summary.feature_map) == ("CSV manifest m.csv", 256, (1, 1))
    assert [name for name, _ in summary.failures] == ["r3", "r6", "r8"]
    assert (summary.config.device, summary.config.precision, summary.config.pool) == ("cpu", "fp32", "mean")
    assert summary.config.workers >= 1
    assert (summary.tree, summary.seconds > 0, len(summary.key)) == (None, True, 64)
    assert [(p.done, p.failed) for p in reports] == sorted((p.done, p.failed) for p in reports)
    assert (reports[0].done, reports[-1].done, reports[-1].failed, reports[-1].total) == (
        1,
        10,
        3,
        10,
    )  # one file is missing
    last = summary.progress
    assert (last.total, last.done, last.resumed, last.failed) == (10, 10, 0, 3)
    assert min(last.read_s, last.decode_s, last.encode_s, last.write_s) > 0


def test_a_cache_that_is_there_is_reported_as_resumed(manifest: Path, tmp_path: Path) -> None:
    extract(manifest, tmp_path / "c.h5", config())
    again = extract(manifest, tmp_path / "c.h5", config())
    assert again
    assert (again.written, again.progress.resumed, again.progress.done, again.progress.failed) == (False, 10, 0, 3)
    assert [name for name, _ in again.failures] == ["r3", "r6", "r8"]


def test_folders_with_groups_have_a_tree(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", ["tops/Tee/a.jpg", "tops/Polo/b.jpg", "legs/Jeans/c.jpg"])
    summary = extract(tmp_path / "photos", tmp_path / "c.h5", config())
    assert summary
    assert summary.tree == tree_file(tmp_path / "c.h5") == tmp_path / "c.tree.csv"
    assert summary.tree.is_file()
