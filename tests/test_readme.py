"""Every command of README runs, in a folder of stand-ins for what a reader has.

What is replaced: DeepFashion and photographs by drawn pictures (60), the defaults of backbone, pictures and epochs by
small ones (`tests.support.readme`), installing by a look at the extras, `pytest` by nothing. Commands for several GPUs,
SLURM or Ray (`tests.support.readme.ELSEWHERE`) and benchmarks are checked for their words alone: here, and in
tests/cli/test_help.py; tests/test_bench.py runs the benchmarks.
"""

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hfc.config import SampleConfig
from hfc.sample import draw_sample
from tests.bench.__main__ import BENCHMARKS
from tests.support.readme import ROOT, Block, blocks, hfc_commands

README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = blocks(README)
BASH = [block for block in BLOCKS if block.language == "bash"]
RUNNABLE = [b for b in BLOCKS if b.language in ("bash", "python") and b.runs_here and "tests.bench" not in b.text]
SECTIONS = list(dict.fromkeys(block.section for block in RUNNABLE))


def test_every_fence_is_closed_and_says_its_language() -> None:
    assert README.count("```") == 2 * len(BLOCKS)
    assert {block.language for block in BLOCKS} <= {"", "bash", "python", "text", "csv"}
    assert not [block.text for block in BLOCKS if block.language == "" and re.search(r"^hfc ", block.text, re.M)]


def test_the_first_block_is_what_continuous_integration_runs() -> None:
    assert BASH[0].text.splitlines() == [
        'python -m pip install -e ".[demo]" && hfc demo',
        'python -m pip install -e ".[test]" && pytest',
    ]


def test_bash_takes_every_block_for_a_program() -> None:
    for block in BASH:
        done = subprocess.run(["bash", "-n", "-c", block.text], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), block.text


def test_commands_are_found_wherever_they_stand() -> None:
    text = (
        "RAY=1 hfc train a.h5 \\\n  --out \"b c\" && hfc report r > x # hfc no\ncat <<'EOF'\nhfc none\nEOF\n"
        "srun bash -c 'torchrun --n 4 -m cli extract d --out e'\nhfc --version; python -m cli verify a.h5\n"
    )
    assert hfc_commands([Block("", "bash", text)]) == [
        ("train", "a.h5", "--out", "b c"),
        ("report", "r"),
        ("extract", "d", "--out", "e"),
        ("verify", "a.h5"),
    ]


def test_benchmarks_that_readme_names_exist() -> None:
    named = re.findall(r"tests\.bench (\w+)([^\n`]*)", README)
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "tests" / "bench").glob("*.py"))
    assert named
    for name, rest in named:
        assert name in BENCHMARKS
        assert all(f'"{option}"' in sources for option in re.findall(r"--[a-z-]+", rest)), rest


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn data set in DeepFashion's layout."""
    root = tmp_path_factory.mktemp("drawn") / "sample"
    draw_sample(root, images=60, seed=SampleConfig().seed)
    return root


def place_deepfashion(drawn: Path, root: Path) -> None:
    """The archive as it is downloaded: annotations beside the images in a zip file."""
    shutil.copytree(drawn, root)
    (root / "hfc-sample.json").unlink()  # or every table would say that it was drawn
    shutil.make_archive(str(root / "Img" / "img"), "zip", root / "Img", "img")
    shutil.rmtree(root / "Img" / "img")


def place_photographs(drawn: Path, root: Path) -> None:
    """A reader's own: photos/LABEL/*.jpg, the same as a manifest, and a tree of two levels."""
    (root / "photos").mkdir()
    labels = ("T-Shirt", "Sweater", "Shirt", "Jeans", "Shorts", "Skirt")
    pictures = sorted((drawn / "Img").rglob("*.jpg"))
    rows = []
    for number, picture in enumerate(pictures):
        name = f"{labels[number % 6]}/{number:03d}.jpg"
        (root / "photos" / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(picture, root / "photos" / name)
        rows.append((f"photos/{name}", labels[number % 6], ("train", "train", "val", "test")[number // 6 % 4]))
    shutil.copyfile(pictures[0], root / "new.jpg")
    with (root / "photos.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    (root / "tree.csv").write_text(
        "category,group\nT-Shirt,tops\nSweater,tops\nShirt,tops\nJeans,bottoms\nShorts,bottoms\nSkirt,bottoms\n",
        "utf-8",
    )


def place_clothing(root: Path) -> None:
    """What lies beside the checkout where the real photographs are."""
    root.mkdir(parents=True)
    for name in ("photos", "photos.csv", "tree.csv"):
        new = {"photos.csv": "labels.csv", "tree.csv": "hierarchy.csv"}.get(name, name)
        (root / new).symlink_to(root.parent.parent.parent / "repository" / name)


@pytest.fixture
def place(drawn: Path, tmp_path: Path) -> Path:
    """A checkout with what README's commands expect to find in and beside it."""
    here = tmp_path / "repository"
    here.mkdir()
    place_deepfashion(drawn, here / "DeepFashion")
    place_photographs(drawn, here)
    place_clothing(tmp_path / "shared" / "data" / "clothing")
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, program in {
        "hfc": f'exec "{sys.executable}" -m tests.support.readme hfc "$@"',
        "python": f'exec "{sys.executable}" -m tests.support.readme python "$@"',
        "pytest": "exit 0",
    }.items():
        (tools / name).write_text(f"#!/bin/sh\n{program}\n")
        (tools / name).chmod(0o755)
    return here


def run(place: Path, words: list[str]) -> None:
    path = f"{place.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=place, env=environment)
    assert done.returncode == 0, f"{words[-1]}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


@pytest.mark.slow
@pytest.mark.parametrize("section", SECTIONS)
def test_the_commands_of_a_section_run_one_after_the_other(section: str, place: Path) -> None:
    for block in (block for block in RUNNABLE if block.section == section):
        words = ["bash", "-euxo", "pipefail"] if block.language == "bash" else [sys.executable, "-W", "error"]
        run(place, [*words, "-c", block.text])
