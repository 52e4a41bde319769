"""What stands in a report: the verdict, and rows that are reported apart."""

import re
from pathlib import Path

import numpy as np

from hfc.report import write_report
from hfc.report.contents import verdict
from hfc.report.rows import read_groups
from hfc.report.statistics import all_pairs
from hfc.runs import find
from tests.support.made_runs import tree_of, write_run
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
        (group,) = read_groups(find([folder]))
        return verdict(group, all_pairs(group.outcomes))

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
