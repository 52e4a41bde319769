"""Each category by itself, against naive loops over the answers."""

import html
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from hfc import runs
from hfc.report import confused, write_report
from hfc.report.cells import Table
from hfc.report.rows import Outcome, read_leaderboards
from tests.support.made_runs import TREE, tree_of, write_run

UNEVEN = "kind,group,leaf\ntops,long,Coat\ntops,long,Shirt\ntops,,Tee\nhats,,Cap\nhats,,Hat\n"


def outcome_of(folder: Path, text: str = TREE, seeds: int = 3, rows: int = 70, unseen: int = 1) -> Outcome:
    """A row of random answers; the last leaves have no test images."""
    tree = tree_of(folder / "tree.csv", text)
    target = np.random.default_rng(1).integers(len(tree.leaves) - unseen, size=rows)
    for seed in range(seeds):
        write_run(folder / "runs" / str(seed), tree, seed=seed, skill=1.0, target=target)
    (board,) = read_leaderboards(runs.find([folder / "runs"]))
    return board.best


def answers(outcome: Outcome) -> list[tuple[str, str]]:
    """The true and the answered path of each image and seed."""
    return [
        (" > ".join(outcome.tree.path(int(t))), " > ".join(outcome.tree.path(int(a))))
        for seed in outcome.predicted
        for t, a in zip(outcome.target, seed, strict=True)
    ]


@pytest.mark.parametrize("text", [TREE, UNEVEN])
def test_recall_precision_and_f1_are_counted_over_all_seeds(text: str, tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path, text)
    pairs = answers(outcome)
    for one in confused.categories(outcome):
        name = " > ".join(outcome.tree.path(one.leaf))
        own = [answer for truth, answer in pairs if truth == name]
        assert one.images == len(own) / 3
        if not own:
            assert one[2:] == (None, None, None, None, None)
            continue
        right, given = own.count(name), [truth for truth, answer in pairs if answer == name]
        assert one.recall == pytest.approx(right / len(own))
        assert one.precision == (pytest.approx(right / len(given)) if given else None)
        assert one.f1 == pytest.approx(2 * right / (len(own) + len(given)))
        wrong = Counter(answer for answer in own if answer != name)
        parent = name.rpartition(" > ")[0]
        away = sum(n for answer, n in wrong.items() if answer.rpartition(" > ")[0] != parent)
        assert one.elsewhere == pytest.approx(away / wrong.total())
        assert one.taken
        assert wrong[" > ".join(outcome.tree.path(one.taken[0]))] == max(wrong.values())
        assert one.taken[1] == pytest.approx(max(wrong.values()) / len(own))


@pytest.mark.parametrize("text", [TREE, UNEVEN])
def test_the_most_confused_pairs_come_first(text: str, tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path, text)
    wrong = Counter((truth, answer) for truth, answer in answers(outcome) if truth != answer)
    support = Counter(truth for truth, _ in answers(outcome))
    pairs = confused.pairs(outcome, 5)
    assert [pair.images * 3 for pair in pairs] == pytest.approx(sorted(wrong.values(), reverse=True)[:5])
    for pair in pairs:
        truth, answer = (" > ".join(outcome.tree.path(leaf)) for leaf in (pair.truth, pair.answer))
        assert wrong[truth, answer] == pytest.approx(3 * pair.images)
        assert pair.share == pytest.approx(wrong[truth, answer] / support[truth])
        steps = [i for i, (a, b) in enumerate(zip(truth.split(" > "), answer.split(" > "), strict=False)) if a != b]
        assert pair.height >= 1
        assert (pair.height == len(outcome.tree.levels)) == (steps[0] == 0)  # else they share a node below the root


def rows_of(table: Table) -> dict[str, dict[str, str]]:
    return {row[0].text: dict(zip(table.header, (cell.text for cell in row), strict=True)) for row in table.rows}


def test_the_table_has_the_accuracy_first_and_no_row_without_test_images(tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path)
    table = confused.table(outcome)
    assert table.header == (
        *("leaf", "recall %", "precision %", "F1 %", "test images", "most often taken for", "elsewhere %", "group"),
    )
    shown = rows_of(table)
    assert shown.keys() == {outcome.tree.leaves[leaf] for leaf in set(outcome.target.tolist())}
    assert "Tee" in shown
    assert shown["Tee"]["group"] == "tops"
    (missing,) = confused.unseen(outcome)
    assert missing.rpartition(" > ")[2] not in shown
    write_report([tmp_path / "runs"], tmp_path / "out")
    page = html.unescape((tmp_path / "out" / "report.html").read_text("utf-8"))
    fold = re.search(r"<summary>1 without test images</summary>(.*?)</details>", page, re.DOTALL)
    assert fold
    assert missing in fold[1]


def test_of_many_categories_the_worst_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confused, "MOST_LISTED", 2)
    outcome = outcome_of(tmp_path)
    table = confused.table(outcome)
    assert len(table.rows) == 2
    assert table.note.endswith("Shown: the 2 categories with the most wrong answers.")


def test_a_row_without_mistakes_has_no_pairs(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    target = np.arange(12) % 6
    write_run(tmp_path / "runs", tree, target=target, final=np.eye(6, dtype=np.float32)[target])
    (board,) = read_leaderboards(runs.find([tmp_path / "runs"]))
    assert confused.pairs(board.best) == []
    shown = rows_of(confused.table(board.best))
    assert {row["most often taken for"] for row in shown.values()} == {"–"}
    assert {row["F1 %"] for row in shown.values()} == {"100.0"}
    write_report([tmp_path / "runs"], tmp_path / "out")
    assert "Most confused" not in (tmp_path / "out" / "report.md").read_text("utf-8")
