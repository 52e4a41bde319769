"""However many categories and rows there are, a report stays of a size that can be opened, and its numbers complete."""

import csv
import re
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from hfc import runs
from hfc.hierarchy import Hierarchy
from hfc.report import write_report
from hfc.report.rows import read_leaderboards
from tests.support.made_runs import tree_of, write_run

MEGABYTE = 1e6


def many(folder: Path, groups: int, *, leaves: int = 1500, images: int = 3000) -> tuple[Hierarchy, list[list[int]]]:
    """A run over many leaves: its tree and, of two seeds, true and predicted leaf of every image."""
    width = len(str(leaves))
    lines = "".join(f"leaf {i:0{width}d},group {i % groups:0{width}d}\n" for i in range(leaves))
    tree = tree_of(folder / "tree.csv", f"leaf,group\n{lines}")
    rng = np.random.default_rng(0)
    target = np.arange(images) % leaves
    answers = [target.tolist()]
    for seed in range(2):
        predicted = np.where(rng.random(images) < 0.4, target, rng.integers(leaves, size=images))
        final = np.full((images, leaves), 1e-5, dtype=np.float32)
        final[np.arange(images), predicted] = rng.uniform(0.5, 1, images)
        write_run(folder / "runs" / str(seed), tree, seed=seed, target=target, final=final)
        answers.append(predicted.tolist())
    return tree, answers


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("groups", [1, 2, 500])
def test_a_report_of_many_categories_stays_small_and_its_counts_complete(groups: int, tmp_path: Path) -> None:
    tree, (target, *predicted) = many(tmp_path, groups)
    tracemalloc.start()
    try:
        summary = write_report([tmp_path / "runs"], tmp_path / "out")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    sizes = {file.name: file.stat().st_size for file in summary.files}
    assert sum(sizes.values()) < 5 * MEGABYTE, sizes
    assert sizes["report.html"] < 2 * MEGABYTE
    assert len(sizes) < 100
    assert peak < 150 * MEGABYTE  # the probabilities of a seed are 18 MB, twice in its file

    figures = tmp_path / "out" / "figures"
    above = {path[-1]: path[0] for path in map(tree.path, range(1500))}
    counted: Counter[tuple[str, str, str]] = Counter()  # where, truth, answer
    for seed in predicted:
        for t, a in zip(target, seed, strict=True):
            truth, answer = tree.leaves[t], tree.leaves[a]
            inside = above[truth] == above[answer]
            counted["Confusion of each group", above[truth], above[answer]] += 1
            counted[f"Confusion inside {above[truth]}", truth, answer if inside else "elsewhere"] += 1
    support = Counter([tree.leaves[t] for t in target]) + Counter([above[tree.leaves[t]] for t in target])
    seen = set()
    for file in figures.glob("confusion-1-*.csv"):
        written = {(row["where"], row["truth"], row["answer"]): row for row in rows_of(file)}
        (where,) = {key[0] for key in written}
        seen.add(where)
        assert written.keys() == {key for key in counted if key[0] == where}
        for key, row in written.items():
            assert float(row["images"]) == counted[key] / 2
            assert float(row["share"]) == pytest.approx(counted[key] / 2 / support[key[1]])
    assert ("Confusion of each group" in seen) == (groups > 1)
    assert len(seen) == {1: 1, 2: 3, 500: 30}[groups]

    categories = rows_of(figures / "categories.csv")
    assert [row["category"] for row in categories] == list(tree.leaves)
    right = Counter(tree.leaves[t] for seed in predicted for t, a in zip(target, seed, strict=True) if t == a)
    for row in categories:
        assert float(row["flat (tree)"]) == pytest.approx(right[row["category"]] / 2 / support[row["category"]])
    page = (
        (tmp_path / "out" / "report.html")
        .read_text("utf-8")
        .partition('<div class="folds">')[2]
        .partition("</section>")[0]
    )
    shown = re.findall(r'<th scope="row">(.*?)</th>', page)
    assert sorted(shown) == sorted(tree.leaves)  # folded, all stand on the page
    assert len(rows_of(figures / "tree-1-flat-tree.csv")) == 1500 + groups
    text = (tmp_path / "out" / "report.md").read_text("utf-8")
    for words in (
        "Shown: the 200 categories with the most wrong answers, of 1,500; all are in the data.",
        "Shown: the 200 leaves with the most wrong answers, of 1,500; all are in the data.",
        "Shown: the 500 categories with the most wrong answers of the best row, of 1,500; all are in the data of the",
    ):
        assert words in text
    assert ("Of 501 nodes with several children, the 30 with the most wrong answers." in text) == (groups == 500)
    assert "Shown: the 60 nodes with the most wrong answers, of" in text


def test_the_pictures_show_what_is_wrong_most(tmp_path: Path) -> None:
    tree, (target, *predicted) = many(tmp_path, 1, leaves=300, images=900)
    wrong = Counter(t for seed in predicted for t, a in zip(target, seed, strict=True) if t != a)
    worst = sorted(range(300), key=lambda leaf: (-wrong[leaf], leaf))
    write_report([tmp_path / "runs"], tmp_path / "out")
    for name, most in (("categories", 200), ("tree-1-flat-tree", 200), ("confusion-1-flat-tree-0", 60)):
        drawn = (tmp_path / "out" / "figures" / f"{name}.svg").read_text("utf-8")
        assert set(re.findall(r"leaf \d{3}", drawn)) == {tree.leaves[leaf] for leaf in worst[:most]}, name
    others = re.findall(r"leaf (\d{3}) taken for others: [\d.]+%, ([\d.]+) of 3 images", drawn)
    for leaf, count in others:
        seeds = [[a for t, a in zip(target, seed, strict=True) if t == int(leaf)] for seed in predicted]
        far = sum(a not in worst[:60] for seed in seeds for a in seed)
        assert float(count) == pytest.approx(far / 2)
    assert len(others) > 50


def test_of_many_rows_the_best_have_pictures_and_all_have_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hfc.report.tables.MOST_PAIRS", 4)
    monkeypatch.setattr("hfc.report.contents.MOST_DRAWN", 2)
    tree = tree_of(tmp_path / "tree.csv")
    for i in range(5):
        write_run(tmp_path / "runs" / str(i), tree, method=f"method{i}", skill=9.0 if i == 0 else 0.1)
    write_report([tmp_path / "runs"], tmp_path / "out")
    (board,) = read_leaderboards(runs.find([tmp_path / "runs"]))
    best = [outcome.label for outcome in board.outcomes]
    text = (tmp_path / "out" / "report.md").read_text("utf-8")
    section = text.partition("## Are the differences real")[2].partition("\n## ")[0]
    pairs = [line.split(" | ")[:2] for line in section.splitlines() if line.startswith("| method")]
    assert pairs == [[f"| {best[0]}", other] for other in best[1:]]
    assert "Shown: the 4 pairs of the best rows, of 10; all are in differences.csv." in section
    assert len({(row["first"], row["second"]) for row in rows_of(tmp_path / "out" / "differences.csv")}) == 10
    for sort in ("tree", "loss"):
        names = {file.stem for file in (tmp_path / "out" / "figures").glob(f"{sort}-*.csv")}
        assert len(names) == 2
    assert text.count("The first 2 of 5 rows have pictures of their own.") == 2
    assert {row["method"] for row in rows_of(tmp_path / "out" / "figures" / "validation.csv")} == set(best)
    assert re.search(r"Significantly worse: 4 of the 4 others \([^;]+; [^;]+ and 2 more\)\.", text)
