"""A cache with planted twins, and runs that were tested on its test rows."""

from pathlib import Path
from typing import Any

import numpy as np

from hfc import store
from hfc.hierarchy import Hierarchy
from hfc.regions import Regions, strings
from tests.support.caches import KEY, put
from tests.support.made_runs import two_methods

TESTED, TRAINED = 60, 40


def twin_cache(path: Path, shared: int, prints: store.Fingerprints | None = None) -> Path:
    """A cache whose first `shared` test rows are near copies of training rows; the last two training rows are twins."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(TESTED + TRAINED, 1, 32))
    features[:shared] = features[TESTED : TESTED + shared] + 0.05 * rng.normal(size=(shared, 1, 32))
    features[-1] = features[-2] + 0.05 * rng.normal(size=(1, 32))
    names = strings([f"images/{i:04d}.jpg" for i in range(len(features))])
    labels = strings(["Tee", "Tank"] * (len(features) // 2))
    splits = strings(["test"] * TESTED + ["train"] * TRAINED)
    box = np.full((len(features), 4), np.nan, dtype=np.float32)
    regions = Regions(path.parent, "made-up features", names, names, box, labels, splits)
    provenance = {"dataset": {"source": str(path.parent / "photos"), "root": str(path.parent)}}
    return put(path, regions, features.astype(np.float32), key_fields=KEY, provenance=provenance, prints=prints)


def runs_of(cache: Path, folder: Path, tree: Hierarchy, **changes: Any) -> Path:
    """Runs of two methods on a cache of `twin_cache`."""
    with store.FeatureStore(cache) as opened:
        known = {
            "cache__features_sha256": opened.features_sha256,
            "cache__labels_digest": opened.table().regions.labels_digest,
        }
    return two_methods(folder, tree, rows=TESTED, **(known | changes))
