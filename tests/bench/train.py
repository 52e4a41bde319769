"""Stage 2 against its limit, against the recipe people write by hand, and against what else is on offer.

Made-up features at DeepFashion's scale: 289,222 × 2048 in float16, its 50 categories in their own frequencies.
"""

import argparse
import csv
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from hfc.config import TrainConfig, resolve
from hfc.hierarchy import Hierarchy, load_hierarchy
from hfc.regions import Regions, strings
from hfc.runs import Epoch
from hfc.train.cache import Cache, load_cache
from hfc.train.estimator import HierarchicalClassifier
from hfc.train.fit import fit
from hfc.train.heads.layers import Target
from hfc.train.heads.ps_softmax import PSSoftmax
from hfc.train.prepared import prepare_run
from hfc.train.settings import build_head, build_weighting
from hfc.train.stage import train_all
from tests.bench import peak_bytes, say
from tests.support.caches import put_parts

SPLITS = {"train": 209_222, "val": 40_000, "test": 40_000}
DEEPFASHION = sum(SPLITS.values())
TREE = "deepfashion-5"


def made_up(rows: NDArray[np.int64], leaf: NDArray[np.int64], tree: Hierarchy, dim: int) -> NDArray[np.float32]:
    """(n, dim) features: noise around a point of the leaf's own, which lies near that of its group."""
    rng = np.random.default_rng(0)
    group = rng.normal(size=(tree.sizes[0], dim))
    own = group[tree.ancestors[:, 0]] + rng.normal(size=(len(tree.leaves), dim))
    noise = np.random.default_rng(1 + int(rows[0])).standard_normal((len(rows), dim), dtype=np.float32)
    return np.maximum(0.08 * own[leaf].astype(np.float32) + noise, -0.3)


def write_made_up_cache(path: Path, rows: int, dim: int) -> Path:
    """A cache in shards of DeepFashion's proportions; categories drawn at their own rates."""
    tree = load_hierarchy(TREE)
    with (resources.files("hfc.sample") / "deepfashion_categories.csv").open() as file:
        counts = {row["category"]: int(row["images"]) for row in csv.DictReader(file)}
    rates = np.array([max(counts[leaf], 1) for leaf in tree.leaves], dtype=np.float64)
    leaf = np.random.default_rng(0).choice(len(rates), size=rows, p=rates / rates.sum())
    ends = np.cumsum([round(rows * share / DEEPFASHION) for share in SPLITS.values()])
    split = np.array(list(SPLITS))[np.searchsorted(ends[:-1], np.arange(rows), side="right")]
    split = np.random.default_rng(1).permutation(split)
    parts = (np.arange(start, min(start + 4096, rows)) for start in range(0, rows, 4096))
    features = (made_up(part, leaf[part], tree, dim).astype(np.float16)[:, None] for part in parts)
    names = strings([f"img/{i:08d}.jpg" for i in range(rows)])
    labels = strings([tree.leaves[i] for i in leaf])
    box = np.full((rows, 4), np.nan, dtype=np.float32)
    regions = Regions(path.parent, "made up", names, names, box, labels, strings(split.tolist()))
    return put_parts(path, regions, features, {})


def main(words: list[str]) -> None:
    """Epochs, the matrix products alone, the hand-written recipe; then accuracy and time on a slice, beside others."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench train")
    parser.add_argument("--rows", type=int, default=DEEPFASHION)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--method", default="hmcn-f+mtl")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--slice", type=int, default=4000, help="training rows of the comparison in accuracy")
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory(dir=".") as scratch:
        path = write_made_up_cache(Path(scratch) / "c.h5", options.rows, options.dim)
        config = resolve(TrainConfig, {"method": options.method, "hierarchy": TREE, "epochs": options.turns + 1})
        cache = load_cache(path)
        run = prepare_run(cache, config)
        data, config = run.data.to(cache.features.device), run.config
        rows = len(data.rows["train"])
        products = Products(config, data.hierarchy, options.dim, cache.features.device)
        plain = write_rows(Path(scratch) / "rows.h5", cache.features.tensor)
        recipes = {
            "recipe": Recipe(plain, cache, data.target.path, config, data.hierarchy, 16),
            "recipe_on_the_cache": Recipe(path, cache, data.target.path, config, data.hierarchy, 2),
        }
        times: dict[str, list[float]] = {name: [] for name in ("epoch", "products", *recipes)}

        def turn(config: TrainConfig, epoch: Epoch) -> None:
            times["epoch"].append(epoch.train_seconds)
            times["products"].append(products.seconds(rows))
            for name, recipe in recipes.items():
                times[name].append(recipe.seconds() * rows / recipe.rows)

        fit(cache.features, data, config, turn)
        took = {name: statistics.median(found[1:]) for name, found in times.items()}  # the first turn warms
        of_limit = [p / e for p, e in zip(times["products"], times["epoch"], strict=True)][1:]
        of_recipes = {
            name: round(statistics.median([r / e for r, e in zip(times[name], times["epoch"], strict=True)][1:]), 1)
            for name in recipes
        }
        say(
            benchmark="train",
            method=config.method,
            device=torch.cuda.get_device_name() if cache.features.device.type == "cuda" else "cpu",
            threads=torch.get_num_threads(),
            precision=config.precision,
            batch_size=config.batch_size,
            rows=rows,
            dim=options.dim,
            turns=options.turns,
            seconds={name: round(value, 2) for name, value in took.items()},
            rows_per_s=round(rows / took["epoch"]),
            of_the_matrix_products=round(statistics.median(of_limit), 3),
            times_the_recipe=of_recipes,
            recipe_rows_measured={name: recipe.rows for name, recipe in recipes.items()},
            slice=on_a_slice(cache.features.tensor, data.target.path, data.rows, data.hierarchy, options.slice),
        )


class Products:
    """The matrix products of a training step and nothing else: what no implementation can do without."""

    def __init__(self, config: TrainConfig, tree: Hierarchy, dim: int, device: torch.device) -> None:
        head = build_head(config, tree, dim)
        dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
        self.batch = config.batch_size
        self.device = device
        self.layers = []
        for layer in (module for module in head.modules() if isinstance(module, nn.Linear)):
            # Scores of nodes are added up before the product, which is over the leaves.
            shared = isinstance(head, PSSoftmax) and layer is head.nodes
            width = len(tree.leaves) if shared else layer.out_features
            tensors = [
                torch.randn(self.batch, layer.in_features, device=device, dtype=dtype),
                torch.randn(width, layer.in_features, device=device, dtype=dtype),
                torch.randn(self.batch, width, device=device, dtype=dtype),
            ]
            self.layers.append((*tensors, layer.weight is not head.shared))

    @torch.inference_mode()
    def seconds(self, rows: int) -> float:
        """Forward, gradient of the weights and, but for the first layer, of the inputs, for an epoch's steps."""
        started = time.perf_counter()
        for _ in range(-(-rows // self.batch)):
            for inputs, weight, grad, inner in self.layers:
                inputs @ weight.T
                grad.T @ inputs
                if inner:
                    grad @ weight
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started


class _Rows(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """Features read from HDF5 row by row, opened in the process that reads."""

    def __init__(self, file: Path, target: Tensor) -> None:
        self.file, self.target = file, target
        self.opened: h5py.File | None = None

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        if self.opened is None:
            self.opened = h5py.File(self.file, "r")
        return torch.from_numpy(self.opened["features"][i]).flatten().float(), self.target[i]


def write_rows(file: Path, features: Tensor) -> Path:
    """The features in float32 as `create_dataset` lays them out by default: contiguous, kindest to single rows."""
    with h5py.File(file, "w") as out:
        data = out.create_dataset("features", (features.shape[0], features.shape[2]), dtype=np.float32)
        for start in range(0, len(data), 4096):
            data[start : start + 4096] = features[start : start + 4096, 0].float().cpu().numpy()
    return file


class Recipe:
    """What people write by hand: a Dataset over HDF5, a DataLoader of two workers, float32, the same head and loss."""

    def __init__(
        self, file: Path, cache: Cache, target: Tensor, config: TrainConfig, tree: Hierarchy, batches: int
    ) -> None:
        self.rows = min(batches * config.batch_size, len(target))
        self.data = _Rows(file, target.cpu())
        self.device = cache.features.device
        self.batch = config.batch_size
        self.head = build_head(config, tree, cache.features.dim).to(self.device)
        self.weighting = build_weighting(config, self.head).to(self.device)
        parameters = [*self.head.parameters(), *self.weighting.parameters()]
        self.optimiser = torch.optim.Adam(parameters, lr=config.learning_rate)

    def seconds(self) -> float:
        """So many batches of rows drawn from the whole file; starting the workers is not counted."""
        sampler = torch.utils.data.RandomSampler(self.data, num_samples=self.rows)
        loader = torch.utils.data.DataLoader(self.data, self.batch, sampler=sampler, num_workers=2)
        batches = iter(loader)
        started = time.perf_counter()
        for features, path in batches:
            target = Target(path, path[:, -1]).to(self.device)
            losses = self.head.losses(self.head(features.to(self.device)), target)
            means = {task: loss.mean() for task, loss in losses.items()}
            local = sum(loss for task, loss in means.items() if task.startswith("local/"))
            flows = {"local": local, "global": means["global"]} if "global" in means else means
            total = self.weighting(flows)
            self.optimiser.zero_grad()
            total.backward()
            self.optimiser.step()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started


def on_a_slice(features: Tensor, target: Tensor, rows: Any, tree: Hierarchy, count: int) -> dict[str, dict[str, float]]:
    """Accuracy and seconds of several classifiers on the first training rows, tested on as many test rows."""
    from hiclass import LocalClassifierPerParentNode  # only here: a GPU machine may lack it

    names = [np.array(nodes, dtype=object) for nodes in tree.nodes]

    def part(split: str) -> tuple[NDArray[np.float32], NDArray[np.object_]]:
        chosen = rows[split][:count].cpu()
        paths = [names[h][column] for h, column in enumerate(target[chosen].cpu().numpy().T)]
        return features[chosen, 0].float().cpu().numpy(), np.stack(paths, axis=1)

    (x, paths), (test_x, test_paths) = part("train"), part("test")
    mean, std = x.mean(axis=0), x.std(axis=0)
    x, test_x = (x - mean) / std, (test_x - mean) / std
    regression = LogisticRegression(max_iter=200)
    contenders: dict[str, tuple[Any, Any]] = {
        "LogisticRegression": (regression, paths[:, -1]),
        "HiClass LocalClassifierPerParentNode": (LocalClassifierPerParentNode(regression), paths),
        **{
            f"hfc {method}": (HierarchicalClassifier(method), paths) for method in ("flat", "hmcn-f+mtl", "levels+path")
        },
    }
    found = {}
    for name, (model, y) in contenders.items():
        started = time.perf_counter()
        model.fit(x, y)
        took = time.perf_counter() - started
        answers = np.asarray(model.predict(test_x)).reshape(len(test_x), -1)[:, -1]
        found[name] = {"top1": round(float((answers == test_paths[:, -1]).mean()), 4), "fit_s": round(took, 2)}
    return found


def stream(words: list[str]) -> None:
    """Training from the disk against training from memory: speed, taken in turns, and peak memory of a process each."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench stream")
    parser.add_argument("--rows", type=int, default=DEEPFASHION)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--method", default="hmcn-f+mtl")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--cache", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--streamed", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    config = resolve(TrainConfig, {"method": options.method, "hierarchy": TREE, "epochs": 1})
    if options.cache:
        epoch(options.cache, config, streamed=options.streamed)
        print(peak_bytes())
        return
    with tempfile.TemporaryDirectory(dir=".") as scratch:
        path = write_made_up_cache(Path(scratch) / "c.h5", options.rows, options.dim)
        times = {way: [epoch(path, config, streamed=way == "streamed")] for way in ("resident", "streamed")}
        for _ in range(options.turns):
            for way, found in times.items():
                found.append(epoch(path, config, streamed=way == "streamed"))
        peak = {}
        for way in times:
            command = [sys.executable, "-m", "tests.bench", "stream", "--cache", str(path), "--method", options.method]
            command += ["--streamed"] if way == "streamed" else []
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            peak[way] = round(int(done.stdout.split()[-1]) / 1e6)
    ratios = [r / s for r, s in zip(times["resident"], times["streamed"], strict=True)][1:]
    say(
        benchmark="stream",
        method=options.method,
        rows=options.rows,
        dim=options.dim,
        turns=options.turns,
        epoch_s={way: round(statistics.median(found[1:]), 2) for way, found in times.items()},
        streamed_of_resident=round(statistics.median(ratios), 3),
        peak_mb=peak,
    )


def epoch(path: Path, config: TrainConfig, *, streamed: bool) -> float:
    """Seconds of training in one epoch."""
    cache = load_cache(path, stream=streamed)
    run = prepare_run(cache, replace(config, hierarchy=TREE))
    seconds = fit(cache.features, run.data, run.config).epochs[0].train_seconds
    assert seconds is not None
    return seconds


def seeds(words: list[str]) -> None:
    """Several seeds of one method at the size of a small set: one after the other, in two processes, and stacked."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench seeds")
    parser.add_argument("--rows", type=int, default=4044)
    parser.add_argument("--dim", type=int, default=1280)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--methods", default="flat,hmcn-f+mtl")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory(dir=".") as scratch:
        path = write_made_up_cache(Path(scratch) / "c.h5", options.rows, options.dim)
        fixed = {"hierarchy": TREE, "epochs": options.epochs}
        for method in options.methods.split(","):
            configs = [resolve(TrainConfig, fixed, {"method": method, "seed": seed}) for seed in range(options.seeds)]
            stacked = [replace(config, step="stacked") for config in configs]
            ways = {"single": (configs, 1), "two_processes": (configs, 2), "stacked": (stacked, 1)}
            times: dict[str, list[float]] = {way: [] for way in ways}
            for turn in range(options.turns + 1):  # the first one starts the processes
                for way, (those, jobs) in ways.items():
                    started = time.perf_counter()
                    list(train_all(path, those, Path(scratch) / f"{method}-{way}-{turn}", jobs=jobs))
                    times[way].append(time.perf_counter() - started)
            took = {way: statistics.median(found[1:]) for way, found in times.items()}
            say(
                benchmark="seeds",
                method=method,
                device=torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
                rows=options.rows,
                epochs=options.epochs,
                seeds=options.seeds,
                turns=options.turns,
                seconds={way: round(value, 2) for way, value in took.items()},
                of_single={way: round(value / took["single"], 2) for way, value in took.items()},
            )
