"""Other papers' methods beside those that ship, on one trunk and one cache: what did not become a part of the product.

What a method has to choose is chosen on validation: of trained strengths by the first seed, of the rest by each. All
probabilities have the temperature of their validation rows.
"""

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from hfc import metrics
from hfc.config import TrainConfig, resolve
from hfc.metrics import METRICS, Metrics
from hfc.train.cache import Cache, load_cache
from hfc.train.calibration import at_temperature, fit_temperature, leaf_probabilities
from hfc.train.data import TrainingData, prepare
from hfc.train.evaluation import predict, used_views
from hfc.train.features import statistics
from hfc.train.fit import fit
from hfc.train.heads import HEADS
from hfc.train.heads.layers import Standardise, Target
from hfc.train.settling import settle
from tests.bench import cache_of, say
from tests.bench.tried_heads import Adjusted, HierCos, LeafMargin, NodeMargin, Tried
from tests.bench.tried_scores import adjusted, hie, neighbours, parents_of, votes

Finals = Mapping[str, Tensor]
"""P_final of the splits val and test, (N, C) each, without temperature."""
Choices = Mapping[str, Finals]
"""The same by what may be chosen."""

COLUMNS = ("top1", "top3", "top5", "top1_macro", "mistake_severity", "distance@5", "nll", "ece")
# On the features as they are: the others were tried before methods took their square root.
PLAIN: dict[str, object] = {"transform": "none", "select": "top1"}
SHIPPED: Mapping[str, dict[str, object]] = {
    "flat": {"method": "flat", **PLAIN},
    "levels+path": {"method": "levels+path", **PLAIN},
    "ps-softmax": {"method": "ps-softmax", **PLAIN},
    "linear": {"method": "linear", "transform": "none"},
    "flat, class_balance=0.99": {"method": "flat", "class_balance": 0.99, **PLAIN},
}
# Of each head its strengths, and what chooses among them on validation. The settings are those of flat, but for
# Hier-COS, whose loss wants larger steps (on validation too).
LARGER_STEPS: dict[str, object] = {**SHIPPED["flat"], "learning_rate": 0.003}
TRAINED: Mapping[str, tuple[type[Tried], tuple[float, ...], str]] = {
    "soft-max-margin over nodes": (NodeMargin, (0.5, 1.0, 2.0, 5.0), "nll"),
    "soft-max-margin over leaves": (LeafMargin, (0.5, 1.0, 2.0, 5.0), "nll"),
    "Hier-COS": (HierCos, (0.0, 0.01, 0.1), "nll"),
    "logit adjustment in training": (Adjusted, (0.5, 1.0), "top1_macro"),
}
TAUS, EXPONENTS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0), (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
KS, TEMPERATURES = (5, 10, 20, 50, 100, 200), (0.02, 0.04, 0.07, 0.1, 0.2)


def main(words: list[str]) -> None:
    """A line of JSON for each method and seed, and a table of their means."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench tried")
    parser.add_argument("photographs", type=Path, help="what hfc extract reads")
    parser.add_argument("--hierarchy", required=True, help="the tree of their labels")
    parser.add_argument("--cache", type=Path, help="their cache, where there is one, by EfficientNet-Lite0")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=TrainConfig.epochs)
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as scratch:
        cache = load_cache(cache_of(options, scratch), device="cpu")
    trial = Trial(cache, prepare(cache, options.hierarchy), options.epochs)
    measured: dict[str, list[Metrics]] = {}
    for seed in range(options.seeds):
        for method, setting, finals in trial.all_of(seed):
            result = trial.measure(finals, "test")
            measured.setdefault(method, []).append(result)
            say(
                benchmark="tried",
                hierarchy=trial.data.hierarchy.name,
                method=method,
                seed=seed,
                chosen=setting,
                **{key: round(METRICS[key].scale * result[key], 4) for key in COLUMNS},
            )
    print("\n".join(table(measured)))


@dataclass
class Trial:
    """Methods on one cache under one tree."""

    cache: Cache
    data: TrainingData
    epochs: int

    def __post_init__(self) -> None:
        """Nothing is chosen yet."""
        self.strengths: dict[str, float] = {}

    def all_of(self, seed: int) -> Iterator[tuple[str, str, Finals]]:
        """Give every method with what it chose; those that draw nothing with the first seed alone."""
        finals = {}
        for method, settings in SHIPPED.items():
            if seed == 0 or method != "linear":
                finals[method] = self.trained(settings, seed)
                yield method, "", finals[method]
        for method in TRAINED:
            yield method, *self.best_strength(method, seed)
        parents = self.parents(seed)
        for method in ("flat", "ps-softmax"):
            taus = {f"tau={tau}": self.each(finals[method], adjusted, self.log_prior, tau) for tau in TAUS}
            yield f"{method}, logit adjustment afterwards", *self.best(taus, "top1_macro")
            yield f"{method}, the same without loss", *self.best(self.without_loss(taus), "top1_macro")
            ensembles = {f"exponent={power}": self.ensemble(finals[method], parents, power) for power in EXPONENTS}
            yield f"{method}, HiE", *self.best(ensembles, "nll")
            yield f"{method}, HiE as published", "exponent=1.0", ensembles["exponent=1.0"]
        if seed == 0:
            yield "nearest neighbours", *self.best(dict(self.of_neighbours()), "top1")

    def trained(self, settings: dict[str, object], seed: int, kind: type[Tried] | None = None) -> Finals:
        """Train a method that ships, or a head of another kind by its settings."""
        length = {} if settings["method"] == "linear" else {"epochs": self.epochs}  # there it counts strengths
        return self.fitted(resolve(TrainConfig, {**settings, **length, "seed": seed}), self.data, kind)

    def fitted(self, config: TrainConfig, data: TrainingData, kind: type[Tried] | None = None) -> Finals:
        """Train and predict."""
        features = self.cache.features
        with patch.dict(HEADS, {"tried": kind} if kind else {}):  # type: ignore[dict-item]
            config = settle(replace(config, head="tried") if kind else config, data, features.device)
            head = fit(features, data, config).head
        raw = {
            split: predict(head, used_views(features, config), data.rows[split], config.beta)
            for split in ("val", "test")
        }
        return {split: leaf_probabilities(prediction, data.hierarchy, config) for split, prediction in raw.items()}

    def best_strength(self, method: str, seed: int) -> tuple[str, Finals]:
        """Train a head with the strength that the first seed chose; that tries them all."""
        kind, strengths, by = TRAINED[method]
        settings = LARGER_STEPS if kind is HierCos else SHIPPED["flat"]
        if kind is Adjusted:
            kind = type("Adjusted", (Adjusted,), {"log_prior": self.log_prior.float()})
        tried = [self.strengths[method]] if method in self.strengths else strengths
        name, finals = self.best(
            {str(strength): self.trained(settings, seed, kind.at(strength)) for strength in tried}, by
        )
        self.strengths[method] = float(name)
        return f"strength={name}", finals

    def best(self, choices: Choices, by: str) -> tuple[str, Finals]:
        """Choose on validation; the likelihood decides between equals."""
        sign = -1 if by == "nll" else 1
        values = {name: self.measure(finals, "val") for name, finals in choices.items()}
        name = max(values, key=lambda name: (sign * values[name][by], -values[name]["nll"]))
        return name, choices[name]

    def without_loss(self, choices: Choices) -> Choices:
        """Keep what has no worse a top-1 on validation than the first choice."""
        top1 = {name: self.measure(finals, "val")["top1"] for name, finals in choices.items()}
        least = next(iter(top1.values()))
        return {name: finals for name, finals in choices.items() if top1[name] >= least}

    def measure(self, finals: Finals, split: str) -> Metrics:
        """Measure the probabilities of a split at their temperature."""
        temperature = fit_temperature(finals["val"], self.data.leaf("val"))
        final = at_temperature(finals[split], temperature).numpy()
        tree = self.data.hierarchy
        levels = [np.zeros((len(final), size)) for size in tree.sizes]  # what levels say is not looked at
        return metrics.evaluate(
            levels, final, self.data.path(split), self.data.leaf(split), tree=tree, topk=(1, 3, min(5, final.shape[1]))
        )

    @cached_property
    def log_prior(self) -> Tensor:
        """(C,) log π of the training rows; a leaf without any counts as one row."""
        counts = np.bincount(self.data.leaf("train"), minlength=len(self.data.hierarchy.leaves)).clip(min=1)
        return torch.from_numpy(np.log(counts / counts.sum()))

    @staticmethod
    def each(finals: Finals, change: object, *arguments: object) -> Finals:
        """Change the probabilities of both splits."""
        return {split: change(final, *arguments) for split, final in finals.items()}  # type: ignore[operator]

    def parents(self, seed: int) -> Finals:
        """Train a flat head on the leaves' parents."""
        tree, parent = parents_of(self.data.hierarchy)
        leaf = self.data.target.leaf
        above = torch.where(leaf < 0, -1, parent[leaf])
        data = replace(self.data, hierarchy=tree, target=Target(above[:, None], above))
        return self.fitted(resolve(TrainConfig, {**SHIPPED["flat"], "epochs": self.epochs, "seed": seed}), data)

    def ensemble(self, finals: Finals, parents: Finals, exponent: float) -> Finals:
        """HiE with an exponent of the coarse classifier."""
        parent = parents_of(self.data.hierarchy)[1]
        return {split: hie(final, parents[split], parent, exponent) for split, final in finals.items()}

    def of_neighbours(self) -> Iterator[tuple[str, Finals]]:
        """Nearest neighbours on the features as they are, and standardised."""
        features, leaf = self.cache.features, torch.from_numpy(self.data.leaf("train"))
        rows = {split: torch.cat(list(features.blocks(rows)))[:, 0] for split, rows in self.data.rows.items()}
        standardise = Standardise(features.dim)
        standardise.set(*statistics(features, self.data.rows["train"], standardise.transformed))
        for kind, change in (("as they are", nn.Identity()), ("standardised", standardise)):
            x = {split: change(block) for split, block in rows.items()}
            near = {split: neighbours(x[split], x["train"], max(KS)) for split in ("val", "test")}
            for k, temperature in product(KS, TEMPERATURES):
                finals = {}
                for split, (cosines, index) in near.items():
                    finals[split] = votes(cosines, leaf[index], len(self.data.hierarchy.leaves), k, temperature)
                yield f"{kind}, k={k}, T={temperature}", finals


def table(measured: Mapping[str, list[Metrics]]) -> Iterator[str]:
    """Means and sample standard deviations over the seeds, as a table in Markdown."""
    yield f"| method | {' | '.join(METRICS[key].column for key in COLUMNS)} |"
    yield f"|---|{'---|' * len(COLUMNS)}"
    for method, results in measured.items():
        yield f"| {method} | {' | '.join(_cell(key, [result[key] for result in results]) for key in COLUMNS)} |"


def _cell(key: str, values: list[float]) -> str:
    metric = METRICS[key]
    scaled = metric.scale * np.array(values)
    deviation = f" ± {scaled.std(ddof=1):.{metric.digits}f}" if len(values) > 1 else ""
    return f"{scaled.mean():.{metric.digits}f}{deviation}"
