"""Stage 1: images are cropped, encoded and stored in a cache. The only importer of timm; loaded on use."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hfc.extract.stage import extract as extract
    from hfc.extract.summary import ExtractSummary as ExtractSummary
    from hfc.extract.summary import Progress as Progress

_HOMES = {"extract": "hfc.extract.stage", "ExtractSummary": "hfc.extract.summary", "Progress": "hfc.extract.summary"}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
