"""Who makes which shard, and nothing else. An engine knows callables only. To add one: a module here, a line below."""

import os
from collections.abc import Callable, Mapping

from hfc.extract.engines.base import Engine
from hfc.extract.engines.local import Local
from hfc.extract.engines.ray import Ray
from hfc.extract.engines.torchrun import Torchrun

ENGINES: Mapping[str, Callable[[], Engine]] = {"local": Local, "torchrun": Torchrun, "ray": Ray}


def open_engine(name: str) -> Engine:
    """Open an engine by its name. `auto` is torchrun in a process that torchrun started, else local."""
    if name == "auto":
        name = "torchrun" if "TORCHELASTIC_RUN_ID" in os.environ else "local"
    return ENGINES[name]()
