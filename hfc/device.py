"""The device that a stage runs on. Torch is loaded when it is asked for, not before."""

import ctypes
import os
import platform
from typing import TYPE_CHECKING

from hfc.errors import ConfigError

if TYPE_CHECKING:
    import torch

# What glibc's mallopt calls the size of freed memory that goes back to the system, and of blocks that always do.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def choose_device(device: str) -> "torch.device":
    """The device by its name; `auto` takes a GPU where there is one, and under torchrun the one of the local rank.

    Raises:
        ConfigError: no such device on this machine.
    """
    import torch

    if device == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        rank = int(os.environ.get("LOCAL_RANK", "0"))
        return torch.device("cuda", rank % torch.cuda.device_count())
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {device} cannot be used here: {str(error).splitlines()[0]}") from error
    return chosen


def has_bf16_cpu() -> bool:
    """Whether the CPU multiplies bfloat16 matrices in hardware (AMX or AVX-512 BF16)."""
    import torch

    probes = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return any(probe() for probe in probes if probe)


def multiplies(precision: str, device: "torch.device") -> bool:
    """Whether a device multiplies matrices of a precision, fp32, bf16 or fp16, in hardware."""
    import torch

    if precision == "fp32":
        return True
    if device.type == "cuda":
        return precision == "fp16" or torch.cuda.is_bf16_supported(including_emulation=False)
    return precision == "bf16" and has_bf16_cpu()


def keep_freed_memory() -> bool:
    """Let this process keep the memory it frees for what it allocates next; its peak stays the same.

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
