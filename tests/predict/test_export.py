"""A run given away: graphs and folders that answer as the run did, or are not written."""

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from huggingface_hub import ModelCard
from numpy.typing import NDArray
from PIL import Image

from hfc import Classifier
from hfc.datasets import manifest
from hfc.errors import ConfigError, HfcError, RunError
from hfc.predict.export import Exported, export_hf, export_onnx
from hfc.predict.export import onnx as graphs
from hfc.predict.head import load_trained
from hfc.runs import Run
from hfc.store import FeatureStore, read_predictions
from tests.support.trained import LEAVES, TOP_DOWN, rewrite_result, train_on, train_run


@pytest.fixture(scope="module")
def graph_of(trained: tuple[Run, Path]) -> Callable[[dict[str, object]], tuple[Run, Exported]]:
    """A run of some settings and the graph of its head, exported once."""

    @functools.cache
    def made(settings: str) -> tuple[Run, Exported]:
        run = train_on(trained[1], json.loads(settings))
        return run, export_onnx(run.folder, trained[1].parent / run.folder.name / "new" / "head.onnx")

    return lambda settings: made(json.dumps(settings))


def answers_of(file: Path, inputs: NDArray[np.generic]) -> list[NDArray[np.float32]]:
    """What a graph gives for its one input."""
    session = onnxruntime.InferenceSession(file)
    found: list[NDArray[np.float32]] = session.run(None, {session.get_inputs()[0].name: inputs})
    return found


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
    found = answers_of(written.file, features)
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
            final.append(answers_of(tmp_path / "whole.onnx", square[None])[0][0])
    assert len(names) >= 4
    theirs = wanted.final[[wanted.id.tolist().index(name) for name in names]]
    np.testing.assert_allclose(final, theirs, atol=1e-3)  # the cache's features were rounded to float16


def test_a_graph_says_what_it_takes_and_names_its_nodes(
    graph_of: Callable[[dict[str, object]], tuple[Run, Exported]],
) -> None:
    run, written = graph_of(TOP_DOWN)
    found = metadata_of(written.file)
    assert json.loads(found["hfc.levels"]) == ["the group", "leaf"]
    assert json.loads(found["hfc.nodes"]) == [["tops, of all > kinds", "<script>"], list(LEAVES)]
    assert json.loads(found["hfc.ancestors"]) == [[0, 0], [0, 1], [0, 2], [1, 3], [1, 4]]
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


def test_what_cannot_be_exported_says_why(
    trained: tuple[Run, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = trained[0].folder
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    cases: list[tuple[Callable[[], object], type[HfcError], str]] = [
        (lambda: export_onnx(tmp_path / "no", tmp_path / "x.onnx"), RunError, "no: no such run"),
        (lambda: export_onnx(folder, tmp_path / "file" / "x.onnx"), RunError, "cannot be written"),
        (lambda: export_hf(folder, tmp_path / "full"), RunError, "full: exists and was not written by hfc export"),
        (lambda: export_hf(folder, tmp_path / "file"), RunError, "file: exists and was not written by hfc export"),
        (
            lambda: export_hf(folder, tmp_path / "x", with_backbone=True, weights=str(tmp_path / "no.pth")),
            RunError,
            "where with --weights PATH",
        ),
    ]
    for call, error, message in cases:
        with pytest.raises(error, match=message):
            call()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(ConfigError, match="--onnx needs onnxscript: python -m pip install onnxscript"):
        export_onnx(folder, tmp_path / "x.onnx")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "full", "thesis.txt"]


@pytest.mark.parametrize("with_backbone", [False, True])
def test_a_hugging_face_folder_is_read_back(
    with_backbone: bool, trained: tuple[Run, Path], place: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(trained[0].folder, tmp_path / "run"))
    export_hf(moved, tmp_path / "hf", with_backbone=with_backbone)
    export_hf(moved, tmp_path / "hf", with_backbone=with_backbone)  # an earlier one is replaced
    shutil.rmtree(moved)
    files = ["README.md", *(["backbone.safetensors"] if with_backbone else []), "config.json", "hierarchy.csv"]
    assert sorted(file.name for file in (tmp_path / "hf").iterdir()) == [*files, "model.safetensors"]
    weights = {} if with_backbone else {"weights": str(place / "backbone.pth")}
    regions = manifest.read(place / "m.csv")
    mine = list(Classifier.load(tmp_path / "hf", **weights).stream(regions))
    assert mine == list(Classifier.load(trained[0].folder).stream(regions))

    text = (tmp_path / "hf" / "config.json").read_text()
    assert str(place) not in text + (tmp_path / "hf" / "README.md").read_text()
    config = json.loads(text)
    assert list(config["id2label"].values()) == list(config["label2id"]) == list(LEAVES)
    if not with_backbone:
        with pytest.raises(RunError, match=r"weights backbone.pth: no such file; .*--weights PATH"):
            Classifier.load(tmp_path / "hf")
    (tmp_path / "hf" / "config.json").write_text("{}")
    with pytest.raises(RunError, match=r"config.json: not what hfc export writes: KeyError\('run'\)"):
        Classifier.load(tmp_path / "hf")


def test_what_an_older_version_did_not_record_is_not_made_up(run: Path, tmp_path: Path) -> None:
    rewrite_result(run, lambda result: result["cache"].pop("labels"))
    export_hf(run, tmp_path / "hf")
    exported = json.loads((tmp_path / "hf" / "config.json").read_text())["run"]
    recorded = json.loads((run / "result.json").read_text())
    for part, name in (("cache", "path"), ("cache", "weights"), ("config", "hierarchy")):
        assert exported[part].pop(name) == Path(recorded[part].pop(name)).name
    assert exported == recorded
    assert load_trained(tmp_path / "hf").run.result.key == recorded["key"]


def test_a_card_says_what_the_run_records(place: Path, tmp_path: Path) -> None:
    run, _ = train_run(place, {"weights": "random"}, {"method": "flat", "dropout": 0.1})
    card = export_hf(run.folder, tmp_path / "hf")
    head = ModelCard.load(card)  # the hub's own reader
    assert head.data.library_name == "hfc"
    assert head.data.pipeline_tag == "image-classification"
    (measured,) = [found for found in head.data.eval_results if found.metric_type == "accuracy"]
    assert measured.metric_value == round(run.result.test["top1"], 4)
    assert measured.dataset_name == "CSV manifest m.csv"
    text = card.read_text()
    for line in (
        "**RANDOM WEIGHTS: the backbone was never trained, so the answers mean nothing. For benchmarks only.**",
        r'| tops, of all \> kinds | Tank "Top" |',
        r"| \<script\> | =1+1 |",
        r"| tops, of all \> kinds | Mantel länger |",
        f"| top-1 accuracy | {100 * run.result.test['top1']:.2f} % |",
        f"| accuracy of level the group | {100 * run.result.test['level_accuracy/the group']:.2f} % |",
        "On 10 test images, used once, after the epoch was picked on 10 others; one run, seed 0.",
        "| left out | 1 without features |",
        f"| digest of its weights | {run.result.cache.weights_digest} |",
        r"| settings other than the method's, decode and β | reduced 16, dropout 0.1, epochs 2, ",
    ):
        assert line in text, line
    assert "<script>" not in text
