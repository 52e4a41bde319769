"""From pixels to a path in the tree: here a run's backbone and head are joined.

Whoever names the class need not wait for torch: backbone and head come with the first run that is loaded.

Dimensions: B regions a batch, V views, D features.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from hfc.config import ExtractConfig, PredictConfig, resolve
from hfc.crops import Bytes, CropSettings
from hfc.datasets.images import Batch, decode_row
from hfc.errors import ImageError, ImageTypeError
from hfc.predict.answers import Answer
from hfc.predict.features import FeatureClassifier
from hfc.predict.sources import (
    Box,
    ReadSource,
    Source,
    are_paths,
    as_regions,
    check_image,
    corners_of,
    crop_source,
    is_iterator,
    read_source,
)
from hfc.regions import Regions

if TYPE_CHECKING:
    from hfc.extract.encoder import Encoder
    from hfc.predict.head import Trained
    from hfc.store import Features


class Classifier(FeatureClassifier):
    """A run, ready to classify images: `Classifier.load(run)(image)`."""

    def __init__(self, trained: "Trained", stage1: ExtractConfig, encoder: "Encoder", settings: PredictConfig) -> None:
        from hfc.extract import worker

        super().__init__(trained, settings)
        self.stage1, self.encoder = stage1, encoder
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
        return cls(trained, *open_backbone(trained.run, config), config)

    @overload
    def __call__(self, image: Source, box: Box | None = None) -> Answer: ...
    @overload
    def __call__(self, image: list[Any] | tuple[Any, ...], box: Box | None = None) -> list[Answer]: ...
    @overload
    def __call__(self, image: Iterator[Any], box: Box | None = None) -> Iterator[Answer]: ...
    def __call__(self, image: Any, box: Box | None = None) -> Answer | list[Answer] | Iterator[Answer]:
        """Classify an image, or several in their order.

        Args:
            image: a path; an encoded image as bytes or as a file opened in binary mode, which is read from its
                beginning; a Pillow image; a (height, width, 3) or (height, width) array of uint8; or a list, tuple or
                iterator of such.
            box: corners x1 y1 x2 y2 in pixels of the upright image; without it the whole image.

        Returns:
            An answer; for a list a list of them. For an iterator an iterator, which takes as many images at a time as
            the backbone does, and gives an answer with an `error` for one that cannot be read.

        Raises:
            ImageError: an image that cannot be read, by its path or its place in the list.
            ImageTypeError: something that is no image.
        """
        if is_iterator(image):
            return self._one_by_one(image, corners_of(box))
        images: list[Any] = list(image) if isinstance(image, list | tuple) else [image]
        for number, source in enumerate(images):
            check_image(source, number)
        answers = self._of_files(images, box) if are_paths(images) else self._of_objects(images, box)
        return answers if isinstance(image, list | tuple) else answers[0]

    def _of_files(self, paths: Sequence[Any], box: Box | None) -> list[Answer]:
        regions = as_regions(list(map(os.fsdecode, paths)), box)
        answers = list(self._alone(regions) if len(regions) == 1 else self.stream(regions))
        if failed := next((answer for answer in answers if answer.error), None):
            raise ImageError(f"{failed.id}: {failed.error}")
        return answers

    def _alone(self, regions: Regions) -> Iterator[Answer]:
        """Classify the one region of a table, without the batches of `stream`."""
        crop, outcome = decode_row(regions, 0, self.crop)
        return self._of_squares(regions.id.tolist(), [outcome.failure if crop is None else crop])

    def _of_objects(self, images: Sequence[Any], box: Box | None) -> list[Answer]:
        """Classify a list that holds images themselves, not their paths alone; their ids are their places."""
        answers = []
        for number, answer in enumerate(self._one_by_one(iter(images), corners_of(box))):
            place = f"image {number}"
            if answer.error:
                name = f"{place}: {answer.id}" if are_paths([images[number]]) else place
                raise ImageError(f"{name}: {answer.error}")
            answers.append(replace(answer, id=place))
        return answers

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

    def _one_by_one(self, images: Iterator[Any], corners: NDArray[np.float32]) -> Iterator[Answer]:
        """Classify images as they come, a batch at a time; the id is the path, or else the place."""
        from hfc.extract import worker

        numbered = enumerate(images)
        with ThreadPoolExecutor(self.stage1.workers or worker.decoding_threads(), "decode") as pool:
            while batch := list(islice(numbered, self.encoder.batch_size)):
                for number, image in batch:
                    check_image(image, number)
                sources = [self._read_source(number, image) for number, image in batch]
                crop = partial(_cropped, corners=corners, settings=self.crop)
                # What is in memory stays in this thread: two may be one object. So does an image that comes alone.
                apart = [len(sources) > 1 and isinstance(source, bytes) for source in sources]
                tasks = [
                    pool.submit(crop, source) if far else crop(source)
                    for far, source in zip(apart, sources, strict=True)
                ]
                squares = [task.result() if isinstance(task, Future) else task for task in tasks]
                names = [os.fsdecode(image) if are_paths([image]) else f"image {number}" for number, image in batch]
                yield from self._of_squares(names, squares)

    def _read_source(self, number: int, image: Source) -> ReadSource | str:
        """Read an image; returns why it cannot be read where it cannot."""
        try:
            return read_source(image)
        except ImageTypeError as error:
            raise ImageTypeError(f"image {number}: {error}") from error
        except ImageError as error:
            return str(error)

    def _of_squares(self, names: Sequence[str], squares: Sequence[Bytes | str]) -> Iterator[Answer]:
        """Classify crops; of an image that has none there is the reason."""
        from hfc.extract import worker

        made = {place: square for place, square in enumerate(squares) if not isinstance(square, str)}
        ids = [names[place] for place in made]
        answers: Iterator[Answer] = iter(())
        if made:
            encoded = self.encoder.encode(np.stack(list(made.values())))
            answers = self._answers(worker.storable(encoded, self.stage1, ids.__getitem__), ids)
        for name, square in zip(names, squares, strict=True):
            yield Answer(name, (), (), (), square, self.within.path) if isinstance(square, str) else next(answers)

    def _answers(self, features: "Features", ids: Sequence[str]) -> Iterator[Answer]:
        chosen = self.encoder.batch_size if self.settings.batch_size else 0
        return (replace(answer, batch_size=chosen) for answer in self._read(features, ids))


def _cropped(source: ReadSource | str, corners: NDArray[np.float32], settings: CropSettings) -> Bytes | str:
    """The crop of an image, or why there is none."""
    if isinstance(source, str):
        return source
    try:
        return crop_source(source, corners, settings)
    except ImageError as error:
        return str(error)
