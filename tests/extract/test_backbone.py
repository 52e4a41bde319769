"""A network by its name: which there are, what sizes it takes, what it gives."""

import numpy as np
import pytest
import torch
from timm.models.efficientnet import EfficientNet

from hfc.errors import EncoderError
from tests.support.backbones import TINY, crops, load


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


@pytest.mark.parametrize(
    ("backbone", "size", "pool", "message"),
    [
        (
            *(TINY, 64, "token"),
            "backbone test_efficientnet does not pool by token: Invalid pool type: token; "
            "give --pool mean, as timm does",
        ),
        (
            *("levit_128s", 224, "max"),
            "backbone levit_128s does not pool by max: Only avg pooling (or none) is supported; "
            "give --pool mean, as timm does",
        ),
        (
            *("pit_ti_224", 224, "mean"),
            "backbone pit_ti_224 does not pool by mean: Only token pooling (or none) is supported; "
            "give --pool token, as timm does",
        ),
        (
            *("halonet_h1", 100, "auto"),
            "backbone halonet_h1 does not take images of 100 pixels: AssertionError in _assert; it takes 256 "
            "(it was made for 256)",
        ),
        (
            *("test_vit", 100, "auto"),
            "backbone test_vit does not take images of 100 pixels: Input height (100) should be divisible by patch "
            "size (16); it takes 96, 112, 128, 160 (it was made for 160)",
        ),
    ],
)
def test_what_a_backbone_does_not_do_is_refused_with_what_it_does(
    backbone: str, size: int, pool: str, message: str
) -> None:
    with pytest.raises(EncoderError) as refusal:
        load(backbone, "random", image_size=size, pool=pool)
    assert str(refusal.value) == message


@pytest.mark.parametrize("size", [96, 112, 128])
def test_a_backbone_takes_the_sizes_that_its_refusal_names(size: int) -> None:
    with pytest.raises(EncoderError, match=r"; it takes 96, 112, 128, 224 \(it was made for 224\)$"):
        load("levit_128s", "random", image_size=97)
    assert load("levit_128s", "random", image_size=size).encode(crops(size=size)).shape == (3, 1, 384)


def test_a_network_that_computes_in_float32_alone_is_refused_with_that(monkeypatch: pytest.MonkeyPatch) -> None:
    before = EfficientNet.forward_features

    def exact_alone(self: EfficientNet, inputs: torch.Tensor) -> torch.Tensor:
        if torch.is_autocast_enabled("cpu"):
            raise AssertionError
        return before(self, inputs)

    monkeypatch.setattr(EfficientNet, "forward_features", exact_alone)
    assert load(TINY, "random").precision == "fp32"
    with pytest.raises(EncoderError) as refusal:
        load(TINY, "random", precision="bf16")
    assert str(refusal.value) == (
        "backbone test_efficientnet does not compute in bf16: AssertionError in exact_alone; give --precision fp32"
    )


@pytest.mark.parametrize(
    ("backbone", "size", "pool", "feature_map"),
    [
        (TINY, 64, "mean", (2, 2)),
        ("mobilenetv3_small_050", 96, "mean", (3, 3)),  # its head has a layer after the pooling
        ("test_mambaout", 96, "mean", (3, 3)),  # channels last
        ("test_vit", 160, "token", (101,)),
        ("test_vit3", 160, "auto", (101,)),
        ("crossvit_tiny_240", 240, "token", (197,)),  # two maps
        ("efficientvim_m1", 128, "mean", (4,)),  # three, channels first
        ("resnet10t", 96, "mean", (3, 3)),
    ],
)
def test_pooling_and_feature_map_of_a_backbone_are_known(
    backbone: str, size: int, pool: str, feature_map: tuple[int, ...]
) -> None:
    encoder = load(backbone, "random", image_size=size, pool="auto")
    assert (encoder.pool, encoder.feature_map) == (pool, feature_map)
