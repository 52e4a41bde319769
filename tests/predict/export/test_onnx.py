"""A run as a graph, which gives what the run gave or is not written."""

import functools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from hfc.datasets import manifest
from hfc.errors import ConfigError, HfcError, RunError
from hfc.predict.export import Exported, export_onnx
from hfc.predict.export import onnx as graphs
from hfc.runs import Run
from hfc.store import FeatureStore, read_predictions
from tests.support.trained import LEAVES, TOP_DOWN, train_on, train_run


@pytest.fixture(scope="module")
def graph_of(trained: tuple[Run, Path]) -> Callable[[dict[str, object]], tuple[Run, Exported]]:
    """A run of some settings and the graph of its head, exported once."""

    @functools.cache
    def made(settings: str) -> tuple[Run, Exported]:
        run = train_on(trained[1], json.loads(settings))
        return run, export_onnx(run.folder, trained[1].parent / run.folder.name / "new" / "head.onnx")

    return lambda settings: made(json.dumps(settings))


def outputs_of(file: Path, inputs: NDArray[np.generic]) -> list[NDArray[np.float32]]:
    """What a graph gives for its one input."""
    session = onnxruntime.InferenceSession(file)
    outputs: list[NDArray[np.float32]] = session.run(None, {session.get_inputs()[0].name: inputs})
    return outputs


def metadata_of(file: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(file).metadata_props}


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "flat"},
        {"method": "hmcn-f+mtl"},
        {"method": "hmcn-f-original", "decode": "consistent"},
        TOP_DOWN,
        {"method": "conditional", "decode": "least-cost"},
        {"method": "flat+ps"},
        {"method": "levels+path", "transform": "l2", "members": 2},
    ],
    ids=str,
)
def test_the_graph_of_a_head_gives_the_runs_predictions(
    settings: dict[str, object],
    trained: tuple[Run, Path],
    graph_of: Callable[[dict[str, object]], tuple[Run, Exported]],
) -> None:
    run, written = graph_of(settings)
    assert written.difference < 1e-5
    wanted = read_predictions(run.folder / "predictions.h5")
    with FeatureStore(trained[1]) as store:
        ids = store.table().regions.id.tolist()
        features = store.features()[[ids.index(name) for name in wanted.id]].astype(np.float32)
    found = outputs_of(written.file, features)
    for mine, theirs in zip(found, (wanted.final, *wanted.levels), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)
    onnx.checker.check_model(onnx.load(written.file), full_check=True)


@pytest.mark.parametrize("views", ["all", pytest.param("first", marks=pytest.mark.slow)])
def test_the_graph_with_the_backbone_takes_crops(views: str, place: Path, tmp_path: Path) -> None:
    run, _ = train_run(place, {"views": "flip"}, {**TOP_DOWN, "views": views})
    export_onnx(run.folder, tmp_path / "whole.onnx", with_backbone=True)
    wanted = read_predictions(run.folder / "predictions.h5")
    regions = manifest.read(place / "m.csv")
    names, final = [], []
    for row, name in enumerate(regions.id.tolist()):
        if name in wanted.id and np.isnan(regions.box[row]).all():  # Pillow alone makes the crop
            with Image.open(place / str(regions.path[row])) as picture:
                square = np.asarray(picture.resize((32, 32), Image.Resampling.BICUBIC))
            names.append(name)
            final.append(outputs_of(tmp_path / "whole.onnx", square[None])[0][0])
    assert len(names) >= 4
    theirs = wanted.final[[wanted.id.tolist().index(name) for name in names]]
    np.testing.assert_allclose(final, theirs, atol=1e-3)  # the cache's features were rounded to float16


def test_a_graph_says_what_it_takes_and_names_its_nodes(
    graph_of: Callable[[dict[str, object]], tuple[Run, Exported]],
) -> None:
    run, written = graph_of(TOP_DOWN)
    found = metadata_of(written.file)
    assert json.loads(found["hfc.levels"]) == ["the group", "leaf"]
    assert json.loads(found["hfc.nodes"]) == [["<script>", "tops, of all > kinds"], sorted(LEAVES)]
    assert json.loads(found["hfc.ancestors"]) == [[0, 0], [0, 1], [1, 2], [1, 3], [1, 4]]
    assert (found["hfc.run"], found["hfc.key"]) == (run.result.run, run.result.key)
    assert json.loads(found["hfc.input"]) == {
        "kind": "features",
        "backbone": "test_efficientnet",
        "image_size": 32,
        "resize": "squash",
        "roi_margin": 0.0,
        "views": ["identity"],
    }
    assert found["hfc.random_weights"] == "false"
    session = onnxruntime.InferenceSession(written.file)
    assert [given.shape for given in session.get_inputs()] == [["rows", 1, 256]]
    assert [output.name for output in session.get_outputs()] == ["final", "level_1", "level_2"]


def test_a_graph_that_disagrees_is_not_left(
    trained: tuple[Run, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = graphs.Graph.forward

    def wrong(self: graphs.Graph, inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        final, *levels = right(self, inputs)
        return final, levels[0] + 0.01, *levels[1:]

    monkeypatch.setattr(graphs.Graph, "forward", wrong)
    (tmp_path / "head.onnx").write_text("an earlier one")
    with pytest.raises(
        RunError, match=r"differs from the run by 0.01 in a probability, more than 1e-05; the graph is not kept"
    ):
        export_onnx(trained[0].folder, tmp_path / "head.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["head.onnx"]
    assert (tmp_path / "head.onnx").read_text() == "an earlier one"


def test_what_cannot_be_a_graph_says_why(
    trained: tuple[Run, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = trained[0].folder
    (tmp_path / "file").touch()
    cases: list[tuple[Callable[[], object], type[HfcError], str]] = [
        (lambda: export_onnx(tmp_path / "no", tmp_path / "x.onnx"), RunError, "no: no such run"),
        (lambda: export_onnx(folder, tmp_path / "file" / "x.onnx"), RunError, "cannot be written"),
        (lambda: export_onnx(folder, tmp_path / "x.md"), ConfigError, "x.md: a graph cannot have the name of its card"),
    ]
    for call, error, message in cases:
        with pytest.raises(error, match=message):
            call()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(ConfigError, match="--onnx needs onnxscript: python -m pip install onnxscript"):
        export_onnx(folder, tmp_path / "x.onnx")
    assert [path.name for path in tmp_path.rglob("*")] == ["file"]
