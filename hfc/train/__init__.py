"""Stage 2 trains heads on the features of a cache and writes runs. It is loaded on use, as torch comes with it."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hfc.train.axes import train as train
    from hfc.train.stage import train_all as train_all

_HOMES = {"train": "hfc.train.axes", "train_all": "hfc.train.stage"}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
