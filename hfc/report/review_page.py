"""Write the doubtful labels of a cache: a CSV to edit, a record, and a page with pictures."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hfc import provenance
from hfc.config import REVIEWED
from hfc.provenance import write_folder
from hfc.regions import Regions
from hfc.report import page, texts
from hfc.report.doubts import Doubts, count_pairs, find_doubts
from hfc.report.gallery import pictures_of
from hfc.store import FeatureStore, HeldOut
from hfc.store.records import Record

MARK, LIST, PAGE = "review.json", "review.csv", "review.html"
MOST_SHOWN = 300  # of siblings and of strangers, with pictures
MOST_PAIRS = 20  # on the page

Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class DoubtfulRow(Record):
    """A doubtful label."""

    id: str
    label: str
    suggested: str
    p_label: float
    p_suggested: float
    siblings: bool
    """Whether label and suggestion have one parent."""


@dataclass(frozen=True, kw_only=True)
class Pair(Record):
    """A label and the leaf that some of its rows seem to be."""

    label: str
    suggested: str
    siblings: bool
    listed: int
    """Rows of the list."""
    confident: int
    """Rows of the confident joint."""
    estimated: float
    """Rows of the estimated joint."""


@dataclass(frozen=True, kw_only=True)
class ReviewRecord(Record):
    """What review.json holds."""

    cache: str
    features_sha256: str
    labels: str | None
    """The file that the labels came from."""
    labels_digest: str
    """Over the ids, labels and splits of all rows, as runs record it."""
    hierarchy: str
    hierarchy_digest: str
    settings: Mapping[str, object]
    folds: int
    judged: int
    """Rows with a label that a head could judge."""
    lone: tuple[str, ...]
    """Ids of those that none could, as no row outside their fold has their label."""
    inner: int = 0
    """How many rows have an inner node as a label; they are not judged."""
    doubtful: int
    doubtful_siblings: int
    doubtful_strangers: int
    estimated_errors: float
    """Wrong labels by the estimated joint."""
    estimated_error_rate: float
    pairs: tuple[Pair, ...]
    """The largest estimates first."""
    rows: tuple[DoubtfulRow, ...]
    """Those that review.csv lists, in its order."""
    code: Mapping[str, str]
    created: str


@dataclass(frozen=True)
class Shown:
    """A doubtful row as it stands on the page."""

    rank: int
    id: str
    label: str
    """With the nodes above it."""
    suggested: str
    p_label: str
    p_suggested: str
    split: str
    source: str
    """The thumbnail as a data: URI; "" where there is none."""
    missing: str
    """Why there is no thumbnail."""


@dataclass(frozen=True)
class Section:
    """Siblings, or strangers."""

    title: str
    note: str
    rows: tuple[Shown, ...]


def write_review(
    held: HeldOut, cache: Path, out: Path, *, images: Path | None = None, most: int | None = None
) -> tuple[ReviewRecord, tuple[Path, ...]]:
    """Find the doubtful labels of a cache, and write them into a folder.

    Args:
        held: what heads say of rows that they never saw.
        cache: where those rows are.
        out: the folder that receives review.csv, review.json and, with images, review.html.
        images: the folder or archive that the cache's image paths are relative to, or the data set; None: no page.
        most: list so many rows at most; None: all doubtful ones.

    Returns:
        The record, and the files.

    Raises:
        RunError: no picture is there, or the place cannot be written.
    """
    with FeatureStore(cache) as store:
        stored = store.table().regions
        source = Path(store.provenance.get("dataset", {}).get("source", cache))
    doubts = find_doubts(held.predictions.final, held.predictions.target, held.hierarchy)
    record = _record(held, doubts, most)
    files = {LIST: _list(record, held.table.regions, stored)}
    if images:
        files[PAGE] = texts.printable(_page(held, doubts, record, source, images))
    files[MARK] = json.dumps(record.plain(), indent=2, ensure_ascii=False) + "\n"
    contents = {name: text.encode("utf-8", "backslashreplace") for name, text in files.items()}
    write_folder(out, contents, [MARK], "the review")
    return record, tuple(out / name for name in files)


def _record(held: HeldOut, doubts: Doubts, most: int | None) -> ReviewRecord:
    """Collect what is known of the doubtful labels."""
    regions = held.table.regions
    siblings = int(doubts.are_siblings.sum())
    return ReviewRecord(
        cache=held.cache.path,
        features_sha256=held.cache.features_sha256,
        labels=held.cache.labels,
        labels_digest=regions.labels_digest,
        hierarchy=held.hierarchy.name,
        hierarchy_digest=held.hierarchy.digest,
        settings=dict(held.settings),
        folds=held.folds,
        judged=len(held.predictions.id),
        lone=tuple(held.lone.tolist()),
        inner=held.inner,
        doubtful=len(doubts.row),
        doubtful_siblings=siblings,
        doubtful_strangers=len(doubts.row) - siblings,
        estimated_errors=round(doubts.estimated_errors, 2),
        estimated_error_rate=round(doubts.estimated_errors / len(held.predictions.id), 4),
        pairs=tuple(_pairs(held, doubts)),
        rows=tuple(_rows(held, doubts))[:most],
        code=provenance.code(),
        created=provenance.now(),
    )


def _rows(held: HeldOut, doubts: Doubts) -> Iterator[DoubtfulRow]:
    """Write out the doubtful rows, with labels as the collection writes them."""
    written = dict(zip(held.table.regions.id.tolist(), held.table.regions.label.tolist(), strict=True))
    ids = held.predictions.id[doubts.row].tolist()
    columns = (ids, doubts.suggested, doubts.p_label, doubts.p_suggested, doubts.are_siblings)
    for name, leaf, p_label, p_suggested, siblings in zip(*columns, strict=True):
        yield DoubtfulRow(
            id=name,
            label=written[name],
            suggested=held.hierarchy.leaves[leaf],
            p_label=round(float(p_label), 4),
            p_suggested=round(float(p_suggested), 4),
            siblings=bool(siblings),
        )


def _pairs(held: HeldOut, doubts: Doubts) -> list[Pair]:
    """List the pairs that the estimate names, the largest first."""
    tree = held.hierarchy
    listed = count_pairs(held.predictions.target[doubts.row], doubts.suggested, len(tree.leaves))
    labels, leaves = (listed + doubts.confident).nonzero()
    named = sorted(zip(labels.tolist(), leaves.tolist(), tree.are_siblings(labels, leaves).tolist(), strict=True))
    pairs = [
        Pair(
            label=tree.leaves[label],
            suggested=tree.leaves[leaf],
            siblings=siblings,
            listed=int(listed[label, leaf]),
            confident=int(doubts.confident[label, leaf]),
            estimated=round(float(doubts.estimated[label, leaf]), 2),
        )
        for label, leaf, siblings in named
        if label != leaf
    ]
    return sorted(pairs, key=lambda pair: (-pair.estimated, -pair.listed))


def _list(record: ReviewRecord, used: Regions, stored: Regions) -> str:
    """Write the list that `--labels` takes back.

    Below the doubtful rows stand those whose label in use is not the cache's own, as another file gave it: whoever
    trains with the list alone has all labels in use. Where that file gave splits or groups, they have columns too.
    """
    more = [name for name in ("split", "group") if (getattr(used, name) != getattr(stored, name)).any()]
    differs = np.any([getattr(used, name) != getattr(stored, name) for name in ("label", *more)], axis=0)
    place = {name: row for row, name in enumerate(used.id.tolist())}
    lines: dict[int, list[object]] = {
        place[row.id]: [row.id, row.label, row.suggested, f"{row.p_label:.4f}", f"{row.p_suggested:.4f}"]
        for row in record.rows
    }
    for row in np.flatnonzero(differs).tolist():
        lines.setdefault(row, [used.id[row], used.label[row], "", "", ""])
    columns = [getattr(used, name) for name in more]
    body = [[*line, *(column[row] for column in columns)] for row, line in lines.items()]
    return texts.written([*REVIEWED, *more], body)


def _page(held: HeldOut, doubts: Doubts, record: ReviewRecord, source: Path, images: Path) -> str:
    """Write the page: strangers first, then siblings, the most doubtful first."""
    regions, tree = held.table.regions, held.hierarchy
    place = {name: row for row, name in enumerate(regions.id.tolist())}
    ranks = {kind: [i for i, row in enumerate(record.rows) if row.siblings == kind] for kind in (False, True)}
    numbers = np.array([place[record.rows[i].id] for kind in ranks for i in ranks[kind][:MOST_SHOWN]], dtype=np.int64)
    pictures = pictures_of(regions, numbers, source, images)

    def shown(i: int) -> Shown:
        row, leaf = record.rows[i], int(held.predictions.target[doubts.row[i]])
        return Shown(
            rank=i + 1,
            id=row.id,
            label=" > ".join(tree.path(leaf)),
            suggested=" > ".join(tree.path(int(doubts.suggested[i]))),
            p_label=f"{row.p_label:.3f}",
            p_suggested=f"{row.p_suggested:.3f}",
            split=regions.split[place[row.id]] or "unknown",
            source=pictures[place[row.id]][0],
            missing=pictures[place[row.id]][1],
        )

    notes = {False: "The suggestion has another parent in the tree.", True: "Label and suggestion have one parent."}
    sections = [
        Section(
            f"{'Siblings' if kind else 'Strangers'}: {len(ranks[kind]):,}",
            notes[kind] + (f" The first {MOST_SHOWN} are shown." if len(ranks[kind]) > MOST_SHOWN else ""),
            tuple(map(shown, ranks[kind][:MOST_SHOWN])),
        )
        for kind in ranks
    ]
    pairs = record.pairs[:MOST_PAIRS]
    return page.rendered("review.html", "Doubtful labels", record=record, pairs=pairs, sections=sections)
