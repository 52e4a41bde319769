"""What a step of a small head consists of, with one thread and with several."""

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from unittest.mock import patch

import torch
from torch import nn

from hfc.config import TrainConfig, resolve
from hfc.device import cores
from hfc.train.adam import Adam
from hfc.train.cache import Cache, load_cache
from hfc.train.heads.layers import Dropout
from hfc.train.jobs import measure
from hfc.train.prepared import PreparedRun, prepare_run
from hfc.train.training import Training
from tests.bench import say

# What is left out of a step, in turns with the whole one.
WITHOUT: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "nothing": nullcontext,
    "adam": lambda: patch.object(Adam, "step", lambda adam, rate: None),
    "dropout": lambda: patch.object(Dropout, "forward", lambda layer, inputs: inputs),
}


def main(words: list[str]) -> None:
    """Time the steps of some heads, and their parts."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench parts")
    parser.add_argument("cache", type=Path)
    parser.add_argument("--hierarchy", required=True)
    parser.add_argument("--methods", default="flat,levels+path,flat+ps,hmcn-f+mtl")
    parser.add_argument("--batches", default="64,128,512,1024", help="rows in a step")
    parser.add_argument("--threads", default=",".join(map(str, sorted({1, cores()}))))
    parser.add_argument("--turns", type=int, default=5, help="passes over the training rows; their median is told")
    options = parser.parse_args(words)
    cache = load_cache(options.cache, device="cpu")
    for method in options.methods.split(","):
        for batch in map(int, options.batches.split(",")):
            given = {"method": method, "hierarchy": options.hierarchy, "batch_size": batch}
            run = prepare_run(cache, resolve(TrainConfig, given))
            for threads in map(int, options.threads.split(",")):
                torch.set_num_threads(threads)
                _say_parts(cache, run, threads, options.turns)


def _say_parts(cache: Cache, run: PreparedRun, threads: int, turns: int) -> None:
    """Print how long a step is, and which share its parts have."""
    torch.manual_seed(0)
    training = Training.start(cache.features, run.data, run.config)
    training._pass()
    steps = -(-len(run.data.rows["train"]) // run.config.batch_size)
    took: dict[str, list[float]] = {name: [] for name in [*WITHOUT, "products"]}
    products = _products(training)
    for _ in range(turns):
        for name, without in WITHOUT.items():
            with without():
                took[name].append(_seconds(training._pass, threads) / steps)
        took["products"].append(_seconds(lambda: [products() for _ in range(steps)], threads) / steps)
    whole = statistics.median(took["nothing"])
    parts = {
        name: statistics.median((own if name == "products" else all_ - own) / all_ for own, all_ in pairs)
        for name, pairs in ((name, list(zip(took[name], took["nothing"], strict=True))) for name in took)
        if name != "nothing"
    }
    ((work,),) = measure([[run]], cache.features.dim)
    say(
        benchmark="parts",
        method=run.config.method,
        batch=run.config.batch_size,
        precision=run.config.precision,
        threads=threads,
        multiplications=work.products,
        ms_a_step=round(1e3 * whole, 2),
        of_a_step={name: round(share, 2) for name, share in parts.items()},
    )


def _seconds(action: Callable[[], object], threads: int) -> float:
    """How long an action takes; of one thread its time on the processor, which others do not lengthen by waiting."""
    clock = time.process_time if threads == 1 else time.perf_counter
    started = clock()
    action()
    return clock() - started


def _products(training: Training) -> Callable[[], None]:
    """The matrix products of a step alone: forward, and backward by weights and by inputs but for the features."""
    kind = torch.bfloat16 if training.config.precision == "bf16" else torch.float32
    rows = training.config.batch_size
    layers = [module for module in training.head.modules() if isinstance(module, nn.Linear)]  # type: ignore[attr-defined]
    first = layers[0].in_features
    tensors = [
        [torch.randn(shape).to(kind) for shape in ((rows, n.in_features), (rows, n.out_features), n.weight.shape)]
        for n in layers
    ]

    def once() -> None:
        for layer, (inputs, slopes, weight) in zip(layers, tensors, strict=True):
            inputs @ weight.t()
            slopes.t() @ inputs
            if layer.in_features != first:
                slopes @ weight

    return once
