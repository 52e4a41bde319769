"""Stage 2: train a head on cached features, pick its epoch on validation, test it once.

Dimensions: N rows, V views, D features, H levels, B batch, C^h nodes on level h, C leaves.
"""

import logging
import math
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hfc import metrics, provenance, runs
from hfc.config import METHODS, TrainConfig, plain, to_toml
from hfc.decoding import DECODINGS
from hfc.errors import ConfigError, RunError
from hfc.heads import HEADS, Head
from hfc.heads.layers import Prediction
from hfc.hierarchy import Hierarchy
from hfc.store import Predictions
from hfc.tasks import Cache, Task, prepare
from hfc.weightings import WEIGHTINGS, Sum, grouped

logger = logging.getLogger(__name__)

EVALUATION_ROWS = 4096


def run_key(cache: Cache, task: Task, config: TrainConfig) -> str:
    """Digest over everything a result depends on: features, labels, splits, hierarchy, settings and code."""
    regions = cache.table.regions
    settings = {key: value for key, value in plain(config).items() if key not in ("hierarchy", "device")}
    labels = provenance.digest([regions.id.tolist(), regions.label.tolist(), regions.split.tolist()])
    sources = [cache.meta["features_sha256"], labels, task.hierarchy.digest, provenance.code_digest()]
    return provenance.digest([sources, settings, task.hierarchy.name])


def run_name(config: TrainConfig, hierarchy: Hierarchy, key: str) -> str:
    """A run's folder name: readable, and unique by its key."""
    return f"{config.method}--{hierarchy.name}--seed{config.seed}--{key[:8]}"


def changed_settings(config: TrainConfig) -> dict[str, object]:
    """The settings in which a run differs from its method as it ships."""
    preset = {**{f.name: f.default for f in fields(TrainConfig)}, **METHODS[config.method]}
    mine = plain(config)
    skip = ("method", "hierarchy", "seed", "device", "precision")
    return {
        key: value
        for key, value in mine.items()
        if key not in skip and value != (list(d) if isinstance(d := preset[key], tuple) else d)
    }


def train(
    cache: Cache,
    config: TrainConfig,
    out: Path,
    *,
    overwrite: bool = False,
    report: Callable[[dict[str, Any]], None] = lambda line: None,
) -> tuple[runs.Run, bool]:
    """Train one run and write its folder, unless a run of the same key is there already.

    Args:
        cache: the features.
        config: the settings; those left to the machine are resolved here.
        out: holds the run folders.
        overwrite: train even if the run is there.
        report: called with every epoch's line.

    Returns:
        The run, and whether it was trained now.

    Raises:
        HfcError: the cache, hierarchy or settings do not fit each other, training diverged, or the disk refuses.
    """
    started = time.perf_counter()
    task = check(cache, config)
    key = run_key(cache, task, config)
    folder = out / run_name(config, task.hierarchy, key)
    if (folder / runs.RESULT).is_file() and not overwrite:
        return runs.read(folder), False
    with runs.writing(folder) as writer:
        writer.config(to_toml(config))

        def both(line: dict[str, Any]) -> None:
            writer.epoch(line)
            report(line)

        fitted = fit(cache, task, config, both)
        head = fitted.head
        trained = time.perf_counter()
        prediction = predict(head, cache, task, "test", config)
        leaf = task.target[task.rows["test"], -1].cpu().numpy()
        test = _evaluate(prediction, leaf, task.hierarchy, config)
        rows = task.rows["test"].cpu().numpy()
        levels = tuple(p.numpy() for p in prediction.levels)
        writer.predictions(Predictions(cache.table.regions.id[rows], leaf, levels, prediction.final.numpy()))
        state = {name: tensor.cpu().numpy() for name, tensor in head.state_dict().items()}
        writer.head(state, key)
        writer.result(
            {
                "run": folder.name,
                "key": key,
                "method": config.method,
                "seed": config.seed,
                "changed": changed_settings(config),
                "config": plain(config),
                "cache": cache.meta,
                "hierarchy": {
                    "name": task.hierarchy.name,
                    "digest": task.hierarchy.digest,
                    "levels": list(task.hierarchy.levels),
                    "sizes": list(task.hierarchy.sizes),
                },
                "rows": {split: len(found) for split, found in task.rows.items()} | {"unused": task.unused},
                "selected": fitted.best,
                "loss_weights": fitted.weighting.weights(),
                "test": test,
                "seconds": {
                    "train": round(trained - started, 3),
                    "total": round(time.perf_counter() - started, 3),
                },
                "machine": {
                    "device": str(cache.features.device),
                    "precision": _precision(config, cache.features.device),
                    "threads": torch.get_num_threads(),
                    "platform": platform.platform(),
                },
                "code": provenance.code(),
                "versions": provenance.versions(),
                "created": provenance.now(),
            }
        )
    return runs.read(folder), True


def check(cache: Cache, config: TrainConfig) -> Task:
    """The task of a run, if cache, hierarchy and settings fit each other.

    Raises:
        HfcError: they do not; the message says how.
    """
    task = prepare(cache, config.hierarchy)
    check_settings(config, task.hierarchy)
    return task


def check_settings(config: TrainConfig, hierarchy: Hierarchy) -> None:
    """Raise a ConfigError unless the settings fit the hierarchy and each other."""
    metrics.check_topk(config.topk, len(hierarchy.leaves))
    known = [f"top{k}" for k in config.topk] + ["top1_macro", "hF", "full_path_accuracy"]
    if config.select not in known:
        raise ConfigError(f"select: expected one of {', '.join(known)}, found {config.select!r}")
    if config.loss in ("hxe", "soft-labels") and config.head != "flat":
        raise ConfigError(f"loss {config.loss} is for the flat head; {config.head} takes bce or softmax")


@dataclass(frozen=True)
class Fitted:
    """A trained head, as it was after the epoch that did best on validation, or the last one without validation."""

    head: Head
    weighting: Sum
    best: dict[str, Any]
    """That epoch: its number, the metric that picked it, and every validation metric."""


def fit(
    cache: Cache, task: Task, config: TrainConfig, report: Callable[[dict[str, Any]], None] = lambda line: None
) -> Fitted:
    """Train on the training split and pick the epoch on validation (the first of equals); the test split is untouched.

    Args:
        cache: the features.
        task: what is to be predicted; see `check`. Where its validation split is empty, the last epoch is taken.
        config: the settings.
        report: called with every epoch's line.

    Raises:
        RunError: training diverged.
    """
    device = cache.features.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        head = build_head(config, task.hierarchy, cache.features.shape[2]).to(device)
        if config.standardise:
            head.standardise.set(*statistics(_used_views(cache.features, config), task.rows["train"]))
        weighting = build_weighting(config, head).to(device)
        optimiser = torch.optim.Adam(_parameter_groups(head, weighting, config), lr=config.learning_rate)
        order = torch.Generator().manual_seed(config.seed)
        leaf = task.target[task.rows["val"], -1].cpu().numpy()
        best: dict[str, Any] = {}
        state: dict[str, Tensor] = {}
        for epoch in range(1, config.epochs + 1):
            started = time.perf_counter()
            rate = learning_rate(config, epoch)
            for group in optimiser.param_groups:
                group["lr"] = rate
            losses = _epoch(cache, task, config, head, weighting, optimiser, order)
            if not math.isfinite(losses["total"]):
                raise RunError(
                    f"{config.method}, seed {config.seed}: the loss is {losses['total']} in epoch {epoch}; "
                    "try a smaller --set learning_rate or --set precision=fp32"
                )
            weighting.end_epoch(losses)
            val = (
                _evaluate(predict(head, cache, task, "val", config), leaf, task.hierarchy, config) if len(leaf) else {}
            )
            line = {
                "epoch": epoch,
                "learning_rate": rate,
                "loss": losses,
                "weights": weighting.weights(),
                "val": val,
                "seconds": round(time.perf_counter() - started, 4),
            }
            report(line)
            if not best or not val or val[config.select] > best["val"][config.select]:
                best = {"epoch": epoch, "metric": config.select, "val": val}
                modules = {"head": head, "weighting": weighting}
                state = {f"{m}.{k}": v.clone() for m, module in modules.items() for k, v in module.state_dict().items()}
    torch.nn.ModuleDict({"head": head, "weighting": weighting}).load_state_dict(state)
    return Fitted(head, weighting, best)


def build_head(config: TrainConfig, hierarchy: Hierarchy, dim: int) -> Head:
    """An untrained head for a hierarchy and a number of features."""
    kind = HEADS[config.head]
    settings: dict[str, Any] = {name: getattr(config, name) for name in kind.settings}
    return kind(dim, torch.from_numpy(hierarchy.ancestors), **settings)


def build_weighting(config: TrainConfig, head: Head) -> Sum:
    """The weighting of a head's tasks, before the first step."""
    kind = WEIGHTINGS[config.weighting]
    settings: dict[str, Any] = {name: getattr(config, name) for name in kind.settings}
    return kind(list(grouped(dict.fromkeys(head.tasks, torch.zeros(())), config.tasks)), **settings)


def learning_rate(config: TrainConfig, epoch: int) -> float:
    """The learning rate of an epoch, counted from 1: half a cosine from its highest towards 0, or constant."""
    if config.schedule == "constant":
        return config.learning_rate
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (epoch - 1) / config.epochs))


def statistics(features: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """(D,) mean and standard deviation over every view of some rows, in float64 and a block at a time."""
    total = torch.zeros(features.shape[2], dtype=torch.float64, device=features.device)
    squares = torch.zeros_like(total)
    count = len(rows) * features.shape[1]
    for block in rows.split(EVALUATION_ROWS):
        total += features[block].double().sum(dim=(0, 1))
    mean = total / count
    for block in rows.split(EVALUATION_ROWS):
        squares += (features[block].double() - mean).square().sum(dim=(0, 1))
    return mean.float(), (squares / count).sqrt().float()


def _used_views(features: Tensor, config: TrainConfig) -> Tensor:
    """(N, V, D), V = 1 if only the first view is wanted."""
    return features if config.views == "all" else features[:, :1]


def _drawn_views(features: Tensor, batch: Tensor, config: TrainConfig, order: torch.Generator) -> Tensor:
    """(B, D): one view of each row, drawn at random if there are several."""
    views = _used_views(features, config).shape[1]
    if views == 1:
        return features[batch, 0]
    return features[batch, torch.randint(views, (len(batch),), generator=order).to(batch.device)]


def _parameter_groups(head: Head, weighting: Sum, config: TrainConfig) -> list[dict[str, Any]]:
    """Weight decay, decoupled, is for weight matrices alone: not for biases, norms or learned loss weights."""
    matrices = [p for p in head.parameters() if p.ndim > 1]
    others = [p for p in head.parameters() if p.ndim <= 1] + list(weighting.parameters())
    return [
        {"params": matrices, "weight_decay": config.weight_decay, "decoupled_weight_decay": True},
        {"params": others, "weight_decay": 0.0},
    ]


def _epoch(
    cache: Cache,
    task: Task,
    config: TrainConfig,
    head: Head,
    weighting: Sum,
    optimiser: torch.optim.Optimizer,
    order: torch.Generator,
) -> dict[str, float]:
    """One pass over the training rows in random order; the mean unweighted losses and their weighted total."""
    head.train()
    rows = task.rows["train"]
    device = rows.device
    rows = rows[torch.randperm(len(rows), generator=order).to(device)]
    sums: dict[str, Tensor] = {}
    seen = 0
    for batch in rows.split(config.batch_size):
        if len(batch) < 2:  # batch normalisation needs two; the row has its turn in other epochs
            continue
        features = _drawn_views(cache.features, batch, config, order).float()
        with _autocast(config, device):
            logits = head(features)
        losses = grouped(head.losses(logits, task.target[batch]), config.tasks)
        weighting.balance(losses, head.shared)
        total = weighting(losses)
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        optimiser.step()
        for name, value in (losses | {"total": total}).items():
            sums[name] = sums.get(name, torch.zeros((), device=device)) + value.detach() * len(batch)
        seen += len(batch)
    return {name: float(value) / seen for name, value in sums.items()}


@torch.inference_mode()
def predict(head: Head, cache: Cache, task: Task, split: str, config: TrainConfig) -> Prediction:
    """Decoded probabilities of a split, on the CPU, in full precision so that batch size cannot matter to a rank.

    A head in float64 computes and answers in it.
    """
    head.eval()
    features, rows = cache.features, task.rows[split]
    views = _used_views(features, config).shape[1]
    parts = [
        _mean([head.predict(head(features[block, view].to(head.shared.dtype)), config.beta) for view in range(views)])
        for block in rows.split(EVALUATION_ROWS)
    ]
    levels = tuple(torch.cat(level).cpu() for level in zip(*(part.levels for part in parts), strict=True))
    whole = Prediction(levels, torch.cat([part.final for part in parts]).cpu())
    return DECODINGS[config.decode](whole, torch.from_numpy(task.hierarchy.ancestors))


def _mean(views: list[Prediction]) -> Prediction:
    """The mean of the probabilities of several views."""
    if len(views) == 1:
        return views[0]
    levels = zip(*(view.levels for view in views), strict=True)
    final = torch.stack([view.final for view in views]).mean(dim=0)
    return Prediction(tuple(torch.stack(level).mean(dim=0) for level in levels), final)


def _evaluate(
    prediction: Prediction, leaf: NDArray[np.int64], hierarchy: Hierarchy, config: TrainConfig
) -> dict[str, Any]:
    return metrics.evaluate(
        [level.numpy() for level in prediction.levels],
        prediction.final.numpy(),
        leaf,
        names=hierarchy.levels,
        ancestors=hierarchy.ancestors,
        topk=config.topk,
    )


def _precision(config: TrainConfig, device: torch.device) -> str:
    """fp32 or bf16; `auto` takes bfloat16 on a GPU that has it."""
    if config.precision != "auto":
        return config.precision
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


def _autocast(config: TrainConfig, device: torch.device) -> torch.autocast:
    enabled = _precision(config, device) == "bf16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)
