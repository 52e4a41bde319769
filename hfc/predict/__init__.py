"""Both stages joined: a trained run answers for images, or is exported. Loaded on use, as torch comes with it."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hfc.predict.classifier import Classifier as Classifier
    from hfc.predict.features import FeatureClassifier as FeatureClassifier

_HOMES = {"Classifier": "hfc.predict.classifier", "FeatureClassifier": "hfc.predict.features"}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
