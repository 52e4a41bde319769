"""Stage 1 against its limits: the forward pass alone, other runtimes, and the recipe people use instead."""

import argparse
import multiprocessing
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
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
from hfc.datasets.images import stream_crops
from hfc.device import cores
from hfc.extract.stage import extract
from hfc.extract.worker import Job, Worker, decoding_threads, open_encoder
from hfc.regions import Regions, strings
from hfc.sample import draw_sample
from tests.bench import peak_bytes, say, seconds
from tests.bench.runtimes import RUNTIMES, compare_runtimes
from tests.support.parquet import write_images

# A GPU needs many batches of images for a turn. The stock recipe is slow, and takes enough of them for a rate; of its
# batches the fastest counts.
ON_GPU = torch.cuda.is_available()
IMAGES = 16384 if ON_GPU else 256
STOCK = (256,) if ON_GPU else (4, 8, 16)
STOCK_IMAGES = 4096 if ON_GPU else 192
STOCK_WORKERS = cores() if ON_GPU else 2
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
        # No box is that of another row: the same pixels would be encoded once.
        left = 10 + i % 20 + i / 1e5
        rows.append(f"{i},{i}.jpg,L,train,{left:.5f},{15 + i % 20},{170 + i % 20},{265 + i % 20}")
    (folder / "m.csv").write_text("\n".join(rows))
    return folder / "m.csv"


def main(words: list[str]) -> None:
    """Forward pass alone, end to end, timm's stock recipe, and memory at N and at 4N."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench extract")
    parser.add_argument("--backbone", default="tf_efficientnet_b5")
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--weights", default="random")
    parser.add_argument("--runtimes", default=",".join(RUNTIMES), help="compared on a CPU, each alone; '': none")
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    settings = {"backbone": options.backbone, "weights": options.weights, "compile": options.compile}
    config = resolve(ExtractConfig, settings)
    if options.memory_of:
        extract(options.memory_of, options.memory_of.with_suffix(".h5"), config, overwrite=True)
        print(peak_bytes())
        return
    with (
        tempfile.TemporaryDirectory() as scratch,
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool,
    ):
        manifest = write_dataset(Path(scratch), options.images)
        encoder = open_encoder(config)
        regions = read_regions(manifest, outside_root=False)
        resident = crops(regions, range(len(regions)))
        job = Job(regions, CROP, config, Path(scratch) / "bench.h5", {})
        few = min(options.images, STOCK_IMAGES)
        # In a process of its own, which nothing that hfc does to its process makes faster or slower.
        recipes = {size: partial(pool.submit, stock, options.backbone, Path(scratch), few, size) for size in STOCK}
        ways: dict[str, Callable[[], object]] = {
            "forward": lambda: encoder.encode(resident),
            "end_to_end": lambda: list(Worker(job, encoder)(range(job.shards))),
        }
        encoder.encode(resident[: encoder.batch_size])  # warm
        times: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(options.turns):
            # Close together, and each first as often as the other: a machine that slows down slows both.
            for name in sorted(ways, reverse=bool(turn % 2)):
                times[name].append(seconds(ways[name]))
        by_batch = {size: few / recipe().result() for size, recipe in recipes.items()}
        best = max(by_batch, key=by_batch.__getitem__)
        beside: dict[str, list[float]] = {"end_to_end": [], "stock": []}
        for _ in range(-(-options.turns // 3)):
            beside["end_to_end"].append(seconds(ways["end_to_end"]) / options.images)
            beside["stock"].append(recipes[best]().result() / few)
        names = [name for name in options.runtimes.split(",") if name]
        on_cpu = encoder.device.type == "cpu"
        others = compare_runtimes(config, resident[:64], names, options.turns) if on_cpu and names else {}
        small, large = (memory(words, Path(scratch) / str(n), n) for n in (options.images, 4 * options.images))
    per_image = {name: statistics.median(found) / options.images for name, found in times.items()}
    per_image["stock"] = statistics.median(beside["stock"])
    say(
        benchmark="extract",
        backbone=options.backbone,
        device=torch.cuda.get_device_name() if encoder.device.type == "cuda" else "cpu",
        threads=torch.get_num_threads(),
        precision=encoder.precision,
        compiled=options.compile,
        images=options.images,
        turns=options.turns,
        images_per_s={name: round(1 / value, 1) for name, value in per_image.items()},
        end_to_end_of_forward=paired(times["forward"], times["end_to_end"]),
        end_to_end_of_stock=paired(beside["stock"], beside["end_to_end"]),
        stock_by_batch={size: round(value, 1) for size, value in by_batch.items()},
        runtimes=others,
        memory_mb={"N": round(small / 1e6), "4N": round(large / 1e6)},
        memory_4N_of_N=round(large / small, 3),
    )


def paired(limit: list[float], ours: list[float]) -> float:
    """The median of the ratios within each turn."""
    return round(statistics.median(theirs / mine for theirs, mine in zip(limit, ours, strict=True)), 3)


CROP = CropSettings(224, "squash", 0.0, (124, 116, 104))


def crops(regions: Regions, rows: range) -> NDArray[np.uint8]:
    """Decoded crops, in memory."""
    pixels = np.empty((len(rows), CROP.size, CROP.size, 3), dtype=np.uint8)  # a list of all would hold them once more
    for place, i in enumerate(rows):
        pixels[place] = crop_image((regions.root / regions.path[i]).read_bytes(), regions.box[i], CROP)
    return pixels


@torch.inference_mode()
def stock(backbone: str, folder: Path, count: int, batch_size: int) -> float:
    """Seconds of timm's own recipe: ImageDataset, create_loader, NCHW, float32; boxes are beyond it."""
    few = folder / "stock" / "L"
    if not few.exists():
        few.mkdir(parents=True)
        for i in range(count):
            (few / f"{i}.jpg").hardlink_to(folder / f"{i}.jpg")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = timm.create_model(backbone, num_classes=0).eval().to(device)
    loader = timm.data.create_loader(
        timm.data.ImageDataset(str(few.parent)),
        (3, 224, 224),
        batch_size=batch_size,
        use_prefetcher=device.type == "cuda",
        num_workers=STOCK_WORKERS,
        crop_pct=1.0,
        device=device,
    )
    model(torch.zeros(batch_size, 3, 224, 224, device=device)).cpu()  # warm
    return seconds(lambda: [model(images).cpu() for images, _ in loader])


def memory(words: list[str], folder: Path, count: int) -> int:
    """Peak bytes of a process that extracts so many images."""
    folder.mkdir()
    manifest = write_dataset(folder, count)
    command = [sys.executable, "-m", "tests.bench", "extract", *words, "--memory-of", str(manifest)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def decode(words: list[str]) -> None:
    """Pillow against torchvision's codec, threads against processes, archives and Parquet against a folder."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench decode")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as scratch:
        folder, archive = Path(scratch), Path(scratch) / "images.zip"
        write_dataset(folder, options.images)
        names = [f"{i}.jpg" for i in range(options.images)]
        files = [(folder / name).read_bytes() for name in names]
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            for name in names:
                packed.write(folder / name, name)
        with tarfile.open(folder / "images.tar", "w") as shard:
            for name in names:
                shard.add(folder / name, name)
        places = {"folder": folder, "zip": archive, "tar": folder / "images.tar"}
        places["parquet"] = write_images(folder / "images.parquet", files, ["Tee"] * len(files))
        by_place = time_places(places, names, options.turns)
    threads = cores()
    pools: dict[str, Executor] = {"threads": ThreadPoolExecutor(threads), "processes": ProcessPoolExecutor(threads)}
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
        cores=threads,
        images=options.images,
        turns=options.turns,
        mean_kb=round(sum(map(len, files)) / len(files) / 1e3, 1),
        crops_per_s=rates,
        crops_per_s_from={place: round(len(names) / statistics.median(spent)) for place, spent in by_place.items()},
        zip_of_folder=paired(by_place["folder"], by_place["zip"]),
        tar_of_folder=paired(by_place["folder"], by_place["tar"]),
        parquet_of_folder=paired(by_place["folder"], by_place["parquet"]),
        same_pixels=bool((with_pillow(files[0]) == with_torchvision(files[0])).all()),
    )


def time_places(places: dict[str, Path], names: list[str], turns: int) -> dict[str, list[float]]:
    """Seconds of stage 1's own stream, with a thread a core, from every place that holds the images."""
    blank, numbers = strings([""] * len(names)), [str(row) for row in range(len(names))]
    box = np.tile(BOX, (len(names), 1))
    times: dict[str, list[float]] = {place: [] for place in places}
    for turn in range(turns + 1):  # the first is for the page cache and an archive's index
        for place in sorted(places, reverse=bool(turn % 2)):
            paths = strings(numbers if place == "parquet" else names)
            regions = Regions(places[place], "bench", paths, paths, box, blank, blank)
            shards = [(0, range(len(names)))]
            stream = partial(stream_crops, regions, shards, CROP, batch_size=128, workers=decoding_threads(), ahead=0)
            started = time.perf_counter()
            decoded = sum(len(batch.rows) for batch in stream())
            times[place].append(time.perf_counter() - started)
            assert decoded == len(names), f"{place}: {len(names) - decoded} images failed"
    return {place: spent[1:] for place, spent in times.items()}


BOX = np.array([10, 15, 170, 265], dtype=np.float32)


def with_pillow(content: bytes) -> NDArray[np.uint8]:
    """A crop, as stage 1 makes it."""
    return crop_image(content, BOX, CROP)


def with_torchvision(content: bytes) -> NDArray[np.uint8]:
    """The same crop, decoded by torchvision and resized by Pillow."""
    pixels = torchvision.io.decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8))
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy()).crop(tuple(map(int, BOX)))
    return np.array(image.resize((224, 224), Image.Resampling.BICUBIC))
