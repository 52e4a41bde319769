"""Made-up feature caches: classes are noisy clusters, so that heads have something to learn."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hfc.config import TrainConfig, resolve
from hfc.hierarchy import load_hierarchy
from hfc.regions import Regions, strings
from tests.support.caches import put, put_parts


def settled_on(common: Mapping[str, object], **changes: object) -> dict[str, object]:
    """Changes to settings that several methods share: of these, what the one at hand takes."""
    from hfc.train.settings import used_settings  # only now: many tests need no torch

    used = used_settings(resolve(TrainConfig, {**common, **changes}))
    return {name: value for name, value in common.items() if name in used} | changes


FIELDS = {"backbone": "made-up", "weights": "0" * 64}


def write_cache(
    path: Path,
    labels: Sequence[str],
    splits: Sequence[str],
    *,
    dim: int = 16,
    seed: int = 0,
    random_weights: bool = False,
    origin: str = "made-up features",
    failed: Sequence[int] = (),
    groups: Sequence[str] = (),
) -> Path:
    """A cache whose features are a cluster for each label, noise added; rows in `failed` have none."""
    rng = np.random.default_rng(seed)
    centres = {label: rng.normal(size=dim) * 2 for label in sorted(set(labels))}
    features = np.array([centres[label] for label in labels]) + rng.normal(size=(len(labels), dim))
    features = features.astype(np.float16)[:, None, :]
    ok = np.ones(len(labels), dtype=np.bool_)
    ok[list(failed)] = False
    features[~ok] = 0
    names = strings([f"{i:05d}.jpg" for i in range(len(labels))])
    regions = Regions(
        root=path.parent,
        origin=origin,
        id=names,
        path=names,
        box=np.full((len(labels), 4), np.nan, dtype=np.float32),
        label=strings(list(labels)),
        split=strings(list(splits)),
        group=strings(list(groups)),
    )
    weights = {"source": "random" if random_weights else "made-up", "digest": "0" * 64, "random": random_weights}
    return put(
        path,
        regions,
        features,
        ok=ok,
        failures=[(row, "made to fail") for row in failed],
        key_fields=FIELDS,
        config={"backbone": "made-up", "image_size": 224},
        provenance={"dataset": {"root": str(path.parent), "origin": origin}, "weights": weights},
    )


def write_tree_csv(path: Path) -> Path:
    """A hierarchy of three levels and six leaves."""
    path.write_text(
        "leaf,group,kind\nTee,tops,upper\nTank,tops,upper\nCoat,outer,upper\nJeans,long,lower\n"
        "Chinos,long,lower\nShorts,short,lower\n"
    )
    return path


def small_cache(path: Path, **changes: object) -> Path:
    """360 rows over the six leaves of `write_tree_csv`, 60 / 20 / 20% a split."""
    labels = ["Tee", "Tank", "Coat", "Jeans", "Chinos", "Shorts"] * 60
    splits = [("train", "train", "train", "val", "test")[i // 6 % 5] for i in range(360)]
    return write_cache(path, labels, splits, **changes)  # type: ignore[arg-type]


def deepfashion_sized(path: Path) -> None:
    """A cache of DeepFashion's size and categories: 289,222 rows of 2048 features that mean nothing."""
    leaves = load_hierarchy("deepfashion-5").leaves
    rows, size = 289_222, 4096
    names = strings([f"{i}.jpg" for i in range(rows)])
    splits = strings(["train"] * 209_222 + ["val"] * 40_000 + ["test"] * 40_000)
    box = np.full((rows, 4), np.nan, dtype=np.float32)
    regions = Regions(path.parent, "made-up", names, names, box, strings([leaves[i % 50] for i in range(rows)]), splits)
    block = np.random.default_rng(0).random((size, 1, 2048), dtype=np.float32).astype(np.float16)
    put_parts(path, regions, (block[: rows - start] for start in range(0, rows, size)), FIELDS)
