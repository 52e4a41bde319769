"""Pictures of confused pairs, and right and wrong examples of each category."""

import re
from pathlib import Path

import numpy as np
import pytest

from hfc import runs
from hfc.errors import RunError
from hfc.report import examples, write_report
from hfc.report.document import Folded
from hfc.report.gallery import Gallery
from hfc.report.rows import Outcome, read_leaderboards
from tests.report.test_gallery import picture
from tests.support.made_runs import tree_of, write_run

TARGET = np.array([0, 0, 0, 0, 1, 1, 2, 3, 5])
ANSWER = np.array([0, 1, 1, 2, 1, 0, 2, 3, 5])
SURE = np.array([0.9, 0.5, 0.8, 0.6, 0.9, 0.7, 0.9, 0.9, 0.9])


@pytest.fixture
def outcome(tmp_path: Path) -> Outcome:
    tree = tree_of(tmp_path / "tree.csv")  # Tee, Tank, Jeans, Chinos, Shorts, Hat
    final = np.full((9, 6), 0.02, dtype=np.float32)
    final[np.arange(9), ANSWER] = SURE
    write_run(tmp_path / "runs", tree, target=TARGET, final=final, ids=[f"{i}.jpg" for i in range(9)])
    for i in range(9):
        picture(tmp_path / "root" / f"{i}.jpg", (20 * i, 0, 0))
    (board,) = read_leaderboards(runs.find([tmp_path / "runs"]))
    return board.best


def galleries(fold: Folded) -> dict[str, list[tuple[str, bool]]]:
    """Of each gallery in a fold and its folds the title, and the image of each picture and whether it is right."""
    shown = {}
    for block in fold.blocks:
        if isinstance(block, Folded):
            shown[block.title] = next(iter(galleries(block).values()))
        elif isinstance(block, Gallery):
            shown[block.title] = [(one.id, one.right) for one in block.mistakes]
            assert all(one.source for one in block.mistakes)
    return shown


def test_pairs_and_categories_have_their_pictures(outcome: Outcome, tmp_path: Path) -> None:
    pairs, categories = examples.folds(outcome, tmp_path / "root")
    assert pairs.title == "flat (tree): the most confused pairs"
    assert not pairs.open
    assert galleries(pairs) == {
        "Tee taken for Tank": [("2.jpg", False), ("1.jpg", False)],  # the surest first
        "Tee taken for Jeans": [("3.jpg", False)],
        "Tank taken for Tee": [("5.jpg", False)],
    }
    shown = galleries(categories)
    assert list(shown)[:2] == [
        "tops > Tee: 25.0% of 4 right, most often taken for Tank",
        "tops > Tank: 50.0% of 2 right, most often taken for Tee",
    ]
    assert list(shown.values())[:2] == [
        [("0.jpg", True), ("2.jpg", False), ("3.jpg", False), ("1.jpg", False)],
        [("4.jpg", True), ("5.jpg", False)],
    ]
    assert "hats > Hat: 100.0% of 1 right" in shown
    assert not any("Shorts" in title for title in shown)  # it has no test images


def test_so_many_of_each_are_shown(outcome: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PAIRS", "OF_A_PAIR", "CATEGORIES", "WRONG"):
        monkeypatch.setattr(examples, name, 1)
    pairs, categories = examples.folds(outcome, tmp_path / "root")
    assert galleries(pairs) == {"Tee taken for Tank": [("2.jpg", False)]}
    assert list(galleries(categories).values()) == [[("0.jpg", True), ("2.jpg", False)]]


def test_no_picture_at_all_is_an_error(outcome: Outcome, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="none of the 9 pictures to show can be read"):
        examples.folds(outcome, tmp_path)


def test_the_page_says_of_a_right_answer_that_it_is_right(outcome: Outcome, tmp_path: Path) -> None:
    write_report([tmp_path / "runs"], tmp_path / "out", images=tmp_path / "root")
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    folded = page.partition("right and wrong examples of each category")[2]
    assert len(re.findall(r'<dd class="right">right</dd>', folded)) == 5
    assert len(re.findall(r'<dd class="answer">', folded)) == 4
    assert "the most confused pairs" in (tmp_path / "out" / "report.md").read_text("utf-8")
