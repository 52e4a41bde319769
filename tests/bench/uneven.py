"""An uneven tree against an even one of the same leaves, and against itself made even by repeating leaves."""

import argparse
import csv
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hfc.config import METHODS, TrainConfig, resolve
from hfc.hierarchy import Hierarchy, load_hierarchy
from hfc.report.statistics import bootstrap
from hfc.store import read_predictions
from hfc.train.outer import OuterFold
from hfc.train.stage import train_all
from tests.bench import cache_of, say

UNEVEN = Path(__file__).with_name("uneven_clothing.csv")
"""The photographs' 17 categories: Hat and Shoes at depth 1, what the upper part wears at depth 3, the others at 2."""

Scores = NDArray[np.float64]
Bools = NDArray[np.bool_]


def main(words: list[str]) -> None:
    """A line of JSON for each method: top-1 under each tree, and how much the uneven one differs from the even one.

    The interval is over the images: seeds of one split share them.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.bench uneven")
    parser.add_argument("photographs", type=Path, help="what hfc extract reads")
    parser.add_argument("--even", required=True, help="a tree of their labels")
    parser.add_argument("--uneven", default=str(UNEVEN), help="another, of the same leaves")
    parser.add_argument("--cache", type=Path, help="their cache, where there is one, by EfficientNet-Lite0")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=TrainConfig.epochs)
    parser.add_argument("--outer-folds", type=int, default=0, help="test every image once, in so many folds")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args(words)
    tree = load_hierarchy(options.uneven)
    assert load_hierarchy(options.even).leaves == tree.leaves, "expected trees of the same leaves"
    with tempfile.TemporaryDirectory() as scratch:
        padded = write_padded(tree, Path(scratch) / "padded.csv")
        cache = cache_of(options, scratch)
        for method in options.methods.split(","):
            scores: dict[str, Bools] = {}
            for name, file in {"even": options.even, "padded": padded, "uneven": options.uneven}.items():
                settings = {"method": method, "epochs": options.epochs, "hierarchy": str(file)}
                configs = [resolve(TrainConfig, {**settings, "seed": seed}) for seed in range(options.seeds)]
                scores[name] = right(cache, configs, Path(scratch) / "runs", options.outer_folds, options.jobs)
            gap = bootstrap(100 * (scores["uneven"].mean(axis=0) - scores["even"].mean(axis=0)))
            say(
                benchmark="uneven",
                method=method,
                seeds=options.seeds,
                images=scores["even"].shape[1],
                **{name: _mean(100 * found.mean(axis=1)) for name, found in scores.items()},
                difference=round(gap.difference, 2),
                interval=[round(gap.low, 2), round(gap.high, 2)],
            )


def right(cache: Path, configs: Sequence[TrainConfig], out: Path, folds: int, jobs: int) -> Bools:
    """(seeds, images) whether the answer is right, of every image that is tested.

    Args:
        cache, out, jobs: as for `train_all`.
        configs: one for each seed.
        folds: outer folds, one after the other; 0: the cache's own test split.
    """
    parts = []
    for outer in [OuterFold(number, folds) for number in range(folds)] or [None]:
        trained = train_all(cache, configs, out, jobs=jobs, outer=outer)
        predictions = [read_predictions(run.folder / "predictions.h5") for run, _ in trained]
        parts.append(np.stack([one.final.argmax(axis=1) == one.target for one in predictions]))
    return np.concatenate(parts, axis=1)


def write_padded(tree: Hierarchy, file: Path) -> Path:
    """The same tree made even as people make it: a leaf is repeated down to the deepest level."""
    paths = [tree.path(leaf) for leaf in range(len(tree.leaves))]
    rows = [[*path, *[path[-1]] * (len(tree.levels) - len(path))][::-1] for path in paths]
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([tree.levels[::-1], *rows])
    return file


def _mean(scores: Scores) -> list[float]:
    """Mean and sample standard deviation over the seeds."""
    return [round(float(scores.mean()), 2), round(float(scores.std(ddof=1)) if len(scores) > 1 else 0.0, 2)]
