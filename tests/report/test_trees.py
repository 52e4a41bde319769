"""Figures of the tree and of confusions."""

import csv
import re
from collections import Counter
from pathlib import Path

import pytest

from hfc.report import write_report
from hfc.report.rows import read_leaderboards
from hfc.runs import find
from tests.support.made_runs import tree_of, two_methods
from tests.support.reports import rows_of

SIZES = {"tops": 2, "trousers": 3, "hats": 1}  # leaves of ten test images each


ONE = dict.fromkeys(("Tee", "Tank", "Jeans", "Chinos", "Shorts"), 1)


def test_confusion_counts_what_was_said(place: Path) -> None:
    (board,) = read_leaderboards(find([place / "runs"]))
    best, tree = board.best, board.best.tree
    for i, parent in enumerate([None, 0, 1]):  # hats have one child, and so no matrix
        (file,) = (place / "report" / "figures").glob(f"confusion-1-flat-tree-{i}.csv")
        rows = rows_of(file)
        names = {row["truth"] for row in rows}
        assert len(rows) == len({(row["truth"], row["answer"]) for row in rows})
        assert all(float(row["images"]) for row in rows)  # what is empty is left out, and nothing else:
        images = sum(10 * (SIZES if parent is None else ONE)[name] for name in names)
        assert sum(float(row["images"]) for row in rows) == pytest.approx(images)
        for row in rows:
            level = 0 if parent is None else 1
            names = tree.nodes[level]
            counts = 0
            for seed in range(3):
                for truth, said in zip(best.target, best.predicted[seed], strict=True):
                    named = names[tree.ancestors[said, level]]
                    if parent is not None and tree.ancestors[said, 0] != parent:
                        named = "elsewhere"
                    counts += names[tree.ancestors[truth, level]] == row["truth"] and named == row["answer"]
            assert float(row["images"]) == pytest.approx(counts / 3), row
            assert float(row["share"]) == pytest.approx(counts / 3 / 10 / (1 if level else SIZES[row["truth"]]))


LEVELS = ("id", "error", "probability", "leaf", "method", "path", "level", "test images", "test_images", "accuracy")


@pytest.mark.parametrize("start", range(len(LEVELS)))
def test_whatever_levels_and_nodes_are_called_columns_and_rows_stay_apart(start: int, tmp_path: Path) -> None:
    names = [LEVELS[(start + i) % len(LEVELS)] for i in range(3)]
    nodes = ("elsewhere", "others", "(elsewhere)", "method", "id", "truth")
    lines = [",".join(names), *(f"{node},{'elsewhere' if i < 3 else 'id'},all" for i, node in enumerate(nodes))]
    tree = tree_of(tmp_path / "tree.csv", "\n".join(lines) + "\n")
    two_methods(tmp_path / "runs", tree)
    write_report([tmp_path / "runs"], tmp_path / "out")
    for file in (tmp_path / "out").rglob("*.csv"):
        with file.open(encoding="utf-8", newline="") as stream:
            header = next(csv.reader(stream))
        assert len(header) == len(set(header)), file
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    for line in re.findall(r"<thead>(.*?)</thead>", page, re.DOTALL):
        columns = re.findall(r"<th [^>]*>(.*?)</th>", line)
        assert len(columns) == len(set(columns))
    for row in (1, 2):
        seen = []
        for file in (tmp_path / "out" / "figures").glob(f"confusion-{row}-*.csv"):
            cells = [(line["where"], line["truth"], line["answer"]) for line in rows_of(file)]
            assert len(cells) == len(set(cells))
            seen.append(cells[0][0])
        assert sorted(seen) == ["Confusion inside all", "Confusion inside all > elsewhere", "Confusion inside all > id"]


def test_a_matrix_names_what_is_elsewhere(place: Path) -> None:
    """Of the children with the most answers elsewhere, the leaves that are answered, and how many images that is."""
    (board,) = read_leaderboards(find([place / "runs"]))
    for number, outcome in enumerate(board.outcomes, 1):
        tree, text = outcome.tree, (place / "report" / "report.md").read_text("utf-8").replace("\\", "")
        for matrix, parent in ((1, "tops"), (2, "trousers")):
            (file,) = (place / "report" / "figures").glob(f"confusion-{number}-*-{matrix}.csv")
            _, _, note = text.partition(f"(figures/{file.stem}.svg)\n\n")
            counted: dict[str, Counter[str]] = {}
            for answers in outcome.predicted:
                for truth, answer in zip(outcome.target, answers, strict=True):
                    if tree.path(int(truth))[0] == parent != tree.path(int(answer))[0]:
                        counted.setdefault(tree.leaves[truth], Counter())[tree.leaves[answer]] += 1
            named = re.match(r"Elsewhere, images taken: (.*?)\. \[Data", note)
            assert bool(named) == bool(counted)
            if not named:
                continue
            shown = dict(words.split(" for ") for words in named[1].split("; "))
            most = sorted(counted, key=lambda leaf: -counted[leaf].total())[:3]
            assert {counted[leaf].total() for leaf in shown} == {counted[leaf].total() for leaf in most}
            for leaf, answers in shown.items():
                pairs = re.findall(r"(\w+) \(([\d.]+)\)", answers)
                assert [float(n) for _, n in pairs] == pytest.approx(
                    sorted((n / 3 for n in counted[leaf].values()), reverse=True)[:3], rel=0.01
                )
                assert all(counted[leaf][name] / 3 == pytest.approx(float(n), rel=0.01) for name, n in pairs)
