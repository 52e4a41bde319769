"""The work of stage 1 on one device: decode, encode and write shards.

Dimensions: N regions, B crops a batch, V views, D features.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hfc import store
from hfc.config import ExtractConfig
from hfc.crops import CropSettings
from hfc.datasets.images import Batch, stream_crops
from hfc.device import cores, keep_freed_memory
from hfc.errors import EncoderError
from hfc.extract.encoder import Encoder, load_encoder
from hfc.extract.feeding import feed
from hfc.regions import Regions

MAX_FLOAT16 = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Job:
    """Everything that is needed to make any shard of a cache. It can be sent to another process."""

    regions: Regions
    """The rows to encode."""
    crop: CropSettings
    config: ExtractConfig
    """As resolved on the machine that leads."""
    out: Path
    key_fields: store.KeyFields
    first: int = 0
    """Number of the first row in the names of shards. Those of interrupted calls have the numbers before it."""

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return -(-len(self.regions) // self.config.shard_size)

    def rows(self, shard: int) -> range:
        """The rows of a shard."""
        start = shard * self.config.shard_size
        return range(start, min(start + self.config.shard_size, len(self.regions)))

    def file(self, shard: int) -> Path:
        """Where a shard is written."""
        start, stop = self.first + self.rows(shard).start, self.first + self.rows(shard).stop
        return store.shard_folder(self.out) / f"{start:09d}-{stop:09d}.h5"

    def missing(self) -> list[int]:
        """The shards that are not there yet."""
        return [shard for shard in range(self.shards) if not self.file(shard).exists()]


@dataclass
class Work:
    """What was done since the last report. Reading and decoding are summed over threads."""

    rows: int = 0
    failures: list[tuple[int, str]] = field(default_factory=list)
    """Row and reason."""
    read_s: float = 0.0
    decode_s: float = 0.0
    encode_s: float = 0.0
    write_s: float = 0.0
    finished: int | None = None
    """Number of the shard that is written now; None: none since the last report."""


def open_encoder(config: ExtractConfig) -> Encoder:
    """Open the backbone that a job's settings name. On a CPU, set up memory for it in this process."""
    encoder = load_encoder(
        config.backbone,
        weights=config.weights,
        image_size=config.image_size,
        pool=config.pool,
        precision=config.precision,
        device=config.device,
        batch_size=config.batch_size,
        flip=config.views == "flip",
        compile=config.compile,
    )
    if encoder.device.type == "cpu":
        keep_freed_memory()
    return encoder


def crop_settings(config: ExtractConfig, encoder: Encoder) -> CropSettings:
    """Say how a region becomes what the backbone takes. Padding has the colour that normalisation makes zero."""
    r, g, b = (round(255 * channel) for channel in encoder.mean)
    return CropSettings(config.image_size, config.resize, config.roi_margin, fill=(r, g, b))


class Worker:
    """It makes shards of a job. The backbone does not travel: sent to another process, a worker loads it anew there."""

    def __init__(self, job: Job, encoder: Encoder | None = None) -> None:
        self.job = job
        self._encoder = encoder

    def __reduce__(self) -> tuple[type["Worker"], tuple[Job]]:
        return Worker, (self.job,)

    @property
    def encoder(self) -> Encoder:
        """The backbone.

        Raises:
            EncoderError: the weights found here are not those of the job.
        """
        if self._encoder is None:
            encoder = open_encoder(self.job.config)
            if encoder.weights_digest != self.job.key_fields["weights"]:
                raise EncoderError(f"weights {self.job.config.weights}: not the same on every machine")
            self._encoder = encoder
        return self._encoder

    def __call__(self, shards: Iterable[int]) -> Iterator[Work]:
        """Make some shards, one after the other, and report after every batch.

        Beside a GPU one thread writes them, one at a time; the last batch of a shard is reported once it is written.

        Raises:
            HfcError: the backbone gives what cannot be stored, or the disk refuses.
        """
        job, unfinished = self.job, _Unfinished()
        on_gpu = self.encoder.device.type == "cuda"
        writing: deque[Future[Work]] = deque()
        numbered = ((number, job.rows(number)) for number in shards)
        with ThreadPoolExecutor(1, thread_name_prefix="write") as pool:
            for encoded in encode_regions(job.regions, numbered, job.crop, job.config, self.encoder):
                work, shard = unfinished.add(job, encoded)
                if shard is None:
                    yield work
                elif not on_gpu:
                    yield _write(job, encoded.batch.shard, shard, work)
                else:
                    if writing:
                        yield writing.popleft().result()
                    writing.append(pool.submit(_write, job, encoded.batch.shard, shard, work))
                if writing and writing[0].done():
                    yield writing.popleft().result()
            if writing:
                yield writing.popleft().result()


@dataclass(frozen=True)
class Encoded:
    """A batch of crops and what the backbone makes of them."""

    batch: Batch
    features: store.Features
    """(B, V, D) as they are stored, one for each of the batch's rows."""
    encode_s: float


def encode_regions(
    regions: Regions, shards: Iterable[tuple[int, range]], crop: CropSettings, config: ExtractConfig, encoder: Encoder
) -> Iterator[Encoded]:
    """Decode the regions of some shards and encode them, batch after batch, in order. Every feature comes from here.

    Args:
        regions: the table the rows index.
        shards: number and rows of each shard, taken up as the stream gets there.
        crop: how a region becomes a crop.
        config: the settings of stage 1; of them the number of threads and the type of the features.
        encoder: the backbone.

    Raises:
        HfcError: the backbone gives what cannot be stored, or memory runs out.
    """
    on_gpu, workers = encoder.device.type == "cuda", config.workers or decoding_threads()
    batches = (
        feed(regions, shards, crop, batch_size=encoder.batch_size, workers=workers, device=encoder.device)
        if on_gpu
        else stream_crops(regions, shards, crop, batch_size=CPU_TURN, workers=workers, ahead=0)
    )
    flying: deque[tuple[Batch, Callable[[], NDArray[np.float32]], float]] = deque()

    def land() -> Encoded:
        batch, result, launched = flying.popleft()
        started = time.perf_counter()
        features = result()
        seconds = launched + time.perf_counter() - started
        return Encoded(batch, storable(features, config, lambda place: str(regions.id[batch.rows[place]])), seconds)

    for batch in batches:
        started = time.perf_counter()
        flying.append((batch, encoder.submit(batch.crops), time.perf_counter() - started))
        # A GPU gets the next batch before this one is awaited; a CPU has finished it already.
        if not on_gpu or len(flying) > 1:
            yield land()
    while flying:
        yield land()


# On a CPU the two share the cores, where decoding beside the network stalls its threads at every layer. They take
# turns; a turn of several forward passes' crops keeps all decoding threads busy to its end.
CPU_TURN = 128


def decoding_threads() -> int:
    """Return how many threads or processes decode: one a core.

    The processes that torchrun or Ray start on this machine share the cores.
    """
    return max(min(cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")), 32), 1)


class _Unfinished:
    """The shard in hand."""

    def __init__(self) -> None:
        self.features: store.Features | None = None
        self.ok = np.empty(0, dtype=np.bool_)
        self.sha256 = np.empty((0, store.DIGEST_BYTES), dtype=np.uint8)
        self.failures: list[tuple[int, str]] = []

    def add(self, job: Job, encoded: Encoded) -> tuple[Work, store.Shard | None]:
        """Take in one batch; return the shard with its last one."""
        batch = encoded.batch
        rows = job.rows(batch.shard)
        if self.features is None:
            self.features = np.zeros((len(rows), *encoded.features.shape[1:]), dtype=encoded.features.dtype)
            self.ok, self.failures = np.zeros(len(rows), dtype=np.bool_), []
            self.sha256 = np.zeros((len(rows), store.DIGEST_BYTES), dtype=np.uint8)
        places = np.array(batch.rows, dtype=np.int64) - rows.start
        self.features[places] = encoded.features
        self.ok[places] = True
        self.failures += [(job.first + row, reason) for row, reason in batch.failures]
        for row, sha256 in batch.sha256.items():
            if sha256:
                self.sha256[row - rows.start] = np.frombuffer(sha256, dtype=np.uint8)
        work = Work(
            rows=len(batch.rows) + len(batch.failures),
            failures=batch.failures,
            read_s=batch.read_s,
            decode_s=batch.decode_s,
            encode_s=encoded.encode_s,
        )
        if not batch.last:
            return work, None
        box = job.regions.box[rows.start : rows.stop]
        shard = store.Shard(job.first + rows.start, self.features, self.ok, self.failures, self.sha256, box)
        self.features = None
        return work, shard


def _write(job: Job, number: int, shard: store.Shard, work: Work) -> Work:
    """Write a shard, and return the report of its last batch."""
    before = time.perf_counter()
    store.write_shard(job.file(number), shard, job.key_fields)
    return replace(work, write_s=time.perf_counter() - before, finished=number)


def storable(features: NDArray[np.float32], config: ExtractConfig, name: Callable[[int], str]) -> store.Features:
    """Turn (B, V, D) features into the type they are stored in.

    Args:
        features: (B, V, D) of the backbone.
        config: the settings of stage 1.
        name: what a row is called, for messages.

    Raises:
        EncoderError: they are NaN or infinite, or too large for that type.
    """
    finite = np.isfinite(features).all(axis=(1, 2))
    if not finite.all():
        raise EncoderError(
            f"{name(int(np.argmin(finite)))}: the backbone gives NaN or infinite features in {config.precision}; "
            "try --precision fp32"
        )
    if config.store == "float16" and features.size and np.abs(features).max() > MAX_FLOAT16:
        raise EncoderError(f"features beyond float16's {MAX_FLOAT16:g}; give --store float32")
    return features.astype(config.store, copy=False)
