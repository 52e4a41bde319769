"""Trees whose leaves lie at any depth: what a report counts, against loops over the names on paths."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from hfc import runs
from hfc.hierarchy import Hierarchy, from_paths
from hfc.report import write_report
from hfc.report.rows import Outcome, read_leaderboards
from hfc.report.statistics import all_pairs
from tests.support.made_runs import write_run
from tests.support.reports import rows_of
from tests.support.trees import grow

Names = tuple[str, ...]
N = 80


def drawn(seed: int, depth: int, most: int) -> Hierarchy:
    """A random tree; nodes at several places have one name."""
    paths = [tuple("abcdef"[child] for child in path) for path in grow(np.random.default_rng(seed), depth, most)]
    return from_paths("t", [f"level {h}" for h in range(max(map(len, paths)))], paths)


TREES = {"of any depth": drawn(3, 4, 25), "deep": drawn(8, 7, 60), "of one level": drawn(0, 1, 5)}
TREES["by hand"] = from_paths(
    "t",
    ("group", "kind", "leaf"),
    [("Hat",), ("tops", "Tee"), ("tops", "Other"), ("low", "long", "Other"), ("low", "x", "y")],
)


def made(
    folder: Path, tree: Hierarchy, methods: int = 2, seeds: int = 2
) -> tuple[list[Names], list[list[list[Names]]]]:
    """Runs over a tree: the true path of each image, and the answers of each seed of each method, best first."""
    rng = np.random.default_rng(5)
    target = rng.integers(len(tree.leaves), size=N)
    ids = [f"{i:03d}" for i in range(N)]
    answers = []
    for method in range(methods):
        by_seed = []
        for seed in range(seeds):
            leaf = np.where(rng.random(N) < 0.6 - method / 4, target, rng.integers(len(tree.leaves), size=N))
            final = np.eye(len(tree.leaves), dtype=np.float32)[leaf]
            place = folder / "runs" / f"m{method}-{seed}"
            write_run(place, tree, method=f"m{method}", seed=seed, ids=ids, target=target, final=final)
            by_seed.append([tree.path(i) for i in leaf])
        answers.append(by_seed)
    return [tree.path(i) for i in target], answers


def outcomes(folder: Path) -> tuple[Outcome, ...]:
    (board,) = read_leaderboards(runs.find([folder / "runs"]))
    return board.outcomes


def shared(path: Names, other: Names) -> int:
    """How many nodes two paths share."""
    return sum(path[:h] == other[:h] for h in range(1, min(len(path), len(other)) + 1))


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_paths_heights_and_nodes_are_those_of_the_names(tree: Hierarchy, tmp_path: Path) -> None:
    truth, answers = made(tmp_path, tree, methods=1)
    (outcome,) = outcomes(tmp_path)
    leaves = [outcome.tree.path(leaf) for leaf in range(len(tree.leaves))]

    def height(node: Names) -> int:
        return max(len(leaf) - len(node) for leaf in leaves if leaf[: len(node)] == node)

    support: Counter[Names] = Counter(path[: h + 1] for path in truth for h in range(len(path)))
    right: Counter[Names] = Counter()
    for s, answered in enumerate(answers[0]):
        for i, (true, answer) in enumerate(zip(truth, answered, strict=True)):
            common = shared(true, answer)
            assert outcome.on_path[s, i].sum() == common
            assert outcome.on_path[s, i][:common].all()
            assert outcome.height[s, i] == height(true[:common])
            right.update(true[:h] for h in range(1, common + 1))
    assert outcome.height.mean() == pytest.approx(outcome.row.mean("distance@1"))
    nodes = {path[: h + 1] for path in leaves for h in range(len(path))}
    scores = {}
    for level, node, n, share in outcome.node_scores():
        (path,) = {leaves[leaf][: level + 1] for leaf in np.flatnonzero(outcome.tree.ancestors[:, level] == node)}
        scores[path] = n, share
    assert scores.keys() == nodes
    for path, (n, share) in scores.items():
        assert n == support[path]
        assert share == (pytest.approx(right[path] / 2 / n) if n else None)


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_hf_is_the_ratio_of_the_sums_and_its_interval_that_of_drawn_images(tree: Hierarchy, tmp_path: Path) -> None:
    truth, answers = made(tmp_path, tree)

    def hf(rows: np.ndarray, by_seed: list[list[Names]]) -> np.ndarray:
        both = np.array([[shared(*pair) for pair in zip(truth, answered, strict=True)] for answered in by_seed])
        nodes = np.array([[len(a) + len(b) for a, b in zip(truth, answered, strict=True)] for answered in by_seed])
        ratios = 2 * both[:, rows].sum(axis=-1) / nodes[:, rows].sum(axis=-1)
        return np.asarray(ratios.mean(axis=0))

    every = np.arange(N)
    (difference,) = all_pairs(outcomes(tmp_path))
    means = [difference.first.row.mean("hF"), difference.second.row.mean("hF")]
    assert means == pytest.approx([float(hf(every, by_seed)) for by_seed in answers])  # the runs report the same
    found = difference.intervals["hF"]
    assert found.difference == pytest.approx(hf(every, answers[0]) - hf(every, answers[1]))
    rows = np.random.default_rng(0).integers(N, size=(4000, N))
    draws = hf(rows, answers[0]) - hf(rows, answers[1])
    low, high = np.quantile(draws, [0.025, 0.975])
    assert found.low == pytest.approx(low, abs=0.02)
    assert found.high == pytest.approx(high, abs=0.02)


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_files_hold_every_confusion_category_and_node_once(
    tree: Hierarchy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hfc.report.trees.MOST_MATRICES", 1000)
    monkeypatch.setattr("hfc.report.trees.MOST_CELLS", 10**9)
    truth, answers = made(tmp_path, tree, methods=1)
    write_report([tmp_path / "runs"], tmp_path / "out")
    (outcome,) = outcomes(tmp_path)
    leaves = [outcome.tree.path(leaf) for leaf in range(len(tree.leaves))]
    children: dict[Names, set[str]] = {}
    for path in leaves:
        for h in range(len(path)):
            children.setdefault(path[:h], set()).add(path[h])
    counts: Counter[tuple[str, str, str]] = Counter()
    for answered in answers[0]:
        for true, answer in zip(truth, answered, strict=True):
            for h in range(len(true)):
                parent = true[:h]
                if len(children[parent]) > 1:
                    where = f"Confusion inside {' > '.join(parent)}" if h else f"Confusion of each {tree.levels[0]}"
                    inside = len(answer) > h and answer[:h] == parent
                    counts[where, true[h], answer[h] if inside else "elsewhere"] += 1
    figures = tmp_path / "out" / "figures"
    written = [row for file in figures.glob("confusion-*.csv") for row in rows_of(file)]
    assert len({(row["where"], row["truth"], row["answer"]) for row in written}) == len(written) == len(counts)
    for row in written:
        assert float(row["images"]) == counts[row["where"], row["truth"], row["answer"]] / 2

    categories = rows_of(figures / "categories.csv")
    assert [tuple(row["path"].split(" > ")) for row in categories] == leaves
    assert len({row["category"] for row in categories}) == len(leaves)
    support = Counter(truth)
    right = Counter(
        true for answered in answers[0] for true, answer in zip(truth, answered, strict=True) if true == answer
    )
    for row, path in zip(categories, leaves, strict=True):
        assert int(row["test_images"]) == support[path]
        assert row["m0 (t)"] == (str(right[path] / 2 / support[path]) if support[path] else "")
    nodes = [row["path"] for row in rows_of(next(figures.glob("tree-1-*.csv")))]
    assert sorted(nodes) == sorted({" > ".join(path[: h + 1]) for path in leaves for h in range(len(path))})
    for file in (tmp_path / "out").rglob("*.csv"):
        with file.open(encoding="utf-8", newline="") as stream:
            header = next(csv.reader(stream))
        assert len(header) == len(set(header)), file


def test_leaves_of_one_name_and_heights_are_named_without_doubt(tmp_path: Path) -> None:
    made(tmp_path, TREES["by hand"])
    write_report([tmp_path / "runs"], tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text("utf-8")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    header = next(line for line in lines if line.startswith("| category | path | test images |"))
    start = lines.index(header) + 2
    assert sorted(line.split(" | ")[0] + " | " + line.split(" | ")[1] for line in lines[start : start + 5]) == [
        "| Hat | ",
        "| Tee | tops",
        "| low \\> long \\> Other | low \\> long",
        "| tops \\> Other | tops",
        "| y | low \\> x",
    ]
    drawn = (tmp_path / "out" / "figures" / "categories.svg").read_text("utf-8")
    for words in (">tops &gt; Other<", ">… &gt; long &gt; Other<"):  # the end of a path tells more than its front
        assert words in drawn
    severity = (tmp_path / "out" / "figures" / "severity.svg").read_text("utf-8")
    for words in (">height 1<", ">height 2<", ">wrong group<"):  # a height is no level where leaves lie at any depth
        assert words in severity
