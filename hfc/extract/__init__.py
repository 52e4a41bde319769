"""Stage 1: images are cropped, encoded and stored in a cache. The only importer of timm; loaded on use."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hfc.extract.stage import ExtractSummary as ExtractSummary
    from hfc.extract.stage import Progress as Progress
    from hfc.extract.stage import extract as extract

_NAMES = {"ExtractSummary", "Progress", "extract"}


def __getattr__(name: str) -> object:
    if name in _NAMES:
        return getattr(import_module("hfc.extract.stage"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
