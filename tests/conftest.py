"""Fixtures of many tests: made-up features and a tree, in a folder of each module's own."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests.support.made_up import small_cache, write_tree_csv

if TYPE_CHECKING:
    from hfc.train.cache import Cache


# How long an example takes depends on what else the machine does. CI tries twice as many of them.
EXAMPLES = 100 if os.environ.get("CI") else 50
hypothesis.settings.register_profile("untimed", deadline=None, max_examples=EXAMPLES)
hypothesis.settings.load_profile("untimed")


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
