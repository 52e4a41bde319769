"""An array in memory that other processes of this machine map.

It has no name in any folder. It is gone with the last process that has it, however that one ends.
"""

import contextlib
import mmap
import os
import secrets
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Place:
    """Where other processes find an array while the one that made it has it."""

    process: int
    descriptor: int
    name: str
    """What no other memory is called."""
    shape: tuple[int, ...]
    dtype: str


def create(shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[NDArray[Any], Place] | None:
    """Make an array for several processes; None where the system has no such memory, or refuses."""
    if not hasattr(os, "memfd_create"):  # Linux alone has it
        return None
    name = f"hfc-{secrets.token_hex(8)}"
    try:
        descriptor = os.memfd_create(name)
    except OSError:
        return None
    try:
        os.ftruncate(descriptor, int(np.prod(shape)) * dtype.itemsize)
        memory = mmap.mmap(descriptor, 0)
    except (OSError, ValueError):  # a limit of file sizes, or no rows
        os.close(descriptor)
        return None
    array = np.frombuffer(memory, dtype).reshape(shape)
    weakref.finalize(memory, os.close, descriptor)
    return array, Place(os.getpid(), descriptor, name, shape, dtype.str)


def attach(place: Place) -> NDArray[Any] | None:
    """Map another process's array; None where it is not to be had, as on another machine.

    What is written to it here stays here.
    """
    path = f"/proc/{place.process}/fd/{place.descriptor}"
    with contextlib.suppress(OSError, ValueError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # The process or its descriptor may be another by now.
            if str(Path(f"/proc/self/fd/{descriptor}").readlink()) != f"/memfd:{place.name} (deleted)":
                return None
            memory = mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY)
        finally:
            os.close(descriptor)
        return np.frombuffer(memory, place.dtype).reshape(place.shape)
    return None
