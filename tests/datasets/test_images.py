"""Images of regions: whatever lies at a path, and batches in order."""

import hashlib
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

from hfc.datasets.images import stream_crops
from hfc.errors import HfcError
from hfc.regions import Regions, strings
from tests.support.privileges import unprivileged
from tests.test_crops import JPEG, NO_BOX, Pixels, settings


def outcome(folder: Path, name: str) -> str:
    """The reason why a path gives no crop; "" if it gives one."""
    names = strings([name])
    regions = Regions(folder, "test", names, names, NO_BOX[None], names, names)
    (batch,) = stream_crops(regions, [(0, range(1))], settings(), batch_size=1, workers=1, ahead=0)
    return batch.failures[0][1] if batch.failures else ""


def test_any_file_name_is_read_and_no_odd_file_stops_the_work(tmp_path: Path) -> None:
    for name in ("with blanks .jpg", "Kleid-größe-服.jpg", "two\nlines.jpg", "#%?*.jpg"):
        (tmp_path / name).write_bytes(JPEG)
        assert outcome(tmp_path, name) == ""
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert outcome(tmp_path, "folder.jpg") == "not a file"
    assert outcome(tmp_path, "pipe.jpg") == "not a file"
    assert outcome(tmp_path, "loop.jpg") == "cannot read the file: Too many levels of symbolic links"
    assert outcome(tmp_path, "nul\0.jpg") == "cannot read the file: embedded null byte"
    assert outcome(tmp_path, "x" * 300) == "cannot read the file: File name too long"
    (tmp_path / "link.jpg").symlink_to(tmp_path / "with blanks .jpg")
    assert outcome(tmp_path, "link.jpg") == ""


def test_a_file_that_may_not_be_read_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(JPEG)
    (tmp_path / "a.jpg").chmod(0)
    (tmp_path / "closed").mkdir(0)
    with unprivileged():
        assert outcome(tmp_path, "a.jpg") == "cannot read the file: Permission denied"
        assert outcome(tmp_path, "closed/a.jpg") == "cannot read the file: Permission denied"
    (tmp_path / "a.jpg").chmod(0o600)
    with unprivileged():
        assert outcome(tmp_path, "a.jpg") == ""


def test_running_out_of_memory_is_an_error_not_a_damaged_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_bytes(JPEG)

    def run_out(*_: object, **__: object) -> None:
        raise MemoryError

    def says() -> str:
        with pytest.raises(HfcError) as caught:
            outcome(tmp_path, "a.jpg")
        assert type(caught.value) is HfcError
        return str(caught.value)

    expected = (
        f"{tmp_path / 'a.jpg'}: out of memory while reading or decoding it; give a lower --workers or --batch-size"
    )
    for thing, name in ((Path, "read_bytes"), (JpegImagePlugin.JpegImageFile, "load"), (Image.Image, "resize")):
        with monkeypatch.context() as patch:
            patch.setattr(thing, name, run_out)
            assert says() == expected


def stream(
    folder: Path, workers: int, ahead: int
) -> tuple[list[tuple[int, list[int], bool]], Pixels, list[tuple[int, str]]]:
    names = [f"{i}.png" for i in range(11)]
    for i, name in enumerate(names):
        if i != 6:
            Image.new("RGB", (8, 8), (i, i, i)).save(folder / name)
    texts = strings(names)
    boxes = np.full((11, 4), np.nan, dtype=np.float32)
    regions = Regions(folder, "test", texts, texts, boxes, texts, texts)
    shards = [(0, range(0, 5)), (1, range(5, 10)), (2, range(10, 11))]
    batches = list(stream_crops(regions, shards, settings(size=4), batch_size=3, workers=workers, ahead=ahead))
    failures = [failure for batch in batches for failure in batch.failures]
    return [(b.shard, b.rows, b.last) for b in batches], np.concatenate([b.crops for b in batches]), failures


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("ahead", [0, 3])
def test_batches_stay_in_order_and_inside_their_shard(ahead: int, workers: int, tmp_path: Path) -> None:
    batches, crops, failures = stream(tmp_path, workers, ahead)
    assert batches == [
        (0, [0, 1, 2], False),
        (0, [3, 4], True),
        (1, [5, 7], False),
        (1, [8, 9], True),
        (2, [10], True),
    ]
    assert crops[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5, 7, 8, 9, 10]  # row 6 is missing, never another in its place
    assert failures == [(6, "cannot read the file: No such file or directory")]


def test_a_batch_has_the_digests_of_the_bytes_that_were_decoded(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(JPEG)
    (tmp_path / "b.jpg").write_bytes(b"no image")
    names = strings(["a.jpg", "none.jpg", "b.jpg"])
    boxes = np.full((3, 4), np.nan, dtype=np.float32)
    regions = Regions(tmp_path, "test", names, names, boxes, names, names)
    (batch,) = stream_crops(regions, [(0, range(3))], settings(), batch_size=3, workers=2, ahead=0)
    assert batch.rows == [0]
    assert batch.sha256 == {0: hashlib.sha256(JPEG).digest(), 1: b"", 2: hashlib.sha256(b"no image").digest()}


def test_a_single_image_is_decoded_without_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda thread: (started.append(thread.name), start(thread)))
    (tmp_path / "a.jpg").write_bytes(JPEG)
    assert outcome(tmp_path, "a.jpg") == ""
    assert outcome(tmp_path, "none.jpg") == "cannot read the file: No such file or directory"
    assert started == []
    stream(tmp_path, 2, 0)
    assert started
