"""A training between two epochs: head, weighting, optimiser, and the epochs so far.

Dimensions: N rows, V views, D features, H levels, B batch, K tasks, C leaves.
"""

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from hfc.config import TrainConfig
from hfc.errors import DivergedError
from hfc.metrics import Metrics, metric
from hfc.runs import Epoch, Selected
from hfc.train.adam import Adam, learning_rate
from hfc.train.data import TrainingData
from hfc.train.evaluation import brief, decoded, evaluate, predict, used_views
from hfc.train.features import Features, Resident, statistics
from hfc.train.heads import Head
from hfc.train.heads.layers import Target, standardised
from hfc.train.heads.masks import dropouts_of, hand_out
from hfc.train.losses import class_weights
from hfc.train.settings import build_head, build_weighting
from hfc.train.slices import row_losses, task_means
from hfc.train.weightings import Sum, grouped

READY = 1 << 24  # numbers of features, of which a second copy may be in memory: 32 MB in bfloat16


@dataclass(frozen=True)
class Fitted:
    """A trained head, as it was after the epoch that did best on validation.

    Without validation rows it is the last epoch.
    """

    head: Head
    weighting: Sum
    best: Selected
    """That epoch."""
    epochs: tuple[Epoch, ...]
    validated: Head
    """It has seen no validation row: `head` itself, unless that was trained once more on all rows."""
    refit_seconds: float = 0.0
    """How long it took to train once more on training and validation rows; 0 where it was not."""

    @property
    def seconds(self) -> float:
        """How long all of it took."""
        return sum(epoch.seconds for epoch in self.epochs) + self.refit_seconds


class Pass(NamedTuple):
    """One pass over the training rows."""

    losses: dict[str, float]
    """The mean unweighted loss of each task, and their weighted sum as `total`."""
    seconds: float


@dataclass
class Training:
    """A training between two epochs."""

    remedy: ClassVar[str] = "try a smaller --set learning_rate or --set precision=fp32"
    """What to do where the loss explodes."""

    features: Features
    data: TrainingData
    config: TrainConfig
    head: Head
    weighting: Sum
    order: torch.Generator
    class_weight: Tensor | None = None
    """(C,)."""
    epochs: list[Epoch] = field(default_factory=list)
    """Those that are done."""
    best: Selected | None = None
    best_state: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    @classmethod
    def start(cls, features: Features, data: TrainingData, config: TrainConfig) -> Self:
        """A head before its first step; torch's generator, seeded, decides how it starts."""
        features, device = used_views(features, config), features.device
        data = data.to(device)
        head = build_head(config, data.hierarchy, features.dim).to(device)
        weighting = build_weighting(config, head).to(device)
        training = cls(features, data, config, head, weighting, torch.Generator().manual_seed(config.seed))
        training._fit_to(data.rows["train"])
        return training

    def _fit_to(self, rows: Tensor) -> None:
        """Take what standardises features and weighs classes from the rows that are trained on."""
        config, data = self.config, self.data
        if config.standardise:
            self.head.standardise.set(*statistics(self.features, rows, self.head.standardise.transformed))
        if config.class_balance:
            leaves = data.target.leaf[rows]
            counts = leaves[leaves >= 0].bincount(minlength=len(data.hierarchy.leaves))
            self.class_weight = class_weights(counts, config.class_balance)

    @cached_property
    def parameters(self) -> list[nn.Parameter]:
        """What is learned."""
        return [*self.head.parameters(), *self.weighting.parameters()]

    @cached_property
    def optimiser(self) -> Adam:
        """It moves them."""
        return Adam(self.parameters)

    @property
    def number(self) -> int:
        """Of the epoch that comes next, counted from 1."""
        return len(self.epochs) + 1

    def epoch(self) -> Epoch:
        """Train and validate once."""
        return self.validate(self._pass())

    def validate(self, trained: Pass) -> Epoch:
        """End an epoch: measure validation, and keep the head if it is the best.

        Raises:
            DivergedError: a loss is not finite.
        """
        started = time.perf_counter()
        config, losses = self.config, trained.losses
        if not math.isfinite(losses["total"]):
            raise DivergedError(
                f"{config.method}, seed {config.seed}: the loss is {losses['total']} in epoch {self.number}; "
                f"{self.remedy}",
                config,
            )
        self.weighting.end_epoch(losses)
        val = self._metrics()
        epoch = Epoch(
            number=self.number,
            learning_rate=self._rate(),
            l2=self._strength(),
            inner_l2=self._inner(),
            loss=losses,
            weights=self.weighting.weights(),
            val=val,
            seconds=round(trained.seconds + time.perf_counter() - started, 4),
            train_seconds=round(trained.seconds, 4),
        )
        self.epochs.append(epoch)
        if self._is_better(epoch):
            self.best = Selected(epoch=epoch.number, metric=config.select, val=val)
            modules: dict[str, Any] = {"head": self.head, "weighting": self.weighting}
            self.best_state = {
                name: {key: value.clone() for key, value in module.state_dict().items()}
                for name, module in modules.items()
            }
        return epoch

    def _rate(self) -> float | None:
        """The learning rate of this epoch, where it has one."""
        return learning_rate(self.config, self.number)

    def _strength(self) -> float | None:
        """The L2 strength of this epoch, where it has one."""
        return None

    def _inner(self) -> int | None:
        """What that is multiplied by on inner nodes, where they have scores."""
        return None

    def _is_better(self, epoch: Epoch) -> bool:
        """Whether an epoch is the best so far; without validation rows the last one is."""
        if not self.best or not epoch.val:
            return True
        name = self.config.select
        now, before = epoch.val[name], self.best.val[name]
        return now > before if metric(name).higher else now < before

    def _metrics(self, measure: Callable[..., Metrics] = brief) -> Metrics:
        """Metrics of the validation split; none where it is empty."""
        if not len(self.data.rows["val"]):
            return {}
        prediction = predict(self.head, self.features, self.data.rows["val"], self.config.beta)
        return measure(decoded(prediction, self.data.hierarchy, self.config), self.data, "val", self.config)

    def _pass(self) -> Pass:
        """One pass over the training rows in random order."""
        started = time.perf_counter()
        config, device, rate = self.config, self.features.device, learning_rate(self.config, self.number)
        self.head.train()
        sums, seen = torch.zeros((), device=device), 0
        ready, dropouts = self._standardised, dropouts_of(self.head)  # type: ignore[arg-type]
        with standardised(self.head) if ready else contextlib.nullcontext():
            for rows, features in (ready or self.features).batches(
                self.data.rows["train"], config.batch_size, self.order
            ):
                if len(rows) < 2:  # batch normalisation needs two; the row has its turn in other epochs
                    continue
                hand_out(dropouts, len(rows), device)
                losses, total = self._step(rows, features, rate)
                sums = sums + torch.stack([*losses.values(), total]).detach() * len(rows)
                seen += len(rows)
        means = dict(zip([*losses, "total"], (sums / seen).tolist(), strict=True))
        return Pass(means, time.perf_counter() - started)

    def _step(self, rows: Tensor, features: Tensor, rate: float) -> tuple[dict[str, Tensor], Tensor]:
        """Take a step on the features, (B, D), of some rows; returns the losses before it, and their weighted sum."""
        weight = None if self.data.weight is None else self.data.weight[rows]
        losses = self._losses(features, self.data.batch(rows), weight)
        total = self.weighting(losses)
        self.weighting.balance(losses, self.head.shared)
        for parameter in self.parameters:
            parameter.grad = None
        total.backward()
        self.optimiser.step(rate)
        return losses, total

    @cached_property
    def _standardised(self) -> Resident | None:
        """The features as the head's first layer makes them, once for all epochs; None where they are many."""
        features = self.features
        if not isinstance(features, Resident) or features.tensor.numel() > READY:
            return None
        with self._autocast():
            return features.changed(self.head.standardise)

    def _autocast(self) -> torch.autocast:
        """The precision of the matrix products inside a block."""
        enabled = self.config.precision == "bf16"
        return torch.autocast(self.features.device.type, dtype=torch.bfloat16, enabled=enabled)

    def _losses(self, features: Tensor, target: Target, weight: Tensor | None = None) -> dict[str, Tensor]:
        """The loss of each task, not weighed against the others, a mean over the batch.

        Args:
            features: (B, D) as stored.
            target: the labels.
            weight: (B,) of each row.
        """
        with self._autocast():
            logits = self.head(features)
        rows = row_losses(self.head, logits, target)
        return grouped(task_means(rows, target, self.class_weight, weight), self.config.tasks)

    def finish(self) -> Fitted:
        """The head and the weighting of the best epoch, of which every metric is measured."""
        started = time.perf_counter()
        self.head.load_state_dict(self.best_state["head"])
        self.weighting.load_state_dict(self.best_state["weighting"])
        assert self.best
        place, val = self.best.epoch - 1, self._metrics(evaluate)
        kept, self.best = self.epochs[place], replace(self.best, val=val)
        self.epochs[place] = replace(kept, val=val, seconds=round(kept.seconds + time.perf_counter() - started, 4))
        return Fitted(self.head, self.weighting, self.best, tuple(self.epochs), self.head)

    def state(self) -> dict[str, Any]:
        """Everything that the next epoch depends on."""
        return {
            "epochs": [epoch.plain() for epoch in self.epochs],
            "best": self.best.plain() if self.best else None,
            "best_state": self.best_state,
            "modules": {name: module.state_dict() for name, module in self._stateful().items()},
            "order": self.order.get_state(),
            "random": torch.get_rng_state(),  # seeds every draw, a GPU's too
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to what `state` gave."""
        for name, module in self._stateful().items():
            module.load_state_dict(state["modules"][name])
        self.epochs = [Epoch.read(epoch, "checkpoint") for epoch in state["epochs"]]
        self.best = Selected.read(state["best"], "checkpoint") if state["best"] else None
        self.best_state = state["best_state"]
        self.order.set_state(state["order"].cpu())
        torch.set_rng_state(state["random"].cpu())

    def _stateful(self) -> dict[str, Any]:
        return {"head": self.head, "weighting": self.weighting, "optimiser": self.optimiser}
