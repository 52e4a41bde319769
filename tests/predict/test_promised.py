"""Answers of which a share is right: the threshold comes from what the run has proven, wherever the run lies."""

from pathlib import Path
from typing import Any

import pytest

from hfc.errors import ConfigError
from hfc.predict import Classifier
from hfc.predict.export import onnx
from hfc.predict.export.card import model_card
from hfc.predict.export.huggingface import export_hf
from hfc.predict.head import load_trained
from hfc.runs import Run
from tests.support.trained import prove, train_run


def test_answers_climb_to_the_threshold_that_was_prove(run: Path, place: Path, tmp_path: Path) -> None:
    images = sorted(path for path in place.glob("img/*.jpg") if path.stat().st_size)[:8]
    sure = sorted(answer.probabilities[0] for answer in Classifier.load(run)(images))
    threshold = (sure[3] + sure[4]) / 2
    prove(run, threshold)
    expected = Classifier.load(run, min_confidence=threshold)(images)
    assert len({len(answer.path) for answer in expected}) > 1
    classifier = Classifier.load(run, target_precision=0.9)
    assert classifier(images) == expected
    assert classifier.kept
    assert classifier.kept.threshold == threshold
    assert Classifier.load(run, target_precision=0.3)(images) == Classifier.load(run)(images)
    assert Classifier.load(run, target_precision=0.97)(images) == Classifier.load(run, min_confidence=0.99)(images)
    export_hf(run, tmp_path / "hf", with_backbone=True)
    assert Classifier.load(tmp_path / "hf", target_precision=0.9)(images) == expected


def test_exports_tell_the_thresholds(run: Path) -> None:
    prove(run)
    trained = load_trained(run)
    assert onnx._metadata(trained, None)["hfc.promise"] == {
        "confidence": 0.95,
        "rows": 200,
        "thresholds": {"0.8": 0.5, "0.9": 0.5, "0.95": 0.99},
    }
    card = model_card(trained.run, trained.hierarchy, [])
    assert card[card.index("## Answers with") : card.index("## Data")] == (
        "## Answers with a promise\n\n"
        "Answer with the deepest node of the best leaf's path whose probability reaches the threshold: with 95% "
        "confidence at least the target share of the answers below the root is right. 200 images prove it that had no "
        "part in any choice, each target by itself. In hfc: `target_precision`, for other targets too.\n\n"
        "| target | threshold | of the test images answered | of these right |\n"
        "| --- | --- | --- | --- |\n"
        "| 80.00 % | 0.5000 | 80.00 % | 95.62 % |\n"
        "| 90.00 % | 0.5000 | 80.00 % | 95.62 % |\n"
        "| 95.00 % | 0.9900 | 50.00 % | 100.00 % |\n\n"
    )


def test_a_run_without_a_promise_has_none_in_its_exports(trained: tuple[Run, Path]) -> None:
    head = load_trained(trained[0].folder)
    assert "hfc.promise" not in onnx._metadata(head, None)
    assert "promise" not in model_card(head.run, head.hierarchy, [])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"target_precision": 0.99},
            "target_precision: expected at most 0.97, which the 200 rows set aside prove, found 0.99, which takes 299 "
            "answers without a mistake at least; ask for less, or train with more validation rows or a larger "
            "promise_share",
        ),
        (
            {"target_precision": 0.9, "min_confidence": 0.5},
            "target_precision with min_confidence: each chooses how deep an answer goes, the first by a threshold of "
            "its own; give one of them",
        ),
        (
            {"target_precision": 0.9, "within": "<script>"},
            "target_precision with within: what was proven holds for answers in the whole tree; leave one of them out",
        ),
        ({"target_precision": 1.0}, "target_precision: expected 0 to 0.9999, found 1.0"),
    ],
)
def test_what_cannot_be_promised_is_refused(settings: dict[str, Any], message: str, run: Path) -> None:
    prove(run)
    with pytest.raises(ConfigError) as caught:
        Classifier.load(run, **settings)
    assert str(caught.value) == message


def test_a_run_that_set_no_rows_aside_says_what_to_train_with(trained: tuple[Run, Path]) -> None:
    folder = trained[0].folder
    with pytest.raises(ConfigError) as caught:
        Classifier.load(folder, target_precision=0.95)
    assert str(caught.value) == (
        f"target_precision: {folder} has no rows that prove one; train it with --set promise_share=0.5, which sets "
        "half of the validation rows aside"
    )


def test_a_run_of_few_rows_promises_what_they_prove(place: Path) -> None:
    """From end to end: of the few rows that no choice has seen."""
    run, _ = train_run(place, {}, {"method": "flat", "promise_share": 0.5, "epochs": 1})
    promise = run.result.promise
    assert promise
    assert promise.proof.rows == run.result.rows.promise
    with pytest.raises(
        ConfigError, match=rf"the {promise.proof.rows} rows set aside prove, found 0.9, which takes 29 "
    ):
        Classifier.load(run.folder, target_precision=0.9)
