"""Networks and pictures that tests of weights compare."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

HALF = (0.5, 0.5, 0.5)


def normalised(pixels: NDArray[np.uint8], mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> Tensor:
    return torch.from_numpy(((pixels / 255 - mean) / std).transpose(0, 3, 1, 2)).float()
