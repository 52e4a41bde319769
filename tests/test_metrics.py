"""Every metric on random trees against naive loops over paths, and against scikit-learn, torchmetrics and HiClass."""

import math
import tracemalloc
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import hiclass.metrics
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, recall_score, top_k_accuracy_score
from torchmetrics.functional.classification import multiclass_calibration_error

from hfc.errors import ConfigError
from hfc.hierarchy import Hierarchy
from hfc.metrics import (
    LEVEL,
    METRICS,
    calibration_error,
    climb,
    evaluate,
    hierarchical_f,
    metric,
    rank,
    top,
)
from hfc.store.records import flat, nested
from tests.support.trees import Heights, hierarchies, named, prefixes, trees

Ints = NDArray[np.int64]
Floats = NDArray[np.floating[Any]]
Path = tuple[str, ...]
ROWS = 20


def of_leaves(
    levels: Sequence[Floats], final: Floats, leaf: Ints, tree: Hierarchy, topk: Sequence[int]
) -> dict[str, float]:
    """Every metric where all labels are leaves."""
    return evaluate(levels, final, tree.ancestors[leaf], leaf, tree=tree, topk=topk)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def naive(
    scores: list[list[list[int]]], final: list[list[int]], labels: list[Path], tree: Hierarchy, topk: Sequence[int]
) -> dict[str, Any]:
    """Every metric in loops over paths of names, from the definitions in the docstring of `evaluate`.

    Args:
        scores: integers in proportion to the probabilities, by level, row and node.
        final: those of P_final, by row and leaf.
        labels: path of each row's label.
        tree: the tree.
        topk: the k.
    """
    paths, nodes, depth = [tree.path(leaf) for leaf in range(len(tree.ancestors))], prefixes(tree), len(tree.levels)
    heights, rows = Heights(tree), range(len(labels))
    known = [i for i in rows if labels[i] in paths]
    ranked = [[paths[c] for c in sorted(range(len(paths)), key=lambda c: (-row[c], c))] for row in final]
    # What each level answers, and nothing where the predicted leaf ends above the last level.
    own = [[nodes[h][scores[h][i].index(max(scores[h][i]))] for h in range(depth - 1)] for i in rows]
    own = [[*levels, *([ranked[i][0]] if len(ranked[i][0]) == depth else [])] for i, levels in enumerate(own)]
    inconsistent = [any(node != ranked[i][0][: len(node)] for node in own[i][: len(ranked[i][0])]) for i in rows]
    measured: dict[str, Any] = {"inconsistency": mean(inconsistent)}
    for h, name in enumerate(tree.levels):
        reach = [i for i in rows if len(labels[i]) > h]
        if reach:
            right = [len(own[i]) > h and own[i][h] == labels[i][: h + 1] for i in reach]
            measured[f"level_accuracy/{name}"] = mean(right)
    if not known:
        return measured
    for k in topk:
        measured[f"top{k}"] = mean([labels[i] in ranked[i][:k] for i in known])
        measured[f"distance@{k}"] = mean([heights.between(labels[i], other) for i in known for other in ranked[i][:k]])
    present = {labels[i] for i in known}
    by_class = [mean([ranked[i][0] == leaf for i in known if labels[i] == leaf]) for leaf in present]
    alpha, beta = [ancestors(ranked[i][0]) for i in known], [ancestors(labels[i]) for i in known]
    shared = sum(len(a & b) for a, b in zip(alpha, beta, strict=True))
    precision, recall = shared / sum(map(len, alpha)), shared / sum(map(len, beta))
    full = [
        ranked[i][0] == labels[i] and all(own[i][h] == labels[i][: h + 1] for h in range(len(labels[i]))) for i in known
    ]
    errors = [i for i in known if ranked[i][0] != labels[i]]
    place = [paths.index(labels[i]) for i in known]
    best = [paths.index(ranked[i][0]) for i in known]
    return measured | {
        "top1_macro": mean(by_class),
        "hF": 2 * precision * recall / (precision + recall) if shared else 0.0,
        "mistake_severity": mean([heights.between(labels[i], ranked[i][0]) for i in errors]),
        "full_path_accuracy": mean(full),
        "ece": naive_calibration_error([final[i] for i in known], best, place),
        "nll": mean([naive_log_loss(final[i], leaf) for i, leaf in zip(known, place, strict=True)]),
    }


def ancestors(path: Path) -> set[Path]:
    """The node and all above it, without the root."""
    return {path[:depth] for depth in range(1, len(path) + 1)}


def naive_log_loss(row: list[int], leaf: int) -> float:
    """−ln of the share of a leaf, which counts as 1e-38 at the least."""
    return -math.log(max(row[leaf] / (sum(row) or 1), 1e-38))


def naive_calibration_error(final: list[list[int]], best: list[int], target: list[int]) -> float:
    """Σ over bins (b/15, (b+1)/15] of |hits − confidence|, over the rows; in fractions, so that edges are exact."""
    gaps = [Fraction(0)] * 15
    for row, predicted, leaf in zip(final, best, target, strict=True):
        confidence = Fraction(max(row), sum(row) or 1)
        inside = [b for b in range(15) if Fraction(b, 15) < confidence <= Fraction(b + 1, 15)]
        gaps[inside[0] if inside else 0] += (predicted == leaf) - confidence
    return float(sum(abs(gap) for gap in gaps) / len(target))


@settings(max_examples=100)
@given(
    tree=hierarchies(),
    seed=st.integers(0, 2**32 - 1),
    steps=st.sampled_from([1, 2, 8, 1024]),
    inner=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_every_metric_equals_naive_loops(tree: Hierarchy, seed: int, steps: int, inner: float) -> None:
    rng = np.random.default_rng(seed)
    count = len(tree.ancestors)
    below = rng.integers(0, count, ROWS)
    depth = np.where(rng.random(ROWS) < inner, rng.integers(1, tree.depths[below], endpoint=True), tree.depths[below])
    path = np.where(np.arange(len(tree.levels)) < depth[:, None], tree.ancestors[below], -1)
    leaf = np.where(depth == tree.depths[below], below, -1)
    # Few steps make ties; powers of two make the shares, and so the edges of the bins, exact.
    scores = [rng.integers(0, steps, (ROWS, size), endpoint=True) for size in tree.sizes]
    final = rng.integers(0, steps, (ROWS, count), endpoint=True)
    if rng.random() < 0.5:  # half of the time most rows are right
        likely = np.flatnonzero(rng.random(ROWS) < 0.8)
        final[likely, below[likely]] = steps
        for h, level in enumerate(scores):
            rows = likely[tree.ancestors[below[likely], h] >= 0]
            level[rows, tree.ancestors[below[rows], h]] = steps
    topk = sorted({1, min(2, count), int(rng.integers(1, count, endpoint=True)), count})
    got = evaluate([level / steps for level in scores], final / steps, path, leaf, tree=tree, topk=topk)
    labels = [tree.path(best)[:d] for best, d in zip(below.tolist(), depth.tolist(), strict=True)]
    expected = naive([level.tolist() for level in scores], final.tolist(), labels, tree, topk)
    assert got == pytest.approx(expected)


def distinct(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    """(ROWS, size) scores no two of which are equal in a row: other packages break ties in other ways."""
    return np.stack([rng.permutation(size) + rng.random(size) / 2 for _ in range(ROWS)]) / size


@settings(max_examples=50)
@given(tree=trees(), seed=st.integers(0, 2**32 - 1))
def test_what_other_packages_measure_agrees(tree: Ints, seed: int) -> None:
    rng = np.random.default_rng(seed)
    leaves = len(tree)
    target = rng.integers(0, leaves, ROWS)
    levels = [distinct(rng, size) for size in tree.max(axis=0) + 1]
    final = levels[-1]
    likely = rng.random(ROWS) < 0.5
    final[likely, target[likely]] += 1
    best, topk = final.argmax(axis=1), range(1, leaves)
    got = of_leaves(levels, final, target, named(tree), topk)
    # scikit-learn
    for k in topk if leaves > 2 else ():  # of two classes it takes one column of scores
        assert got[f"top{k}"] == pytest.approx(top_k_accuracy_score(target, final, k=k, labels=range(leaves))), k
    assert got["top1"] == pytest.approx(accuracy_score(target, best))
    present = np.unique(target)
    assert got["top1_macro"] == pytest.approx(recall_score(target, best, labels=present, average="macro"))
    for h, name in enumerate(named(tree).levels):
        assert got[f"level_accuracy/{name}"] == pytest.approx(accuracy_score(tree[target, h], levels[h].argmax(axis=1)))
    # torchmetrics
    shares = torch.from_numpy(final / final.sum(axis=1, keepdims=True))
    error = multiclass_calibration_error(shares, torch.from_numpy(target), num_classes=leaves, n_bins=15, norm="l1")
    assert got["ece"] == pytest.approx(float(error), abs=1e-6)


@settings(max_examples=50)
@given(tree=trees(), seed=st.integers(0, 2**32 - 1))
def test_distances_are_counted_as_the_authors_of_mistake_severity_count_them(tree: Ints, seed: int) -> None:
    # fiveai/making-better-mistakes (run_xent.py): the matrix of distances of the top k; its mean over k columns; and
    # the sum of the first column over rows where it is not 0, by their number.
    rng = np.random.default_rng(seed)
    target = rng.integers(0, len(tree), ROWS)
    final = distinct(rng, len(tree))
    labels = [tuple(f"{h}:{node}" for h, node in enumerate(path)) for path in tree]
    heights = {}
    for one in labels:
        for other in labels:
            ancestors = set(one) & set(other)
            heights[one, other] = len(one) - len(ancestors)
    distances = np.empty((ROWS, len(tree)))
    for i, row in enumerate(final):
        for j, leaf in enumerate(np.argsort(row)[::-1]):
            distances[i, j] = heights[labels[leaf], labels[target[i]]]
    topk = range(1, len(tree) + 1)
    levels = [*(distinct(rng, size) for size in tree.max(axis=0)[:-1] + 1), final]
    got = of_leaves(levels, final, target, named(tree), topk)
    for k in topk:
        assert got[f"distance@{k}"] == pytest.approx(np.mean(distances[:, :k])), k
    mistakes = np.where(distances[:, 0] != 0)[0]
    want = np.sum(distances[mistakes, :1]) / len(mistakes) if len(mistakes) else 0.0
    assert got["mistake_severity"] == pytest.approx(want)


@settings(max_examples=50)
@given(tree=hierarchies(), seed=st.integers(0, 2**32 - 1), skill=st.sampled_from([0.0, 0.8]))
def test_hierarchical_precision_recall_and_f_are_those_of_hiclass(tree: Hierarchy, seed: int, skill: float) -> None:
    """HiClass takes nodes for equal that have one name, so names are paths; "" stands below a leaf."""
    rng = np.random.default_rng(seed)
    target, best = rng.integers(0, len(tree.ancestors), (2, ROWS))
    best = np.where(rng.random(ROWS) < skill, target, best)
    nodes = [[" > ".join(path) for path in level] for level in prefixes(tree)]
    table = np.array([[nodes[h][n] if n >= 0 else "" for h, n in enumerate(row)] for row in tree.ancestors.tolist()])
    expected = hiclass.metrics.f1(table[target], table[best], zero_division=0)
    assert hierarchical_f(tree.ancestors[best], tree.ancestors[target]) == pytest.approx(expected)
    # Answers that do not climb have the precision of leaves; of the true ones against them it is the recall.
    for measure, one, other in ((hiclass.metrics.precision, best, target), (hiclass.metrics.recall, target, best)):
        assert climb(tree.depths[one], one, other, tree)[2] == pytest.approx(measure(table[target], table[best]))


def test_hierarchical_f_by_hand_and_in_hiclass() -> None:
    # Paths of three nodes. Row 1 is right (3 shared), row 2 shares its kind and group (2), row 3 its kind (1), row 4
    # nothing: 6 of 12 predicted and 6 of 12 true nodes, so hP = hR = hF = 0.5.
    tree = np.array([[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3], [1, 2, 4]])
    truth, predicted = tree[[0, 0, 0, 0]], tree[[0, 1, 2, 4]]
    assert hierarchical_f(predicted, truth) == 0.5
    texts = np.array([[f"level {h} node {node}" for h, node in enumerate(path)] for path in tree.tolist()])
    pairs = (texts[[0, 0, 0, 0]], texts[[0, 1, 2, 4]])
    assert [measure(*pairs) for measure in (hiclass.metrics.precision, hiclass.metrics.recall)] == [0.5, 0.5]
    assert hiclass.metrics.f1(*pairs) == pytest.approx(0.5)


# Hat; Shoes > Boots; Clothing > Tops > Tee; Clothing > Tops > Tank; Clothing > Dress
RAGGED = np.array([[0, -1, -1], [1, 0, -1], [2, 1, 0], [2, 1, 1], [2, 2, -1]])


def test_an_uneven_tree_by_hand() -> None:
    tree = named(RAGGED)
    best, leaf = np.array([0, 3, 4, 2, 0]), np.array([0, 2, 2, 1, 3])
    # Heights: Clothing 2, Tops 1, Shoes 1, the root 3. Tank for Tee costs 1, Dress for Tee 2, other roots 3.
    final = np.eye(5)[best]
    levels = [np.eye(size)[np.maximum(RAGGED[best, h], 0)] for h, size in enumerate(tree.sizes)]
    got = of_leaves(levels, final, leaf, tree, [1])
    assert got["distance@1"] == pytest.approx((0 + 1 + 2 + 3 + 3) / 5)
    assert got["mistake_severity"] == pytest.approx((1 + 2 + 3 + 3) / 4)
    # Shared 1, 2, 1, 0, 0 of 1, 3, 2, 3, 1 predicted and 1, 3, 3, 2, 3 true nodes. Hat is counted once.
    assert got["hF"] == pytest.approx(2 * (4 / 10) * (4 / 12) / (4 / 10 + 4 / 12))
    assert (got["top1"], got["full_path_accuracy"], got["inconsistency"]) == (0.2, 0.2, 0.0)
    # Four labels reach the second level and three the last; Hat answers nothing there.
    assert [got[LEVEL + name] for name in tree.levels] == [3 / 5, 1 / 4, 0]


def test_labels_at_inner_nodes_count_on_the_levels_they_know_alone() -> None:
    tree = named(RAGGED)
    best, leaf = np.array([2, 2, 0]), np.array([2, -1, -1])
    path = np.array([[2, 1, 0], [2, 1, -1], [2, -1, -1]])  # Tee; Tops; Clothing, answered Hat
    final = np.eye(5)[best]
    levels = [np.eye(size)[np.maximum(RAGGED[best, h], 0)] for h, size in enumerate(tree.sizes)]
    levels[0][1] = [0, 1, 0]  # Shoes above Tops
    got = evaluate(levels, final, path, leaf, tree=tree, topk=[1])
    assert [got[LEVEL + name] for name in tree.levels] == [1 / 3, 1, 1]
    assert [got[key] for key in ("top1", "top1_macro", "hF", "full_path_accuracy", "ece")] == [1, 1, 1, 1, 0]
    assert got["inconsistency"] == pytest.approx(1 / 3)
    without = evaluate(levels, final, path, np.full(3, -1), tree=tree, topk=[1])
    assert set(without) == {"inconsistency", *(LEVEL + name for name in tree.levels)}
    coarse = evaluate(levels, final, np.where([True, False, False], path, -1), np.full(3, -1), tree=tree, topk=[1])
    assert set(coarse) == {"inconsistency", LEVEL + tree.levels[0]}


def test_a_row_without_any_probability_counts_as_not_confident() -> None:
    assert calibration_error(np.zeros((2, 3)), np.array([0, 1])) == 0.5


def test_macro_accuracy_leaves_out_classes_without_samples() -> None:
    final = np.array([[0.9, 0.1, 0.0], [0.9, 0.1, 0.0], [0.8, 0.2, 0.0]])
    got = of_leaves([final], final, np.array([0, 0, 1]), named(np.arange(3)[:, None]), (1,))
    assert got["top1_macro"] == 0.5


def test_a_k_beyond_the_number_of_classes_is_refused() -> None:
    final = np.ones((2, 4))
    with pytest.raises(ConfigError, match=r"top-5 of 4 classes does not exist; give --set topk=1,3"):
        of_leaves([final], final, np.array([0, 1]), named(np.arange(4)[:, None]), (1, 3, 5))


@given(seed=st.integers(0, 2**32 - 1), leaves=st.integers(1, 9), steps=st.sampled_from([1, 3, 1024]))
def test_the_rank_is_the_place_in_the_order_of_top(seed: int, leaves: int, steps: int) -> None:
    rng = np.random.default_rng(seed)
    final, target = rng.integers(0, steps, (ROWS, leaves), endpoint=True) / steps, rng.integers(0, leaves, ROWS)
    order = top(final, leaves).tolist()
    assert rank(final, target).tolist() == [row.index(leaf) for row, leaf in zip(order, target, strict=True)]


@given(
    seed=st.integers(0, 2**32 - 1), leaves=st.integers(1, 40), k=st.integers(1, 9), steps=st.sampled_from([1, 3, 1024])
)
def test_the_top_is_the_beginning_of_the_whole_order(seed: int, leaves: int, k: int, steps: int) -> None:
    shares = np.random.default_rng(seed).integers(0, steps, (ROWS, leaves), endpoint=True) / steps
    order = [sorted(range(leaves), key=lambda leaf, row=row: (-row[leaf], leaf))[:k] for row in shares.tolist()]
    assert top(shares, k).tolist() == order


def test_blocks_of_rows_give_what_all_rows_at_once_give(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.integers(4, size=(23, 7)) / 10
    target = rng.integers(7, size=23)
    order = [sorted(range(7), key=lambda leaf, row=row: (-row[leaf], leaf)) for row in probabilities.tolist()]
    for cells in (1, 15, 70, 10_000):
        monkeypatch.setattr("hfc.metrics.BLOCK", cells)
        assert top(probabilities, 3).tolist() == [leaves[:3] for leaves in order]
        assert top(probabilities, 9).tolist() == order
        assert rank(probabilities, target).tolist() == [o.index(t) for o, t in zip(order, target.tolist(), strict=True)]
    assert top(probabilities[:0], 3).shape == (0, 3)


def test_memory_grows_with_the_probabilities_and_not_with_pairs_of_leaves() -> None:
    leaves, rows = 4000, 500
    tree = np.stack([np.arange(leaves) // 10, np.arange(leaves)], axis=1)
    final = np.random.default_rng(0).random((rows, leaves), dtype=np.float32)
    coarse = final.reshape(rows, -1, 10).sum(axis=2)
    target = np.arange(rows)
    wide = named(tree)
    assert wide.falls.all()  # made before memory is measured, as is all that training has
    tracemalloc.start()
    try:
        of_leaves([coarse, final], final, target, wide, [1, 3, 5])
        rank(final, target)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * final.nbytes  # a table of pairs would be sixteen times as large


@settings(max_examples=50)
@given(tree=hierarchies(), seed=st.integers(0, 2**32 - 1))
def test_answers_at_inner_nodes_are_measured_as_in_naive_loops(tree: Hierarchy, seed: int) -> None:
    rng = np.random.default_rng(seed)
    target, best = rng.integers(0, len(tree.ancestors), (2, ROWS))
    depth = rng.integers(0, tree.depths[best], endpoint=True)
    answers = [tree.path(leaf)[:d] for leaf, d in zip(best.tolist(), depth.tolist(), strict=True)]
    truth = [tree.path(leaf) for leaf in target.tolist()]
    shared = [len(ancestors(a) & ancestors(t)) for a, t in zip(answers, truth, strict=True)]
    total = sum(map(len, answers))
    assert climb(depth, best, target, tree) == (
        pytest.approx(total / sum(len(tree.path(leaf)) for leaf in best.tolist())),
        pytest.approx(mean([a == t[: len(a)] for a, t in zip(answers, truth, strict=True)])),
        pytest.approx(sum(shared) / total) if total else None,
    )


def test_no_answer_at_all_is_correct_and_has_no_precision() -> None:
    nothing = np.zeros(3, dtype=np.int64)
    tree = named(np.array([[0, 0], [0, 1]]))
    assert climb(nothing, nothing, np.array([0, 1, 1]), tree) == (0.0, 1.0, None)


def test_the_table_names_every_metric_that_is_measured() -> None:
    final = np.eye(6)[:, :6] / 2 + 1 / 12
    nodes = (("x", "y"), tuple("abcdef"))
    tree = Hierarchy("tree", ("group", "a/b"), nodes, np.stack([[0, 0, 0, 1, 1, 1], np.arange(6)], axis=1))
    levels = [np.stack([final[:, :3].sum(axis=1), final[:, 3:].sum(axis=1)], axis=1), final]
    got = of_leaves(levels, final, np.arange(6), tree, (1, 3, 5))
    by_level = {key for key in got if key.startswith(LEVEL)}
    assert set(got) - by_level == set(METRICS)
    assert [metric(key).words for key in sorted(by_level)] == ["accuracy of level a/b", "accuracy of level group"]
    # All answers are right here, so that each metric has its best value.
    assert {key for key, value in got.items() if key in METRICS and METRICS[key].higher and value != 1} == set()
    assert {key for key in ("mistake_severity", "inconsistency", "distance@1") if got[key]} == set()


def test_a_metric_is_shown_with_its_unit() -> None:
    shown = {
        key: (metric(key).column, metric(key).digits) for key in ("top1", "distance@3", "top7", "level_accuracy/a")
    }
    assert shown == {
        "top1": ("top-1 %", 2),
        "distance@3": ("distance@3", 3),
        "top7": ("top-7 %", 2),
        "level_accuracy/a": ("a %", 2),
    }
    assert [key for key, entry in METRICS.items() if not entry.of_tree] == [
        "top1",
        "top3",
        "top5",
        "top1_macro",
        "ece",
        "nll",
    ]


def test_metrics_are_one_level_deeper_in_json() -> None:
    metrics = {"top1": 0.5, "level_accuracy/a": 0.25, "level_accuracy/b/c": 1.0, "hF": 0.75}
    content = {"top1": 0.5, "level_accuracy": {"a": 0.25, "b/c": 1.0}, "hF": 0.75}
    assert nested(metrics) == content
    assert list(nested(metrics)) == list(content)
    assert flat(content) == metrics
    assert list(flat(content)) == list(metrics)
