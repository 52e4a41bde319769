"""Memory between the layers of a network."""

import platform
import subprocess
import sys

import pytest

from hfc import jobs
from hfc.config import ExtractConfig, resolve

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
    monkeypatch.setattr(jobs, "keep_freed_memory", lambda: asked.append(True))
    settings = {"backbone": "test_efficientnet", "weights": "random", "image_size": 32, "device": "cpu"}
    jobs.open_encoder(resolve(ExtractConfig, settings))
    assert asked == [True]
