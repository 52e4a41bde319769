"""What stands in a report: the verdict, and rows that are reported apart."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from hfc.report import write_report
from hfc.report.contents import verdict
from hfc.report.rows import read_leaderboards
from hfc.report.statistics import all_pairs
from hfc.runs import find
from tests.support.made_runs import tree_of, two_methods, write_run
from tests.support.reports import rows_of


def test_the_verdict_says_who_is_best_by_how_much_and_whether_that_is_sure(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    target = np.arange(60) % 6
    right = np.eye(6, dtype=np.float32)[target]
    nearly, bad = right.copy(), np.roll(right, 1, axis=1)
    nearly[0] = np.roll(nearly[0], 1)

    def said(**finals: np.ndarray) -> str:
        folder = tmp_path / "-".join(finals)
        for method, final in finals.items():
            write_run(folder / method, tree, method=method, final=final, target=target)
        (board,) = read_leaderboards(find([folder]))
        return verdict(board, all_pairs(board.outcomes))

    alone = "flat (tree) has the highest top-1: 100.00% (1 seed, 60 test images)."
    assert said(flat=right) == f"{alone} There is no other row to compare it with."
    close = said(flat=right, levels=nearly)
    assert "It is 1.67 points above levels (tree) (95% interval +0.00 to +5.00, corrected p 1.000)" in close
    assert close.endswith("not significant, so these test images do not tell the two apart.")
    three = said(flat=right, levels=nearly, conditional=bad)
    assert three.endswith("Significantly worse: 1 of the 2 others (conditional (tree)).")
    assert "corrected p < 0.001): significant." in said(flat=right, conditional=bad)


def test_rows_on_other_images_are_reported_apart(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    write_run(tmp_path / "runs" / "a", tree)
    write_run(tmp_path / "runs" / "b", tree, method="levels", ids=[f"x{i}" for i in range(60)])
    write_report([tmp_path / "runs"], tmp_path / "out")
    names = {path.name for path in (tmp_path / "out" / "figures").iterdir()}
    assert {"1-severity.svg", "2-severity.svg", "1-tree-1-flat-tree.svg", "2-tree-1-levels-tree.svg"} <= names
    assert rows_of(tmp_path / "out" / "differences.csv") == []
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert page.count('class="verdict"') == 2
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids))


def test_groups_of_test_images_are_counted_wherever_test_images_are(tmp_path: Path) -> None:
    two_methods(tmp_path / "runs", tree_of(tmp_path / "tree.csv"), groups=[f"{i // 4}" for i in range(60)])
    summary = write_report([tmp_path / "runs"], tmp_path / "out")
    assert "(3 seeds, 60 test images in 15 groups)." in summary.table
    for name in ("report.html", "report.md"):
        text = " ".join((tmp_path / "out" / name).read_text("utf-8").split())
        assert "(3 seeds, 60 test images in 15 groups)." in text
        assert "All rows were tested on the same 60 images in 15 groups with the same labels." in text
        assert "over 15 groups of images; " in text
        assert "Intervals and p are over the 15 groups of the test images." in text
        assert "p: exact sign-flip test over groups" in text
    lines = rows_of(tmp_path / "out" / "differences.csv")
    assert {(line["images"], line["groups"]) for line in lines} == {("60", "15")}
    assert [line["test"] for line in lines] == ["exact sign-flip test", "", "", ""]
    (found,) = json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))["differences"]
    assert (found["images"], found["groups"], found["test"]) == (60, 15, "exact sign-flip test")
    assert str(found["p"]) == lines[0]["p"]


def test_without_groups_nothing_is_said_of_them(place: Path) -> None:
    for name in ("report.html", "report.md"):
        text = " ".join((place / "report" / name).read_text("utf-8").split())
        assert "All rows were tested on the same 60 images with the same labels." in text
        assert "60 test images)." in text
        assert "p: exact sign-flip test over images" in text
        assert "over groups" not in text
    lines = rows_of(place / "report" / "differences.csv")
    assert {(line["images"], line["groups"]) for line in lines} == {("60", "60")}
    assert lines[0]["test"] == "exact sign-flip test"


def test_beside_a_baseline_all_pairs_are_folded_and_there_are_as_many_tests_as_other_rows(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    for i in range(6):
        write_run(tmp_path / "runs" / str(i), tree, method=f"m{i}", skill=0.3 * i)
    write_report([tmp_path / "runs"], tmp_path / "all")
    write_report([tmp_path / "runs"], tmp_path / "one", baseline="m2")
    folded = re.compile(r"<details[^>]*>\n<summary>All 15 pairs</summary>(.*?)</details>", re.DOTALL)
    for name in ("all", "one"):
        page = (tmp_path / name / "report.html").read_text("utf-8")
        (inside,) = folded.findall(page)
        assert '<details class="wide" open>\n<summary>All' not in page
        assert inside.count("<tr") == 1 + 15
        assert "p corrected: for all 15 pairs." in inside
        lines = rows_of(tmp_path / name / "differences.csv")
        tests = [line["second"] for line in lines if line["p_corrected"]]
        assert len(tests) == {"all": 15, "one": 5}[name]
    assert tests == ["m2 (tree)"] * 5
    p = [float(line["p"]) for line in lines if line["p"]]
    least = min(line["p_corrected"] for line in lines if line["p_corrected"] and float(line["p"]) == min(p))
    assert float(least) == pytest.approx(min(1.0, 5 * min(p)))  # Holm's first step
    outside = folded.sub("", page)
    table = outside.partition('id="table-differences"')[2].partition("</table>")[0]
    assert table.count("<tr") == 1 + 5
    assert folded.sub("", (tmp_path / "all" / "report.html").read_text("utf-8")).count('id="table-differences"') == 0


def test_few_pairs_stand_open(place: Path) -> None:
    assert "pairs</summary>" not in (place / "report" / "report.html").read_text("utf-8")
