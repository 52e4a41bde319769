"""How good predictions are, flat and in the tree. NumPy only.

Dimensions: N samples, H levels (coarse to fine), C^h nodes on level h, C leaves.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from hfc.errors import ConfigError
from hfc.hierarchy import Hierarchy, lca_height

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.int64]
Metrics = Annotated[Mapping[str, float], "nested"]
"""Metrics by key; the accuracy of a level is `level_accuracy/NAME`, in JSON an entry of `level_accuracy`."""

BINS = 15
BLOCK = 1 << 20  # cells of a block of rows
LEAST = 1e-38  # what a share is at least where its logarithm is taken
LEVEL = "level_accuracy/"
"""What the key of a level's accuracy begins with."""


@dataclass(frozen=True)
class Metric:
    """What a metric is called, and how its numbers are read."""

    key: str
    title: str
    """For the head of a column."""
    words: str
    """For a reader who does not know the title."""
    scale: int = 100
    """What a number is multiplied by to be shown: 100 for percent."""
    higher: bool = True
    """Whether more is better."""
    of_tree: bool = False
    """Whether it depends on the tree."""

    @property
    def column(self) -> str:
        """The title with the unit."""
        return f"{self.title} %" if self.scale == 100 else self.title

    @property
    def digits(self) -> int:
        """How many digits are shown behind the point."""
        return 2 if self.scale == 100 else 3


METRICS = {
    metric.key: metric
    for metric in (
        Metric("top1", "top-1", "top-1 accuracy"),
        Metric("top3", "top-3", "top-3 accuracy"),
        Metric("top5", "top-5", "top-5 accuracy"),
        Metric("top1_macro", "macro top-1", "top-1 accuracy, mean over the leaves"),
        Metric("hF", "hF", "hierarchical F1", of_tree=True),
        Metric("full_path_accuracy", "full path", "every level's own prediction right", of_tree=True),
        Metric(
            "inconsistency",
            "inconsistent",
            "levels' own predictions that are no path of the tree",
            higher=False,
            of_tree=True,
        ),
        *(
            Metric(f"distance@{k}", f"distance@{k}", f"mean LCA height of the top {k}", 1, higher=False, of_tree=True)
            for k in (1, 3, 5)
        ),
        Metric(
            "mistake_severity",
            "mistake severity",
            "mistake severity: mean LCA height of wrong answers",
            1,
            higher=False,
            of_tree=True,
        ),
        Metric("ece", "ECE", "expected calibration error", higher=False),
        Metric("nll", "NLL", "negative log-likelihood of the true leaf", 1, higher=False),
    )
}


def metric(key: str) -> Metric:
    """Look up a metric by its key. It may also name another top k, or a level."""
    if key.startswith(LEVEL):
        return Metric(key, key.removeprefix(LEVEL), f"accuracy of level {key.removeprefix(LEVEL)}", of_tree=True)
    k = key.removeprefix("top")
    return METRICS.get(key) or Metric(key, f"top-{k}", f"top-{k} accuracy")


def evaluate(
    levels: Sequence[Floats], final: Floats, path: Ints, leaf: Ints, *, tree: Hierarchy, topk: Sequence[int]
) -> dict[str, float]:
    """Compute every metric of one set of predictions; most are fractions between 0 and 1.

    Args:
        levels: H arrays (N, C^h), each level's own probabilities; the last one is not used, `final` stands for it.
        final: (N, C) P_final over the leaves.
        path: (N, H) index of the true node on each level, −1 below the label.
        leaf: (N,) true leaves, −1 where the label is an inner node.
        tree: the tree.
        topk: the k of top-k accuracy and distance@k.

    Returns:
        Numbers by the keys of METRICS, over the rows that have a leaf. But the accuracy of a level is over the rows
        whose label reaches it, and `inconsistency` over all rows. A number that no row measures is left out.
        `top1_macro` is a mean over the leaves that occur. `hF` reads the path off the predicted leaf (Kiritchenko et
        al. 2006; root excluded). `distance@k` and `mistake_severity` are LCA heights; the latter over errors only, 0
        where there are none. What a level says below the predicted leaf is no part of the answer.

    Raises:
        ConfigError: a k larger than the number of leaves.
    """
    check_topk(topk, final.shape[1])
    ranking = top(final, max(topk))
    answer = tree.ancestors[ranking[:, 0]]
    own = np.stack([*(p.argmax(axis=1) for p in levels[:-1]), answer[:, -1]], axis=1)
    known = leaf >= 0
    rows = slice(None) if known.all() else known  # of all no copy is made
    return {
        **_accuracy(ranking[rows], leaf[rows], topk),
        **_level_accuracy(own, path, tree.levels),
        **_of_paths(ranking[rows], own[rows], path[rows], tree, topk),
        "inconsistency": float(((own != answer) & (answer >= 0)).any(axis=1).mean()),
        **(calibration(final[rows], leaf[rows]) if known.any() else {}),
    }


def _accuracy(ranking: Ints, leaf: Ints, topk: Sequence[int]) -> dict[str, float]:
    """Compute the accuracies of (N, K) ranked leaves against (N,) true ones; none without rows."""
    if not len(leaf):
        return {}
    hits = ranking == leaf[:, None]
    accuracy = {f"top{k}": float(hits[:, :k].any(axis=1).mean()) for k in topk}
    return accuracy | {"top1_macro": macro(hits[:, 0], leaf)}


def _level_accuracy(own: Ints, path: Ints, names: Sequence[str]) -> dict[str, float]:
    """Average the own answers of levels, (N, H), over the rows whose label reaches them."""
    levels = zip(names, (own == path).T, (path >= 0).T, strict=True)
    return {LEVEL + name: float(right[known].mean()) for name, right, known in levels if known.any()}


def _of_paths(ranking: Ints, own: Ints, path: Ints, tree: Hierarchy, topk: Sequence[int]) -> dict[str, float]:
    """Compare (N, K) ranked leaves and (N, H) own answers with true paths, (N, H); nothing without rows."""
    if not len(path):
        return {}
    nodes, falls = ([table[ranking, h] for h in range(len(tree.levels))] for table in (tree.ancestors, tree.falls))
    climbs = lca_height(nodes, path.T[:, :, None], falls)
    wrong = climbs[:, 0] > 0
    severity = climbs[wrong, 0]
    return {
        "hF": hierarchical_f(tree.ancestors[ranking[:, 0]], path),
        **{f"distance@{k}": float(climbs[:, :k].mean()) for k in topk},
        "mistake_severity": float(severity.mean()) if len(severity) else 0.0,
        "full_path_accuracy": float((~wrong & ((own == path) | (path < 0)).all(axis=1)).mean()),
    }


def macro(correct: NDArray[np.bool_], target: Ints) -> float:
    """Average the share of right answers over the leaves that occur."""
    support = np.bincount(target)
    right = np.bincount(target, correct)
    return float(np.mean(right[support > 0] / support[support > 0]))


def check_topk(topk: Sequence[int], leaves: int) -> None:
    """Raise a ConfigError for a k larger than the number of leaves."""
    if max(topk) > leaves:
        fitting = ",".join(str(k) for k in topk if k <= leaves) or "1"
        raise ConfigError(f"top-{max(topk)} of {leaves} classes does not exist; give --set topk={fitting}")


def top(probabilities: Floats, k: int) -> Ints:
    """Find the k most probable columns, (N, k), best first. Ties go to the lower index."""
    k = min(k, probabilities.shape[1])
    best = np.empty((len(probabilities), k), dtype=np.int64)
    for rows in _blocks(probabilities):
        best[rows] = _top(-probabilities[rows], k)
    return best


def _top(costs: Floats, k: int) -> Ints:
    """Find the k least columns of each row. Those that may be are sorted alone, which is quicker than sorting all."""
    highest = np.partition(costs, k - 1, axis=1)[:, k - 1 : k]
    near = costs <= highest
    alone = near.sum(axis=1) == k  # else several columns are equal to the last one
    columns = np.nonzero(near[alone])[1].reshape(-1, k)  # in their order, which decides among equals
    order = np.argsort(np.take_along_axis(costs[alone], columns, axis=1), axis=1, kind="stable")
    best = np.empty((len(costs), k), dtype=np.int64)
    best[alone] = np.take_along_axis(columns, order, axis=1)
    best[~alone] = np.argsort(costs[~alone], axis=1, kind="stable")[:, :k]
    return best


def _blocks(probabilities: Floats) -> Iterator[slice]:
    """Cut the rows into blocks of some BLOCK cells. Temporary arrays of all rows would take much memory."""
    step = max(BLOCK // probabilities.shape[1], 1)
    yield from (slice(start, start + step) for start in range(0, len(probabilities), step))


def rank(probabilities: Floats, target: Ints) -> Ints:
    """Count the columns before the target's, (N,), in the order of `top`. Top-k is right where it is below k.

    Counting them is several times faster than sorting the columns.

    Args:
        probabilities: (N, C).
        target: (N,).
    """
    before = np.empty(len(probabilities), dtype=np.int64)
    for rows in _blocks(probabilities):
        shares, leaf = probabilities[rows], target[rows, None]
        own = np.take_along_axis(shares, leaf, axis=1)
        earlier = np.arange(shares.shape[1]) < leaf
        before[rows] = (~(shares <= own) | ((shares == own) & earlier)).sum(axis=1)  # NaN is never right
    return before


def climb(depth: Ints, best: Ints, leaf: Ints, tree: Hierarchy) -> tuple[float, float, float | None]:
    """Measure answers that climb from the most probable leaf to a node above it.

    Args:
        depth: (N,) depth of each answer: 0 for the root to that of its leaf.
        best: (N,) that leaf.
        leaf: (N,) true leaves.
        tree: the tree.

    Returns:
        Specificity: the answers' depths together by those of their leaves; 1 where every answer is a leaf.
        Correct: share of samples whose answer lies on the true path; the root always does.
        Precision: hierarchical precision Σ|α∩β|/Σ|α|, α the nodes of the path to the answer and β those of the true
            path (Kiritchenko et al. 2006; root excluded); None where nothing is answered.
    """
    path, truth = tree.ancestors[best], tree.ancestors[leaf]
    named = np.arange(path.shape[1]) < depth[:, None]
    shared = (named & (path == truth)).sum(axis=1)
    answered = int(depth.sum())
    return (
        float(depth.mean()) / float(tree.depths[best].mean()),
        float((shared == depth).mean()),
        float(shared.sum()) / answered if answered else None,
    )


def hierarchical_f(predicted: Ints, truth: Ints) -> float:
    """Compute hF, the harmonic mean of Σ|α∩β|/Σ|α| and Σ|α∩β|/Σ|β|.

    α are the nodes of the predicted path, β those of the true one, without the root; none is counted twice.

    Args:
        predicted: (N, H) node index on each level, −1 below the predicted node.
        truth: (N, H) node index on each level, −1 below the true node.
    """
    shared = float(((predicted == truth) & (truth >= 0)).sum())
    if not shared:
        return 0.0
    precision, recall = (shared / int((path >= 0).sum()) for path in (predicted, truth))
    return 2 * precision * recall / (precision + recall)


def calibration(final: Floats, target: Ints) -> dict[str, float]:
    """Measure what the shares of P_final are worth: `ece` and `nll`, of (N, C) and (N,) true leaves; N > 0."""
    return {"ece": calibration_error(final, target), "nll": negative_log_likelihood(final, target)}


def negative_log_likelihood(final: Floats, target: Ints) -> float:
    """Average −ln of the true leaf's share of P_final; a share counts as LEAST at the least."""
    own = np.take_along_axis(final, target[:, None], axis=1)[:, 0].astype(np.float64)
    total = np.maximum(final.sum(axis=1, dtype=np.float64), LEAST)
    return float(-np.log(np.maximum(own / total, LEAST)).mean())


def calibration_error(final: Floats, target: Ints) -> float:
    """Compute the expected calibration error of the top-1 share of P_final, in bins (b/15, (b+1)/15]."""
    confidence, correct = np.empty(len(target)), np.empty(len(target), dtype=np.bool_)
    for rows in _blocks(final):
        shares = final[rows] / np.maximum(final[rows].sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
        confidence[rows] = shares.max(axis=1)
        correct[rows] = shares.argmax(axis=1) == target[rows]
    return error_of_confidence(confidence, correct)


def error_of_confidence(confidence: Floats, correct: NDArray[np.bool_]) -> float:
    """Compute the expected calibration error of answers from (N,) confidences and whether they are right."""
    gaps = np.bincount(bin_of(confidence), correct - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def bin_of(confidence: Floats) -> Ints:
    """Find the bin of each confidence, of the same shape: bin b holds those above b / BINS up to (b + 1) / BINS."""
    return np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
