"""Both stages joined: a trained run answers for images, or is exported. Loaded on use, as torch comes with it."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hfc.predict.classifier import Classifier as Classifier

_NAMES = {"Classifier"}


def __getattr__(name: str) -> object:
    if name in _NAMES:
        return getattr(import_module("hfc.predict.classifier"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
