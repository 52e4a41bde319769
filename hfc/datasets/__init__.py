"""Data sets, each read into the one table of regions. To add one: a module here and a line in `read_regions`."""

from pathlib import Path

from hfc.datasets import archives, deepfashion, folders, manifest, parquet, webdataset
from hfc.datasets.listing import archive_root, is_folder
from hfc.errors import DatasetError
from hfc.hierarchy import warn_of_spellings
from hfc.regions import Regions

COMPRESSED = (".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")  # archives and files that are not read here


def read_regions(
    source: Path,
    *,
    outside_root: bool,
    label_column: str = "",
    split_seed: int,
    val_fraction: float,
    test_fraction: float,
) -> Regions:
    """Read the regions of a data set. Its kind is recognised from what lies at `source`.

    Args:
        source: a DeepFashion root (or its Anno_fine folder), a CSV manifest, TAR shards in WebDataset's layout, Parquet
            files, or a folder tree; manifest and tree may lie in an archive, as in `photos.zip/labels.csv`.
        outside_root: accept image paths of a manifest or of annotations that leave its folder.
        label_column: that of Parquet files; "": as they tell.
        split_seed, val_fraction, test_fraction: how a folder tree without a split is split.

    Raises:
        DatasetError: nothing readable there; the message names file and row.
    """
    try:
        regions = _read(
            source,
            outside_root=outside_root,
            label_column=label_column,
            seed=split_seed,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
        )
    except OSError as error:  # a folder that may not be listed or entered
        raise DatasetError(f"{error.filename or source}: cannot be read: {error.strerror or error}") from error
    warn_of_spellings(str(source), regions.label)
    return regions


def _read(
    source: Path, *, outside_root: bool, label_column: str, seed: int, val_fraction: float, test_fraction: float
) -> Regions:
    if webdataset.recognise(source):
        return webdataset.read(source, seed=seed, val_fraction=val_fraction, test_fraction=test_fraction)
    if parquet.recognise(source):
        return parquet.read(
            source, label=label_column, seed=seed, val_fraction=val_fraction, test_fraction=test_fraction
        )
    if is_folder(source) and not (source.is_dir() and deepfashion.recognise(source)):
        root = archive_root(source)
        return folders.read(root, seed=seed, val_fraction=val_fraction, test_fraction=test_fraction)
    if source.is_dir():
        return deepfashion.read(source, outside_root=outside_root)
    if source.suffix.lower() in COMPRESSED and source.is_file():
        raise DatasetError(
            f"{source}: expected a CSV file, a ZIP or a TAR without compression, found {source.suffix}; unpack it"
        )
    if source.is_file() or archives.split(source):
        return manifest.read(source, outside_root=outside_root)
    raise DatasetError(f"{source}: no such file or folder; expected a DeepFashion root, a CSV file or a folder tree")
