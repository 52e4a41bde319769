"""Train a head and pick its epoch on validation. Nothing here knows of run folders, and the test split is not touched.

Dimensions: N rows, V views, D features, H levels, B batch, K tasks, C leaves.
"""

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hfc import metrics
from hfc.config import TrainConfig
from hfc.device import choose_precision
from hfc.errors import ConfigError, DivergedError
from hfc.hierarchy import Hierarchy
from hfc.metrics import Metrics
from hfc.runs import Epoch, Selected
from hfc.train.data import Task
from hfc.train.evaluation import decoded, evaluate, predict, used_views
from hfc.train.features import Features, statistics
from hfc.train.heads import Head
from hfc.train.losses import class_weights
from hfc.train.settings import head_class, refuse_unused, takes, weighting_class
from hfc.train.weightings import Sum, grouped

Report = Callable[[Epoch], None]


@dataclass(frozen=True)
class Fitted:
    """A trained head, as it was after the epoch that did best on validation, or the last one without validation."""

    head: Head
    weighting: Sum
    best: Selected
    """That epoch."""
    seconds: float
    """Of all epochs."""


@dataclass(frozen=True)
class Checkpoint:
    """Where a training that may be killed keeps how far it got."""

    path: Path
    key: str
    """Of the run: a checkpoint of another one is not taken up."""
    seconds: float
    """Time between two checkpoints at least."""


def settle(config: TrainConfig, task: Task) -> TrainConfig:
    """The settings with those that are left to the machine and the data decided.

    Raises:
        ConfigError: settings that do not fit each other or the hierarchy.
    """
    leaves = len(task.hierarchy.leaves)
    if config.topk == TrainConfig.topk:  # nobody asked for more leaves than there are
        config = replace(config, topk=tuple(k for k in config.topk if k <= leaves))
    metrics.check_topk(config.topk, leaves)
    known = [f"top{k}" for k in config.topk] + ["top1_macro", "hF", "full_path_accuracy"]
    if config.select not in known:
        raise ConfigError(f"select: expected one of {', '.join(known)}, found {config.select!r}")
    refuse_unused(config)
    if config.batch_size == 1:
        raise ConfigError("batch_size: batch normalisation needs two rows at least, found 1")
    rows = len(task.rows["train"])
    batch_size = config.batch_size or fitting_batch_size(rows)
    return replace(
        config,
        batch_size=batch_size,
        learning_rate=config.learning_rate or fitting_learning_rate(math.ceil(rows / batch_size) * config.epochs),
        precision=choose_precision(config.precision, task.target.device, ("bf16",)),
    )


def fitting_batch_size(rows: int) -> int:
    """The power of two that makes some 24 steps of an epoch, within 64 and 1024."""
    return int(2 ** min(max(round(math.log2(max(rows, 1) / 24)), 6), 10))


def fitting_learning_rate(steps: int) -> float:
    """A peak that takes a softmax head about as far in however few steps: 0.16 over them, within 0.0003 and 0.003.

    Best by five-fold cross-validation with 100, 240, 800 and 2,588 photographs to train on: 0.003, 0.001 to 0.003,
    0.0003 and 0.0003.
    """
    return min(max(0.16 / steps, 3e-4), 3e-3)


def fit(
    features: Features,
    task: Task,
    config: TrainConfig,
    report: Report = lambda line: None,
    checkpoint: Checkpoint | None = None,
) -> Fitted:
    """Train on the training split and pick the epoch on validation (the first of equals); the test split is untouched.

    Args:
        features: of every row.
        task: what is to be predicted; where its validation split is empty, the last epoch is taken.
        config: the settings; see `settle`.
        report: called with every epoch's line.
        checkpoint: where to keep how far it got; what is there of the same run is taken up, and ends in the same bits.

    Raises:
        ConfigError: the settings do not fit each other.
        DivergedError: the loss became infinite or NaN.
    """
    config = settle(config, task)
    device = features.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        training = _started(features, task, config, checkpoint)
        for line in training.lines:
            report(line)
        leaf = task.target[task.rows["val"], -1].cpu().numpy()
        saved = time.perf_counter()
        for epoch in range(len(training.lines) + 1, config.epochs + 1):
            try:
                line = training.epoch(epoch, leaf)
            except DivergedError:
                if checkpoint:  # it would diverge again
                    checkpoint.path.unlink(missing_ok=True)
                raise
            report(line)
            if checkpoint and time.perf_counter() - saved >= checkpoint.seconds:
                training.save(checkpoint)
                saved = time.perf_counter()
    return training.finish()


def _started(features: Features, task: Task, config: TrainConfig, checkpoint: Checkpoint | None) -> "Training":
    """A training from where its checkpoint left it; from its start where there is none that is whole and its own."""
    torch.manual_seed(config.seed)
    training = Training.start(features, task, config)
    if not checkpoint or not checkpoint.path.exists():
        return training
    try:
        state = torch.load(checkpoint.path, map_location=features.device, weights_only=True)
        if state["key"] == checkpoint.key:
            training.restore(state)
        return training
    except Exception:  # whatever is wrong with it, the training begins anew: nothing half restored may stay
        torch.manual_seed(config.seed)
        return Training.start(features, task, config)


@dataclass
class Training:
    """A training between two epochs."""

    features: Features
    task: Task
    config: TrainConfig
    head: Head
    weighting: Sum
    optimiser: torch.optim.Optimizer
    average: AveragedModel | None
    """The running average of the head's weights, where that is evaluated."""
    order: torch.Generator
    class_weight: Tensor | None
    """(C,)."""
    lines: list[Epoch] = field(default_factory=list)
    best: Selected | None = None
    best_state: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    @classmethod
    def start(cls, features: Features, task: Task, config: TrainConfig) -> "Training":
        """A head before its first step; torch's generator, seeded, decides how it starts."""
        features = used_views(features, config)
        device = features.device
        head = build_head(config, task.hierarchy, features.dim).to(device)
        if config.standardise:
            head.standardise.set(*statistics(features, task.rows["train"]))
        weighting = build_weighting(config, head).to(device)
        optimiser = torch.optim.Adam(
            _parameter_groups(head, weighting, config), lr=config.learning_rate, fused=device.type in ("cpu", "cuda")
        )
        average = None
        if config.averaging:
            average = AveragedModel(head, multi_avg_fn=get_ema_multi_avg_fn(config.averaging), use_buffers=True)
        weight = None
        if config.class_balance:
            leaves = task.target[task.rows["train"], -1]
            weight = class_weights(leaves.bincount(minlength=len(task.hierarchy.leaves)), config.class_balance)
        order = torch.Generator().manual_seed(config.seed)
        return cls(features, task, config, head, weighting, optimiser, average, order, weight)

    @property
    def evaluated(self) -> Head:
        """The head whose validation counts."""
        return cast(Head, self.average.module) if self.average else self.head

    def epoch(self, number: int, leaf: NDArray[np.int64]) -> Epoch:
        """Train and validate once. Returns the epoch's line."""
        started = time.perf_counter()
        rate = learning_rate(self.config, number)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        losses = self._pass()
        return self.validate(number, losses, leaf, started, time.perf_counter() - started)

    def validate(
        self, number: int, losses: dict[str, float], leaf: NDArray[np.int64], started: float, trained: float
    ) -> Epoch:
        """End an epoch: look at validation, and keep the head if it is the best so far.

        Args:
            number: of the epoch, counted from 1.
            losses: their means in it.
            leaf: (n,) true leaves of the validation rows.
            started: when it began, by time.perf_counter().
            trained: seconds of its training alone.

        Returns:
            The epoch's line.

        Raises:
            DivergedError: a loss is not finite.
        """
        config = self.config
        if not math.isfinite(losses["total"]):
            raise DivergedError(
                f"{config.method}, seed {config.seed}: the loss is {losses['total']} in epoch {number}; "
                "try a smaller --set learning_rate or --set precision=fp32",
                config,
            )
        self.weighting.end_epoch(losses)
        val: Metrics = {}
        if len(leaf):
            found = predict(self.evaluated, self.features, self.task.rows["val"], config.beta)
            val = evaluate(decoded(found, self.task.hierarchy, config), leaf, self.task.hierarchy, config)
        line = Epoch(
            number=number,
            learning_rate=learning_rate(config, number),
            loss=losses,
            weights=self.weighting.weights(),
            val=val,
            seconds=round(time.perf_counter() - started, 4),
            train_seconds=round(trained, 4),
        )
        self.lines.append(line)
        if not self.best or not val or val[config.select] > self.best.val[config.select]:
            self.best = Selected(epoch=number, metric=config.select, val=val)
            modules = {"head": self.evaluated, "weighting": self.weighting}
            self.best_state = {
                name: {key: value.clone() for key, value in module.state_dict().items()}
                for name, module in modules.items()
            }
        return line

    def _pass(self) -> dict[str, float]:
        """One pass over the training rows in random order; the mean unweighted losses and their weighted total."""
        config, device = self.config, self.features.device
        self.head.train()
        sums = torch.zeros((), device=device)
        seen = 0
        for rows, features in self.features.batches(self.task.rows["train"], config.batch_size, self.order):
            if len(rows) < 2:  # batch normalisation needs two; the row has its turn in other epochs
                continue
            weight = None if self.task.weight is None else self.task.weight[rows]
            losses = self._losses(features, self.task.target[rows], weight)
            total = self.weighting(losses)
            self.weighting.balance(losses, self.head.shared)
            self.optimiser.zero_grad(set_to_none=True)
            total.backward()
            self.optimiser.step()
            if self.average:
                self.average.update_parameters(self.head)
            sums = sums + torch.stack([*losses.values(), total]).detach() * len(rows)
            seen += len(rows)
        return dict(zip([*losses, "total"], (sums / seen).tolist(), strict=True))

    def _losses(self, features: Tensor, target: Tensor, weight: Tensor | None = None) -> dict[str, Tensor]:
        """The loss of each task, not weighed against the others, a mean over the batch.

        Args:
            features: (B, D) as stored.
            target: (B, H).
            weight: (B,) of each row.
        """
        config, device = self.config, features.device
        share, partner = 1.0, None
        if config.mixup:
            share = float(np.float64(torch.distributions.Beta(config.mixup, config.mixup).sample()))
            partner = torch.randperm(len(features)).to(device)
            features = torch.lerp(features[partner].float(), features.float(), share)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.precision == "bf16"):
            logits = self.head(features)
        losses = task_means(self.head, logits, target, self.class_weight, weight)
        if partner is not None:
            mixed_in = None if weight is None else weight[partner]
            others = task_means(self.head, logits, target[partner], self.class_weight, mixed_in)
            losses = {task: share * loss + (1 - share) * others[task] for task, loss in losses.items()}
        return grouped(losses, config.tasks)

    def finish(self) -> Fitted:
        """The head and the weighting of the best epoch."""
        head, weighting = self.evaluated, self.weighting
        head.load_state_dict(self.best_state["head"])
        weighting.load_state_dict(self.best_state["weighting"])
        assert self.best
        return Fitted(head, weighting, self.best, sum(line.seconds for line in self.lines))

    def save(self, checkpoint: Checkpoint) -> None:
        """Write everything that the next epoch depends on, atomically."""
        state = {
            "key": checkpoint.key,
            "lines": [line.plain() for line in self.lines],
            "best": self.best.plain() if self.best else None,
            "best_state": self.best_state,
            "modules": {name: module.state_dict() for name, module in self._stateful().items()},
            "order": self.order.get_state(),
            "random": torch.get_rng_state(),  # seeds every draw, a GPU's too
        }
        partial = checkpoint.path.with_name(f"{checkpoint.path.name}.{os.getpid()}.part")
        try:
            torch.save(state, partial)
            partial.replace(checkpoint.path)
        finally:
            partial.unlink(missing_ok=True)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to what `save` wrote."""
        for name, module in self._stateful().items():
            module.load_state_dict(state["modules"][name])
        self.lines = [Epoch.read(line, "checkpoint") for line in state["lines"]]
        self.best = Selected.read(state["best"], "checkpoint") if state["best"] else None
        self.best_state = state["best_state"]
        self.order.set_state(state["order"].cpu())
        torch.set_rng_state(state["random"].cpu())

    def _stateful(self) -> dict[str, Any]:
        found = {"head": self.head, "weighting": self.weighting, "optimiser": self.optimiser}
        return found | ({"average": self.average} if self.average else {})


def task_means(
    head: Head, logits: Any, target: Tensor, class_weight: Tensor | None, row_weight: Tensor | None = None
) -> dict[str, Tensor]:
    """The loss of each task of a head, a mean over the batch, its classes and rows weighted if they are to be.

    Args:
        head: the head.
        logits: what it gave.
        target: (B, H).
        class_weight: (C,) of each leaf.
        row_weight: (B,) of each row.
    """
    rows = head.losses(logits, target)
    if class_weight is not None:
        rows = {task: class_weight[target[:, -1]] * loss for task, loss in rows.items()}
    if row_weight is not None:
        rows = {task: row_weight * loss for task, loss in rows.items()}
    return {task: loss.mean() for task, loss in rows.items()}


def build_head(config: TrainConfig, hierarchy: Hierarchy, dim: int) -> Head:
    """An untrained head for a hierarchy and a number of features."""
    kind = head_class(config)
    settings: dict[str, Any] = {name: getattr(config, name) for name in takes(kind)}
    return kind(dim, torch.from_numpy(hierarchy.ancestors), **settings)


def build_weighting(config: TrainConfig, head: Head) -> Sum:
    """The weighting of a head's tasks, before the first step."""
    kind = weighting_class(config)
    settings: dict[str, Any] = {name: getattr(config, name) for name in takes(kind)}
    return kind(list(grouped(dict.fromkeys(head.tasks, torch.zeros(())), config.tasks)), **settings)


def learning_rate(config: TrainConfig, epoch: int) -> float:
    """The learning rate of an epoch, counted from 1: half a cosine from its highest towards 0, or constant."""
    if config.schedule == "constant":
        return config.learning_rate
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (epoch - 1) / config.epochs))


def _parameter_groups(head: Head, weighting: Sum, config: TrainConfig) -> list[dict[str, Any]]:
    """Weight decay, decoupled, is for weight matrices alone: not for biases, norms or learned loss weights."""
    matrices = [p for p in head.parameters() if p.ndim > 1]
    others = [p for p in head.parameters() if p.ndim <= 1] + list(weighting.parameters())
    return [
        {"params": matrices, "weight_decay": config.weight_decay, "decoupled_weight_decay": True},
        {"params": others, "weight_decay": 0.0},
    ]
