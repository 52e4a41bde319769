"""The walls: which module may import which."""

import ast
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Imports go up this list, never down, and no two units of a row import each other.
ROWS = (
    ("errors", "names", "progress"),
    ("config",),
    ("provenance", "device", "parallel", "csvfile", "checkpoints", "outputs"),
    ("hierarchy", "regions", "weights", "network"),
    ("labels",),
    ("datasets", "crops", "encoder", "store", "engines"),
    ("losses", "weightings", "metrics", "jobs", "sample"),
    ("heads", "runs", "plan", "features"),
    ("extract",),
    ("decoding", "tasks", "settings"),
    ("answers",),
    ("fit",),
    ("stacked",),
    ("train", "report", "card", "trained", "doctor"),
    ("sweep", "estimator", "predict"),
    ("ablation", "export"),
)
HEIGHT = {name: height for height, row in enumerate(ROWS) for name in row}
SOURCES = sorted((ROOT / "hfc").rglob("*.py")) + sorted((ROOT / "cli").rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Dotted names of everything a file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def unit(dotted: str) -> str | None:
    """hfc.heads.flat -> heads."""
    parts = dotted.split(".")
    return parts[1] if parts[0] == "hfc" and len(parts) > 1 and parts[1] in HEIGHT else None


def test_every_module_has_a_place() -> None:
    units = {p.relative_to(ROOT / "hfc").parts[0].removesuffix(".py") for p in (ROOT / "hfc").rglob("*.py")}
    assert units - {"__init__"} == set(HEIGHT)


@pytest.mark.parametrize("path", [p for p in SOURCES if p.is_relative_to(ROOT / "hfc")], ids=str)
def test_imports_go_up(path: Path) -> None:
    mine = path.relative_to(ROOT / "hfc").parts[0].removesuffix(".py")
    if mine == "__init__":
        # What a type checker sees; at run time it is loaded on use.
        assert {name for name in imports(path) if name.startswith("hfc")} == {"hfc.predict", "hfc.predict.Classifier"}
        return
    for name in imports(path):
        other = unit(name)
        if other and other != mine:
            assert HEIGHT[other] < HEIGHT[mine], f"{mine} imports {other}"


@pytest.mark.parametrize(
    ("package", "homes"),
    [
        ("h5py", {"hfc/store/"}),
        ("timm", {"hfc/encoder.py", "hfc/network.py", "hfc/weights.py"}),
        ("click", {"cli/"}),
        ("PIL", {"hfc/crops.py", "hfc/sample/", "hfc/report/gallery.py"}),
        ("onnx", {"hfc/export/onnx.py"}),
        ("onnxruntime", {"hfc/export/onnx.py"}),
    ],
)
def test_a_package_is_imported_in_its_home_only(package: str, homes: set[str]) -> None:
    users = {p.relative_to(ROOT).as_posix() for p in SOURCES if package in {n.split(".")[0] for n in imports(p)}}
    assert users
    assert all(any(user.startswith(home) for home in homes) for user in users), users


def test_matplotlib_is_for_the_notebooks_alone() -> None:
    assert [path for path in SOURCES if "matplotlib" in {name.split(".")[0] for name in imports(path)}] == []
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = {name for name, needs in setup["options.extras_require"].items() if "matplotlib" in needs}
    assert "matplotlib" not in setup["options"]["install_requires"]
    assert extras == {"notebooks", "dev"}  # with `dev`, a slow test executes them


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def test_the_command_line_starts_without_what_is_slow_to_load() -> None:
    assert not loaded_by("import cli.main") & {"torch", "timm", "h5py", "numpy", "matplotlib", "sklearn"}


def test_the_report_needs_no_torch_and_no_plotting_library() -> None:
    assert not loaded_by("import hfc.report") & {"torch", "matplotlib"}


def test_the_reports_texts_and_pictures_stand_on_each_other_in_one_order() -> None:
    """Numbers know nothing of tables and pictures, and these nothing of pages."""
    order = (
        *(
            ("rows", "svg", "cells"),
            ("statistics", "plots"),
            ("tables", "figures", "training", "trees", "gallery"),
            ("checks",),
        ),
        *(("contents", "latex"), ("page", "texts"), ("compare",), ("__init__",)),
    )
    height = {name: i for i, row in enumerate(order) for name in row}
    for path in (ROOT / "hfc" / "report").glob("*.py"):
        for name in {found.split(".")[2] for found in imports(path) if found.startswith("hfc.report.")}:
            assert height.get(name, -1) < height[path.stem], f"{path.stem} imports {name}"


def test_importing_the_package_loads_nothing_of_it() -> None:
    loaded = loaded_by("import hfc")
    assert not loaded & {"torch", "numpy", "hfc.predict"}
    assert loaded_by("from hfc import Classifier") >= {"torch", "hfc.predict"}


def test_training_needs_no_images_and_no_backbone() -> None:
    used = "from cli.train import train; import hfc.train, hfc.estimator"
    assert not loaded_by(used) & {"hfc.crops", "hfc.encoder", "hfc.weights", "hfc.datasets", "timm"}


def test_modules_stay_readable() -> None:
    lengths = {p.relative_to(ROOT).as_posix(): len(p.read_text("utf-8").splitlines()) for p in SOURCES}
    assert {name: n for name, n in lengths.items() if n > 450} == {}


def test_help_answers_in_a_third_of_a_second_of_cpu_time() -> None:
    code = (
        "import resource, subprocess, sys\n"
        "subprocess.run([sys.executable, '-m', 'cli', '--help'], check=True, capture_output=True)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(used.ru_utime + used.ru_stime)"
    )
    times = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout)
        for _ in range(3)
    ]
    assert min(times) < 0.3
