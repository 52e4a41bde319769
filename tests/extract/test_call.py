"""What failed: too much of it ends the work, and it alone is tried again."""

import errno
import shutil
from pathlib import Path

import numpy as np
import pytest

from hfc import store
from hfc.errors import DatasetError, StoreError
from hfc.extract.stage import extract
from hfc.extract.summary import Progress
from tests.support.deepfashion_tree import write_images
from tests.support.extraction import config, read

pytestmark = pytest.mark.usefixtures("small_turns")


def test_failed_rows_alone_are_tried_again(manifest: Path, tmp_path: Path) -> None:
    out, folder = tmp_path / "c.h5", manifest.parent
    extract(manifest, out, config())
    before = read(out)
    write_images(folder, ["3.jpg", "6.jpg"])  # row 8 stays as it is: a box outside its image
    summary = extract(manifest, out, config(), retry_failures=True)
    assert summary is not None
    assert (summary.progress.total, summary.progress.done, summary.written) == (3, 3, True)
    assert [name for name, _ in summary.failures] == ["r8"]
    extract(manifest, tmp_path / "new.h5", config())
    mended, new = read(out), read(tmp_path / "new.h5")
    np.testing.assert_array_equal(mended[0], new[0])
    assert (mended[2], mended[1].failures, mended[1].ok.tolist()) == (new[2], new[1].failures, new[1].ok.tolist())
    assert mended[2] != before[2]
    with store.FeatureStore(out) as cache:
        (retry,) = cache.provenance["retries"]
        assert (retry["rows"], retry["failed_again"]) == (3, 1)
    assert not list(tmp_path.glob("c.h5.*"))
    # Without the option nothing is tried again; with it, only what still fails.
    assert extract(manifest, out, config()).progress.done == 0
    assert extract(manifest, out, config(), retry_failures=True).progress.total == 1


def test_an_interrupted_retry_changes_nothing_and_is_resumed(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.h5"
    extract(manifest, out, config(shard_size=1))
    before = out.read_bytes()
    write_images(manifest.parent, ["3.jpg", "6.jpg"])

    def stop(progress: Progress) -> None:
        if progress.total == 3 and progress.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(manifest, out, config(shard_size=1), retry_failures=True, report=stop)
    assert out.read_bytes() == before
    summary = extract(manifest, out, config(shard_size=1), retry_failures=True)
    assert (summary.progress.total, summary.progress.resumed, summary.progress.done) == (3, 2, 1)
    extract(manifest, tmp_path / "new.h5", config())
    assert read(out)[2] == read(tmp_path / "new.h5")[2]


def test_a_retry_that_could_not_be_merged_is_merged_by_the_next(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "c.h5"
    extract(manifest, out, config())
    before = out.read_bytes()
    write_images(manifest.parent, ["3.jpg", "6.jpg"])

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", full)
        with pytest.raises(StoreError, match=r"c\.h5: cannot be written: No space left on device"):
            extract(manifest, out, config(), retry_failures=True)
    assert out.read_bytes() == before
    summary = extract(manifest, out, config(), retry_failures=True)
    assert (summary.progress.total, summary.progress.resumed, summary.progress.done) == (3, 3, 0)
    assert [name for name, _ in summary.failures] == ["r8"]
    extract(manifest, tmp_path / "new.h5", config())
    assert read(out)[2] == read(tmp_path / "new.h5")[2]
    assert not list(tmp_path.glob("c.h5.*"))


@pytest.mark.parametrize(("most", "stops"), [("2", True), ("3", False), ("20%", True), ("30%", False)])
def test_too_many_failures_stop_the_work(most: str, stops: bool, manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.h5"
    if not stops:
        assert len(extract(manifest, out, config(max_failures=most)).failures) == 3
        return
    message = rf"stopped: 3 images failed, more than --max-failures {most}; the first: r3: damaged image: "
    with pytest.raises(DatasetError, match=message):
        extract(manifest, out, config(max_failures=most))
    assert not out.exists()
    resumed = sum(len(store.read_shard(path).ok) for path in store.shard_files(out))
    assert resumed == 10  # the third failure is row 8, in the last batch of the last shard
    summary = extract(manifest, out, config())
    assert (summary.progress.resumed, summary.progress.done) == (10, 0)


def test_failures_that_are_to_be_tried_again_do_not_count(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.h5"
    with pytest.raises(DatasetError, match="stopped: 2 images failed, more than --max-failures 1"):
        extract(manifest, out, config(max_failures="1"))
    write_images(manifest.parent, ["3.jpg", "6.jpg"])
    summary = extract(manifest, out, config(max_failures="1"), retry_failures=True)  # row 8 is the one that may fail
    assert [name for name, _ in summary.failures] == ["r8"]
    extract(manifest, tmp_path / "new.h5", config())
    assert read(out)[2] == read(tmp_path / "new.h5")[2]


def test_a_share_of_failures_is_one_of_all_rows_in_a_retry_too(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.h5"
    extract(manifest, out, config(max_failures="30%"))
    write_images(manifest.parent, ["3.jpg"])
    summary = extract(manifest, out, config(max_failures="30%"), retry_failures=True)  # two of the three fail again
    assert [name for name, _ in summary.failures] == ["r6", "r8"]
