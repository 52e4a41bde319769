"""A run as a graph, which gives what the run gave or is not written."""

import contextlib
import functools
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from hfc import Classifier
from hfc.datasets import manifest
from hfc.errors import ConfigError, HfcError, RunError
from hfc.predict.export import Exported, export_onnx
from hfc.predict.export import onnx as graphs
from hfc.runs import Run
from hfc.store import FeatureStore, read_predictions
from tests.support.readme import ROOT, blocks
from tests.support.trained import LEAVES, TOP_DOWN, train_on, train_run

PAGE = ROOT / "notebooks" / "service.md"


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
        {"method": "flat", "transform": "sqrt"},
        {"method": "hmcn-f+mtl"},
        {"method": "hmcn-f-original", "decode": "consistent", "transform": "sqrt"},
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


@pytest.fixture(scope="module")
def whole_of(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Run, Path]]:
    """A run with two views of each crop, and the graph of backbone and head, exported once."""

    @functools.cache
    def made(views: str) -> tuple[Run, Path]:
        run, _ = train_run(place, {"views": "flip", "resize": "pad"}, {**TOP_DOWN, "views": views})
        file = tmp_path_factory.mktemp("service") / "model" / "own.onnx"
        export_onnx(run.folder, file, with_backbone=True)
        return run, file

    return made


@pytest.mark.parametrize("views", ["all", pytest.param("first", marks=pytest.mark.slow)])
def test_the_graph_with_the_backbone_takes_crops(
    views: str, whole_of: Callable[[str], tuple[Run, Path]], place: Path
) -> None:
    run, file = whole_of(views)
    wanted = read_predictions(run.folder / "predictions.h5")
    regions = manifest.read(place / "m.csv")
    names, final = [], []
    for row, name in enumerate(regions.id.tolist()):
        if name in wanted.id and np.isnan(regions.box[row]).all():  # Pillow alone makes the crop
            with Image.open(place / str(regions.path[row])) as picture:
                assert picture.size == (60, 80)
                square = Image.new("RGB", (32, 32), (124, 116, 104))
                square.paste(picture.resize((24, 32), Image.Resampling.BICUBIC), (4, 0))
            names.append(name)
            final.append(outputs_of(file, np.asarray(square)[None])[0][0])
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
        "fill": [124, 116, 104],
    }
    assert found["hfc.random_weights"] == "false"
    session = onnxruntime.InferenceSession(written.file)
    assert [given.shape for given in session.get_inputs()] == [["rows", 1, 256]]
    assert [output.name for output in session.get_outputs()] == ["final", "level_1", "level_2"]


def wait_for(url: str, server: "subprocess.Popen[bytes]") -> dict[str, str]:
    """What a server says once it listens."""
    for _ in range(600):
        assert server.poll() is None, "the server has ended"
        with contextlib.suppress(urllib.error.URLError):
            return dict(json.load(urllib.request.urlopen(url)))
        time.sleep(0.1)
    raise AssertionError("the server does not listen")


@pytest.fixture
def service(whole_of: Callable[[str], tuple[Run, Path]]) -> Iterator[tuple[Run, str, dict[str, str]]]:
    """The service of its page without torch, timm and h5py: its run, its address, and what it says of itself."""
    if find_spec("uvicorn") is None and "CI" not in os.environ:  # CI must have it
        pytest.skip("fastapi and uvicorn are not installed")
    run, file = whole_of("all")
    (block,) = [block for block in blocks(PAGE.read_text("utf-8")) if block.file]
    (file.parents[1] / block.file).write_text(block.text, "utf-8")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code = (
        "import sys; sys.modules |= dict.fromkeys(('torch', 'timm', 'h5py')); import uvicorn; "
        f"uvicorn.run('service:app', port={port}, log_level='warning')"
    )
    paths = os.pathsep.join([str(file.parents[1]), str(ROOT)])
    server = subprocess.Popen([sys.executable, "-c", code], cwd=file.parents[1], env=os.environ | {"PYTHONPATH": paths})
    try:
        url = f"http://127.0.0.1:{port}"
        yield run, url, wait_for(url, server)
    finally:
        server.terminate()
        server.wait()


def test_the_service_of_its_page_answers_as_predict_does(service: tuple[Run, str, dict[str, str]], place: Path) -> None:
    run, url, about = service
    assert (about["run"], about["key"]) == (run.result.run, run.result.key)
    files = [place / "img" / f"{number:02d}.jpg" for number in (0, 1, 2, 3, 4, 5)]
    answers = Classifier.load(run.folder)(files)
    assert len({answer.path for answer in answers}) > 1
    for file, answer in zip(files, answers, strict=True):
        with urllib.request.urlopen(f"{url}/classify", file.read_bytes()) as reply:
            said = json.load(reply)
        assert said["path"] == list(answer.path)
        assert said["probabilities"] == pytest.approx(answer.probabilities, abs=1e-3)
    with pytest.raises(urllib.error.HTTPError, match="422") as refused:
        urllib.request.urlopen(f"{url}/classify", b"no image")
    assert json.load(refused.value)["detail"].startswith("not an image in a known format: JPEG, PNG")
    refused.value.close()


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
