"""A run's backbone is opened as the run records it, or refused."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hfc import Classifier
from hfc.errors import RunError
from tests.support.trained import rewrite_result, write_weights


def other_pixels(run: Path) -> None:
    rewrite_result(run, lambda result: result["cache"]["key_fields"].update(pixels=0))


def other_mean(run: Path) -> None:
    rewrite_result(run, lambda result: result["cache"]["key_fields"].update(mean=[0.1, 0.2, 0.3]))


def moved(run: Path) -> None:
    rewrite_result(run, lambda result: result["cache"].update(weights="gone/backbone.pth"))


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no record": (
        lambda r: rewrite_result(r, lambda result: result["cache"]["key_fields"].pop("resize")),
        r"run: cache.key_fields: resize: missing; extract and train again$",
    ),
    "no record at all": (
        lambda r: rewrite_result(r, lambda result: result["cache"].pop("key_fields")),
        r"run: cache.key_fields: expected an object, found null; extract and train again$",
    ),
    "damaged record": (
        lambda r: rewrite_result(r, lambda result: result["cache"]["key_fields"].update(image_size="32")),
        r"run: cache.key_fields: image_size: expected an integer, found '32'; extract and train again$",
    ),
    "impossible record": (
        lambda r: rewrite_result(r, lambda result: result["cache"]["key_fields"].update(resize="sqash")),
        r"does not record how its features were made \(unknown resize 'sqash'; did you mean squash\?\)",
    ),
    "other pixels": (other_pixels, r"prepared in another way \(pixels 0, here 1\)"),
    "other mean": (other_mean, r"prepared in another way \(mean \[0.1, 0.2, 0.3\], here"),
    "weights moved": (moved, "cannot be opened: weights gone/backbone.pth: no such file; .*where with --weights PATH"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_run_whose_backbone_is_another_is_refused(case: str, run: Path) -> None:
    damage, message = REFUSED[case]
    damage(run)
    with pytest.raises(RunError, match=message):
        Classifier.load(run)


def test_only_the_weights_of_the_run_will_do(run: Path, place: Path, tmp_path: Path) -> None:
    other = write_weights(tmp_path / "other.pth", seed=2)
    with pytest.raises(
        RunError, match=r"other.pth are not those the run was trained on: expected digest \w{12}…, found"
    ):
        Classifier.load(run, weights=str(other))
    answer = Classifier.load(run)(place / "img" / "01.jpg")
    moved(run)
    elsewhere = shutil.copy(place / "backbone.pth", tmp_path / "copy.pth")
    assert Classifier.load(run, weights=elsewhere)(place / "img" / "01.jpg") == answer


@pytest.mark.parametrize(
    ("recorded", "asked", "has", "computed", "warning"),
    [
        ("bf16", "recorded", True, "bf16", ""),
        ("bf16", "recorded", False, "fp32", "computed in bf16, these in fp32, as cpu has no bf16 in hardware"),
        ("fp16", "recorded", True, "fp32", "computed in fp16, these in fp32, as cpu has no fp16 in hardware"),
        ("bf16", "fp32", True, "fp32", "computed in bf16, these in fp32; the head"),
        ("fp32", "fp32", False, "fp32", ""),
    ],
)
def test_the_recorded_precision_is_used_or_its_lack_is_said(
    recorded: str,
    asked: str,
    has: bool,
    computed: str,
    warning: str,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    rewrite_result(run, lambda result: result["cache"]["key_fields"].update(precision=recorded))
    monkeypatch.setattr("hfc.device.has_bf16_cpu", lambda: has)
    with caplog.at_level(logging.WARNING):
        classifier = Classifier.load(run, precision=asked, device="cpu")
    assert classifier.encoder.precision == computed
    assert warning in caplog.text
    assert bool(caplog.text) == bool(warning)


@pytest.mark.parametrize(
    ("recorded", "asked", "compiled"),
    [(True, "recorded", True), (True, "no", False), (False, "recorded", False), (False, "yes", True)],
)
def test_the_backbone_is_compiled_as_recorded_or_asked(
    recorded: bool, asked: str, compiled: bool, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite_result(run, lambda result: result["cache"]["key_fields"].update(compile=recorded))
    calls: list[int] = []
    monkeypatch.setattr("hfc.extract.encoder._compile", lambda encoder, size: calls.append(size))
    Classifier.load(run, compile=asked)
    assert calls == [32] * compiled
