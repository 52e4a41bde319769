"""Hierarchical fashion classification: features extracted once, hierarchical heads trained in seconds.

`from hfc import Classifier` gives the one for whoever only wants answers; it is loaded on use, as torch comes with it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hfc.predict import Classifier as Classifier

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name == "Classifier":
        return import_module("hfc.predict").Classifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
