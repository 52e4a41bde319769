"""A run's head on features: the answers are those of the images that they came from."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from cli.main import main
from hfc import Classifier
from hfc.datasets import manifest
from hfc.errors import ConfigError, StaleStoreError, StoreError
from hfc.predict import FeatureClassifier
from hfc.predict.answers import Answer
from hfc.runs import Run
from hfc.store import FeatureStore
from tests.support.trained import train_run


def hfc(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


def assert_alike(answers: list[Answer], wanted: list[Answer]) -> None:
    """The same but for the last bits, as the head takes other numbers of rows at a time."""
    assert [(one.id, one.path, one.error, one.within) for one in answers] == [
        (one.id, one.path, one.error, one.within) for one in wanted
    ]
    for answer, same in zip(answers, wanted, strict=True):
        assert answer.probabilities == pytest.approx(same.probabilities, abs=1e-6)
        assert [leaf.path for leaf in answer.top] == [leaf.path for leaf in same.top]


@pytest.mark.parametrize(
    "settings", [{}, {"min_confidence": 0.5, "top": 2}, {"within": "tops, of all > kinds"}], ids=str
)
def test_the_rows_of_a_cache_get_the_answers_of_their_images(
    settings: dict[str, object], trained: tuple[Run, Path], place: Path
) -> None:
    answers = list(FeatureClassifier.load(trained[0].folder, **settings).cached(trained[1]))
    wanted = list(Classifier.load(trained[0].folder, **settings).stream(manifest.read(place / "m.csv")))
    assert len(answers) == 50
    assert [answer.id for answer in answers if answer.error] == ["row 7"]
    assert_alike(answers, wanted)


def test_features_of_ones_own_get_answers(trained: tuple[Run, Path]) -> None:
    classifier = FeatureClassifier.load(str(trained[0].folder))
    with FeatureStore(trained[1]) as store:
        features, ok = store.features(), store.table().ok
    wanted = [answer for answer in classifier.cached(trained[1]) if not answer.error]
    for array in (features[ok], features[ok][:, 0], features[ok].astype(np.float64)):
        answers = classifier.predict_features(array)
        assert [answer.id for answer in answers] == [f"row {row}" for row in range(len(answers))]
        assert_alike([Answer(**{**vars(a), "id": b.id}) for a, b in zip(answers, wanted, strict=True)], wanted)
    assert classifier.predict_features(features[:0]) == []
    many = classifier.predict_features(np.repeat(features[ok][:1], 600, axis=0))
    assert {answer.path for answer in many} == {wanted[0].path}
    assert (many[599].id, len(many)) == ("row 599", 600)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3)), "features: expected numbers (rows, 1, 256) or (rows, 256), found float64 (2, 3)"),
        (np.zeros(256), "features: expected numbers (rows, 1, 256) or (rows, 256), found float64 (256,)"),
        ([["a"] * 256], "features: expected numbers (rows, 1, 256) or (rows, 256), found <U1 (1, 256)"),
        (np.stack([np.zeros(256), np.full(256, np.nan)]), "features: row 1 holds NaN or infinite numbers"),
    ],
    ids=["width", "one row", "text", "NaN"],
)
def test_what_are_no_features_of_the_run_is_said(array: object, message: str, trained: tuple[Run, Path]) -> None:
    with pytest.raises(ConfigError) as caught:
        FeatureClassifier.load(trained[0].folder).predict_features(array)
    assert str(caught.value) == message


def test_of_several_views_each_is_asked_for(place: Path) -> None:
    run, cache = train_run(place, {"views": "flip"}, {"method": "flat"})
    classifier = Classifier.load(run.folder, batch_size=3)
    with FeatureStore(cache) as store:
        features = store.features()
    answers = classifier.predict_features(features)
    assert len(answers) == 50
    assert {answer.batch_size for answer in answers} == {0}  # no crop was in a pass
    with pytest.raises(ConfigError, match=r"expected numbers \(rows, 2, 256\), found float16 \(50, 256\)$"):
        classifier.predict_features(features[:, 0])


def test_a_cache_made_in_another_way_is_refused_by_what_differs(trained: tuple[Run, Path], place: Path) -> None:
    _, other = train_run(place, {"resize": "pad"}, {"method": "flat"})
    with pytest.raises(StaleStoreError) as caught:
        next(FeatureClassifier.load(trained[0].folder).cached(other))
    assert str(caught.value) == (
        f"{other}: its features are not made as those of {trained[0].folder}: made with resize = pad, asked for resize "
        "= squash; extract them under the settings of the run, or classify the images"
    )
    with pytest.raises(StoreError, match=r"no such feature cache; make one with hfc extract$"):
        next(FeatureClassifier.load(trained[0].folder).cached(place / "no.h5"))


def test_a_setting_of_the_backbone_is_refused(trained: tuple[Run, Path]) -> None:
    with pytest.raises(
        ConfigError, match=r"^unknown setting 'device'; known: min_confidence, target_precision, top, within$"
    ):
        FeatureClassifier.load(trained[0].folder, device="cpu")


def test_the_command_takes_a_cache_and_no_backbone(trained: tuple[Run, Path], place: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained[0].folder, tmp_path / "run"))
    (place / "backbone.pth").rename(place / "elsewhere.pth")
    try:
        result = hfc("predict", run, "--cache", trained[1], "--json", "--top", 9)
    finally:
        (place / "elsewhere.pth").rename(place / "backbone.pth")
    assert (result.exit_code, result.stderr) == (3, "1 of 50 images could not be read\n")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    images = hfc("predict", run, "--manifest", place / "m.csv", "--json", "--top", 9)
    wanted = [json.loads(line) for line in images.stdout.splitlines()]
    assert [(line["id"], line.get("path"), line.get("error")) for line in lines] == [
        (line["id"], line.get("path"), line.get("error")) for line in wanted
    ]
    for line, same in zip(lines, wanted, strict=True):
        assert line.get("probabilities", []) == pytest.approx(same.get("probabilities", []), abs=2e-6)
    table = hfc("predict", run, "--cache", trained[1], "--within", "Jeans", "--format", "csv")
    assert table.stdout.splitlines()[1].startswith("row 0,<script>,Jeans,1.000000,1.000000,Jeans,1.000000")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("a.jpg",), "--cache reads no image; leave IMAGE out"),
        (("--manifest", "m.csv"), "--cache reads no image; leave --manifest out"),
        (("--batch-size", "1"), "--cache reads no image; leave --batch-size out"),
        (("--box", "0,0,1,1"), "--cache reads no image; leave --box out"),
    ],
    ids=str,
)
def test_what_concerns_images_is_refused_beside_a_cache(words: tuple[str, ...], message: str) -> None:
    result = hfc("predict", "run", "--cache", "c.h5", *words)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
