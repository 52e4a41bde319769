"""The whole path of `linear` against scikit-learn's LogisticRegressionCV over the same L2 strengths.

Seconds of processor time, so that what else runs hardly matters. Both get the same float32 features and one split;
scikit-learn keeps its own tolerance, and gets features that are standardised already.
"""

import argparse
import statistics
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegressionCV

from hfc.config import TrainConfig, resolve
from hfc.hierarchy import from_paths
from hfc.train.cache import load_cache
from hfc.train.data import TrainingData
from hfc.train.features import Resident, signs
from hfc.train.fit import fit
from hfc.train.heads.layers import Target
from hfc.train.lbfgs import strength
from hfc.train.prepared import prepare_run
from hfc.train.settling import settle
from tests.bench import say


def made_up(rows: int, held: int, dim: int, leaves: int) -> tuple[Resident, TrainingData]:
    """Rows about a point of each leaf's own, with a spectrum that falls as that of real features."""
    rng = np.random.default_rng(0)
    leaf = rng.integers(leaves, size=rows + held)
    spread = np.arange(1, dim + 1) ** -0.5
    x = (rng.normal(size=(leaves, dim))[leaf] * 0.05 + rng.normal(size=(len(leaf), dim))) * spread
    x = x @ np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    tree = from_paths("made up", ["leaf"], [(f"{i:03d}",) for i in range(leaves)])
    numbers = torch.arange(len(leaf))
    split = {"train": numbers[:rows], "val": numbers[rows:], "test": numbers[:0]}
    target = Target(torch.from_numpy(leaf[:, None]), torch.from_numpy(leaf))
    features = Resident(torch.from_numpy(x.astype(np.float32))[:, None])
    return features, TrainingData(tree, split, target, signs(features, numbers), unused={})


def main(words: list[str]) -> None:
    """Turns of both, side by side; with --cache on its features."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench linear")
    parser.add_argument("--cache", type=Path, help="features to take, with --hierarchy, in place of made-up ones")
    parser.add_argument("--hierarchy", default="")
    parser.add_argument("--rows", type=int, default=2830)
    parser.add_argument("--held", type=int, default=400)
    parser.add_argument("--dim", type=int, default=1280)
    parser.add_argument("--leaves", type=int, default=17)
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args(words)
    config = resolve(TrainConfig, {"method": "linear", "hierarchy": given.hierarchy})
    if given.cache:
        cache = load_cache(given.cache, device="cpu")
        features, data = cache.features, prepare_run(cache, config).data
        assert isinstance(features, Resident)
    else:
        features, data = made_up(given.rows, given.held, given.dim, given.leaves)
    config = settle(config, data, features.device)
    fit(features, data, settle(resolve(TrainConfig, {"method": "linear", "epochs": 1}), data, features.device))  # warm
    ours, theirs = [], []
    for _ in range(given.turns):
        start = time.process_time()
        fitted = fit(features, data, config)
        middle = time.process_time()
        scores = scikit_learn(features, data, config)
        ours.append(middle - start)
        theirs.append(time.process_time() - middle)
    best = fitted.best.epoch
    say(
        benchmark="linear",
        rows=len(data.rows["train"]),
        dim=features.dim,
        leaves=len(data.hierarchy.leaves),
        strengths=config.epochs,
        linear_cpu_s=round(statistics.median(ours), 2),
        scikit_learn_cpu_s=round(statistics.median(theirs), 2),
        ratio=round(statistics.median(a / b for a, b in zip(ours, theirs, strict=True)), 2),
        chosen=[round(strength(config, number), 5) for number in (best, 1 + int(np.argmax(scores)))],
        val_nll=[round(fitted.best.val["nll"], 4), round(-float(scores.max()), 4)],
    )


def scikit_learn(features: Resident, data: TrainingData, config: TrainConfig) -> np.ndarray:
    """Run the same path; returns minus the negative log-likelihood on validation, by point, strong L2 first."""
    train, val = data.rows["train"], data.rows["val"]
    x = features.tensor[:, 0].float()
    mean, deviation = x[train].mean(dim=0), x[train].std(dim=0, correction=0)
    both = torch.cat([train, val])
    rows = ((x[both] - mean) / torch.where(deviation > 0, deviation, 1.0)).numpy()
    split = [(np.arange(len(train)), np.arange(len(train), len(both)))]
    model = LogisticRegressionCV(
        Cs=[1 / (strength(config, number) * len(train)) for number in range(1, config.epochs + 1)],
        cv=split,
        scoring="neg_log_loss",
        max_iter=1000,
        refit=False,
        use_legacy_attributes=False,
        l1_ratios=(0,),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(rows, data.target.leaf[both].numpy())
    return np.asarray(model.scores_).ravel()
