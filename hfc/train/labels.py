"""Give a cache's rows other labels, from a CSV that is joined by id.

Features depend on no label, so nothing is extracted again.
"""

import logging
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hfc.config import REVIEWED, SPLITS
from hfc.errors import DatasetError
from hfc.hierarchy import canonical, warn_of_spellings
from hfc.provenance import digest_chunks
from hfc.regions import VERBATIM, Regions, check_splits, read_csv, strings

logger = logging.getLogger(__name__)


class JoinedRow(NamedTuple):
    """What a CSV file says of a row; "" where it has no such column."""

    label: str
    split: str
    group: str


def join_labels(regions: Regions, file: Path) -> tuple[Regions, str]:
    """Give regions the labels of a CSV file, and its splits and groups; returns its SHA-256 as well.

    The file has the columns `id,label` and optionally `split` and `group`; others are ignored, and without `id` the
    `path` is the id, so that a manifest serves as well. A row that the file does not name has no label then, and
    neither has one whose label is blank there. A blank split or group leaves the regions' own as it is. Ids that the
    regions lack are ignored.

    The list of `hfc review`, known by its columns, names doubtful rows alone: the others keep their labels.

    Raises:
        DatasetError: the file cannot be read, has a blank id, names an id twice or an unknown split, or has no id in
            common with the regions; the message names file and row.
    """
    try:
        content = file.read_bytes()  # once: a pipe cannot be read again for its digest
    except OSError as error:
        raise DatasetError(f"{file}: cannot read the labels: {error}") from error
    rows, is_list = _read(file, content)
    if not (rows or is_list):
        raise DatasetError(f"{file}: expected a row for each id, found only the header")
    ids = regions.id.tolist()
    partner = _partners(ids, rows)
    if rows and not partner:
        raise DatasetError(
            f"{file}: none of its {len(rows)} ids, such as {next(iter(rows))!r}, is among the {len(ids)} of the cache, "
            f"such as {ids[0]!r}"
        )
    own = regions.label.tolist() if is_list else [""] * len(ids)
    kept = [JoinedRow(label, "", "") for label in own]
    joined = [rows[partner[name]] if name in partner else row for name, row in zip(ids, kept, strict=True)]
    unknown, unlabelled = len(rows) - len(partner), 0 if is_list else len(ids) - len(partner)
    if unknown or unlabelled:
        text = "%s: %d rows of the cache are not in it and have no label; %d of its rows are not in the cache"
        logger.warning(text, file, unlabelled, unknown)
    if is_list:
        changed = sum(row.label != old for row, old in zip(joined, own, strict=True))
        logger.info("%s: gives %d rows another label than the cache's; all others keep theirs", file, changed)
    warn_of_spellings(str(file), (row.label for row in joined))
    splits = [row.split or old for row, old in zip(joined, regions.split.tolist(), strict=True)]
    groups = [row.group or old for row, old in zip(joined, regions.group.tolist(), strict=True)]
    labels = [row.label for row in joined]
    regions = replace(regions, label=strings(labels), split=strings(splits), group=strings(groups))
    return regions, digest_chunks([content])


def _partners(ids: Iterable[str], rows: Iterable[str]) -> dict[str, str]:
    """Find the name in the file of each id of a cache.

    Names that are not the same are paired where their parts are so in NFC and without blanks at their ends, parted by
    slashes or backslashes, and no third one is.
    """
    known, listed = dict.fromkeys(ids), dict.fromkeys(rows)
    partner = {name: name for name in known if name in listed}
    forms: defaultdict[tuple[str, ...], tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for place, names in enumerate((known, listed)):
        for name in names:
            if name not in partner:
                forms[tuple(map(canonical, re.split(r"[/\\]", name)))][place].append(name)
    return partner | {here[0]: there[0] for here, there in forms.values() if len(here) == len(there) == 1}


def refuse_unlabelled(file: Path, regions: Regions, ok: NDArray[np.bool_]) -> None:
    """Check that labels leave most rows of each split with one.

    Args:
        file: where the labels come from, for the message.
        regions: with the labels joined.
        ok: (N,) whether a row has features.

    Raises:
        DatasetError: of a split's rows that have features more than half have no label. Where none has one, the split
            is empty, which is an error of its own.
    """
    labelled = regions.label != ""
    counts = {}
    for split in SPLITS:
        usable = ok & (regions.split == split)
        counts[split] = int((usable & labelled).sum()), int(usable.sum())
    empty = any(rows and not have for have, rows in counts.values())
    if not empty and any(2 * have < rows for have, rows in counts.values()):
        lacking = regions.id[ok & ~labelled & np.isin(regions.split, SPLITS)][0]
        have = ", ".join(f"{have} of {rows} {split} rows" for split, (have, rows) in counts.items())
        raise DatasetError(
            f"{file}: most rows of a split have no label in it: it labels {have}, and not {lacking!r}, for one; "
            "give --allow-unlabelled to leave them out"
        )


def _read(file: Path, content: bytes) -> tuple[dict[str, JoinedRow], bool]:
    """Read what a file says, by id; and whether it is a list of `hfc review`."""
    table = read_csv(file, "labels", content, verbatim=VERBATIM)
    header, lines = table.header, table.rows
    key = "id" if "id" in header else "path"
    if not {key, "label"} <= set(header) or len(set(header)) < len(header):
        raise DatasetError(
            f"{file}: row 1: expected the columns id,label and optionally split and group, found {','.join(header)!r}"
        )
    rows: dict[str, JoinedRow] = {}
    first: dict[str, int] = {}
    for number, cells in lines:
        if len(cells) != len(header):
            raise DatasetError(f"{file}: row {number}: expected {len(header)} cells, found {len(cells)}")
        row = dict(zip(header, cells, strict=True))
        name = row[key]
        if not name.strip():
            raise DatasetError(f"{file}: row {number}: expected {'an id' if key == 'id' else 'a path'}, found nothing")
        if name in first:
            before = f"was listed before, in row {first[name]}"
            raise DatasetError(f"{file}: row {number}: {key} {name} {before}; list each once")
        first[name] = number
        rows[name] = JoinedRow(row["label"], row.get("split", ""), row.get("group", ""))
    check_splits(file, first.values(), (row.split for row in rows.values()))
    return rows, set(REVIEWED) <= set(header)
