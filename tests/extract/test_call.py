"""What failed: too much of it ends the work, and it alone is tried again."""

from pathlib import Path

import numpy as np
import pytest

from hfc import store
from hfc.datasets import images
from hfc.errors import DatasetError, ImageError, StoreError
from hfc.extract.stage import extract
from hfc.extract.summary import Progress
from tests.support.deepfashion_tree import write_images
from tests.support.extraction import config, read

pytestmark = pytest.mark.usefixtures("small_turns")


def test_mended_files_are_encoded_and_failures_again_where_asked(manifest: Path, tmp_path: Path) -> None:
    out, folder = tmp_path / "c.h5", manifest.parent
    extract(manifest, out, config())
    before = read(out)
    write_images(folder, ["3.jpg", "6.jpg"], first=20)  # row 8 stays as it is: a box outside its image
    summary = extract(manifest, out, config())
    assert (summary.kept, summary.changed, summary.encoded, summary.written) == (8, 2, 2, True)
    assert [name for name, _ in summary.failures] == ["r8"]
    extract(manifest, tmp_path / "new.h5", config())
    mended, new = read(out), read(tmp_path / "new.h5")
    np.testing.assert_array_equal(mended[0], new[0])
    assert (mended[2], mended[1].failures, mended[1].ok.tolist()) == (new[2], new[1].failures, new[1].ok.tolist())
    assert mended[2] != before[2]
    # Without the option what failed is not tried again; with it, it is.
    assert extract(manifest, out, config()).encoded == 0
    again = extract(manifest, out, config(), retry_failures=True)
    assert (again.encoded, again.kept, [name for name, _ in again.failures]) == (1, 10, ["r8"])
    assert not list(tmp_path.glob("c.h5.*"))


def test_a_failure_that_is_tried_again_may_succeed(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a newer Pillow: the bytes are the same, but now they can be decoded."""
    out = tmp_path / "c.h5"
    write_images(manifest.parent, ["6.jpg"], first=20)

    def refuse(content: bytes, *rest: object) -> None:
        raise ImageError("not today")

    with monkeypatch.context() as patch:
        patch.setattr(images, "crop_image", refuse)
        assert len(extract(manifest, out, config()).failures) == 10
    assert len(extract(manifest, out, config()).failures) == 10
    summary = extract(manifest, out, config(), retry_failures=True)
    assert (summary.encoded, [name for name, _ in summary.failures]) == (10, ["r3", "r8"])
    extract(manifest, tmp_path / "new.h5", config())
    assert read(out)[2] == read(tmp_path / "new.h5")[2]
    assert read(out)[1].failures == read(tmp_path / "new.h5")[1].failures


def test_an_interrupted_update_changes_nothing_and_is_resumed(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.h5"
    extract(manifest, out, config(shard_size=1))
    before = out.read_bytes()
    write_images(manifest.parent, ["3.jpg", "6.jpg"], first=20)

    def stop(progress: Progress) -> None:
        if progress.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(manifest, out, config(shard_size=1), retry_failures=True, report=stop)
    assert out.read_bytes() == before
    summary = extract(manifest, out, config(shard_size=1), retry_failures=True)
    assert (summary.resumed, summary.encoded) == (2, 1)  # row 8 failed, and is tried again
    extract(manifest, tmp_path / "new.h5", config())
    assert read(out)[2] == read(tmp_path / "new.h5")[2]


def test_an_update_that_could_not_be_put_together_is_by_the_next(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "c.h5"
    extract(manifest, out, config())
    before = out.read_bytes()
    write_images(manifest.parent, ["3.jpg", "6.jpg"], first=20)

    def full(*_: object, **__: object) -> None:
        raise StoreError(f"{out}: cannot be written: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store, "assemble", full)
        with pytest.raises(StoreError, match=r"c\.h5: cannot be written: No space left on device"):
            extract(manifest, out, config())
    assert out.read_bytes() == before
    summary = extract(manifest, out, config())
    assert (summary.resumed, summary.encoded, summary.written) == (2, 0, True)
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
    message = rf"stopped: 3 images failed, more than --max-failures {most}; the first: r6: cannot read the file: "
    with pytest.raises(DatasetError, match=message):
        extract(manifest, out, config(max_failures=most))
    assert not out.exists()
    resumed = sum(len(store.read_shard(path).ok) for path in store.shard_files(out))
    assert resumed == 8  # the first failure is a missing file, the last is row 8, the last of the second shard
    summary = extract(manifest, out, config())
    assert (summary.resumed, summary.encoded) == (8, 1)


def test_failures_that_are_to_be_tried_again_do_not_count(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.h5"
    with pytest.raises(DatasetError, match="stopped: 2 images failed, more than --max-failures 1"):
        extract(manifest, out, config(max_failures="1"))
    write_images(manifest.parent, ["3.jpg", "6.jpg"], first=20)
    summary = extract(manifest, out, config(max_failures="1"), retry_failures=True)  # row 8 is the one that may fail
    assert [name for name, _ in summary.failures] == ["r8"]
    extract(manifest, tmp_path / "new.h5", config())
    assert read(out)[2] == read(tmp_path / "new.h5")[2]


def test_a_share_of_failures_is_one_of_all_rows_in_a_retry_too(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.h5"
    extract(manifest, out, config(max_failures="30%"))
    write_images(manifest.parent, ["3.jpg"], first=20)
    summary = extract(manifest, out, config(max_failures="30%"), retry_failures=True)  # two of the three fail again
    assert [name for name, _ in summary.failures] == ["r6", "r8"]
