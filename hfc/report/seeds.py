"""The predictions of one run, as the report reads them. N test images whose label is a leaf."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hfc import metrics, provenance, runs
from hfc.errors import RunError, StoreError
from hfc.hierarchy import Hierarchy, lca_height
from hfc.regions import Strings
from hfc.report.grouped import Groups, named_groups
from hfc.runs import Run
from hfc.store import Kept, Predictions, Shortened, read_predictions
from hfc.store.records import REMEDY

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

PREDICTIONS = "predictions.h5"


@dataclass(frozen=True, eq=False)
class Detail:
    """What pools runs and gives their metrics intervals, beside the answers. H levels."""

    nll: Floats
    """(N,) −ln of the true leaf's share of P_final."""
    distance: Mapping[int, Floats]
    """(N,) mean LCA height of the k most probable leaves, by k."""
    rows: int
    """Test images, also those whose label is an inner node."""
    reaching: Ints
    """(H,) how many of them have a label that reaches each level."""


@dataclass(frozen=True, eq=False)
class SeedPredictions:
    """The predictions of one run for its test images, in the order of their ids.

    Images whose label is an inner node are left out: which of the leaves below it were right is not known.
    """

    tree: Hierarchy
    id: Strings
    """(N,)"""
    target: Ints
    """(N,) true leaves."""
    predicted: Ints
    """(N,) most probable leaves of P_final."""
    rank: Ints
    """(N,) how many leaves come before the true one."""
    confidence: Floats
    """(N,) the predicted leaf's share of P_final."""
    uncalibrated: Floats | None
    """(N,) the same without the temperature; None where it is not known."""
    groups: Groups
    detail: Detail | None = None
    """None where it was not asked for."""

    @cached_property
    def images(self) -> str:
        """The digest of the test images and their true leaves."""
        names = [self.tree.leaves[leaf] for leaf in self.target]
        return provenance.digest([self.id.tolist(), names])

    @cached_property
    def digest(self) -> str:
        """The digest of test images, true leaves and groups. Runs that share it may be compared."""
        number = self.groups.number
        return provenance.digest([self.images, number.tolist()]) if self.groups.shared else self.images

    def in_order_of(self, tree: Hierarchy) -> "SeedPredictions":
        """Number the leaves as another tree does, which differs in their order alone."""
        if tree.digest == self.tree.digest:
            return self
        place = tree.index(self.tree.leaves, "predictions")
        return replace(self, tree=tree, target=place[self.target], predicted=place[self.predicted])


def read_seed(run: Run, detailed: bool = False) -> SeedPredictions:
    """Read a run's predictions; those of outer folds in detail.

    Raises:
        RunError: the predictions or the hierarchy are missing, damaged, or do not fit each other.
    """
    tree = runs.hierarchy(run)
    file = run.folder / PREDICTIONS
    try:
        predictions = read_predictions(file)
    except StoreError as error:
        closed = isinstance(error.__cause__, PermissionError)
        raise RunError(f"{error}; {'ask its owner for permission' if closed else REMEDY}") from error
    if predictions.key not in ("", run.result.key):
        wanted = f"expected key {run.result.key[:12]}…, found {predictions.key[:12]}…"
        raise RunError(f"{file}: the predictions of another run: {wanted}; {REMEDY}")
    _refuse_misfit(str(file), predictions, len(tree.leaves))
    order = np.argsort(predictions.id, kind="stable")
    order = order[predictions.target[order] >= 0]
    predicted, rank, confidence = _answers(predictions)
    groups = named_groups([""] * len(order) if predictions.group is None else predictions.group[order])
    rows = predictions.id[order], predictions.target[order], predicted[order], rank[order], confidence[order]
    detail = _detail(run, tree, predictions, order) if detailed or run.result.outer else None
    uncalibrated = _uncalibrated(run, predictions.final, order, confidence[order])
    return SeedPredictions(tree, *rows, uncalibrated, groups, detail)


def _detail(run: Run, tree: Hierarchy, predictions: Predictions | Shortened, order: Ints) -> Detail:
    """Read the detail of a run's predictions, of the rows in an order."""
    final, target = predictions.final, predictions.target[order]
    most = max(run.result.settings.topk)
    if isinstance(final, Kept):
        ranking, own, total = final.node[order, :most].astype(np.int64), final.true[order], final.total[order]
    else:
        chosen = final[order]
        ranking, total = metrics.top(chosen, most), chosen.sum(axis=1, dtype=np.float64)
        own = np.take_along_axis(chosen, target[:, None], axis=1)[:, 0]
    share = own.astype(np.float64) / np.maximum(total, metrics.LEAST)
    ancestors, falls = tree.ancestors.T, tree.falls.T
    height = lca_height(ancestors[:, ranking], ancestors[:, target, None], falls[:, ranking])
    path = tree.ancestors[predictions.target] if predictions.path is None else predictions.path
    return Detail(
        nll=-np.log(np.maximum(share, metrics.LEAST)),
        distance={k: height[:, :k].mean(axis=1) for k in run.result.settings.topk if k <= ranking.shape[1]},
        rows=len(predictions.id),
        reaching=(path >= 0).sum(axis=0),
    )


def _uncalibrated(run: Run, final: NDArray[np.float32] | Kept, order: Ints, confidence: Floats) -> Floats | None:
    """Undo the temperature of the predicted leaf's share, (N,). None where not all leaves are kept, or none is."""
    if isinstance(final, Kept) or not run.result.temperature or run.result.settings.decode == "least-cost":
        return None
    if run.result.calibrated_by == 1:  # as of most runs: powers of all shares take memory and time
        return confidence
    logs = run.result.calibrated_by * np.log(np.maximum(final[order].astype(np.float64), metrics.LEAST))
    share: Floats = 1 / np.exp(logs - logs.max(axis=1, keepdims=True)).sum(axis=1)
    return share


def _refuse_misfit(file: str, predictions: Predictions | Shortened, leaves: int) -> None:
    """Raise a RunError where predictions are not of so many rows, or of other leaves."""
    rows, target = len(predictions.id), predictions.target
    named = [target if predictions.path is None else target[target >= 0]]
    if isinstance(predictions, Shortened):
        node = predictions.final.node
        named.append(node.astype(np.int64))
        shape, fits = node.shape, node.shape[:-1] == predictions.final.rank.shape == (rows,)
    else:
        shape, fits = predictions.final.shape, predictions.final.shape == (rows, leaves)
    if not fits or target.shape != (rows,) or rows == 0:
        raise RunError(f"{file}: expected probabilities of {rows} rows over {leaves} leaves, found {shape}; {REMEDY}")
    if not all(len(leaf) for leaf in named):
        raise RunError(f"{file}: expected a test row whose label is a leaf, found none; {REMEDY}")
    if not all(0 <= leaf.min() <= leaf.max() < leaves for leaf in named):
        raise RunError(f"{file}: names a leaf that the run's hierarchy lacks; {REMEDY}")
    if predictions.group is not None and len(predictions.group) != rows:
        raise RunError(f"{file}: expected a group for each of {rows} rows, found {len(predictions.group)}; {REMEDY}")


def _answers(predictions: Predictions | Shortened) -> tuple[Ints, Ints, Floats]:
    """Find the most probable leaf of each row, its share, and the true one's rank."""
    if isinstance(predictions, Shortened):
        final = predictions.final
        predicted, rank = final.node[:, 0].astype(np.int64), final.rank.astype(np.int64)
        best, total = final.probability[:, 0], final.total
    else:
        every = predictions.final
        predicted, rank = every.argmax(axis=1), metrics.rank(every, predictions.target)  # ties go to the first
        best, total = every.max(axis=1), every.sum(axis=1)
    confidence = best / np.maximum(total, np.finfo(np.float32).tiny)
    return predicted, rank, confidence.astype(np.float64)
