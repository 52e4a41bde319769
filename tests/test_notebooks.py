"""The notebooks run from the first cell to the last on drawn pictures, define nothing, and are kept with outputs."""

import ast
import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.readme import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PICTURES = {"image/png", "image/jpeg"}
# What the path of a file on the machine that executed a notebook would hold.
PLACES = ("/home/", "/tmp/", "/usr/", "/opt/", "/root/", "site-packages", str(ROOT.parent))


def cells(path: Path, kind: str = "code") -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["cell_type"] == kind]


def shows_something(source: str) -> bool:
    """Whether a cell prints, draws or ends with a value."""
    tree = ast.parse(source)
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return bool(calls & {"print", "plt.show"}) or isinstance(tree.body[-1], ast.Expr)


def words(output: dict[str, Any]) -> str:
    """The text of an output."""
    parts = [output.get("text", ""), *(value for kind, value in output.get("data", {}).items() if kind not in PICTURES)]
    return "".join("".join(part) for part in parts)


def test_there_are_the_three_and_the_page_about_them_names_them() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["look_at_a_cache", "own_photographs", "the_paper_in_ten_minutes"]
    page = (ROOT / "notebooks" / "README.md").read_text("utf-8")
    assert all(f"]({path.name})" in page for path in NOTEBOOKS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_defines_nothing(path: Path) -> None:
    for cell in cells(path):
        defined = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        assert not [node for node in ast.walk(ast.parse("".join(cell["source"]))) if isinstance(node, defined)]
    assert "".join(cells(path, "markdown")[0]["source"]).startswith("# ")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_calls_a_stage_by_one_function(path: Path) -> None:
    trees = [ast.parse("".join(cell["source"])) for cell in cells(path)]
    imports = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names = {f"{node.module}.{alias.name}" for node in imports for alias in node.names}
    parts = {name for name in names if name.startswith(("hfc.extract", "hfc.train", "hfc.report", "hfc.config"))}
    assert parts <= {"hfc.extract.extract", "hfc.train.train", "hfc.report.report"}
    assert "hfc.extract.extract" in parts


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_with_the_outputs_of_all_its_cells(path: Path) -> None:
    assert [cell["execution_count"] for cell in cells(path)] == list(range(1, len(cells(path)) + 1))
    for cell in cells(path):
        assert bool(cell["outputs"]) == shows_something("".join(cell["source"])), "".join(cell["source"])
    outputs = [output for cell in cells(path) for output in cell["outputs"]]
    assert [output for output in outputs if PICTURES & set(output.get("data", {}))]
    assert path.stat().st_size < 500_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_hold_no_warnings_and_say_nothing_of_the_machine(path: Path) -> None:
    for output in (output for cell in cells(path) for output in cell["outputs"]):
        assert output["output_type"] != "error"
        assert output.get("name") != "stderr", words(output)
        assert not [place for place in PLACES if place in words(output)], words(output)


def test_the_first_picture_of_readme_is_the_last_of_its_notebook() -> None:
    outputs = [output for cell in cells(ROOT / "notebooks" / "own_photographs.ipynb") for output in cell["outputs"]]
    pictures = [output["data"]["image/jpeg"] for output in outputs if "image/jpeg" in output.get("data", {})]
    assert (ROOT / "notebooks" / "answer.jpg").read_bytes() == base64.b64decode(pictures[-1])


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path) -> None:
    place = tmp_path / "notebooks"  # from here it finds no photographs, and writes into tmp_path/cache
    place.mkdir()
    # In a process of its own: pytest's warnings as errors are not for the notebook's machinery.
    command = [sys.executable, "-m", "tests.support.notebooks", str(path), str(place), str(tmp_path / "done.ipynb")]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr[-4000:]
    outputs = [output for cell in cells(tmp_path / "done.ipynb") for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert [output for output in outputs if PICTURES & set(output.get("data", {}))]
