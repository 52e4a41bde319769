"""What `import hfc` tells a stranger: what it names exists, and the names it offers do what they say."""

import re
from importlib import import_module
from pathlib import Path

import pytest

import hfc
from cli.main import main

ROOT = Path(hfc.__file__).parent.parent
TEXT = hfc.__doc__ or ""


def test_the_docstring_can_be_taken_in_at_a_glance() -> None:
    assert len([line for line in TEXT.splitlines() if line.strip()]) <= 15


def test_the_docstring_names_commands_modules_and_files_that_exist() -> None:
    commands = re.findall(r"^    hfc (\w+)", TEXT, re.M)
    assert commands == ["extract", "train", "report", "predict"]
    assert set(commands) <= set(main.commands)
    modules = set(re.findall(r"\bhfc\.[a-z]+\b", TEXT))
    assert modules == {"hfc.extract", "hfc.store", "hfc.train", "hfc.runs", "hfc.report", "hfc.predict"}
    assert [import_module(name).__name__ for name in sorted(modules)] == sorted(modules)
    paths = re.findall(r"\bhfc/[\w/]*\w(?:\.py)?", TEXT)
    assert paths == ["hfc/train/heads", "hfc/train/losses.py", "hfc/config.py", "hfc/datasets"]
    assert all((ROOT / path).exists() for path in paths)


def test_the_docstring_names_the_tables_to_add_a_line_to() -> None:
    from hfc.train.heads import HEADS
    from hfc.train.losses import LEVEL_LOSSES

    assert {"flat", "hmcn-f"} <= set(HEADS)
    assert {"bce", "softmax"} <= set(LEVEL_LOSSES)
    assert {"HEADS", "LEVEL_LOSSES"} <= set(re.findall(r"\b[A-Z_]{5,}\b", TEXT))


@pytest.mark.parametrize("statement", re.findall(r"from hfc\S* import \w+", TEXT))
def test_the_imports_of_the_docstring_work(statement: str) -> None:
    names: dict[str, object] = {}
    exec(statement, names)
    (name,) = re.findall(r"\w+$", statement)
    assert callable(names[name])


def test_the_docstring_shows_every_name_of_the_package() -> None:
    assert set(hfc._HOMES) == set(re.findall(r"from hfc import (\w+)", TEXT))
