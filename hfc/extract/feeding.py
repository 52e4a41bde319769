"""How crops come to a GPU: decoded in processes into page-locked memory, else in threads."""

import contextlib
import logging
from collections.abc import Iterable, Iterator
from functools import partial

import torch

from hfc.crops import Bytes, CropSettings
from hfc.datasets.images import Batch, stream_crops
from hfc.datasets.processes import stream_from_processes, unfit
from hfc.regions import Regions

logger = logging.getLogger(__name__)

# Batches that threads decode ahead: enough to hide a slow image, few enough to bound memory.
THREADS_AHEAD = 3
# With fewer regions processes would hardly have started before threads are done.
PROCESSES_FROM = 4096
PORTABLE = 1  # of cudaHostRegister: page-locked for every GPU


def feed(
    regions: Regions,
    shards: Iterable[tuple[int, range]],
    crop: CropSettings,
    *,
    batch_size: int,
    workers: int,
    device: torch.device,
) -> Iterator[Batch]:
    """Decode the regions of some shards while a GPU computes. See `stream_crops`, whose batches these are.

    The crops of a batch are valid until the next but one is asked for.
    """
    why = "they are few" if len(regions) < PROCESSES_FROM else unfit(regions)
    if not why:
        lock = partial(page_locked, device=device)
        return stream_from_processes(regions, shards, crop, batch_size=batch_size, workers=workers, lock=lock)
    logger.info("crops are decoded in threads: %s", why)
    return stream_crops(regions, shards, crop, batch_size=batch_size, workers=workers, ahead=THREADS_AHEAD)


@contextlib.contextmanager
def page_locked(memory: Bytes, device: torch.device) -> Iterator[None]:
    """Lock the pages of some memory, from which a GPU then copies by itself. Where it cannot be, copies wait."""
    address, runtime = memory.ctypes.data, torch.cuda.cudart()
    with torch.cuda.device(device):
        code = int(runtime.cudaHostRegister(address, memory.nbytes, PORTABLE))
    if code:
        logger.warning("%d MB cannot be page-locked (CUDA error %d): slower copies", memory.nbytes // 10**6, code)
    try:
        yield
    finally:
        if not code:
            with contextlib.suppress(RuntimeError):  # an error of CUDA's is on its way already
                torch.cuda.synchronize(device)  # copies that were not waited for
            runtime.cudaHostUnregister(address)
