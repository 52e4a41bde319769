"""A cache and what heads that never saw its rows would say of them, without training."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hfc.hierarchy import Hierarchy
from hfc.regions import Regions
from hfc.store import FeatureStore, HeldOut, Predictions
from hfc.store.records import CacheRecord


def held_of(cache: Path, tree: Hierarchy, doubtful: dict[int, str], *, regions: Regions | None = None) -> HeldOut:
    """Heads that are sure of every label but some: of these, the more of another leaf the later they are named.

    Args:
        cache: its labelled rows are judged.
        tree: over its labels.
        doubtful: the leaf that each doubtful row seems to be.
        regions: with other labels than the cache's own.
    """
    with FeatureStore(cache) as store:
        table = store.table()
        record = CacheRecord(
            path=str(cache),
            feature_key=store.key,
            features_sha256=store.features_sha256,
            rows=store.shape[0],
            dim=store.shape[2],
            origin="made up",
            backbone="made-up",
            image_size=224,
            weights="made-up",
            weights_digest="",
            random_weights=False,
            labels=str(cache),
            extracted_by={},
        )
    used = table.regions if regions is None else regions
    rows = np.flatnonzero(table.ok & (used.label != ""))
    leaf = tree.index(used.label[rows].tolist(), "the test")
    final: NDArray[np.float32] = np.full((len(rows), len(tree.leaves)), 0.02, dtype=np.float32)
    final[np.arange(len(rows)), leaf] = 0.7
    for number, (row, name) in enumerate(doubtful.items()):
        (place,) = np.flatnonzero(rows == row)
        final[place, leaf[place]] = 0.1 - 0.01 * number
        final[place, tree.leaves.index(name)] = 0.8 + 0.01 * number
    lone = np.array([], dtype=object)
    table = type(table)(used, table.ok, table.failures)
    settings = {"method": "flat", "seed": 0}
    return HeldOut(record, table, tree, Predictions(used.id[rows], leaf, (), final), lone, settings, 5)
