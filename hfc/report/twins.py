"""Twins of test images in training, and what they do to accuracies. N test images.

They are read from the folder that `hfc inspect --twins` leaves.
"""

import csv
import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hfc.errors import RunError
from hfc.provenance import LISTED
from hfc.report.cells import Cell, Table, plus_minus
from hfc.report.checks import MIND, OK, WRONG, Check
from hfc.report.rows import Bools, Leaderboard
from hfc.runs import Run
from hfc.store.records import Record

MARK, TWINS = "twins.json", "twins.csv"
MOST_SHARED = 0.01  # of the test images: with more the accuracies are no measure of new images
REMEDY = "run hfc inspect --twins again"
HEADER = ("set", "id", "label", "split", "twin", "cosine", "training_twin", "training_cosine", "same_bytes")


@dataclass(frozen=True, kw_only=True)
class TwinsRecord(Record):
    """What twins.json holds."""

    features_sha256: str
    labels_digest: str
    """Over ids, labels, splits and groups of all rows, as runs record it."""
    min_cosine: float
    rows: int
    """Rows with a twin."""
    sets: int
    pairs: int
    sets_across_splits: int
    sets_of_several_labels: int
    test_rows: int
    test_rows_with_twin_in_training: int


@dataclass(frozen=True)
class KnownTwins:
    """The twins that `hfc inspect` wrote."""

    folder: Path
    record: TwinsRecord
    trained: frozenset[str]
    """Ids of the rows that have a twin in training."""

    def shared(self, board: Leaderboard) -> Bools:
        """(N,) whether each test image of a leaderboard has a twin in training."""
        ids = board.best.predictions[0].id
        return np.fromiter((name in self.trained for name in ids), dtype=np.bool_, count=len(ids))


def read_twins(folder: Path, runs: Sequence[Run]) -> KnownTwins:
    """Read the folder of `hfc inspect --twins`.

    Raises:
        RunError: it is missing, damaged or changed; or a run has other features, labels or splits.
    """
    mark, file = folder / MARK, folder / TWINS
    try:
        record = TwinsRecord.from_json(mark.read_bytes(), str(mark), REMEDY)
        content = file.read_bytes()
    except OSError as error:
        raise RunError(f"{folder}: cannot read the twins: {error}; {REMEDY}") from error
    files = record.others.get(LISTED)
    if not isinstance(files, dict) or files.get(TWINS) != hashlib.sha256(content).hexdigest():
        raise RunError(f"{file}: is not the file that {MARK} lists; {REMEDY}")
    for run in runs:
        _refuse_other(folder, record, run)
    lines = csv.DictReader(io.StringIO(content.decode("utf-8"), newline=""))
    return KnownTwins(folder, record, frozenset(line["id"] for line in lines if line["training_twin"]))


def _refuse_other(folder: Path, record: TwinsRecord, run: Run) -> None:
    if run.result.outer:
        why = "is of an outer fold, whose training images are others than those of the cache's own splits"
        raise RunError(f"--twins {folder}: {run.folder} {why}; leave --twins out, and keep twins together by groups")
    cache = run.result.cache
    pairs = [("features", record.features_sha256, cache.features_sha256)]
    if cache.labels_digest is None:
        if cache.labels_sha256:
            raise RunError(f"{run.folder}: does not record its labels and splits; train it again to give --twins")
    else:
        pairs.append(("labels and splits", record.labels_digest, cache.labels_digest))
    for what, expected, own in pairs:
        if expected != own:
            labels = " --labels FILE" if cache.labels_sha256 else ""
            raise RunError(
                f"--twins {folder}: expected the twins of the {what} of {run.folder}, {own[:12]}…, "
                f"found {expected[:12]}…; make them with hfc inspect {cache.path}{labels} --twins DIR"
            )


def twin_checks(twins: KnownTwins, boards: Sequence[Leaderboard]) -> Iterator[Check]:
    """Say how many test images have a twin in training."""
    for board in boards:
        shared = twins.shared(board)
        count, share = int(shared.sum()), float(shared.mean())
        text = (
            f"{count:,} of {len(shared):,} test images ({share:.2%}) have a twin in training, at a cosine of "
            f"{twins.record.min_cosine:g} or more"
        )
        if share > MOST_SHARED:
            yield Check(WRONG, f"{text}: accuracies on all of them say too much; see Twins.")
        else:
            yield Check(MIND if count else OK, f"{text}.")


def twin_table(twins: KnownTwins, board: Leaderboard) -> Table:
    """Make the table of each accuracy with and without twins in training."""
    shared = twins.shared(board)
    topk = sorted({k for outcome in board.outcomes for k in outcome.row.first.settings.topk})
    rows = []
    for outcome in board.outcomes:
        cells = [Cell(outcome.label)]
        for k in topk:
            right = outcome.rank < k
            cells += [_accuracy(right), _accuracy(right[:, ~shared]), _accuracy(right[:, shared])]
        rows.append(tuple(cells))
    header = ("method", *(f"top-{k}{part} %" for k in topk for part in ("", " without", " of twins alone")))
    note = (
        f"With all {len(shared):,} test images, without the {int(shared.sum()):,} that have a twin in training, and of "
        f"these alone. Mean ± sample standard deviation over seeds."
    )
    return Table("twins", "Accuracy with and without twins", header, tuple(rows), note)


def _accuracy(right: Bools) -> Cell:
    """Write the mean of (S, n) right answers over images, mean and deviation over seeds."""
    if not right.shape[1]:
        return Cell("–")
    by_seed = [float(mean) for mean in right.mean(axis=1)]
    return Cell(plus_minus(by_seed), 100 * float(np.mean(by_seed)))
