"""Read the images of regions: decoded crops in batches, some ahead.

Dimensions: B crops a batch, S side of a crop in pixels.
"""

import hashlib
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from hfc.crops import Bytes, CropSettings, crop_image
from hfc.datasets.reading import UNREADABLE, named, read_bytes, reason
from hfc.errors import HfcError
from hfc.regions import Regions


@dataclass
class Batch:
    """Decoded crops of consecutive rows of one shard."""

    shard: int
    rows: list[int] = field(default_factory=list)
    """Rows of the regions that could be decoded, in order."""
    crops: Bytes = field(default_factory=lambda: np.empty((0, 0, 0, 3), dtype=np.uint8))
    """(B, S, S, 3) RGB, row for row."""
    failures: list[tuple[int, str]] = field(default_factory=list)
    """Row and reason of each region that could not be decoded."""
    sha256: dict[int, bytes] = field(default_factory=dict)
    """Of the bytes that were decoded, by row; b"" where none could be read."""
    last: bool = False
    """Whether this ends its shard."""
    read_s: float = 0.0
    decode_s: float = 0.0


def stream_crops(
    regions: Regions,
    shards: Iterable[tuple[int, range]],
    settings: CropSettings,
    *,
    batch_size: int,
    workers: int,
    ahead: int,
) -> Iterator[Batch]:
    """Decode the regions of some shards in threads, a bounded number of batches ahead.

    A batch never spans two shards. An image that cannot be decoded is a failure of its row, never a substitute.

    Args:
        regions: the table the rows index.
        shards: number and rows of each shard, taken up as the stream gets there.
        settings: how a region becomes a crop.
        batch_size: crops a batch at most.
        workers: decoding threads; Pillow releases the interpreter while it decodes and resizes.
        ahead: batches decoded while the caller is busy with one; 0: decoding and the caller take turns.

    Yields:
        The batches of the shards, in order.

    Raises:
        HfcError: too little memory to read or decode an image; the message names it.
    """
    pieces = (
        (shard, rows[start : start + batch_size], start + batch_size >= len(rows))
        for shard, rows in shards
        for start in range(0, len(rows), batch_size)
    )
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        queue: deque[tuple[Batch, Sequence[int], list[Future[_Decoded]]]] = deque()
        try:
            for shard, rows, last in pieces:
                futures = [pool.submit(_decode, regions, row, settings) for row in rows]
                queue.append((Batch(shard, last=last), rows, futures))
                if len(queue) > ahead:
                    yield _collect(*queue.popleft(), settings.size)
            while queue:
                yield _collect(*queue.popleft(), settings.size)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@dataclass
class _Decoded:
    crop: Bytes | None
    failure: str
    sha256: bytes
    read_s: float
    decode_s: float


def _decode(regions: Regions, row: int, settings: CropSettings) -> _Decoded:
    started = time.perf_counter()
    opened = started
    path = str(regions.path[row])
    sha256 = b""
    try:
        content = read_bytes(regions.root, path, regions.remote)
        opened = time.perf_counter()
        sha256 = hashlib.sha256(content).digest()
        crop, failure = crop_image(content, regions.box[row], settings), ""
    except MemoryError as error:  # the machine is to blame: another run may read the same image
        name = named(regions.root, path)
        raise HfcError(
            f"{name}: out of memory while reading or decoding it; give a lower --workers or --batch-size"
        ) from error
    except UNREADABLE as error:
        crop, failure = None, reason(error)
    return _Decoded(crop, failure, sha256, opened - started, time.perf_counter() - opened)


def _collect(batch: Batch, rows: Sequence[int], futures: list[Future[_Decoded]], size: int) -> Batch:
    batch.crops = np.empty((len(rows), size, size, 3), dtype=np.uint8)
    for row, future in zip(rows, futures, strict=True):
        decoded = future.result()
        batch.read_s += decoded.read_s
        batch.decode_s += decoded.decode_s
        batch.sha256[row] = decoded.sha256
        if decoded.crop is None:
            batch.failures.append((row, decoded.failure))
        else:
            batch.crops[len(batch.rows)] = decoded.crop
            batch.rows.append(row)
    batch.crops = batch.crops[: len(batch.rows)]
    return batch
