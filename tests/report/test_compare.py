"""`hfc report --compare A B`: how rows are matched, what changed, and what it did."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from cli.main import main
from hfc.report import compare
from tests.support.made_runs import tree_of, two_methods, write_run


def hfc(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


def changed(before: dict[str, Any], after: dict[str, Any], tmp_path: Path) -> list[tuple[str, str, str]]:
    tree = tree_of(tmp_path / "tree.csv")
    write_run(tmp_path / "a", tree, **before)
    write_run(tmp_path / "b", tree, **after)
    (pair,) = compare.compare(tmp_path / "a", tmp_path / "b").pairs
    return compare.changes(pair)


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ({}, []),
        ({"changed": {"dropout": 0.5}, "config__dropout": 0.5}, [("setting dropout", "0.7", "0.5")]),
        ({"config__width": 64}, [("setting width", "–", "64")]),
        ({"config__averaging": 0.0}, []),
        ({"config__averaging": 0.9}, [("setting averaging", "0.0", "0.9")]),
        ({"seed": 4}, [("seeds", "0", "4")]),
        ({"cache__features_sha256": "9" * 64}, [("features", "a" * 12, "9" * 12)]),
        ({"cache__key_fields": {"backbone": "b5", "views": ["identity"]}}, [("features: backbone", "made-up", "b5")]),
        ({"cache__labels_sha256": "9" * 64}, [("labels", "the cache's own", "9" * 12)]),
        ({"code__commit": "9" * 40 + "+"}, [("code", "c" * 12, "9" * 12 + "+")]),
        ({"machine__device": "cuda"}, [("machine: device", "cpu", "cuda")]),
        ({"versions": {"python": "3.12", "torch": "2.5"}}, [("version of python", "3.11", "3.12")]),
        ({"rows__train": 99}, [("images for training / validation / test", "100 / 20 / 60", "99 / 20 / 60")]),
    ],
)
def test_whatever_differs_is_named_and_nothing_else(
    after: dict[str, Any], expected: list[tuple[str, str, str]], tmp_path: Path
) -> None:
    assert changed({}, after, tmp_path) == expected


def test_rows_match_by_label_first_and_then_by_method(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    for side, name, method, settings in (
        ("a", "1", "flat", {}),
        ("a", "2", "levels", {"width": 64}),
        ("a", "3", "hmcn-f", {"width": 64}),
        ("a", "4", "hmcn-f", {"width": 32}),
        ("b", "1", "flat", {}),
        ("b", "2", "levels", {"width": 32}),
        ("b", "3", "hmcn-f", {"width": 64}),
        ("b", "4", "hmcn-f", {"width": 16}),
        ("b", "5", "conditional", {}),
    ):
        write_run(tmp_path / side / name, tree, method=method, changed=settings)
    found = compare.compare(tmp_path / "a", tmp_path / "b")
    assert sorted((pair.before.label, pair.after.label) for pair in found.pairs) == [
        ("flat (tree)", "flat (tree)"),
        ("hmcn-f (tree) width=32", "hmcn-f (tree) width=16"),
        ("hmcn-f (tree) width=64", "hmcn-f (tree) width=64"),
        ("levels (tree) width=64", "levels (tree) width=32"),
    ]
    assert found.only == ((), ("conditional (tree)",))


SIZES = {
    "160": {"cache__image_size": 160, "cache__feature_key": "1" * 64, "cache__features_sha256": "1" * 64},
    "224": {},
    "other 224": {"cache__features_sha256": "2" * 64},
}


@pytest.mark.parametrize(
    ("before", "after", "expected", "only"),
    [
        # other labels for all: the features say which row is which
        (
            ["160", "224"],
            ["224 new labels", "160 new labels"],
            [("160", "160 new labels"), ("224", "224 new labels")],
            [],
        ),
        (["160", "224"], ["224"], [("224", "224")], ["160"]),
        # what has nothing of its own in the other set is matched by what is left
        (["160", "224"], ["224", "other 224"], [("160", "other 224"), ("224", "224")], []),
        # one of two rows of the same recipe: nothing says which
        (["224", "other 224"], ["224 new features"], [], ["224", "other 224"]),
    ],
)
def test_rows_of_one_name_match_by_what_they_share(
    before: list[str], after: list[str], expected: list[tuple[str, str]], only: list[str], tmp_path: Path
) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    for side, names in (("a", before), ("b", after)):
        for i, name in enumerate(names):
            size, _, new = name.partition(" new ")
            changes = SIZES[size] | ({"cache__labels_digest": "9" * 64} if new == "labels" else {})
            changes |= {"cache__features_sha256": "9" * 64} if new == "features" else {}
            write_run(tmp_path / side / name, tree, skill=1 + i, **changes)
    found = compare.compare(tmp_path / "a", tmp_path / "b")
    named = [(pair.before.row.first.run, pair.after.row.first.run) for pair in found.pairs]
    assert sorted(named) == expected
    assert len(found.only[0]) == len(only)
    assert len({pair.label for pair in found.pairs}) == len(found.pairs)


def test_a_pair_of_other_labels_has_both(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    for side, sizes in (("a", ["160", "224"]), ("b", ["224"])):
        for size in sizes:
            write_run(tmp_path / side / size, tree, **SIZES[size])
    done = hfc("report", "--compare", tmp_path / "a", tmp_path / "b")
    assert "\nflat (tree) 224 px → flat (tree)  " in done.output
    assert f"only in {tmp_path / 'a'}: flat (tree) 160 px" in done.output


def test_better_is_positive_and_tested_on_the_same_images(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    for side, skill in (("a", 0.0), ("b", 3.0)):
        for seed in range(3):
            write_run(tmp_path / side / str(seed), tree, seed=seed, skill=skill)
    done = hfc("report", "--compare", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "out")
    assert done.exit_code == 0
    said = json.loads((tmp_path / "out" / "compare.json").read_text())
    (pair,) = said["pairs"]
    gained = pair["difference"]["intervals"]["top1"]
    top1 = pair["metrics"]["top1"]
    assert gained["difference"] == pytest.approx(top1["after"] - top1["before"])
    assert 0 < gained["low"] < gained["difference"] < gained["high"]
    assert said["verdict"] == ("Of 1 method in both, top-1 is significantly better in 1, worse in 0 and neither in 0.")
    assert said["verdict"] in done.output
    assert "nothing else changed" in done.output
    page = (tmp_path / "out" / "compare.html").read_text("utf-8")
    assert "Nothing: the same settings, features, code, machine and versions." in page
    assert (tmp_path / "out" / "compare.md").is_file()
    back = compare.compare(tmp_path / "b", tmp_path / "a").pairs[0].difference
    assert back
    assert back.intervals["top1"].difference == -gained["difference"]


def test_other_test_images_are_told_and_not_tested(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    write_run(tmp_path / "a", tree)
    write_run(tmp_path / "b", tree, target=np.zeros(60, dtype=np.int64))
    done = hfc("report", "--compare", tmp_path / "a", tmp_path / "b")
    assert "test images and labels" in done.output
    assert "not tested" in done.output
    assert "1 cannot be tested: other test images, labels or groups." in done.output
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("a", "b", "tree.csv")] == []


def test_what_is_wrong_on_either_side_is_a_red_line(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    write_run(tmp_path / "a", tree)
    write_run(tmp_path / "b", tree, cache__random_weights=True)
    done = hfc("report", "--compare", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "out")
    assert "✗ Rows marked [RANDOM WEIGHTS]" in done.output
    assert 'role="alert"' in (tmp_path / "out" / "compare.html").read_text("utf-8")


def test_sets_without_a_common_method_say_so(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    write_run(tmp_path / "a", tree)
    write_run(tmp_path / "b", tree, method="levels")
    done = hfc("report", "--compare", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "out")
    assert "No row of one set has a match in the other." in done.output
    assert "nothing else changed" not in done.output
    assert f"only in {tmp_path / 'a'}: flat (tree)" in done.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "name the folders of RUNS, or two folders with --compare A B"),
        (("runs",), "Missing option '--out'"),
        (("runs", "--compare", "runs", "runs"), "give either RUNS, perhaps with --images, or --compare A B, not both"),
        (("--compare", "runs"), "requires 2 arguments"),
    ],
)
def test_wrong_usage_exits_with_2(words: tuple[str, ...], message: str) -> None:
    done = hfc("report", *words)
    assert done.exit_code == 2
    assert message in done.output


def test_a_folder_without_runs_is_named(tmp_path: Path) -> None:
    two_methods(tmp_path / "a", tree_of(tmp_path / "tree.csv"))
    (tmp_path / "empty").mkdir()
    done = hfc("report", "--compare", tmp_path / "a", tmp_path / "empty")
    assert (done.exit_code, "empty: holds no finished runs" in done.output) == (1, True)


def test_rows_are_tested_over_the_groups_that_both_have(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    pairs = [f"{i // 2}" for i in range(60)]
    write_run(tmp_path / "a", tree, skill=0.5, groups=pairs)
    write_run(tmp_path / "b", tree, skill=3.0, groups=pairs)
    write_run(tmp_path / "c", tree, skill=3.0, groups=[f"{i // 3}" for i in range(60)])
    done = hfc("report", "--compare", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "same")
    assert "significantly better in 1," in done.output
    assert "sign-flip test over groups" in (tmp_path / "same" / "compare.html").read_text("utf-8")
    (pair,) = json.loads((tmp_path / "same" / "compare.json").read_text("utf-8"))["pairs"]
    assert (pair["difference"]["groups"], pair["changes"]) == (30, [])
    done = hfc("report", "--compare", tmp_path / "b", tmp_path / "c", "--out", tmp_path / "other")
    assert "1 cannot be tested: other test images, labels or groups." in done.output
    (pair,) = json.loads((tmp_path / "other" / "compare.json").read_text("utf-8"))["pairs"]
    ((what, before, after),) = [change.values() for change in pair["changes"]]
    assert (what, before[:4], after[:4]) == ("groups of test images", "30 (", "20 (")
    assert pair["difference"] is None


def test_a_tree_in_another_order_is_no_change(tmp_path: Path) -> None:
    older = tree_of(tmp_path / "tree.csv")
    newer = older.in_canonical_order()
    names = [older.leaves[i * i % 5] for i in range(60)]
    for side, tree in (("a", older), ("b", newer)):
        write_run(tmp_path / side, tree, target=tree.index(names, "names"), final=np.eye(6, dtype=np.float32)[[0] * 60])
    (pair,) = compare.compare(tmp_path / "a", tmp_path / "b").pairs
    assert compare.changes(pair) == []
    assert pair.difference
    assert "hF" in pair.difference.intervals
    hits = names.count(newer.leaves[0]) - names.count(older.leaves[0])
    assert hits
    assert pair.difference.intervals["top1"].difference == pytest.approx(hits / 60)
