"""Train runs of one shape as one batched model: their weights are stacked, and step at once.

Worth having where a step of one head is too short to keep the device busy. Each run draws what it would draw alone: its
first weights, the order of its rows, its dropout.

Dimensions: S runs, B batch, V views, D features, H levels, K tasks, P parameters of a run.
"""

import copy
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from hfc.config import TrainConfig
from hfc.device import reproducible
from hfc.errors import ConfigError
from hfc.train.adam import BETAS, EPSILON, learning_rate
from hfc.train.data import TrainingData
from hfc.train.features import Features, Resident
from hfc.train.fit import OnEpoch, quiet
from hfc.train.heads import masks
from hfc.train.heads.layers import Block, Dropout, Target, own_seed
from hfc.train.settings import head_class, weighting_class
from hfc.train.slices import task_means
from hfc.train.training import Fitted, Pass, Training
from hfc.train.weightings import grouped

FREE = ("seed", "learning_rate")  # what runs of one shape may differ in

Tensors = dict[str, Tensor]


def fit_stacked(
    features: Features, data: TrainingData, configs: Sequence[TrainConfig], on_epoch: OnEpoch = quiet
) -> list[Fitted]:
    """Train several runs as one batched model; otherwise as `hfc.train.fit.fit`, without checkpoints.

    In float32 a run differs from the same run alone by what sums in another order round; in bfloat16 also by
    normalising in float32.

    Args:
        features: of every row, resident.
        data: what is to be predicted.
        configs: the settled settings of runs that differ in FREE alone.
        on_epoch: called after every epoch of each run.

    Raises:
        ConfigError: settings that cannot be trained so.
        DivergedError: a training diverged.
    """
    _refuse_unstackable(features, configs[0])
    devices = [features.device] if features.device.type == "cuda" else []
    data = data.to(features.device)
    trainings, generators = [], []
    for config in configs:
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(config.seed)
            trainings.append(Training.start(features, data, config))
            generators.append(torch.Generator())
            generators[-1].set_state(torch.get_rng_state())  # from where the run alone would draw its dropout
    stack = _Stack(trainings, generators)
    try:
        with reproducible(features.device):
            for _ in range(configs[0].epochs):
                for training, trained in zip(trainings, stack.train(), strict=True):
                    on_epoch(training.config, training.validate(trained))
    finally:
        if configs[0].step == "compiled":  # else PyTorch gives up compiling after eight graphs of other runs
            torch.compiler.reset()
    return [training.finish() for training in trainings]


def _refuse_unstackable(features: Features, config: TrainConfig) -> None:
    problem = ""
    if not isinstance(features, Resident):
        problem = "streamed features"
    elif head_class(config).convex:
        problem = f"head={config.head}"
    elif not weighting_class(config).pure:
        problem = f"weighting={config.weighting}"
    if problem:
        raise ConfigError(f"step={config.step}: not with {problem}; --set step=single trains one run after the other")


class _Both(nn.Module):
    """A head and its weighting: rows to the weighted total and the unweighted losses."""

    def __init__(self, training: Training) -> None:
        super().__init__()
        self.head, self.weighting = training.head, training.weighting
        self.tasks, self.precision = training.config.tasks, training.config.precision
        self.class_weight = training.class_weight

    def forward(self, features: Tensor, target: Target) -> tuple[Tensor, Tensor]:
        """Compute the total of (B, D) standardised features and their targets; with it (K + 1,) losses and total."""
        with torch.autocast(features.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            logits = self.head(features)
        rows = self.head.losses(logits, target)
        losses = grouped(task_means(rows, target, self.class_weight), self.tasks)
        total: Tensor = self.weighting(losses)
        return total, torch.stack([*losses.values(), total])


class _GivenDropout(nn.Module):
    """Dropout by a mask that comes from outside, as `Dropout.draw` gives it."""

    mask: Tensor

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.register_buffer("mask", torch.zeros((), dtype=torch.int16))

    def forward(self, inputs: Tensor) -> Tensor:
        """Times the scale where the mask has all bits set; as a number that is −1."""
        return inputs * (self.mask.to(inputs.dtype) * -self.scale)


class _Stack:
    """The runs as one model, and its optimiser."""

    def __init__(self, trainings: Sequence[Training], generators: Sequence[torch.Generator]) -> None:
        self.trainings, self.generators = trainings, generators
        self.config = trainings[0].config
        runs = [_Both(training).train() for training in trainings]
        parameters, self.buffers = stack_module_state(runs)
        self.buffers = {name: buffer for name, buffer in self.buffers.items() if ".standardise." not in name}
        self.template = copy.deepcopy(runs[0])
        self.dropouts = _open_up(self.template, trainings[0].features.dim)
        # One (S, P) tensor holds all parameters, so that the optimiser's steps are a few large operations.
        self.flat = torch.cat([tensor.detach().flatten(1) for tensor in parameters.values()], dim=1)
        sizes = [tensor[0].numel() for tensor in parameters.values()]
        self.parameters: Tensors = {
            name: columns.unflatten(1, tensor.shape[1:]) if tensor.ndim > 1 else columns.squeeze(1)
            for (name, tensor), columns in zip(parameters.items(), self.flat.split(sizes, dim=1), strict=True)
        }
        self.mean, self.square, self.steps = torch.zeros_like(self.flat), torch.zeros_like(self.flat), 0
        target: Any = Target(0, 0, 0 if trainings[0].data.inner else None)  # type: ignore[arg-type]
        self.gradients = vmap(grad_and_value(self._loss, has_aux=True), in_dims=(0, 0, 0, target))
        self.of_whole_batch = self._compiled() if self.config.step == "compiled" else self.gradients

    def _compiled(self) -> Any:
        """Compile the gradients of a batch of full size, the one shape; on a GPU they become a captured graph.

        A graph is captured only where the step changes nothing but tensors that stay in their place: batch norms
        update their statistics.
        """
        for tensor in (*self.parameters.values(), *self.buffers.values()):
            torch._dynamo.mark_static_address(tensor, guard=False)
        mode = "reduce-overhead" if self.flat.device.type == "cuda" else "default"
        return torch.compile(self.gradients, mode=mode, dynamic=False)

    def _loss(self, parameters: Tensors, buffers: Tensors, features: Tensor, target: Target) -> Any:
        return functional_call(self.template, (parameters, buffers), (features, target))

    def train(self) -> list[Pass]:
        """One pass over the training rows, of each run."""
        started = time.perf_counter()
        device = self.flat.device
        rates = [learning_rate(training.config, training.number) for training in self.trainings]
        rate = torch.tensor(rates, device=device)[:, None]
        sums, seen = torch.zeros((), device=device), 0
        for features, target in self._batches():
            buffers = self.buffers | self._masks(features.shape[1])
            step = self.of_whole_batch if features.shape[1] == self.config.batch_size else self.gradients
            gradients, (_, losses) = step(self.parameters, buffers, features, target)
            gradient = torch.cat([gradients[name].flatten(1) for name in self.parameters], dim=1)
            self._step(gradient, rate)
            sums = sums + losses.detach() * features.shape[1]
            seen += features.shape[1]
        self._hand_back()
        names = [*self.trainings[0].weighting.tasks, "total"]
        means = [dict(zip(names, row, strict=True)) for row in (sums / seen).tolist()]
        seconds = time.perf_counter() - started
        return [Pass(losses, seconds) for losses in means]

    def _batches(self) -> Iterator[tuple[Tensor, Target]]:
        """Draw of each run the batches it would see alone: (S, B, D) standardised features, and S · B targets."""
        data = self.trainings[0].data
        standardise = self.trainings[0].head.standardise  # of the training split, so the same in every run
        size, train = self.config.batch_size, data.rows["train"]
        streams = [training.features.batches(train, size, training.order) for training in self.trainings]
        for batches in zip(*streams, strict=True):
            rows = torch.stack([rows for rows, _ in batches])
            if rows.shape[1] < 2:
                continue
            features = torch.stack([features for _, features in batches])
            with torch.autocast(rows.device.type, dtype=torch.bfloat16, enabled=self.config.precision == "bf16"):
                flat = standardise(features.flatten(0, 1))
            yield flat.unflatten(0, features.shape[:2]), data.batch(rows)

    def _masks(self, batch: int) -> Tensors:
        """Draw a mask (S, B, width) for every dropout, as each run would alone."""
        device = self.flat.device
        if self.dropouts and masks.at_once(device):
            # In the order of the modules, not of the forward pass.
            names = [name for name, _ in self.template.named_buffers() if name in self.dropouts]
            seeds = [own_seed(generator) for generator in self.generators]
            parts = masks.draw([self.dropouts[name] for name in names], batch, seeds, device)
            return dict(zip(names, parts, strict=True))
        drawn: dict[str, list[Tensor]] = {name: [] for name in self.dropouts}
        for generator in self.generators:
            for name, (dropout, width) in self.dropouts.items():
                drawn[name].append(dropout.draw((batch, width), device, own_seed(generator)))
        return {name: torch.stack(drawn[name]) for name in drawn}

    @torch.no_grad()
    def _step(self, gradient: Tensor, rate: Tensor) -> None:
        """Take a step of Adam in every run at its own rate."""
        self.steps += 1
        first, second = BETAS
        self.mean.lerp_(gradient, 1 - first)
        self.square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        scale = self.square.sqrt().div_(math.sqrt(1 - second**self.steps)).add_(EPSILON)
        self.flat.sub_(rate / (1 - first**self.steps) * self.mean / scale)

    @torch.no_grad()
    def _hand_back(self) -> None:
        """Give every run's head and weighting its slice of the stack."""
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
    head, module = template.head, cast(nn.Module, template.head)
    order: list[Dropout] = []
    hooks = [
        layer.register_forward_hook(lambda layer, inputs, output: order.append(layer))
        for layer in module.modules()
        if isinstance(layer, Dropout)
    ]
    with torch.no_grad():
        head.eval()
        head(torch.zeros(2, dim, device=head.shared.device))
        head.train()
    for hook in hooks:
        hook.remove()
    head.standardise = nn.Identity()  # type: ignore[assignment]
    buffers: dict[Dropout, tuple[str, int]] = {}
    for name, block in module.named_modules():
        if isinstance(block, Block):
            buffers[block.dropout] = f"head.{name}.dropout.mask", block.linear.out_features
            block.dropout = _GivenDropout(block.dropout.scale)  # type: ignore[assignment]
            block.norm.register_forward_pre_hook(lambda layer, inputs: (inputs[0].float(),))
    return {buffers[dropout][0]: (dropout, buffers[dropout][1]) for dropout in order}
