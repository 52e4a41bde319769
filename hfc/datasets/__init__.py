"""Data sets, each read into the one table of regions. To add one: a module here and a line in `_read`."""

import logging
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path, PurePath

from hfc.config import ExtractConfig
from hfc.crops import unread
from hfc.datasets import archives, deepfashion, folders, manifest, parquet, webdataset
from hfc.datasets.groups import group_pattern, grouped
from hfc.datasets.listing import HEIC, archive_root, is_folder
from hfc.datasets.remote import Downloads
from hfc.errors import ConfigError, DatasetError
from hfc.hierarchy import warn_of_spellings
from hfc.regions import Regions

logger = logging.getLogger(__name__)

URL = re.compile(r"(https?|s3|gs|abfs|az|hf):/")  # a path has one slash of the two
COMPRESSED = (".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")  # archives and files that are not read here


def read_regions(
    source: Path,
    *,
    outside_root: bool,
    remote: Downloads | None = None,
    label_column: str = ExtractConfig.label_column,
    group: str = ExtractConfig.group,
    split: str = ExtractConfig.split,
) -> Regions:
    """Read the regions of a data set. Its kind is recognised from what lies at `source`.

    Args:
        source: a DeepFashion root (or its Anno_fine folder), a CSV manifest, TAR shards in WebDataset's layout, Parquet
            files, or a folder tree; manifest and tree may lie in an archive, as in `photos.zip/labels.csv`.
        outside_root: accept image paths of a manifest or of annotations that leave its folder.
        remote: reads images of a manifest that are URLs; None: they are refused.
        label_column: that of Parquet files; "": as they tell.
        group: a regular expression whose capture group is the name of a row's group in its path; "" = none.
        split: of DeepFashion: official, or item, for one to be drawn.

    Returns:
        The regions; splits that the source does not give are blank: `draw_splits` draws them.

    Raises:
        DatasetError: nothing readable there; the message names file and row.
        ConfigError: a pattern or split that does not fit the data set.
    """
    pattern = group_pattern(group) if group else None
    try:
        regions = _read(source, outside_root=outside_root, remote=remote, label_column=label_column, split=split)
    except OSError as error:  # a folder that may not be listed or entered
        raise DatasetError(f"{error.filename or source}: cannot be read: {error.strerror or error}") from error
    if split != ExtractConfig.split and not deepfashion.recognise(source):
        raise ConfigError(
            f"split: {split} is for DeepFashion, which has an official split; found a {regions.origin}: give --group, "
            "and rows of one group are drawn into one split"
        )
    if pattern and any(regions.group):
        raise ConfigError(f"group: {regions.origin} names the groups of its rows itself; leave --group out")
    warn_of_spellings(str(source), regions.label)
    _refuse_heic(source, regions.path.tolist())
    return grouped(regions, pattern) if pattern else regions


def _refuse_heic(source: Path, paths: Sequence[str]) -> None:
    """Say before the first image what HEIC photographs need: a DatasetError where there are no others, or a warning."""
    count = sum(PurePath(path).suffix.lower() in HEIC for path in paths)
    if not count or find_spec("pillow_heif"):
        return
    if count == len(paths):
        raise DatasetError(f"{source}: {unread('HEIC')}; all {count} images are such by their names")
    logger.warning("%s: %s; %d of %d images are such by their names", source, unread("HEIC"), count, len(paths))


def _read(source: Path, *, outside_root: bool, remote: Downloads | None, label_column: str, split: str) -> Regions:
    if webdataset.recognise(source):
        return webdataset.read(source)
    if parquet.recognise(source):
        return parquet.read(source, label=label_column)
    if is_folder(source) and not (source.is_dir() and deepfashion.recognise(source)):
        return folders.read(archive_root(source))
    if source.is_dir():
        return deepfashion.read(source, outside_root=outside_root, by_item=split == "item")
    if source.suffix.lower() in COMPRESSED and source.is_file():
        raise DatasetError(
            f"{source}: expected a CSV file, a ZIP or a TAR without compression, found {source.suffix}; unpack it"
        )
    if source.is_file() or archives.split(source):
        return manifest.read(source, outside_root=outside_root, remote=remote)
    if URL.match(str(source)):
        raise DatasetError(
            f"{source}: is on the network; name the images in a manifest, a CSV file with the columns path,label, and "
            "give --remote"
        )
    raise DatasetError(f"{source}: no such file or folder; expected a DeepFashion root, a CSV file or a folder tree")
