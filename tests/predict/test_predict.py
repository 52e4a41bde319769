"""From pixels to answers: equal to what extraction, training and evaluation gave for the same images."""

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hfc import Classifier
from hfc.config import METHODS
from hfc.datasets import manifest
from hfc.errors import ConfigError, DatasetError, HfcError, ImageError, RunError
from hfc.extract import worker
from hfc.predict.classifier import as_regions, find_images
from hfc.predict.head import Answer, load_trained
from hfc.runs import Run
from hfc.store import FeatureStore, read_predictions
from tests.support.trained import LEAVES, TOP_DOWN, train_on, train_run, write_pictures, write_weights

UNREADABLE = "row 7"


@pytest.fixture(autouse=True)
def _small_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "CPU_TURN", 8)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("predict")).parent


@pytest.fixture(scope="module")
def trained(place: Path) -> tuple[Run, Path]:
    return train_run(place, {}, TOP_DOWN)


@pytest.fixture
def run(trained: tuple[Run, Path], tmp_path: Path) -> Path:
    """A copy of the run, to be damaged."""
    return Path(shutil.copytree(trained[0].folder, tmp_path / "run"))


def rewrite(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a run's result.json."""
    result = json.loads((run / "result.json").read_text())
    change(result)
    (run / "result.json").write_text(json.dumps(result))


def normalised(final: np.ndarray) -> np.ndarray:
    return np.asarray(final / final.sum(axis=1, keepdims=True, dtype=np.float64))


# --- the oracle: a run's cache and its predictions.h5 -----------------------------------------------------------------

STAGES: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "as it comes": ({}, {"method": "hmcn-f+mtl"}),
    "two views, padded, margin": (
        {"views": "flip", "resize": "pad", "roi_margin": 0.1, "store": "float32"},
        TOP_DOWN,
    ),
    "two views of which the first": ({"views": "flip"}, {"method": "flat", "views": "first"}),
    "bfloat16, maximum, cut": (
        {"precision": "bf16", "pool": "max", "resize": "center-crop"},
        {"method": "conditional", "decode": "product"},
    ),
    "least cost": ({}, {"method": "flat+hxe", "decode": "least-cost"}),
}


@pytest.mark.parametrize("case", STAGES)
def test_features_and_answers_are_those_of_the_run(case: str, place: Path) -> None:
    run, cache = train_run(place, *STAGES[case])
    # What the hardware lacks is replaced with float32; here the recorded precision is what is asked for.
    classifier = Classifier.load(run.folder, precision=run.result["cache"]["key_fields"]["precision"])
    regions = manifest.read(place / "m.csv")
    with FeatureStore(cache) as store:
        stored, table = store.features(), store.table()
    made = np.zeros_like(stored)
    for batch, features in classifier.features(regions):
        made[batch.rows] = features
    np.testing.assert_array_equal(made, stored)
    answers = list(classifier.stream(regions))
    assert [answer.id for answer in answers] == regions.id.tolist()
    assert [answer.id for answer in answers if answer.error] == [UNREADABLE]
    assert not table.ok[7]

    wanted = read_predictions(run.folder / "predictions.h5")
    by_id = {answer.id: answer for answer in answers}
    mine = [by_id[name] for name in wanted.id]
    leaves = classifier.trained.hierarchy.leaves
    chances = np.array([[{leaf.path[-1]: leaf.probability for leaf in a.top}[n] for n in leaves] for a in mine])
    assert [answer.path[-1] for answer in mine] == [leaves[i] for i in wanted.final.argmax(axis=1)]
    assert [tuple(LEAVES.items())[list(LEAVES).index(a.path[-1])][1] for a in mine] == [a.path[0] for a in mine]
    top1 = np.mean([answer.path[-1] == leaves[i] for answer, i in zip(mine, wanted.target, strict=True)])
    assert top1 == pytest.approx(run.result["test"]["top1"])
    if case == "least cost":  # its scores rank, the probabilities are the head's own
        order = [[leaves.index(leaf.path[-1]) for leaf in answer.top] for answer in mine]
        np.testing.assert_array_equal(order, np.argsort(-wanted.final, axis=1, kind="stable"))
        np.testing.assert_allclose(chances, normalised(wanted.levels[-1]), atol=1e-6)
    else:
        np.testing.assert_allclose(chances, normalised(wanted.final), atol=1e-6)
        assert all(list(a.top) == sorted(a.top, key=lambda leaf: -leaf.probability) for a in mine)


@pytest.mark.parametrize("method", {preset["head"]: method for method, preset in METHODS.items()}.values())
def test_every_head_predicts_what_it_was_tested_with(method: str, trained: tuple[Run, Path]) -> None:
    run = train_on(trained[1], {"method": method, "seed": 3})
    cache = trained[1]
    loaded = load_trained(run.folder)
    wanted = read_predictions(run.folder / "predictions.h5")
    with FeatureStore(cache) as store:
        rows = [store.table().regions.id.tolist().index(name) for name in wanted.id]
        features = store.features()[rows]
    final = loaded.predict(features).final.numpy()
    if loaded.config.decode == "leaf":
        np.testing.assert_allclose(final, wanted.final, atol=1e-6)
    for answer, row in zip(loaded.answers(features, wanted.id.tolist(), 1, 0.0), wanted.final, strict=True):
        assert answer.probabilities[-1] == pytest.approx(row.max() / row.sum(dtype=np.float64), abs=1e-6)


# --- answers ----------------------------------------------------------------------------------------------------------


def answers_by_hand(final: np.ndarray, ancestors: np.ndarray, confidence: float) -> list[list[float]]:
    """In plain loops: the probabilities along the path to the best leaf, as far as they are at least the confidence."""
    found = []
    for row in final.tolist():
        total, best = sum(row), max(range(len(row)), key=row.__getitem__)
        path = []
        for h in range(ancestors.shape[1]):
            share = sum(p for leaf, p in enumerate(row) if ancestors[leaf, h] == ancestors[best, h]) / total
            if share >= confidence:
                path.append(share)
        found.append(path)
    return found


@pytest.mark.parametrize("confidence", [0.0, 0.25, 0.5, 1.0])
def test_an_answer_is_the_deepest_node_that_is_probable_enough(
    confidence: float, trained: tuple[Run, Path], place: Path
) -> None:
    classifier = Classifier.load(trained[0].folder, min_confidence=confidence, top=2)
    wanted = read_predictions(trained[0].folder / "predictions.h5")
    answers = {answer.id: answer for answer in classifier.stream(manifest.read(place / "m.csv"))}
    by_hand = answers_by_hand(wanted.final, classifier.trained.hierarchy.ancestors, confidence)
    for name, probabilities in zip(wanted.id, by_hand, strict=True):
        answer = answers[name]
        assert answer.probabilities == pytest.approx(probabilities, abs=1e-5)
        assert answer.path == answer.top[0].path[: len(probabilities)]
        assert len(answer.top) == 2
    depths = {len(path) for path in by_hand}
    assert depths == ({2} if confidence == 0 else {0} if confidence == 1 else depths)


def test_an_answer_as_text() -> None:
    assert str(Answer("a", ("full-body", "Dress"), (0.9, 0.834), ())) == "full-body > Dress 0.83"
    assert str(Answer("a", (), (), ())) == "not certain of any node"
    assert str(Answer("a", (), (), (), "the file is empty")) == "cannot be read: the file is empty"


def test_an_image_may_be_a_path_a_picture_or_an_array(trained: tuple[Run, Path], place: Path) -> None:
    classifier = Classifier.load(trained[0].folder)
    file = place / "img" / "02.jpg"
    with Image.open(file) as picture:
        pixels = np.asarray(picture.convert("RGB"))
        answer = classifier(file)
        assert classifier(str(file)) == answer
        for source in (picture, pixels):
            assert classifier(source).top == answer.top
    box = (3, 5, 40.5, 60)
    assert classifier(pixels, box=box).top == classifier(file, box=box).top != answer.top
    several = classifier([pixels, file, str(place / "img" / "03.jpg")])
    assert [one.top for one in several] == [one.top for one in classifier([file, file, place / "img" / "03.jpg"])]
    assert [one.id for one in several] == ["image 0", "image 1", "image 2"]
    assert classifier([]) == []
    assert isinstance(classifier([pixels]), list)
    many = classifier([pixels] * (classifier.encoder.batch_size + 1))
    assert len(many) == classifier.encoder.batch_size + 1
    assert {one.path for one in many} == {answer.path}
    for one in many:  # the head's sums may be rounded in another order where there are more rows
        assert one.probabilities == pytest.approx(answer.probabilities, abs=1e-6)


def test_a_picture_in_memory_is_turned_and_flattened_as_one_from_a_file(
    trained: tuple[Run, Path], place: Path, tmp_path: Path
) -> None:
    classifier = Classifier.load(trained[0].folder)
    with Image.open(place / "img" / "02.jpg") as picture:
        exif = Image.Exif()
        exif[0x0112] = 6
        picture.save(tmp_path / "turned.png", exif=exif)
        picture.convert("RGBA").resize((30, 30)).save(tmp_path / "clear.png")
        gray = np.asarray(picture.convert("L"), dtype=np.uint16) * 256
        Image.fromarray(gray).save(tmp_path / "gray16.png")
    for name in ("turned.png", "clear.png", "gray16.png"):
        with Image.open(tmp_path / name) as opened:
            assert classifier(opened).top == classifier(tmp_path / name).top


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda p: (p / "img" / "07.jpg",), ImageError, "07.jpg: the file is empty"),
        (lambda p: ([p / "img" / "01.jpg", p / "none.jpg"],), ImageError, "none.jpg: cannot read the file: No such"),
        (lambda p: ([np.zeros((4, 4, 3), np.uint8), p / "none.jpg"],), ImageError, "image 1: .*none.jpg: cannot read"),
        (
            lambda p: (np.zeros((4, 4, 3), np.float32),),
            ImageError,
            r"image 0: expected bytes .*found float32 \(4, 4, 3",
        ),
        (lambda p: (np.zeros((4, 4), np.uint8),), ImageError, r"expected bytes \(height, width, 3\)"),
        (lambda p: (np.zeros((0, 4, 3), np.uint8),), ImageError, r"found uint8 \(0, 4, 3\)"),
        (lambda p: (p / "img" / "01.jpg", (900, 0, 910, 5)), ImageError, "lies outside the image of 60 x 80"),
        (lambda p: (p / "img" / "01.jpg", (9, 0, 5, 5)), ImageError, "has no area"),
        (lambda p: (p / "img" / "01.jpg", (1, 2, 3)), ConfigError, "box: expected four corners"),
    ],
)
def test_what_cannot_be_classified_says_why(
    make: Callable[[Path], tuple[Any, ...]], error: type[HfcError], message: str, trained: tuple[Run, Path], place: Path
) -> None:
    with pytest.raises(error, match=message):
        Classifier.load(trained[0].folder)(*make(place))


# --- which images -----------------------------------------------------------------------------------------------------


def test_images_are_found_in_and_below_folders_in_order(tmp_path: Path) -> None:
    for name in ("b/2.JPG", "b/1.png", "b/c/3.webp", "b/.hidden.jpg", "b/.git/4.jpg", "b/notes.txt", "a.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_images([tmp_path / "none.jpg", tmp_path / "b", tmp_path / "a.jpg"])
    names = [Path(path).relative_to(tmp_path).as_posix() for path in found]
    assert names == ["none.jpg", "b/1.png", "b/2.JPG", "b/c/3.webp", "a.jpg"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"empty: expected images in or below this folder, found none$"):
        find_images([tmp_path / "empty"])
    (tmp_path / "empty" / "a.txt").touch()
    with pytest.raises(DatasetError, match=r"empty: expected images in or below this folder, found only 1 \.txt$"):
        find_images([tmp_path / "empty"])
    (tmp_path / "empty" / "result.json").touch()
    with pytest.raises(DatasetError, match="empty: expected images, found a second run; a pattern for RUN must match"):
        find_images([tmp_path / "empty"])
    assert np.isnan(as_regions(found).box).all()


def test_the_rules_of_folder_trees_hold_for_folders_to_classify(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mine = ("x/a.jfif", "x/y/b.JPE", "c.avif", "d.jp2", "e.heic")
    others = ("__MACOSX/a.jpg", "x/@eaDir/b.jpg", "x/._a.jpg", ".ipynb_checkpoints/c.jpg", "Thumbs.db")
    for name in (*mine, *others, "x/a.psd", "notes.txt", "more.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert find_images([tmp_path]) == sorted(str(tmp_path / name) for name in mine)
    assert caplog.messages == [f"{tmp_path}: left out files that are no images by their names: 2 .txt, 1 .psd"]


def test_a_manifest_for_prediction_needs_paths_alone(tmp_path: Path) -> None:
    file = tmp_path / "m.csv"
    file.write_text("path\na.jpg\nb.jpg\n")
    regions = manifest.read(file, required=manifest.UNLABELLED)
    assert (regions.id.tolist(), regions.label.tolist(), regions.split.tolist()) == (
        ["a.jpg", "b.jpg"],
        ["", ""],
        ["", ""],
    )
    with pytest.raises(DatasetError, match="expected the columns path,label,split and optionally"):
        manifest.read(file)
    file.write_text("id\na\n")
    with pytest.raises(DatasetError, match="expected the columns path and optionally"):
        manifest.read(file, required=manifest.UNLABELLED)


# --- what is refused --------------------------------------------------------------------------------------------------


def other_head(run: Path) -> None:
    from safetensors.numpy import load_file, save_file

    save_file(load_file(run / "head.safetensors"), run / "head.safetensors", metadata={"key": "f" * 64})


def cut_head(run: Path) -> None:
    (run / "head.safetensors").write_bytes((run / "head.safetensors").read_bytes()[:-8])


def other_tree(run: Path) -> None:
    (run / "hierarchy.csv").write_text((run / "hierarchy.csv").read_text().replace("Tee", "Tea"))


def other_pixels(run: Path) -> None:
    rewrite(run, lambda result: result["cache"]["key_fields"].update(pixels=0))


def other_mean(run: Path) -> None:
    rewrite(run, lambda result: result["cache"]["key_fields"].update(mean=[0.1, 0.2, 0.3]))


def moved(run: Path) -> None:
    rewrite(run, lambda result: result["cache"].update(weights="gone/backbone.pth"))


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "result gone": (lambda r: (r / "result.json").unlink(), "run: holds no finished runs"),
    "result damaged": (lambda r: (r / "result.json").write_text("{"), "run: damaged run: JSONDecodeError"),
    "head gone": (
        lambda r: (r / "head.safetensors").unlink(),
        "head.safetensors: cannot read the head: .*No such file",
    ),
    "head damaged": (cut_head, "head.safetensors: cannot read the head"),
    "head of another run": (
        other_head,
        r"head.safetensors: the head of another run: expected key \w{12}…, found f{12}…",
    ),
    "other tree": (other_tree, "hierarchy.csv: not the hierarchy the run was trained with"),
    "other settings": (
        lambda r: rewrite(r, lambda result: result["config"].update(reduced=17)),
        r"the head does not fit what the run records \(Error\(s\) in loading state_dict",
    ),
    "settings of another version": (
        lambda r: rewrite(r, lambda result: result["config"].update(depth=17)),
        r"does not fit what the run records \(unknown setting 'depth'",
    ),
    "no record": (
        lambda r: rewrite(r, lambda result: result["cache"]["key_fields"].pop("resize")),
        r"does not record how its features were made \('resize'\)",
    ),
    "other pixels": (other_pixels, r"prepared in another way \(pixels 0, here 1\)"),
    "other mean": (other_mean, r"prepared in another way \(mean \[0.1, 0.2, 0.3\], here"),
    "weights moved": (moved, "cannot be opened: weights gone/backbone.pth: no such file; .*where with --weights PATH"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_run_that_is_not_whole_is_refused(case: str, run: Path) -> None:
    damage, message = REFUSED[case]
    damage(run)
    with pytest.raises(RunError, match=message):
        Classifier.load(run)


def test_only_the_weights_of_the_run_will_do(run: Path, place: Path, tmp_path: Path) -> None:
    other = write_weights(tmp_path / "other.pth", seed=2)
    with pytest.raises(
        RunError, match=r"other.pth are not those the run was trained on: expected digest \w{12}…, found"
    ):
        Classifier.load(run, weights=str(other))
    answer = Classifier.load(run)(place / "img" / "01.jpg")
    moved(run)
    elsewhere = shutil.copy(place / "backbone.pth", tmp_path / "copy.pth")
    assert Classifier.load(run, weights=elsewhere)(place / "img" / "01.jpg") == answer


def test_a_folder_of_one_run_is_that_run_and_of_several_is_refused(run: Path, place: Path, tmp_path: Path) -> None:
    assert Classifier.load(tmp_path).trained.run.folder == run
    shutil.copytree(run, tmp_path / "second")
    with pytest.raises(RunError, match="holds 2 runs; name one of them: run, second"):
        Classifier.load(tmp_path)
    with pytest.raises(RunError, match="none: no such run"):
        Classifier.load(tmp_path / "none")


def test_random_weights_are_allowed_and_marked(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    run, _ = train_run(place, {"weights": "random"}, {"method": "flat"})
    with caplog.at_level(logging.WARNING):
        classifier = Classifier.load(run.folder)
    assert "RANDOM WEIGHTS" in caplog.text
    assert classifier.trained.random_weights
    assert classifier(place / "img" / "01.jpg").path


def test_settings_are_checked(trained: tuple[Run, Path], place: Path) -> None:
    with pytest.raises(ConfigError, match="unknown setting 'devce'; did you mean device"):
        Classifier.load(trained[0].folder, devce="cpu")
    with pytest.raises(ConfigError, match="min_confidence: expected 0 to 1, found 2"):
        Classifier.load(trained[0].folder, min_confidence=2)
    with pytest.raises(ConfigError, match="device cuda:77 cannot be used here"):
        Classifier.load(trained[0].folder, device="cuda:77")
    run, _ = train_run(place, {}, {"method": "flat", "decode": "least-cost"})
    with pytest.raises(ConfigError, match="min_confidence: the run answers by least cost"):
        Classifier.load(run.folder, min_confidence=0.5)


@pytest.mark.parametrize(
    ("recorded", "asked", "has", "computed", "warning"),
    [
        ("bf16", "recorded", True, "bf16", ""),
        ("bf16", "recorded", False, "fp32", "computed in bf16, these in fp32, as cpu has no bf16 in hardware"),
        ("fp16", "recorded", True, "fp32", "computed in fp16, these in fp32, as cpu has no fp16 in hardware"),
        ("bf16", "fp32", True, "fp32", "computed in bf16, these in fp32: they are"),
        ("fp32", "fp32", False, "fp32", ""),
    ],
)
def test_the_recorded_precision_is_used_or_its_lack_is_said(
    recorded: str,
    asked: str,
    has: bool,
    computed: str,
    warning: str,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    rewrite(run, lambda result: result["cache"]["key_fields"].update(precision=recorded))
    monkeypatch.setattr("hfc.device.has_bf16_cpu", lambda: has)
    with caplog.at_level(logging.WARNING):
        classifier = Classifier.load(run, precision=asked, device="cpu")
    assert classifier.encoder.precision == computed
    assert warning in caplog.text
    assert bool(caplog.text) == bool(warning)


def test_a_run_of_a_method_that_is_no_more_is_still_read(run: Path) -> None:
    settings = load_trained(run).config
    rewrite(run, lambda result: result["config"].update(method="gone"))
    assert load_trained(run).config == replace(settings, method=load_trained(run).config.method)


def test_loading_leaves_the_callers_random_numbers_alone(trained: tuple[Run, Path]) -> None:
    torch.manual_seed(7)
    wanted = torch.rand(1)
    torch.manual_seed(7)
    Classifier.load(trained[0].folder)
    assert torch.rand(1) == wanted


def test_hfc_offers_the_classifier_and_nothing_else() -> None:
    import hfc

    with pytest.raises(AttributeError, match="module 'hfc' has no attribute 'Clasifier'"):
        _ = hfc.Clasifier


@pytest.mark.parametrize(
    ("recorded", "asked", "compiled"),
    [(True, "recorded", True), (True, "no", False), (False, "recorded", False), (False, "yes", True)],
)
def test_the_backbone_is_compiled_as_recorded_or_asked(
    recorded: bool, asked: str, compiled: bool, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite(run, lambda result: result["cache"]["key_fields"].update(compile=recorded))
    calls: list[int] = []
    monkeypatch.setattr("hfc.extract.encoder._compile", lambda encoder, size: calls.append(size))
    Classifier.load(run, compile=asked)
    assert calls == [32] * compiled
