"""The work of stage 1 on one device: decode, encode and write shards.

Dimensions: N regions, B crops a batch, V views, D features.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hfc import store
from hfc.config import ExtractConfig
from hfc.crops import Batch, CropSettings, stream_crops
from hfc.encoder import Encoder, load_encoder
from hfc.errors import EncoderError
from hfc.regions import Regions

MAX_FLOAT16 = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Job:
    """Everything needed to make any shard of a cache. It can be sent to another process."""

    regions: Regions
    crop: CropSettings
    config: ExtractConfig
    """As resolved on the machine that leads."""
    out: Path
    key_fields: dict[str, object]

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
        return store.shard_folder(self.out) / f"{self.rows(shard).start:09d}-{self.rows(shard).stop:09d}.h5"

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


def open_encoder(config: ExtractConfig) -> Encoder:
    """The backbone that a job's settings name."""
    return load_encoder(
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


class Worker:
    """Makes shards of a job. The backbone does not travel: sent to another process, a worker loads it anew there."""

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
        """Make some shards, taken up one by one, and report after every batch.

        Raises:
            HfcError: the backbone gives what cannot be stored, or the disk refuses.
        """
        job, encoder = self.job, self.encoder
        on_gpu = encoder.device.type == "cuda"
        batches = stream_crops(
            job.regions,
            ((shard, job.rows(shard)) for shard in shards),
            job.crop,
            batch_size=encoder.batch_size if on_gpu else CPU_TURN,
            workers=job.config.workers or decoding_threads(),
            ahead=GPU_AHEAD if on_gpu else 0,
        )
        part = _Part()
        flying: deque[tuple[Batch, Callable[[], NDArray[np.float32]], float]] = deque()
        for batch in batches:
            started = time.perf_counter()
            flying.append((batch, encoder.submit(batch.crops), time.perf_counter() - started))
            # A GPU has the next batch before this one is waited for; a CPU has finished already.
            if not on_gpu or len(flying) > 1:
                yield part.add(job, *flying.popleft())
        while flying:
            yield part.add(job, *flying.popleft())


# A GPU computes while the CPU decodes this many batches ahead: enough to hide a slow image, few enough to bound memory.
GPU_AHEAD = 3
# On a CPU the two share the cores, where decoding beside the network stalls its threads at every layer. They take
# turns; a turn of several forward passes' crops keeps all decoding threads busy to its end.
CPU_TURN = 64


def decoding_threads() -> int:
    """One a core, shared among the processes that torchrun starts on this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(min(cores, 32) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")), 1)


class _Part:
    """The shard in hand."""

    def __init__(self) -> None:
        self.features: store.Features | None = None
        self.ok = np.empty(0, dtype=np.bool_)
        self.failures: list[tuple[int, str]] = []

    def add(self, job: Job, batch: Batch, result: Callable[[], NDArray[np.float32]], launched: float) -> Work:
        """Take in one batch; write the shard with its last one."""
        rows = job.rows(batch.shard)
        started = time.perf_counter()
        encoded = result()
        finished = time.perf_counter()
        if self.features is None:
            self.features = np.zeros((len(rows), *encoded.shape[1:]), dtype=job.config.store)
            self.ok, self.failures = np.zeros(len(rows), dtype=np.bool_), []
        places = np.array(batch.rows, dtype=np.int64) - rows.start
        self.features[places] = _checked(job, encoded, batch.rows)
        self.ok[places] = True
        self.failures += batch.failures
        written = 0.0
        if batch.last:
            before = time.perf_counter()
            shard = store.Shard(rows.start, self.features, self.ok, self.failures)
            store.write_shard(job.file(batch.shard), shard, job.key_fields)
            written = time.perf_counter() - before
            self.features = None
        return Work(
            rows=len(batch.rows) + len(batch.failures),
            failures=batch.failures,
            read_s=batch.read_s,
            decode_s=batch.decode_s,
            encode_s=launched + finished - started,
            write_s=written,
        )


def _checked(job: Job, features: NDArray[np.float32], rows: list[int]) -> NDArray[np.float32]:
    """The features, if they can be stored as they are."""
    finite = np.isfinite(features).all(axis=(1, 2))
    if not finite.all():
        name = job.regions.id[rows[int(np.argmin(finite))]]
        raise EncoderError(
            f"{name}: the backbone gives NaN or infinite features in {job.config.precision}; try --precision fp32"
        )
    if job.config.store == "float16" and features.size and np.abs(features).max() > MAX_FLOAT16:
        raise EncoderError(f"features beyond float16's {MAX_FLOAT16:g}; give --store float32")
    return features
