"""Other labels for a cache's rows: a CSV joined by id. Features depend on no label, so nothing is extracted again."""

import logging
from dataclasses import replace
from pathlib import Path

from hfc.errors import DatasetError
from hfc.regions import Regions, check_splits, read_csv, strings

logger = logging.getLogger(__name__)


def join_labels(regions: Regions, file: Path) -> Regions:
    """The regions with the labels, and the splits where it has them, of a CSV file.

    The file has the columns `id,label` and optionally `split`; others are ignored, and without `id` the `path` is the
    id, so that a manifest serves as well. A row that the file does not name has no label then. Ids that the regions
    lack are ignored.

    Raises:
        DatasetError: the file cannot be read, names an id twice or an unknown split, or has no id in common with the
            regions; the message names file and row.
    """
    rows = _read(file)
    known = set(regions.id.tolist())
    common = known & rows.keys()
    if not common:
        raise DatasetError(
            f"{file}: none of its {len(rows)} ids is among the {len(regions)} of the cache, such as {regions.id[0]!r}"
        )
    if len(common) < len(known) or len(common) < len(rows):
        logger.warning(
            "%s: %d rows of the cache are not in it and have no label; %d of its rows are not in the cache",
            file,
            len(known) - len(common),
            len(rows) - len(common),
        )
    found = [rows.get(name, ("", None)) for name in regions.id.tolist()]
    splits = [old if split is None else split for (_, split), old in zip(found, regions.split.tolist(), strict=True)]
    return replace(regions, label=strings([label for label, _ in found]), split=strings(splits))


def _read(file: Path) -> dict[str, tuple[str, str | None]]:
    """Label and split by id; None where the file has no splits."""
    header, lines = read_csv(file, "labels")
    key = "id" if "id" in header else "path"
    if not {key, "label"} <= set(header) or len(set(header)) < len(header):
        raise DatasetError(
            f"{file}: row 1: expected the columns id,label and optionally split, found {','.join(header)!r}"
        )
    rows: dict[str, tuple[str, str | None]] = {}
    for number, cells in lines:
        if len(cells) != len(header):
            raise DatasetError(f"{file}: row {number}: expected {len(header)} cells, found {len(cells)}")
        row = dict(zip(header, cells, strict=True))
        if row[key] in rows:
            raise DatasetError(f"{file}: row {number}: {key} {row[key]} was listed before; list each once")
        rows[row[key]] = row["label"], row.get("split")
    if "split" in header:
        check_splits(file, [number for number, _ in lines], (split or "" for _, split in rows.values()))
    return rows
