"""The notebooks run from the first cell to the last on drawn pictures, and define nothing."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.readme import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# In a process of its own: pytest's warnings as errors are not for the notebook's machinery.
EXECUTE = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
nbformat.validate(notebook)
NotebookClient(notebook, timeout=900, resources={"metadata": {"path": sys.argv[2]}}).execute()
nbformat.write(notebook, sys.argv[3])
"""


def cells(path: Path, kind: str = "code") -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["cell_type"] == kind]


def test_there_are_the_three_and_the_page_about_them_names_them() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["look_at_a_cache", "own_photographs", "the_paper_in_ten_minutes"]
    page = (ROOT / "notebooks" / "README.md").read_text("utf-8")
    assert all(f"]({path.name})" in page for path in NOTEBOOKS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_without_outputs_and_defines_nothing(path: Path) -> None:
    for cell in cells(path):
        assert (cell["outputs"], cell["execution_count"]) == ([], None)
        defined = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        assert not [node for node in ast.walk(ast.parse("".join(cell["source"]))) if isinstance(node, defined)]
    assert "".join(cells(path, "markdown")[0]["source"]).startswith("# ")


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path) -> None:
    place = tmp_path / "notebooks"  # from here it finds no photographs, and writes into tmp_path/cache
    place.mkdir()
    words = [sys.executable, "-c", EXECUTE, str(path), str(place), str(tmp_path / "done.ipynb")]
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr[-4000:]
    outputs = [output for cell in cells(tmp_path / "done.ipynb") for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert [output for output in outputs if "image/png" in output.get("data", {})]
