"""The tables of rows beside a baseline, in every format of the report."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from cli.main import main
from hfc import runs
from hfc.report import nested, write_report
from hfc.report.resampled import with_baseline
from hfc.report.rows import read_leaderboards
from tests.support.made_runs import tree_of, write_folds, write_run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the outer folds of two methods, two seeds each, and their report."""
    folder = tmp_path_factory.mktemp("nested")
    tree = tree_of(folder / "tree.csv")
    for method, skill in (("flat", 1.0), ("levels", 3.0)):
        for seed in (4, 5):
            write_folds(folder / "runs", tree, method=method, seed=seed, skill=skill)
    write_report([folder / "runs"], folder / "report")
    return folder


def table_of(place: Path, title: str) -> list[dict[str, str]]:
    """The rows of a table in report.md, by the names of its columns."""
    text = (place / "report" / "report.md").read_text("utf-8").partition(f"### {title}\n")[2]
    lines = [line for line in text.partition("\n#")[0].splitlines() if line.startswith("|")]
    cells = [[cell.strip().replace("\\", "") for cell in line.strip("|").split(" | ")] for line in lines]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def test_every_metric_of_every_row_has_its_interval(place: Path) -> None:
    board, pairs = with_baseline(read_leaderboards(runs.find([place / "runs"]))[0])
    levels, flat = board.outcomes
    first, second = table_of(place, "The methods, best first")
    assert [row["method"] for row in (first, second)] == ["levels (tree)", "flat (tree)"]
    for outcome, row in ((levels, first), (flat, second)):
        for key, column, scale, digits in (
            ("top1", "top-1 %", 100, 2),
            ("top1_macro", "macro top-1 %", 100, 2),
            ("mistake_severity", "mistake severity", 1, 3),
            ("distance@5", "distance@5", 1, 3),
            ("nll", "NLL", 1, 3),
        ):
            interval = board.intervals[outcome][key]
            mean, low, high = (f"{scale * n:.{digits}f}" for n in (outcome.row.mean(key), interval.low, interval.high))
            assert row[column].strip("*") == f"{mean} [{low}, {high}]"
            assert interval.low <= outcome.row.mean(key) <= interval.high
        chance = nested.by_chance(outcome)
        assert row["ECE %"].strip("*") == f"{100 * outcome.row.mean('ece'):.2f} ({100 * chance:.2f})"
    assert first["top-1 %"].startswith("**")
    assert (second["p, from flat (tree)"], second["seeds"]) == ("–", "2")
    assert first["p, from flat (tree)"] == ("< 0.001" if pairs[0].p < 0.001 else f"{pairs[0].p:.3f}") + " *"


def test_differences_are_from_the_baseline(place: Path) -> None:
    _, (pair,) = with_baseline(read_leaderboards(runs.find([place / "runs"]))[0])
    (row,) = table_of(place, "Differences from flat (tree)")
    gap = pair.intervals["distance@5"]
    words = f"{gap.difference:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]".replace("-", "−")
    assert (row["method"], row["distance@5"]) == ("levels (tree)", words)
    top1 = pair.intervals["top1"]
    assert row["top-1, points"].startswith(f"{100 * top1.difference:+.2f} [")
    text = (place / "report" / "report.md").read_text("utf-8")
    assert "p: exact sign-flip test over images" in text
    assert "for the comparisons with flat (tree) alone" in text


def test_the_verdict_says_what_is_better_than_the_baseline(place: Path) -> None:
    board, pairs = with_baseline(read_leaderboards(runs.find([place / "runs"]))[0])
    own, gap = board.intervals[board.best]["top1"], pairs[0].intervals["top1"]
    assert nested.verdict(board, pairs) == (
        f"levels (tree) has the highest top-1: {100 * own.difference:.2f}% [{100 * own.low:.2f}, {100 * own.high:.2f}] "
        "(2 seeds, 60 test images, each tested once in 3 outer folds). Top-1 against flat (tree), in points, p "
        f"corrected: significantly higher: levels (tree) (+{100 * gap.difference:.2f} [+{100 * gap.low:.2f}, "
        f"+{100 * gap.high:.2f}], p < 0.001)."
    )
    alone, none = with_baseline(read_leaderboards(runs.find(sorted((place / "runs").glob("levels-*"))))[0])
    assert nested.verdict(alone, none).endswith("There is no other row to compare it with.")


def test_many_rows_that_are_not_told_apart_are_counted(place: Path) -> None:
    board, (pair,) = with_baseline(read_leaderboards(runs.find([place / "runs"]))[0])
    level = replace(pair, p=0.4)
    few, many = (
        nested.verdict(board, [*[level] * count, pair]).partition("significantly higher: ")[2] for count in (3, 4)
    )
    assert few.partition("not told apart: ")[2].count("levels (tree) (") == 3
    assert many.startswith("levels (tree) (")
    assert many.endswith("; not told apart: 4 rows.")


def test_what_each_fold_chose_is_listed(place: Path) -> None:
    rows = table_of(place, "What each outer fold chose")
    choices = {"fold 0": "learning_rate=0.1", "fold 1": "learning_rate=0.1", "fold 2": "learning_rate=0.2"}
    assert rows == [{"method": f"{name} (tree)", **choices} for name in ("levels", "flat")]


def test_chance_alone_gives_the_error_of_true_confidences(place: Path) -> None:
    (board,) = read_leaderboards(runs.find([place / "runs"]))
    rng, sure = np.random.default_rng(3), board.best.confidence
    errors = []
    for _ in range(300):
        for row in sure:
            right = rng.random(60) < row
            bins = [[i for i in range(60) if b / 15 < row[i] <= (b + 1) / 15] for b in range(15)]
            errors.append(sum(abs(sum(float(right[i]) - row[i] for i in inside)) for inside in bins) / 60)
    assert nested.by_chance(board.best) == pytest.approx(np.mean(errors), rel=0.06)


def test_csv_json_and_latex_carry_the_intervals(place: Path) -> None:
    board, _ = with_baseline(read_leaderboards(runs.find([place / "runs"]))[0])
    expected = board.intervals[board.best]["top1_macro"]
    lines = csv.DictReader(io.StringIO((place / "report" / "results.csv").read_text("utf-8")))
    row = next(line for line in lines if line["label"] == "levels (tree)")
    assert (float(row["top1_macro_low"]), float(row["top1_macro_high"])) == (expected.low, expected.high)
    content = json.loads((place / "report" / "results.json").read_text("utf-8"))
    row = next(one for one in content["rows"] if one["label"] == "levels (tree)")
    assert row["intervals"]["top1_macro"] == {"low": expected.low, "high": expected.high}
    assert row["metrics"]["top1"] == board.best.row.mean("top1")
    latex = (place / "report" / "methods.tex").read_text("utf-8")
    assert f"{100 * board.best.row.mean('top1_macro'):.2f} {{[}}{100 * expected.low:.2f}" in latex
    assert latex.count(r"\begin{tabular}") == 2
    page = (place / "report" / "report.html").read_text("utf-8")
    assert f"{100 * board.best.row.mean('top1_macro'):.2f} [{100 * expected.low:.2f}" in page


def test_a_report_of_ordinary_runs_compares_with_the_row_that_is_named(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    for method, skill in (("flat", 1.0), ("levels", 3.0), ("hmcn-f", 2.0)):
        write_run(tmp_path / "runs" / method, tree, method=method, skill=skill)
    words = ["report", str(tmp_path / "runs"), "--out", str(tmp_path / "report")]
    done = CliRunner().invoke(main, [*words, "--baseline", "hmcn-f"], catch_exceptions=False)
    assert done.exit_code == 0
    names = [row["method"] for row in table_of(tmp_path, r"Differences from hmcn-f (tree)")]
    assert names == ["levels (tree)", "flat (tree)"]
    assert done.stdout.startswith("method         top-1 %")
    assert "(1 seed, 60 test images). Top-1 against hmcn-f (tree), in points" in done.stdout
    again = CliRunner().invoke(main, words, catch_exceptions=False)
    assert again.exit_code == 0
    assert not (tmp_path / "report" / "methods.tex").exists()
