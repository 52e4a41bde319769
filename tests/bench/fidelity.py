"""How close features are to timm's own in float32, over photographs. Dimensions: N photographs, D features."""

import argparse
from pathlib import Path

import numpy as np
import timm.data
import torch
from numpy.typing import NDArray

from hfc.crops import CropSettings, crop_image
from tests.bench import say
from tests.support.backbones import LITE, lite_by_hand, load

SIZE = 224
BATCH = 8
WHOLE = np.full(4, np.nan, dtype=np.float32)
SQUASH = CropSettings(SIZE, "squash", 0.0, (0, 0, 0))


def main(words: list[str]) -> None:
    """Cosine similarities of EfficientNet-Lite0's features, ImageNet weights, to those of timm's network in float32."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench fidelity")
    parser.add_argument("photographs", type=Path, help="a folder of JPEGs, folders below it included")
    parser.add_argument("--precision", default="bf16", choices=("fp32", "bf16", "fp16"))
    parser.add_argument("--every", type=int, default=1, help="take every n-th photograph")
    options = parser.parse_args(words)
    similarity = similarities(sorted(options.photographs.rglob("*.jpg"))[:: options.every], options.precision)
    say(
        benchmark="fidelity",
        precision=options.precision,
        photographs=len(similarity),
        least=round(float(similarity.min()), 5),
        first_percentile=round(float(np.percentile(similarity, 1)), 5),
        mean=round(float(similarity.mean()), 5),
        share_below_0_999=round(float((similarity < 0.999).mean()), 4),
    )


@torch.inference_mode()
def similarities(photographs: list[Path], precision: str) -> NDArray[np.float64]:
    """(N,) cosine similarities of the features of whole photographs to those of timm's network in float32."""
    network = lite_by_hand()
    config = timm.data.resolve_data_config({}, model=network)
    mean, std = (torch.tensor(config[name]).view(3, 1, 1) for name in ("mean", "std"))
    encoder = load(LITE, "wheel", image_size=SIZE, precision=precision)
    parts = []
    for start in range(0, len(photographs), BATCH):
        batch = photographs[start : start + BATCH]
        crops = np.stack([crop_image(path.read_bytes(), WHOLE, SQUASH) for path in batch])
        pixels = (torch.from_numpy(crops).permute(0, 3, 1, 2) / 255 - mean) / std
        expected = network.forward_features(pixels).mean(dim=(2, 3)).double().numpy()
        features = encoder.encode(crops)[:, 0].astype(np.float64)
        lengths = np.linalg.norm(expected, axis=1) * np.linalg.norm(features, axis=1)
        parts.append((expected * features).sum(axis=1) / lengths)
    return np.concatenate(parts)
