"""Fixtures of many tests: made-up features and a tree, in a folder of each module's own."""

import os
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

from tests.support.made_up import small_cache, write_tree_csv

if TYPE_CHECKING:
    from hfc.train.cache import Cache

# Processes of tests share the cores: a thread each, or they would wait for one another.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Numbers are held to what a CPU rounds to, and machines with a GPU would take that: its number here lets them.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

# How long an example takes depends on what else the machine does. CI tries twice as many of them.
EXAMPLES = 100 if os.environ.get("CI") else 50
hypothesis.settings.register_profile("untimed", deadline=None, max_examples=EXAMPLES)
hypothesis.settings.load_profile("untimed")


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Let the names of files that are not UTF-8 cross from one process of tests to another."""
    report = yield
    return encodable(report)


def encodable(value: Any) -> Any:
    """The same with a question mark for what UTF-8 cannot hold."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {encodable(key): encodable(part) for key, part in value.items()}
    return type(value)(map(encodable, value)) if isinstance(value, list | tuple) else value


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `cache.h5`, made-up features of 360 rows, and `tree.csv`, the tree of their labels."""
    folder = tmp_path_factory.mktemp("place")
    small_cache(folder / "cache.h5")
    write_tree_csv(folder / "tree.csv")
    return folder


@pytest.fixture(scope="module")
def cache(place: Path) -> "Cache":
    """The cache of `place`, read to the CPU's memory."""
    from hfc.train.cache import load_cache  # only now: many tests need no torch

    return load_cache(place / "cache.h5", device="cpu")
