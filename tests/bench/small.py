"""A small set and many runs: what `hfc train` and `hfc ablation` take as commands, and where the time goes."""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from hfc.device import cores
from tests.bench import say

TEN = Path(__file__).with_name("ten_methods.toml")


def main(words: list[str]) -> None:
    """Runs of some methods and seeds, then a table of ten methods."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench small")
    parser.add_argument("cache", type=Path)
    parser.add_argument("--hierarchy", required=True)
    parser.add_argument("--methods", default="hmcn-f+mtl,levels+path,flat")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", default="auto", help="as for hfc train")
    parser.add_argument("--turns", type=int, default=3, help="of the runs; their median is told")
    parser.add_argument("--set", action="append", default=[], help="of the runs, as for hfc train")
    parser.add_argument("--plan", default=str(TEN), help="of the table; none: no table")
    parser.add_argument("--part", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.part:
        print(json.dumps(_one_run(options)))
        return
    _runs(options)
    if options.plan != "none":
        _table(options)


def _runs(options: argparse.Namespace) -> None:
    """Train each method with each seed by one command."""
    methods = options.methods.split(",")
    command = ["train", str(options.cache), "--hierarchy", options.hierarchy, "--seeds", f"0-{options.seeds - 1}"]
    command += ["--jobs", options.jobs, *_repeated("--method", methods), *_repeated("--set", options.set)]
    whole: list[float] = []
    with tempfile.TemporaryDirectory() as scratch:
        for turn in range(options.turns):
            out = Path(scratch) / str(turn)
            whole.append(_seconds([*command, "--out", str(out)]))
        runs = [_of_run(folder) for folder in sorted(out.iterdir()) if (folder / "result.json").is_file()]
    one = _part(options, methods[0])
    inside = {name: sum(run[name] for run in runs) for name in ("steps", "validation", "test")}
    jobs = cores() if options.jobs == "auto" else int(options.jobs)
    processes = 1 + jobs * (jobs > 1)
    outside = {
        "start-up": processes * one["start-up"],
        "loading": processes * one["loading"],
        "writing": len(runs) * one["writing"],
    }
    say(
        benchmark="small",
        part="runs",
        runs=len(runs),
        methods=methods,
        jobs=options.jobs,
        threads=sorted({run["threads"] for run in runs}),
        turns=options.turns,
        seconds=round(statistics.median(whole), 1),
        # Of all processes together, so up to jobs times the above; what is left was idle, or waited for a core.
        of_processes={name: round(value, 1) for name, value in (outside | inside).items()},
    )


def _table(options: argparse.Namespace) -> None:
    """Compare the methods of a plan."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "table"
        command = ["ablation", str(options.cache), "--hierarchy", options.hierarchy, "--plan", options.plan]
        seconds = _seconds([*command, "--jobs", options.jobs, "--out", str(out)])
        searched = {
            folder.name: len((folder / "trials.jsonl").read_text("utf-8").splitlines())
            for folder in sorted((out / "search").iterdir())
        }
        ended = {name: (out / "search" / name / "best.toml").stat().st_mtime for name in searched}
    order = sorted(ended, key=lambda name: ended[name])
    took = {name: round(ended[name] - ended[before]) for before, name in pairwise(order)}
    say(
        benchmark="small",
        part="table",
        trainings=sum(searched.values()),
        searched=searched,
        jobs=options.jobs,
        seconds=round(seconds, 1),
        seconds_from_the_row_before=took,
    )


def _one_run(options: argparse.Namespace) -> dict[str, float]:
    """Time what a run takes besides its epochs; `options.part` is when this process was started."""
    from hfc.config import TrainConfig, resolve
    from hfc.train.cache import load_cache
    from hfc.train.stage import train

    started = time.time()
    cache = load_cache(options.cache)
    config = resolve(TrainConfig, {"hierarchy": options.hierarchy, "method": options.methods, "epochs": 1})
    loaded = time.time()
    with tempfile.TemporaryDirectory() as scratch:
        run, _ = train(cache, config, Path(scratch))
    took = time.time() - loaded
    return {
        "start-up": started - options.part,
        "loading": loaded - started,
        "writing": took - run.result.seconds.total,
    }


def _part(options: argparse.Namespace, method: str) -> dict[str, float]:
    command = ["small", str(options.cache), "--hierarchy", options.hierarchy, "--methods", method]
    words = [sys.executable, "-m", "tests.bench", *command, "--part", str(time.time())]
    timed: dict[str, float] = json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return timed


def _seconds(words: list[str]) -> float:
    """How long a command of hfc takes, its start included."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "cli", *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def _repeated(option: str, values: list[str]) -> list[str]:
    return [word for value in values for word in (option, value)]


def _of_run(folder: Path) -> dict[str, float]:
    """Seconds of a run's steps, validation and test, and its threads, as its folder records them."""
    epochs = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    result = json.loads((folder / "result.json").read_text("utf-8"))
    took = result["seconds"]
    steps = sum(epoch["train_seconds"] for epoch in epochs)
    validation = sum(epoch["seconds"] for epoch in epochs) - steps
    test = took["total"] - took["train"]
    return {"steps": steps, "validation": validation, "test": test, "threads": result["machine"]["threads"]}
