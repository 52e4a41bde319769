"""`hfc doctor` on a machine that is well, and on one where something is broken."""

from pathlib import Path

import pytest
from click.testing import CliRunner

import hfc.crops
import hfc.extract.weights
from cli.main import main
from hfc import doctor, provenance
from hfc.errors import EncoderError


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same answer with and without a network."""

    def reach_hub() -> str:
        raise EncoderError("the model hub is out of reach")

    monkeypatch.setattr(hfc.extract.weights, "reach_hub", reach_hub)


def test_a_machine_that_is_well(tmp_path: Path) -> None:
    checks = {check.name: check for check in doctor.examine(tmp_path / "not" / "there")}
    assert {name: check.state for name, check in checks.items()} == dict.fromkeys(checks, "ok") | {"hub": "note"}
    assert all(f"{name} {version}" in checks["versions"].finding for name, version in provenance.versions().items())
    assert "JPEG" in checks["images"].finding
    assert f"GB free at {tmp_path}" in checks["disk"].finding
    assert checks["hub"].finding == "the model hub is out of reach"
    assert "tf_efficientnet_lite0" in checks["wheels"].finding
    result = CliRunner().invoke(main, ["doctor", "--out", str(tmp_path)])
    assert result.exit_code == 0
    assert [line.split()[:2] for line in result.output.splitlines()] == [[c.state, c.name] for c in checks.values()]


def test_what_is_broken_is_named_and_the_rest_still_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crop(*arguments: object) -> None:
        raise RuntimeError("no\ndecoder")

    monkeypatch.setattr(hfc.crops, "crop_image", crop)
    monkeypatch.setattr(hfc.crops, "FORMATS", ("PNG",))
    result = CliRunner().invoke(main, ["doctor", "--out", str(tmp_path)])
    assert result.exit_code == 1
    broken = [line.split(maxsplit=2) for line in result.output.splitlines() if line.strip().startswith("BROKEN")]
    assert [words[1] for words in broken] == ["images", "self-test"]
    assert broken[0][2].startswith("Pillow cannot read JPEG here")
    assert broken[1][2] == "RuntimeError: no decoder"


def test_features_that_are_no_numbers_are_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import numpy as np

    from hfc.extract.encoder import Encoder

    monkeypatch.setattr(Encoder, "encode", lambda self, crops: np.full((1, 1, self.dim), np.nan, np.float32))
    last = list(doctor.examine(tmp_path))[-1]
    assert (last.state, last.name) == ("BROKEN", "self-test")
    assert "50 of them NaN" in last.finding
