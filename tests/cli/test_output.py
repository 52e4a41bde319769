"""Text or JSON, loud or quiet, bars on a terminal alone, and what the shell completes."""

import io
import json
import os
import pty
import re
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from cli.main import main
from cli.output import watch
from cli.train import _total
from hfc.progress import bar, steps, watched_by
from hfc.runs import find
from tests.support.made_up import small_cache, write_tree_csv
from tests.support.processes import python
from tests.support.readme import ROOT
from tests.support.watching import Watcher

TINY = "--backbone test_efficientnet --weights random --image-size 32"


def hfc(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    small_cache(tmp_path / "c.h5")
    write_tree_csv(tmp_path / "tree.csv")
    (tmp_path / "grid.toml").write_text('hierarchy = "tree.csv"\nepochs = 1\n[grid]\ndropout = [0.2, 0.8]\n')
    (tmp_path / "plan.toml").write_text(
        'methods = ["flat"]\nsearch_seeds = [0]\nseeds = [1]\nepochs = 1\n[grid]\ndropout = [0.2]\n'
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


UNUSED = {"without features": 0, "without label": 0, "without split": 0}
ROWS = {"rows": [{"train": 216, "val": 72, "test": 72, "unused": UNUSED}]}
TRAIN = "train c.h5 --hierarchy tree.csv --method flat --seeds 0-1 --set epochs=1 --out runs"
# Commands in an order in which each finds what it needs, and what is in their JSON.
ANSWERS: list[tuple[str, int, Any]] = [
    ("sample drawn --images 40", 0, {"folder": "drawn", "images": 40, "seed": 0}),
    (f"extract drawn {TINY} --out d.h5", 0, {"path": "d.h5", "rows": 40, "dim": 256, "failures": [], "written": True}),
    ("inspect d.h5", 0, {"path": "d.h5", "shape": [40, 1, 256], "dtype": "float16"}),
    ("verify d.h5", 0, {"path": "d.h5", "problems": []}),
    (TRAIN, 0, {"out": "runs"}),
    ("sweep c.h5 --grid grid.toml --out sweep", 0, {"seeds": [0], "best": "sweep/best.toml", **ROWS}),
    ("ablation c.h5 --hierarchy tree.csv --plan plan.toml --out ablation", 0, {"trainings": 2, **ROWS}),
    (
        "review c.h5 --hierarchy tree.csv --method flat --set epochs=1 --folds 3 --out review",
        0,
        {"judged": 360, "folds": 3, "lone": [], "files": ["review/review.csv", "review/review.json"]},
    ),
    (
        "curve c.h5 --hierarchy tree.csv --method flat --seeds 0 --shares 0.5,1 --set epochs=1 --out curve",
        0,
        {"out": "curve"},
    ),
    ("runs runs", 0, {}),
    ("report runs --out report", 0, {"folder": "report", "runs": 2, "wrong": []}),
    ("doctor", 0, {"ok": True}),
]


# The bars of their main work: what is shown last, how much is done, of how much, in what unit.
BARS = {
    "sample": [("draw", 40, 40, "img")],
    "extract": [("extract", 40, 40, "img")],
    "train": [("2/2 flat seed 1", 2, 2, "epoch")],
    "curve": [("2/2 flat seed 0", 2, 2, "epoch")],
    "sweep": [("search", 2, 2, "run")],
    "review": [("review", 3, 3, "fold")],
    "ablation": [("testing flat", 2, 2, "run"), ("search", 1, 1, "run")],
}


def test_every_command_answers_with_one_json_object_and_no_text_and_shows_how_far_it_is(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {words.split()[0] for words, _, _ in ANSWERS} == set(main.commands) - {"demo", "predict", "rename", "export"}
    watcher = Watcher()
    monkeypatch.setattr("cli.main.watch", watcher)
    for words, code, expected in ANSWERS:
        watcher.bars.clear()
        result = hfc(*words.split(), "--json")
        assert (result.exit_code, result.stderr) == (code, ""), words
        content = json.loads(result.stdout)
        assert content | expected == content, words
        bars = [(bar.what, bar.done, bar.total, bar.unit) for bar in watcher.bars if bar.unit]
        assert bars == BARS.get(words.split()[0], [])
        assert all(bar.closed for bar in watcher.bars), words


def test_the_bar_of_a_training_learns_how_long_a_run_is(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hfc.train.settling.fitting_epochs", lambda rows: 4)
    shown: list[tuple[int, int | None]] = []
    watcher = Watcher(lambda bar: shown.append((bar.done, bar.total)) if bar.unit == "epoch" else None)
    monkeypatch.setattr("cli.main.watch", watcher)
    words = "train c.h5 --hierarchy tree.csv --method flat --set epochs=0 --set batch_size=64 --set reduced=8"
    assert hfc(*words.split(), "--seeds", "1", "--out", "lengths").exit_code == 0
    epochs = [(n, 4) for n in (1, 2, 3, 4)]
    assert [one for one in shown if one[0]] == [*epochs, (4, 4)]
    # The first run is there already, and the second one is found to be as long.
    shown.clear()
    assert hfc(*words.split(), "--seeds", "1-2", "--out", "lengths").exit_code == 0
    assert [one for one in shown if one[0]] == [(4, 8), *[(n, 8) for n in (5, 6, 7, 8)], (8, 8)]


@pytest.mark.parametrize(
    ("lengths", "total"), [([0, 0], None), ([40], 40), ([40, 13], 53), ([0, 40, 20], 90), ([5, 0, 0, 0], 20)]
)
def test_a_run_of_unknown_length_counts_as_the_mean_of_the_others(lengths: list[int], total: int | None) -> None:
    assert _total(lengths) == total


def test_json_of_a_report_holds_the_verdict_and_the_table(place: Path) -> None:
    hfc(*TRAIN.split(), "--method", "linear")
    content = json.loads(hfc("report", "runs", "--out", "report", "--json").stdout)
    assert content["verdict"] == json.loads((place / "report" / "results.json").read_text())["verdicts"]
    results = [json.loads(file.read_text()) for file in Path("runs").glob("*/result.json")]
    for method in ("flat", "linear"):
        (row,) = [row for row in content["table"] if row["method"] == method]
        values = {r["seed"]: r["test"]["top1"] for r in results if r["method"] == method}
        assert row["label"].startswith(f"{method} (tree)")
        assert (row["hierarchy"], row["seeds"]) == ("tree", sorted(values))
        expected = {
            "mean": pytest.approx(np.mean([*values.values()])),
            "sd": pytest.approx(np.std([*values.values()], ddof=1)),
        }
        assert row["metrics"]["top1"] == expected
        assert set(row["metrics"]) == {"top1", "top3", "top5", "hF", "mistake_severity"}


def test_predict_answers_with_one_json_object_a_line(place: Path) -> None:
    hfc("sample", "drawn", "--images", "40")
    hfc("extract", "drawn", *TINY.split(), "--out", "d.h5")
    words = "train d.h5 --hierarchy deepfashion-5 --method flat --set epochs=1 --set batch_size=8 --out own"
    (run,) = json.loads(hfc(*words.split(), "--json").stdout)["runs"]
    pictures = sorted(Path("drawn").rglob("*.jpg"))[:3]
    result = hfc("predict", run["folder"], *pictures, "--json", "-q")
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert (result.exit_code, result.stderr) == (0, "")
    assert [answer["id"] for answer in found] == [str(picture) for picture in pictures]
    files = json.loads(hfc("export", run["folder"], "--hf", "hf", "--json", "-q").stdout)["files"]
    assert sorted(files) == sorted(str(file) for file in Path("hf").iterdir())


def test_json_of_a_training_has_what_the_runs_hold(place: Path) -> None:
    found = json.loads(hfc(*TRAIN.split(), "--json").stdout)["runs"]
    tests = {str(run.folder): run.result.plain()["test"] for run in find([Path("runs")])}
    assert [run["seed"] for run in found] == [0, 1]
    assert {run["folder"]: run["test"] for run in found} == tests
    again = json.loads(hfc(*TRAIN.split(), "--json").stdout)["runs"]
    assert [run["trained"] for run in again] == [False, False]


def test_json_of_a_damaged_cache_lists_the_damage(place: Path) -> None:
    Path("c.h5").write_bytes(Path("c.h5").read_bytes()[:-100])
    result = hfc("verify", "c.h5", "--json")
    assert result.exit_code == 1
    assert "truncated" in json.loads(result.stdout)["problems"][0]


def test_json_of_an_extraction_with_failures_still_ends_with_3(place: Path) -> None:
    Path("m.csv").write_text("path,label,split\nnone.jpg,Tee,train\n")
    result = hfc("extract", "m.csv", *TINY.split(), "--out", "m.h5", "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["failures"] == [["none.jpg", "cannot read the file: No such file or directory"]]


def test_loudness(place: Path) -> None:
    """As other processes see it: pytest's own handlers are in the way of the program's log."""
    Path("l.csv").write_text("id,label\n00000.jpg,Tee\nother.jpg,Tee\n")

    def stderr(*words: str) -> str:
        return subprocess.run([*python(), "-m", "cli", *words], capture_output=True, text=True, check=False).stderr

    other = (*TRAIN.split(), "--labels", "l.csv")
    warning = "WARNING: l.csv: 359 rows of the cache are not in it"
    error = "Error: c.h5: the val split is empty"
    first, second = stderr(*other).splitlines()
    assert (first.startswith(warning), second.startswith(error)) == (True, True)
    assert stderr("-q", *other).startswith(error)
    assert stderr("verify", "c.h5") == ""
    assert stderr("-v", "verify", "c.h5").startswith("INFO: reading features: ")


def test_loudness_is_understood_after_the_command_too_and_forgotten_afterwards(place: Path) -> None:
    import logging

    before = logging.getLogger().level
    assert hfc("verify", "c.h5", "-q").exit_code == 0
    assert hfc("-v", "verify", "c.h5").exit_code == 0
    assert logging.getLogger().level == before


def on_terminal(words: list[str]) -> str:
    """What a program writes to stderr when that is a terminal."""
    mine, its = pty.openpty()
    termios.tcsetwinsize(its, (24, 100))  # a bar in a terminal without columns is nothing
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=its) as process:
        os.close(its)
        said = b""
        try:
            while chunk := os.read(mine, 65536):
                said += chunk
        except OSError:  # nobody has the terminal open any more
            pass
        os.close(mine)
    assert process.returncode == 0
    return said.decode()


def test_bars_are_drawn_on_a_terminal_unless_quiet(place: Path) -> None:
    words = [*python(), "-m", "cli", "sample", "--images", "40"]
    assert "draw:" in on_terminal([*words, "drawn"])
    assert on_terminal([*words, "again", "-q"]) == ""


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True

    def frames(self) -> list[str]:
        """What stood on its line, one after the other."""
        return [frame.strip() for frame in self.getvalue().split("\r") if frame.strip()]


@contextmanager
def on_screen(monkeypatch: pytest.MonkeyPatch, loudness: int = 0) -> Iterator[Screen]:
    """A command that writes to a terminal; no fixture, as pytest puts its own stderr in place after those."""
    with monkeypatch.context() as patch, click.Context(click.Command("extract")) as context, watched_by(watch):
        patch.setattr(sys, "stderr", Screen())
        context.meta["hfc.loudness"] = loudness
        yield sys.stderr


def test_a_bar_shows_what_is_done_and_the_work_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    with on_screen(monkeypatch) as screen, bar("loading", unit="img") as shown:
        assert screen.frames() == ["loading: 0img [00:00, ?img/s]"]
        shown.show(30, 40, what="extract", note="read 0.1 s")
        last = screen.frames()[-1]
        assert re.fullmatch(r"extract:  75%\|.+\| 30/40 \[00:00<\?, \?img/s, read 0\.1 s\]", last), last
        time.sleep(0.11)  # drawn at most ten times a second
        shown.show(35)
        last = screen.frames()[-1]
        assert re.fullmatch(r"extract:  88%\|.+\| 35/40 \[00:00<00:00, +\d\d\.\d+img/s, read 0\.1 s\]", last), last
    assert screen.frames()[-1] == last  # and gone: blanks alone are left
    assert screen.getvalue().endswith("\r")


def test_quick_steps_draw_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with on_screen(monkeypatch) as screen:
        assert list(steps("abc", "spelling")) == ["a", "b", "c"]
    assert screen.frames() == []


def test_a_quiet_program_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with on_screen(monkeypatch, loudness=-1) as screen, bar("loading", unit="img") as shown:
        shown.show(30, 40, what="extract", note="read 0.1 s")
    assert screen.getvalue() == ""


def complete(line: str) -> list[str]:
    """What bash would be offered after `line`."""
    environment = {"_HFC_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    code = "from cli.main import main; main(prog_name='hfc')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment | {"PYTHONPATH": str(ROOT)},
    )
    return [offer.split(",", 1)[1] for offer in done.stdout.splitlines() if offer.startswith("plain,")]


@pytest.mark.parametrize(
    ("line", "offers"),
    [
        ("hfc abl", ["ablation"]),
        ("hfc train --method flat+", ["flat+hxe", "flat+soft-labels", "flat+ps"]),
        ("hfc train --hierarchy deep", ["deepfashion-10", "deepfashion-5"]),
        ("hfc train --set drop", ["dropout="]),
        ("hfc train --set schedule=c", ["schedule=cosine", "schedule=constant"]),
        ("hfc extract --set compile=", ["compile=true", "compile=false"]),
        ("hfc extract --resize ", ["squash", "pad", "center-crop"]),
        ("hfc train --over", ["--overwrite"]),
        ("hfc extract --backbone tf_efficientnet_lite", [f"tf_efficientnet_lite{i}" for i in range(5)]),
        ("hfc extract --weights w", ["wheel"]),
        ("hfc ablation --plan ", ["methods", "nested", "weightings"]),
    ],
)
def test_the_shell_completes(line: str, offers: list[str]) -> None:
    assert complete(line) == offers


def test_all_of_timms_backbones_are_completed_without_loading_it() -> None:
    code = "import sys, cli.options as o; print(*o._backbones()); assert not {'timm', 'torch'} & {*sys.modules}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    import timm

    assert sorted(done.stdout.split()) == sorted(timm.list_models())
