"""Hundreds to thousands of leaves: an epoch against its matrix products, memory, a run's folder, and a report.

Made-up features, 512 numbers a row, under trees of seven levels; each training and each report is a process of its own.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.bench import peak_bytes, say

PARTS = ("train", "report")


def main(words: list[str]) -> None:
    """A line of JSON for each number of leaves."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench leaves")
    parser.add_argument("--leaves", default="100,1000,10000")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--levels", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--methods", default="flat,levels+path,ps-softmax")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.part:
        print(json.dumps({"train": _train, "report": _report}[options.part](options)))
        return
    for leaves in map(int, options.leaves.split(",")):
        with tempfile.TemporaryDirectory(dir=".") as scratch:
            cache = write_cache(Path(scratch), options.rows, options.dim, leaves, options.levels)
            fixed = ["--epochs", str(options.epochs), "--folder", scratch]
            trained = {name: _part("train", [*fixed, "--methods", name]) for name in options.methods.split(",")}
            report = _part("report", fixed)
            say(
                benchmark="leaves",
                leaves=leaves,
                levels=options.levels,
                rows=options.rows,
                dim=options.dim,
                epochs=options.epochs,
                cache_mb=round(cache.stat().st_size / 1e6),
                methods=trained,
                report=report,
            )


def _part(part: str, words: list[str]) -> dict[str, object]:
    """Run a part in a process of its own."""
    command = [sys.executable, "-m", "tests.bench", "leaves", "--part", part, *words]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    told: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return told


def draw_tree(leaves: int, levels: int) -> NDArray[np.int64]:
    """(leaves, levels) ancestors: every level has so many times the nodes of the one above; some parents have many."""
    rng = np.random.default_rng(0)
    sizes = [max(round(leaves ** ((h + 1) / levels)), 1) for h in range(levels)]
    tree = np.arange(leaves)[:, None]
    for size in reversed(sizes[:-1]):
        below = int(tree[:, 0].max()) + 1
        rates = rng.lognormal(sigma=1.0, size=size)
        parent = np.concatenate([np.arange(size), rng.choice(size, size=below - size, p=rates / rates.sum())])
        tree = np.concatenate([rng.permutation(parent)[tree[:, :1]], tree], axis=1)
    return tree


def write_cache(folder: Path, rows: int, dim: int, leaves: int, levels: int) -> Path:
    """A cache of made-up features, and tree.csv beside it: noise around a point of each leaf, near its parent's."""
    from hfc.regions import Regions, strings
    from tests.support.caches import put_parts

    tree = draw_tree(leaves, levels)
    names = [[f"n{h}.{node}" for h, node in enumerate(path)] for path in tree.tolist()]
    lines = [",".join(f"level {h}" for h in reversed(range(levels))), *(",".join(path[::-1]) for path in names)]
    (folder / "tree.csv").write_text("\n".join(lines))
    rng = np.random.default_rng(1)
    points = sum(rng.normal(size=(int(column.max()) + 1, dim))[column] for column in tree.T)
    leaf = np.concatenate([np.arange(leaves), rng.integers(leaves, size=rows - leaves)])[:rows]
    parts = (np.arange(start, min(start + 4096, rows)) for start in range(0, rows, 4096))
    features = ((0.3 * points[leaf[part]] + rng.normal(size=(len(part), dim))).astype(np.float16) for part in parts)
    ids = strings([f"img/{i:08d}.jpg" for i in range(rows)])
    split = strings(rng.permutation(np.resize(["train"] * 8 + ["val", "test"], rows)).tolist())
    box = np.full((rows, 4), np.nan, dtype=np.float32)
    regions = Regions(folder, "made up", ids, ids, box, strings([names[i][-1] for i in leaf]), split)
    origin = {"config": {"backbone": "made-up", "image_size": 224}, "key_fields": {}}
    weights = {"source": "made-up", "digest": "0" * 64, "random": True}
    provenance = {"dataset": {"root": str(folder), "origin": "made up"}, "weights": weights}
    return put_parts(folder / "c.h5", regions, (part[:, None] for part in features), provenance=provenance, **origin)


def _train(options: argparse.Namespace) -> dict[str, object]:
    """Train a method, each epoch beside its matrix products."""
    import torch

    from hfc.config import TrainConfig, resolve
    from hfc.runs import Epoch
    from hfc.train.cache import load_cache
    from hfc.train.prepared import prepare_run
    from hfc.train.stage import train
    from tests.bench.train import Products

    cache = load_cache(options.folder / "c.h5")
    fixed = {"hierarchy": str(options.folder / "tree.csv"), "epochs": options.epochs}
    config = resolve(TrainConfig, {**fixed, "method": options.methods})
    run = prepare_run(cache, config)
    rows = len(run.data.rows["train"])
    products = Products(run.config, run.data.hierarchy, cache.features.dim, cache.features.device)
    limit: list[float] = []

    def turn(config: TrainConfig, epoch: Epoch) -> None:
        limit.append(products.seconds(rows))

    started = time.perf_counter()
    finished, _ = train(cache, config, options.folder / "runs", on_epoch=turn)
    whole = time.perf_counter() - started - sum(limit)
    epochs = [float(epoch.train_seconds or 0) for epoch in finished.epochs]
    ratios = [product / epoch for product, epoch in zip(limit, epochs, strict=True)]
    return {
        "epoch_s": round(statistics.median(epochs), 2),
        "validation_s": round(statistics.median(e.seconds - (e.train_seconds or 0) for e in finished.epochs), 2),
        "of_the_matrix_products": round(statistics.median(ratios), 3),
        "whole_s": round(whole, 2),
        "peak_mb": round(peak_bytes() / 1e6),
        "folder_mb": round(sum(file.stat().st_size for file in finished.folder.iterdir()) / 1e6, 1),
        "top1": round(finished.result.test["top1"], 4),
        "precision": finished.result.machine.precision,
        "threads": torch.get_num_threads(),
    }


def _report(options: argparse.Namespace) -> dict[str, object]:
    """Write the report of all runs."""
    from hfc.report import write_report

    started, out = time.perf_counter(), options.folder / "report"
    write_report([options.folder / "runs"], out)
    files = [file for file in out.rglob("*") if file.is_file()]
    return {
        "seconds": round(time.perf_counter() - started, 2),
        "page_mb": round((out / "report.html").stat().st_size / 1e6, 2),
        "folder_mb": round(sum(file.stat().st_size for file in files) / 1e6, 2),
        "files": len(files),
        "peak_mb": round(peak_bytes() / 1e6),
    }
