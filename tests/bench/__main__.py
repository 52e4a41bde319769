"""Run a benchmark by its name."""

import sys
from importlib import import_module

# Imported on use: what a benchmark does not need should not be in its memory.
BENCHMARKS = {
    "extract": "extract.main",
    "predict": "predict.main",
    "passes": "predict.passes",
    "decode": "extract.decode",
    "feed": "feeding.feed",
    "forward": "feeding.forward",
    "correct": "feeding.correct",
    "fidelity": "fidelity.main",
    "assemble": "data.assemble",
    "update": "data.update",
    "read": "data.read",
    "train": "train.main",
    "stream": "train.stream",
    "made_up": "steps.made_up",
    "steps": "steps.steps",
    "resume": "steps.resume",
    "accuracy": "steps.accuracy",
    "seeds": "train.seeds",
    "small": "small.main",
    "parts": "parts.main",
    "leaves": "leaves.main",
    "linear": "linear.main",
    "length": "length.main",
    "twins": "twins.main",
    "twin_search": "twins.search",
    "review": "review.main",
    "partial": "partial.main",
    "uneven": "uneven.main",
    "tried": "tried.main",
    "load": "load.main",
}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in BENCHMARKS:
        sys.exit(f"usage: python -m tests.bench {{{','.join(BENCHMARKS)}}} [options]")
    module, function = BENCHMARKS[sys.argv[1]].split(".")
    getattr(import_module(f"tests.bench.{module}"), function)(sys.argv[2:])
