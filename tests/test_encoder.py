"""The frozen backbone: its features, its errors."""

import numpy as np
import pytest
import timm
import torch

from hfc.encoder import plain_weights
from hfc.errors import ConfigError, EncoderError
from hfc.weights import POOLING
from tests.backbones import LITE, TINY, cosine, crops, lite_by_hand, load


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


@pytest.mark.parametrize("kind", ["byobnet", "convnext", "efficientnet", "mambaout", "nfnet", "resnet", "vit", "vit3"])
def test_every_kind_of_backbone_pools_as_asked(kind: str) -> None:
    pixels = crops(size=160)
    results = {}
    for pool in ("mean", "max"):
        state = plain_weights(f"test_{kind}", "random", pool, 160)
        headless = timm.create_model(f"test_{kind}").eval()
        headless.reset_classifier(0, POOLING[pool])  # type: ignore[operator]
        headless.load_state_dict(state)
        encoder = load(f"test_{kind}", "random", pool=pool, image_size=160)
        images = torch.from_numpy((pixels / 255 - encoder.mean) / encoder.std).float().permute(0, 3, 1, 2)
        with torch.inference_mode():
            want = headless(images).numpy()
        results[pool] = encoder.encode(pixels)[:, 0]
        np.testing.assert_allclose(results[pool], want, rtol=1e-3, atol=1e-4)
    assert np.abs(results["max"] - results["mean"]).max() > 0.01


def test_16_bit_features_are_close() -> None:
    exact, rounded = (load(LITE, "wheel", precision=name).encode(crops()) for name in ("fp32", "bf16"))
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


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ("tf_efficientnet_lite9", "timm has no backbone 'tf_efficientnet_lite9'"),
        ("tf_efficientnet_b", "did you mean tf_efficientnet_b0"),
        ("efficentnet_b0", "did you mean efficientnet_b0"),
        ("tf_efficientnet_b5.aa_in1kk", "for this backbone it has tf_efficientnet_b5.aa_in1k$"),
    ],
)
def test_a_backbone_timm_does_not_have_is_refused(backbone: str, message: str) -> None:
    with pytest.raises(EncoderError, match=message):
        load(backbone, "random")


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="device cuda:77 cannot be used here"):
        load(TINY, "random", device="cuda:77")
