"""Draw splits that stay as they are when other rows come or go.

A row without a group, or a group, is a unit. A hash of the seed and its name is its number in [0, 1), which the shares
of test and validation cut into their splits. No other row has a part in it, but for labels that lack a split.
"""

import hashlib
import logging
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain

from hfc.config import SPLITS
from hfc.errors import DatasetError
from hfc.hierarchy import canonical, some
from hfc.regions import Regions, Strings, strings

logger = logging.getLogger(__name__)

FEW = 3  # units of a label from which on it has one in every split


@dataclass(slots=True)
class _Unit:
    """Rows that get one split."""

    name: tuple[str, ...]
    number: float
    """In [0, 1)."""
    labels: set[str] = field(default_factory=set)
    votes: Counter[str] = field(default_factory=Counter)
    """Splits that its rows have already."""
    split: str = ""


def draw_splits(
    regions: Regions, *, seed: int, shares: tuple[float, float], recorded: Strings | None = None
) -> Regions:
    """Draw a split for every row that has a label and no split.

    Where the source keeps splits apart, in folders or shards of their own, those it lacks are drawn from train.

    Rows of one group get one split: the one that most of them have already, else one by the group's number. A label of
    three units or more has one in every split that is drawn: where there is none, the unit moves there whose number is
    nearest, if it has no split already and is not the last of its own split. Units of a label of fewer are for
    training. Rows without a label keep their blank split.

    Args:
        regions: the rows.
        seed: another one draws another split.
        shares: of validation and of test rows, each only right to within chance.
        recorded: (N,) splits that rows without one were given before, which they keep; "" = none.

    Raises:
        DatasetError: the shares leave nothing to train on.
    """
    drawn = _shares(regions, *shares)
    if regions.apart and not drawn:
        return regions
    given = _given(regions, drawn)
    if all(given[regions.label != ""]):
        _warn_of_parted(regions, given)
        return regions
    if sum(drawn.values()) >= 1:
        raise DatasetError(f"val and test fractions {shares[0]:g} + {shares[1]:g} leave nothing to train on")
    _warn_of_missing(regions, drawn)
    units = _units(regions, given, recorded, drawn, seed)
    _fill({id(unit): unit for unit in units}.values(), _bounds(drawn))
    columns = (given.tolist(), regions.label.tolist(), units, regions.split.tolist())
    splits = [split or (unit.split if label else own) for split, label, unit, own in zip(*columns, strict=True)]
    _warn_of_parted(regions, strings(splits), units)
    return replace(regions, split=strings(splits))


def _shares(regions: Regions, val: float, test: float) -> dict[str, float]:
    """Return the share of each split that is drawn beside train."""
    return {split: share for split, share in (("test", test), ("val", val)) if split not in regions.apart}


def _given(regions: Regions, drawn: Mapping[str, float]) -> Strings:
    """Return the (N,) splits that stay. Rows kept for training may go to a split that the source lacks."""
    if not regions.apart or not any(drawn.values()):
        return regions.split
    return strings(["" if split == "train" else split for split in regions.split.tolist()])


def _units(
    regions: Regions, given: Strings, recorded: Strings | None, drawn: Mapping[str, float], seed: int
) -> list[_Unit]:
    """Return the unit of each row, with its split but for labels that lack one."""
    among = {"train", *drawn}
    units: dict[tuple[str, ...], _Unit] = {}
    rows: list[_Unit] = []
    before = recorded.tolist() if recorded is not None else [""] * len(regions)
    columns = (regions.id.tolist(), regions.label.tolist(), regions.group.tolist(), given.tolist(), before)
    for name, label, group, split, old in zip(*columns, strict=True):
        key = ("group", canonical(group)) if group else ("row", canonical(label), unicodedata.normalize("NFC", name))
        unit = units.get(key) or units.setdefault(key, _Unit(key, _number(seed, key)))
        if label and (not split or split in among):
            unit.labels.add(canonical(label))
        # What a source says is stronger than what was recorded, also in a group.
        unit.votes.update({split: len(regions)} if split in among else {old: 1} if old in among and not split else {})
        rows.append(unit)
    bounds = _bounds(drawn)
    for unit in units.values():
        unit.split = _most(unit.votes) or next(s for s, (low, high) in bounds.items() if low <= unit.number < high)
    return rows


def _number(seed: int, key: tuple[str, ...]) -> float:
    """Return a unit's number, uniform in [0, 1)."""
    parts = [text.encode("utf-8", "surrogatepass") for text in (str(seed), *key)]
    content = b"".join(len(part).to_bytes(8, "little") + part for part in parts)
    return (int.from_bytes(hashlib.sha256(content).digest()[:8], "little") >> 11) / 2**53


def _bounds(drawn: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """Return which numbers belong to each split."""
    bounds, low = {}, 0.0
    for split, share in drawn.items():
        bounds[split] = (low, low + share)
        low += share
    return {**bounds, "train": (low, 1.0)}


def _most(votes: Counter[str]) -> str:
    """Return the split of most votes; of equal ones the first in SPLITS, and "" where there are none."""
    return max(SPLITS, key=lambda split: votes[split]) if votes else ""


def _fill(units: Iterable[_Unit], bounds: Mapping[str, tuple[float, float]]) -> None:
    """Give labels of three units or more one in every split; those of fewer are for training."""
    members: defaultdict[str, list[_Unit]] = defaultdict(list)
    for unit in units:
        for label in unit.labels:
            members[label].append(unit)
    for unit in chain.from_iterable(there for there in members.values() if len(there) < FEW):
        unit.split = unit.split if unit.votes else "train"
    counts = Counter((label, unit.split) for label, there in members.items() for unit in there)
    for label, there in sorted(members.items()):
        for split in ("train", "test", "val"):
            low, high = bounds.get(split, (0.0, 0.0))
            if len(there) < FEW or low >= high or counts[label, split]:
                continue
            spare = [unit for unit in there if all(counts[one, unit.split] > 1 for one in unit.labels)]
            if free := [unit for unit in spare if not unit.votes]:
                moved = min(free, key=lambda unit: (max(low - unit.number, unit.number - high), unit.name))
                counts.subtract((one, moved.split) for one in moved.labels)
                counts.update((one, split) for one in moved.labels)
                moved.split = split


def _warn_of_missing(regions: Regions, drawn: Mapping[str, float]) -> None:
    if "train" in regions.apart:
        for split in SPLITS:
            if share := drawn.get(split, 0.0):
                what = f"{100 * share:g}% of the training images are drawn for it"
                logger.warning("%s: has no %s split; %s", regions.root, split, what)


def _warn_of_parted(regions: Regions, splits: Strings, units: Iterable[_Unit] = ()) -> None:
    """Warn of groups that the source itself parts, or that were recorded in several splits."""
    there: defaultdict[str, set[str]] = defaultdict(set)
    for group, split in zip(regions.group.tolist(), splits.tolist(), strict=True):
        if group and split:
            there[canonical(group)].add(split)
    parted = sorted(group for group, kinds in there.items() if len(kinds) > 1)
    joined = sorted({unit.name[-1] for unit in units if len(unit.votes) > 1} - set(parted))
    for groups, what in (
        (parted, "have rows in several splits, as the source has it"),
        (joined, "were in several splits; all rows of each go where most of them were"),
    ):
        if groups:
            logger.warning("%s: %d groups %s: %s", regions.root, len(groups), what, some(groups))
