"""Which device and which precision; memory between the layers of a network."""

import ast
import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from hfc.config import ExtractConfig, TrainConfig, resolve
from hfc.device import _limit_threads, choose_device, choose_precision, cores, multiplies, reproducible
from hfc.errors import ConfigError
from hfc.extract import worker
from hfc.train.cache import load_cache
from hfc.train.data import prepare
from hfc.train.settling import settle
from tests.support.made_up import small_cache, write_tree_csv

ROOT = Path(__file__).parent.parent
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


def test_a_gpu_that_lets_one_process_in_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*shape: int, device: torch.device) -> None:
        raise RuntimeError("CUDA error: CUDA-capable device(s) is/are busy or unavailable\nCUDA kernel errors might")

    pretend_gpus(monkeypatch, [(9, 0)])
    monkeypatch.setattr(torch, "empty", fail)
    with pytest.raises(ConfigError) as caught:
        choose_device("auto")
    assert str(caught.value) == (
        "device cuda cannot be used here: CUDA error: CUDA-capable device(s) is/are busy or unavailable; if its "
        "compute mode lets one process in, another has it: nvidia-smi -c DEFAULT lets in several"
    )


BUILDS = {
    "CUDA 13": ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"],
    "CUDA 12.6": ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"],
    "specific": ["sm_90a", "sm_100f"],
    "AMD": ["gfx90a", "gfx942"],
}


@pytest.mark.parametrize(
    ("build", "capability", "runs"),
    [
        *((build, capability, True) for build in ("CUDA 13", "CUDA 12.6") for capability in ((7, 5), (8, 9), (9, 0))),
        *(("CUDA 13", capability, False) for capability in ((5, 2), (6, 0), (7, 0))),
        *(("CUDA 12.6", capability, True) for capability in ((5, 2), (6, 1), (7, 0))),
        ("CUDA 12.6", (12, 0), False),  # machine code of an earlier generation, and nothing to compile
        *(("CUDA 13", capability, True) for capability in ((10, 3), (12, 1), (13, 0))),  # 13.0: compiled on use
        ("CUDA 13", (11, 0), False),
        ("specific", (9, 0), True),
        ("AMD", (9, 4), True),  # its names say nothing of capabilities
    ],
)
def test_a_gpu_without_kernels_is_refused_by_name_and_auto_takes_the_cpu(
    build: str,
    capability: tuple[int, int],
    runs: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pretend_gpus(monkeypatch, [capability])
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: BUILDS[build])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Card")
    with caplog.at_level("WARNING"):
        assert choose_device("auto").type == ("cuda" if runs else "cpu")
    if runs:
        assert str(choose_device("cuda")) == "cuda:0"
        assert caplog.text == ""
        return
    known = {"CUDA 13": "7.5, 8.0, 8.6, 9.0, 10.0, 12.0", "CUDA 12.6": "5.0, 6.0, 7.0, 7.5, 8.0, 8.6, 9.0"}[build]
    problem = (
        f"Card (cuda:0) has compute capability {capability[0]}.{capability[1]}, and PyTorch {torch.__version__} was "
        f"built for {known}; install a build of PyTorch for it (older cards: one for CUDA 12.6)"
    )
    assert caplog.messages == [f"{problem}. This call computes on the CPU"]
    with pytest.raises(ConfigError) as caught:
        choose_device("cuda")
    assert str(caught.value) == f"{problem}, or give --device cpu"


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


# What the kernel shows a process, by file: what /proc says of its groups, and the quotas of groups.
QUOTAS: dict[str, tuple[dict[str, str], int]] = {
    "no control groups": ({}, 8),
    "v2, no quota": ({"proc/self/cgroup": "0::/a.slice\n", "a.slice/cpu.max": "max 100000\n"}, 8),
    "v2, its own": ({"proc/self/cgroup": "0::/a.slice\n", "a.slice/cpu.max": "200000 100000\n"}, 2),
    "v2, in a container's name space": ({"proc/self/cgroup": "0::/\n", "cpu.max": "300000 100000\n"}, 3),
    "v2, of a group around it": (
        {"proc/self/cgroup": "0::/pod/c\n", "pod/c/cpu.max": "400000 100000\n", "pod/cpu.max": "150000 100000\n"},
        2,
    ),
    "v2, the host's name for it": ({"proc/self/cgroup": "0::/host/c\n", "cpu.max": "50000 50000\n"}, 1),
    "v2, less than a core": ({"proc/self/cgroup": "0::/\n", "cpu.max": "20000 100000\n"}, 1),
    "v2, more than there are": ({"proc/self/cgroup": "0::/\n", "cpu.max": "9000000 100000\n"}, 8),
    "v2, another's": ({"proc/self/cgroup": "0::/a\n", "b/cpu.max": "100000 100000\n"}, 8),
    "v2, a name with colons": ({"proc/self/cgroup": "0::/a:b:c\n", "a:b:c/cpu.max": "500000 100000\n"}, 5),
    "v1, no quota": (
        {"proc/self/cgroup": "4:cpu:/\n", "cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
        8,
    ),
    "v1, its own": (
        {
            "proc/self/cgroup": "9:memory:/x\n3:cpu,cpuacct:/d\n0::/\n",
            "cpu,cpuacct/d/cpu.cfs_quota_us": "250000\n",
            "cpu,cpuacct/d/cpu.cfs_period_us": "100000\n",
        },
        3,
    ),
    "v1, seen from inside": (
        {
            "proc/self/cgroup": "3:cpuacct,cpu:/docker/d\n",
            "cpu/cpu.cfs_quota_us": "100000\n",
            "cpu/cpu.cfs_period_us": "25000\n",
        },
        4,
    ),
    "v1, of another kind": (
        {"proc/self/cgroup": "3:cpuset:/\n", "cpu/cpu.cfs_quota_us": "1\n", "cpu/cpu.cfs_period_us": "1\n"},
        8,
    ),
    "not to be understood": ({"proc/self/cgroup": "0::/\n", "cpu.max": "\n"}, 8),
}


@pytest.mark.parametrize("name", QUOTAS)
def test_cores_are_those_it_is_bound_to_within_every_quota(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)), raising=False)
    files, expected = QUOTAS[name]
    for file, text in files.items():
        path = tmp_path / ("" if file.startswith("proc") else "sys/fs/cgroup") / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert cores(tmp_path) == expected


def test_where_no_process_is_bound_to_cores_the_machine_has_so_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    assert cores(tmp_path) == 6
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert cores(tmp_path) == 1


def test_cores_are_counted_in_one_place() -> None:
    """A count of its own would not know of quotas."""
    counts = {"cpu_count", "process_cpu_count", "sched_getaffinity", "available_cpu_count", "cpu_affinity"}
    folders = ("hfc", "cli", "tests/bench")
    users = {
        path.relative_to(ROOT).as_posix()
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if (isinstance(node, ast.Attribute) and node.attr in counts)
        or (isinstance(node, ast.alias) and node.name.split(".")[-1] in counts)
    }
    assert users == {"hfc/device.py"}


@pytest.mark.parametrize(
    ("quota", "environment", "expected"), [(3, {}, 3), (6, {}, 4), (3, {"OMP_NUM_THREADS": "4"}, 4)]
)
def test_torch_keeps_to_a_quota_once_unless_the_user_says_how_many_threads(
    quota: int, environment: dict[str, str], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = [4]
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[-1])
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr("hfc.device.cores", lambda: quota)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    _limit_threads.cache_clear()
    choose_device("cpu")
    assert threads[-1] == expected
    torch.set_num_threads(5)  # what a caller says after that stays
    choose_device("cpu")
    assert threads[-1] == 5


WAITING = """
import os, sys
import hfc
assert "torch" not in sys.modules
print({name: value for name, value in os.environ.items() if name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")})
"""


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({}, {"GOMP_SPINCOUNT": "2000"}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
    ],
)
def test_threads_spin_briefly_before_torch_is_loaded_unless_the_user_says_how_they_wait(
    own: dict[str, str], expected: dict[str, str]
) -> None:
    env = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")} | own
    words = [sys.executable, "-c", WAITING]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT, env=env)
    assert ast.literal_eval(done.stdout) == expected


def test_a_gpu_keeps_to_an_order_of_sums_inside_the_block_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    with reproducible(torch.device("cpu")):
        assert not torch.are_deterministic_algorithms_enabled()
    with pytest.raises(KeyError), reproducible(torch.device("cuda")):
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert not torch.utils.deterministic.fill_uninitialized_memory
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"  # the user's
        raise KeyError
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory
