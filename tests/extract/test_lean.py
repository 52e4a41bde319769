"""timm comes without the compiler, and the compiler is whole when it is asked for."""

import subprocess
import sys
from pathlib import Path

import pytest

from hfc.extract import lean

COMPILER = """
loaded = []
marked = []
other = 3

def disable(function=None, recursive=True, *, reason=None):
    marked.append((function and function.__name__, recursive, reason))
    return function or (lambda function: function)
"""


@pytest.fixture
def name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A small package in the compiler's place."""
    (tmp_path / "made_up_compiler").mkdir()
    (tmp_path / "made_up_compiler" / "__init__.py").write_text(COMPILER)
    utils = "def is_compile_supported(kind):\n    return kind == 'cpu'\n"
    (tmp_path / "made_up_compiler" / "utils.py").write_text(utils)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(lean, "COMPILER", "made_up_compiler")
    functions = lean.STAND_FOR.values()
    names = ("made_up_compiler", "made_up_compiler.utils")
    monkeypatch.setattr(lean, "STAND_FOR", dict(zip(names, functions, strict=True)))
    for module in names:
        monkeypatch.delitem(sys.modules, module, raising=False)
    return "made_up_compiler"


def real(name: str) -> bool:
    return name in sys.modules and not isinstance(sys.modules[name], lean._StandIn)


def test_what_is_named_inside_loads_the_compiler_only_when_it_is_called(name: str) -> None:
    with lean.without_compiler():
        import made_up_compiler
        from made_up_compiler.utils import is_compile_supported

        @made_up_compiler.disable
        def double(number: int) -> int:
            return 2 * number

        assert not real(name)
    assert name not in sys.modules
    assert (double(4), double.__name__) == (8, "double")
    assert name not in sys.modules
    assert is_compile_supported("cpu")
    assert not is_compile_supported("cuda")
    assert real(name)
    assert double(5) == 10  # now by way of the compiler
    assert sys.modules[name].marked == [("double", True, None)]


def test_whatever_else_is_asked_for_is_the_compilers_own(name: str) -> None:
    with lean.without_compiler():
        import made_up_compiler

        assert not hasattr(made_up_compiler, "__path__")
        assert made_up_compiler.other == 3
        assert real(name)
        assert made_up_compiler.disable(reason="a test")(len) is len
    assert real(name)
    assert sys.modules[name].marked == [(None, True, "a test")]


def test_a_compiler_that_is_there_stays(name: str) -> None:
    import made_up_compiler

    with lean.without_compiler():
        assert sys.modules[name] is made_up_compiler
    assert sys.modules[name] is made_up_compiler


@pytest.mark.slow
def test_torchs_compiler_is_whole_after_timm() -> None:
    code = """
import sys
from hfc.extract.lean import timm
assert not {"torch._dynamo", "sympy"} & set(sys.modules)
import torch, torchvision
from timm.models.naflexvit import NaFlexRopeIterator
assert torchvision.ops.roi_align(torch.ones(1, 1, 4, 4), torch.zeros(1, 5), 2).shape == (1, 1, 2, 2)
model = timm.create_model("test_vit", num_classes=0).eval()
pixels = torch.ones(1, 3, 160, 160)
torch.testing.assert_close(torch.compile(model, backend="eager")(pixels), model(pixels))
assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
"""
    subprocess.run([sys.executable, "-c", code], check=True)
