"""What is said of the rows of runs before the first is trained."""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from hfc.config import SPLITS
from hfc.errors import warn_once
from hfc.hierarchy import some
from hfc.runs import Rows
from hfc.train.data import TrainingData

logger = logging.getLogger(__name__)

OnRows = Callable[[Rows], object]


def untrained(data: TrainingData) -> tuple[dict[str, int], dict[str, int]]:
    """Count the test rows of each leaf that the train split lacks.

    Returns:
        Those of leaves that nothing trains, so that no prediction for them can be right; and those of leaves below an
        inner label, which trains all leaves below it together.
    """
    tree, train, test = data.hierarchy, data.leaf("train"), data.leaf("test")
    count = np.bincount(test[test >= 0], minlength=len(tree.leaves))
    missing = np.setdiff1d(np.flatnonzero(count), train)
    labels = np.unique(data.path("train")[train < 0], axis=0)
    known = {tuple(path[path >= 0].tolist()) for path in labels}
    parts: tuple[dict[str, int], dict[str, int]] = {}, {}
    for leaf in missing.tolist():
        path = tree.ancestors[leaf].tolist()
        parts[any(tuple(path[:h]) in known for h in range(1, len(path)))][tree.leaves[leaf]] = int(count[leaf])
    return parts


def parted(data: TrainingData) -> str:
    """Say how many groups have rows in more than one split; "" where none has."""
    if data.group is None:
        return ""
    groups = {split: set(data.group[rows.cpu().numpy()].tolist()) for split, rows in data.rows.items()}
    train, val, test = (groups[split] for split in SPLITS)
    if not (several := train & val | train & test | val & test):
        return ""
    return (
        f"{len(several)} of {len(train | val | test)} groups have rows in more than one split, {len(train & test)} in "
        "train and test; test rows whose group was trained on are easier than those of new groups"
    )


def announce(path: Path, tables: Iterable[TrainingData], on_rows: OnRows | None = None) -> None:
    """Say which rows runs use, and warn where splits part groups or lack leaves.

    Args:
        path: the cache.
        tables: the data of the runs, each once.
        on_rows: called with the rows of each; None: what is left out is warned of.
    """
    for data in tables:
        used = f"{path} ({data.hierarchy.name}): {data.counts}"
        logger.info("%s", used)
        if on_rows:
            on_rows(data.counts)
        elif any(data.unused.values()):
            warn_once(logger, used)
        if groups := parted(data):
            warn_once(logger, f"{path}: {groups}")
        missing, together = untrained(data)
        for leaves, consequence in (
            (missing, "cannot be answered right"),
            (together, "have leaves that are trained by labels above them alone, which tell no leaves apart"),
        ):
            if leaves:
                warn_once(
                    logger,
                    f"{path}: no row of the train split is labelled {some(list(leaves))}; "
                    f"the {sum(leaves.values())} test rows that are {consequence}",
                )
