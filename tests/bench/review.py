"""Wrong labels planted among right ones: how many a list names, and how many of those it names are planted."""

import argparse
import csv
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hfc import store
from hfc.config import METHODS, REVIEW_FOLDS, TrainConfig, resolve
from hfc.hierarchy import Hierarchy, load_hierarchy
from hfc.regions import Regions
from hfc.report.doubts import find_doubts, thresholds
from hfc.train.review import held_out
from tests.bench import cache_of, say

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Lists = dict[str, tuple[Ints, Ints]]
"""By name: rows in the order of a list, and the leaf that it suggests for each."""


def main(words: list[str]) -> None:
    """Plant wrong labels, half of them siblings and half strangers, and look for them by several lists."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench review")
    parser.add_argument("photographs", type=Path, help="what hfc extract reads")
    parser.add_argument("--hierarchy", required=True, help="the tree of their labels")
    parser.add_argument("--cache", type=Path, help="their cache, where there is one, by EfficientNet-Lite0")
    parser.add_argument("--method", default=TrainConfig.method, choices=list(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.05, help="of the labels, made wrong")
    options = parser.parse_args(words)
    tree = load_hierarchy(options.hierarchy)
    measured: dict[str, list[dict[str, float]]] = {}
    seconds = []
    with tempfile.TemporaryDirectory() as scratch:
        cache = cache_of(options, scratch)
        with store.FeatureStore(cache) as opened:
            regions = opened.table().regions
        for seed in range(options.seeds):
            wrong = plant(regions, tree, options.share, np.random.default_rng(seed), Path(scratch) / "l.csv")
            settings = {"method": options.method, "hierarchy": options.hierarchy, "seed": seed}
            started = time.perf_counter()
            held = held_out(cache, resolve(TrainConfig, settings), REVIEW_FOLDS, labels=Path(scratch) / "l.csv")
            seconds.append(time.perf_counter() - started)
            truth = dict(zip(regions.id, regions.label, strict=True))
            right = tree.index([truth[name] for name in held.predictions.id], "the photographs")
            for name, (rows, suggested) in lists(held.predictions.final, held.predictions.target, tree).items():
                first = rows[: len(wrong)], suggested[: len(wrong)]
                found = measure(*first, held.predictions.target, right, tree) | {
                    f"whole_{key}": value
                    for key, value in measure(rows, suggested, held.predictions.target, right, tree).items()
                }
                measured.setdefault(name, []).append(found)
    for name, found in measured.items():
        means = {key: round(float(np.mean([one[key] for one in found])), 3) for key in found[0]}
        common = {"method": options.method, "planted": len(wrong), "seeds": options.seeds}
        say(benchmark="review", list=name, **common, seconds=round(float(np.median(seconds)), 1), **means)


def plant(regions: Regions, tree: Hierarchy, share: float, rng: np.random.Generator, file: Path) -> Ints:
    """Write labels of which a share is wrong: by turns a sibling's and a stranger's. Gives the rows."""
    leaf = tree.index(regions.label.tolist(), "the photographs")
    rows = rng.permutation(len(regions))[: round(share * len(regions))]
    labels = regions.label.copy()
    every = np.arange(len(tree.leaves))
    for number, row in enumerate(rows):
        siblings = tree.are_siblings(leaf[row], every)
        siblings[leaf[row]] = False
        strangers = ~tree.are_siblings(leaf[row], every)
        pool = siblings if number % 2 == 0 and siblings.any() else strangers
        labels[row] = tree.leaves[rng.choice(every[pool])]
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("id", "label"), *zip(regions.id, labels, strict=True)])
    return rows


def lists(probability: NDArray[np.float32], label: Ints, tree: Hierarchy) -> Lists:
    """The list of `hfc review`, and what else one might take."""
    rows = np.arange(len(label))
    own = probability[rows, label]
    others = probability.copy()
    others[rows, label] = -1
    best = others.argmax(axis=1)
    doubts = find_doubts(probability, label, tree)
    reached = probability >= thresholds(probability, label)
    sure = np.where(reached, probability, -1).argmax(axis=1)
    off = np.flatnonzero(reached.any(axis=1) & (sure != label))
    by_margin = off[np.argsort((own - others.max(axis=1))[off], kind="stable")]
    by_own = off[np.argsort(own[off], kind="stable")]
    naive = np.argsort(own, kind="stable")
    pruned = np.zeros(len(label), dtype=np.bool_)
    for leaf, count in enumerate(doubts.estimated.sum(axis=1) - doubts.estimated.diagonal()):
        pruned[naive[label[naive] == leaf][: round(count)]] = True
    estimated = naive[(pruned & (own < others.max(axis=1)))[naive]]
    return {
        "hfc review": (doubts.row, doubts.suggested),
        "as many as estimated": (estimated, best[estimated]),
        "all rows, by p_label": (naive, best[naive]),
        "off the diagonal, by p_label": (by_own, sure[by_own]),
        "off the diagonal, by margin": (by_margin, sure[by_margin]),
    }


def measure(rows: Ints, suggested: Ints, label: Ints, right: Ints, tree: Hierarchy) -> dict[str, float]:
    """How good the rows of a list are."""
    planted = label != right
    siblings = tree.are_siblings(label, right)
    as_siblings = tree.are_siblings(label[rows], suggested)
    named = np.zeros(len(label), dtype=np.bool_)
    named[rows] = True
    hits = planted[rows]
    return {
        "rows": len(rows),
        "precision": _share(hits),
        "precision_of_siblings": _share(hits[as_siblings]),
        "precision_of_strangers": _share(hits[~as_siblings]),
        "recall": _share(named[planted]),
        "recall_of_siblings": _share(named[planted & siblings]),
        "recall_of_strangers": _share(named[planted & ~siblings]),
        "right_suggestions": _share((suggested == right[rows])[hits]),
    }


def _share(marks: Bools) -> float:
    return float(marks.mean()) if len(marks) else 0.0
