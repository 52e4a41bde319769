"""Which of several runs is best, by validation alone."""

from collections.abc import Sequence
from pathlib import Path

from hfc import runs
from hfc.errors import RunError
from hfc.hierarchy import some
from hfc.runs import Run

BY = "top1"


def best_on_validation(root: Path) -> tuple[Run, int]:
    """Find the run with the highest top-1 on validation; the test split has no say.

    Of equals the one of the lower NLL on validation counts, then the one whose name comes first.

    Args:
        root: a folder of runs.

    Returns:
        The run, and of how many it is the best.

    Raises:
        RunError: no runs, runs of outer folds, or runs whose validation rows are not the same, so that their numbers
            cannot be compared.
    """
    every = runs.find([root])
    if any(run.result.outer for run in every):
        raise RunError(f"{root}: holds runs of outer folds, which are validated on other rows each; name a single run")
    known = [run for run in every if BY in run.result.selected.val]
    if not known:
        raise RunError(f"{root}: none of its {len(every)} runs records its top-1 on validation; name one of them")
    _refuse_different_rows(root, known)
    ranked = sorted(known, key=lambda run: (-_validated(run, BY), _validated(run, "nll"), str(run.folder)))
    return ranked[0], len(known)


def _validated(run: Run, metric: str) -> float:
    return run.result.selected.val.get(metric, float("inf"))


def _refuse_different_rows(root: Path, every: Sequence[Run]) -> None:
    """Raise a RunError where runs were validated on different rows or labels."""
    kinds: dict[tuple[object, ...], list[Run]] = {}
    for run in every:
        result = run.result
        rows = (
            result.cache.labels_digest or result.cache.labels_sha256,
            result.rows.val,
            result.rows.inner.get("val", 0),
        )
        kinds.setdefault(rows, []).append(run)
    if len(kinds) > 1:
        named = [f"{same[0].folder.relative_to(root)} ({len(same)} such)" for same in kinds.values()]
        raise RunError(
            f"{root}: holds runs of {len(kinds)} data sets, whose numbers on validation cannot be compared: "
            f"{some(named)}; name a folder with runs of one data set"
        )
