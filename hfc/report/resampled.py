"""Intervals of metrics, and of their differences from a baseline, by drawing images. S seeds, N images, B draws.

A metric here is a function of how often each image is drawn. So what is no mean over images, as macro accuracy or
severity, is computed anew in each draw; and all rows see the same draws, which pairs them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from hfc.errors import RunError
from hfc.metrics import metric
from hfc.progress import steps
from hfc.report.grouped import Floats, Ints, drawn_weights
from hfc.report.rows import Leaderboard, Outcome
from hfc.report.statistics import LEVEL, Difference, Interval, differences

DRAWS, DRAWS_OF_MANY, MANY = 10_000, 2_000, 20_000
BASELINE = "flat"

Measure = Callable[[Floats], Floats]
"""From (B, N), how often each image is drawn, to (B,)."""


def with_baseline(board: Leaderboard, name: str | None = None) -> tuple[Leaderboard, list[Difference]]:
    """Compare the rows of a leaderboard with its baseline, and give all metrics intervals.

    Args:
        board: of rows that were read in detail.
        name: of the baseline; of several rows, as under two trees, the one of the highest top-1; None: BASELINE where
            there is one, else the best row.
    """
    chosen = _named(board, name or BASELINE)
    baseline = chosen[0] if len(chosen) == 1 or (name and chosen) else board.best
    drawn = _drawn(board)
    others = [outcome for outcome in board.outcomes if outcome is not baseline]
    pairs = []
    for pair in differences([(outcome, baseline) for outcome in others]):
        first, second = drawn[pair.first], drawn[pair.second]
        one_tree = pair.first.row.first.hierarchy.digest == pair.second.row.first.hierarchy.digest
        shared = [key for key in first if key in second and (one_tree or not metric(key).of_tree)]
        pairs.append(replace(pair, intervals={key: _interval(first[key] - second[key]) for key in shared}))
    intervals = {
        outcome: {key: _interval(values) for key, values in measured.items()} for outcome, measured in drawn.items()
    }
    return replace(board, baseline=baseline, intervals=intervals), pairs


def check_baseline(boards: Sequence[Leaderboard], name: str) -> None:
    """Raise a RunError where no leaderboard has a row of a name."""
    if not any(_named(board, name) for board in boards):
        labels = "; ".join(outcome.label for board in boards for outcome in board.outcomes)
        raise RunError(f"--baseline {name}: expected the name of one row, or its label; the rows are {labels}")


def _named(board: Leaderboard, name: str) -> list[Outcome]:
    """Find the rows of a label; else those of a name, as a plan has it, or of a method as it ships."""
    labelled = [outcome for outcome in board.outcomes if outcome.label == name]
    return labelled or [outcome for outcome in board.outcomes if _name(outcome) == name]


def _name(outcome: Outcome) -> str:
    result = outcome.row.first
    return result.outer.row if result.outer else result.method


def _interval(values: Floats) -> Interval:
    """The first value is the metric itself; the others are those of the draws."""
    low, high = np.quantile(np.round(values[1:], 12), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(values[0]), float(low), float(high))


def _drawn(board: Leaderboard) -> dict[Outcome, dict[str, Floats]]:
    """Compute the metrics of every row of all images, and of each draw: (1 + draws,) by metric."""
    groups, count = board.best.groups, len(board.best.target)
    draws = draws_of(count)
    measured = {outcome: measures(outcome) for outcome in board.outcomes}
    values: dict[Outcome, dict[str, list[Floats]]] = {
        outcome: {key: [measure(np.ones((1, count)))] for key, measure in own.items()}
        for outcome, own in measured.items()
    }
    for weights in steps(drawn_weights(groups, draws=draws), "drawing images"):
        for outcome, own in measured.items():
            for key, measure in own.items():
                values[outcome][key].append(measure(weights))
    return {outcome: {key: np.concatenate(parts) for key, parts in own.items()} for outcome, own in values.items()}


def draws_of(count: int) -> int:
    """Choose how often images are drawn: of many less often, as it takes as long as their number."""
    return DRAWS if count <= MANY else DRAWS_OF_MANY


def measures(outcome: Outcome) -> Mapping[str, Measure]:
    """List the metrics of a row that intervals are computed of; each a mean over seeds, as in the tables."""
    details = [seed.detail for seed in outcome.predictions if seed.detail]
    topk, tree = sorted({1, *outcome.row.first.settings.topk}), outcome.tree
    wrong = (~outcome.correct).astype(np.float64)
    nodes = tree.depths[outcome.predicted] + tree.depths[outcome.target]
    return {
        **{f"top{k}": _mean((outcome.rank < k).mean(axis=0)) for k in topk},
        "top1_macro": _macro(outcome.correct.mean(axis=0), outcome.target),
        "hF": _ratio(2.0 * outcome.on_path.sum(axis=2), nodes.astype(np.float64)),
        **{
            f"distance@{k}": _mean(np.mean([detail.distance[k] for detail in details], axis=0))
            for k in topk
            if all(k in detail.distance for detail in details)
        },
        "mistake_severity": _ratio(outcome.height.astype(np.float64), wrong),
        "nll": _mean(np.mean([detail.nll for detail in details], axis=0)),
    }


def _mean(scores: Floats) -> Measure:
    """The mean of (N,) scores."""
    return lambda weights: weights @ scores / weights.sum(axis=1)


def _ratio(above: Floats, below: Floats) -> Measure:
    """The mean over seeds of a ratio of two sums over images, (S, N) each; 0 where nothing is below."""

    def measure(weights: Floats) -> Floats:
        sums, parts = weights @ above.T, weights @ below.T
        ratios: Floats = np.divide(sums, parts, out=np.zeros_like(sums), where=parts > 0).mean(axis=1)
        return ratios

    return measure


def _macro(scores: Floats, target: Ints) -> Measure:
    """The mean over the leaves that are drawn of their images' mean score, (N,)."""
    order = np.argsort(target, kind="stable")
    starts = np.flatnonzero(np.diff(target[order], prepend=-1))

    def measure(weights: Floats) -> Floats:
        count = np.add.reduceat(weights[:, order], starts, axis=1)
        right = np.add.reduceat(weights[:, order] * scores[order], starts, axis=1)
        share = np.divide(right, count, out=np.zeros_like(right), where=count > 0)
        mean: Floats = share.sum(axis=1) / (count > 0).sum(axis=1)
        return mean

    return measure
