"""The report's tables."""

from pathlib import Path

from hfc.report import write_report
from tests.support.made_runs import TREE, tree_of, write_run


def test_only_what_may_be_compared_is_marked_as_the_best(tmp_path: Path) -> None:
    trees = [tree_of(tmp_path / "one.csv"), tree_of(tmp_path / "two.csv", TREE.replace("Hat,hats", "Hat,tops"))]
    for tree, skill in zip(trees, (1.0, 3.0), strict=True):
        write_run(tmp_path / "runs" / tree.name, tree, skill=skill)
    write_report([tmp_path / "runs" / "one"], tmp_path / "alone")
    assert "**" not in (tmp_path / "alone" / "report.md").read_text("utf-8")
    write_report([tmp_path / "runs"], tmp_path / "out")
    lines = (tmp_path / "out" / "report.md").read_text("utf-8").partition("## In the tree")[2].splitlines()
    header = next(line for line in lines if line.startswith("| method")).split(" | ")
    better = next(line for line in lines if line.startswith("| flat (two)")).split(" | ")
    marked = [name for name, cell in zip(header, better, strict=True) if cell.startswith("**")]
    assert marked == ["top-1 %", "macro top-1 %"]  # the others depend on the tree
    assert "Rows have different trees" in (tmp_path / "out" / "report.md").read_text("utf-8")


def test_provenance_says_once_what_rows_share_and_whose_it_is_where_they_differ(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    write_run(tmp_path / "runs" / "a", tree)
    write_run(tmp_path / "runs" / "b", tree, method="levels", machine__device="cuda:0", seed=4)
    write_report([tmp_path / "runs"], tmp_path / "out")
    section = (tmp_path / "out" / "report.md").read_text("utf-8").partition("## Provenance")[2]
    lines = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")][2:]
    assert [line[1:] for line in lines if line[0] == "weights"] == [["hub (bbbbbbbbbbbb)", "all"]]
    assert [line[1:] for line in lines if line[0] == "commit"] == [["c" * 12, "all"]]
    assert [line[2] for line in lines if line[1].startswith("cuda:0, fp32")] == ["levels (tree)"]
    assert {tuple(line[1:]) for line in lines if line[0] == "seeds"} == {("0", "flat (tree)"), ("4", "levels (tree)")}
    assert {line[0] for line in lines} >= {"cache", "data", "hierarchy", "feature key", "labels", "machine"}
