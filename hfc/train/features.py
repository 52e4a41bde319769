"""Training gets its features from the device's memory, or streams them from the disk.

Dimensions: N rows of a cache, V views, D features, n chosen rows, B rows of a batch.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hfc.store import CHUNK_ROWS, FeatureStore, ahead
from hfc.train.memory import Place

BLOCK_ROWS = 4096  # rows in float32 at a time where a whole split is read
BUFFER_BYTES = 256 * 2**20  # of a shuffle buffer when streaming; two of them are in memory


@dataclass(frozen=True)
class Resident:
    """Features in memory, on the device, as they are stored."""

    tensor: Tensor
    """(N, V, D)."""
    place: Place | None = None
    """Where other processes of this machine find them."""

    @property
    def device(self) -> torch.device:
        """Where the features are."""
        return self.tensor.device

    @property
    def views(self) -> int:
        """V."""
        return self.tensor.shape[1]

    @property
    def dim(self) -> int:
        """D."""
        return self.tensor.shape[2]

    def first_view(self) -> "Resident":
        """The same with V = 1."""
        return Resident(self.tensor[:, :1])

    def changed(self, change: Callable[[Tensor], Tensor]) -> "Resident":
        """The same with every view, (D,), changed; `change` takes (n, D)."""
        return Resident(change(self.tensor.flatten(0, 1)).unflatten(0, self.tensor.shape[:2]))

    def blocks(self, rows: Tensor) -> Iterator[Tensor]:
        """Read the features of some rows, in their order: float32 blocks (n, V, D)."""
        for block in rows.split(BLOCK_ROWS):
            yield self.tensor[block].float()

    def batches(self, rows: Tensor, size: int, order: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Draw batches of some rows, each once: the rows, and (B, D) features of one view of each."""
        shuffled = rows[torch.randperm(len(rows), generator=order).to(rows.device)]
        if self.views == 1:  # also the first of several, whose rows lie apart
            yield from ((batch, self.tensor[:, 0].index_select(0, batch)) for batch in shuffled.split(size))
            return
        drawn = _drawn(self.views, len(rows), order).to(rows.device)  # for the whole epoch: a GPU is waited for once
        for batch, views in zip(shuffled.split(size), drawn.split(size), strict=True):
            yield batch, self.tensor[batch, views]


@dataclass(frozen=True)
class Streamed:
    """Features of a cache that stays on the disk.

    The blocks of the file are read in random order into a buffer, whose rows are shuffled: close to a shuffle of all
    rows where the file's order means nothing, or the buffer is large against what it means.
    """

    store: FeatureStore
    """The open cache: kept open, so that every epoch reads the same file."""
    device: torch.device
    views: int
    """V: how many of the stored views are used, the first ones."""
    buffer_bytes: int = BUFFER_BYTES

    @property
    def dim(self) -> int:
        """D."""
        return self.store.shape[2]

    @property
    def itemsize(self) -> int:
        """Bytes of a stored number."""
        return self.store.dtype.itemsize

    def first_view(self) -> "Streamed":
        """The same with V = 1."""
        return replace(self, views=1)

    def blocks(self, rows: Tensor) -> Iterator[Tensor]:
        """Read the features of some rows, which ascend, in blocks (n, V, D) of float32."""
        for _, features in self._windows(rows, _chunks(rows), BLOCK_ROWS // CHUNK_ROWS):
            yield self._sent(features).float()

    def batches(self, rows: Tensor, size: int, order: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Draw batches of some rows, which ascend, each once: the rows, and (B, D) features of one view."""
        chunks = _chunks(rows)
        chunks = chunks[torch.randperm(len(chunks), generator=order).numpy()]
        many = max(self.buffer_bytes // (CHUNK_ROWS * self.views * self.dim * self.itemsize), 1)
        batch, features = rows[:0].cpu(), torch.empty(0)
        for held, window in ahead(self._windows(rows, chunks, many)):
            shuffled = torch.randperm(len(held), generator=order)
            places = shuffled * self.views + (_drawn(self.views, len(held), order) if self.views > 1 else 0)
            flat = window.reshape(-1, self.dim)
            start = 0
            while start < len(held):  # a batch may begin in one window and end in the next
                stop = start + size - len(batch)
                fresh = flat.index_select(0, places[start:stop])
                batch, features = (
                    torch.cat([batch, held[shuffled[start:stop]]]),
                    torch.cat([features, fresh]) if len(batch) else fresh,
                )
                start = stop
                if len(batch) == size:
                    yield self._sent(batch), self._sent(features)
                    batch = batch[:0]
        if len(batch):
            yield self._sent(batch), self._sent(features)

    def _sent(self, tensor: Tensor) -> Tensor:
        """Move a tensor to the device. A GPU copies page-locked memory by itself, while the next batch is gathered."""
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor

    def _windows(self, rows: Tensor, chunks: NDArray[np.int64], many: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Read so many chunks of the file at a time: which of the rows lie in them, and their features as stored."""
        wanted, store = rows.cpu().numpy(), self.store
        for first in range(0, len(chunks), many):
            starts = np.sort(chunks[first : first + many]) * CHUNK_ROWS
            held = [wanted[slice(*np.searchsorted(wanted, [start, start + CHUNK_ROWS]))] for start in starts]
            features = np.empty((sum(map(len, held)), self.views, self.dim), dtype=store.dtype)
            filled = 0
            for start, numbers in zip(starts.tolist(), held, strict=True):
                features[filled : filled + len(numbers)] = store.block(start)[numbers - start, : self.views]
                filled += len(numbers)
            yield torch.from_numpy(np.concatenate(held)), torch.from_numpy(features)


def _chunks(rows: Tensor) -> NDArray[np.int64]:
    """The chunks of the file that hold some of the rows, in order."""
    return np.unique(rows.cpu().numpy() // CHUNK_ROWS)


Features = Resident | Streamed


def _drawn(views: int, count: int, order: torch.Generator) -> Tensor:
    """(count,) a view for each row."""
    return torch.randint(views, (count,), generator=order)


def signs(features: Features, rows: Tensor) -> Tensor:
    """Add up the sizes of each row's negative numbers, and of all its numbers.

    Returns:
        (n, 2) over every view, on the CPU.
    """
    # Sums that are kept one by one would lie between the blocks, and no block would fit where one was.
    sums = torch.empty(len(rows), 2, device=features.device)
    seen = 0
    for block in features.blocks(rows):
        for part in block.flatten(1).split(BLOCK_ROWS // 16):  # stays in the processor's cache
            here = sums[seen : seen + len(part)]
            here[:, 0] = -part.clamp(max=0).sum(dim=1)
            here[:, 1] = part.abs().sum(dim=1)
            seen += len(part)
    return sums.cpu()


def statistics(features: Features, rows: Tensor, transformed: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Compute mean and standard deviation, (D,), over every view of some rows.

    In float64 and one pass, a block at a time; rows are transformed first.
    """
    count = len(rows) * features.views
    mean = torch.zeros(features.dim, dtype=torch.float64, device=features.device)
    squares = torch.zeros_like(mean)
    seen = 0
    for block in features.blocks(rows):
        values = block.double().flatten(0, 1)
        for part in values.split(BLOCK_ROWS // 16):  # a block's square root at once takes three times its memory
            part.copy_(transformed(part))
        # Chan et al. 1979: means and sums of squares of two sets to those of the whole, without cancellation.
        centre = values.mean(dim=0)
        whole = seen + len(values)
        squares += (values - centre).square().sum(dim=0) + (centre - mean).square() * (seen * len(values) / whole)
        mean += (centre - mean) * (len(values) / whole)
        seen = whole
    return mean.float(), (squares / count).sqrt().float()
