"""How long to train: accuracy and processor time by the number of training rows, for some numbers of epochs.

Nested parts of the training photographs, and made-up rows that behave as features do; `linear` stands beside.
"""

import argparse
import statistics
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hfc.config import TrainConfig, resolve
from hfc.hierarchy import Hierarchy, from_paths
from hfc.train.cache import load_cache
from hfc.train.data import TrainingData, prepare
from hfc.train.evaluation import decoded, evaluate, predict
from hfc.train.features import Features, Resident, signs
from hfc.train.fit import fit
from hfc.train.heads.layers import Target
from hfc.train.settling import settle
from tests.bench import cache_of, say

METRICS = ("top1", "top1_macro", "nll")
GROUPS, PARENTS, LATENT, LOOKS = 6, 24, 96, 3
WRONG = 0.06  # share of the made-up labels that are drawn anew among siblings


def main(words: list[str]) -> None:
    """A line of JSON for each number of rows, method and number of epochs: means over the seeds."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench length")
    parser.add_argument("photographs", nargs="?", type=Path, help="what hfc extract reads; none: made-up rows alone")
    parser.add_argument("--hierarchy", default="", help="the tree of their labels")
    parser.add_argument("--cache", type=Path, help="their cache, where there is one, by EfficientNet-Lite0")
    parser.add_argument("--rows", type=_numbers, default=[150, 300, 700, 1400, 2830], help="photographs to train on")
    parser.add_argument("--made-up", type=_numbers, default=[9600], help="made-up rows to train on")
    parser.add_argument("--held", type=int, default=2000, help="made-up rows for validation, and as many for the test")
    parser.add_argument("--dim", type=int, default=1280)
    parser.add_argument("--leaves", type=int, default=85)
    parser.add_argument("--methods", type=_words, default=["flat", "ps-softmax", "levels+path"])
    parser.add_argument("--epochs", type=_numbers, default=[40, 0], help="0: by the rows; each length once")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of all methods but linear")
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args(words)
    given = tomllib.loads("\n".join(options.set))
    others = [(method, options.seeds, options.epochs, given) for method in options.methods]
    for name, features, data in _tables(options):
        linear = 0.0
        rows = len(data.rows["train"])
        for method, seeds, lengths, changed in [("linear", 1, [0], {}), *others]:
            own = settle(resolve(TrainConfig, {"method": method}), data, features.device).epochs
            for epochs in sorted({length or own for length in lengths}):
                settings = {"method": method, "epochs": epochs, **changed}
                means, took = _trained(features, data, [{**settings, "seed": seed} for seed in range(seeds)])
                linear = linear or took
                about = {"data": name, "rows": rows, "method": method, "by_the_rows": epochs == own}
                say(benchmark="length", **about, **means, cpu_s=round(took, 2), times_linear=round(took / linear, 2))


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _numbers(text: str) -> list[int]:
    return [int(word) for word in _words(text)]


def _tables(options: argparse.Namespace) -> Iterator[tuple[str, Features, TrainingData]]:
    """The features and labels, with the training rows cut to each number; a larger one holds the smaller ones."""
    with tempfile.TemporaryDirectory() as scratch:
        if options.photographs or options.cache:
            cache = load_cache(cache_of(options, scratch), device="cpu")
            data = prepare(cache, options.hierarchy)
            yield from (("photographs", cache.features, cut(data, rows)) for rows in options.rows)
    if options.made_up:
        features, data = made_up(max(options.made_up), options.held, options.dim, options.leaves)
        yield from (("made up", features, cut(data, rows)) for rows in options.made_up)


def cut(data: TrainingData, rows: int) -> TrainingData:
    """Keep some of the training rows, drawn by chance."""
    train = data.rows["train"]
    kept = np.random.default_rng(0).permutation(len(train))[:rows]
    return replace(data, rows={**data.rows, "train": train[np.sort(kept)]})


def _trained(
    features: Features, data: TrainingData, runs: Sequence[Mapping[str, object]]
) -> tuple[dict[str, object], float]:
    """Train runs that differ in seed alone, and test them.

    Returns:
        Their epochs and steps, the epochs that were chosen, and the mean of each metric; and the mean seconds of
        processor time.
    """
    scores: dict[str, list[float]] = {name: [] for name in METRICS}
    times, chosen = [], []
    for settings in runs:
        config = settle(resolve(TrainConfig, settings), data, features.device)
        started = time.process_time()
        fitted = fit(features, data, config)
        times.append(time.process_time() - started)
        chosen.append(fitted.best.epoch)
        raw = predict(fitted.head, features, data.rows["test"], config.beta)
        tested = evaluate(decoded(raw, data.hierarchy, config), data, "test", config)
        for name, values in scores.items():
            values.append(tested[name])
    steps = -(-len(data.rows["train"]) // config.batch_size) if config.batch_size else 0
    means = {
        name: round(statistics.mean(values) * (1 if name == "nll" else 100), 3 if name == "nll" else 2)
        for name, values in scores.items()
    }
    about: dict[str, object] = {"epochs": config.epochs, "steps": steps * config.epochs, "chosen": chosen}
    return {**about, **means}, statistics.mean(times)


def made_up(rows: int, held: int, dim: int, leaves: int) -> tuple[Resident, TrainingData]:
    """Features that behave as a network's do: rectified, of unequal scales, a few looks of every leaf.

    Leaves lie near their parents, these near their groups; the frequencies have a long tail, and some labels are wrong.
    The noise is such that a linear probe of 9,600 rows is right in some 82% with 85 leaves.
    """
    rng = np.random.default_rng(0)
    above = _spread(rng, PARENTS, leaves), _spread(rng, GROUPS, PARENTS)
    rates = rng.permutation(np.arange(1, leaves + 1.0) ** -1.1)
    tree = from_paths(
        "made up",
        ["group", "parent", "leaf"],
        [(f"{above[1][above[0][i]]}", f"{above[0][i]:02d}", f"{i:04d}") for i in range(leaves)],
    )
    leaf = rng.choice(leaves, size=rows + 2 * held, p=rates / rates.sum())
    features = _features(rng, leaf, above, dim)
    names = {name: number for number, name in enumerate(tree.leaves)}
    numbers = np.array([names[f"{i:04d}"] for i in range(leaves)])
    target = _target(tree, numbers[_mistaken(rng, leaf, above[0], rates)])
    parts = torch.arange(len(leaf)).split([rows, held, held])
    resident = Resident(torch.from_numpy(features)[:, None])
    sides = signs(resident, torch.arange(len(leaf)))
    data = TrainingData(tree, dict(zip(("train", "val", "test"), parts, strict=True)), target, sides, unused={})
    return resident, data


def _spread(rng: np.random.Generator, parents: int, children: int) -> NDArray[np.int64]:
    """(children,) the parent of each; every parent has one child at least."""
    drawn = rng.integers(parents, size=children)
    drawn[:parents] = np.arange(min(parents, children))
    return drawn


def _features(
    rng: np.random.Generator, leaf: NDArray[np.int64], above: tuple[NDArray[np.int64], NDArray[np.int64]], dim: int
) -> NDArray[np.float16]:
    """(n, dim) features of rows of some leaves."""
    parent, group = above
    own = [rng.normal(size=(count, LATENT)) for count in (GROUPS, PARENTS, len(parent))]
    centres = 0.9 * (own[0][group[parent]] + own[1][parent] + own[2])
    looks = centres[:, None] + 0.7 * rng.normal(size=(len(parent), LOOKS, LATENT))
    mix = rng.normal(size=(LATENT, dim)) / LATENT**0.5
    shift, scale = 0.5 * rng.normal(size=dim) - 0.7, np.exp(0.5 * rng.normal(size=dim))
    features = np.empty((len(leaf), dim), dtype=np.float16)
    for start in range(0, len(leaf), 4096):
        some = leaf[start : start + 4096]
        point = looks[some, rng.integers(LOOKS, size=len(some))] + 3.35 * rng.normal(size=(len(some), LATENT))
        noise = shift + 0.5 * rng.normal(size=(len(some), dim))
        features[start : start + 4096] = np.maximum(point @ mix + noise, 0) * scale
    return features


def _mistaken(
    rng: np.random.Generator, leaf: NDArray[np.int64], parent: NDArray[np.int64], rates: NDArray[np.float64]
) -> NDArray[np.int64]:
    """The labels, of which some are drawn anew among the leaf and its siblings."""
    label = leaf.copy()
    for row in np.flatnonzero(rng.random(len(leaf)) < WRONG):
        siblings = np.flatnonzero(parent == parent[leaf[row]])
        label[row] = rng.choice(siblings, p=rates[siblings] / rates[siblings].sum())
    return label


def _target(tree: Hierarchy, leaf: NDArray[np.int64]) -> Target:
    numbers = torch.from_numpy(leaf)
    return Target(torch.from_numpy(tree.ancestors)[numbers], numbers)
