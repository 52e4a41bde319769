"""The finished cache that a call brings up to date, and what has changed since.

Dimension: N rows.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from hfc import store
from hfc.config import SPLITS, ExtractConfig
from hfc.datasets.reading import UNKNOWN
from hfc.regions import Regions, Strings, strings

logger = logging.getLogger(__name__)

DRAWING = ("split", "split_seed", "val_fraction", "test_fraction")
COLUMNS = {"path": "paths", "label": "labels", "split": "splits", "group": "groups"}


@dataclass(frozen=True, eq=False)
class Former:
    """A finished cache without its features."""

    path: Path
    table: store.Table
    identities: list[bytes]
    """Of its rows; b"" where the bytes of the image are not known."""
    provenance: store.Provenance
    drawing: Mapping[str, object] = field(default_factory=dict)
    """The settings by which its splits were drawn."""


def open_former(path: Path, key_fields: store.KeyFields) -> Former | None:
    """Read the rows of a finished cache; None where there is none.

    Raises:
        StaleStoreError: it was made under other settings.
        StoreError: it is damaged, or no cache.
    """
    if not path.exists():
        return None
    with store.FeatureStore(path) as cache:
        store.refuse_other_key(path, cache.key_fields, key_fields)
        table = cache.table()
        prints = table.fingerprints or store.Fingerprints.unknown(len(table.ok))
        identities = store.identities(prints.sha256, table.regions.box)
        drawing = {name: cache.config[name] for name in DRAWING if name in cache.config}
        return Former(path, table, identities, cache.provenance, drawing)


def trusted(former: Former, regions: Regions, fingerprints: store.Fingerprints) -> Former:
    """Give a cache of schema 1 the fingerprints of the files that are there now.

    Args:
        former: the cache.
        regions: the rows that are there now.
        fingerprints: of their images.
    """
    sha256 = dict(zip(regions.path.tolist(), fingerprints.sha256, strict=True))
    unknown = np.zeros(fingerprints.sha256.shape[1], dtype=np.uint8)
    rows = np.array([sha256.get(path, unknown) for path in former.table.regions.path.tolist()], dtype=np.uint8)
    return replace(former, identities=store.identities(rows, former.table.regions.box))


@dataclass(frozen=True)
class Counts:
    """How many rows of a table are as in the former cache."""

    kept: int = 0
    """Of the pixels that their name had, or of a new name and known pixels, as after a move."""
    new: int = 0
    """Of new names and new pixels."""
    changed: int = 0
    """Of known names and other pixels than these had, also where another row has had them."""
    gone: int = 0
    """Rows of the former cache of which neither name nor pixels are there any more."""


def count(regions: Regions, identities: Sequence[bytes], former: Former | None) -> Counts:
    """Compare rows with those of the former cache."""
    if former is None:
        return Counts(new=len(regions))
    old = dict(zip(former.table.regions.id.tolist(), former.identities, strict=True))
    known = {*former.identities} - {b""}
    kinds: Counter[str] = Counter()
    for name, identity in zip(regions.id.tolist(), identities, strict=True):
        kept = identity == old[name] if name in old else identity in known
        kinds["kept" if kept else "changed" if name in old else "new"] += 1
    names, there = {*regions.id.tolist()}, {*identities} - {b""}
    gone = sum(name not in names and identity not in there for name, identity in old.items())
    return Counts(kinds["kept"], kinds["new"], kinds["changed"], gone)


def recording(former: Former | None, regions: Regions, config: ExtractConfig) -> Former | None:
    """Return the cache if its splits are to stay; None where DeepFashion's other split is asked for.

    A warning says that other settings of the draw are for new rows alone.
    """
    if former is None or former.drawing.get("split", ExtractConfig.split) != config.split:
        return None
    asked = {name: (former.drawing[name], getattr(config, name)) for name in DRAWING if name in former.drawing}
    other = [f"{name} = {old!r}, asked for {new!r}" for name, (old, new) in asked.items() if old != new]
    if other and len(regions.apart) < len(SPLITS) and not all(regions.split):
        logger.warning("%s: made with %s: rows that are known keep their splits", former.path, "; ".join(other))
    return former


def recorded_splits(
    regions: Regions, identities: Sequence[bytes], former: Former | None, config: ExtractConfig
) -> Strings:
    """Return the (N,) splits that a cache has for rows; "" where it has none.

    Pixels tell which row of the cache it is, and its name where several have them; where none has, its name alone.
    """
    former = recording(former, regions, config)
    if former is None:
        return strings([""] * len(regions))
    old = former.table.regions
    columns = list(zip(old.id.tolist(), former.identities, old.split.tolist(), strict=True))
    by_both = {(identity, name): split for name, identity, split in columns if split}
    by_pixels = {identity: split for _, identity, split in reversed(columns) if split and identity}
    by_name = {name: split for name, _, split in columns if split}
    return strings(
        [
            by_both.get((identity, name)) or by_pixels.get(identity) or by_name.get(name) or ""
            for name, identity in zip(regions.id.tolist(), identities, strict=True)
        ]
    )


def differences(table: store.Table, former: Former) -> list[str]:
    """Say in words in what a table is not that of the former cache; nothing if it is the same."""
    return list(_differences(table, former.table))


def _differences(new: store.Table, old: store.Table) -> Iterator[str]:
    ids, former_ids = new.regions.id.tolist(), old.regions.id.tolist()
    if ids != former_ids:
        yield "order" if sorted(ids) == sorted(former_ids) else "rows"
        return
    for name, words in COLUMNS.items():
        if getattr(new.regions, name).tolist() != getattr(old.regions, name).tolist():
            yield words
    if not np.array_equal(new.regions.box, old.regions.box, equal_nan=True):
        yield "boxes"
    if str(new.regions.root.resolve()) != str(old.regions.root):
        yield "folder"
    if (new.ok.tolist(), new.failures) != (old.ok.tolist(), old.failures):
        yield "failures"
    yield from _different_files(new.fingerprints, old.fingerprints)


def _different_files(new: store.Fingerprints | None, old: store.Fingerprints | None) -> Iterator[str]:
    """Whether files differ, or their times: then they need not be read the next time."""
    if new is None or old is None:
        yield "images"
        return
    if not np.array_equal(new.sha256, old.sha256):
        yield "images"
    # Of files that were made just before they were read the time is not known, but there are few of them.
    elif ((old.modified != UNKNOWN) & (new.modified != old.modified)).any():
        yield "times of files"
