"""Commands replace what they made themselves, and nothing else, wherever they are told to write."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import cli.demo
from cli.main import main
from hfc import store
from hfc.runs import find
from tests.support.made_up import small_cache, write_tree_csv

TINY = ("--backbone", "test_efficientnet", "--weights", "random", "--image-size", "32")


def hfc(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn sample, a cache of made-up features, two sets of runs, and what a sweep and an ablation try."""
    folder = tmp_path_factory.mktemp("source")
    small_cache(folder / "c.h5")
    tree = write_tree_csv(folder / "tree.csv")
    assert hfc("sample", folder / "drawn", "--images", 40).exit_code == 0
    for seed in (0, 1):
        words = ("--hierarchy", tree, "--method", "flat", "--seeds", seed, "--set", "epochs=1")
        assert hfc("train", folder / "c.h5", *words, "--out", folder / f"runs{seed}").exit_code == 0
    (folder / "grid.toml").write_text(f'hierarchy = "{tree}"\nepochs = 1\n[grid]\ndropout = [0.2, 0.8]\n')
    (folder / "plan.toml").write_text(
        'methods = ["flat"]\nsearch_seeds = [0]\nseeds = [1]\nepochs = 1\n[grid]\ndropout = [0.2]\n'
    )
    return folder


def run_of(source: Path) -> Path:
    return find([source / "runs0"])[0].folder


def run_name(source: Path) -> str:
    return run_of(source).name


Words = Callable[[Path, Path], tuple[object, ...]]
# What is called with the folder of the fixture and a folder to write into.
COMMANDS: dict[str, Words] = {
    "sample": lambda s, out: ("sample", out, "--images", 40),
    "extract": lambda s, out: ("extract", s / "drawn", *TINY, "--out", out / "x.h5"),
    "train": lambda s, out: (
        *("train", s / "c.h5", "--hierarchy", s / "tree.csv", "--method", "flat", "--set", "epochs=1"),
        *("--out", out),
    ),
    "sweep": lambda s, out: ("sweep", s / "c.h5", "--grid", s / "grid.toml", "--out", out),
    "ablation": lambda s, out: (
        *("ablation", s / "c.h5", "--hierarchy", s / "tree.csv", "--plan", s / "plan.toml", "--out", out),
    ),
    "report": lambda s, out: ("report", s / "runs0", "--out", out),
    "compare": lambda s, out: ("report", "--compare", s / "runs0", s / "runs1", "--out", out),
    "onnx": lambda s, out: ("export", run_of(s), "--onnx", out / "x.onnx"),
    "hf": lambda s, out: ("export", run_of(s), "--hf", out),
    "demo": lambda s, out: ("demo", "--out", out),
}
OVERWRITING = ("extract", "train", "demo")
# A file that each command writes, under which somebody else's lies. RUN: a run's folder.
TAKEN: list[tuple[str, str]] = [
    ("sample", "hfc-sample.json"),
    ("extract", "x.h5"),
    ("extract", "x.h5.lock"),
    ("train", "RUN/result.json"),
    ("train", "RUN/config.toml"),
    ("train", "RUN/head.safetensors"),
    *(("sweep", name) for name in ("trials.jsonl", "best.toml")),
    *(("ablation", f"search/flat/{name}") for name in ("trials.jsonl", "best.toml")),
    *(("ablation", f"report/{name}") for name in ("results.json", "report.html")),
    *(("report", name) for name in ("report.html", "report.md", "table1.tex", "results.csv", "results.json")),
    *(("report", name) for name in ("differences.csv", "figures/categories.svg", "figures/categories.csv")),
    *(("compare", name) for name in ("compare.html", "compare.md", "compare.json")),
    *(("onnx", name) for name in ("x.onnx", "x.md")),
    *(("hf", name) for name in ("config.json", "model.safetensors", "hierarchy.csv", "README.md")),
    *(("demo", name) for name in ("sample/a.jpg", "sample.h5", "runs/own/result.json", "report/report.html")),
]


def somebodys(folder: Path, *names: str) -> dict[Path, bytes]:
    """Files of somebody else's in a folder, and what is in them."""
    for name in (".git/HEAD", ".git/objects/ab/cd", "notes.txt", "pictures/a.jpg", *names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f'{{"mine": "{name}"}}')
    return contents(folder)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("command", "name", "overwrite"),
    [(command, name, more) for command, name in TAKEN for more in (False, True) if command in OVERWRITING or not more],
)
def test_a_file_of_somebody_elses_is_named_and_left(
    command: str, name: str, overwrite: bool, source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    name = name.replace("RUN", run_name(source))
    before = somebodys(out, name)
    result = hfc(*COMMANDS[command](source, out), *(["--overwrite"] if overwrite else []))
    assert result.exit_code == 1, result.output
    (line,) = [line for line in result.stderr.splitlines() if not line.startswith("WARNING: ")]
    assert line.startswith("Error: ")
    assert any(part in line for part in (name, str(out), Path(name).name))
    after = contents(out)
    assert {path: after.get(path) for path in before} == before


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "demo"])  # it has a test of its own
def test_what_lies_beside_stays_and_what_a_command_made_is_replaced(command: str, source: Path, tmp_path: Path) -> None:
    out, more = tmp_path / "out", ["--overwrite"] if command in OVERWRITING else []
    words = COMMANDS[command](source, out)
    assert hfc(*words).exit_code == 0
    made = {path: path.stat().st_ino for path in out.rglob("*") if path.is_file()}
    folders = {path.parent for path in made} if command != "sample" else {out}
    before = {file: text for folder in folders for file, text in somebodys(folder).items() if file not in made}
    result = hfc(*words, *more)
    if command == "sample":
        assert (result.exit_code, "exists and is not an empty folder" in result.output) == (1, True)
    else:
        assert result.exit_code == 0, result.output
        if command not in ("ablation", "sweep"):  # what they found is taken up
            assert all(path.stat().st_ino != made[path] for path in made)
    after = contents(out)
    assert {path: after.get(path) for path in before} == before
    assert not [path for path in out.rglob("*") if path.name.endswith((".part", ".lock"))]


@pytest.mark.parametrize("command", ["report", "compare", "sweep", "onnx", "hf"])
def test_what_somebody_changed_is_not_hfcs_any_more(command: str, source: Path, tmp_path: Path) -> None:
    edited = {"report": "report.md", "compare": "compare.html", "sweep": "best.toml", "onnx": "x.md", "hf": "README.md"}
    words = COMMANDS[command](source, tmp_path / "out")
    assert hfc(*words).exit_code == 0
    file = tmp_path / "out" / edited[command]
    with file.open("a") as opened:
        opened.write("my own lines\n")
    before = contents(tmp_path)
    result = hfc(*words)
    assert (result.exit_code, contents(tmp_path)) == (1, before)
    assert result.stderr.splitlines()[-1] == (
        f"Error: {file}: is in the way: hfc did not write it, or it was changed since; move it away or name another "
        "place"
    )


def test_a_report_and_a_comparison_share_a_folder(source: Path, tmp_path: Path) -> None:
    for command in ("report", "compare", "report", "compare"):
        assert hfc(*COMMANDS[command](source, tmp_path / "out")).exit_code == 0


def test_an_export_without_the_backbone_leaves_none_of_an_earlier_one(source: Path, tmp_path: Path) -> None:
    words = ("extract", source / "drawn", *TINY, "--out", tmp_path / "d.h5")
    assert hfc(*words).exit_code == 0
    trained = hfc(
        *("train", tmp_path / "d.h5", "--hierarchy", "deepfashion-5", "--method", "flat", "--json"),
        *("--set", "epochs=1", "--set", "batch_size=8", "--out", tmp_path / "runs"),
    )
    run = json.loads(trained.stdout)["runs"][0]["folder"]
    assert hfc("export", run, "--hf", tmp_path / "hf", "--with-backbone").exit_code == 0
    (tmp_path / "hf" / "notes.txt").write_text("mine")
    assert hfc("export", run, "--hf", tmp_path / "hf").exit_code == 0
    assert sorted(path.name for path in (tmp_path / "hf").iterdir()) == [
        *("README.md", "config.json", "hierarchy.csv", "model.safetensors", "notes.txt"),
    ]


LINKS = ["sample", "extract", "train", "sweep", "ablation", "report", "onnx", "hf"]


@pytest.mark.parametrize("command", LINKS)
@pytest.mark.parametrize("there", [False, True])
def test_a_link_is_followed_and_stays(command: str, there: bool, source: Path, tmp_path: Path) -> None:
    """`there`: it leads to an earlier output, or an empty folder; otherwise to nothing."""
    target, out = tmp_path / "disk", tmp_path / "out"
    words = COMMANDS[command](source, out)
    if command in ("extract", "onnx"):
        name = "x.h5" if command == "extract" else "x.onnx"
        out.mkdir()
        link, target = out / name, target / name
        target.parent.mkdir()
    else:
        link = out
    if there and command == "sample":
        target.mkdir()
    elif there:
        assert hfc(*COMMANDS[command](source, tmp_path / "disk")).exit_code == 0
    link.symlink_to(target)
    result = hfc(*words, *(["--overwrite"] if command in OVERWRITING else []))
    assert result.exit_code == 0, result.output
    assert (link.is_symlink(), link.readlink()) == (True, target)
    assert target.is_file() if command in ("extract", "onnx") else any(target.iterdir())
    assert not list(tmp_path.rglob("*.part"))


def test_a_linked_run_is_followed(source: Path, tmp_path: Path) -> None:
    words = COMMANDS["train"](source, tmp_path / "out")
    assert hfc(*words).exit_code == 0
    folder = tmp_path / "out" / run_name(source)
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert hfc(*words, "--overwrite").exit_code == 0
    assert folder.is_symlink()
    assert hfc("report", folder, "--out", tmp_path / "report").exit_code == 0


@pytest.mark.parametrize("command", ["extract", "onnx"])
def test_a_device_is_not_replaced(command: str, source: Path, tmp_path: Path) -> None:
    pipe = tmp_path / ("x.h5" if command == "extract" else "x.onnx")
    os.mkfifo(pipe)
    for more in ([], ["--overwrite"]) if command == "extract" else ([],):
        result = hfc(*COMMANDS[command](source, tmp_path), *more)
        assert (result.exit_code, pipe.is_fifo()) == (1, True)
        assert f"{pipe}: is " in result.stderr.splitlines()[-1]


def test_overwrite_takes_hfcs_caches_even_truncated_and_no_other_hdf5(source: Path, tmp_path: Path) -> None:
    import h5py

    words = (*COMMANDS["extract"](source, tmp_path), "--overwrite")
    assert hfc(*words).exit_code == 0
    file = tmp_path / "x.h5"
    file.write_bytes(file.read_bytes()[:-100])
    assert hfc(*words).exit_code == 0
    with h5py.File(file, "w") as opened:
        opened["model_weights"] = [1.0]
    before = file.read_bytes()
    for content in (before, before[:-10], b""):
        file.write_bytes(content)
        result = hfc(*words)
        assert (result.exit_code, file.read_bytes()) == (1, content)
        assert result.stderr.splitlines()[-1] == (
            f"Error: {file}: is no feature cache, so --overwrite leaves it alone; give another --out"
        )


def test_only_shards_are_removed_from_their_folder(source: Path, tmp_path: Path) -> None:
    before = somebodys(tmp_path / "x.h5.shards", "000000000-short.h5", "shards-000000001.h5")
    names = ("x.h5.notes.part", "x.h5.12a.part", "x.h5.part", "x.h5.retry")
    for name in names:
        (tmp_path / name).write_text("mine")
    (tmp_path / "x.h5.12.part").write_text("left by a killed process")
    for more in ([], [], ["--overwrite"]):
        assert hfc(*COMMANDS["extract"](source, tmp_path), *more).exit_code == 0
        assert contents(tmp_path / "x.h5.shards") == before
    assert [(tmp_path / name).read_text() for name in names] == ["mine"] * len(names)
    assert not (tmp_path / "x.h5.12.part").exists()


def test_a_retry_leaves_what_lies_beside_the_cache(source: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "m.csv"
    manifest.write_text("path,label,split\nnone.jpg,Tee,train\n")
    words = ("extract", manifest, *TINY, "--out", tmp_path / "x.h5")
    assert hfc(*words).exit_code == 3
    (tmp_path / "x.h5.retry").write_text("mine")
    assert hfc(*words, "--retry-failures").exit_code == 3
    assert (tmp_path / "x.h5.retry").read_text() == "mine"


@pytest.mark.slow
def test_a_demo_takes_up_its_own_and_leaves_other_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Path
) -> None:
    tiny = {"backbone": "test_efficientnet", "weights": "random", "image_size": 32}
    monkeypatch.setattr(cli.demo, "DEMO_EXTRACT", tiny)
    monkeypatch.setattr(cli.demo, "DEMO_METHODS", ("flat",))
    monkeypatch.setattr(cli.demo.SampleConfig, "images", 60, raising=False)
    out = tmp_path / "demo"
    assert hfc("demo", "--out", out).exit_code == 0
    made = contents(out)
    shutil.copytree(run_of(source), out / "runs" / "own")
    before = {**somebodys(out / "runs"), **somebodys(out / "sample")}
    before = {path: content for path, content in before.items() if path not in made}
    for more in ([], ["--overwrite"]):
        result = hfc("demo", "--out", out, *more)
        assert result.exit_code == 0, result.output
        after = contents(out)
        assert {path: after.get(path) for path in before} == before
    with store.FeatureStore(out / "sample.h5") as cache:
        assert cache.shape[2] == 256
    reported = json.loads((out / "report" / "results.json").read_text())["runs"]
    assert run_name(source) not in {run["run"] for run in reported}
