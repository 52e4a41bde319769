"""Pictures and a run on them, trained once for all tests of prediction."""

import shutil
from pathlib import Path

import pytest

from hfc.extract import worker
from hfc.runs import Run
from tests.support.trained import TOP_DOWN, train_run, write_pictures


@pytest.fixture(autouse=True)
def _small_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "CPU_TURN", 8)


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of pictures with their manifest m.csv."""
    return write_pictures(tmp_path_factory.mktemp("predict")).parent


@pytest.fixture(scope="session")
def trained(place: Path) -> tuple[Run, Path]:
    """A run and its cache."""
    return train_run(place, {}, TOP_DOWN)


@pytest.fixture
def run(trained: tuple[Run, Path], tmp_path: Path) -> Path:
    """A copy of the run, to be damaged."""
    return Path(shutil.copytree(trained[0].folder, tmp_path / "run"))
