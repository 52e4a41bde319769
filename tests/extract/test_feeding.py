"""How crops come to a GPU. There is none here: the pretended one reads crops when its features are waited for."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

from hfc import store
from hfc.crops import Bytes, CropSettings
from hfc.datasets import processes
from hfc.errors import StoreError
from hfc.extract import feeding, worker
from hfc.extract.encoder import Encoder
from hfc.regions import Regions, strings
from tests.support.extraction import config

GPU = torch.device("cuda:1")
CROP = CropSettings(8, "squash", 0.0, fill=(1, 2, 3))


class Runtime:
    """What CUDA is asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
        self.log: list[tuple[object, ...]] = []
        self.code = code
        monkeypatch.setattr(torch.cuda, "cudart", lambda: self)
        monkeypatch.setattr(torch.cuda, "device", self.device)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device: self.log.append(("wait", device)))

    def device(self, device: torch.device) -> AbstractContextManager[None]:
        self.log.append(("on", device))
        return nullcontext()

    def cudaHostRegister(self, *arguments: int) -> int:  # as CUDA names it
        self.log.append(("lock", *arguments))
        return self.code

    def cudaHostUnregister(self, address: int) -> None:
        self.log.append(("unlock", address))


def test_pages_are_locked_once_and_unlocked_after_the_last_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime, memory = Runtime(monkeypatch, code=0), np.zeros((3, 4), dtype=np.uint8)
    with pytest.raises(KeyError), feeding.page_locked(memory, GPU):
        assert runtime.log == [("on", GPU), ("lock", memory.ctypes.data, 12, 1)]
        raise KeyError
    assert runtime.log[2:] == [("wait", GPU), ("unlock", memory.ctypes.data)]


def test_pages_that_cannot_be_locked_are_used_as_they_are(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = Runtime(monkeypatch, code=2)
    with feeding.page_locked(np.zeros(3_000_000, dtype=np.uint8), GPU):
        assert caplog.messages == ["3 MB cannot be page-locked (CUDA error 2): slower copies"]
    assert [name for name, *_ in runtime.log] == ["on", "lock"]


@pytest.fixture(scope="module")
def regions(tmp_path_factory: pytest.TempPathFactory) -> Regions:
    folder, noise = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    names = strings([f"{i}.png" for i in range(50)])
    for i, name in enumerate(names):
        if i % 9:
            Image.fromarray(noise.integers(0, 256, (9, 9, 3)).astype(np.uint8)).save(folder / name)
    return Regions(folder, "test", names, names, np.full((50, 4), np.nan, np.float32), names, names)


@pytest.mark.parametrize(
    ("least", "name", "reason"),
    [(51, "1.png", "they are few"), (50, "x.parquet/1", "threads share what they read of a Parquet file")],
)
def test_threads_decode_what_processes_would_not(
    least: int,
    name: str,
    reason: str,
    regions: Regions,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(feeding, "PROCESSES_FROM", least)
    monkeypatch.setattr(feeding, "stream_from_processes", None)
    regions.path[1] = name
    with caplog.at_level("INFO"):
        batches = list(feeding.feed(regions, [(0, range(50))], CROP, batch_size=8, workers=2, device=GPU))
    regions.path[1] = "1.png"
    assert caplog.messages == [f"crops are decoded in threads: {reason}"]
    assert sum(len(batch.rows) + len(batch.failures) for batch in batches) == 50


class PretendedGpu:
    """It gives a crop's own bytes as features, read as late as a GPU may read them."""

    def __init__(self, batch_size: int) -> None:
        self.device, self.batch_size = GPU, batch_size

    def submit(self, crops: Bytes) -> Callable[[], Bytes]:
        return lambda: crops.reshape(len(crops), 1, -1).astype(np.float32)


def encoded(regions: Regions, gpu: PretendedGpu) -> Iterator[tuple[Any, ...]]:
    shards = [(0, range(0, 30)), (1, range(30, 50))]
    settings = config(workers=2, store="float32")
    for done in worker.encode_regions(regions, shards, CROP, settings, cast(Encoder, gpu)):
        yield done.batch.shard, done.batch.rows, done.batch.failures, done.batch.sha256, done.features.tobytes()


def test_features_by_processes_are_those_by_threads(regions: Regions, monkeypatch: pytest.MonkeyPatch) -> None:
    by_threads = list(encoded(regions, PretendedGpu(8)))
    runtime = Runtime(monkeypatch, code=0)
    monkeypatch.setattr(feeding, "PROCESSES_FROM", 50)
    monkeypatch.setattr(processes, "CROPS", 2)  # so that the memory goes round
    assert list(encoded(regions, PretendedGpu(8))) == by_threads
    (locked,) = (arguments for name, *arguments in runtime.log if name == "lock")
    assert locked[1] == (1 + 2) * 8 * 8 * 8 * 3  # one batch of tasks for two processes, and two more
    assert runtime.log[-1][0] == "unlock"


def job(regions: Regions, folder: Path) -> worker.Job:
    return worker.Job(regions, CROP, config(workers=2, shard_size=20), folder / "c.h5", key_fields={"backbone": "b"})


def test_one_thread_writes_shards_while_a_gpu_computes(
    regions: Regions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writers, going = [], threading.Event()
    write = store.write_shard

    def slow(path: Path, *rest: Any) -> None:
        if not writers:
            assert going.wait(30)  # until the next shard is under way
        writers.append(threading.current_thread())
        write(path, *rest)

    monkeypatch.setattr(store, "write_shard", slow)
    made = job(regions, tmp_path)
    reports = []
    for work in worker.Worker(made, cast(Encoder, PretendedGpu(8)))(range(3)):
        reports.append(work)
        if sum(report.rows for report in reports) > 20:
            going.set()
    assert [report.finished for report in reports if report.finished is not None] == [0, 1, 2]
    assert len(set(writers)) == 1
    assert writers[0] is not threading.main_thread()
    assert sum(report.rows for report in reports) == 50
    assert made.missing() == []
    shards = [store.read_shard(made.file(number), made.key_fields) for number in range(3)]
    features = np.concatenate([shard.features for shard in shards]).tobytes()
    (tmp_path / "cpu").mkdir()
    on_cpu = PretendedGpu(8)
    on_cpu.device = torch.device("cpu")
    plain = job(regions, tmp_path / "cpu")
    list(worker.Worker(plain, cast(Encoder, on_cpu))(range(3)))
    assert set(writers[3:]) == {threading.main_thread()}  # where threads of the network want the cores
    again = [store.read_shard(plain.file(number), plain.key_fields) for number in range(3)]
    assert np.concatenate([shard.features for shard in again]).tobytes() == features


def test_a_shard_that_cannot_be_written_is_the_same_error(
    regions: Regions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_: Any) -> None:
        raise StoreError(f"{path.name}: cannot be written: No space left on device")

    monkeypatch.setattr(store, "write_shard", full)
    with pytest.raises(StoreError, match=r"^000000000-000000020\.h5: cannot be written: No space left on device$"):
        list(worker.Worker(job(regions, tmp_path), cast(Encoder, PretendedGpu(8)))(range(3)))


@pytest.mark.parametrize(("cores", "processes", "threads"), [(112, 8, 14), (112, 1, 32), (2, 4, 1), (16, 3, 5)])
def test_processes_of_a_machine_share_its_cores(
    cores: int, processes: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "cores", lambda: cores)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert worker.decoding_threads() == threads
