"""Twins: how many changed copies are found at which cosine, how many false alarms, and how long a search takes."""

import argparse
import io
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from hfc import store
from hfc.config import MIN_COSINE
from hfc.crops import CropSettings, crop_image
from hfc.regions import Regions, strings
from hfc.store.twins import find_twins
from tests.bench import cache_of, peak_bytes, say
from tests.support.backbones import LITE, load
from tests.support.caches import put_parts
from tests.support.made_up import FIELDS

COSINES = (0.8, 0.85, 0.88, 0.9, 0.92, 0.94, 0.96)
SQUASH = CropSettings(224, "squash", 0.0, (0, 0, 0))
WHOLE = np.full(4, np.nan, dtype=np.float32)
BATCH = 8

Picture = Image.Image
Changed = tuple[Picture, int]


def _resized(share: float) -> Callable[[Picture], Changed]:
    return lambda p: (p.resize((round(p.width * share), round(p.height * share)), Image.Resampling.BICUBIC), 90)


def _cropped(share: float) -> Callable[[Picture], Changed]:
    """Cut off as much of each side."""

    def crop(picture: Picture) -> Changed:
        x, y = round(picture.width * share), round(picture.height * share)
        return picture.crop((x, y, picture.width - x, picture.height - y)), 90

    return crop


def _brightened(factor: float) -> Callable[[Picture], Changed]:
    return lambda p: (ImageEnhance.Brightness(p).enhance(factor), 90)


KINDS: dict[str, Callable[[Picture], Changed]] = {
    "resized to 90%": _resized(0.9),
    "resized to 50%": _resized(0.5),
    "recompressed, quality 75": lambda p: (p, 75),
    "recompressed, quality 40": lambda p: (p, 40),
    "cropped by 2% a side": _cropped(0.02),
    "cropped by 5% a side": _cropped(0.05),
    "cropped by 10% a side": _cropped(0.1),
    "mirrored": lambda p: (ImageOps.mirror(p), 90),
    "brightened by 10%": _brightened(1.1),
    "brightened by 30%": _brightened(1.3),
}


def main(words: list[str]) -> None:
    """Plant changed copies of photographs among all of them; at each cosine, count what is found and what else is."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench twins")
    parser.add_argument("photographs", type=Path, help="what hfc extract reads; boxes are not looked at")
    parser.add_argument("--cache", type=Path, help="their cache, where there is one, by EfficientNet-Lite0")
    parser.add_argument("--copies", type=int, default=300, help="how many photographs are copied")
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as scratch:
        cache = cache_of(options, scratch, precision="bf16")
        with store.FeatureStore(cache) as opened:
            features, table = opened.features()[:, 0].astype(np.float32), opened.table()
    features, regions = features[table.ok], table.regions.take(np.flatnonzero(table.ok))
    own = _cosines(features, features)
    np.fill_diagonal(own, -1)
    pairs = np.sort(own[np.triu_indices(len(own), 1)])
    chosen = np.unique(np.linspace(0, len(regions) - 1, options.copies).astype(np.int64))
    recalls = {}
    for kind, copies in zip(KINDS, _copies([regions.root / regions.path[row] for row in chosen]), strict=True):
        among = _cosines(copies, np.concatenate([features, copies]))[:, : len(features)]
        recalls[kind] = among[np.arange(len(chosen)), chosen]
    for cosine in COSINES:
        say(
            benchmark="twins",
            cosine=cosine,
            recall={kind: round(float((found >= cosine).mean()), 3) for kind, found in recalls.items()},
            pairs_of_the_collection=int((pairs >= cosine).sum()),
            rows_of_the_collection=int((own.max(axis=1) >= cosine).sum()),
        )


def _copies(paths: list[Path]) -> Iterator[NDArray[np.float32]]:
    """The features of every photograph's copies, (n, D), a kind after the other."""
    encoder = load(LITE, "wheel", image_size=SQUASH.size, precision="bf16")
    for change in KINDS.values():
        parts = []
        for start in range(0, len(paths), BATCH):
            crops = np.stack([crop_image(_saved(path, change), WHOLE, SQUASH) for path in paths[start : start + BATCH]])
            parts.append(encoder.encode(crops)[:, 0].astype(np.float32))
        yield np.concatenate(parts)


def _saved(path: Path, change: Callable[[Picture], Changed]) -> bytes:
    """A changed copy as a JPEG."""
    with Image.open(path) as picture:
        changed, quality = change(ImageOps.exif_transpose(picture).convert("RGB"))
    stream = io.BytesIO()
    changed.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def _cosines(rows: NDArray[np.float32], collection: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, N) cosines of rows to a collection, standardised by the collection."""
    mean, deviation = collection.mean(axis=0), np.maximum(collection.std(axis=0), 1e-9)
    one, other = ((part - mean) / deviation for part in (rows, collection))
    one, other = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (one, other))
    return one @ other.T


def search(words: list[str]) -> None:
    """Search for twins in a cache of DeepFashion's size."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench twin_search")
    parser.add_argument("--rows", type=int, default=289_222)
    parser.add_argument("--dim", type=int, default=2048)
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory(dir=".") as scratch:
        cache = Path(scratch) / "c.h5"
        _write_features(cache, options.rows, options.dim)
        before = peak_bytes()
        started = time.perf_counter()
        twins = find_twins(cache, MIN_COSINE)
        took = time.perf_counter() - started
    say(
        benchmark="twin_search",
        rows=options.rows,
        dim=options.dim,
        twins=twins.rows,
        seconds=round(took, 1),
        peak_mb_before=round(before / 1e6),
        peak_mb=round(peak_bytes() / 1e6),
    )


def _write_features(path: Path, rows: int, dim: int) -> None:
    """A cache whose features vary in ever fewer directions, as those of a network; every hundredth row has a twin."""
    rng = np.random.default_rng(0)
    axes = rng.normal(size=(dim, dim)).astype(np.float32) * np.arange(1, dim + 1, dtype=np.float32)[:, None] ** -0.45

    def part(start: int) -> store.Features:
        count = min(4096, rows - start)
        numbers = rng.standard_normal((count, dim), dtype=np.float32)
        later = np.arange(1, count, 100)
        numbers[later] = numbers[later - 1] + 0.1 * numbers[later]
        features: store.Features = (numbers @ axes)[:, None].astype(np.float16)
        return features

    names = strings([f"{i}.jpg" for i in range(rows)])
    blank, box = strings([""] * rows), np.full((rows, 4), np.nan, dtype=np.float32)
    regions = Regions(path.parent, "made-up", names, names, box, blank, blank)
    put_parts(path, regions, map(part, range(0, rows, 4096)), FIELDS)
