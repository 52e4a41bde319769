"""Benchmarks: `python -m tests.bench NAME` prints a JSON object a line. Ratios of one run, medians of several turns."""

import json
import time
from collections.abc import Callable


def say(**fields: object) -> None:
    """One line of JSON."""
    print(json.dumps(fields), flush=True)


def seconds(action: Callable[[], object]) -> float:
    """How long an action takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started
