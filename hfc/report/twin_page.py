"""Write the twins of a cache: a CSV, a record, and a page with pictures."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hfc.provenance import write_folder
from hfc.report import page, texts
from hfc.report.gallery import pictures_of
from hfc.report.twins import HEADER, MARK, TWINS, TwinsRecord
from hfc.store.twins import NONE, Nearest, Rows, Twins

PAGE = "twins.html"
MOST_SETS, MOST_OF_A_SET = 200, 12  # with pictures


@dataclass(frozen=True)
class Sibling:
    """A row of a set, as it stands on the page."""

    id: str
    label: str
    split: str
    cosine: str
    source: str
    """The thumbnail as a data: URI; "" where there is none."""
    missing: str
    """Why there is no thumbnail."""


@dataclass(frozen=True)
class TwinSet:
    """A set on the page."""

    title: str
    note: str
    siblings: tuple[Sibling, ...]


def record_twins(twins: Twins) -> TwinsRecord:
    """Make the record of some twins."""
    shared, tested = twins.with_twin_in_training("test")
    return TwinsRecord(
        features_sha256=twins.features_sha256,
        labels_digest=twins.table.regions.labels_digest,
        min_cosine=twins.min_cosine,
        rows=twins.rows,
        sets=len(twins.sets),
        pairs=twins.pairs,
        sets_across_splits=twins.sets_across_splits,
        sets_of_several_labels=twins.sets_of_several_labels,
        test_rows=tested,
        test_rows_with_twin_in_training=shared,
    )


def write_twins(twins: Twins, out: Path, images: Path | None = None) -> tuple[Path, ...]:
    """Write twins into a folder.

    Args:
        twins: of a cache.
        out: the folder that receives twins.csv, twins.json and, with images, twins.html.
        images: the folder or archive that the cache's image paths are relative to, or the data set; None: no page.

    Raises:
        RunError: no picture is there, or the place cannot be written.
    """
    record = json.dumps(record_twins(twins).plain(), indent=2, ensure_ascii=False) + "\n"
    files = {TWINS: texts.written(HEADER, _lines(twins)), MARK: record}
    if images:
        files[PAGE] = texts.printable(_page(twins, images))
    contents = {name: text.encode("utf-8", "backslashreplace") for name, text in files.items()}
    write_folder(out, contents, [MARK], "the twins")
    return tuple(out / name for name in files)


def _lines(twins: Twins) -> Iterator[list[object]]:
    """Write a line for each row that has a twin, set by set. Its last cell names another image of the same bytes."""
    regions = twins.table.regions
    first = {int(row): regions.id[rows[int(row == rows[0])]] for rows in twins.table.copies() for row in rows}
    for number, rows in enumerate(twins.sets, 1):
        for row in rows:
            own = [number, regions.id[row], regions.label[row], regions.split[row]]
            nearest = [*_nearest(twins, twins.nearest, row), *_nearest(twins, twins.nearest_in_training, row)]
            yield [*own, *nearest, first.get(int(row), "")]


def _nearest(twins: Twins, nearest: Nearest, row: int) -> tuple[str, str]:
    """Write a row's nearest twin and its cosine."""
    if nearest.row[row] == NONE:
        return "", ""
    return twins.table.regions.id[nearest.row[row]], f"{nearest.cosine[row]:.4f}"


def _severity(twins: Twins, rows: Rows) -> tuple[bool, bool, bool]:
    """Say how a set crosses: from training into test, any splits, labels."""
    splits, labels = set(twins.table.regions.split[rows]), set(twins.table.regions.label[rows]) - {""}
    return {"train", "test"} <= splits, len(splits) > 1, len(labels) > 1


def _words(twins: Twins, rows: Rows) -> str:
    in_test, across, labels = _severity(twins, rows)
    words = ["in training and test" if in_test else "in several splits" if across else "", "several labels" * labels]
    more = f"the first {MOST_OF_A_SET} are shown" if len(rows) > MOST_OF_A_SET else ""
    return ", ".join(filter(None, [*words, more]))


def _page(twins: Twins, images: Path) -> str:
    """Write the page. Sets in training and test come first, then others across splits, then those of several labels."""
    numbered = sorted(enumerate(twins.sets, 1), key=lambda pair: _severity(twins, pair[1]), reverse=True)[:MOST_SETS]
    regions = twins.table.regions
    shown = np.concatenate([np.zeros(0, dtype=np.int64), *(rows[:MOST_OF_A_SET] for _, rows in numbered)])
    pictures = pictures_of(regions, shown, twins.source, images)
    sets = [
        TwinSet(
            f"Set {number}: {len(rows)} images",
            _words(twins, rows),
            tuple(
                Sibling(
                    regions.id[row],
                    regions.label[row] or "unknown",
                    regions.split[row] or "unknown",
                    f"{twins.nearest.cosine[row]:.3f}",
                    *pictures[int(row)],
                )
                for row in rows[:MOST_OF_A_SET]
            ),
        )
        for number, rows in numbered
    ]
    return page.rendered("twins.html", "Twins", record=record_twins(twins), sets=sets)
