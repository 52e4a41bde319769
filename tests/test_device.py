"""Which device and which precision; memory between the layers of a network."""

import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from hfc.config import ExtractConfig, TrainConfig, resolve
from hfc.device import choose_device, choose_precision, multiplies
from hfc.errors import ConfigError
from hfc.extract import worker
from hfc.train.cache import load_cache
from hfc.train.data import prepare
from hfc.train.settling import settle
from tests.support.made_up import small_cache, write_tree_csv

FAULTS = """
import resource, sys
import numpy as np
from hfc.device import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(2**23)  # 64 MiB, more than glibc ever keeps by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

handed_back = faults()
assert keep_freed_memory()
faults()
print(handed_back, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
def test_freed_memory_is_kept_for_what_comes_next() -> None:
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    handed_back, kept = map(int, done.stdout.split())
    assert kept < handed_back / 100


def test_stage_1_keeps_freed_memory_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(worker, "keep_freed_memory", lambda: asked.append(True))
    settings = {"backbone": "test_efficientnet", "weights": "random", "image_size": 32, "device": "cpu"}
    worker.open_encoder(resolve(ExtractConfig, settings))
    assert asked == [True]


@pytest.mark.parametrize("name", ["mps", "xpu", "meta", "mps:0"])
def test_a_device_of_another_kind_is_refused(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        choose_device(name)
    assert str(caught.value) == f"device {name}: expected auto, cpu, cuda or cuda:N"


def pretend_gpus(monkeypatch: pytest.MonkeyPatch, capabilities: list[tuple[int, int]]) -> None:
    """As with GPUs of some compute capabilities; emulated bfloat16 is supported, as PyTorch says of all."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(capabilities))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capabilities[device.index or 0])
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    monkeypatch.setattr(torch, "empty", lambda *shape, device: SimpleNamespace(device=device))


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_every_local_rank_takes_its_own_gpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpus(monkeypatch, [(9, 0)] * 2)
    taken = []
    for rank in ("", "0", "1", "2"):
        monkeypatch.delenv("LOCAL_RANK", raising=False)
        if rank:
            monkeypatch.setenv("LOCAL_RANK", rank)
        taken.append(str(choose_device(name)))
    assert taken == ["cuda:0", "cuda:0", "cuda:1", "cuda:0"]
    assert str(choose_device("cuda:1")) == "cuda:1"


def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)

    def fail(*shape: int, device: torch.device) -> None:
        if device.type == "cuda":
            raise RuntimeError("Found no NVIDIA driver on your system.\nPlease check")

    monkeypatch.setattr(torch, "empty", fail)
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(ConfigError) as caught:
        choose_device("cuda")
    assert str(caught.value) == "device cuda cannot be used here: Found no NVIDIA driver on your system."


CARDS = {"P100": (6, 0), "V100": (7, 0), "T4": (7, 5), "A100": (8, 0), "4090": (8, 9), "H100": (9, 0)}


@pytest.mark.parametrize("card", CARDS)
def test_training_takes_bfloat16_where_the_gpu_multiplies_it(
    card: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_cache(tmp_path / "c.h5")
    config = resolve(TrainConfig, {"method": "flat", "hierarchy": str(write_tree_csv(tmp_path / "tree.csv"))})
    data = prepare(load_cache(tmp_path / "c.h5", device="cpu"), config.hierarchy)
    pretend_gpus(monkeypatch, [CARDS[card]])
    gpu = torch.device("cuda", 0)
    precision = settle(config, data, gpu).precision
    assert precision == ("bf16" if CARDS[card] >= (8, 0) else "fp32")
    assert multiplies(precision, gpu)
    assert settle(replace(config, precision="bf16"), data, gpu).precision == "bf16"
    assert choose_precision("auto", gpu, ("fp16", "bf16")) == "fp16"


def test_each_gpu_is_asked_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpus(monkeypatch, [(7, 5), (9, 0)])
    assert [choose_precision("auto", torch.device("cuda", i), ("bf16",)) for i in (0, 1)] == ["fp32", "bf16"]


@pytest.mark.parametrize("has", [True, False])
def test_a_cpu_is_asked_for_bfloat16_alone(has: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hfc.device.has_bf16_cpu", lambda: has)
    for order in (("bf16",), ("fp16", "bf16")):
        assert choose_precision("auto", torch.device("cpu"), order) == ("bf16" if has else "fp32")
