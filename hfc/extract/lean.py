"""timm, imported without torch's compiler.

timm and torchvision name two functions of the compiler when they are imported, and with them comes all of it: a second,
a third of what a prediction takes to start. Here those names stand for it until they are called.
"""

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from types import FunctionType, ModuleType
from typing import Any

COMPILER = "torch._dynamo"


class _StandIn(ModuleType):
    """A module of the compiler, until more than two functions is asked of it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(_loaded(self.__name__), name)


def _loaded(name: str) -> Any:
    """The module itself, in its place from now on."""
    _leave()
    return import_module(name)


def _leave() -> None:
    for name, module in list(sys.modules.items()):
        if isinstance(module, _StandIn):
            del sys.modules[name]


def _disable(function: Any = None, *arguments: Any, **options: Any) -> Any:
    """Keep a function from being compiled, as `torch.compiler.disable` does, once there is a compiler."""
    if not isinstance(function, FunctionType):
        return _loaded(COMPILER).disable(function, *arguments, **options)

    @functools.wraps(function)
    def run(*inputs: Any, **named: Any) -> Any:
        if COMPILER not in sys.modules:  # nothing is compiled yet
            return function(*inputs, **named)
        return import_module(COMPILER).disable(function, *arguments, **options)(*inputs, **named)

    vars(run)["_torchdynamo_disable"] = True  # the compiler's own mark
    return run


def _is_compile_supported(device_type: Any) -> Any:
    return _loaded(f"{COMPILER}.utils").is_compile_supported(device_type)


STAND_FOR: dict[str, dict[str, Callable[..., Any]]] = {
    COMPILER: {"disable": _disable},
    f"{COMPILER}.utils": {"is_compile_supported": _is_compile_supported},
}


@contextlib.contextmanager
def without_compiler() -> Iterator[None]:
    """Keep imports inside the block from loading the compiler; it stays where it is loaded already."""
    if COMPILER not in sys.modules:
        for name, functions in STAND_FOR.items():
            module = _StandIn(name)
            vars(module).update(functions)
            sys.modules[name] = module
    try:
        yield
    finally:
        _leave()


with without_compiler():
    import timm
    from timm.layers import GELU, BatchNormAct2d, Conv2dSame, GELUTanh, QuickGELU
    from timm.models.efficientnet import SqueezeExcite

__all__ = ["GELU", "BatchNormAct2d", "Conv2dSame", "GELUTanh", "QuickGELU", "SqueezeExcite", "timm"]
