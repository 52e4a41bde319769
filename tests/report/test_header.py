"""What stands above a report, and its answer in one sentence."""

import html
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hfc.report import write_report
from hfc.report.header import answer, filters
from hfc.report.resampled import with_baseline
from hfc.report.rows import read_leaderboards
from hfc.report.statistics import all_pairs
from hfc.runs import find
from tests.support.made_runs import tree_of, two_methods, write_run

Write = Callable[..., Path]


@pytest.fixture
def runs(tmp_path: Path) -> Write:
    """Writes runs of methods that are right on all images, on all but one, or on none."""
    tree = tree_of(tmp_path / "tree.csv")
    target = np.arange(60) % 6
    right = np.eye(6, dtype=np.float32)[target]
    nearly, wrong = right.copy(), np.roll(right, 1, axis=1)
    nearly[0] = np.roll(nearly[0], 1)
    finals = {"right": right, "nearly": nearly, "wrong": wrong}

    def write(*names: str) -> Path:
        folder = tmp_path / "-".join(names)
        for name in names:
            write_run(folder / name, tree, method=name, final=finals[name.rstrip("2")], target=target)
        return folder

    return write


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("right",), "right (tree) is best, with 100.0% of the test images right; there is no other row."),
        (("right", "nearly"), ": these images do not tell it apart from the other row."),
        (("right", "nearly", "nearly2"), ": these images do not tell it apart from any of the 2 other rows."),
        (("right", "wrong"), ": significantly more than the other row."),
        (("right", "wrong", "wrong2"), ": significantly more than each of the 2 other rows."),
        (("nearly", "wrong", "right"), "right: significantly more than 1 of the 2 other rows, not told apart from 1."),
    ],
)
def test_the_answer_is_one_sentence(names: tuple[str, ...], words: str, runs: Write) -> None:
    (board,) = read_leaderboards(find([runs(*names)]))
    text = answer(board, all_pairs(board.outcomes))
    assert text.endswith(words)
    assert text.count(". ") == 0


@pytest.mark.parametrize(
    ("baseline", "words"),
    [
        ("wrong", ": significantly more than wrong (tree), the baseline."),
        ("nearly", ": not significantly more than nearly (tree), the baseline."),
        ("right", ": significantly more than 1 of the 2 other rows, not told apart from 1."),
    ],
)
def test_with_a_baseline_the_answer_is_against_it(baseline: str, words: str, runs: Write) -> None:
    (board,) = read_leaderboards(find([runs("right", "nearly", "wrong")]), detailed=True)
    assert answer(*with_baseline(board, baseline)).endswith(words)


def test_the_header_names_data_images_classes_backbone_and_date(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    two_methods(tmp_path / "runs", tree, cache__origin="CSV manifest <own>.csv")
    changes = {"cache__image_size": 96, "cache__random_weights": True, "created": "2026-03-04T00:00:00+00:00"}
    write_run(tmp_path / "runs" / "more", tree, cache__origin="CSV manifest <own>.csv", **changes)
    write_report([tmp_path / "runs"], tmp_path / "out")
    facts = [
        ("data", "CSV manifest <own>.csv"),
        ("images", "100 for training, 20 for validation, 60 for the test"),
        ("classes", "6 in the tree tree of 2 levels"),
        ("backbone", "made-up at 96 px with RANDOM WEIGHTS; made-up at 224 px"),
        ("trained", "2026-01-01 to 2026-03-04"),
    ]
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    shown = re.findall(r"<div><dt>(.*?)</dt><dd>(.*?)</dd></div>", page)
    assert [(name, html.unescape(value)) for name, value in shown] == facts
    text = (tmp_path / "out" / "report.md").read_text("utf-8").replace("\\", "")
    assert "\n".join(f"- {name}: {value}" for name, value in facts) in text


def test_of_many_values_the_header_counts_the_rest(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    for side in (32, 64, 96, 128, 160, 192):
        write_run(tmp_path / "runs" / str(side), tree, cache__image_size=side, cache__feature_key=str(side))
    write_report([tmp_path / "runs"], tmp_path / "out")
    shown = re.findall(r"<dt>backbone</dt><dd>(.*?)</dd>", (tmp_path / "out" / "report.html").read_text("utf-8"))
    assert len(shown) == 1
    assert shown[0].count("made-up at") == 4
    assert shown[0].endswith("; and 2 more")


def test_rows_are_chosen_by_what_they_differ_in(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    for method in ("flat", "levels"):
        for cache in ("a/c.h5", "b/c.h5", "d.h5"):
            changes = {"cache__path": cache, "cache__features_sha256": cache[0] * 64}
            write_run(tmp_path / "runs" / method / cache, tree, method=method, **changes)
    (board,) = read_leaderboards(find([tmp_path / "runs"]))
    own = filters([outcome.row for outcome in board.outcomes])
    assert [name for name, _ in own.facets] == ["method", "cache"]  # one tree is no choice
    methods, caches = (dict(values) for _, values in own.facets)
    for name, places in methods.items():
        assert [own.labels[i].partition(" ")[0] for i in places] == [name] * 3
    assert {name: len(places) for name, places in caches.items()} == {"c (aaaaaaaa)": 2, "c (bbbbbbbb)": 2, "d": 2}
    first, second = own.labels[:2]
    assert own.places(second, "no row", first) == "1 0"
    assert own.places("no row") == ""
    assert own.place_of_title(f"{second}: losses") == "1"
    assert own.place_of_title("no row: losses") == ""


def test_rows_that_differ_in_nothing_have_no_choice(place: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "runs", tree_of(tmp_path / "tree.csv"))
    write_report([tmp_path / "runs"], tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert 'class="filter"' not in page
    assert "data-rows=" not in page.partition("<script>")[0]
    assert 'class="filter"' in (place / "report" / "report.html").read_text("utf-8")
