"""Stage 2 step by step on any device: its milliseconds, whether it comes out the same twice, and how good it is."""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from hfc.config import TrainConfig, resolve
from hfc.device import reproducible
from hfc.runs import Epoch
from hfc.train.cache import Cache, load_cache
from hfc.train.checkpoint import Checkpoint
from hfc.train.fit import fit
from hfc.train.prepared import PreparedRun, prepare_run
from hfc.train.stacked import _Stack
from hfc.train.stage import train_all
from hfc.train.training import Fitted, Training
from tests.bench import say
from tests.bench.train import DEEPFASHION, TREE, write_made_up_cache

METHODS = "flat,levels+path,hmcn-f+mtl,hmcn-f-original,conditional,flat+hxe"


def made_up(words: list[str]) -> None:
    """Write a made-up cache of DeepFashion's size, for `hfc train`."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench made_up")
    parser.add_argument("cache", type=Path)
    parser.add_argument("--rows", type=int, default=DEEPFASHION)
    parser.add_argument("--dim", type=int, default=2048)
    options = parser.parse_args(words)
    started = time.perf_counter()
    write_made_up_cache(options.cache, options.rows, options.dim)
    seconds = round(time.perf_counter() - started, 1)
    say(benchmark="made_up", rows=options.rows, dim=options.dim, hierarchy=TREE, seconds=seconds)


def steps(words: list[str]) -> None:
    """Milliseconds of a step and of a validation, by method and way of training."""
    parser = _parser("steps", "hmcn-f+mtl,flat")
    parser.add_argument("--cache", type=Path, help=f"under the tree {TREE}; else one is made up")
    parser.add_argument("--rows", type=int, default=DEEPFASHION)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--ways", default="single,stacked,compiled")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory(dir=".") as scratch:
        path = options.cache or write_made_up_cache(Path(scratch) / "c.h5", options.rows, options.dim)
        cache = load_cache(path, device=options.device)
    for method, way in product(options.methods.split(","), options.ways.split(",")):
        run = prepare_run(cache, resolve(TrainConfig, {"method": method, "hierarchy": TREE, "step": way}))
        with reproducible(cache.features.device):
            measured = _steps(cache, run, options.seeds if way != "single" else 1, options.turns)
        say(
            benchmark="steps",
            method=method,
            step=way,
            device=_device(cache),
            precision=run.config.precision,
            batch_size=run.config.batch_size,
            **measured,
        )
        torch.compiler.reset()


def _steps(cache: Cache, run: PreparedRun, seeds: int, turns: int) -> dict[str, object]:
    """Time epochs and validations of runs of one shape; the first epoch compiles."""
    trainings, generators = [], []
    for seed in range(seeds):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            trainings.append(Training.start(cache.features, run.data, replace(run.config, seed=seed)))
            generators.append(torch.Generator().manual_seed(seed))
    if run.config.step == "single":
        epoch: Callable[[], object] = trainings[0]._pass
    else:
        epoch = _Stack(trainings, generators).train
    counters = torch._dynamo.utils.counters["inductor"]
    before = counters["cudagraph_skips"]
    first, *others = [_seconds(epoch, cache) for _ in range(turns + 1)]
    count = -(-len(run.data.rows["train"]) // run.config.batch_size)
    validation = statistics.median(_seconds(trainings[0]._metrics, cache) for _ in range(turns))
    return {
        "runs": seeds,
        "first_epoch_s": round(first, 2),
        "ms_a_step": round(statistics.median(others) / count * 1e3, 3),
        "ms_a_validation": round(validation * 1e3, 1),
        "graphs_skipped": counters["cudagraph_skips"] - before,
    }


def _seconds(action: Callable[[], object], cache: Cache) -> float:
    wait = torch.cuda.synchronize if cache.features.device.type == "cuda" else lambda: None
    wait()
    started = time.perf_counter()
    action()
    wait()
    return time.perf_counter() - started


class _Killed(BaseException):
    pass


def resume(words: list[str]) -> None:
    """Whether a training ends in the same bits twice, and after a kill half way."""
    parser = _parser("resume", METHODS)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--hierarchy", required=True)
    parser.add_argument("--epochs", type=int, default=6)
    options = parser.parse_args(words)
    cache = load_cache(options.cache, device=options.device)
    for method in options.methods.split(","):
        given = {"method": method, "hierarchy": options.hierarchy, "epochs": options.epochs}
        run = prepare_run(cache, resolve(TrainConfig, given))
        whole, again = (fit(cache.features, run.data, run.config) for _ in range(2))
        with tempfile.TemporaryDirectory() as scratch:
            checkpoint = Checkpoint(Path(scratch) / "checkpoint", run.key, 0.0)

            def kill(config: TrainConfig, epoch: Epoch) -> None:
                if epoch.number > config.epochs // 2:
                    raise _Killed

            try:
                fit(cache.features, run.data, run.config, kill, checkpoint)
            except _Killed:
                resumed = fit(cache.features, run.data, run.config, checkpoint=checkpoint)
        say(
            benchmark="resume",
            method=method,
            device=_device(cache),
            precision=run.config.precision,
            twice_the_same=_same(whole, again),
            resumed_the_same=_same(whole, resumed),
        )


def _same(one: Fitted, other: Fitted) -> bool:
    states: list[dict[str, Tensor]] = [fitted.head.state_dict() for fitted in (one, other)]
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def accuracy(words: list[str]) -> None:
    """Test metrics and seconds by method and way of training: are they alike within the noise of seeds?"""
    parser = argparse.ArgumentParser(prog="python -m tests.bench accuracy")
    parser.add_argument("cache", type=Path)
    parser.add_argument("--hierarchy", required=True)
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--ways", default="cpu/single/auto", help="DEVICE/STEP/PRECISION, with commas between")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=TrainConfig.epochs)
    options = parser.parse_args(words)
    for method, way in product(options.methods.split(","), options.ways.split(",")):
        device, step, precision = way.split("/")
        given = {"method": method, "hierarchy": options.hierarchy, "epochs": options.epochs}
        given |= {"device": device, "step": step, "precision": precision}
        configs = [resolve(TrainConfig, given, {"seed": seed}) for seed in range(options.seeds)]
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as scratch:
            tests = [run.result.test for run, _ in train_all(options.cache, configs, Path(scratch))]
        say(
            benchmark="accuracy",
            method=method,
            way=way,
            seeds=options.seeds,
            seconds=round(time.perf_counter() - started, 2),
            **{name: _mean_and_spread([100 * test[name] for test in tests]) for name in ("top1", "hF")},
        )


def _mean_and_spread(values: Sequence[float]) -> list[float]:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return [round(statistics.mean(values), 2), round(spread, 2)]


def _parser(name: str, methods: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m tests.bench {name}")
    parser.add_argument("--methods", default=methods)
    parser.add_argument("--device", default="auto")
    return parser


def _device(cache: Cache) -> str:
    device = cache.features.device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
