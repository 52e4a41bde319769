"""What a reader is told of runs before comparing them."""

from pathlib import Path
from typing import Any

import pytest

from hfc import runs
from hfc.report.checks import check
from hfc.report.rows import read_leaderboards
from tests.support.made_runs import tree_of, two_methods, write_run


def told(folder: Path) -> dict[str, list[str]]:
    boards = read_leaderboards(runs.find([folder]))
    found: dict[str, list[str]] = {"ok": [], "mind": [], "wrong": []}
    for each in check([outcome.row for board in boards for outcome in board.outcomes], boards):
        found[each.state].append(each.text)
    return found


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return two_methods(tmp_path / "runs", tree_of(tmp_path / "tree.csv"))


def add(place: Path, **changes: Any) -> None:
    write_run(place / "more", tree_of(place.parent / "tree.csv"), method="levels", **changes)


def test_runs_that_share_everything_have_nothing_wrong(place: Path) -> None:
    found = told(place)
    assert found["wrong"] == []
    assert len(found["ok"]) == 6
    assert found["mind"] == []


def test_part_of_deepfashion_must_not_be_compared_with_the_cited_rows(tmp_path: Path) -> None:
    two_methods(tmp_path / "runs", tree_of(tmp_path / "tree.csv"), cache__origin="DeepFashion, item split")
    assert told(tmp_path / "runs")["mind"] == [
        "Measured on DeepFashion, item split. The cited rows are for DeepFashion's 40,000 test images: they stand here "
        "for reference and must not be compared with the measured ones."
    ]


@pytest.mark.parametrize(
    ("changes", "state", "words"),
    [
        ({"cache__random_weights": True}, "wrong", "[RANDOM WEIGHTS] rest on features of an untrained backbone"),
        ({"cache__features_sha256": "0"}, "wrong", "Rows differ in their features:"),
        ({"cache__labels_sha256": "0"}, "wrong", "Rows differ in their labels and splits:"),
        ({"cache__labels_digest": "0"}, "wrong", "Rows differ in their labels and splits:"),
        ({"rows__train": 1}, "wrong", "Rows differ in their numbers of training and validation images:"),
        ({"ids": [f"x{i}" for i in range(60)]}, "wrong", "Rows were not tested on the same images and labels"),
        ({"test__top1": 0.123}, "wrong", "The predictions of more do not give the top-1 in their result.json."),
        ({"code__digest": "0"}, "mind", "Rows come from different versions of the code"),
        ({"code__commit": "0" * 40}, "mind", "Rows come from different versions of the code"),
        ({"seed": 0}, "mind", "Some rows have one seed only"),
        ({"seed": 9}, "mind", "Rows were trained with different seeds."),
        ({"rows__unused": {"without label": 1234}}, "mind", "Left out: 1,234 rows without label."),
        ({"config__decode": "least-cost"}, "mind", "Rows decoded by least cost have scores and no probabilities"),
        ({"cache__origin": "drawn sample (9 pictures)"}, "mind", "The pictures are drawn by a program"),
        ({"hierarchy__name": "deepfashion-5"}, "mind", "are this project's own"),
    ],
)
def test_what_limits_or_forbids_a_comparison_is_said(
    changes: dict[str, Any], state: str, words: str, place: Path
) -> None:
    assert words not in str(told(place))
    add(place, **changes)
    assert any(words in text for text in told(place)[state]), told(place)


def test_a_changed_working_tree_is_pointed_out(tmp_path: Path) -> None:
    two_methods(tmp_path / "runs", tree_of(tmp_path / "tree.csv"), code__commit="c" * 40 + "+")
    assert f"with changes beside commit {'c' * 12}." in told(tmp_path / "runs")["mind"][0]


def test_deepfashions_whole_test_split_may_be_compared(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    write_run(tmp_path / "runs", tree, cache__origin="DeepFashion", rows__test=40000)
    found = told(tmp_path / "runs")
    assert any("whole test split" in text for text in found["ok"])
    assert "must not be compared" not in str(found)
