"""Labels that stop half way: what training rows are worth whose label is cut back to its parent."""

import argparse
import csv
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hfc import store
from hfc.config import METHODS, TrainConfig, resolve
from hfc.hierarchy import Hierarchy, load_hierarchy
from hfc.metrics import LEVEL
from hfc.regions import Regions
from hfc.runs import Result
from hfc.train.stage import train_all
from tests.bench import cache_of, say

SHARES = (0.0, 0.3, 0.6, 0.9)

Scores = NDArray[np.float64]
"""(seeds, 2): top-1 and the accuracy of the level above the leaves."""


def main(words: list[str]) -> None:
    """A line of JSON for each method and share: with such rows, without them, and the difference seed by seed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench partial")
    parser.add_argument("photographs", type=Path, help="what hfc extract reads")
    parser.add_argument("--hierarchy", required=True, help="the tree of their labels")
    parser.add_argument("--cache", type=Path, help="their cache, where there is one, by EfficientNet-Lite0")
    parser.add_argument("--methods", default="flat,levels+path,hmcn-f", help=f"of {', '.join(METHODS)}")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=TrainConfig.epochs)
    options = parser.parse_args(words)
    tree = load_hierarchy(options.hierarchy)
    with tempfile.TemporaryDirectory() as scratch:
        cache = cache_of(options, scratch)
        with store.FeatureStore(cache) as opened:
            regions = opened.table().regions
        for method in options.methods.split(","):
            for share in SHARES:
                files = [Path(scratch) / f"{share}-{seed}.csv" for seed in range(options.seeds)]
                for seed, file in enumerate(files):
                    cut_back(regions, tree, share, seed, file)
                settings = {"method": method, "hierarchy": options.hierarchy, "epochs": options.epochs}
                _say_share(settings, share, cache, files, Path(scratch) / "runs")


def cut_back(regions: Regions, tree: Hierarchy, share: float, seed: int, file: Path) -> None:
    """Write labels of which a share, in training, is cut back to the node above; a greater share cuts more of them."""
    train = np.flatnonzero(regions.split == "train")
    cut = np.random.default_rng(seed).permutation(train)[: round(share * len(train))]
    leaf = tree.index(regions.label[cut].tolist(), "the photographs")
    labels = regions.label.copy()
    labels[cut] = [" > ".join(tree.path(number)[:-1]) for number in leaf.tolist()]
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("id", "label"), *zip(regions.id, labels, strict=True)])


def _say_share(settings: dict[str, object], share: float, cache: Path, files: list[Path], out: Path) -> None:
    """Train on each file of labels, with the rows that are cut back and without them."""
    common = {"benchmark": "partial", "method": settings["method"], "share": share, "seeds": len(files)}
    scores: dict[str, Scores] = {}
    for inner_labels in ("use", "leave-out") if share else ("use",):
        started = time.perf_counter()
        results = []
        for seed, file in enumerate(files):
            config = resolve(TrainConfig, {**settings, "inner_labels": inner_labels, "seed": seed})
            results += [run.result for run, _ in train_all(cache, [config], out, labels=file)]
        scores[inner_labels] = np.array([_scores(result) for result in results])
        rows = {"train": results[0].rows.train, "with_inner_label": results[0].rows.inner.get("train", 0)}
        seconds = round(time.perf_counter() - started, 1)
        say(**common, inner_labels=inner_labels, **rows, seconds=seconds, **_means(scores[inner_labels]))
    if share:
        say(**common, inner_labels="use - leave-out", **_means(scores["use"] - scores["leave-out"]))


def _scores(result: Result) -> tuple[float, float]:
    return 100 * result.test["top1"], 100 * result.test[LEVEL + result.hierarchy.levels[-2]]


def _means(scores: Scores) -> dict[str, list[float]]:
    """Mean and sample standard deviation over the seeds, in points."""
    spread = scores.std(axis=0, ddof=1) if len(scores) > 1 else np.zeros(2)
    columns = zip(("top1", "group"), scores.mean(axis=0).tolist(), spread.tolist(), strict=True)
    return {name: [round(mean, 2), round(deviation, 2)] for name, mean, deviation in columns}
