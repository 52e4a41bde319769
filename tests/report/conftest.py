"""A report that many tests read."""

from pathlib import Path

import pytest

from hfc.report import write_report
from tests.support.made_runs import tree_of, two_methods


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs of two methods, three seeds each, and their report."""
    folder = tmp_path_factory.mktemp("report")
    two_methods(folder / "runs", tree_of(folder / "tree.csv"), cache__origin="DeepFashion")
    write_report([folder / "runs"], folder / "report")
    return folder
