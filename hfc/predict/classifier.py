"""From pixels to a path in the tree: here a run's backbone and head are joined.

Whoever names the class need not wait for torch: backbone and head come with the first run that is loaded.

Dimensions: B regions a batch, V views, D features.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from hfc.config import ExtractConfig, PredictConfig, resolve
from hfc.datasets.images import Batch
from hfc.errors import ConfigError, ImageError
from hfc.predict.answers import Answer
from hfc.predict.sources import PATHS, Box, Source, as_regions, check_images, corners_of, crop_source
from hfc.predict.within import below
from hfc.regions import Regions

if TYPE_CHECKING:
    from hfc.extract.encoder import Encoder
    from hfc.predict.head import Trained
    from hfc.store import Features

logger = logging.getLogger(__name__)


class Classifier:
    """A run, ready to classify images: `Classifier.load(run)(image)`."""

    def __init__(self, trained: "Trained", stage1: ExtractConfig, encoder: "Encoder", settings: PredictConfig) -> None:
        from hfc.extract import worker
        from hfc.predict.promised import promised

        if settings.min_confidence and trained.config.decode == "least-cost":
            raise ConfigError(
                "min_confidence: the run decodes by least-cost, whose scores are no probabilities; leave it out, or "
                "use a run with another decode"
            )
        self.trained, self.encoder, self.settings = trained, encoder, settings
        self.kept = promised(trained.run, settings) if settings.target_precision else None
        self.min_confidence = self.kept.threshold if self.kept else settings.min_confidence
        self.within = below(trained.hierarchy, settings.within)
        self.stage1 = stage1
        self.crop = worker.crop_settings(stage1, encoder)

    @classmethod
    def load(cls, run: str | Path, **settings: object) -> "Classifier":
        """Load a run from its folder, or from an export of `hfc export --hf`.

        Args:
            run: the folder.
            settings: any of hfc.config.PredictConfig, such as device, weights, top, min_confidence, target_precision
                or within.

        Raises:
            RunError: a file is missing or damaged, or the backbone's weights are not at hand or not the run's.
            ConfigError: a setting that does not exist or cannot have this value.
            HierarchyError: the tree has no node of the name that is given as `within`, or several.
        """
        from hfc.predict.backbone import open_backbone
        from hfc.predict.head import load_trained

        config = resolve(PredictConfig, settings)
        trained = load_trained(Path(run))
        if trained.random_weights:
            logger.warning("%s: RANDOM WEIGHTS: its answers mean nothing; for benchmarks only", trained.run.folder)
        return cls(trained, *open_backbone(trained.run, config), config)

    @overload
    def __call__(self, image: Source, box: Box | None = None) -> Answer: ...
    @overload
    def __call__(self, image: list[Any] | tuple[Any, ...], box: Box | None = None) -> list[Answer]: ...
    def __call__(self, image: Source | list[Any] | tuple[Any, ...], box: Box | None = None) -> Answer | list[Answer]:
        """Classify an image, or several in their order.

        Args:
            image: a path; an encoded image as bytes or as a file opened in binary mode, which is read from its
                beginning; a Pillow image; a (height, width, 3) array of uint8; or a list or tuple of such.
            box: corners x1 y1 x2 y2 in pixels of the upright image; without it the whole image.

        Returns:
            An answer, or for a list a list of them.

        Raises:
            ImageError: an image that cannot be read, by its path or its place in the list.
            ImageTypeError: something that is no image.
        """
        images: list[Any] = list(image) if isinstance(image, list | tuple) else [image]
        check_images(images)
        if all(isinstance(source, PATHS) for source in images):
            answers = list(self.stream(as_regions(list(map(os.fsdecode, images)), box)))
        else:
            answers = list(self._in_memory(images, box))
        if failed := next((answer for answer in answers if answer.error), None):
            raise ImageError(f"{failed.id}: {failed.error}")
        return answers if isinstance(image, list | tuple) else answers[0]

    def stream(self, regions: Regions) -> Iterator[Answer]:
        """Classify any number of regions in their order.

        Only some images are in memory at a time. Images that cannot be read become answers with an `error`.

        Raises:
            HfcError: the backbone gives what is no number, or memory runs out.
        """
        for batch, features in self.features(regions):
            answers = dict(zip(batch.rows, self._answers(features, regions.id[batch.rows].tolist()), strict=True))
            answers |= {
                row: Answer(str(regions.id[row]), (), (), (), reason, self.within.path)
                for row, reason in batch.failures
            }
            for row in sorted(answers):
                yield answers[row]

    def features(self, regions: Regions) -> Iterator[tuple[Batch, "Features"]]:
        """Compute the (B, V, D) features of regions by batches, as a cache holds them."""
        from hfc.extract import worker

        shards = [(0, range(len(regions)))]
        for encoded in worker.encode_regions(regions, shards, self.crop, self.stage1, self.encoder):
            yield encoded.batch, encoded.features

    def _in_memory(self, images: Sequence[Source], box: Box | None) -> Iterator[Answer]:
        """Classify a list that holds images themselves, not their paths alone."""
        from hfc.extract import worker

        corners = corners_of(box)
        size = self.encoder.batch_size
        for start in range(0, len(images), size):
            names = [f"image {number}" for number in range(start, min(start + size, len(images)))]
            squares = []
            for name, image in zip(names, images[start : start + size], strict=True):
                try:
                    squares.append(crop_source(image, corners, self.crop))
                except ImageError as error:
                    raise type(error)(f"{name}: {error}") from error
            features = worker.storable(self.encoder.encode(np.stack(squares)), self.stage1, names.__getitem__)
            yield from self._answers(features, names)

    def _answers(self, features: "Features", ids: Sequence[str]) -> Iterator[Answer]:
        answers = self.trained.answers(features, ids, self.settings.top, self.min_confidence, self.within)
        chosen = self.encoder.batch_size if self.settings.batch_size else 0
        return (replace(answer, batch_size=chosen) for answer in answers)
