"""Notebooks are executed and kept with their outputs.

`python -m tests.support.notebooks` executes all that lie in notebooks/ and writes their outputs into them, and the
picture of README out of one of them. Each starts in an empty folder, and finds the photographs that lie beside the
checkout. `python -m tests.support.notebooks NOTEBOOK PLACE DONE` executes one in a folder and writes it elsewhere.
"""

import base64
import io
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

from tests.support.readme import ROOT

NOTEBOOKS = tuple(sorted((ROOT / "notebooks").glob("*.ipynb")))
# The last picture of this notebook is README's first.
ANSWERS, PICTURE = ROOT / "notebooks" / "own_photographs.ipynb", ROOT / "notebooks" / "answer.jpg"


def execute(path: Path, place: Path) -> nbformat.NotebookNode:
    """A notebook with its outputs, and without what differs between two machines: times, paths and Python's version.

    Args:
        path: the notebook.
        place: the folder that it runs in.
    """
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"  # tqdm's, with the path of its file
    resources = {"metadata": {"path": str(place)}}
    NotebookClient(notebook, timeout=900, resources=resources, record_timing=False, coalesce_streams=True).execute()
    notebook.metadata["language_info"] = {"name": "python"}
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        shrink(output.get("data", {}))
    return notebook


def shrink(data: dict[str, Any]) -> None:
    """Keep a picture as JPEG where that is smaller: photographs are, drawings of lines are not."""
    if "image/png" in data:
        jpeg = io.BytesIO()
        Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGB").save(jpeg, "JPEG", quality=88)
        encoded = base64.b64encode(jpeg.getvalue()).decode()
        if len(encoded) < len(data["image/png"]):
            del data["image/png"]
            data["image/jpeg"] = encoded


def last_picture(path: Path) -> bytes:
    """The last photograph in a notebook, as JPEG."""
    outputs = [output for cell in nbformat.read(path, as_version=4)["cells"] for output in cell.get("outputs", [])]
    return base64.b64decode([o["data"]["image/jpeg"] for o in outputs if "image/jpeg" in o.get("data", {})][-1])


def main() -> None:
    """Execute one notebook, or all in place."""
    if words := [Path(word) for word in sys.argv[1:]]:
        path, place, done = words
        nbformat.write(execute(path, place), done)
        return
    for path in NOTEBOOKS:
        with tempfile.TemporaryDirectory() as root:
            place = Path(root, "checkout", "notebooks")
            place.mkdir(parents=True)
            Path(root, "shared").symlink_to(ROOT.parent / "shared")
            nbformat.write(execute(path, place), path)
    PICTURE.write_bytes(last_picture(ANSWERS))


if __name__ == "__main__":
    main()
