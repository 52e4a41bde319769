"""Reading annotations and assembling a cache at full size, without torch in memory."""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hfc import store
from hfc.datasets import read_regions
from hfc.regions import Regions, strings
from tests.bench import peak_bytes, say, seconds
from tests.support.caches import fingerprints, put_parts
from tests.support.deepfashion_tree import write_large_tree

DEEPFASHION = 289_222


def assemble(words: list[str]) -> None:
    """Shards into one cache, against writing, syncing and reading back as many bytes."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench assemble")
    parser.add_argument("--rows", type=int, default=DEEPFASHION)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--cold", action="store_true", help="read the shards from the disk, not from memory")
    options = parser.parse_args(words)
    rng = np.random.default_rng(0)
    size = 4096
    with tempfile.TemporaryDirectory(dir=".") as scratch:
        folder = Path(scratch)
        shards = []
        names = strings([f"img/{i:08d}.jpg" for i in range(options.rows)])
        box = np.full((options.rows, 4), np.nan, dtype=np.float32)
        prints = fingerprints(options.rows)
        block = rng.normal(size=(size, 1, options.dim)).astype(np.float16)
        for start in range(0, options.rows, size):
            part = np.roll(block[: options.rows - start], start // size, axis=2)
            shards.append(folder / f"{start:09d}.h5")
            stop = start + len(part)
            rows = (np.ones(len(part), np.bool_), [], prints.sha256[start:stop], box[start:stop])
            store.write_shard(shards[-1], store.Shard(start, part, *rows), {})
        regions = Regions(folder, "made up", names, names, box, names, names)
        table = store.Table(regions, np.ones(options.rows, np.bool_), [], prints)
        places = np.divmod(np.arange(options.rows), size)
        settings: dict[str, Any] = {"key_fields": {}, "config": {}, "provenance": {}}
        gib = options.rows * options.dim * 2 / 2**30
        cache = folder / "c.h5"
        ways: dict[str, Callable[[], object]] = {
            "read_write_sync_read": lambda: copy(shards, folder / "plain"),
            "assemble": lambda: store.assemble(cache, table, shards, *places, **settings),
            "load": lambda: store.FeatureStore(cache).features(),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.turns):
            for name, way in ways.items():
                if options.cold:
                    forget(shards)
                times[name].append(seconds(way))
            (folder / "plain").unlink()
            cache.unlink()
    took = {name: round(statistics.median(found), 2) for name, found in times.items()}
    ratios = [whole / plain for whole, plain in zip(times["assemble"], times["read_write_sync_read"], strict=True)]
    say(
        benchmark="assemble",
        rows=options.rows,
        gib=round(gib, 2),
        turns=options.turns,
        cold=options.cold,
        seconds=took,
        assemble_of_plain=round(statistics.median(ratios), 2),
        peak_mb=round(peak_bytes() / 1e6),
    )


def update(words: list[str]) -> None:
    """A cache made of the one before: its rows in another order, and without one row."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench update")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=2048)
    options = parser.parse_args(words)
    size = 4096
    rng = np.random.default_rng(0)
    block = rng.normal(size=(size, 1, options.dim)).astype(np.float16)
    names = strings([f"img/{i:08d}.jpg" for i in range(options.rows)])
    box = np.full((options.rows, 4), np.nan, dtype=np.float32)
    prints = fingerprints(options.rows)
    with tempfile.TemporaryDirectory(dir=".") as scratch:
        regions = Regions(Path(scratch), "made up", names, names, box, names, names)
        cache = Path(scratch) / "c.h5"
        starts = range(0, options.rows, size)
        put_parts(cache, regions, (np.roll(block[: options.rows - i], i // size, axis=2) for i in starts), {})
        before = peak_bytes()
        took = {}
        orders = {"permuted": rng.permutation(options.rows), "one_row_gone": np.delete(np.arange(options.rows), 1)}
        for name, rows in orders.items():
            table = store.Table(regions.take(rows), np.ones(len(rows), np.bool_), [], prints.take(rows))
            origin = np.zeros(len(rows)), rows
            settings: dict[str, Any] = {"key_fields": {}, "config": {}, "provenance": {}}
            way = partial(store.assemble, cache.with_name("new.h5"), table, [cache], *origin, **settings)
            took[name] = round(seconds(way), 2)
    say(
        benchmark="update",
        rows=options.rows,
        gib=round(options.rows * options.dim * 2 / 2**30, 2),
        seconds=took,
        peak_mb_before=round(before / 1e6),
        peak_mb=round(peak_bytes() / 1e6),
    )


def forget(paths: list[Path]) -> None:
    """Let the system drop from memory what it holds of some files, which are on the disk."""
    for path in paths:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def copy(shards: list[Path], out: Path) -> None:
    """The least that assembling must do: read every byte, write it, sync it, read it back."""
    with out.open("wb") as file:
        for shard in shards:
            with shard.open("rb") as source:
                shutil.copyfileobj(source, file, 2**20)
        file.flush()
        os.fsync(file.fileno())
    with out.open("rb") as file:
        while file.read(2**20):
            pass


def read(words: list[str]) -> None:
    """DeepFashion's annotations at full size."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench read")
    parser.add_argument("--rows", type=int, default=DEEPFASHION)
    parser.add_argument("--tree", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.tree:
        took = seconds(lambda: read_regions(options.tree, outside_root=False))
        peak = peak_bytes() / 1e6
        say(benchmark="read", rows=options.rows, seconds=round(took, 2), peak_mb_of_the_process=round(peak))
        return
    with tempfile.TemporaryDirectory() as scratch:
        write_large_tree(Path(scratch), options.rows)
        command = [sys.executable, "-m", "tests.bench", "read", "--rows", str(options.rows), "--tree", scratch]
        subprocess.run(command, check=True)
