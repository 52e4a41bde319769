"""The walls: which module may import which."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from functools import cache
from graphlib import TopologicalSorter
from importlib import import_module
from itertools import accumulate
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GROUND = {"errors", "config", "progress", "provenance", "device", "parallel"}
SHARED = {"regions", "crops", "hierarchy", "metrics", "runs"}  # what several stages speak of
PARTS = {"datasets", "sample", "store", "extract", "train", "predict", "report", "doctor"}
# What each unit of hfc may import beside itself. The ground imports nothing above it; a stage never imports another,
# but for predict; nothing imports doctor, and nothing of hfc the command line.
MAY_IMPORT = {
    **dict.fromkeys(GROUND, GROUND),
    **dict.fromkeys(SHARED, GROUND | SHARED | {"store"}),  # a run's predictions are stored
    "store": GROUND | SHARED,
    "datasets": GROUND | SHARED,
    "sample": GROUND | SHARED | {"datasets"},
    "extract": GROUND | SHARED | {"datasets", "sample", "store"},
    "train": GROUND | SHARED | {"store"},  # not the sample either, which takes data sets with it
    "report": GROUND | SHARED | {"datasets", "sample", "store"},
    "predict": GROUND | SHARED | {"datasets", "sample", "store", "extract", "train"},
    "doctor": GROUND | SHARED | PARTS,
}
# Their `__init__` shows type checkers what it gives and loads it on use; every other import is one at run time.
LAZY = ("hfc", "hfc.extract", "hfc.train", "hfc.predict")
FACES = {
    "hfc": {"Classifier": "hfc.predict.classifier", "HierarchicalClassifier": "hfc.train.estimator"},
    "hfc.extract": {"extract": "hfc.extract.stage", "ExtractSummary": "hfc.extract.summary"},
    "hfc.train": {"train": "hfc.train.axes", "train_all": "hfc.train.stage"},
    "hfc.predict": {"Classifier": "hfc.predict.classifier", "FeatureClassifier": "hfc.predict.features"},
}
MODULE_LINES, FUNCTION_LINES = 300, 45
UNTYPED = re.compile(r"(dict|Mapping)\[str, Any\]")
# What may take or give a dictionary of anything: none crosses a package, but as JSON on its way to or from the disk.
MAY_BE_UNTYPED = {
    "hfc.extract.backbone.create_network": "arguments for timm, within extract",
    "hfc.extract.weights.load_weights": "arguments for timm, within extract",
    "hfc.store.records.Record.plain": "JSON of a record",
    "hfc.store.records.nested": "JSON of a result's metrics",
    "hfc.train.checkpoint.Checkpoint.load": "a file of tensors, within train",
    "hfc.train.checkpoint.Checkpoint.save": "a file of tensors, within train",
    "hfc.train.heads.base.Module.load_state_dict": "as PyTorch declares it",
    "hfc.train.heads.base.Module.state_dict": "as PyTorch declares it",
    "hfc.train.training.Training.restore": "a file of tensors, within train",
    "hfc.train.training.Training.state": "a file of tensors, within train",
}
SOURCES = sorted((ROOT / "hfc").rglob("*.py")) + sorted((ROOT / "cli").rglob("*.py"))


def dotted(path: Path) -> str:
    """The file hfc/train/heads/__init__.py -> hfc.train.heads."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {dotted(path): path for path in SOURCES}
HOMES = {f"{package}.{name}": home for package, names in FACES.items() for name, home in names.items()}


@cache
def imports(path: Path) -> set[str]:
    """Dotted names of everything a file imports, wherever in the file; `from a import b` is a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported_modules(path: Path) -> set[str]:
    """The modules of hfc and cli that a file imports, or names of, wherever a package gives them."""
    names = [list(accumulate(HOMES.get(name, name).split("."), "{}.{}".format)) for name in imports(path)]
    return {max(known, key=len) for parts in names if (known := [part for part in parts if part in MODULES])}


def unit(module: str) -> str:
    """hfc.train.heads.flat -> train; of hfc itself, and outside it, the first name."""
    parts = module.split(".")
    return parts[1] if parts[0] == "hfc" and len(parts) > 1 else parts[0]


def test_every_module_has_a_test_file_of_its_own() -> None:
    modules = [path.relative_to(ROOT / "hfc") for path in (ROOT / "hfc").rglob("*.py") if path.name != "__init__.py"]
    assert [path for path in modules if not (ROOT / "tests" / path.parent / f"test_{path.name}").is_file()] == []


def test_every_module_has_a_place() -> None:
    units = {unit(module) for module in MODULES} - {"hfc", "cli"}
    assert units == set(MAY_IMPORT) == GROUND | SHARED | PARTS


@pytest.mark.parametrize("module", [name for name in MODULES if unit(name) not in {"hfc", "cli"}])
def test_a_module_imports_what_its_part_may(module: str) -> None:
    mine = unit(module)
    units = {unit(name) for name in imported_modules(MODULES[module])}
    assert units - {mine, "hfc"} <= MAY_IMPORT[mine] - {"doctor"}


def test_modules_import_each_other_in_no_circle() -> None:
    graph = {name: imported_modules(path) - {name} for name, path in MODULES.items() if name not in LAZY}
    TopologicalSorter(graph).prepare()


# Imports the packages that its first word names, then takes from them what they give.
TAKE = """
import json, sys
from importlib import import_module
faces = json.loads(sys.argv[1])
packages = {package: import_module(package) for package in faces}
loaded = list(sys.modules)
homes = {package: {name: getattr(packages[package], name).__module__ for name in faces[package]} for package in faces}
print(json.dumps([loaded, homes, list(sys.modules)]))
"""


@cache
def given() -> tuple[set[str], dict[str, dict[str, str]], set[str]]:
    """What the lazy packages load together, where each of what they give comes from, and what that loads."""
    words = [sys.executable, "-c", TAKE, json.dumps({package: list(FACES[package]) for package in LAZY})]
    before, homes, after = json.loads(subprocess.run(words, capture_output=True, check=True, cwd=ROOT).stdout)
    return set(before), homes, set(after)


def test_importing_the_stages_loads_nothing_of_them() -> None:
    before, _, after = given()
    assert {name for name in before if name.split(".")[0] == "hfc"} == set(LAZY)
    assert not before & {"torch", "numpy"}
    assert after >= {"torch", "timm", "h5py"}


@pytest.mark.parametrize("package", LAZY)
def test_what_a_stage_gives_is_loaded_on_use(package: str) -> None:
    assert given()[1][package] == FACES[package]
    for name, home in FACES[package].items():
        assert home not in given()[0]
        assert f"{home}.{name}" in imports(MODULES[package])  # so that type checkers see it


@pytest.mark.parametrize("package", LAZY)
def test_what_a_stage_does_not_give_is_no_attribute_of_it(package: str) -> None:
    with pytest.raises(AttributeError, match=rf"^module '{package}' has no attribute 'absent'$"):
        _ = import_module(package).absent


@pytest.mark.parametrize(
    ("package", "homes"),
    [
        ("h5py", {"hfc/store/"}),
        ("timm", {"hfc/extract/lean.py"}),
        ("click", {"cli/"}),
        ("PIL", {"hfc/crops.py", "hfc/sample/", "hfc/report/gallery.py"}),
        ("pillow_heif", {"hfc/crops.py"}),
        ("onnx", {"hfc/predict/export/onnx.py"}),
        ("onnxruntime", {"hfc/predict/export/onnx.py"}),
        ("pyarrow", {"hfc/datasets/parquet_file.py"}),
        ("aiohttp", {"hfc/datasets/web.py"}),
        ("yarl", {"hfc/datasets/web.py"}),
        ("fsspec", {"hfc/datasets/remote.py"}),
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
    slow = {"torch", "timm", "h5py", "numpy", "matplotlib", "sklearn", "pyarrow", "aiohttp", "fsspec"}
    assert not loaded_by("import cli.main") & slow


def test_the_classifier_can_be_named_without_what_is_slow_to_load() -> None:
    """Its names, help and annotations are there; torch comes with the first run that is loaded."""
    used = (
        "from hfc import Classifier; import hfc, pydoc, sys, typing; pydoc.render_doc(Classifier)\n"
        "assert {'Classifier', 'HierarchicalClassifier'} <= set(dir(hfc))\n"
        "assert typing.get_type_hints(Classifier.__call__)['return'] and typing.get_type_hints(Classifier.load)"
    )
    slow = {"torch", "timm", "torchvision", "scipy", "sklearn", "h5py", "pyarrow", "aiohttp", "fsspec", "hfc.train"}
    assert not loaded_by(used) & slow


def test_reading_images_loads_no_extra() -> None:
    """They are for Parquet files and for the network alone."""
    extras = {"pyarrow", "aiohttp", "fsspec", "pillow_heif"}
    assert not loaded_by("import hfc.datasets, hfc.datasets.images") & extras


def test_the_report_needs_no_torch_and_no_plotting_library() -> None:
    assert not loaded_by("import hfc.report") & {"torch", "matplotlib"}


def test_the_reports_texts_and_pictures_stand_on_each_other_in_one_order() -> None:
    """Numbers know nothing of tables and pictures, and these nothing of pages."""
    order = (
        *(
            ("seeds",),
            ("outer",),
            ("rows", "svg", "cells", "words"),
            ("statistics", "plots", "folded", "promises"),
            ("looks",),
            ("resampled", "tables", "figures", "training", "trees", "gallery", "header"),
            ("caches", "categories", "confused", "nested"),
            ("checks",),
            ("twins", "doubts", "document"),
        ),
        *(
            ("contents", "latex", "examples", "curve"),
            ("page", "texts"),
            ("twin_page", "review_page", "compare"),
            ("__init__",),
        ),
    )
    height = {name: i for i, row in enumerate(order) for name in row}
    for path in (ROOT / "hfc" / "report").glob("*.py"):
        for name in {found.split(".")[2] for found in imports(path) if found.startswith("hfc.report.")}:
            assert height.get(name, -1) < height[path.stem], f"{path.stem} imports {name}"


def test_training_needs_no_images_and_no_backbone() -> None:
    used = "from cli.train import train; import hfc.train.stage, hfc.train.estimator"
    assert not loaded_by(used) & {"hfc.crops", "hfc.extract", "hfc.datasets", "hfc.sample", "timm"}


def test_the_folder_of_the_package_can_be_taken_in_at_a_glance() -> None:
    inside = list((ROOT / "hfc").iterdir())
    assert len([path for path in inside if path.suffix == ".py" and path.name != "__init__.py"]) <= 11
    assert len([path for path in inside if (path / "__init__.py").is_file()]) <= 8


def readable_sources() -> dict[str, str]:
    """The text of every file that the limits hold for; drawings are long lists of numbers."""
    texts = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in SOURCES}
    return {name: text for name, text in texts.items() if not name.startswith("hfc/sample/")}


def test_modules_stay_readable() -> None:
    lengths = {name: len(text.splitlines()) for name, text in readable_sources().items()}
    assert {name for name, length in lengths.items() if length > MODULE_LINES} == set()


def test_functions_stay_readable() -> None:
    functions = {
        f"{name}:{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for name, text in readable_sources().items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef)
    }
    assert {name for name, length in functions.items() if length > FUNCTION_LINES} == set()


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


def untyped(path: Path) -> Iterator[str]:
    """Public functions, methods and fields of a module that take or give a dictionary of anything."""
    tree = ast.parse(path.read_text("utf-8"))
    owners = [(tree, ""), *((node, f"{node.name}.") for node in tree.body if isinstance(node, ast.ClassDef))]
    for owner, prefix in owners:
        for node in owner.body:
            if isinstance(node, ast.FunctionDef):
                name, arguments = node.name, node.args
                every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
                kinds = [node.returns, *(argument.annotation for argument in every)]
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                name, kinds = node.target.id, [node.annotation]
            else:
                continue
            private = name.startswith("_") or prefix.startswith("_")
            if not private and any(kind and UNTYPED.search(ast.unparse(kind)) for kind in kinds):
                yield f"{dotted(path)}.{prefix}{name}"


def test_what_is_handed_over_is_typed() -> None:
    assert {name for path in SOURCES for name in untyped(path)} <= set(MAY_BE_UNTYPED)
