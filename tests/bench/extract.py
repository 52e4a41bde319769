"""Stage 1 against its limits: the forward pass alone, the disk alone, and the recipe people use instead."""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import timm
import timm.data
import torch
import torchvision
from numpy.typing import NDArray
from PIL import Image

from hfc.config import ExtractConfig, resolve
from hfc.crops import CropSettings, crop_image
from hfc.datasets import read_regions
from hfc.datasets.sample import draw_sample
from hfc.encoder import Encoder
from hfc.extract import extract
from hfc.jobs import Job, Worker, open_encoder
from hfc.regions import Regions
from tests.bench import say, seconds

SIDE = (200, 300)  # of DeepFashion's images, whose longer side is 300 pixels


def write_dataset(folder: Path, count: int) -> Path:
    """A manifest of JPEGs of DeepFashion's size, each with a box around most of it."""
    draw_sample(folder / "drawn", images=40, seed=0)
    drawn = [Image.open(path).convert("RGB").resize(SIDE) for path in sorted((folder / "drawn").rglob("*.jpg"))]
    rows = ["id,path,label,split,x1,y1,x2,y2"]
    for i in range(count):
        if i < len(drawn):
            # Noise gives the file the size of a photograph's: about 15 KB.
            noise = np.random.default_rng(i).normal(0, 9, (SIDE[1], SIDE[0], 3))
            pixels = (np.asarray(drawn[i]) + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.jpg", quality=80)
        else:
            (folder / f"{i}.jpg").hardlink_to(folder / f"{i % len(drawn)}.jpg")
        rows.append(f"{i},{i}.jpg,L,train,{10 + i % 20},{15 + i % 20},{170 + i % 20},{265 + i % 20}")
    (folder / "m.csv").write_text("\n".join(rows))
    return folder / "m.csv"


def main(words: list[str]) -> None:
    """Forward pass alone, end to end, timm's stock recipe, and memory at N and at 4N."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench extract")
    parser.add_argument("--backbone", default="tf_efficientnet_b5")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    settings = {"backbone": options.backbone, "weights": "random", "compile": options.compile}
    config = resolve(ExtractConfig, settings)
    if options.memory_of:
        extract(options.memory_of, options.memory_of.with_suffix(".h5"), config, overwrite=True)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        return
    with tempfile.TemporaryDirectory() as scratch:
        manifest = write_dataset(Path(scratch), options.images)
        encoder = open_encoder(config)
        regions = read_regions(manifest, outside_root=False, split_seed=0, val_fraction=0, test_fraction=0)
        size = encoder.batch_size * (1 if encoder.device.type == "cuda" else 4)
        resident = [crops(regions, range(i, min(i + size, len(regions)))) for i in range(0, len(regions), size)]
        job = Job(regions, CROP, config, Path(scratch) / "bench.h5", {})
        turns: dict[str, list[float]] = {"forward": [], "end_to_end": [], "stock": []}
        forward(encoder, resident[:1])  # warm
        for _ in range(options.turns):
            turns["forward"].append(seconds(lambda: forward(encoder, resident)))
            turns["end_to_end"].append(seconds(lambda: list(Worker(job, encoder)(range(job.shards)))))
        few = min(options.images, 128)  # enough for a rate; the recipe is slow
        recipe = stock(options.backbone, Path(scratch), few)
        turns["stock"] = [seconds(recipe) for _ in range(options.turns)]
        rate = {name: options.images / statistics.median(times) for name, times in turns.items()}
        rate["stock"] = few / statistics.median(turns["stock"])
        small, large = (memory(words, Path(scratch) / str(n), n) for n in (options.images, 4 * options.images))
    say(
        benchmark="extract",
        backbone=options.backbone,
        device=torch.cuda.get_device_name() if encoder.device.type == "cuda" else "cpu",
        threads=torch.get_num_threads(),
        precision=encoder.precision,
        compiled=options.compile,
        images=options.images,
        turns=options.turns,
        images_per_s={name: round(value, 1) for name, value in rate.items()},
        end_to_end_of_forward=round(rate["end_to_end"] / rate["forward"], 3),
        end_to_end_of_stock=round(rate["end_to_end"] / rate["stock"], 2),
        memory_mb={"N": round(small / 1e6), "4N": round(large / 1e6)},
        memory_4N_of_N=round(large / small, 3),
    )


CROP = CropSettings(224, "squash", 0.0, (124, 116, 104))


def crops(regions: Regions, rows: range) -> NDArray[np.uint8]:
    """Decoded crops, in memory."""
    return np.stack([crop_image((regions.root / regions.path[i]).read_bytes(), regions.box[i], CROP) for i in rows])


def forward(encoder: Encoder, resident: list[NDArray[np.uint8]]) -> None:
    """The network alone, on crops that are in memory."""
    waiting = [encoder.submit(batch) for batch in resident]
    for wait in waiting:
        wait()


def stock(backbone: str, folder: Path, count: int) -> Callable[[], None]:
    """timm's own recipe, ready to run: ImageDataset, create_loader, NCHW, float32; boxes are beyond it."""
    few = folder / "few" / "L"
    few.mkdir(parents=True)
    for i in range(count):
        (few / f"{i}.jpg").hardlink_to(folder / f"{i}.jpg")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = timm.create_model(backbone, num_classes=0).eval().to(device)
    loader = timm.data.create_loader(
        timm.data.ImageDataset(str(few.parent)),
        (3, 224, 224),
        batch_size=16 if device.type == "cpu" else 256,  # for the CPU the one that suits it best
        use_prefetcher=device.type == "cuda",
        num_workers=2,
        crop_pct=1.0,
        device=device,
    )

    @torch.inference_mode()
    def run() -> None:
        for images, _ in loader:
            model(images).cpu()

    return run


def memory(words: list[str], folder: Path, count: int) -> int:
    """Peak bytes of a process that extracts so many images."""
    folder.mkdir()
    manifest = write_dataset(folder, count)
    command = [sys.executable, "-m", "tests.bench", "extract", *words, "--memory-of", str(manifest)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def decode(words: list[str]) -> None:
    """Pillow against torchvision's codec, threads against processes, on files of DeepFashion's size."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench decode")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as scratch:
        write_dataset(Path(scratch), options.images)
        files = [(Path(scratch) / f"{i}.jpg").read_bytes() for i in range(options.images)]
    cores = len(os.sched_getaffinity(0))
    pools: dict[str, Executor] = {"threads": ThreadPoolExecutor(cores), "processes": ProcessPoolExecutor(cores)}
    for pool in pools.values():
        list(pool.map(with_pillow, files[:50]))  # warm
    ways: dict[str, Callable[[], object]] = {
        "pillow_one_thread": lambda: [with_pillow(content) for content in files],
        "torchvision_one_thread": lambda: [with_torchvision(content) for content in files],
        "pillow_threads": lambda: list(pools["threads"].map(with_pillow, files)),
        "torchvision_threads": lambda: list(pools["threads"].map(with_torchvision, files)),
        "pillow_processes": lambda: list(pools["processes"].map(with_pillow, files, chunksize=16)),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.turns):
        for name, way in ways.items():
            times[name].append(seconds(way))
    for pool in pools.values():
        pool.shutdown()
    rates = {name: round(options.images / statistics.median(found)) for name, found in times.items()}
    say(
        benchmark="decode",
        cores=cores,
        images=options.images,
        turns=options.turns,
        mean_kb=round(sum(map(len, files)) / len(files) / 1e3, 1),
        crops_per_s=rates,
        same_pixels=bool((with_pillow(files[0]) == with_torchvision(files[0])).all()),
    )


BOX = np.array([10, 15, 170, 265], dtype=np.float32)


def with_pillow(content: bytes) -> NDArray[np.uint8]:
    """A crop, as stage 1 makes it."""
    return crop_image(content, BOX, CROP)


def with_torchvision(content: bytes) -> NDArray[np.uint8]:
    """The same crop, decoded by torchvision and resized by Pillow."""
    pixels = torchvision.io.decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8))
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy()).crop(tuple(map(int, BOX)))
    return np.array(image.resize((224, 224), Image.Resampling.BICUBIC))
