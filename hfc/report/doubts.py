"""Find labels that a collection itself contradicts, by confident learning.

The method is that of Northcutt, Jiang & Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", Journal
of Artificial Intelligence Research 70 (2021): the confident joint of section 3.1, and "prune by class" of section 3.2.

Dimensions: n judged rows, C leaves, m doubtful rows.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from hfc.hierarchy import Hierarchy

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Shares = NDArray[np.floating[Any]]

SLACK = 1e-12  # the mean of equal numbers may be rounded to above them
NOTHING = -1


@dataclass(frozen=True, eq=False)
class Doubts:
    """Doubtful labels, the most doubtful first."""

    row: Ints
    """(m,) place of each among the judged rows."""
    suggested: Ints
    """(m,) the most probable leaf, which is another than the label."""
    p_label: Floats
    """(m,) the probability of the label."""
    p_suggested: Floats
    """(m,) that of the suggested leaf."""
    are_siblings: Bools
    """(m,) whether label and suggestion have one parent."""
    confident: csr_array
    """(C, C) the confident joint: how many rows with a label (first axis) surely are of a leaf (second axis). Few of
    its cells are not 0."""
    estimated: csr_array
    """(C, C) how many rows have a label and are of a leaf, by estimate; it sums to n."""

    @property
    def estimated_errors(self) -> float:
        """How many labels are wrong, by the estimate."""
        return float(self.estimated.sum() - self.estimated.diagonal().sum())


def find_doubts(probability: Shares, leaf: Ints, tree: Hierarchy) -> Doubts:
    """Find the rows whose label is doubtful.

    Of the rows with a label, those are that have the least self-confidence: as many as the confident joint counts off
    its diagonal. The paper takes the larger number of the estimated joint; the order is the same, and the list longer.
    A row whose label is its most probable leaf is not doubtful.

    Args:
        probability: (n, C) of every row, by a model that never saw it.
        leaf: (n,) the labels.
        tree: over the leaves.
    """
    own = probability[np.arange(len(leaf)), leaf].astype(np.float64)
    confident = confident_joint(probability, leaf)
    suggested = _suggested(probability, leaf)
    doubtful = np.zeros(len(leaf), dtype=np.bool_)
    wrong = confident.sum(axis=1) - confident.diagonal()
    for label in np.flatnonzero(wrong):
        rows = np.flatnonzero(leaf == label)
        doubtful[rows[np.argsort(own[rows], kind="stable")[: wrong[label]]]] = True
    doubtful &= suggested != NOTHING
    row = np.flatnonzero(doubtful)
    row = row[np.argsort(own[row], kind="stable")]
    return Doubts(
        row=row,
        suggested=suggested[row],
        p_label=own[row],
        p_suggested=probability[row, suggested[row]].astype(np.float64),
        are_siblings=tree.are_siblings(leaf[row], suggested[row]),
        confident=confident,
        estimated=estimated_joint(confident, np.bincount(leaf, minlength=len(tree.leaves))),
    )


def thresholds(probability: Shares, leaf: Ints) -> Floats:
    """Compute for each leaf the mean self-confidence of the rows with its label, (C,).

    A leaf that labels no row has infinity: nothing surely is of it.
    """
    count = np.bincount(leaf, minlength=probability.shape[1])
    own = probability[np.arange(len(leaf)), leaf].astype(np.float64)
    sums = np.bincount(leaf, weights=own, minlength=probability.shape[1])
    means: Floats = np.divide(sums, count, out=np.full(len(count), np.inf), where=count > 0)
    return means


def confident_joint(probability: Shares, leaf: Ints) -> csr_array:
    """Count the rows with each label that surely are of each leaf, (C, C).

    A row surely is of the most probable leaf among those whose threshold it reaches; of equals it is the first. A row
    that reaches none is not counted.
    """
    reached = probability >= thresholds(probability, leaf) * (1 - SLACK)
    sure = np.where(reached, probability, -1.0).argmax(axis=1)
    counted = reached.any(axis=1)
    return count_pairs(leaf[counted], sure[counted], probability.shape[1])


def count_pairs(label: Ints, leaf: Ints, leaves: int) -> csr_array:
    """Count the pairs of a label and a leaf, (C, C): as many numbers as there are pairs, not as there are cells."""
    return csr_array((np.ones(len(label), dtype=np.int64), (label, leaf)), shape=(leaves, leaves))


def estimated_joint(confident: csr_array, count: Ints) -> csr_array:
    """Scale each row of a confident joint to its label's number of rows, (C,)."""
    row = confident.nonzero()[0]
    joint = confident.astype(np.float64)
    joint.data = confident.data / confident.sum(axis=1)[row] * count[row]
    return joint


def _suggested(probability: Shares, leaf: Ints) -> Ints:
    """(n,) the most probable leaf of those that label a row; NOTHING where it is the label, also among equals."""
    known = np.bincount(leaf, minlength=probability.shape[1]) > 0
    best: Ints = np.where(known, probability, -1.0).argmax(axis=1)
    rows = np.arange(len(leaf))
    return np.where(probability[rows, best] > probability[rows, leaf], best, NOTHING)
