"""Every command where users' machines differ: umask, permissions, the terminal's language, closed streams, no room."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.main import main
from tests.privileges import unprivileged
from tests.readme import ROOT

TINY = ("--backbone", "test_efficientnet", "--weights", "random", "--image-size", "32", "--shard-size", "16")
TRAIN = ("--hierarchy", "tree.csv", "--method", "flat", "--set", "epochs=1", "--set", "batch_size=8")


def hfc(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


# All commands that write, in one process, under the umask that is its first word.
EVERYTHING = """
import os, sys
from pathlib import Path
os.umask(int(sys.argv[1], 8))
from click.testing import CliRunner
from cli.main import main
from hfc.fit import Training
tiny, train = sys.argv[2].split(), sys.argv[3].split()
def hfc(*words):
    done = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
hfc("sample", "drawn", "--images", 40)
Path("tree.csv").write_text(Path(sys.argv[4]).read_text())
Path("grid.toml").write_text('hierarchy = "tree.csv"\\nbatch_size = 8\\nepochs = 1\\n[grid]\\nmethod = ["flat"]\\n')
Path("plan.toml").write_text(
    'methods = ["flat"]\\nbatch_size = 8\\nsearch_seeds = [0]\\nseeds = [1]\\nepochs = 1\\n[grid]\\ndropout = [0.2]\\n'
)
hfc("extract", "drawn", *tiny, "--out", "c.h5")
kept = []
save = Training.save
def saved(self, checkpoint):
    save(self, checkpoint)
    os.link(checkpoint.path, "checkpoint")
Training.save = saved
hfc("train", "c.h5", *train, "--set", "checkpoint_seconds=0", "--out", "runs")
Training.save = save
hfc("sweep", "c.h5", "--grid", "grid.toml", "--out", "sweep")
hfc("ablation", "c.h5", "--hierarchy", "tree.csv", "--plan", "plan.toml", "--out", "ablation")
(run,) = Path("runs").iterdir()
hfc("report", "runs", "--out", "report")
hfc("report", "--compare", "runs", "ablation/runs", "--out", "report")
hfc("export", run, "--hf", "hf", "--onnx", "graph/x.onnx", "--with-backbone")
from hfc import store
with store.locked(Path("locked")):
    os.link("locked.lock", "lock")
"""


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o027])
def test_every_file_of_every_command_follows_the_umask(umask: int, tmp_path: Path) -> None:
    tree = ROOT / "hfc" / "hierarchies" / "deepfashion-5.csv"
    words = [sys.executable, "-c", EVERYTHING, f"{umask:o}", " ".join(TINY), " ".join(TRAIN), str(tree)]
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    written = {path.relative_to(tmp_path): path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    wrong = {
        str(path): f"{mode:o}"
        for path, mode in written.items()
        if mode != (0o777 if (tmp_path / path).is_dir() else 0o666) & ~umask
    }
    assert wrong == {}
    names = {path.name for path in written}
    assert {"head.safetensors", "model.safetensors", "backbone.safetensors", "x.onnx", "x.md", "c.h5"} <= names
    assert {"predictions.h5", "results.json", "best.toml", "trials.jsonl", "checkpoint", "lock"} <= names


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn sample, its cache, two runs, a tree and a file of weights."""
    import timm
    import torch

    folder = tmp_path_factory.mktemp("place")
    (folder / "tree.csv").write_text((ROOT / "hfc" / "hierarchies" / "deepfashion-5.csv").read_text())
    assert hfc("sample", folder / "s", "--images", 40).exit_code == 0
    assert hfc("extract", folder / "s", *TINY, "--out", folder / "c.h5").exit_code == 0
    words = [str(folder / word) if word == "tree.csv" else word for word in TRAIN]
    assert hfc("train", folder / "c.h5", *words, "--seeds", "0-1", "--out", folder / "runs").exit_code == 0
    torch.save(timm.create_model("test_efficientnet").state_dict(), folder / "w.pth")
    return folder


@pytest.fixture
def run(place: Path) -> Iterator[Path]:
    """A run, all of which may be read again afterwards."""
    folder = min((place / "runs").iterdir())
    before = {path: path.stat().st_mode for path in (folder, *folder.iterdir())}
    yield folder
    for path, mode in before.items():
        path.chmod(mode)


MAY_NOT = "cannot be read: Permission denied; ask its owner for permission to read it"


@pytest.mark.parametrize(
    ("name", "command", "message"),
    [
        *((name, "predict", MAY_NOT) for name in ("head.safetensors", "result.json", "metrics.jsonl", "hierarchy.csv")),
        *((name, "report", MAY_NOT) for name in ("result.json", "metrics.jsonl", "hierarchy.csv", "")),
        ("predictions.h5", "report", "cannot read predictions: "),
        ("", "predict", "Permission denied"),
    ],
)
def test_a_file_of_a_run_that_may_not_be_read_says_so(
    name: str, command: str, message: str, place: Path, run: Path, tmp_path: Path
) -> None:
    (run / name).chmod(0)
    words = ("predict", run, place / "s") if command == "predict" else ("report", place / "runs", "--out", tmp_path)
    with unprivileged():
        result = hfc(*words)
    (line,) = [line for line in result.stderr.splitlines() if not line.startswith("WARNING")]
    assert (result.exit_code, line.startswith("Error: ")) == (1, True)
    assert message in line
    assert "Permission denied" in line or "Permission denied" in message
    assert "train" not in line.replace(str(run), "")


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_weights_that_may_not_be_read_say_so(name: str, place: Path, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes((place / "w.pth").read_bytes())
    file.chmod(0)
    words = ("extract", place / "s", *TINY, "--weights", file, "--out", tmp_path / "c.h5")
    with unprivileged():
        result = hfc(*words)
    assert (result.exit_code, result.stderr) == (1, f"Error: weights {file}: cannot be read: Permission denied\n")
