"""From features to a path in the tree: a run's head without its backbone. Loads torch with the first run.

Dimensions: N rows, V views, D features.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from hfc.config import PredictConfig, resolve
from hfc.errors import ConfigError, StaleStoreError, one_of
from hfc.predict.answers import Answer
from hfc.predict.within import below

if TYPE_CHECKING:
    from hfc.predict.head import Trained
    from hfc.store import Features

logger = logging.getLogger(__name__)

SETTINGS = ("top", "min_confidence", "target_precision", "within")
BLOCK = 256  # rows that the head takes at a time


class FeatureClassifier:
    """A run's head, ready to classify features: `FeatureClassifier.load(run).predict_features(array)`."""

    def __init__(self, trained: "Trained", settings: PredictConfig) -> None:
        from hfc.predict.promised import promised

        if settings.min_confidence and trained.config.decode == "least-cost":
            raise ConfigError(
                "min_confidence: the run decodes by least-cost, whose scores are no probabilities; leave it out, or "
                "use a run with another decode"
            )
        if trained.random_weights:
            logger.warning("%s: RANDOM WEIGHTS: its answers mean nothing; for benchmarks only", trained.run.folder)
        self.trained, self.settings = trained, settings
        self.kept = promised(trained.run, settings) if settings.target_precision else None
        self.min_confidence = self.kept.threshold if self.kept else settings.min_confidence
        self.within = below(trained.hierarchy, settings.within)

    @classmethod
    def load(cls, run: str | Path, **settings: object) -> Self:
        """Load a run's head from its folder, or from an export of `hfc export --hf`.

        Args:
            run: the folder.
            settings: top, min_confidence, target_precision or within, of hfc.config.PredictConfig.

        Raises:
            RunError: a file is missing or damaged.
            ConfigError: a setting that does not exist or cannot have this value.
            HierarchyError: the tree has no node of the name that is given as `within`, or several.
        """
        from hfc.predict.head import load_trained

        config = resolve(PredictConfig, {one_of(name, SETTINGS, "setting"): value for name, value in settings.items()})
        return cls(load_trained(Path(run)), config)

    def predict_features(self, features: Any) -> list[Answer]:
        """Classify features, as a cache of the run's settings holds them.

        Args:
            features: (N, V, D) numbers, or (N, D) where the run has one view.

        Returns:
            An answer a row; the ids are "row 0", "row 1" and so on.

        Raises:
            ConfigError: an array of another shape, or of what is no finite number.
        """
        array = self._checked(np.asarray(features))
        ids = [f"row {row}" for row in range(len(array))]
        starts = range(0, len(array), BLOCK)
        blocks = (self._read(array[start : start + BLOCK], ids[start : start + BLOCK]) for start in starts)
        return [answer for block in blocks for answer in block]

    def _checked(self, array: NDArray[Any]) -> "Features":
        """The features as (N, V, D) floating-point numbers."""
        known = self.trained.run.result.cache
        shape = (known.views, known.dim)
        numbers = array.dtype.kind in "iuf"
        whole = array[:, None] if array.ndim == 2 and known.views == 1 else array
        if not numbers or whole.shape[1:] != shape:
            wanted = f"(rows, {known.views}, {known.dim})" + f" or (rows, {known.dim})" * (known.views == 1)
            raise ConfigError(f"features: expected numbers {wanted}, found {array.dtype} {array.shape}")
        features: Features = whole if whole.dtype in (np.float16, np.float32) else whole.astype(np.float32)
        if not (finite := np.isfinite(features).all(axis=(1, 2))).all():
            raise ConfigError(f"features: row {int(np.argmin(finite))} holds NaN or infinite numbers")
        return features

    def cached(self, path: str | Path) -> Iterator[Answer]:
        """Classify every row of a feature cache in its order; no image is read.

        Only some rows are in memory at a time. Those whose image could not be read become answers with an `error`.

        Raises:
            StaleStoreError: its features were made in another way than the run's.
            StoreError: it cannot be read, or is damaged.
        """
        from hfc.store import FeatureStore

        with FeatureStore(Path(path)) as store:
            self._refuse_other(Path(path), store.key, store.key_fields)
            table = store.table()
            reasons = dict(table.failures)
            for start, block in store.blocks():
                rows = range(start, start + len(block))
                ids = table.regions.id[start : rows.stop].tolist()
                places = np.flatnonzero(table.ok[start : rows.stop]).tolist()
                answers = self._read(block[places], [ids[place] for place in places])
                for row, name in zip(rows, ids, strict=True):
                    if row in reasons:
                        yield Answer(name, (), (), (), reasons[row], self.within.path)
                    else:
                        yield next(answers)

    def _refuse_other(self, path: Path, key: str, fields: Mapping[str, object]) -> None:
        """Raise a StaleStoreError where a cache's features are not made as the run's."""
        from hfc.store import key_difference

        run = self.trained.run
        if key != run.result.cache.feature_key:
            why = key_difference(fields, run.result.cache.key_fields or {})
            raise StaleStoreError(
                f"{path}: its features are not made as those of {run.folder}: {why}; extract them under the settings "
                "of the run, or classify the images"
            )

    def _read(self, features: "Features", ids: Sequence[str]) -> Iterator[Answer]:
        return self.trained.answers(features, ids, self.settings.top, self.min_confidence, self.within)
