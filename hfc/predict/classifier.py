"""From pixels to a path in the tree: a run's backbone and its head, joined. Here alone both stages meet.

Dimensions: B regions a batch, V views, D features, H levels, C leaves.
"""

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, get_args, get_origin, overload

import numpy as np
import torch
from numpy.typing import NDArray

from hfc import crops, runs
from hfc.config import RECORDED, ExtractConfig, PredictConfig, resolve
from hfc.crops import Picture
from hfc.datasets.listing import counted, walk
from hfc.device import choose_device, multiplies
from hfc.errors import ConfigError, DatasetError, EncoderError, ImageError, ImageTypeError, RunError
from hfc.extract import network, worker
from hfc.extract.encoder import Encoder
from hfc.predict.head import EXPORTED_BACKBONE, Answer, Trained, load_trained
from hfc.regions import Regions, strings
from hfc.runs import Run
from hfc.store import Features

logger = logging.getLogger(__name__)

Box = tuple[float, float, float, float]
Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Picture
TAKEN = (
    "expected a path, an encoded image (bytes, or a file opened in binary mode), a Pillow image or a uint8 array "
    "(height, width, 3), or a list or tuple of these"
)


def open_backbone(run: Run, settings: PredictConfig) -> tuple[ExtractConfig, Encoder]:
    """The backbone that a run's features come from, with the settings of stage 1 that they were made under.

    Args:
        run: the run.
        settings: where its weights are and what to compute in, where that is not as recorded.

    Raises:
        RunError: the weights are not at hand or are others, the run does not say what they were, or its crops or
            normalisation are not those of this version.
        ConfigError: no such device.
    """
    device = choose_device(settings.device)
    cache = run.result["cache"]
    try:
        fields_of = dict(cache["key_fields"])
        config = resolve(
            ExtractConfig,
            {name: fields_of[name] for name in ("image_size", "resize", "roi_margin", "pool", "store")},
            {
                "backbone": cache["backbone"],
                "weights": _weights(run, settings.weights),
                "views": "flip" if "flip" in fields_of["views"] else "identity",
                "precision": _precision(run, fields_of["precision"], settings.precision, device),
                "compile": fields_of["compile"] if settings.compile == RECORDED else settings.compile == "yes",
                "device": str(device),
                "batch_size": settings.batch_size,
                "workers": settings.workers,
            },
        )
        recorded = {name: fields_of[name] for name in ("weights", "pixels", "numerics", "mean", "std")}
    except (KeyError, TypeError, ConfigError) as error:
        raise RunError(
            f"{run.folder}: does not record how its features were made ({error}); extract and train again"
        ) from error
    try:
        encoder = worker.open_encoder(config)
    except EncoderError as error:
        raise RunError(
            f"{run.folder}: the run's backbone cannot be opened: {error}; if its weights lie elsewhere now, say where "
            "with --weights PATH"
        ) from error
    if encoder.weights_digest != recorded["weights"]:
        raise RunError(
            f"{run.folder}: weights {config.weights} are not those the run was trained on: expected digest "
            f"{recorded['weights'][:12]}…, found {encoder.weights_digest[:12]}…; say where they are with --weights PATH"
        )
    here = {"pixels": crops.PIXELS, "numerics": network.NUMERICS, "mean": list(encoder.mean), "std": list(encoder.std)}
    for name, value in here.items():
        if recorded[name] != value:
            raise RunError(
                f"{run.folder}: its images were prepared in another way ({name} {recorded[name]}, here {value}); "
                "extract and train again, or use the version of hfc and timm that it records"
            )
    return config, encoder


def open_plain(run: Run, weights: str) -> tuple[ExtractConfig, Encoder]:
    """The backbone of a run as ONNX and safetensors take it: plain, in float32, on the CPU; raises as `open_backbone`.

    Args:
        run: the run.
        weights: where its weights are now.
    """
    settings = {"weights": weights, "precision": "fp32", "compile": "no", "device": "cpu", "batch_size": 1}
    return open_backbone(run, resolve(PredictConfig, settings))


def _weights(run: Run, wanted: str) -> str:
    """Where a run's weights are, as timm's hub, a package or a file."""
    if wanted != RECORDED:
        return wanted
    beside = run.folder / EXPORTED_BACKBONE
    return str(beside) if beside.is_file() else str(run.result["cache"]["weights"])


def _precision(run: Run, recorded: str, wanted: str, device: torch.device) -> str:
    """What to compute in; a warning if that is not what the features were computed in."""
    chosen = recorded if wanted == RECORDED else wanted
    if wanted == RECORDED and not multiplies(recorded, device):
        chosen = "fp32"
    if chosen != recorded:
        why = "" if wanted != RECORDED else f", as {device} has no {recorded} in hardware"
        logger.warning(
            "%s: its features were computed in %s, these in %s%s: they are rounded otherwise than what the head "
            "was trained on",
            run.folder,
            recorded,
            chosen,
            why,
        )
    return chosen


class Classifier:
    """A run, ready to classify images: `Classifier.load(run)(image)`."""

    def __init__(self, trained: Trained, stage1: ExtractConfig, encoder: Encoder, settings: PredictConfig) -> None:
        if settings.min_confidence and trained.config.decode == "least-cost":
            raise ConfigError(
                "min_confidence: the run answers by least cost, whose scores are no probabilities to be confident of"
            )
        self.trained, self.encoder, self.settings = trained, encoder, settings
        self.stage1 = stage1
        self.crop = worker.crop_settings(stage1, encoder)

    @classmethod
    def load(cls, run: str | Path, **settings: object) -> "Classifier":
        """A classifier from the folder of a run, or one that `hfc export --hf` made of it.

        Args:
            run: the folder.
            settings: any of hfc.config.PredictConfig, such as device, weights, top or min_confidence.

        Raises:
            RunError: a file is missing or damaged, or the backbone's weights are not at hand or not the run's.
            ConfigError: a setting that does not exist or cannot have this value.
        """
        given = {name: str(value) if isinstance(value, Path) else value for name, value in settings.items()}
        config = resolve(PredictConfig, given)
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
        for place, one in enumerate(images):
            if not (isinstance(one, PATHS + ENCODED + PICTURES) or hasattr(one, "read")):
                kind = f"{type(one).__module__}.{type(one).__qualname__}".removeprefix("builtins.")
                raise ImageTypeError(f"image {place}: {TAKEN}; found {kind}")
        if all(isinstance(one, PATHS) for one in images):
            answers = list(self.stream(as_regions(list(map(os.fsdecode, images)), box)))
        else:
            answers = list(self._in_memory(images, box))
        if failed := next((answer for answer in answers if answer.error), None):
            raise ImageError(f"{failed.id}: {failed.error}")
        return answers if isinstance(image, list | tuple) else answers[0]

    def stream(self, regions: Regions) -> Iterator[Answer]:
        """Classify any number of regions in their order, a bounded number of images in memory at a time.

        Images that cannot be read become answers with an `error`.

        Raises:
            HfcError: the backbone gives what is no number, or memory runs out.
        """
        for batch, features in self.features(regions):
            found = dict(zip(batch.rows, self._answers(features, regions.id[batch.rows].tolist()), strict=True))
            found |= {row: Answer(str(regions.id[row]), (), (), (), reason) for row, reason in batch.failures}
            for row in sorted(found):
                yield found[row]

    def features(self, regions: Regions) -> Iterator[tuple[crops.Batch, Features]]:
        """The batches of some regions and their (B, V, D) features, equal to those a cache of the run's would hold."""
        shards = [(0, range(len(regions)))]
        for encoded in worker.encode_regions(regions, shards, self.crop, self.stage1, self.encoder):
            yield encoded.batch, encoded.features

    def _in_memory(self, images: Sequence[Source], box: Box | None) -> Iterator[Answer]:
        """The same for a list that holds images themselves."""
        corners = _corners(box)
        size = self.encoder.batch_size
        for start in range(0, len(images), size):
            names = [f"image {place}" for place in range(start, min(start + size, len(images)))]
            squares = []
            for name, image in zip(names, images[start : start + size], strict=True):
                try:
                    squares.append(_square(image, corners, self.crop))
                except ImageError as error:
                    raise type(error)(f"{name}: {error}") from error
            features = worker.storable(self.encoder.encode(np.stack(squares)), self.stage1, names.__getitem__)
            yield from self._answers(features, names)

    def _answers(self, features: Features, ids: Sequence[str]) -> Iterator[Answer]:
        return self.trained.answers(features, ids, self.settings.top, self.settings.min_confidence)


# What a classifier takes, beside files.
PATHS = (str, os.PathLike)
ENCODED = (bytes, bytearray, memoryview)
PICTURES: tuple[type, ...] = tuple(get_origin(kind) or kind for kind in get_args(Picture))


def _square(image: Source, corners: NDArray[np.float32], settings: crops.CropSettings) -> crops.Bytes:
    picture: Any = image
    if isinstance(image, PICTURES):
        return crops.crop_picture(picture, corners, settings)
    return crops.crop_image(_content(image), corners, settings)


def _content(image: Any) -> bytes:
    """The bytes of an encoded image, of a file or its path."""
    if isinstance(image, ENCODED):
        return bytes(image)
    name = f"{os.fsdecode(image)}: " if isinstance(image, PATHS) else ""
    try:
        if isinstance(image, PATHS):
            return Path(os.fsdecode(image)).read_bytes()
        if getattr(image, "seekable", lambda: False)():
            image.seek(0)  # as Pillow does: a file that was looked into is still an image
        content = image.read()
    except (OSError, ValueError) as error:  # ValueError: a closed file
        raise ImageError(f"{name}cannot read the file: {getattr(error, 'strerror', None) or error}") from error
    if not isinstance(content, bytes):
        raise ImageTypeError(f"expected a file opened in binary mode, found one that gives {type(content).__name__}")
    return content


def as_regions(paths: Sequence[str], box: Box | None = None) -> Regions:
    """Images as the table that stage 1 takes, their paths as ids.

    Args:
        paths: of images; one may stand there several times.
        box: corners x1 y1 x2 y2 in pixels, the same in all; without it the whole images.

    Raises:
        ConfigError: no four corners.
    """
    unknown = strings([""] * len(paths))
    boxes = np.tile(_corners(box), (len(paths), 1))
    return Regions(Path(), "images", strings(list(paths)), strings(list(paths)), boxes, unknown, unknown)


def _corners(box: Box | None) -> NDArray[np.float32]:
    corners = np.array(box if box is not None else (np.nan,) * 4, dtype=np.float32)
    if corners.shape != (4,):
        raise ConfigError(f"box: expected four corners x1 y1 x2 y2, found {box!r}")
    return corners


def find_images(paths: Sequence[Path]) -> list[str]:
    """The images that some paths name: each file itself, and of each folder all that lie in and below it, sorted.

    In folders the rules of a folder tree hold: what is hidden or a system's is passed over, and files that are no
    images by their names are counted in a warning.

    Raises:
        DatasetError: a folder without images, or one that may not be listed.
    """
    found: list[str] = []
    for path in paths:
        found += _inside(path) if path.is_dir() else [str(path)]  # a missing one is reported as unreadable
    return found


def _inside(folder: Path) -> list[str]:
    """The images in and below a folder."""
    images: list[Path] = []
    others: Counter[str] = Counter()
    try:
        for _, listing in walk(folder):
            images += listing.images
            others.update(listing.others)
    except OSError as error:
        raise DatasetError(f"{error.filename or folder}: cannot be read: {error.strerror or error}") from error
    if not images and (folder / runs.RESULT).is_file():
        raise DatasetError(f"{folder}: expected images, found a second run; a pattern for RUN must match one folder")
    if not images:
        what = f"only {counted(others)}" if others else "none"
        raise DatasetError(f"{folder}: expected images in or below this folder, found {what}")
    if others:
        logger.warning("%s: left out files that are no images by their names: %s", folder, counted(others))
    return sorted(map(str, images))
