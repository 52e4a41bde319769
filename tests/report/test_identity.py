"""Labels of rows: different wherever rows are, by as little as suffices, and plain where no other row has the name."""

import copy
import itertools
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hfc import runs
from hfc.errors import FORMER_SETTINGS
from hfc.report.checks import check
from hfc.report.rows import read_leaderboards, summarise
from tests.support.made_runs import TREE, tree_of, write_run

FIELDS = {"backbone": "made-up", "image_size": 224, "pool": "mean", "views": ["identity"], "weights": "b" * 64}
SMALL = {"cache__image_size": 160, "cache__feature_key": "1" * 64, "cache__key_fields": FIELDS | {"image_size": 160}}
MAX = {"cache__feature_key": "2" * 64, "cache__key_fields": FIELDS | {"pool": "max"}}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> runs.Run:
    """A run of `flat` at 224 px."""
    folder = tmp_path_factory.mktemp("identity")
    return runs.read(write_run(folder / "run", tree_of(folder / "tree.csv"), cache__key_fields=FIELDS))


def changed(run: runs.Run, **changes: Any) -> runs.Run:
    """The run with another result; `cache__path="x"` reaches inside."""
    result = copy.deepcopy(run.result.plain())
    for name, value in changes.items():
        *outer, last = name.split("__")
        place = result
        for part in outer:
            place = place[part]
        place[last] = value
    return runs.Run(run.folder, runs.Result.read(result, "a made-up result"), run.epochs)


def labels(plain: runs.Run, *changes: dict[str, Any]) -> list[str]:
    """The labels of rows with some changes, in that order."""
    found = [changed(plain, **each) for each in changes]
    rows = summarise(found)
    return [next(row.label for row in rows if row.first is run.result) for run in found]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (({}, SMALL), ["224 px", "160 px"]),
        (({}, SMALL, MAX), ["224 px, mean pooling", "160 px, mean pooling", "224 px, max pooling"]),
        (({}, MAX), ["mean pooling", "max pooling"]),
        (({}, {"cache__backbone": "b5", "cache__feature_key": "1" * 64}), ["made-up", "b5"]),
        (
            ({}, {"cache__weights": "a/own.pth", "cache__feature_key": "1" * 64}),
            ["weights hub", "weights own.pth"],
        ),
        (
            ({}, {"cache__key_fields__views": ["identity", "flip"], "cache__feature_key": "1" * 64}),
            ["views identity", "views identity+flip"],
        ),
        (
            ({}, {"cache__key_fields__resize": "pad", "cache__feature_key": "1" * 64}),
            ["", "resize pad"],
        ),
        (
            ({}, {"cache__key_fields__weights": "c" * 64, "cache__feature_key": "1" * 64}),
            ["weights bbbbbbbb", "weights cccccccc"],
        ),
        (
            ({}, {"cache__path": "cache/second.h5", "cache__features_sha256": "1" * 64}),
            ["cache made-up", "cache second"],
        ),
        (({}, {"cache__features_sha256": "1" * 64}), ["features aaaaaaaa", "features 11111111"]),
        (
            ({}, {"cache__labels": "lists/new.csv", "cache__labels_sha256": "1" * 64}),
            ["the cache's own labels", "labels new.csv"],
        ),
        (
            ({"cache__labels_digest": "1" * 64}, {"cache__labels_digest": "2" * 64}),
            ["labels 11111111", "labels 22222222"],
        ),
        (
            ({"hierarchy__digest": "1" * 64}, {"hierarchy__digest": "2" * 64}),
            ["tree 11111111", "tree 22222222"],
        ),
        (({}, {"rows__train": 2830}), ["100 training images", "2,830 training images"]),
        (({}, {"rows__unused": {"without label": 3}}), ["0 without label", "3 without label"]),
        (
            ({"config__precision": "bf16"}, {"config__precision": "fp32"}),
            ["precision=bf16", "precision=fp32"],
        ),
        (({}, {"config__width": 64}), ["width=512", "width=64"]),
        (({}, {"machine__device": "cuda:1"}), ["on cpu", "on cuda"]),
        # what only goes along with a difference is not taken for it
        (
            ({"hierarchy__digest": "1" * 64}, {"hierarchy__digest": "2" * 64, "cache__path": "copy.h5"}),
            ["tree 11111111", "tree 22222222"],
        ),
    ],
)
def test_rows_of_one_name_are_told_apart_by_what_sets_them_apart(
    changes: tuple[dict[str, Any], ...], expected: list[str], plain: runs.Run
) -> None:
    assert labels(plain, *changes) == [f"flat (tree) {words}".strip() for words in expected]


def test_a_name_that_no_other_row_has_stays_as_it_is(plain: runs.Run) -> None:
    other = {"method": "levels", **SMALL}
    assert labels(plain, {}, other) == ["flat (tree)", "levels (tree)"]
    own = {"changed": {"beta": 0.5}, "cache__random_weights": True}
    assert labels(plain, {}, SMALL, other, own) == [
        "flat (tree) 224 px",
        "flat (tree) 160 px",
        "levels (tree)",
        "flat (tree) beta=0.5 [RANDOM WEIGHTS]",
    ]
    assert labels(plain, own, own | MAX)[1] == "flat (tree) beta=0.5, max pooling [RANDOM WEIGHTS]"


def test_a_default_that_an_older_run_does_not_record_is_no_difference(plain: runs.Run) -> None:
    rows = summarise([plain, changed(plain, seed=1, config__width=512), changed(plain, seed=2, config__device="cpu")])
    assert [(row.seeds, row.label) for row in rows] == [([0, 1, 2], "flat (tree)")]


@pytest.mark.parametrize("former", FORMER_SETTINGS)
def test_a_former_setting_that_did_nothing_is_no_difference(former: str, plain: runs.Run) -> None:
    neutral = {f"config__{former}": FORMER_SETTINGS[former]}
    rows = summarise([plain, changed(plain, seed=1, **neutral)])
    assert [(row.seeds, row.label) for row in rows] == [([0, 1], "flat (tree)")]
    assert labels(plain, {}, {f"config__{former}": 0.5}) == [
        f"flat (tree) {former}={FORMER_SETTINGS[former]}",
        f"flat (tree) {former}=0.5",
    ]


def test_another_gpu_is_no_difference(plain: runs.Run) -> None:
    rows = summarise([changed(plain, seed=i, machine__device=f"cuda:{i}") for i in range(2)])
    assert [(row.seeds, row.label) for row in rows] == [([0, 1], "flat (tree)")]


NAMES = ("tree", "a  b", "a b", "caf\u00e9", "cafe\u0301", "tree) 160 px", "tree) 160 px (tree", "x\ny")
PARTS = {
    "method": ("flat", "levels"),
    "hierarchy__name": NAMES,
    "hierarchy__digest": ("1" * 64, "2" * 64, "1" * 63 + "2"),
    "changed": ({}, {"width": 64}, {"width": "64"}),
    "cache__image_size": (224, 160),
    "cache__feature_key": ("1" * 64, "2" * 64),
    "cache__features_sha256": ("a" * 64, "a" * 63 + "b"),
    "cache__path": ("one/cache.h5", "two/cache.h5", "two/other.h5"),
    "cache__labels": ("a, b.csv", "b.csv"),
    "cache__labels_sha256": ("", "1" * 64),
    "cache__labels_digest": ("", "1" * 64),
    "rows__train": (100, 99),
    "config__precision": ("bf16", "fp32"),
    "machine__device": ("cpu", "cuda"),
}
SAME = ("cache__image_size", "cache__path", "cache__labels")  # words alone: what they speak of has a digest
CHANGES = st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in PARTS.items()})


@settings(max_examples=200)
@given(changes=st.lists(CHANGES, min_size=2, max_size=8))
def test_labels_differ_wherever_rows_do(changes: list[dict[str, Any]], plain: runs.Run) -> None:
    rows = summarise([changed(plain, seed=seed, **each) for seed, each in enumerate(changes)])
    default = {name: values[0] for name, values in PARTS.items()} | {
        "hierarchy__digest": plain.result.hierarchy.digest,
        "cache__feature_key": "f" * 64,
        "config__precision": "auto",
    }
    different = {repr(sorted((k, v) for k, v in (default | each).items() if k not in SAME)) for each in changes}
    assert len(rows) == len(different) == len({row.key for row in rows})
    seen = [" ".join(unicodedata.normalize("NFC", row.label).split()) for row in rows]
    assert len(set(seen)) == len(rows)
    assert sorted(itertools.chain.from_iterable(row.seeds for row in rows)) == list(range(len(changes)))


def test_the_red_lines_say_what_differs_where_names_do_not(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "a", tree_of(tmp_path / "a" / "tree.csv"))
    write_run(tmp_path / "runs" / "b", tree_of(tmp_path / "b" / "tree.csv", TREE.replace("Hat,hats", "Hat,tops")))
    write_run(tmp_path / "runs" / "c", tree_of(tmp_path / "c" / "tree.csv"), **SMALL, cache__features_sha256="1" * 64)
    write_run(tmp_path / "runs" / "d", tree_of(tmp_path / "d" / "tree.csv"), cache__labels_digest="1" * 64)
    boards = read_leaderboards(runs.find([tmp_path / "runs"]))
    found = check([outcome.row for board in boards for outcome in board.outcomes], boards)
    assert [line.text for line in found if line.state == "wrong"] == [
        "Rows differ in their features and labels and splits: their differences are not differences of methods alone; "
        "see Provenance.",
        "Rows have different trees of one name, tree: what depends on the tree (hF, distance, levels) must not be "
        "compared among them; see Provenance.",
    ]
