"""Rows of runs: runs that differ in their seed alone are one row. S seeds, N test images, H levels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hfc import provenance
from hfc.hierarchy import Hierarchy, lca_height
from hfc.progress import steps
from hfc.report.grouped import Groups, Interval
from hfc.report.identity import Identity, distinct_labels, identity, tree_digests, with_tree
from hfc.report.outer import pool
from hfc.report.seeds import SeedPredictions, read_seed
from hfc.runs import Result, Run

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

BENCHMARK_TEST_ROWS = 40_000  # DeepFashion, Category and Attribute Prediction


class Category(NamedTuple):
    """A leaf, and how often each method of a leaderboard is right there."""

    name: str
    path: tuple[str, ...]
    images: int
    """Of the test split."""
    accuracy: list[float | None]
    """Of each method; None where there are no images."""


@dataclass(frozen=True)
class Row:
    """Runs that differ in their seed alone."""

    runs: tuple[Run, ...]
    key: str
    """Digest over what makes the row. It identifies the row; its label does not."""
    label: str
    """The method, its tree, and the words that no other row has."""

    @property
    def first(self) -> Result:
        """The result of the first seed: all seeds share what is not measured."""
        return self.runs[0].result

    @property
    def seeds(self) -> list[int]:
        """Seeds in order."""
        return [run.result.seed for run in self.runs]

    @property
    def trainings(self) -> list[tuple[str, Run]]:
        """The runs as they were trained, with their seeds as words; of outer folds each by itself."""
        return [
            (f"{run.result.seed}, fold {part.result.outer.number}" if part.result.outer else f"{run.result.seed}", part)
            for run in self.runs
            for part in run.parts or (run,)
        ]

    @property
    def commit(self) -> str:
        """The commits that trained the runs, shortened; the code's digest where there was no git."""
        codes = [run.result.code for _, run in self.trainings]
        return ", ".join(sorted({provenance.short(code.commit) or f"code {code.digest[:12]}" for code in codes}))

    def values(self, metric: str) -> list[float]:
        """List a test metric seed by seed; empty where the runs do not have it."""
        return [run.result.test[metric] for run in self.runs if metric in run.result.test]

    def mean(self, metric: str) -> float:
        """Average a test metric over the seeds."""
        return float(np.mean(self.values(metric)))

    @property
    def of_deepfashion(self) -> bool:
        """Whether the images are DeepFashion's, in whatever split."""
        return self.first.cache.origin.startswith("DeepFashion")

    @property
    def comparable(self) -> bool:
        """Whether published numbers are comparable: DeepFashion with its whole test split."""
        origin, tested = self.first.cache.origin, self.first.rows.test
        return origin == "DeepFashion" and tested == BENCHMARK_TEST_ROWS


@dataclass(frozen=True, eq=False)
class Outcome:
    """A row and the predictions of its seeds, image by image."""

    row: Row
    predictions: tuple[SeedPredictions, ...]
    """All have one digest and one tree. They are of the test images whose label is a leaf."""

    @property
    def label(self) -> str:
        """The row's."""
        return self.row.label

    @property
    def tree(self) -> Hierarchy:
        """The tree of all seeds."""
        return self.predictions[0].tree

    @property
    def target(self) -> Ints:
        """(N,) true leaves."""
        return self.predictions[0].target

    @property
    def groups(self) -> Groups:
        """The groups of the test images."""
        return self.predictions[0].groups

    @cached_property
    def predicted(self) -> Ints:
        """(S, N) most probable leaves."""
        return np.stack([seed.predicted for seed in self.predictions])

    @cached_property
    def rank(self) -> Ints:
        """(S, N) how many leaves come before the true one."""
        return np.stack([seed.rank for seed in self.predictions])

    @cached_property
    def confidence(self) -> Floats:
        """(S, N) the predicted leaf's share of P_final."""
        return np.stack([seed.confidence for seed in self.predictions])

    @cached_property
    def uncalibrated(self) -> Floats | None:
        """(S, N) the same without the temperature; None where a seed's is not known, or no seed has another than 1."""
        shares = [seed.uncalibrated for seed in self.predictions if seed.uncalibrated is not None]
        changed = any(run.result.calibrated_by != 1 for run in self.row.runs)
        return np.stack(shares) if changed and len(shares) == len(self.predictions) else None

    @cached_property
    def correct(self) -> Bools:
        """(S, N) whether the most probable leaf is the true one."""
        right: Bools = self.rank == 0
        return right

    @cached_property
    def height(self) -> Ints:
        """(S, N) LCA height of each answer, in levels; 0 where it is right."""
        levels, falls = self.tree.ancestors.T, self.tree.falls.T  # a table of all pairs of leaves grows too fast
        height: Ints = lca_height(levels[:, self.predicted], levels[:, self.target], falls[:, self.predicted])
        return height

    @cached_property
    def on_path(self) -> Bools:
        """(S, N, H) whether the paths to both leaves share a node on each level."""
        truth = self.tree.ancestors[self.target]
        same: Bools = (self.tree.ancestors[self.predicted] == truth) & (truth >= 0)
        return same

    def hardest(self, most: int) -> Ints:
        """Find the leaves with the most wrong answers, in the order of the tree."""
        wrong = np.bincount(self.target, (~self.correct).sum(axis=0), minlength=len(self.tree.leaves))
        return np.sort(np.argsort(-wrong, kind="stable")[:most])

    def node_scores(self) -> list[tuple[int, int, int, float | None]]:
        """List every node: level, index, test images, share. The share's answers have a path through it."""
        truth = self.tree.ancestors[self.target]
        share = self.on_path.mean(axis=0)
        scores = []
        for level, size in enumerate(self.tree.sizes):
            below = truth[:, level] >= 0  # else the label is a leaf above
            support = np.bincount(truth[below, level], minlength=size)
            right = np.bincount(truth[below, level], share[below, level], minlength=size)
            scores += [(level, i, int(n), float(right[i] / n) if n else None) for i, n in enumerate(support)]
        return scores


@dataclass(frozen=True, eq=False)
class Leaderboard:
    """Rows that may be compared: tested on the same images and labels. The best top-1 comes first."""

    outcomes: tuple[Outcome, ...]
    baseline: Outcome | None = None
    """What every other row is compared with; None: all are compared with each other."""
    intervals: Mapping[Outcome, Mapping[str, Interval]] = field(default_factory=dict)
    """Of the metrics of each row, where there is a baseline."""

    @property
    def best(self) -> Outcome:
        """The row of the highest mean top-1."""
        return self.outcomes[0]

    @property
    def reference(self) -> Outcome:
        """The row that differences are from: the baseline, or the best."""
        return self.baseline or self.best

    def category_scores(self) -> list[Category]:
        """List the best tree's leaves."""
        tree, target = self.best.tree, self.best.target
        size = len(tree.leaves)
        support = np.bincount(target, minlength=size)
        right = [np.bincount(target, outcome.correct.sum(axis=0), size) for outcome in self.outcomes]
        seeds = [len(outcome.predictions) for outcome in self.outcomes]
        return [
            Category(
                tree.leaves[leaf],
                tree.path(leaf),
                int(n),
                [float(counts[leaf] / (s * n)) if n else None for counts, s in zip(right, seeds, strict=True)],
            )
            for leaf, n in enumerate(support)
        ]


def summarise(all_runs: Sequence[Run], tested: Sequence[str] = ()) -> list[Row]:
    """Group runs that differ in their seed alone. Of two with one seed the later counts.

    Args:
        all_runs: runs.
        tested: the digest of each run's test images, where they were read; another digest makes another row.
    """
    seeds: dict[str, dict[int, Run]] = {}
    identities: dict[str, Identity] = {}
    pairs = zip(all_runs, tested or [""] * len(all_runs), strict=True)
    for run, images in sorted(pairs, key=lambda pair: pair[0].result.created):
        own = identity(run.result, images)
        key = provenance.digest(dict(own))
        identities[key] = own
        seeds.setdefault(key, {})[run.result.seed] = run
    same = {key: tuple(run for _, run in sorted(runs_of.items())) for key, runs_of in seeds.items()}
    labels = distinct_labels([runs_of[0].result for runs_of in same.values()], list(identities.values()))
    rows = [Row(runs_of, key, label) for (key, runs_of), label in zip(same.items(), labels, strict=True)]
    return sorted(rows, key=lambda row: (row.first.cache.path, row.label))


def read_leaderboards(all_runs: Sequence[Run], detailed: bool = False) -> list[Leaderboard]:
    """Group the rows that may be compared image by image.

    Args:
        all_runs: the runs.
        detailed: read what intervals of metrics need; of outer folds it is read in any case.

    Raises:
        RunError: a run's predictions or hierarchy cannot be read.
    """
    return read_sets([all_runs], detailed)[0]


def read_sets(sets: Sequence[Sequence[Run]], detailed: bool = False) -> list[list[Leaderboard]]:
    """Group the rows of several sets of runs, each set by itself. A tree has one digest in all of them.

    The outer folds of one seed are pooled: each image is tested once.

    Raises:
        RunError: a run's predictions or hierarchy cannot be read.
    """
    every = {run.folder: run for all_runs in sets for run in all_runs}
    predictions = {folder: read_seed(run, detailed) for folder, run in steps(every.items(), "reading predictions")}
    digests = tree_digests(seed.tree for seed in predictions.values())
    grouped = []
    for all_runs in sets:
        renamed = [with_tree(run, digests[predictions[run.folder].tree.digest]) for run in all_runs]
        pooled = pool(renamed, [predictions[run.folder] for run in all_runs])
        read = {id(run): seed for run, seed in pooled}
        same: dict[str, list[Outcome]] = {}
        for row in summarise([run for run, _ in pooled], [seed.digest for _, seed in pooled]):
            seeds = [read[id(run)] for run in row.runs]
            aligned = tuple(seed.in_order_of(seeds[0].tree) for seed in seeds)
            same.setdefault(seeds[0].digest, []).append(Outcome(row, aligned))
        boards = (sorted(one, key=lambda row: (-row.correct.mean(), row.label)) for one in same.values())
        grouped.append([Leaderboard(tuple(outcomes)) for outcomes in boards])
    return grouped
