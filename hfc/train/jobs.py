"""How many processes train some runs, with how many threads, and in which order.

A step of a small head is a chain of short operations: a second thread helps little, and waits at the end of each. A
second process trains another run meanwhile.
"""

import os
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch

from hfc.config import AUTO, TrainConfig
from hfc.device import cores
from hfc.parallel import Crew, is_local
from hfc.train.cache import Cache
from hfc.train.data import TrainingData
from hfc.train.features import Streamed
from hfc.train.settings import build_head, head_class, head_settings
from hfc.train.settling import steps_in_all

# Measured on one core with the heads that ship, 64 to 1,024 rows of 1,280 features, bfloat16.
SMALL = 2e9  # multiplications of a step: of more, threads share nearly all, and a process needs much memory
RATE = 50e9  # multiplications a second
LAYER = 0.6e-3  # seconds that a matrix takes besides in a step
PASSES = 150  # over all rows, for a point of the path of a convex head
START = 3.0  # seconds until a process trains


class Work(NamedTuple):
    """What a training computes."""

    steps: int
    layers: int
    """Matrices of weights."""
    products: float
    """Multiplications of a step's forward pass: rows times weights."""

    def seconds(self, threads: int = 1) -> float:
        """Estimate how long it takes; threads share the products alone."""
        return self.steps * (self.layers * LAYER + self.products / RATE / threads)


class Planned(Protocol):
    """A training before its first epoch."""

    @property
    def data(self) -> TrainingData:
        """What it is trained on."""

    @property
    def config(self) -> TrainConfig:
        """The settled settings."""


def choose_crew(jobs: int, groups: Sequence[Sequence[Planned]], cache: Cache) -> Crew:
    """Choose processes for groups of trainings.

    Args:
        jobs: how many; AUTO: of one thread each on a CPU, where small heads end earlier by it, else one of all threads.
        groups: those trained together.
        cache: the features.
    """
    alone, features = Crew(1), cache.features
    if jobs != AUTO:
        return Crew(jobs)
    if features.device.type != "cpu" or isinstance(features, Streamed) or not is_local():
        return alone
    threads = torch.get_num_threads() if "OMP_NUM_THREADS" in os.environ else 1
    many = min(cores() // threads, len(groups))
    if many < 2:
        return alone
    works = measure(groups, features.dim)
    if any(work.products > SMALL for group in works for work in group):
        return alone
    seconds = [sum(work.seconds(threads) for work in group) for group in works]
    in_one = sum(work.seconds(torch.get_num_threads()) for group in works for work in group)
    in_several = START + max(*seconds, sum(seconds) / many)
    return Crew(many, threads) if in_several < in_one else alone


def longest_first(groups: Sequence[Sequence[Planned]], cache: Cache) -> list[int]:
    """Order groups of trainings: no process shall be alone with a long one at the end."""
    seconds = [sum(work.seconds() for work in group) for group in measure(groups, cache.features.dim)]
    return sorted(range(len(groups)), key=lambda i: -seconds[i])


def measure(groups: Sequence[Sequence[Planned]], dim: int) -> list[list[Work]]:
    """Count what trainings compute on D features."""
    matrices: dict[tuple[object, ...], list[int]] = {}

    def work(config: TrainConfig, data: TrainingData) -> Work:
        shape = [getattr(config, name) for name in sorted(head_settings(config))]
        key = id(data.hierarchy), config.head, config.members, *shape
        if key not in matrices:
            matrices[key] = _matrices(config, data, dim)
        return _work(config, data, matrices[key])

    return [[work(run.config, run.data) for run in group] for group in groups]


def _matrices(config: TrainConfig, data: TrainingData, dim: int) -> list[int]:
    """Count the weights of each matrix of a head."""
    with torch.random.fork_rng(devices=[]):
        head = build_head(config, data.hierarchy, dim)
    return [parameter.numel() for parameter in head.parameters() if parameter.ndim > 1]


def _work(config: TrainConfig, data: TrainingData, matrices: Sequence[int]) -> Work:
    convex, rows = head_class(config).convex, len(data.rows["train"])
    steps = config.epochs * PASSES * len(config.inner_l2) if convex else steps_in_all(config, data)
    batch = rows if convex else min(config.batch_size, rows)
    return Work(steps, len(matrices), float(batch * sum(matrices)))
