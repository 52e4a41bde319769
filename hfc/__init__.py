"""Hierarchical fashion classification in two stages: features are extracted once, heads are trained in seconds.

    stage             reads               writes                  package
    hfc extract       images              cache/NAME.h5           hfc.extract; hfc.store is the file
    hfc train         cache/NAME.h5       runs/NAME/              hfc.train; hfc.runs lists the files of a run
    hfc report        runs/               tables and a page       hfc.report
    hfc predict       runs/NAME/, images  answers                 hfc.predict, which joins both stages

The stages meet in these files alone. In Python, all loaded on use, as torch comes with it:
    from hfc import Classifier              answers for images, from the folder of a run
    from hfc import HierarchicalClassifier  a scikit-learn estimator for features of your own
    from hfc.extract import extract         stage 1, and `from hfc.train import train` stage 2
    from hfc.report import report           the report; this one loads no torch

A new head is a module in hfc/train/heads and a line in its HEADS, a new loss a function in hfc/train/losses.py and a
line in its LEVEL_LOSSES, both with a name in hfc/config.py; a new data set a module in hfc/datasets and a branch there.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hfc.predict.classifier import Classifier
    from hfc.train.estimator import HierarchicalClassifier

__all__ = ["Classifier", "HierarchicalClassifier"]
__version__ = "0.1.0"
# Threads of PyTorch's (GNU) OpenMP spin this often for each other before they sleep; it reads the number as torch is
# loaded. Its own 300,000 outlast a turn on a busy core, and the others spin them away; with none every layer pays for
# waking up. What the user says of waiting stays.
if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = "2000"
_HOMES = {"Classifier": "hfc.predict.classifier", "HierarchicalClassifier": "hfc.train.estimator"}


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
