"""The threshold that keeps a target precision, read off what a run has proven. No torch."""

from hfc.config import PredictConfig
from hfc.errors import ConfigError
from hfc.runs import Run
from hfc.store.promise import Kept, needed


def promised(run: Run, settings: PredictConfig) -> Kept:
    """Find the threshold of the answers that are right as often as is asked; see `hfc.store.promise`.

    Args:
        run: the run.
        settings: with a target precision.

    Raises:
        ConfigError: another setting changes the answers, no rows were set aside, or they prove less than is asked.
    """
    target, promise = settings.target_precision, run.result.promise
    if settings.min_confidence:
        raise ConfigError(
            "target_precision with min_confidence: each chooses how deep an answer goes, the first by a threshold of "
            "its own; give one of them"
        )
    if settings.within:
        raise ConfigError(
            "target_precision with within: what was proven holds for answers in the whole tree; leave one of them out"
        )
    if not promise:
        raise ConfigError(
            f"target_precision: {run.folder} has no rows that prove one; train it with --set promise_share=0.5, which "
            "sets half of the validation rows aside"
        )
    if kept := promise.keep(target):
        return kept
    least = needed(target, promise.confidence)
    raise ConfigError(
        f"target_precision: expected at most {promise.most(target):g}, which the {promise.proof.rows} rows "
        f"set aside prove, found {target:g}, which takes {least} answers without a mistake at least; ask for less, or "
        "train with more validation rows or a larger promise_share"
    )
