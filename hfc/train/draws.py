"""Rows drawn for folds and for validation. Groups of rows stay together, and each label gives its share.

Dimensions: N rows, G groups.
"""

import hashlib
import math
import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hfc.errors import RunError
from hfc.hierarchy import canonical
from hfc.regions import Strings, strings

Ints = NDArray[np.int64]


def numbered(names: Strings) -> Ints | None:
    """Number the groups that rows are in, (N,), by their names.

    A row without a name is a group by itself. Names are one in any Unicode form.

    Returns:
        (N,) numbers below N; None where no row has a name.
    """
    named = names != ""
    if not named.any():
        return None
    number = np.empty(len(names), dtype=np.int64)
    spelt = strings([canonical(name) for name in names[named].tolist()])
    different, number[named] = np.unique(spelt.astype(str), return_inverse=True)
    number[~named] = len(different) + np.arange(int((~named).sum()))
    return number


def deal(label: Ints, group: Ints | None, folds: int) -> list[Ints]:
    """Deal rows out to folds, stratified by label; the same rows are always dealt alike.

    A label of fewer rows than folds is in some of them. Where each label is so rare, folds are not stratified.

    Args:
        label: (N,) number of each row's label.
        group: (N,) number of each row's group; None: each row is one.
        folds: how many there are.

    Returns:
        Of each fold the rows that it holds out, which ascend. Each row is held out once.

    Raises:
        RunError: fewer rows or groups than folds.
    """
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, StratifiedKFold  # on use: it takes a second

    units, what = (len(label), "rows") if group is None else (len(np.unique(group)), "groups of rows")
    if units < folds:
        raise RunError(f"{folds} folds need as many {what} for training and validation, found {units}")
    if np.bincount(label).max() < folds:
        label = np.zeros_like(label)
    kind = StratifiedKFold if group is None else StratifiedGroupKFold
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)  # rare categories are no mistake
        held = [rows for _, rows in kind(folds, shuffle=True, random_state=0).split(label, label, group)]
    if not all(map(len, held)):  # as it may leave one of a handful of groups
        held = [rows for _, rows in GroupKFold(folds).split(label, label, group)]
    return held


def by_hash(names: Strings, share: float) -> NDArray[np.bool_]:
    """Draw names, each by its own hash and with the same chance: what is drawn stays so when others come or go.

    Args:
        names: (N,) of rows or groups; the same name is drawn or not in all its rows.
        share: the chance, from 0 to 1.
    """
    return np.array([_number(name, "promise") < share for name in names.tolist()], dtype=np.bool_)


def nested_share(names: Strings, group: Strings, label: Ints, share: float, seed: int) -> NDArray[np.bool_]:
    """Draw a share of the groups of each label, by hash: a smaller share is a part of every larger one.

    A group has the label of its row whose name comes first. Each label keeps a group at least.

    Args:
        names: (N,) of the rows, no two alike.
        group: (N,) names of their groups; "" = a row by itself.
        label: (N,) numbers of their labels.
        share: above 0 to 1.
        seed: another one draws others.

    Returns:
        (N,) whether a row is drawn.
    """
    units = [f"group {canonical(one)}" if one else f"row {name}" for name, one in zip(names, group, strict=True)]
    labels: dict[str, int] = {}
    for row in sorted(range(len(units)), key=names.__getitem__):
        labels.setdefault(units[row], int(label[row]))
    of_label: dict[int, list[tuple[float, str]]] = {}
    for unit, number in labels.items():
        of_label.setdefault(number, []).append((_number(unit, f"share {seed} "), unit))
    drawn = {
        unit for every in of_label.values() for _, unit in sorted(every)[: math.ceil(share * len(every) * (1 - 1e-9))]
    }
    return np.array([unit in drawn for unit in units], dtype=np.bool_)


def _number(name: str, purpose: str) -> float:
    """Return a name's number for a purpose, uniform in [0, 1). Not that which draws the splits."""
    content = purpose.encode() + canonical(name).encode("utf-8", "surrogatepass")
    return (int.from_bytes(hashlib.sha256(content).digest()[:8], "little") >> 11) / 2**53


def hold_out(leaf: Ints, group: Ints, share: float, rng: np.random.RandomState) -> NDArray[np.bool_]:
    """Draw rows to hold out, in whole groups and stratified by leaf.

    Each leaf keeps a group to train on, and there are two rows at least.

    Args:
        leaf: (N,) of each row.
        group: (N,) number of each row's group.
        share: of the rows, from 0 to below 1.
        rng: draws.

    Returns:
        (N,) whether a row is held out. None is where there would be fewer than one for each leaf.
    """
    shuffled = rng.permutation(len(leaf))
    _, first, number = np.unique(group[shuffled], return_index=True, return_inverse=True)
    order = np.lexsort((first, leaf[shuffled[first]]))  # by the leaf of the row that was drawn first, then as drawn
    sizes = np.bincount(number)[order]
    place = np.argsort(order)[number]  # in that order, of the group of each shuffled row
    leaves, which = np.unique(leaf[shuffled], return_inverse=True)
    kept = np.full(len(leaves), len(sizes))
    np.minimum.at(kept, which, place)  # the first group of each leaf
    spare = np.delete(np.arange(len(sizes)), kept)
    count = min(round(share * len(leaf)), int(sizes[spare].sum()), len(leaf) - 2)
    chosen = _evenly_spaced(spare, sizes, count, len(leaf) - 2)
    held = np.zeros(len(leaf), dtype=np.bool_)
    held[shuffled] = np.isin(place, chosen)
    enough = count >= len(leaves) and held.sum() >= len(leaves)  # fewer would pick the epoch by chance
    return held if enough else np.zeros_like(held)


def _evenly_spaced(spare: Ints, sizes: Ints, count: int, most: int) -> Sequence[int]:
    """Choose groups evenly spaced in their order, of about `count` rows: each leaf gives its share, to within a group.

    Args:
        spare: the groups to choose from.
        sizes: (G,) rows of each group.
        count: how many rows are wanted.
        most: how many are allowed.
    """
    total, passed, held, chosen = int(sizes[spare].sum()), 0, 0, []
    for number, size in zip(spare.tolist(), sizes[spare].tolist(), strict=True):
        passed += size
        # Held when that leaves fewer rows missing or too many than not to hold it.
        if (2 * held + size - 1) * total < 2 * passed * count and held + size <= most:
            chosen.append(number)
            held += size
    return chosen
