"""Every metric on random trees against naive loops, and against scikit-learn, torchmetrics and HiClass."""

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
from hfc.metrics import (
    LEVEL,
    METRICS,
    calibration_error,
    climb,
    evaluate,
    flat,
    hierarchical_f,
    metric,
    nested,
    rank,
    top,
)
from tests.support.trees import trees

Ints = NDArray[np.int64]
ROWS = 20


def level_names(tree: Ints) -> list[str]:
    return [f"level {h}" for h in range(tree.shape[1])]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def naive(
    scores: list[list[list[int]]], target: list[int], tree: list[list[int]], topk: Sequence[int]
) -> dict[str, Any]:
    """Every metric in loops over rows, from the definitions in the docstring of `evaluate`.

    Args:
        scores: integers in proportion to the probabilities, by level, row and node; those of the leaves are P_final.
        target: true leaf of each row.
        tree: path of each leaf.
        topk: the k.
    """
    depth, final = len(tree[0]), scores[-1]

    def climb(a: int, b: int) -> int:
        steps = 0
        while steps < depth and tree[a][depth - 1 - steps] != tree[b][depth - 1 - steps]:
            steps += 1
        return steps

    ranked = [sorted(range(len(row)), key=lambda leaf, row=row: (-row[leaf], leaf)) for row in final]  # type: ignore[misc]
    best = [order[0] for order in ranked]
    truth = [tree[leaf] for leaf in target]
    own = [[level[i].index(max(level[i])) for level in scores] for i in range(len(target))]
    found = {f"top{k}": mean([leaf in order[:k] for leaf, order in zip(target, ranked, strict=True)]) for k in topk}
    for k in topk:
        climbs = [climb(c, leaf) for leaf, order in zip(target, ranked, strict=True) for c in order[:k]]
        found[f"distance@{k}"] = mean(climbs)
    pairs = list(zip(best, target, strict=True))
    by_class = [mean([b == leaf for b, leaf in pairs if leaf == c]) for c in sorted(set(target))]
    predicted_nodes = [{(h, node) for h, node in enumerate(tree[b])} for b in best]
    true_nodes = [{(h, node) for h, node in enumerate(path)} for path in truth]
    shared = sum(len(a & b) for a, b in zip(predicted_nodes, true_nodes, strict=True))
    precision, recall = shared / sum(map(len, predicted_nodes)), shared / sum(map(len, true_nodes))
    return {
        **found,
        "top1_macro": mean(by_class),
        **{
            f"level_accuracy/level {h}": mean([path[h] == true[h] for path, true in zip(own, truth, strict=True)])
            for h in range(depth)
        },
        "hF": 2 * precision * recall / (precision + recall) if shared else 0.0,
        "mistake_severity": mean([climb(b, leaf) for b, leaf in pairs if b != leaf]),
        "full_path_accuracy": mean([path == true for path, true in zip(own, truth, strict=True)]),
        "inconsistency": mean([path not in tree for path in own]),
        "ece": naive_calibration_error(final, best, target),
    }


def naive_calibration_error(final: list[list[int]], best: list[int], target: list[int]) -> float:
    """Σ over bins (b/15, (b+1)/15] of |hits − confidence|, over the rows; in fractions, so that edges are exact."""
    gaps = [Fraction(0)] * 15
    for row, predicted, leaf in zip(final, best, target, strict=True):
        confidence = Fraction(max(row), sum(row) or 1)
        inside = [b for b in range(15) if Fraction(b, 15) < confidence <= Fraction(b + 1, 15)]
        gaps[inside[0] if inside else 0] += (predicted == leaf) - confidence
    return float(sum(abs(gap) for gap in gaps) / len(target))


@settings(deadline=None, max_examples=150)
@given(tree=trees(), seed=st.integers(0, 2**32 - 1), steps=st.sampled_from([1, 2, 8, 1024]))
def test_every_metric_equals_naive_loops(tree: Ints, seed: int, steps: int) -> None:
    rng = np.random.default_rng(seed)
    target = rng.integers(0, len(tree), ROWS)
    # Few steps make ties; powers of two make the shares, and so the edges of the bins, exact.
    scores = [rng.integers(0, steps, (ROWS, size), endpoint=True) for size in tree.max(axis=0) + 1]
    if rng.random() < 0.5:  # half of the time most rows are right
        likely = rng.random(ROWS) < 0.8
        for h, level in enumerate(scores):
            level[likely, tree[target[likely], h]] = steps
    levels = [level / steps for level in scores]
    topk = sorted({1, min(2, len(tree)), int(rng.integers(1, len(tree), endpoint=True)), len(tree)})
    got = evaluate(levels, levels[-1], target, names=level_names(tree), ancestors=tree, topk=topk)
    expected = naive([level.tolist() for level in scores], target.tolist(), tree.tolist(), topk)
    assert got == pytest.approx(expected)


def distinct(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    """(ROWS, size) scores no two of which are equal in a row: other packages break ties in other ways."""
    return np.stack([rng.permutation(size) + rng.random(size) / 2 for _ in range(ROWS)]) / size


@settings(deadline=None, max_examples=60)
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
    got = evaluate(levels, final, target, names=level_names(tree), ancestors=tree, topk=topk)
    # scikit-learn
    for k in topk if leaves > 2 else ():  # of two classes it takes one column of scores
        assert got[f"top{k}"] == pytest.approx(top_k_accuracy_score(target, final, k=k, labels=range(leaves))), k
    assert got["top1"] == pytest.approx(accuracy_score(target, best))
    present = np.unique(target)
    assert got["top1_macro"] == pytest.approx(recall_score(target, best, labels=present, average="macro"))
    for h, name in enumerate(level_names(tree)):
        assert got[f"level_accuracy/{name}"] == pytest.approx(accuracy_score(tree[target, h], levels[h].argmax(axis=1)))
    # HiClass; names hold the level, as it takes nodes for equal that have one name
    named = np.array([[f"{h}/{node}" for h, node in enumerate(path)] for path in tree])
    assert got["hF"] == pytest.approx(hiclass.metrics.f1(named[target], named[best], zero_division=0))
    # torchmetrics
    shares = torch.from_numpy(final / final.sum(axis=1, keepdims=True))
    error = multiclass_calibration_error(shares, torch.from_numpy(target), num_classes=leaves, n_bins=15, norm="l1")
    assert got["ece"] == pytest.approx(float(error), abs=1e-6)


@settings(deadline=None, max_examples=60)
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
    got = evaluate(levels, final, target, names=level_names(tree), ancestors=tree, topk=topk)
    for k in topk:
        assert got[f"distance@{k}"] == pytest.approx(np.mean(distances[:, :k])), k
    mistakes = np.where(distances[:, 0] != 0)[0]
    want = np.sum(distances[mistakes, :1]) / len(mistakes) if len(mistakes) else 0.0
    assert got["mistake_severity"] == pytest.approx(want)


def test_hierarchical_f_by_hand_and_in_hiclass() -> None:
    # Paths of three nodes. Row 1 is right (3 shared), row 2 shares its kind and group (2), row 3 its kind (1), row 4
    # nothing: 6 of 12 predicted and 6 of 12 true nodes, so hP = hR = hF = 0.5.
    tree = np.array([[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3], [1, 2, 4]])
    truth, predicted = tree[[0, 0, 0, 0]], tree[[0, 1, 2, 4]]
    assert hierarchical_f(predicted, truth) == 0.5
    named = np.array([[f"level {h} node {node}" for h, node in enumerate(path)] for path in tree.tolist()])
    pairs = (named[[0, 0, 0, 0]], named[[0, 1, 2, 4]])
    assert [measure(*pairs) for measure in (hiclass.metrics.precision, hiclass.metrics.recall)] == [0.5, 0.5]
    assert hiclass.metrics.f1(*pairs) == pytest.approx(0.5)


def test_a_row_without_any_probability_counts_as_not_confident() -> None:
    assert calibration_error(np.zeros((2, 3)), np.array([0, 1])) == 0.5


def test_macro_accuracy_leaves_out_classes_without_samples() -> None:
    final = np.array([[0.9, 0.1, 0.0], [0.9, 0.1, 0.0], [0.8, 0.2, 0.0]])
    got = evaluate([final], final, np.array([0, 0, 1]), names=["leaf"], ancestors=np.arange(3)[:, None], topk=(1,))
    assert got["top1_macro"] == 0.5


def test_a_k_beyond_the_number_of_classes_is_refused() -> None:
    final = np.ones((2, 4))
    with pytest.raises(ConfigError, match=r"top-5 of 4 classes does not exist; give --set topk=1,3"):
        evaluate([final], final, np.array([0, 1]), names=["a"], ancestors=np.arange(4)[:, None], topk=(1, 3, 5))


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
    tracemalloc.start()
    try:
        evaluate([coarse, final], final, target, names=["group", "leaf"], ancestors=tree, topk=[1, 3, 5])
        rank(final, target)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * final.nbytes  # a table of pairs would be sixteen times as large


@given(tree=trees(), seed=st.integers(0, 2**32 - 1))
def test_answers_at_inner_nodes_are_measured_as_in_naive_loops(tree: Ints, seed: int) -> None:
    rng = np.random.default_rng(seed)
    target, best = rng.integers(0, len(tree), (2, ROWS))
    depth = rng.integers(0, tree.shape[1], ROWS, endpoint=True)
    node = np.array([tree[leaf, d - 1] if d else 0 for leaf, d in zip(best, depth, strict=True)])
    answers = [[(h, tree[leaf, h]) for h in range(d)] for leaf, d in zip(best, depth, strict=True)]
    on_path = [[(h, n) for h, n in path if tree[t, h] == n] for path, t in zip(answers, target, strict=True)]
    named = sum(len(path) for path in answers)
    assert climb(depth, node, target, tree) == (
        pytest.approx(mean([d / tree.shape[1] for d in depth])),
        pytest.approx(mean([a == b for a, b in zip(answers, on_path, strict=True)])),
        pytest.approx(sum(len(path) for path in on_path) / named) if named else None,
    )


def test_no_answer_at_all_is_correct_and_has_no_precision() -> None:
    nothing = np.zeros(3, dtype=np.int64)
    tree = np.array([[0, 0], [0, 1]])
    assert climb(nothing, nothing, np.array([0, 1, 1]), tree) == (0.0, 1.0, None)


def test_the_table_names_every_metric_that_is_measured() -> None:
    final, tree = np.eye(6)[:, :6] / 2 + 1 / 12, np.stack([[0, 0, 0, 1, 1, 1], np.arange(6)], axis=1)
    levels = [np.stack([final[:, :3].sum(axis=1), final[:, 3:].sum(axis=1)], axis=1), final]
    got = evaluate(levels, final, np.arange(6), names=["group", "a/b"], ancestors=tree, topk=(1, 3, 5))
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
    assert [key for key, entry in METRICS.items() if not entry.of_tree] == ["top1", "top3", "top5", "top1_macro", "ece"]


def test_metrics_are_one_level_deeper_in_json() -> None:
    metrics = {"top1": 0.5, "level_accuracy/a": 0.25, "level_accuracy/b/c": 1.0, "hF": 0.75}
    content = {"top1": 0.5, "level_accuracy": {"a": 0.25, "b/c": 1.0}, "hF": 0.75}
    assert nested(metrics) == content
    assert list(nested(metrics)) == list(content)
    assert flat(content) == metrics
    assert list(flat(content)) == list(metrics)
