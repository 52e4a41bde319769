"""Categories: a table as it is of few, folded of many; never more than a page can hold."""

import re
from pathlib import Path

import pytest

from hfc import runs
from hfc.report import categories, write_report
from hfc.report.rows import Leaderboard, read_leaderboards
from tests.report.test_folded import branches, lines
from tests.support.made_runs import tree_of, write_run


def board_of(folder: Path, leaves: int, methods: int = 1) -> Leaderboard:
    names = "".join(f"leaf {i:03d},group {i % 7}\n" for i in range(leaves))
    tree = tree_of(folder / "tree.csv", f"leaf,group\n{names}")
    for i in range(methods):
        write_run(folder / "runs" / str(i), tree, method=f"m{i}", rows=2 * leaves, skill=9.0 if i == 0 else 0.1)
    (board,) = read_leaderboards(runs.find([folder / "runs"]))
    return board


@pytest.mark.parametrize(("leaves", "folded"), [(100, False), (101, True)])
def test_more_than_a_hundred_categories_are_folded_on_the_page(leaves: int, folded: bool, tmp_path: Path) -> None:
    table = categories.table(board_of(tmp_path, leaves))
    assert len(table.rows) == leaves
    assert bool(table.folded) == folded
    write_report([tmp_path / "runs"], tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    listed = page.partition('<div class="folds">')[2].partition("<details class")[0] if folded else page
    assert len(re.findall(r'<th scope="row">leaf \d{3}</th>', listed)) == leaves
    assert page.count('<div class="folds">') == page.count('type="search"') == int(folded)
    if folded:
        field = re.search(
            r'<p class="find" hidden><label for="(.*?)">Find.*?<input type="search" id="(.*?)"', page, re.S
        )
        assert field
        assert field[1] == field[2]  # a screen reader names the field
        summaries = re.findall(r"<details>\n<summary><b>(.*?)</b>", page)
        assert summaries == [f"group {i}" for i in range(7)]
    text = (tmp_path / "out" / "report.md").read_text("utf-8")
    assert len(re.findall(r"^\| leaf \d{3} \|", text, re.M)) == leaves * (2 if folded else 1)


def test_of_too_many_categories_and_methods_the_page_says_what_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = board_of(tmp_path, 150, 4)
    whole = categories.table(board).folded
    assert whole
    assert "Shown" not in whole.note
    assert len(list(lines(whole))) == 150
    monkeypatch.setattr(categories, "MOST_FOLDED", 120)
    monkeypatch.setattr(categories, "MOST_CELLS", 360)
    part = categories.table(board).folded
    assert part
    assert part.note.endswith(
        "Shown: 120 of 150 categories, those with the most wrong answers of the best row, and 3 of 4 methods, the "
        "best; all are in the data of the picture."
    )
    best = [outcome.label for outcome in board.outcomes]
    assert {branch.header[2:] for branch in branches(part) if branch.rows} == {tuple(best[:3])}
    names = {line["leaf"] for _, line in lines(part)}
    assert names == {board.best.tree.leaves[leaf] for leaf in board.best.hardest(120)}
    assert len(categories.figure(board).data) == 150
    assert len(categories.figure(board).header) == 3 + 4
