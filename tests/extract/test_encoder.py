"""The frozen backbone: its features, its errors."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray

from hfc.errors import ConfigError, EncoderError
from hfc.extract import encoder as encoders
from hfc.extract.backbone import plain_weights
from hfc.extract.encoder import PASSES_AHEAD
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


class Stream:
    """Events of a pretended GPU: what was launched, and what was waited for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        stream, empty = self, torch.empty

        class Event:
            def __init__(self, blocking: bool = False) -> None:
                assert blocking  # else it spins, on a core that decoding wants

            def record(self, current: object) -> None:
                self.after = stream.log.count("pass")

            def synchronize(self) -> None:
                stream.log.append(f"wait for {self.after}")

        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
        monkeypatch.setattr(torch, "empty", lambda *shape, pin_memory, **more: empty(*shape, **more))


def on_a_gpu(monkeypatch: pytest.MonkeyPatch, batch_size: int) -> tuple[encoders.Encoder, Stream]:
    """An encoder that believes to be on a GPU; its passes give the number of crops' first byte."""
    encoder, stream = load(TINY, "random"), Stream(monkeypatch)
    encoder.device, encoder.batch_size = torch.device("cuda:0"), batch_size

    def forward(self: encoders.Encoder, part: NDArray[np.uint8]) -> torch.Tensor:
        stream.log.append("pass")
        return torch.from_numpy(part[:, 0, 0, :1]).float()[:, None]

    monkeypatch.setattr(encoders.Encoder, "_forward", forward)
    return encoder, stream


def test_a_gpu_is_given_few_passes_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, stream = on_a_gpu(monkeypatch, batch_size=2)
    numbers = np.arange(9, dtype=np.uint8)
    pixels = np.tile(numbers[:, None, None, None], (1, 4, 4, 3))
    result = encoder.submit(pixels)
    assert PASSES_AHEAD == 2
    assert stream.log == ["pass", "pass", "pass", "wait for 1", "pass", "wait for 2", "pass", "wait for 3"]
    np.testing.assert_array_equal(result()[:, 0, 0], numbers)
    assert stream.log[-1] == "wait for 5"


@pytest.mark.parametrize("pinned", [False, True])
def test_crops_are_copied_beside_the_batch_before(pinned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy is on its own stream, computing waits for it, and its memory waits for computing."""
    encoder, log = load(TINY, "random"), list[str]()
    encoder.device = torch.device("cuda", 0)

    class Stream:
        def __init__(self, name: object) -> None:
            self.name = name if isinstance(name, str) else f"copying on {name}"

        def wait_stream(self, other: "Stream") -> None:
            log.append(f"{self.name} waits for {other.name}")

    @contextmanager
    def on(stream: Stream) -> Iterator[None]:
        log.append(f"begin {stream.name}")
        yield
        log.append(f"end {stream.name}")

    def send(tensor: torch.Tensor, device: torch.device, non_blocking: bool) -> torch.Tensor:
        log.append(f"copy to {device}{', not waited for' * non_blocking}")
        return tensor.clone()

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream("computing"))
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda tensor: pinned)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: log.append("page-lock") or tensor)
    monkeypatch.setattr(torch.Tensor, "to", send)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: log.append(f"kept for {stream.name}"))
    pixels = torch.from_numpy(crops())
    assert torch.equal(encoder._upload(pixels), pixels)
    assert log == [
        *([] if pinned else ["page-lock"]),
        "begin copying on cuda:0",
        "copy to cuda:0, not waited for",
        "end copying on cuda:0",
        "computing waits for copying on cuda:0",
        "kept for computing",
    ]


@pytest.mark.parametrize("message", ["CUDA error: out of memory", "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"])
def test_memory_that_others_than_the_allocator_lack_halves_the_batch(
    message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load(TINY, "random")
    plain, sizes, handling = encoder.model, [], []

    class Full(torch.nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            sizes.append(len(batch))
            if len(batch) > 2:
                raise RuntimeError(message)
            return plain(batch)  # type: ignore[no-any-return]

    encoder.model = Full()
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: handling.append(sys.exc_info()[0]))
    encoder.encode(crops(3))
    assert sizes == [8, 4, 2, 2]
    assert handling == [None, None]  # outside the except block, whose error holds the failed pass's tensors


def test_an_error_that_is_not_of_memory_is_raised() -> None:
    encoder = load(TINY, "random")

    class Broken(torch.nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    encoder.model = Broken()
    with pytest.raises(RuntimeError, match="an illegal memory access"):
        encoder.encode(crops())
    assert encoder.batch_size == 8


def test_a_smaller_batch_is_compiled_with_weights_as_constants_too() -> None:
    from torch._inductor import config

    encoder, seen = load(TINY, "random"), []
    plain = encoder.model

    class Compiled(torch.nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            seen.append((len(batch), config.freezing))
            if len(batch) > 4:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return plain(batch)  # type: ignore[no-any-return]

    encoder.model, encoder.compiled = Compiled(), True
    encoder.encode(crops())
    assert seen == [(8, True), (4, True)]
    assert not config.freezing


@pytest.mark.parametrize(("precision", "cast"), [("fp16", [torch.float16]), ("bf16", [torch.bfloat16]), ("fp32", [])])
def test_on_a_gpu_weights_are_kept_in_16_bits(
    precision: str, cast: list[torch.dtype], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[torch.dtype] = []
    monkeypatch.setattr(encoders, "choose_device", lambda name: torch.device("cuda:0"))
    monkeypatch.setattr(encoders, "_made_fast", lambda model, *_, **__: model)
    monkeypatch.setattr(encoders, "probe", lambda *_: ((2, 2), 256))
    monkeypatch.setattr(encoders, "cast_weights", lambda model, dtype, run: asked.append(dtype))
    load(TINY, "random", precision=precision)
    assert asked == cast


def test_on_a_cpu_weights_stay_as_they_are() -> None:
    assert {parameter.dtype for parameter in load(TINY, "random", precision="bf16").model.parameters()} == {
        torch.float32
    }
