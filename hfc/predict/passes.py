"""How few crops a forward pass may have with the bits of a full one.

PyTorch chooses its routines by shapes, and some sum in another order where a pass is small. Which ones depends on the
network, the precision, the processor and the number of threads, so it is tried, once for each size that comes. Where
sums differ in their last bits, most crops' features do; a trial of some crops finds it, without being a proof.

Dimensions: B crops, S side of a crop in pixels.
"""

import functools
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from hfc.extract.encoder import Encoder

FULL = 2  # passes that are tried


class Passes:
    """Sizes of forward passes, as `Encoder.fewest` takes them: `Passes(encoder, 224)(3)` is 4, if that is enough."""

    def __init__(self, encoder: Encoder, image_size: int) -> None:
        """Take the encoder as it is, and S."""
        self._encoder = replace(encoder, fewest=None)
        self._shape = (image_size, image_size, 3)
        self._alike = functools.cache(self._tried)
        self._full = functools.cache(self._features)

    def __call__(self, count: int, full: int) -> int:
        """Return the fewest crops that keep every bit: at least `count`, at most `full`."""
        sizes = (2**power for power in range(full.bit_length()) if count <= 2**power < full)
        return next((size for size in sizes if self._alike(size, full, torch.get_num_threads())), full)

    def _tried(self, size: int, full: int, threads: int) -> bool:
        """Whether passes of so many have the bits of full ones."""
        crops, features = self._full(full, threads)
        alone = replace(self._encoder, batch_size=size)
        return all(
            np.array_equal(alone.encode(crops[start : start + size]), features[start : start + size])
            for start in range(0, len(crops), size)
        )

    def _features(self, full: int, threads: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Noise, which has no values twice, and its features in full passes."""
        crops = np.random.default_rng(0).integers(0, 256, (FULL * full, *self._shape), dtype=np.uint8)
        return crops, replace(self._encoder, batch_size=full).encode(crops)
