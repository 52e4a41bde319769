"""Stage 1: every region goes through the frozen backbone exactly once.

Regions are cut into shards; each finished shard is an immutable file; when all are there they become one cache.
Whatever stops the work, the next call does the shards that are missing.
"""

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hfc import provenance, store
from hfc.config import ExtractConfig, plain
from hfc.crops import CropSettings, stream_crops
from hfc.datasets import read_regions
from hfc.encoder import Encoder, load_encoder
from hfc.engines import ENGINES
from hfc.errors import EncoderError, StaleStoreError, StoreError
from hfc.regions import Regions

logger = logging.getLogger(__name__)

VIEWS = ("identity",)
MAX_FLOAT16 = float(np.finfo(np.float16).max)


@dataclass
class Progress:
    """How far stage 1 is, and where its seconds went. Reading and decoding are summed over threads."""

    total: int
    done: int = 0
    """Rows finished in this call."""
    resumed: int = 0
    """Rows that an earlier call had finished."""
    failed: int = 0
    read_s: float = 0.0
    decode_s: float = 0.0
    encode_s: float = 0.0
    write_s: float = 0.0


@dataclass(frozen=True)
class ExtractSummary:
    """What stage 1 did."""

    path: Path
    key: str
    rows: int
    dim: int
    failures: list[tuple[str, str]]
    """Id and reason of every region without features."""
    seconds: float
    progress: Progress
    shards: int
    config: ExtractConfig
    """As it was resolved on this machine."""
    origin: str
    feature_map: tuple[int, ...]
    written: bool
    """False after a dry run, or when the cache was there already."""


@dataclass(frozen=True)
class _Job:
    """Everything needed to make any shard."""

    regions: Regions
    encoder: Encoder
    crop: CropSettings
    config: ExtractConfig
    out: Path
    key_fields: dict[str, object]

    def rows(self, shard: int) -> range:
        start = shard * self.config.shard_size
        return range(start, min(start + self.config.shard_size, len(self.regions)))

    @property
    def count(self) -> int:
        return -(-len(self.regions) // self.config.shard_size)

    def file(self, shard: int) -> Path:
        return store.shard_folder(self.out) / f"{self.rows(shard).start:09d}-{self.rows(shard).stop:09d}.h5"


def extract(
    source: Path,
    out: Path,
    config: ExtractConfig,
    *,
    overwrite: bool = False,
    dry_run: bool = False,
    report: Callable[[Progress], None] = lambda progress: None,
) -> ExtractSummary:
    """Turn a data set's images into a feature cache.

    Args:
        source: a DeepFashion root, a CSV manifest or a folder tree.
        out: the cache to write; what an interrupted call left of it is resumed.
        config: the settings; those left to the machine are resolved here.
        overwrite: drop a cache or shards made under other settings.
        dry_run: do everything but encode and write.
        report: called after every batch.

    Raises:
        HfcError: the source, weights, settings or disk do not allow it; nothing is left half written.
    """
    started = time.perf_counter()
    regions = read_regions(
        source,
        split_seed=config.split_seed,
        val_fraction=config.val_fraction,
        test_fraction=config.test_fraction,
    )
    if config.limit:
        regions = regions.spread(config.limit)
    _check_writable(out, overwrite)
    job = _prepare(regions, out, config)
    progress = Progress(total=len(regions))
    if out.exists() and not overwrite:
        progress.resumed = len(regions)
        failures = _reuse(job, dry_run)
        return _summary(job, progress, started, failures, written=False)
    if dry_run:
        return _summary(job, progress, started, [], written=False)
    job = _resume(job, overwrite)
    todo = [shard for shard in range(job.count) if not job.file(shard).exists()]
    progress.resumed = len(regions) - sum(len(job.rows(shard)) for shard in todo)
    report(progress)
    ENGINES["local"](todo, lambda shards: _work(job, shards, progress, report))
    failures = _assemble(job, progress, source, started)
    return _summary(job, progress, started, failures, written=True)


def _prepare(regions: Regions, out: Path, config: ExtractConfig) -> _Job:
    encoder = load_encoder(
        config.backbone,
        weights=config.weights,
        image_size=config.image_size,
        pool=config.pool,
        precision=config.precision,
        device=config.device,
    )
    r, g, b = (round(255 * channel) for channel in encoder.mean)
    crop = CropSettings(config.image_size, config.resize, config.roi_margin, fill=(r, g, b))
    config = replace(
        config,
        precision=encoder.precision,
        device=str(encoder.device),
        batch_size=config.batch_size or _auto_batch_size(encoder),
        workers=config.workers or _auto_workers(),
    )
    return _Job(regions, encoder, crop, config, out, _key_fields(regions, encoder, config))


def _auto_batch_size(encoder: Encoder) -> int:
    # On a CPU a small batch stays in the caches and runs up to twice as fast; a GPU wants a large one to fill it.
    return 256 if encoder.device.type == "cuda" else 16


def _auto_workers() -> int:
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 32)


def _key_fields(regions: Regions, encoder: Encoder, config: ExtractConfig) -> dict[str, object]:
    """Exactly what changes the features. Batch size, workers, device, labels and splits do not."""
    return {
        "schema": store.SCHEMA,
        "backbone": config.backbone.split(".")[0],
        "weights": encoder.weights_digest,
        "image_size": config.image_size,
        "resize": config.resize,
        "roi_margin": config.roi_margin,
        "mean": list(encoder.mean),
        "std": list(encoder.std),
        "pool": config.pool,
        "views": list(VIEWS),
        "precision": config.precision,
        "store": config.store,
        "rows": len(regions),
        "regions": regions.digest,
    }


def _check_writable(out: Path, overwrite: bool) -> None:
    """Find out now, not after an hour."""
    if overwrite and out.is_file() and not store.is_hdf5(out):
        raise StoreError(f"{out}: is no feature cache, so --overwrite leaves it alone; give another --out")
    if out.is_dir():
        raise StoreError(f"{out}: is a folder; --out names the cache file to write, like {out / 'features.h5'}")
    probe = out.with_name(f"{out.name}.{os.getpid()}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise StoreError(f"{out}: cannot be written: {error.strerror}") from error


def _reuse(job: _Job, dry_run: bool) -> store.Failures:
    """The failures of a finished cache made under the same settings; new labels and splits are written into it."""
    with store.FeatureStore(job.out) as cache:
        store.refuse_other_key(job.out, cache.key_fields, job.key_fields)
        table = cache.table()
    changed = any((getattr(table.regions, name) != getattr(job.regions, name)).any() for name in ("label", "split"))
    if changed and not dry_run:
        logger.warning("%s: the features are there; only labels or splits changed, and were rewritten", job.out)
        store.relabel(job.out, job.regions)
    return table.failures


def _resume(job: _Job, overwrite: bool) -> _Job:
    """Check what an interrupted call left, and take over its shard size. A damaged shard is done again."""
    folder = store.shard_folder(job.out)
    left = []
    for file in sorted(folder.glob("?????????-?????????.h5")):
        try:
            store.read_shard(file, job.key_fields)
            left.append(file)
        except StaleStoreError:
            if not overwrite:
                raise
            file.unlink()
        except StoreError as error:
            logger.warning("%s", error)
            file.unlink()
    if left:
        size = max(int(file.stem[10:]) - int(file.stem[:9]) for file in left)
        if size != job.config.shard_size and all(int(file.stem[:9]) % size == 0 for file in left):
            logger.warning("resuming with the shard size of the interrupted call, %d", size)
            job = replace(job, config=replace(job.config, shard_size=size))
    return job


def _work(job: _Job, shards: Iterable[int], progress: Progress, report: Callable[[Progress], None]) -> None:
    """Decode, encode and write some shards."""
    features: store.Features = np.empty(0, dtype=np.float32)
    ok = np.empty(0, dtype=np.bool_)
    failures: list[tuple[int, str]] = []
    batches = stream_crops(
        job.regions,
        ((shard, job.rows(shard)) for shard in shards),
        job.crop,
        batch_size=job.config.batch_size,
        workers=job.config.workers,
    )
    for batch in batches:
        rows = job.rows(batch.shard)
        if len(ok) == 0:
            features = np.zeros((len(rows), len(VIEWS), job.encoder.dim), dtype=job.config.store)
            ok, failures = np.zeros(len(rows), dtype=np.bool_), []
        started = time.perf_counter()
        encoded = job.encoder.encode(batch.crops)
        progress.encode_s += time.perf_counter() - started
        places = np.array(batch.rows, dtype=np.int64) - rows.start
        features[places] = _checked(job, encoded, batch.rows)
        ok[places] = True
        failures += batch.failures
        progress.read_s += batch.read_s
        progress.decode_s += batch.decode_s
        progress.done += len(batch.rows) + len(batch.failures)
        progress.failed += len(batch.failures)
        if batch.last:
            started = time.perf_counter()
            store.write_shard(job.file(batch.shard), store.Shard(rows.start, features, ok, failures), job.key_fields)
            progress.write_s += time.perf_counter() - started
            ok = np.empty(0, dtype=np.bool_)
        report(progress)


def _checked(job: _Job, features: store.Features, rows: list[int]) -> store.Features:
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


def _assemble(job: _Job, progress: Progress, source: Path, started: float) -> list[tuple[int, str]]:
    begun = time.perf_counter()
    encoder, config = job.encoder, job.config
    store.assemble(
        job.out,
        [job.file(shard) for shard in range(job.count)],
        job.regions,
        key_fields=job.key_fields,
        config=plain(config),
        provenance={
            "created": provenance.now(),
            "dataset": {
                "source": str(source),
                "root": str(job.regions.root.resolve()),
                "origin": job.regions.origin,
                "rows": len(job.regions),
            },
            "weights": {
                "source": config.weights,
                "digest": encoder.weights_digest,
                "random": config.weights == "random",
            },
            "feature_map": list(encoder.feature_map),
            "device": str(encoder.device),
            "seconds": round(time.perf_counter() - started, 3),
            "code": provenance.code(),
            "versions": provenance.versions(),
        },
    )
    shutil.rmtree(store.shard_folder(job.out), ignore_errors=True)
    progress.write_s += time.perf_counter() - begun
    with store.FeatureStore(job.out) as cache:
        return cache.table().failures


def _summary(
    job: _Job, progress: Progress, started: float, failures: list[tuple[int, str]], *, written: bool
) -> ExtractSummary:
    return ExtractSummary(
        path=job.out,
        key=provenance.digest(job.key_fields),
        rows=len(job.regions),
        dim=job.encoder.dim,
        failures=[(str(job.regions.id[row]), reason) for row, reason in failures],
        seconds=time.perf_counter() - started,
        progress=progress,
        shards=job.count,
        config=job.config,
        origin=job.regions.origin,
        feature_map=job.encoder.feature_map,
        written=written,
    )
