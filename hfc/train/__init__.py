"""Stage 2 trains heads on the features of a cache and writes runs. It is loaded on use, as torch comes with it."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hfc.train.stage import train as train
    from hfc.train.stage import train_all as train_all

_NAMES = {"train", "train_all"}


def __getattr__(name: str) -> object:
    if name in _NAMES:
        return getattr(import_module("hfc.train.stage"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
