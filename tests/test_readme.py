"""Every command of README and of the pages runs, in a folder of stand-ins for what a reader has.

What is replaced: DeepFashion and photographs by drawn pictures (60), the defaults of backbone, pictures and epochs by
small ones (`tests.support.readme`), installing by a look at the extras, `pytest` and `jupyter` by nothing. Commands
for several GPUs, SLURM or Ray (`tests.support.readme.ELSEWHERE`) and benchmarks are checked for their words alone:
here, and in tests/cli/test_help.py; tests/test_bench.py runs the benchmarks. A page starts from what README's commands
left.
"""

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from safetensors.torch import load_file

from hfc.config import SampleConfig, TrainConfig, resolve
from hfc.errors import ConfigError
from hfc.sample import draw_sample
from hfc.train import train_all
from hfc.train.heads import HEADS
from tests.bench.__main__ import BENCHMARKS
from tests.support.made_up import small_cache, write_tree_csv
from tests.support.processes import STAGES, python
from tests.support.readme import PAGES, README, ROOT, Block, blocks, documentation, hfc_commands

TEXTS = (README, *PAGES)
LANGUAGES = {"", "bash", "python", "text", "csv", "bibtex"}
LINK = re.compile(r"\]\(([^)\s]+)\)")


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def fenced(path: Path) -> list[Block]:
    return blocks(path.read_text("utf-8"))


def runnable(path: Path) -> list[Block]:
    return [
        block
        for block in fenced(path)
        if block.language in ("bash", "python") and block.runs_here and "tests.bench" not in block.text
    ]


def prose(path: Path) -> str:
    """A page, or the Markdown of a notebook, without fenced blocks."""
    text = path.read_text("utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def anchors(path: Path) -> set[str]:
    """What a link can name after #: every heading as GitHub writes it. Two alike would be told apart by a number."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", TEXTS, ids=name)
def test_every_fence_is_closed_and_says_its_language(path: Path) -> None:
    assert path.read_text("utf-8").count("```") == 2 * len(fenced(path))
    assert {block.language for block in fenced(path)} <= LANGUAGES
    assert not [b.text for b in fenced(path) if b.language == "" and re.search(r"^hfc ", b.text, re.MULTILINE)]


def test_the_first_block_is_what_continuous_integration_runs() -> None:
    assert next(block for block in fenced(README) if block.language == "bash").text.splitlines() == [
        'python -m pip install -e ".[demo]" && hfc demo',
        'python -m pip install -e ".[test]" && pytest',
    ]


def test_readme_is_short() -> None:
    assert len(README.read_text("utf-8").splitlines()) <= 170


def test_bash_takes_every_block_for_a_program() -> None:
    for block in (block for path in TEXTS for block in fenced(path) if block.language == "bash"):
        done = subprocess.run(["bash", "-n", "-c", block.text], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), block.text


def test_commands_are_found_wherever_they_stand() -> None:
    text = (
        "RAY=1 hfc train a.h5 \\\n  --out \"b c\" && hfc report r > x # hfc no\ncat <<'EOF'\nhfc none\nEOF\n"
        "srun bash -c 'torchrun --n 4 -m cli extract d --out e'\nhfc --version; python -m cli verify a.h5\n"
    )
    assert hfc_commands([Block("bash", text)]) == [
        ("train", "a.h5", "--out", "b c"),
        ("report", "r"),
        ("extract", "d", "--out", "e"),
        ("verify", "a.h5"),
    ]


def test_benchmarks_that_are_named_exist() -> None:
    named = re.findall(r"tests\.bench (\w+)([^\n`]*)", documentation())
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "tests" / "bench").glob("*.py"))
    assert named
    for benchmark, rest in named:
        assert benchmark in BENCHMARKS
        assert all(f'"{option}"' in sources for option in re.findall(r"--[a-z-]+", rest)), rest


@pytest.mark.parametrize("path", [*TEXTS, *sorted((ROOT / "notebooks").glob("*.ipynb"))], ids=name)
def test_every_link_leads_to_a_file_and_a_heading(path: Path) -> None:
    for link in LINK.findall(prose(path)):
        if not link.startswith("https://"):
            file, _, anchor = link.partition("#")
            target = (path.parent / file).resolve() if file else path
            assert target.is_file(), link
            assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_readme_and_the_table_of_pages_name_every_page(path: Path) -> None:
    if path.name != "README.md":
        assert f"](notebooks/{path.name}" in README.read_text("utf-8")
        assert f"| [{path.name}]({path.name}) |" in (path.parent / "README.md").read_text("utf-8")


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
    """A reader's own: photos/LABEL/*.jpg, two views of each product; the same as a manifest; a tree of two levels."""
    (root / "photos").mkdir()
    labels = ("T-Shirt", "Sweater", "Shirt", "Jeans", "Shorts", "Skirt")
    pictures = sorted((drawn / "Img").rglob("*.jpg"))
    rows = []
    for number, picture in enumerate(pictures):
        label, product, view = labels[number % 6], number // 12, number // 6 % 2 + 1
        name = f"{label}/{label.lower()}{product}_{view}.jpg"
        (root / "photos" / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(picture, root / "photos" / name)
        rows.append((f"photos/{name}", label, ("train", "train", "val", "test")[number // 6 % 4]))
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
        (root / new).symlink_to(Path("../../../repository") / name)


def place_programs(root: Path) -> None:
    """`hfc` with small settings, `python` that installs nothing, `pytest` and `jupyter` that do nothing."""
    root.mkdir()
    for program, line in {
        "hfc": f'exec {shlex.join(python("tests.support.small", *STAGES))} -m cli "$@"',
        "python": f'exec "{sys.executable}" -m tests.support.readme "$@"',
        "pytest": "exit 0",
        "jupyter": "exit 0",
    }.items():
        (root / program).write_text(f"#!/bin/sh\n{line}\n")
        (root / program).chmod(0o755)


def run(place: Path, words: list[str]) -> None:
    path = f"{place.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=place, env=environment)
    assert done.returncode == 0, f"{words[-1]}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def run_page(path: Path, place: Path) -> None:
    """Run what a page says, from its first block to its last."""
    for block in runnable(path):
        if block.file:
            (place / block.file).write_text(block.text, "utf-8")
            continue
        words = ["bash", "-euxo", "pipefail"] if block.language == "bash" else [sys.executable, "-W", "error"]
        run(place, [*words, "-c", block.text])


@pytest.fixture(scope="module")
def after_readme(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with what a reader has in and beside it, in which README's commands have run."""
    root = tmp_path_factory.mktemp("reader")
    place = root / "repository"
    place.mkdir()
    place_deepfashion(drawn, place / "DeepFashion")
    place_photographs(drawn, place)
    place_clothing(root / "shared" / "data" / "clothing")
    (place / "tests" / "bench").mkdir(parents=True)  # another tree of the photographs' labels
    (place / "tests" / "bench" / "uneven_clothing.csv").symlink_to("../../tree.csv")
    place_programs(root / "bin")
    run_page(README, place)
    return place


@pytest.mark.slow
def test_the_commands_of_readme_leave_what_it_says(after_readme: Path) -> None:
    cache = after_readme / "cache"
    assert {path.name for path in cache.glob("*.h5")} == {"clothing.h5", "deepfashion.h5", "own.h5", "python.h5"}
    pages = {str(path.parent.relative_to(cache)) for path in cache.glob("*/*/report.html")}
    assert pages == {"report/deepfashion", "report/own", "demo/report", "nested/report"}


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path in PAGES if runnable(path)], ids=name)
def test_the_commands_of_a_page_run(path: Path, after_readme: Path, tmp_path: Path) -> None:
    shutil.copytree(after_readme.parent, tmp_path / "reader", symlinks=True)
    run_page(path, tmp_path / "reader" / "repository")


def test_the_worked_head_trains_as_its_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = [block for block in fenced(ROOT / "notebooks" / "adding_a_head.md") if block.language == "python"]
    module: dict[str, Any] = {"__name__": "cosine"}
    exec(block.text, module)
    head = TrainConfig.__dataclass_fields__["head"]
    choices = (*head.metadata["choices"], "cosine")
    monkeypatch.setitem(cast(dict[str, Any], HEADS), "cosine", module["Cosine"])
    monkeypatch.setattr(head, "metadata", {**head.metadata, "choices": choices})
    small_cache(tmp_path / "c.h5")
    settings = {"method": "flat", "hierarchy": str(write_tree_csv(tmp_path / "tree.csv")), "head": "cosine"}
    with pytest.raises(ConfigError, match=r"dropout=0.5 with method flat: head cosine .* does not take it"):
        list(train_all(tmp_path / "c.h5", [resolve(TrainConfig, {**settings, "dropout": 0.5})], tmp_path / "runs"))
    ((run, _),) = train_all(tmp_path / "c.h5", [resolve(TrainConfig, settings)], tmp_path / "runs")
    shapes = {name: tuple(tensor.shape) for name, tensor in load_file(run.folder / "head.safetensors").items()}
    assert {name: shape for name, shape in shapes.items() if "standardise" not in name} == {
        "leaf.weight": (6, 16),
        "leaf.bias": (6,),
    }
    assert run.result.test["top1"] > 0.9


@pytest.mark.slow
def test_the_worked_head_is_a_head_to_mypy(tmp_path: Path) -> None:
    (block,) = [block for block in fenced(ROOT / "notebooks" / "adding_a_head.md") if block.language == "python"]
    check = "\n\nfrom hfc.train.heads.base import Head\n\nADDED: dict[str, type[Head]] = {'cosine': Cosine}\n"
    (tmp_path / "cosine.py").write_text(block.text + check, "utf-8")
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "setup.cfg"), str(tmp_path / "cosine.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
