"""Processes that decode: the same batches as threads give, and nothing left behind."""

import contextlib
import gc
import itertools
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hfc.crops import Bytes, CropSettings
from hfc.datasets import processes
from hfc.datasets.images import Batch, stream_crops
from hfc.datasets.processes import stream_from_processes, unfit
from hfc.errors import HfcError
from hfc.regions import Regions, strings

CROP = CropSettings(8, "squash", 0.0, fill=(1, 2, 3))
SHARDS = [(4, range(0, 13)), (5, range(13, 40))]
BAD = {0: "not an image", 7: "is missing", 8: "is missing", 39: "not an image"}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Regions]:
    """Forty regions in as many images, four of which cannot be read: in a folder, and in a ZIP archive."""
    folder = tmp_path_factory.mktemp("pictures")
    noise = np.random.default_rng(0)
    names = [f"größe \udcff{i}.png" if i == 5 else f"{i}.png" for i in range(40)]
    for i, name in enumerate(names):
        if BAD.get(i) == "not an image":
            (folder / name).write_bytes(b"no picture")
        elif i not in BAD:
            Image.fromarray(noise.integers(0, 256, (12, 10, 3)).astype(np.uint8)).save(folder / name)
    with zipfile.ZipFile(folder / "all.zip", "w") as archive:
        for name in names:
            if (folder / name).exists() and name.isascii():
                archive.write(folder / name, name)
    boxes = np.full((40, 4), np.nan, dtype=np.float32)
    boxes[::3] = [1, 2, 9, 9]
    paths = strings(names)
    return {
        place: Regions(root, "test", paths, paths, boxes, paths, paths)
        for place, root in (("folder", folder), ("zip", folder / "all.zip"))
    }


@contextlib.contextmanager
def unlocked(memory: Bytes) -> Iterator[None]:
    yield


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The processes that are started."""
    every, start = [], processes._start

    def noted(*arguments: Any) -> Any:
        connection, process = start(*arguments)
        every.append(process)
        return connection, process

    monkeypatch.setattr(processes, "_start", noted)
    monkeypatch.setattr(processes, "CROPS", 3)
    return every


def stream(regions: Regions, workers: int = 2, batch_size: int = 5) -> Iterator[Batch]:
    return stream_from_processes(regions, SHARDS, CROP, batch_size=batch_size, workers=workers, lock=unlocked)


def contents(batch: Batch) -> tuple[object, ...]:
    return batch.shard, batch.rows, batch.failures, batch.sha256, batch.last, batch.crops.tobytes()


def descriptors() -> set[str]:
    """What this process has open, but the listing itself."""
    every = {name: name.readlink() for name in Path("/proc/self/fd").iterdir() if name.is_symlink()}
    return {f"{name.name} {target}" for name, target in every.items() if re.search("pipe|memfd", str(target))}


@pytest.mark.parametrize("place", ["folder", "zip"])
def test_batches_are_those_of_threads_and_nothing_is_left(
    place: str, pictures: dict[str, Regions], started: list[subprocess.Popen[bytes]]
) -> None:
    before = descriptors()
    found = [contents(batch) for batch in stream(pictures[place])]
    want = [contents(batch) for batch in stream_crops(pictures[place], SHARDS, CROP, batch_size=5, workers=2, ahead=1)]
    assert found == want
    failed = {row for batch in want for row, _ in batch[2]}  # type: ignore[attr-defined]
    assert failed == BAD.keys() | ({5} if place == "zip" else set())
    assert [process.returncode for process in started] == [-signal.SIGKILL] * 2
    gc.collect()
    assert "memfd:hfc" not in Path("/proc/self/maps").read_text()
    assert descriptors() == before


@pytest.mark.usefixtures("started")
def test_a_batch_keeps_its_crops_until_the_next_but_one_is_asked_for(pictures: dict[str, Regions]) -> None:
    held: list[tuple[Bytes, Bytes]] = []
    for batch in stream(pictures["folder"], workers=1):
        for crops, copy in held[-1:]:
            np.testing.assert_array_equal(crops, copy)
        held.append((batch.crops, batch.crops.copy()))
    assert any((crops != copy).any() for crops, copy in held[:-2])  # the memory does go round


def test_a_killed_process_is_a_clear_error(
    pictures: dict[str, Regions], started: list[subprocess.Popen[bytes]]
) -> None:
    endless = ((shard, range(40)) for shard in itertools.count())
    batches = stream_from_processes(pictures["folder"], endless, CROP, batch_size=5, workers=2, lock=unlocked)
    next(batches)
    started[1].kill()
    with pytest.raises(HfcError) as caught:
        all(map(bool, batches))
    assert str(caught.value) == (
        "a process that decodes images was ended by signal 9, perhaps because memory ran out; what is finished is "
        "kept: run again, with a lower --workers"
    )
    assert [process.poll() for process in started] == [-signal.SIGKILL] * 2


def test_an_error_of_a_process_is_raised_here(
    pictures: dict[str, Regions], started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    rigged = """
from hfc.errors import HfcError
def fail(*_):
    raise HfcError("a.png: out of memory")
import hfc.datasets.processes as p
p.decode = fail
serve()
"""
    monkeypatch.setattr(processes, "PROGRAM", processes.PROGRAM.replace("serve()\n", rigged))
    with pytest.raises(HfcError, match=r"^a\.png: out of memory$"):
        next(stream(pictures["folder"], workers=1))
    monkeypatch.setattr(processes, "PROGRAM", "import sys; sys.exit(3)")
    with pytest.raises(HfcError, match=r"was ended with exit code 3, perhaps"):
        next(stream(pictures["folder"], workers=1))
    monkeypatch.setattr(sys, "executable", "/not/there")
    with pytest.raises(HfcError, match=r"^no process can be started to decode images: No such file or directory; give"):
        next(stream(pictures["folder"], workers=1))
    assert all(process.returncode is not None for process in started)


def test_what_processes_cannot_share_is_left_to_threads(
    pictures: dict[str, Regions], monkeypatch: pytest.MonkeyPatch
) -> None:
    def regions(root: str, path: str) -> Regions:
        names = strings([path])
        return Regions(Path(root), "test", names, names, np.full((1, 4), np.nan, np.float32), names, names)

    assert [unfit(pictures[place]) for place in ("folder", "zip")] == ["", ""]
    parquet = "threads share what they read of a Parquet file"
    assert unfit(regions("/data/train.parquet", "17")) == unfit(regions("/data", "a.PARQUET/3")) == parquet
    assert (
        unfit(regions("/data", "https://shop.example/1.jpg"))
        == "images are on the network, where waiting takes no core"
    )
    monkeypatch.delattr(os, "memfd_create")
    assert unfit(pictures["folder"]) == "this system shares no memory without a name"


STOPPED = """
import sys
from pathlib import Path
from tests.datasets.test_processes import CROP, SHARDS, processes, stream_from_processes, unlocked
import numpy as np
from hfc.regions import Regions, strings

start = processes._start
def noted(*arguments):
    connection, process = start(*arguments)
    print(process.pid, flush=True)
    return connection, process
processes._start = noted
names = strings([f"{i % 7 + 9}.png" for i in range(40)])
regions = Regions(Path(sys.argv[1]), "test", names, names, np.full((40, 4), np.nan, np.float32), names, names)
endless = ((0, range(40)) for _ in iter(int, 1))
for batch in stream_from_processes(regions, endless, CROP, batch_size=5, workers=2, lock=unlocked):
    if batch.last:
        print("at work", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_however_the_work_is_stopped_no_process_goes_on(number: signal.Signals, pictures: dict[str, Regions]) -> None:
    command = [sys.executable, "-c", STOPPED, str(pictures["folder"].root)]
    leader = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert leader.stdout
    pids = [int(leader.stdout.readline()) for _ in range(2)]
    assert leader.stdout.readline() == "at work\n"
    leader.send_signal(number)
    leader.communicate(timeout=60)
    limit = time.monotonic() + 30
    while any(
        Path(f"/proc/{pid}/stat").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text() for pid in pids
    ):
        assert time.monotonic() < limit
        time.sleep(0.05)
