"""Every command where users' machines differ: umask, permissions, the terminal's language, closed streams, no room."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.main import main
from hfc.errors import RunError
from tests.support.privileges import unprivileged
from tests.support.processes import python
from tests.support.readme import ROOT

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
from hfc.train.checkpoint import Checkpoint
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
save = Checkpoint.save
def saved(self, state):
    save(self, state)
    os.link(self.path, "checkpoint")
Checkpoint.save = saved
hfc("train", "c.h5", *train, "--set", "checkpoint_seconds=0", "--out", "runs")
Checkpoint.save = save
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


@pytest.mark.slow
@pytest.mark.parametrize("umask", [0o002, 0o022, 0o027])
def test_every_file_of_every_command_follows_the_umask(umask: int, tmp_path: Path) -> None:
    tree = ROOT / "hfc" / "hierarchies" / "deepfashion-5.csv"
    words = [*python(), "-c", EVERYTHING, f"{umask:o}", " ".join(TINY), " ".join(TRAIN), str(tree)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = {path.relative_to(tmp_path): path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    wrong = {
        str(path): f"{mode:o}"
        for path, mode in written.items()
        if mode != (0o777 if (tmp_path / path).is_dir() else 0o666) & ~umask
    }
    assert wrong == {}
    names = {path.name for path in written}
    assert {"head.safetensors", "model.safetensors", "x.onnx", "x.md", "c.h5"} <= names
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


# Runs commands one after the other as the program does, on this process's own streams, and writes their exit codes.
PROGRAM = """
import sys, tempfile
from pathlib import Path
rig, codes, calls = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
if rig == "no temporary folder":
    tempfile._candidate_tempdir_list = lambda: ["/nowhere"]
if rig == "no room in /dev/shm":
    import errno, os, joblib.externals.loky.backend.synchronize as loky
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    loky.SemLock.__init__ = full
from cli.main import main
ended = []
for call in calls:
    try:
        main(call.split("|"))
    except SystemExit as end:
        ended.append(str(end.code))
codes.write_text(" ".join(ended))
"""


def program(
    calls: list[tuple[object, ...]], folder: Path, *, rig: str = "", streams: str = "", **environment: str
) -> tuple[list[str], str, str]:
    """Exit codes, and what is printed on stdout and stderr; `streams` is what a shell does with them, like `2>&-`."""
    codes = folder / "codes"
    codes.write_text("")
    # Python itself reads LC_ALL when it starts, and PyTorch asks for a temporary folder when it is imported.
    start = [sys.executable] if "LC_ALL" in environment or rig == "no temporary folder" else python()
    words = [*start, "-c", PROGRAM, rig, str(codes), *("|".join(map(str, call)) for call in calls)]
    inherited = {name: text for name, text in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"}
    done = subprocess.run(
        ["bash", "-c", f'"$@" {streams}', "bash", *words],
        capture_output=True,
        check=False,
        cwd=folder,
        env=inherited | {"PYTHONPATH": str(ROOT)} | environment,  # without what torch has set in pytest's own process
    )
    return codes.read_text().split(), done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")


def errors(err: str) -> str:
    """What is printed on stderr, but for the warning of items in several splits: the drawn sample has DeepFashion's."""
    return re.sub(r"WARNING: \S+: \d+ of \d+ groups have rows in more than one split[^\n]*\n", "", err)


def pipeline(place: Path) -> list[tuple[object, ...]]:
    """Calls of all commands, in an order in which each finds what it needs, but the demo, which downloads nothing."""
    run = min((place / "runs").iterdir())
    train = [place / word if word == "tree.csv" else word for word in TRAIN]
    review = ("--hierarchy", place / "tree.csv", "--set", "batch_size=8", "--set", "epochs=1")
    return [
        ("sample", "drawn", "--images", 40),
        ("extract", place / "s", *TINY, "--out", "d.h5"),
        ("inspect", "d.h5"),
        ("inspect", "d.h5", "--json"),
        ("verify", "d.h5"),
        ("train", "d.h5", *train, "--out", "runs"),
        ("train", "d.h5", *train, "--out", "runs", "--json"),
        ("sweep", "d.h5", "--grid", "grid.toml", "--out", "sweep"),
        ("ablation", "d.h5", "--hierarchy", place / "tree.csv", "--plan", "plan.toml", "--out", "ablation"),
        ("curve", "d.h5", *review, "--method", "flat", "--seeds", 0, "--shares", "0.5,1", "--out", "curve"),
        ("runs", place / "runs"),
        ("report", place / "runs", "--out", "report"),
        ("report", place / "runs", "--out", "report", "--json"),
        ("report", "--compare", place / "runs", "ablation/runs", "--out", "report"),
        ("review", "d.h5", *review, "--folds", 2, "--out", "review"),
        *(("predict", run, place / "s" / "Img", "--format", form) for form in ("table", "json", "csv")),
        ("rename", run, "names.csv", "--out", "renamed"),
        ("export", run, "--hf", "hf", "--onnx", "x.onnx"),
        ("doctor",),
    ]


@pytest.fixture
def folder(place: Path, tmp_path: Path) -> Path:
    """A folder with what a sweep and an ablation try."""
    tree = place / "tree.csv"
    (tmp_path / "grid.toml").write_text(
        f'hierarchy = "{tree}"\nbatch_size = 8\nepochs = 1\n[grid]\nmethod = ["flat"]\n'
    )
    (tmp_path / "plan.toml").write_text(
        'methods = ["flat"]\nbatch_size = 8\nsearch_seeds = [0]\nseeds = [1]\nepochs = 1\n[grid]\ndropout = [0.2]\n'
    )
    leaf = tree.read_text("utf-8").splitlines()[1].split(",")[0]
    (tmp_path / "names.csv").write_text(f"old,new\n{leaf},an other one\n", "utf-8")
    return tmp_path


ENCODINGS = {
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "cp437": {"PYTHONIOENCODING": "cp437"},
    "ascii": {"PYTHONIOENCODING": "ascii:strict"},
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_help_is_printed_on_every_terminal(encoding: str, tmp_path: Path) -> None:
    calls = [("--help",), *((name, "--help") for name in sorted(main.commands))]
    codes, out, err = program(calls, tmp_path, **ENCODINGS[encoding])
    assert (codes, err) == (["0"] * len(calls), "")
    assert out.count("Usage: ") == len(calls)
    assert encoding != "latin-1" or "\\u03b1" in out  # α, as the terminal can show it


@pytest.mark.parametrize("encoding", ["latin-1", pytest.param("C", marks=pytest.mark.slow)])
def test_every_command_answers_on_every_terminal(encoding: str, place: Path, folder: Path) -> None:
    calls = pipeline(place)
    assert {str(words[0]) for words in calls} == set(main.commands) - {"demo"}
    codes, out, err = program(calls, folder, **ENCODINGS[encoding])
    assert codes == ["0"] * len(calls), err
    objects = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    assert len(objects) == 3 + 40
    assert "Traceback" not in err


def test_json_is_json_on_a_terminal_that_has_not_its_letters(folder: Path, place: Path) -> None:
    (folder / "bäume").mkdir()
    for encoding in ("latin-1", "ascii"):
        words = ("report", place / "runs", "--out", "bäume/ελ", "--json")
        codes, out, err = program([words], folder, **ENCODINGS[encoding])
        assert (codes, json.loads(out)["folder"], err) == (["0"], "bäume/ελ", "")


@pytest.mark.parametrize(
    "streams", ["2>&-", *(pytest.param(s, marks=pytest.mark.slow) for s in ("0<&-", "1>&-", "0<&- 1>&- 2>&-"))]
)
def test_a_closed_stream_ends_nothing(streams: str, place: Path, folder: Path) -> None:
    calls = [*pipeline(place)[:8], ("report", "nowhere", "--out", "x")]
    codes, out, err = program(calls, folder, streams=streams)
    assert codes == [*["0"] * 8, "1"], err
    assert (out == "") == ("1>&-" in streams)
    assert errors(err) == (
        "" if "2>&-" in streams else "Error: nowhere: no such folder of runs; make runs with hfc train\n"
    )


@pytest.mark.slow
def test_several_processes_train_with_all_streams_closed(place: Path, folder: Path) -> None:
    train = [place / word if word == "tree.csv" else word for word in TRAIN]
    words = ("train", place / "c.h5", *train, "--seeds", "0-1", "--jobs", 2, "--out", "runs")
    assert program([words], folder, streams="0<&- 1>&- 2>&-")[0] == ["0"]
    assert len(list((folder / "runs").iterdir())) == 2


def test_who_stops_reading_hears_nothing_more(place: Path, folder: Path) -> None:
    """As `| head` does: the pipe is closed before anything was written to it."""
    run = min((place / "runs").iterdir())
    for words in (("--help",), ("inspect", place / "c.h5"), ("predict", run, place / "s" / "Img", "-q")):
        reading, writing = os.pipe()
        os.close(reading)
        command = [*python(), "-m", "cli", *map(str, words)]
        done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False, cwd=folder)
        os.close(writing)
        assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.slow
def test_a_temporary_folder_is_asked_for_by_what_needs_one_alone(place: Path, folder: Path) -> None:
    run = min((place / "runs").iterdir())
    train = [place / word if word == "tree.csv" else word for word in TRAIN]
    calls = [
        ("train", place / "c.h5", *train, "--out", "runs"),
        ("extract", place / "s", *TINY, "--out", "d.h5"),
        ("predict", run, place / "s" / "Img"),
        ("extract", place / "s", *TINY, "--compile", "--out", "e.h5"),  # PyTorch's compiler has one
    ]
    codes, _, err = program(calls, folder, rig="no temporary folder")
    assert codes == ["0", "0", "0", "1"]
    assert errors(err).splitlines()[-1] == (
        "Error: No usable temporary directory found in ['/nowhere']; set TMPDIR to a folder that can be written to"
    )


def test_without_room_in_shared_memory_one_line_says_so(place: Path, folder: Path) -> None:
    train = [place / word if word == "tree.csv" else word for word in TRAIN]
    words = ("train", place / "c.h5", *train, "--seeds", "0-1", "--jobs", 2, "--out", "runs")
    codes, out, err = program([words], folder, rig="no room in /dev/shm")
    assert (codes, out) == (["1"], "")
    assert errors(err) == (
        "Error: --jobs 2: no processes can be started: No space left on device; is there room in /dev/shm? "
        "--jobs 1 needs none\n"
    )


def test_a_process_that_is_killed_is_said_in_one_line() -> None:
    import joblib

    from hfc import parallel

    with pytest.raises(RunError) as caught:
        list(parallel.run([joblib.delayed(os._exit)(1)] * 2, parallel.Crew(2), ordered=True))
    assert str(caught.value) == (
        "a process of --jobs 2 was ended from outside, perhaps because memory or /dev/shm was full; try fewer --jobs"
    )


def test_names_of_files_in_no_encoding_are_printed(place: Path, folder: Path) -> None:
    run = min((place / "runs").iterdir())
    name = os.fsdecode(b"r\xf6ck.jpg")
    picture = min((place / "s").rglob("*.jpg"))
    (folder / name).write_bytes(picture.read_bytes())
    (folder / "empty\udcff.jpg").write_bytes(b"")
    calls = [("predict", run, ".", "--format", form) for form in ("table", "json", "csv")]
    codes, out, err = program(calls, folder)
    assert codes == ["3"] * 3, err
    assert r"r\udcf6ck.jpg: " in out
    assert "Traceback" not in err
