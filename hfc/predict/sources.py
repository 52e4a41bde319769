"""What a classifier takes as an image: paths, folders, encoded images, pictures and arrays."""

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, get_args, get_origin

import numpy as np
from numpy.typing import NDArray

from hfc import crops
from hfc.crops import Loaded
from hfc.datasets.listing import counted, is_folder, raw_files, walk
from hfc.datasets.parquet_file import ENDING, open_parquet
from hfc.datasets.reading import read_bytes
from hfc.errors import ConfigError, DatasetError, ImageError, ImageTypeError
from hfc.regions import Regions, strings

logger = logging.getLogger(__name__)

Box = tuple[float, float, float, float]
Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Loaded
ReadSource = bytes | Loaded
TAKEN = (
    "expected a path, an encoded image (bytes, or a file opened in binary mode), a Pillow image or a uint8 array "
    "(height, width, 3) or (height, width), or a list, tuple or iterator of these"
)
PATHS = (str, os.PathLike)
ENCODED = (bytes, bytearray, memoryview)
LOADED: tuple[type, ...] = tuple(get_origin(kind) or kind for kind in get_args(Loaded))


def is_iterator(images: object) -> bool:
    """Whether these are images that come one after the other; an open file iterates over lines, but is one image."""
    return isinstance(images, Iterator) and not hasattr(images, "read")


def are_paths(images: Sequence[object]) -> bool:
    """Whether all of these are paths."""
    return all(isinstance(image, PATHS) for image in images)


def check_image(image: Any, number: int) -> None:
    """Raise an ImageTypeError for an object that is no image; the number is its place."""
    if isinstance(image, np.ndarray):
        taken = crops.is_picture(image)
    else:
        taken = isinstance(image, PATHS + ENCODED + LOADED) or hasattr(image, "read")
    if taken:
        return
    kind = f"{type(image).__module__}.{type(image).__qualname__}".removeprefix("builtins.")
    shape = getattr(image, "shape", None)
    inside = f" of {getattr(image, 'dtype', None)} {tuple(shape)}" if isinstance(shape, tuple) and shape else ""
    several = "; for several images give list(array)" if inside and len(shape or ()) == 4 else ""
    raise ImageTypeError(f"image {number}: {TAKEN}; found {kind}{inside}{several}")


def crop_source(source: ReadSource, corners: NDArray[np.float32], settings: crops.CropSettings) -> crops.Bytes:
    """Crop an image to the square that a backbone takes.

    Args:
        source: the image.
        corners: (4,) x1 y1 x2 y2 in pixels of the upright image; NaN for the whole image.
        settings: of the crop.

    Raises:
        ImageError: the image cannot be decoded, or has no such part.
    """
    if isinstance(source, bytes):
        return crops.crop_image(source, corners, settings)
    return crops.crop_loaded(source, corners, settings)


def read_source(image: Any) -> ReadSource:
    """Read the bytes of an encoded image, of a file or its path. An image in memory stays as it is.

    Raises:
        ImageError: it cannot be read.
    """
    loaded: Loaded = image
    if isinstance(image, LOADED):
        return loaded
    if isinstance(image, ENCODED):
        return bytes(image)
    try:
        if isinstance(image, PATHS):
            return read_bytes(Path(), os.fsdecode(image))
        if getattr(image, "seekable", lambda: False)():
            image.seek(0)  # as Pillow does: a file that was looked into is still an image
        content = image.read()
    except (OSError, ValueError) as error:  # ValueError: a closed file
        raise ImageError(f"cannot read the file: {getattr(error, 'strerror', None) or error}") from error
    if not isinstance(content, bytes):
        raise ImageTypeError(f"expected a file opened in binary mode, found one that gives {type(content).__name__}")
    return content


def as_regions(paths: Sequence[str], box: Box | None = None) -> Regions:
    """Make the table of regions that stage 1 takes; the paths are the ids.

    Args:
        paths: of images; one may stand there several times.
        box: corners x1 y1 x2 y2 in pixels, the same in all; without it the whole images.

    Raises:
        ConfigError: no four corners.
    """
    unknown = strings([""] * len(paths))
    boxes = np.tile(corners_of(box), (len(paths), 1))
    return Regions(Path(), "images", strings(list(paths)), strings(list(paths)), boxes, unknown, unknown)


def corners_of(box: Box | None) -> NDArray[np.float32]:
    """The (4,) corners of a box; NaN where there is none.

    Raises:
        ConfigError: no four corners.
    """
    corners = np.array(box if box is not None else (np.nan,) * 4, dtype=np.float32)
    if corners.shape != (4,):
        raise ConfigError(f"box: expected four corners x1 y1 x2 y2, found {box!r}")
    return corners


def find_images(paths: Sequence[Path]) -> list[str]:
    """List the images that some paths name, those of a folder sorted.

    A file is an image itself; a folder names all images in and below it, and so does an archive. A Parquet file names
    those of its rows, in their order.

    In folders the rules of a folder tree hold: what is hidden or a system's is passed over, and files that are no
    images by their names are counted in a warning.

    Raises:
        DatasetError: a folder without images, or one that may not be listed; a damaged archive.
    """
    images: list[str] = []
    for path in paths:
        if path.suffix.lower() == ENDING and path.is_file():
            images += [f"{path}/{row}" for row in range(len(open_parquet(path)))]
        else:
            images += _inside(path) if is_folder(path) else [str(path)]  # a missing one is reported as unreadable
    return images


def _inside(folder: Path) -> list[str]:
    """The images in and below a folder."""
    from hfc import runs  # on use: with it comes h5py

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
        what = f"only {counted(others)}{raw_files(others)}" if others else "none"
        raise DatasetError(f"{folder}: expected images in or below this folder, found {what}")
    if others:
        logger.warning("%s: left out files that are no images by their names: %s", folder, counted(others))
    return sorted(map(str, images))
