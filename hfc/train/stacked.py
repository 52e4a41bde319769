"""Runs of one shape as one batched model: their weights stacked, a step of all of them at once.

Worth having where a step of one head is too short to keep the device busy. Each run draws what it would draw alone: its
first weights, the order of its rows, its dropout.

Dimensions: S runs, B batch, V views, D features, H levels, K tasks, P parameters of a run.
"""

import copy
import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from hfc.config import TrainConfig, plain
from hfc.errors import ConfigError
from hfc.runs import Epoch
from hfc.train.data import Task
from hfc.train.features import Features, Resident
from hfc.train.fit import Checkpoint, Fitted, Training, fit, learning_rate, task_means
from hfc.train.heads.layers import Block, Dropout, own_seed
from hfc.train.settings import weighting_class
from hfc.train.weightings import grouped

FREE = ("seed", "learning_rate", "weight_decay")  # what runs of one shape may differ in
MOST = 16  # runs in one model: beyond that only memory grows
BETAS, EPSILON = (0.9, 0.999), 1e-8  # Adam's (Kingma & Ba 2015), as torch.optim.Adam has them

Tensors = dict[str, Tensor]


def groups(configs: Sequence[TrainConfig]) -> list[list[int]]:
    """Places of the settings that are trained together, in the order of their first."""
    found: list[list[int]] = []
    open_at: dict[str, int] = {}
    for i, config in enumerate(configs):
        shape = str({key: value for key, value in plain(config).items() if key not in FREE})
        at = open_at.get(shape)
        if config.step != "single" and at is not None and len(found[at]) < MOST:
            found[at].append(i)
        else:
            open_at[shape] = len(found)
            found.append([i])
    return found


def fit_all(
    features: Features,
    task: Task,
    configs: Sequence[TrainConfig],
    report: Callable[[int, Epoch], None] = lambda number, line: None,
    checkpoints: Sequence[Checkpoint] = (),
) -> list[Fitted]:
    """Train one of `groups`: alone by `hfc.train.fit.fit`, or as one model.

    Args:
        features, task: as for `fit`.
        configs: the settled settings.
        report: called with a run's number and an epoch's line.
        checkpoints: of each run; trained as one model they keep none.

    Raises:
        ConfigError, RunError: as `fit`.
    """
    if configs and configs[0].step != "single":
        return fit_stacked(features, task, configs, report)
    kept: Sequence[Checkpoint | None] = checkpoints or [None] * len(configs)
    return [
        fit(features, task, config, functools.partial(report, number), checkpoint)
        for number, (config, checkpoint) in enumerate(zip(configs, kept, strict=True))
    ]


def fit_stacked(
    features: Features,
    task: Task,
    configs: Sequence[TrainConfig],
    report: Callable[[int, Epoch], None] = lambda number, line: None,
) -> list[Fitted]:
    """Train several runs as one batched model; otherwise as `hfc.train.fit.fit`, without checkpoints.

    In float32 a run differs from the same run alone by what sums in another order round; in bfloat16 also by
    normalising in float32.

    Args:
        features: of every row, resident.
        task: what is to be predicted.
        configs: the settled settings of runs that differ in FREE alone.
        report: called with a run's number and an epoch's line.

    Raises:
        ConfigError: settings that cannot be trained so.
        RunError: a training diverged.
    """
    config = configs[0]
    _check(features, config)
    devices = [features.device] if features.device.type == "cuda" else []
    trainings, generators = [], []
    for each in configs:
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(each.seed)
            trainings.append(Training.start(features, task, each))
            generators.append(torch.Generator())
            generators[-1].set_state(torch.get_rng_state())  # from where the run alone would draw its dropout
    stack = _Stack(trainings, generators)
    leaf = task.target[task.rows["val"], -1].cpu().numpy()
    for epoch in range(1, config.epochs + 1):
        started = time.perf_counter()
        losses = stack.train([learning_rate(each, epoch) for each in configs])
        trained = time.perf_counter() - started
        for number, (training, means) in enumerate(zip(trainings, losses, strict=True)):
            report(number, training.validate(epoch, means, leaf, started, trained))
    return [training.finish() for training in trainings]


def _check(features: Features, config: TrainConfig) -> None:
    problem = ""
    if not isinstance(features, Resident):
        problem = "streamed features"
    elif not weighting_class(config).pure:
        problem = f"weighting={config.weighting}"
    else:
        problem = next((f"{name}={value:g}" for name in ("mixup", "averaging") if (value := getattr(config, name))), "")
    if problem:
        raise ConfigError(f"step={config.step}: not with {problem}; --set step=single trains one run after the other")


class _Both(nn.Module):
    """A head and its weighting: rows to the weighted total and the unweighted losses."""

    def __init__(self, training: Training) -> None:
        super().__init__()
        self.head, self.weighting = training.head, training.weighting
        self.tasks, self.precision = training.config.tasks, training.config.precision
        self.class_weight = training.class_weight

    def forward(self, features: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D) standardised features and (B, H) target to the total and, stacked with it, (K + 1,) the losses."""
        with torch.autocast(features.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            logits = self.head(features)
        losses = grouped(task_means(self.head, logits, target, self.class_weight), self.tasks)
        total: Tensor = self.weighting(losses)
        return total, torch.stack([*losses.values(), total])


class _GivenDropout(nn.Module):
    """Dropout by a mask that comes from outside."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones(()))

    def forward(self, inputs: Tensor) -> Tensor:
        """Times the mask, which holds 0 and the scale of what is kept."""
        return inputs * self.mask.to(inputs.dtype)


class _Stack:
    """The runs as one model, and its optimiser."""

    def __init__(self, trainings: Sequence[Training], generators: Sequence[torch.Generator]) -> None:
        self.trainings, self.generators = trainings, generators
        self.config = trainings[0].config
        runs = [_Both(training).train() for training in trainings]
        parameters, self.buffers = stack_module_state(runs)
        self.buffers = {name: each for name, each in self.buffers.items() if ".standardise." not in name}
        self.template = copy.deepcopy(runs[0])
        self.dropouts = _open_up(self.template, trainings[0].features.dim)
        # One (S, P) tensor holds all parameters, so that the optimiser's steps are a few large operations.
        self.flat = torch.cat([each.detach().flatten(1) for each in parameters.values()], dim=1)
        sizes = [each[0].numel() for each in parameters.values()]
        self.parameters: Tensors = {
            name: part.unflatten(1, each.shape[1:]) if each.ndim > 1 else part.squeeze(1)
            for (name, each), part in zip(parameters.items(), self.flat.split(sizes, dim=1), strict=True)
        }
        # Weight decay is for weight matrices alone, as in hfc.train.fit.
        decayed = [float(each.ndim > 2 and name.startswith("head.")) for name, each in parameters.items()]
        self.decayed = torch.tensor(decayed).repeat_interleave(torch.tensor(sizes)).to(self.flat.device)
        self.mean, self.square, self.steps = torch.zeros_like(self.flat), torch.zeros_like(self.flat), 0
        self.gradients = vmap(grad_and_value(self._loss, has_aux=True))
        if self.config.step == "compiled":
            mode = "reduce-overhead" if self.flat.device.type == "cuda" else "default"
            self.gradients = torch.compile(self.gradients, mode=mode, dynamic=False)

    def _loss(self, parameters: Tensors, buffers: Tensors, features: Tensor, target: Tensor) -> Any:
        return functional_call(self.template, (parameters, buffers), (features, target))

    def train(self, rates: Sequence[float]) -> list[dict[str, float]]:
        """One pass over the training rows; of each run the mean unweighted losses and their weighted total."""
        device = self.flat.device
        rate = torch.tensor(rates, device=device)[:, None]
        decay = torch.tensor([each.config.weight_decay for each in self.trainings], device=device)[:, None]
        decays = any(each.config.weight_decay for each in self.trainings)
        sums, seen = torch.zeros((), device=device), 0
        for features, target in self._batches():
            buffers = self.buffers | self._masks(features.shape[1])
            found, (_, losses) = self.gradients(self.parameters, buffers, features, target)
            gradient = torch.cat([found[name].flatten(1) for name in self.parameters], dim=1)
            self._step(gradient, rate, decay if decays else None)
            sums = sums + losses.detach() * features.shape[1]
            seen += features.shape[1]
        self._hand_back()
        names = [*self.trainings[0].weighting.tasks, "total"]
        return [dict(zip(names, row, strict=True)) for row in (sums / seen).tolist()]

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(S, B, D) standardised features and (S, B, H) targets: of each run the batches it would see alone."""
        task = self.trainings[0].task
        standardise = self.trainings[0].head.standardise  # of the training split, so the same in every run
        size, train = self.config.batch_size, task.rows["train"]
        for batches in zip(*(each.features.batches(train, size, each.order) for each in self.trainings), strict=True):
            rows = torch.stack([rows for rows, _ in batches])
            if rows.shape[1] < 2:
                continue
            features = torch.stack([features for _, features in batches])
            with torch.autocast(rows.device.type, dtype=torch.bfloat16, enabled=self.config.precision == "bf16"):
                flat = standardise(features.flatten(0, 1))
            yield flat.unflatten(0, features.shape[:2]), task.target[rows]

    def _masks(self, batch: int) -> Tensors:
        """A mask (S, B, width) for every dropout: what each run would draw alone, in the order it would."""
        device = self.flat.device
        drawn: dict[str, list[Tensor]] = {name: [] for name in self.dropouts}
        for generator in self.generators:
            for name, (dropout, width) in self.dropouts.items():
                kept = dropout.draw((batch, width), device, own_seed(generator))
                drawn[name].append(kept.to(torch.float32) * -dropout.scale)
        return {name: torch.stack(masks) for name, masks in drawn.items()}

    @torch.no_grad()
    def _step(self, gradient: Tensor, rate: Tensor, decay: Tensor | None) -> None:
        """One step of Adam in every run, each at its own rate, with decoupled weight decay."""
        self.steps += 1
        first, second = BETAS
        self.mean.lerp_(gradient, 1 - first)
        self.square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        if decay is not None:
            self.flat.mul_(1 - rate * decay * self.decayed)
        scale = self.square.sqrt().div_(math.sqrt(1 - second**self.steps)).add_(EPSILON)
        self.flat.sub_(rate / (1 - first**self.steps) * self.mean / scale)

    @torch.no_grad()
    def _hand_back(self) -> None:
        """Give every run's head and weighting its part of the stack."""
        for s, training in enumerate(self.trainings):
            own = _Both(training)
            for target, source in ((own.named_parameters(), self.parameters), (own.named_buffers(), self.buffers)):
                for name, tensor in target:
                    if name in source:
                        tensor.copy_(source[name][s])


def _open_up(template: _Both, dim: int) -> dict[str, tuple[Dropout, int]]:
    """Make a head fit for vmap.

    It takes standardised features, its dropout takes masks, and it normalises in float32: vmap's rule for batch
    normalisation wants inputs and statistics of one type.

    Returns:
        The name of each mask with the dropout it is for and its width, in the order in which a forward pass comes by.
    """
    head = template.head
    order: list[Dropout] = []
    hooks = [
        module.register_forward_hook(lambda module, inputs, output: order.append(module))
        for module in head.modules()
        if isinstance(module, Dropout)
    ]
    with torch.no_grad():
        head.eval()
        head(torch.zeros(2, dim, device=head.shared.device))
        head.train()
    for hook in hooks:
        hook.remove()
    head.standardise = nn.Identity()  # type: ignore[assignment]
    found: dict[Dropout, tuple[str, int]] = {}
    for name, block in head.named_modules():
        if isinstance(block, Block):
            found[block.dropout] = f"head.{name}.dropout.mask", block.linear.out_features
            block.dropout = _GivenDropout()  # type: ignore[assignment]
            block.norm.register_forward_pre_hook(lambda module, inputs: (inputs[0].float(),))
    return {found[dropout][0]: (dropout, found[dropout][1]) for dropout in order}
