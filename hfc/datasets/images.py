"""Read the images of regions: decoded crops in batches, some ahead.

Dimensions: B crops a batch, S side of a crop in pixels.
"""

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hfc.crops import Bytes, CropSettings, crop_image
from hfc.datasets.reading import UNREADABLE, named, read_bytes, reason
from hfc.errors import HfcError
from hfc.regions import Regions, Remote


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

    def add(self, row: int, outcome: "Outcome") -> None:
        """Take in what became of the next row. Of a row that is no failure the caller puts the crop into its place."""
        self.read_s += outcome.read_s
        self.decode_s += outcome.decode_s
        self.sha256[row] = outcome.sha256
        if outcome.failure:
            self.failures.append((row, outcome.failure))
        else:
            self.rows.append(row)


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
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        queue: deque[tuple[Batch, Sequence[int], list[Future[Decoded]]]] = deque()
        try:
            for shard, rows, last in cut(shards, batch_size):
                submit = pool.submit if len(rows) > 1 else _done  # a single image needs no thread
                futures = [submit(decode_row, regions, row, settings) for row in rows]
                queue.append((Batch(shard, last=last), rows, futures))
                if len(queue) > ahead:
                    yield _collect(*queue.popleft(), settings.size)
            while queue:
                yield _collect(*queue.popleft(), settings.size)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def cut(shards: Iterable[tuple[int, range]], batch_size: int) -> Iterator[tuple[int, range, bool]]:
    """Yield shard and rows of every batch, and whether it ends its shard."""
    for shard, rows in shards:
        for start in range(0, len(rows), batch_size):
            yield shard, rows[start : start + batch_size], start + batch_size >= len(rows)


class Outcome(NamedTuple):
    """What became of a region beside its crop."""

    failure: str
    """Why it could not be decoded; "" = it was."""
    sha256: bytes
    """Of the image's bytes; b"" where none could be read."""
    read_s: float
    decode_s: float


Decoded = tuple[Bytes | None, Outcome]
"""(S, S, 3) RGB, or None where it could not be decoded."""


def decode_row(regions: Regions, row: int, settings: CropSettings) -> Decoded:
    """Read and decode a row of a table; see `decode`."""
    return decode(regions.root, str(regions.path[row]), regions.box[row], settings, regions.remote)


def decode(
    root: Path, path: str, box: NDArray[np.float32], settings: CropSettings, remote: Remote | None = None
) -> Decoded:
    """Read and decode one region; see `Regions` for what names it.

    Raises:
        HfcError: too little memory; the message names the image.
    """
    started = time.perf_counter()
    opened = started
    sha256 = b""
    try:
        content = read_bytes(root, path, remote)
        opened = time.perf_counter()
        sha256 = hashlib.sha256(content).digest()
        crop, failure = crop_image(content, box, settings), ""
    except MemoryError as error:  # the machine is to blame: another run may read the same image
        raise HfcError(
            f"{named(root, path)}: out of memory while reading or decoding it; give a lower --workers or --batch-size"
        ) from error
    except UNREADABLE as error:
        crop, failure = None, reason(error)
    return crop, Outcome(failure, sha256, opened - started, time.perf_counter() - opened)


def _done(call: Callable[..., Decoded], *arguments: object) -> Future[Decoded]:
    """Make a call at once, as threads would later."""
    future: Future[Decoded] = Future()
    try:
        future.set_result(call(*arguments))
    except BaseException as error:
        future.set_exception(error)
    return future


def _collect(batch: Batch, rows: Sequence[int], futures: list[Future[Decoded]], size: int) -> Batch:
    batch.crops = np.empty((len(rows), size, size, 3), dtype=np.uint8)
    for row, future in zip(rows, futures, strict=True):
        crop, outcome = future.result()
        if crop is not None:
            batch.crops[len(batch.rows)] = crop
        batch.add(row, outcome)
    batch.crops = batch.crops[: len(batch.rows)]
    return batch
