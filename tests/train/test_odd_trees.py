"""Trees that are odd and no error: one level, single children, leaves without rows or without training rows."""

import math
from pathlib import Path

import numpy as np
import pytest

from hfc.config import METHODS
from hfc.runs import hierarchy
from hfc.store import Predictions, read_predictions
from hfc.train.cache import load_cache
from hfc.train.stage import train
from tests.support.made_up import write_cache
from tests.support.training import quick

LEAVES = ("Tee", "Tank", "Coat", "Jeans", "Chinos", "Shorts")
SPLITS = ("train", "train", "train", "val", "test")
# Coat is the only child of outer, Chinos of a chain. Nothing shows a Cape, nor the group above it.
ODD = """\
leaf,group,kind
Tee,tops,upper
Tank,tops,upper
Coat,outer,upper
Jeans,,
Chinos,only,lower
Shorts,,
Cape,bags,
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache whose training split lacks one leaf, which the others have."""
    folder = tmp_path_factory.mktemp("odd")
    rows = [(label, split) for _ in range(8) for split in SPLITS for label in LEAVES]
    splits = ["val" if label == "Shorts" and split == "train" else split for label, split in rows]
    write_cache(folder / "cache.h5", [label for label, _ in rows], splits)
    return folder


ONE_LEVEL = "\n".join(["leaf", *LEAVES])


@pytest.mark.parametrize(
    ("tree", "method"),
    [*((ODD, method) for method in METHODS), *((ONE_LEVEL, method) for method in ("levels", "conditional", "hmcn-f"))],
)
def test_every_method_trains_on_an_odd_tree(tree: str, method: str, place: Path, tmp_path: Path) -> None:
    (tmp_path / "tree.csv").write_text(tree)
    config = quick(tmp_path, method=method, epochs=3)
    run, _ = train(load_cache(place / "cache.h5"), config, tmp_path)
    scores, predictions, leaves = (
        run.result.test,
        read_predictions(run.folder / "predictions.h5"),
        hierarchy(run).leaves,
    )
    assert all(math.isfinite(score) for score in scores.values())
    assert isinstance(predictions, Predictions)
    assert isinstance(predictions.final, np.ndarray)
    right = predictions.final.argmax(axis=1) == predictions.target
    assert scores["top1"] == pytest.approx(right.mean())
    # No row is a Cape, which counts in no mean over leaves.
    by_leaf = [right[predictions.target == leaves.index(leaf)].mean() for leaf in LEAVES]
    assert scores["top1_macro"] == pytest.approx(np.mean(by_leaf))
    if tree != ODD:
        assert scores["mistake_severity"] == 1
        assert scores["distance@1"] == pytest.approx(1 - scores["top1"])
        assert scores["top1"] == scores["full_path_accuracy"] == scores["level_accuracy/leaf"]
