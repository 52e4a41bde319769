"""Hierarchical fashion classification: features extracted once, hierarchical heads trained in seconds.

`from hfc import Classifier` gives the one for whoever only wants answers, `HierarchicalClassifier` the one for whoever
has features; they are loaded on use, as torch comes with them.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hfc.predict.classifier import Classifier as Classifier
    from hfc.train.estimator import HierarchicalClassifier as HierarchicalClassifier

__version__ = "0.1.0"
_HOMES = {"Classifier": "hfc.predict.classifier", "HierarchicalClassifier": "hfc.train.estimator"}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
