"""What changes the key of a run, and what does not."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hfc import provenance
from hfc.config import TrainConfig, resolve
from hfc.runs import Run
from hfc.store import read_predictions
from hfc.train import prepared
from hfc.train.cache import Cache, load_cache
from hfc.train.data import TrainingData
from hfc.train.prepared import prepare_run, run_key
from hfc.train.stage import train
from tests.support.training import quick
from tests.test_architecture import ROOT, imports

PACKAGE = ROOT / "hfc"
# What training imports though it shapes no number, and why.
SHAPELESS = {
    "errors.py": "messages",
    "progress.py": "bars",
    "parallel.py": "processes",
    "config.py": "the settings that a run uses are in its key, whatever their defaults",
    "provenance.py": "digests, versions, and writing files",
    "device.py": "the kind of device and the precision are in the key",
    "hierarchy/__init__.py": "names",
    "hierarchy/layouts.py": "the tree is in the key by its digest",
    "hierarchy/reading.py": "the tree is in the key by its digest",
    "regions.py": "ids, labels and splits are in the key; reads files",
    "train/__init__.py": "names",
    "train/axes.py": "which runs there are",
    "train/cache.py": "what it reads is in the key by digests",
    "train/jobs.py": "the number of threads stands in the result, as always",
    "train/labels.py": "as they are joined",
    "train/memory.py": "where the features lie",
    "train/notices.py": "warnings",
    "runs.py": "reads folders",
    "train/folder.py": "writes them",
    "store/records.py": "what is read and written",
    "store/__init__.py": "features are in the key by the digest that reading checks",
    "store/cache.py": "as above",
    "store/files.py": "as above",
    "store/header.py": "as above",
    "store/table.py": "as above",
    "store/locks.py": "of whoever writes",
    "store/predictions.py": "written and read back",
    "store/assembly.py": "of extraction",
    "store/copying.py": "of extraction",
    "store/fingerprints.py": "of extraction",
    "store/sources.py": "of extraction",
    "store/shards.py": "of extraction",
    "store/survey.py": "of `hfc inspect`",
    "__init__.py": "the version",
}
QUICK = {"method": "flat", "epochs": 4, "batch_size": 32, "reduced": 16}


def settled(place: Path, cache: Cache, **changes: object) -> tuple[TrainingData, TrainConfig]:
    run = prepare_run(cache, resolve(TrainConfig, {"hierarchy": str(place / "tree.csv"), **QUICK, **changes}))
    return run.data, run.config


def file_of(module: str) -> Path | None:
    """The source of a dotted name within the package; of hfc.train.settling.settle that of hfc.train.settling."""
    path = ROOT.joinpath(*module.split("."))
    found = [path.with_suffix(".py"), path / "__init__.py"]
    return next((file for file in found if file.is_file()), None)


def closure(start: Path) -> Iterator[str]:
    """The files of the package that one of them imports, directly or not, and that one itself."""
    seen, waiting = {start}, [start]
    while waiting:
        file = waiting.pop()
        for name in imports(file) if file != PACKAGE / "__init__.py" else ():  # that loads `predict` on use alone
            parts = name.split(".")
            files = {file_of(".".join(parts[:n])) for n in range(1, len(parts) + 1)} if parts[0] == "hfc" else set()
            fresh = {file for file in files if file} - seen
            seen |= fresh
            waiting += fresh
    return (file.relative_to(PACKAGE).as_posix() for file in seen)


def test_every_module_that_training_imports_is_in_the_key_or_shapes_nothing() -> None:
    used = set(closure(PACKAGE / "train" / "stage.py"))
    shaping = {
        file.relative_to(PACKAGE).as_posix()
        for name in prepared.RUN_SOURCES
        for file in ((PACKAGE / name).rglob("*.py") if (PACKAGE / name).is_dir() else [PACKAGE / name])
    }
    assert shaping & set(SHAPELESS) == set()
    assert shaping | set(SHAPELESS) == used


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the package, whose sources the keys of runs are made of meanwhile."""
    copy = tmp_path / "hfc"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "PACKAGE", copy)
    forget()
    yield copy
    monkeypatch.undo()
    forget()


def forget() -> None:
    prepared.run_code_digest.cache_clear()
    provenance.code_digest.cache_clear()


@pytest.mark.parametrize(
    ("file", "shapes"),
    [
        *((f"train/{name}.py", True) for name in ("fit", "stacked", "stage", "data", "features", "losses", "settings")),
        *((f"train/{name}.py", True) for name in ("weightings", "decoding", "evaluation", "training", "checkpoint")),
        *((f"train/{name}.py", True) for name in ("prepared", "settling", "groups", "result", "draws")),
        *((f"{name}.py", True) for name in ("hierarchy/tree", "hierarchy/lookup", "metrics")),
        *((f"train/heads/{name}.py", True) for name in ("flat", "layers", "hmcnf")),
        *((f"extract/{name}.py", False) for name in ("stage", "worker", "encoder", "engines/ray")),
        *(
            (f"train/{name}.py", False)
            for name in ("sweep", "plan", "ablation", "estimator", "targets", "cache", "labels")
        ),
        *((f"predict/{name}.py", False) for name in ("classifier", "head", "export/card", "export/onnx")),
        *((f"{name}.py", False) for name in ("config", "doctor", "errors", "parallel", "crops", "store/assembly")),
        *((f"{name}.py", False) for name in ("report/latex", "report/tables", "sample/shapes", "datasets/manifest")),
    ],
)
def test_a_comment_changes_the_key_where_the_file_shapes_a_run(
    file: str, shapes: bool, place: Path, cache: Cache, package: Path
) -> None:
    before, code = run_key(cache, *settled(place, cache)), provenance.code_digest()
    with (package / file).open("a", encoding="utf-8") as stream:
        stream.write("# a comment\n")
    forget()
    assert (run_key(cache, *settled(place, cache)) != before) == shapes
    assert provenance.code_digest() != code  # what a run records of its code names every change


def test_a_new_head_changes_the_key(place: Path, cache: Cache, package: Path) -> None:
    before = run_key(cache, *settled(place, cache))
    (package / "train" / "heads" / "another.py").write_text("")
    forget()
    assert run_key(cache, *settled(place, cache)) != before


def test_what_becomes_of_inner_labels_is_in_the_key(place: Path, cache: Cache) -> None:
    keys = [run_key(cache, *settled(place, cache, inner_labels=value)) for value in ("use", "leave-out")]
    assert keys[0] != keys[1]
    assert keys[0] == run_key(cache, *settled(place, cache))


def test_the_kind_of_device_is_in_the_key(place: Path, cache: Cache) -> None:
    data, config = settled(place, cache)
    keys = {
        name: run_key(replace(cache, features=SimpleNamespace(device=torch.device(name))), data, config)  # type: ignore[arg-type]
        for name in ("cpu", "cuda:0", "cuda:1")
    }
    assert keys["cpu"] == run_key(cache, data, config)
    assert keys["cuda:0"] == keys["cuda:1"] != keys["cpu"]


def test_streaming_is_another_run(place: Path, cache: Cache) -> None:
    streamed = load_cache(place / "cache.h5", device="cpu", stream=True)
    assert run_key(streamed, *settled(place, streamed)) != run_key(cache, *settled(place, cache))


def test_a_run_of_another_kind_of_device_is_not_taken_up(place: Path, cache: Cache, tmp_path: Path) -> None:
    config = resolve(TrainConfig, {"hierarchy": str(place / "tree.csv"), **QUICK})
    first, _ = train(cache, config, tmp_path)
    run = prepare_run(cache, config)
    assert first.result.key == run.key
    on_gpu = replace(cache, features=SimpleNamespace(device=torch.device("cuda")))  # type: ignore[arg-type]
    assert not list(tmp_path.glob(f"*{run_key(on_gpu, run.data, run.config)[:8]}"))


UNEVEN = (
    "leaf,group,kind",
    "Tee,tops,upper",
    "Tank,tops,upper",
    "Coat,,",
    "Jeans,,lower",
    "Chinos,,lower",
    "Shorts,,lower",
)


@pytest.mark.parametrize("method", ["flat", "levels+path", "hmcn-f"])
@pytest.mark.parametrize("even", [True, False])
def test_the_order_of_the_trees_rows_changes_no_bit(
    even: bool, method: str, place: Path, cache: Cache, tmp_path: Path
) -> None:
    header, *rows = (place / "tree.csv").read_text().splitlines() if even else UNEVEN
    finished = []
    for order in ([0, 1, 2, 3, 4, 5], [4, 2, 5, 1, 3, 0]):
        file = tmp_path / str(order[0]) / "tree.csv"
        file.parent.mkdir()
        file.write_text("\n".join([header, *(rows[i] for i in order)]))
        finished.append(train(cache, quick(file.parent, method=method), file.parent)[0])
    one, other = finished
    assert one.result.key == other.result.key
    assert one.result.hierarchy == other.result.hierarchy
    assert [epoch.loss for epoch in one.epochs] == [epoch.loss for epoch in other.epochs]
    for name in ("hierarchy.csv", "head.safetensors"):
        assert (one.folder / name).read_bytes() == (other.folder / name).read_bytes()
    assert one.result.test == other.result.test
    assert (final_of(one) == final_of(other)).all()


LAYOUTS = {
    "edges.csv": "node,parent\nTee,tops\nTank,tops\ntops,upper\nupper,\nCoat,\nlower,\nJeans,lower\nChinos,lower\n"
    "Shorts,lower",
    "paths.txt": "Coat\nlower > Shorts\nlower > Chinos\nlower > Jeans\nupper > tops > Tee\nupper > tops > Tank",
}


def test_every_layout_of_a_tree_trains_the_same_head(cache: Cache, tmp_path: Path) -> None:
    runs = []
    for name, text in {"tree.csv": "\n".join(UNEVEN), **LAYOUTS}.items():
        (tmp_path / name).write_text(text)
        config = replace(quick(tmp_path, method="levels+path"), hierarchy=str(tmp_path / name))
        runs.append(train(cache, config, tmp_path / f"of {name}")[0])
    assert len({run.result.hierarchy.digest for run in runs}) == 2  # their levels have other names
    for run in runs[1:]:
        assert (final_of(run) == final_of(runs[0])).all()
        assert run.result.test["hF"] == runs[0].result.test["hF"]


def test_flat_gives_the_same_bits_whatever_stands_above_the_leaves(place: Path, cache: Cache, tmp_path: Path) -> None:
    trees = {
        "other groups": "leaf,group\nShorts,z\nChinos,a\nTee,z\nTank,a\nJeans,z\nCoat,a\n",
        "one level": "leaf\nTank\nTee\nShorts\nCoat\nJeans\nChinos\n",
    }
    expected = final_of(train(cache, quick(place, method="flat"), tmp_path)[0])
    for name, text in trees.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "tree.csv").write_text(text)
        run, _ = train(cache, quick(tmp_path / name, method="flat"), tmp_path / name)
        assert (final_of(run) == expected).all()


def final_of(run: Run) -> NDArray[np.float32]:
    return read_predictions(run.folder / "predictions.h5").final
