"""Names that name a thing: not one that only says that something is there."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_architecture import ROOT, SOURCES

EMPTY = {"found", "each", "said", "told", "theirs", "ours", "mine", "these", "of", "at"}
CLAUSE_WORDS = 15  # at most, before the first full stop, colon or semicolon of a docstring


def identifiers(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of whatever a module names: variables, attributes, parameters, functions, classes, imports."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.lineno, name
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.arg(arg=name) | ast.keyword(arg=str(name)):
                yield node.lineno, name
            case ast.alias(asname=str(name)):
                yield node.lineno, name
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield node.lineno, name
            case ast.ExceptHandler(name=str(name)):
                yield node.lineno, name


def empty_names(path: Path) -> list[str]:
    """Where a file has a name that says nothing, as file:line name."""
    tree = ast.parse(path.read_text("utf-8"))
    named = sorted({(line, name) for line, name in identifiers(tree) if name.strip("_") in EMPTY})
    return [f"{path.relative_to(ROOT)}:{line} {name}" for line, name in named]


@pytest.mark.parametrize(
    "code",
    [
        "found = 1",
        "a, *found = b",
        "for found in a: pass",
        "(found := 1)",
        "a.found = 1",
        "found: int",
        "def found(): pass",
        "def f(found): pass",
        "def f(*, found=1): pass",
        "f(found=1)",
        "lambda found: 1",
        "[1 for found in a]",
        "class found: pass",
        "import a as found",
        "with a as found: pass",
        "try: pass\nexcept A as found: pass",
        "match a:\n    case [found, 1]: pass",
        "_found = 1",
    ],
)
def test_a_name_is_seen_wherever_it_is_given(code: str) -> None:
    assert any(name.strip("_") == "found" for _, name in identifiers(ast.parse(code)))


def test_every_name_says_what_the_thing_is() -> None:
    assert [line for path in SOURCES for line in empty_names(path)] == []


def long_beginnings(path: Path) -> list[str]:
    """Where a docstring begins with a sentence of too many words, as file:line sentence."""
    tree = ast.parse(path.read_text("utf-8"))
    nodes = [n for n in ast.walk(tree) if isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef)]
    documented = [(node.body[0].lineno, text) for node in nodes if (text := ast.get_docstring(node))]
    first = [(line, re.split(r"[.;:]\s|\n\n", text)[0]) for line, text in documented]
    long = [(line, sentence) for line, sentence in first if len(sentence.split()) > CLAUSE_WORDS]
    return [f"{path.relative_to(ROOT)}:{line} {sentence}" for line, sentence in sorted(long)]


def test_a_docstring_begins_with_a_short_sentence() -> None:
    assert [line for path in SOURCES for line in long_beginnings(path)] == []
