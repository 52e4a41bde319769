"""A tree whose leaves end on any level, from pictures to answers, graphs and folders."""

import csv
import io
import json
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from cli.main import main
from hfc import Classifier
from hfc.config import METHODS, ExtractConfig, TrainConfig, resolve
from hfc.datasets import manifest
from hfc.extract.stage import extract
from hfc.hierarchy import load_hierarchy
from hfc.predict.answers import Answer
from hfc.predict.export import export_hf, export_onnx
from hfc.predict.export.onnx import Graph
from hfc.predict.head import load_trained
from hfc.runs import Run
from hfc.store import Features, FeatureStore, Predictions, read_predictions
from hfc.train.cache import load_cache
from hfc.train.decoding import DECODINGS
from hfc.train.stage import train
from tests.support.deepfashion_tree import write_images
from tests.support.made_up import settled_on
from tests.support.trained import SPLITS, STAGE1, STAGE2, rewrite_result, write_weights

TREE = ["item,group,department", "Hat,,", "Other,men,", "Other,women,", "Tee,tops,women", "Tank,tops,women"]
PATHS = [("Hat",), ("men", "Other"), ("women", "Other"), ("women", "tops", "Tank"), ("women", "tops", "Tee")]
NAMES = ["Hat", "men > Other", "women > Other", "Tank", "Tee"]
INNER = {"train": 4, "test": 2}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten pictures a leaf and some that are only known as tops, with their features and their tree."""
    folder = tmp_path_factory.mktemp("uneven")
    rows = [(NAMES[i % 5], SPLITS[i // 5 % 5]) for i in range(50)]
    rows += [("tops", split) for split, count in INNER.items() for _ in range(count)]
    images = [f"img/{i:02d}.jpg" for i in range(len(rows))]
    write_images(folder, images)
    lines = [f"{image},{label},{split}" for image, (label, split) in zip(images, rows, strict=True)]
    (folder / "m.csv").write_text("\n".join(["path,label,split", *lines]))
    (folder / "tree.csv").write_text("\n".join(TREE))
    stage1 = {**STAGE1, "weights": str(write_weights(folder / "backbone.pth"))}
    extract(folder / "m.csv", folder / "cache.h5", resolve(ExtractConfig, stage1))
    return folder


@cache
def run_of(place: Path, method: str, decode: str = "") -> Run:
    """A run; it is trained once."""
    settings = {"method": method, "hierarchy": str(place / "tree.csv")} | ({"decode": decode} if decode else {})
    config = resolve(TrainConfig, settled_on(STAGE2, **settings))
    return train(load_cache(place / "cache.h5"), config, place / "runs")[0]


def rows_of(place: Path, run: Run) -> tuple[Features, Predictions]:
    """The features of the test rows, and what training wrote of them."""
    wanted = read_predictions(run.folder / "predictions.h5")
    assert isinstance(wanted, Predictions)
    with FeatureStore(place / "cache.h5") as store:
        ids = store.table().regions.id.tolist()
        return store.features()[[ids.index(name) for name in wanted.id]], wanted


def naive_answer(shares: dict[tuple[str, ...], float], confidence: float) -> tuple[tuple[str, ...], list[float]]:
    """Find the deepest node that is probable enough above the best leaf, and the probabilities down to it."""
    best = max(shares, key=shares.__getitem__)
    along = [sum(p for path, p in shares.items() if path[:h] == best[:h]) for h in range(1, len(best) + 1)]
    certain = [probability for probability in along if probability >= confidence]
    return best[: len(certain)], certain


@pytest.mark.parametrize("method", METHODS)
def test_every_method_answers_with_real_paths(method: str, place: Path) -> None:
    run = run_of(place, method)
    loaded, (features, wanted) = load_trained(run.folder), rows_of(place, run)
    assert [loaded.hierarchy.path(leaf) for leaf in range(5)] == PATHS
    assert [level.shape[1] for level in wanted.levels] == [3, 3, 2]
    for confidence in (0.0, 0.3, 0.6, 1.0):
        answers = list(loaded.answers(features, wanted.id.tolist(), 9, confidence))
        for answer, row in zip(answers, wanted.final.astype(np.float64), strict=True):
            shares = dict(zip(PATHS, (row / row.sum()).tolist(), strict=True))
            path, probabilities = naive_answer(shares, confidence)
            assert answer.path == path
            assert answer.probabilities == pytest.approx(probabilities, abs=1e-5)
            assert {leaf.path: leaf.probability for leaf in answer.top} == pytest.approx(shares, abs=1e-5)
            assert answer.climbed == (path not in PATHS)
    right = [
        answer.top[0].path == PATHS[leaf] for answer, leaf in zip(answers, wanted.target, strict=True) if leaf >= 0
    ]
    assert len(right) == 10
    assert run.result.test["top1"] == pytest.approx(np.mean(right))


@pytest.mark.parametrize("decode", DECODINGS)
@pytest.mark.parametrize("method", METHODS)
def test_the_module_of_a_graph_computes_what_training_did(method: str, decode: str, place: Path) -> None:
    """Every method and decoding; the graphs themselves are slow to make."""
    run = run_of(place, method, decode)
    features, wanted = rows_of(place, run)
    with torch.inference_mode():
        outputs = Graph(load_trained(run.folder), None).eval()(torch.from_numpy(features).float())
    for output, numbers in zip(outputs, (wanted.final, *wanted.levels), strict=True):
        np.testing.assert_allclose(output.numpy(), numbers, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "decode"),
    [
        ("levels", "consistent"),
        *(
            pytest.param(*both, marks=pytest.mark.slow)
            for both in (
                ("flat", "leaf"),
                ("hmcn-f+mtl", "path"),
                ("conditional", "least-cost"),
                ("hmcn-f-original", "consistent"),
            )
        ),
    ],
)
def test_the_graph_answers_as_the_classifier_does(method: str, decode: str, place: Path, tmp_path: Path) -> None:
    run = run_of(place, method, decode)
    written = export_onnx(run.folder, tmp_path / "head.onnx")
    features, wanted = rows_of(place, run)
    session = onnxruntime.InferenceSession(written.file)
    outputs = session.run(None, {"features": features.astype(np.float32)})
    assert [output.name for output in session.get_outputs()] == ["final", "level_1", "level_2", "level_3"]
    for output, numbers in zip(outputs, (wanted.final, *wanted.levels), strict=True):
        np.testing.assert_allclose(output, numbers, atol=1e-5)
    notes = {entry.key: entry.value for entry in onnx.load(written.file).metadata_props}
    levels, nodes, leaves, ancestors = (
        json.loads(notes[f"hfc.{name}"]) for name in ("levels", "nodes", "leaves", "ancestors")
    )
    assert levels == ["department", "group", "item"]
    assert nodes == [["Hat", "men", "women"], ["Other", "Other", "tops"], ["Tank", "Tee"]]
    assert leaves == NAMES
    assert ancestors == [[0, -1, -1], [1, 0, -1], [2, 1, -1], [2, 2, 0], [2, 2, 1]]
    answers = load_trained(run.folder).answers(features, wanted.id.tolist(), 1, 0.0)
    for answer, final in zip(answers, outputs[0], strict=True):  # as a program reads it that knows the graph alone
        path = [nodes[h][node] for h, node in enumerate(ancestors[int(final.argmax())]) if node >= 0]
        assert (list(answer.path), answer.climbed) == (path, False)
    use = written.card.read_text()
    kind = "scores that rank the leaves, no probabilities" if decode == "least-cost" else "P_final"
    assert f"- `final` (rows, 5): {kind} over the leaves." in use
    assert "- `level_3` (rows, 2): probabilities of level item." in use
    assert "`hfc.ancestors`, −1 below its own depth." in use


@pytest.fixture(scope="module")
def sure(place: Path) -> Path:
    """A run whose head gives every picture these probabilities, by its bias alone."""
    run = run_of(place, "flat")
    folder = run.folder.parent.parent / "sure"
    folder.mkdir()
    for file in run.folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tensors = load_file(folder / "head.safetensors")
    (bias,) = [name for name, tensor in tensors.items() if name.endswith("bias") and len(tensor) == 5]
    tensors[bias] = torch.tensor([0.4, 0.05, 0.15, 0.3, 0.1]).log()
    weight = bias.removesuffix("bias") + "weight"
    tensors[weight] = torch.zeros_like(tensors[weight])
    save_file(tensors, folder / "head.safetensors", metadata={"key": run.result.key})
    rewrite_result(folder, lambda result: result.pop("temperature"))
    return folder


def hfc(*words: object) -> str:
    result = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_text_names_a_leaf_once_and_the_path_of_every_other(sure: Path, place: Path) -> None:
    image = place / "img" / "01.jpg"
    rest = [
        "    women > tops > Tank 0.30",
        "    women > Other 0.15",
        "    women > tops > Tee 0.10",
        "    men > Other 0.05",
    ]
    assert hfc("predict", sure, image).splitlines() == [f"{image}: Hat 0.40", *rest]
    assert hfc("predict", sure, image, "--min-confidence", 0.39).splitlines() == [f"{image}: Hat 0.40", *rest]
    uncertain = [f"{image}: not certain of any node", "    Hat 0.40", *rest]
    assert hfc("predict", sure, image, "--min-confidence", 0.5).splitlines() == uncertain
    climbed = [
        f"{image}: women 1.00",
        "    women > tops > Tank 0.55",
        "    women > Other 0.27",
        "    women > tops > Tee 0.18",
    ]
    within = ("predict", sure, image, "--within")
    assert hfc(*within, "women", "--min-confidence", 0.8).splitlines() == climbed
    assert hfc(*within, "women", "--min-confidence", 0.7).splitlines() == [f"{image}: women > tops 0.73", *climbed[1:]]
    assert hfc(*within, "women").splitlines() == [f"{image}: women > tops > Tank 0.55", *climbed[2:]]


def test_below_a_leaf_is_that_leaf_alone(sure: Path, place: Path) -> None:
    image = place / "img" / "01.jpg"
    for node, path in (
        ("Hat", "Hat"),
        ("men > Other", "men > Other"),
        ("> men", "men > Other"),
        ("Tee", "women > tops > Tee"),
    ):
        for confidence in (0, 1):
            words = ("predict", sure, image, "--within", node, "--min-confidence", confidence)
            assert hfc(*words) == f"{image}: {path} 1.00\n"
    result = CliRunner().invoke(main, ["predict", str(sure), str(image), "--within", "Other"])
    assert (result.exit_code, result.stderr) == (
        1,
        "Error: within: hierarchy tree has 'Other' at several places; name one of them: > men > Other, > women > "
        "Other\n",
    )


def test_csv_has_blanks_below_a_leaf_and_tells_leaves_of_one_name_apart(sure: Path, place: Path) -> None:
    image = str(place / "img" / "01.jpg")
    words = ("predict", sure, image, "--format", "csv", "--top", 3)
    levels = ["department", "group", "item"]
    header = ["id", *levels, *(f"{level} probability" for level in levels)]
    header += [f"top{k}{more}" for k in (1, 2, 3) for more in ("", " probability")] + ["error"]
    best = ["Hat", "0.400000", "Tank", "0.300000", "women > Other", "0.150000", ""]
    assert list(csv.reader(io.StringIO(hfc(*words)))) == [header, [image, "Hat", "", "", "0.400000", "", "", *best]]
    rows = list(csv.reader(io.StringIO(hfc(*words, "--within", "men"))))
    assert rows[1] == [image, "men", "Other", "", "1.000000", "1.000000", "", "men > Other", "1.000000", "men", ""]


def test_json_holds_real_paths(sure: Path, place: Path) -> None:
    answer = json.loads(hfc("predict", sure, place / "img" / "01.jpg", "--json", "--top", 3))
    assert (answer["path"], answer["probabilities"]) == (["Hat"], [pytest.approx(0.4)])
    assert [leaf["path"] for leaf in answer["top"]] == [["Hat"], ["women", "tops", "Tank"], ["women", "Other"]]


def test_a_hugging_face_folder_answers_as_the_run_and_names_every_leaf(place: Path, tmp_path: Path) -> None:
    run = run_of(place, "levels+path")
    card = export_hf(run.folder, tmp_path / "hf").read_text()
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["id2label"] == {str(i): name for i, name in enumerate(NAMES)}
    assert config["label2id"] == {name: i for i, name in enumerate(NAMES)}
    tree = load_hierarchy(str(tmp_path / "hf" / "hierarchy.csv"))
    assert [tree.path(leaf) for leaf in range(5)] == PATHS
    regions = manifest.read(place / "m.csv", required=manifest.UNLABELLED)

    def answers(folder: Path) -> list[Answer]:
        return list(Classifier.load(folder, weights=str(place / "backbone.pth")).stream(regions))

    assert answers(tmp_path / "hf") == answers(run.folder)
    measured = run.result.test
    for line in (
        "a tree (3 of level department, 3 of level group, 2 of level item; 5 leaves, at depths 1 to 3)",
        "| Hat |  |  |\n| men | Other |  |\n| women | Other |  |\n| women | tops | Tank |\n| women | tops | Tee |\n",
        "It knows 5 leaves and answers with one of them",
        f"| accuracy of level item | {100 * measured['level_accuracy/item']:.2f} % |",
        "| images for training, validation, test | 34, 10, 12 |",
        "| of these, labelled with an inner node | 4, 0, 2 |",
        "On 12 test images, used once, after the epoch was picked on 10 others; one run, seed 0. Of 2 no leaf is "
        "known: they count on the levels of their labels alone.",
    ):
        assert line in card, line
