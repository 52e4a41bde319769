"""The benchmarks run, and print what notebooks/results.md quotes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RUNS = {
    "extract": (["--backbone", "test_efficientnet", "--images", "32", "--turns", "1"], "end_to_end_of_forward"),
    "decode": (["--images", "60", "--turns", "1"], "crops_per_s"),
    "assemble": (["--rows", "5000", "--dim", "64"], "assemble_of_plain"),
    "read": (["--rows", "500"], "peak_mb_of_the_process"),
    "train": (["--rows", "6000", "--dim", "32", "--turns", "1", "--slice", "300"], "of_the_matrix_products"),
    "stream": (["--rows", "6000", "--dim", "32", "--turns", "1"], "streamed_of_resident"),
    "seeds": (
        ["--rows", "2000", "--dim", "32", "--turns", "1", "--epochs", "1", "--seeds", "2", "--methods", "flat"],
        "of_single",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_benchmark_prints_one_json_object(name: str) -> None:
    words, key = RUNS[name]
    command = [sys.executable, "-m", "tests.bench", name, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["benchmark"] == name
    assert json.loads(line)[key]


def test_an_unknown_benchmark_is_refused() -> None:
    done = subprocess.run([sys.executable, "-m", "tests.bench", "speed"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert "usage: python -m tests.bench {extract,decode,fidelity,assemble,read,train,stream,seeds}" in done.stderr
