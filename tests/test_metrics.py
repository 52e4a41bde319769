"""Metrics against naive loops and scikit-learn on random trees."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import top_k_accuracy_score

from hfc.errors import ConfigError
from hfc.metrics import calibration_error, evaluate

Ints = NDArray[np.int64]


def random_tree(rng: np.random.Generator, depth: int) -> Ints:
    """(C, H) ancestors of a random tree in which every node has at least one leaf."""
    paths = [(0,)] * int(rng.integers(1, 3))
    paths = [(i,) for i in range(len(paths))]
    for _ in range(depth - 1):
        children = [(*path, None) for path in paths for _ in range(int(rng.integers(1, 4)))]
        paths = [(*path[:-1], i) for i, path in enumerate(children)]  # type: ignore[misc]
    while len(paths) < 2:
        paths = [*paths, (*paths[0][:-1], len(paths))]
    return np.array(paths, dtype=np.int64)


def naive(levels: list[NDArray[np.float64]], final: NDArray[np.float64], target: Ints, tree: Ints) -> dict[str, float]:
    n, depth = len(target), tree.shape[1]
    k = min(3, final.shape[1])
    hits = distance1 = distance_k = shared = full = broken = 0.0
    mistakes: list[int] = []

    def climb(a: int, b: int) -> int:
        steps = 0
        while steps < depth and tree[a][depth - 1 - steps] != tree[b][depth - 1 - steps]:
            steps += 1
        return steps

    for i in range(n):
        order = sorted(range(final.shape[1]), key=lambda c: (-final[i, c], c))[:k]
        hits += target[i] in order
        distance1 += climb(order[0], target[i])
        distance_k += sum(climb(c, target[i]) for c in order) / k
        if order[0] != target[i]:
            mistakes.append(climb(order[0], target[i]))
        path = [(h, tree[order[0]][h]) for h in range(depth)]
        truth = [(h, tree[target[i]][h]) for h in range(depth)]
        shared += len(set(path) & set(truth))
        own = [int(np.argmax(level[i])) for level in levels[:-1]] + [order[0]]
        full += own == tree[target[i]].tolist()
        broken += not any(own == leaf.tolist() for leaf in tree)
    return {
        "topk": hits / n,
        "distance@1": distance1 / n,
        "distance@k": distance_k / n,
        "mistake_severity": sum(mistakes) / len(mistakes) if mistakes else 0.0,
        "hF": shared / (n * depth),
        "full_path_accuracy": full / n,
        "inconsistency": broken / n,
    }


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), depth=st.integers(1, 6))
def test_metrics_equal_naive_loops_on_random_trees(seed: int, depth: int) -> None:
    rng = np.random.default_rng(seed)
    tree = random_tree(rng, depth)
    sizes = tree.max(axis=0) + 1
    target = rng.integers(0, len(tree), 20)
    levels = [rng.integers(0, 9, (20, size)) / 9 for size in sizes]  # coarse values, so that there are ties
    final = levels[-1]
    k = min(3, len(tree))
    got = evaluate(levels, final, target, names=[f"l{h}" for h in range(depth)], ancestors=tree, topk=(1, k))
    expected = naive(levels, final, target, tree)
    for name in ("distance@1", "mistake_severity", "hF", "full_path_accuracy", "inconsistency"):
        assert got[name] == pytest.approx(expected[name]), name
    assert got[f"top{k}"] == pytest.approx(expected["topk"])
    assert got[f"distance@{k}"] == pytest.approx(expected["distance@k"])
    for h in range(depth - 1):
        own = levels[h].argmax(axis=1)
        assert got["level_accuracy"][f"l{h}"] == pytest.approx(np.mean(own == tree[target, h]))
    assert got["level_accuracy"][f"l{depth - 1}"] == got["top1"]


def test_top_k_equals_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    final, target = rng.random((500, 7)), rng.integers(0, 7, 500)
    got = evaluate([final], final, target, names=["leaf"], ancestors=np.arange(7)[:, None], topk=(1, 3, 5))
    for k in (1, 3, 5):
        assert got[f"top{k}"] == pytest.approx(top_k_accuracy_score(target, final, k=k, labels=range(7)))


def test_macro_accuracy_leaves_out_classes_without_samples() -> None:
    final = np.array([[0.9, 0.1, 0.0], [0.9, 0.1, 0.0], [0.8, 0.2, 0.0]])
    got = evaluate([final], final, np.array([0, 0, 1]), names=["leaf"], ancestors=np.arange(3)[:, None], topk=(1,))
    assert got["top1_macro"] == 0.5


def test_calibration_error_equals_a_loop_over_bins() -> None:
    rng = np.random.default_rng(1)
    final, target = rng.random((300, 4)), rng.integers(0, 4, 300)
    shares = final / final.sum(axis=1, keepdims=True)
    confidence, correct = shares.max(axis=1), shares.argmax(axis=1) == target
    error = 0.0
    for b in range(15):
        inside = (confidence > b / 15) & (confidence <= (b + 1) / 15)
        if inside.any():
            error += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    assert calibration_error(final, target) == pytest.approx(error)


def test_a_k_beyond_the_number_of_classes_is_refused() -> None:
    final = np.ones((2, 4))
    with pytest.raises(ConfigError, match=r"top-5 of 4 classes does not exist; give --set topk=1,3"):
        evaluate([final], final, np.array([0, 1]), names=["a"], ancestors=np.arange(4)[:, None], topk=(1, 3, 5))
