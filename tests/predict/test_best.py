"""The best run is chosen on validation; the test split has no say."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.main import main
from hfc.errors import RunError
from hfc.predict.best import best_on_validation
from hfc.runs import Run
from tests.support.made_runs import tree_of, write_run
from tests.support.trained import rewrite_result


def made(folder: Path, name: str, top1: float, nll: float = 1.0, **changes: object) -> None:
    tree = tree_of(folder / "tree.csv")
    changes = {"test__top1": 1 - top1, "cache__labels_digest": "d", **changes}
    write_run(folder / "runs" / name, tree, rows=12, selected__val={"top1": top1, "nll": nll}, **changes)


def test_the_highest_on_validation_counts_whatever_the_test_says(tmp_path: Path) -> None:
    for name, top1 in (("a", 0.5), ("b", 0.75), ("c", 0.25)):
        made(tmp_path, name, top1)
    run, count = best_on_validation(tmp_path / "runs")
    assert (run.folder.name, count) == ("b", 3)


def test_of_equals_the_lower_nll_and_then_the_first_name_counts(tmp_path: Path) -> None:
    for name, nll in (("a", 0.9), ("c", 0.5), ("b", 0.5)):
        made(tmp_path, name, 0.5, nll)
    assert best_on_validation(tmp_path / "runs")[0].folder.name == "b"


@pytest.mark.parametrize(
    "changes",
    [{"cache__labels_digest": "other"}, {"rows__val": 19}, {"rows__inner": {"train": 0, "val": 3, "test": 0}}],
)
def test_runs_of_other_validation_rows_are_not_compared(changes: dict[str, object], tmp_path: Path) -> None:
    made(tmp_path, "a", 0.5)
    made(tmp_path, "b", 0.9, **changes)
    message = (
        f"{tmp_path / 'runs'}: holds runs of 2 data sets, whose numbers on validation cannot be compared: a (1 such), "
        "b (1 such); name a folder with runs of one data set"
    )
    with pytest.raises(RunError) as caught:
        best_on_validation(tmp_path / "runs")
    assert str(caught.value) == message


def test_runs_of_outer_folds_are_refused(tmp_path: Path) -> None:
    outer = {"number": 0, "folds": 3, "row": "flat", "search": "5", "searched": []}
    made(tmp_path, "a", 0.5, outer=outer)
    with pytest.raises(RunError, match="holds runs of outer folds, which are validated on other rows each"):
        best_on_validation(tmp_path / "runs")


def hfc(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


def test_predict_takes_it_and_says_which(trained: tuple[Run, Path], place: Path, tmp_path: Path, run: Path) -> None:
    other = run.rename(tmp_path / "other")
    rewrite_result(other, lambda result: result["selected"]["val"].update(top1=-1))
    shutil.copytree(trained[0].folder, tmp_path / "runs" / "best")
    other.rename(tmp_path / "runs" / "other")
    picture = place / "img" / "01.jpg"
    done = hfc("predict", tmp_path / "runs", "--best", picture, "--json")
    assert done.exit_code == 0, done.output
    assert done.stdout == hfc("predict", trained[0].folder, picture, "--json").stdout
    top1 = 100 * trained[0].result.selected.val["top1"]
    said = f"best of 2 runs on validation, top-1 {top1:.2f}: {tmp_path / 'runs' / 'best'}\n"
    assert done.stderr == said
    assert hfc("predict", tmp_path / "runs", picture).stderr.endswith(
        "runs: holds 2 runs; name one of them, or give --best: best, other\n"
    )


def test_runs_are_listed_by_date(tmp_path: Path) -> None:
    for name, day, top1 in (("a", 3, 0.5), ("b", 1, 0.25), ("c", 2, 0.75)):
        created = f"2026-01-0{day}T10:20:30+00:00"
        made(tmp_path, name, top1, created=created, method="flat", changed={"dropout": 0.2} if name == "b" else {})
    done = hfc("runs", tmp_path / "runs")
    lines = [line.split("  ") for line in done.stdout.splitlines()]
    table = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert table == [
        ["date", "method", "seed", "data", "tree", "val top-1", "test top-1", "folder"],
        *(
            [f"2026-01-0{day} 10:20", method, "0", "made-up.h5", "tree", val, test, str(tmp_path / "runs" / name)]
            for day, method, val, test, name in (
                (1, "flat dropout=0.2", "25.00", "75.00", "b"),
                (2, "flat", "75.00", "25.00", "c"),
                (3, "flat", "50.00", "50.00", "a"),
            )
        ),
        [],
        ["3 runs; next: hfc report ROOT --out DIR, or hfc predict ROOT --best IMAGE"],
    ]
    content = json.loads(hfc("runs", tmp_path / "runs", "--json").stdout)["runs"]
    assert [(run["seed"], run["val_top1"], run["top1"], run["created"][:10]) for run in content] == [
        (0, 0.25, 0.75, "2026-01-01"),
        (0, 0.75, 0.25, "2026-01-02"),
        (0, 0.5, 0.5, "2026-01-03"),
    ]
    assert (content[0]["folder"], content[0]["changed"]) == (str(tmp_path / "runs" / "b"), {"dropout": 0.2})
    assert hfc("runs", tmp_path / "none").stderr == (
        f"Error: {tmp_path / 'none'}: no such folder of runs; make runs with hfc train\n"
    )
