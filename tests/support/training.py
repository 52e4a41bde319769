"""Settings of a short training on made-up features."""

from pathlib import Path

from hfc.config import TrainConfig, resolve
from tests.support.made_up import settled_on

QUICK = {
    "method": "hmcn-f+mtl",
    "learning_rate": 0.003,
    "epochs": 6,
    "batch_size": 32,
    "reduced": 32,
    "width": 32,
    "dropout": 0.2,
}


def quick(place: Path, **changes: object) -> TrainConfig:
    """A short run on the tree of a folder."""
    return resolve(TrainConfig, {"hierarchy": str(place / "tree.csv"), **settled_on(QUICK, **changes)})
