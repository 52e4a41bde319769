"""From pixels to answers: equal to what extraction, training and evaluation gave for the same images."""

import logging
import subprocess
import sys
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hfc import Classifier
from hfc.datasets import manifest
from hfc.errors import ConfigError, HfcError, ImageError, ImageTypeError
from hfc.runs import Run
from hfc.store import FeatureStore, read_predictions
from tests.support.temperatures import powers
from tests.support.trained import LEAVES, TOP_DOWN, train_run

UNREADABLE = "row 7"


def normalised(final: np.ndarray) -> np.ndarray:
    return np.asarray(final / final.sum(axis=1, keepdims=True, dtype=np.float64))


STAGES: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "as it comes": ({}, {"method": "hmcn-f+mtl"}),
    "two views, padded, margin": (
        {"views": "flip", "resize": "pad", "roi_margin": 0.1, "store": "float32"},
        TOP_DOWN,
    ),
    "two views of which the first": ({"views": "flip"}, {"method": "flat", "views": "first"}),
    "bfloat16, maximum, cut": (
        {"precision": "bf16", "pool": "max", "resize": "center-crop"},
        {"method": "conditional", "decode": "consistent"},
    ),
    "least cost": ({}, {"method": "flat+hxe", "decode": "least-cost"}),
}


@pytest.mark.parametrize("case", STAGES)
def test_features_and_answers_are_those_of_the_run(case: str, place: Path) -> None:
    run, cache = train_run(place, *STAGES[case])
    # What the hardware lacks is replaced with float32; here the recorded precision is what is asked for.
    classifier = Classifier.load(run.folder, precision=run.result.cache.key_fields["precision"])
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
    assert top1 == pytest.approx(run.result.test["top1"])
    if case == "least cost":  # its scores rank, the probabilities are the head's own
        order = [[leaves.index(leaf.path[-1]) for leaf in answer.top] for answer in mine]
        np.testing.assert_array_equal(order, np.argsort(-wanted.final, axis=1, kind="stable"))
        calibrated = powers(wanted.levels[-1], run.result.calibrated_by)
        np.testing.assert_allclose(chances, calibrated, atol=1e-6)
    else:
        np.testing.assert_allclose(chances, normalised(wanted.final), atol=1e-6)
        assert all(list(a.top) == sorted(a.top, key=lambda leaf: -leaf.probability) for a in mine)


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


def test_an_iterator_gives_answers_as_a_stream(trained: tuple[Run, Path], place: Path) -> None:
    classifier = Classifier.load(trained[0].folder)
    size = classifier.encoder.batch_size
    names = [f"{number % 5 + 1:02d}.jpg" for number in range(2 * size + 1)]
    files = [place / "img" / name for name in names]
    taken: list[int] = []

    def images() -> Iterator[object]:
        for number, file in enumerate(files):
            taken.append(number)
            yield (file, file.read_bytes(), str(file))[number % 3]

    answers = classifier(images())
    assert taken == []
    first = next(answers)
    assert len(taken) == size
    got = [first, *answers]
    wanted = classifier(files)
    assert [answer.path for answer in got] == [answer.path for answer in wanted]
    for answer, same in zip(got, wanted, strict=True):
        assert answer.probabilities == pytest.approx(same.probabilities, abs=1e-6)
    places = [f"image {number}" for number in range(len(files))]
    assert [answer.id for answer in got] == [
        place if number % 3 == 1 else str(file) for number, (place, file) in enumerate(zip(places, files, strict=True))
    ]
    assert list(classifier(iter(()))) == []


def test_what_cannot_be_read_ends_no_stream_but_what_is_no_image_does(trained: tuple[Run, Path], place: Path) -> None:
    classifier = Classifier.load(trained[0].folder, within="Jeans")
    file = place / "img" / "01.jpg"
    answers = list(classifier(iter([file, b"", place / "none.jpg", file])))
    assert [answer.error for answer in answers] == [
        "",
        "the file is empty",
        "cannot read the file: No such file or directory",
        "",
    ]
    assert [answer.id for answer in answers] == [str(file), "image 1", str(place / "none.jpg"), str(file)]
    assert {answer.within for answer in answers} == {("<script>", "Jeans")}
    assert answers[0] == answers[3]
    assert [answer.error for answer in classifier(iter([b""]))] == ["the file is empty"]
    with pytest.raises(ImageTypeError, match=r"^image 1: expected a path.*; found NoneType$"):
        list(classifier(iter([file, None])))


def test_a_path_names_the_same_image_alone_in_a_list_and_in_an_iterator(
    trained: tuple[Run, Path], place: Path, tmp_path: Path
) -> None:
    """By the other spelling of its accents, and inside an archive."""
    photograph = (place / "img" / "01.jpg").read_bytes()
    (tmp_path / unicodedata.normalize("NFD", "café.jpg")).write_bytes(photograph)
    with zipfile.ZipFile(tmp_path / "shop.zip", "w") as archive:
        archive.writestr("dress.jpg", photograph)
    classifier = Classifier.load(trained[0].folder)
    wanted = classifier(photograph)
    for path in (tmp_path / unicodedata.normalize("NFC", "café.jpg"), tmp_path / "shop.zip" / "dress.jpg"):
        for answers in ([classifier(path)], classifier([path, path]), list(classifier(iter([path])))):
            assert {answer.top for answer in answers} == {wanted.top}
            assert {answer.id for answer in answers} == {str(path)}


def test_one_object_may_come_twice(trained: tuple[Run, Path], place: Path) -> None:
    """Bytes are decoded in threads; what is read from, or is a picture, may be the same object."""
    classifier = Classifier.load(trained[0].folder)
    files = [place / "img" / f"{number:02d}.jpg" for number in (1, 2, 3)]
    wanted = [answer.path for answer in classifier(files)]
    with files[0].open("rb") as first, Image.open(files[1]) as second:
        for _ in range(5):
            answers = classifier([first, second, first, second, files[2], first, second, files[2].read_bytes()])
            assert [answer.path for answer in answers] == [wanted[place] for place in (0, 1, 0, 1, 2, 0, 1, 2)]


def test_gray_bytes_are_the_picture_in_gray(trained: tuple[Run, Path], place: Path) -> None:
    classifier = Classifier.load(trained[0].folder)
    with Image.open(place / "img" / "02.jpg") as picture:
        gray = picture.convert("L")
    assert classifier(np.asarray(gray)).top == classifier(gray).top == classifier(gray.convert("RGB")).top


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
            r"image 0: expected a path.*; found numpy.ndarray of float32 \(4, 4, 3\)$",
        ),
        (lambda p: (np.zeros((4, 4, 1), np.uint8),), ImageError, r"found numpy.ndarray of uint8 \(4, 4, 1\)$"),
        (lambda p: (np.zeros((0, 4, 3), np.uint8),), ImageError, r"found numpy.ndarray of uint8 \(0, 4, 3\)$"),
        (
            lambda p: ([p / "img" / "01.jpg", np.zeros((2, 4, 4, 3), np.uint8)],),
            ImageError,
            r"image 1: .* uint8 \(2, 4, 4, 3\); for several images give list\(array\)$",
        ),
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
    with pytest.raises(
        ConfigError, match="min_confidence: the run decodes by least-cost, whose scores are no probabilities; leave it"
    ):
        Classifier.load(run.folder, min_confidence=0.5)


def test_a_prediction_loads_neither_the_compiler_nor_trainers(trained: tuple[Run, Path], place: Path) -> None:
    code = "import sys; from hfc import Classifier; Classifier.load(sys.argv[1])(sys.argv[2]); print(*sys.modules)"
    words = [sys.executable, "-c", code, str(trained[0].folder), str(place / "img" / "01.jpg")]
    loaded = set(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split())
    assert loaded >= {"torch", "timm"}
    assert not loaded & {"torch._dynamo", "torch._inductor", "sympy", "scipy", "sklearn", "joblib", "matplotlib"}
    trainers = ("training", "stage", "sweep", "data", "cache", "calibration", "promise", "estimator")
    assert not loaded & {f"hfc.train.{name}" for name in trainers}
