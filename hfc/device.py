"""The device that a stage runs on, and how many cores. Torch is loaded when it is asked for, not before."""

import contextlib
import ctypes
import functools
import logging
import math
import os
import platform
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from hfc.errors import ConfigError

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

ARCHITECTURE = re.compile(r"(sm|compute)_(\d+)(\d)")  # what kernels were built for: sm_90 is compute capability 9.0
# glibc's numbers for two options of mallopt: how much freed memory goes back to the system, and which blocks always do.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def choose_device(device: str) -> "torch.device":
    """Return the device by its name; `auto` takes a GPU where there is one.

    It must be one that PyTorch was built for, or `auto` warns and takes the CPU. Under torchrun `auto`, and `cuda`
    without a number, are the GPU of the local rank.

    Raises:
        ConfigError: no such device on this machine, one of another kind than CPU and CUDA, or a GPU without kernels.
    """
    import torch

    _limit_threads()
    automatic = device == "auto"
    if automatic:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        if chosen.type not in ("cpu", "cuda"):
            raise ConfigError(f"device {device}: expected auto, cpu, cuda or cuda:N")
        if chosen.type == "cuda" and chosen.index is None:
            rank = int(os.environ.get("LOCAL_RANK", "0"))
            chosen = torch.device("cuda", rank % max(torch.cuda.device_count(), 1))
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        if "busy or unavailable" in reason:
            reason += "; if its compute mode lets one process in, another has it: nvidia-smi -c DEFAULT lets in several"
        raise ConfigError(f"device {device} cannot be used here: {reason}") from error
    if chosen.type == "cuda" and (problem := lacks_kernels(chosen)):
        if not automatic:
            raise ConfigError(f"{problem}, or give --device cpu")
        logger.warning("%s. This call computes on the CPU", problem)
        return torch.device("cpu")
    return chosen


def lacks_kernels(device: "torch.device") -> str:
    """Return why PyTorch cannot compute on a GPU, and what to do; "" = it can.

    Such a GPU counts as available, and memory can be had of it. Its first kernel fails.
    """
    import torch

    built = [match for name in torch.cuda.get_arch_list() if (match := ARCHITECTURE.match(name))]
    major, minor = torch.cuda.get_device_capability(device)
    for kind, *numbers in (match.groups() for match in built):
        other_major, other_minor = map(int, numbers)
        # Machine code runs on later cards of its own generation; what is compiled on use, on all later ones.
        if (other_major, other_minor) <= (major, minor) and (kind == "compute" or other_major == major):
            return ""
    if not built:  # not CUDA's names, as those of AMD's GPUs
        return ""
    known = ", ".join(sorted({f"{match[2]}.{match[3]}" for match in built}, key=float))
    return (
        f"{torch.cuda.get_device_name(device)} ({device}) has compute capability {major}.{minor}, and PyTorch "
        f"{torch.__version__} was built for {known}; install a build of PyTorch for it (older cards: one for CUDA 12.6)"
    )


@functools.cache
def _limit_threads() -> None:
    """Keep PyTorch's threads within a quota, unless the environment says how many.

    By default it has one for every core that it is bound to. Those beyond a quota stop half way through, until its next
    period.
    """
    import torch

    if "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > cores():
        torch.set_num_threads(cores())


def cores(root: Path = Path("/")) -> int:
    """Return how many cores this process may use: those it is bound to, within its quota.

    A quota of 1.5 cores is two: one thread would leave a third of it. Every count of cores in hfc is this one.

    Args:
        root: where /proc and /sys are.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(min([bound, *(math.ceil(quota) for quota in _quotas(root))]), 1)


def _quotas(root: Path) -> Iterator[float]:
    """Read the quota, in cores, of every control group around this process. Linux alone has them.

    A container may see the groups from inside, where its own is the root, or have the host's name for it, which is not
    there; so a group that is not found is passed over, up to the root.
    """
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for number, kinds, name in (line.split(":", 2) for line in groups):
        if number != "0" and "cpu" not in kinds.split(","):
            continue
        for top in ("", "unified") if number == "0" else ("cpu", "cpu,cpuacct", "cpuacct,cpu"):
            inside = PurePosixPath(name.lstrip("/"))
            for group in (inside, *inside.parents):
                yield from _quota(root / "sys/fs/cgroup" / top / group)


def _quota(group: Path) -> Iterator[float]:
    """Read the quota of a group, if it has one: cgroup v2 has both numbers in one file, v1 in two."""
    for files in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        with contextlib.suppress(OSError, ValueError):  # there is none, or it says "max"
            quota, period = map(int, " ".join((group / name).read_text() for name in files).split())
            if quota > 0 and period > 0:
                yield quota / period


def has_bf16_cpu() -> bool:
    """Return whether the CPU multiplies bfloat16 matrices in hardware (AMX or AVX-512 BF16)."""
    import torch

    probes = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return any(probe() for probe in probes if probe)


def multiplies(precision: str, device: "torch.device") -> bool:
    """Return whether a device multiplies matrices of a precision (fp32, bf16, fp16) in hardware."""
    import torch

    if precision == "fp32":
        return True
    if device.type == "cuda":
        # Emulated bfloat16, as older GPUs have it, is slower than float32.
        has_bf16 = bool(torch.version.hip) or torch.cuda.get_device_capability(device)[0] >= 8
        return precision == "fp16" or has_bf16
    return precision == "bf16" and has_bf16_cpu()


def choose_precision(precision: str, device: "torch.device", order: Sequence[str]) -> str:
    """Return the precision that is asked for. `auto` takes the first of an order that the device multiplies, else fp32.

    Args:
        precision: auto, fp32, bf16 or fp16.
        device: where it computes.
        order: bf16 and fp16, or one of them, the best first.
    """
    if precision != "auto":
        return precision
    return next((name for name in order if multiplies(name, device)), "fp32")


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, for what it allocates next. Its peak stays the same.

    A network on a CPU frees a feature map of megabytes and allocates the next one, layer after layer. glibc hands some
    of them back to the system and faults in every page of the next: with luck none, without it a sixth of
    EfficientNet-b5's time, and more of a larger batch's.

    Returns:
        Whether the C library takes the setting; others than glibc are left alone.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return all(libc.mallopt(option, 2**31 - 1) for option in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD))


@contextlib.contextmanager
def reproducible(device: "torch.device") -> Iterator[None]:
    """Let the same sums inside the block end in the same bits.

    A GPU adds numbers up as its threads come, unless it is told to keep an order. A CPU keeps one.
    """
    import torch

    if device.type != "cuda":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # PyTorch warns without it
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    memory.fill_uninitialized_memory = False  # else all memory is written once more
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        memory.fill_uninitialized_memory = filled
