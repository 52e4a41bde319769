"""The frozen backbone: its features, its errors."""

import numpy as np
import pytest
import timm
import torch

from hfc.errors import ConfigError, EncoderError
from hfc.extract.encoder import plain_weights
from hfc.extract.weights import POOLING
from tests.support.backbones import LITE, TINY, cosine, crops, lite_by_hand, load


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


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="device cuda:77 cannot be used here"):
        load(TINY, "random", device="cuda:77")


def test_a_pooling_refused_leaves_the_advice_as_the_network_was() -> None:
    # This network takes the name before it refuses it.
    with pytest.raises(EncoderError, match="by token: Invalid pool type: token; give --pool mean, as timm does"):
        load("csatv2", "random", pool="token")


@pytest.mark.parametrize(
    "backbone", [LITE, TINY, "tf_efficientnet_b5.aa_in1k", "test_resnet", "test_mambaout", "tresnet_m"]
)
def test_pooling_as_timm_does_is_by_mean_where_timm_takes_the_mean(backbone: str) -> None:
    auto, mean = (load(backbone, "random", pool=pool) for pool in ("auto", "mean"))
    assert auto.pool == mean.pool == "mean"
    assert auto.weights_digest == mean.weights_digest
    np.testing.assert_array_equal(auto.encode(crops()), mean.encode(crops()))


def test_float32_is_whole_while_a_network_computes_and_the_setting_comes_back() -> None:
    encoder = load(TINY, "random")
    network, seen = encoder.model, []

    class Watched(torch.nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            seen.append(torch.backends.cudnn.allow_tf32)
            return network(batch)  # type: ignore[no-any-return]

    encoder.model = Watched()
    before = torch.backends.cudnn.allow_tf32
    encoder.encode(crops())
    assert (seen, torch.backends.cudnn.allow_tf32) == ([False], before)
