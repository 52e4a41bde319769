"""Rows on several caches of the same images. What is paired is held by tests/report/test_numbers.py as well."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hfc import runs, store
from hfc.report import caches, compare, write_report
from hfc.report.cells import Table
from hfc.report.checks import check
from hfc.report.rows import Leaderboard, read_leaderboards
from tests.support.caches import put, regions
from tests.support.made_runs import TREE, tree_of, write_run

KEY = {"backbone": "made-up", "views": ["identity", "flip"], "pool": "mean", "store": "float16"}
SMALL: dict[str, Any] = {
    "cache__features_sha256": "1" * 64,
    "cache__image_size": 96,
    "cache__key_fields": KEY | {"pool": "max", "store": "float32"},
}


def made_cache(path: Path, rows: int, **provenance: object) -> str:
    """A cache of some rows; its key."""
    features = np.zeros((rows, 2, 16), dtype=np.float16)
    put(path, regions(rows), features, key_fields=KEY, provenance={"dataset": {"rows": rows}, **provenance})
    with store.FeatureStore(path) as opened:
        return opened.key


def board_of(folder: Path) -> Leaderboard:
    (board,) = read_leaderboards(runs.find([folder]))
    return board


def tables_of(folder: Path) -> dict[str, Table]:
    return {table.name: table for table in caches.tables(board_of(folder))}


def lines(table: Table) -> list[dict[str, str]]:
    return [dict(zip(table.header, (cell.text for cell in row), strict=True)) for row in table.rows]


def test_seconds_and_bytes_of_an_image_stand_beside_the_accuracy(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    key = made_cache(tmp_path / "c.h5", 8, seconds=4.0)
    large = {"cache__path": str(tmp_path / "c.h5"), "cache__feature_key": key, "cache__key_fields": KEY}
    write_run(tmp_path / "runs" / "large", tree, skill=3.0, **large)
    write_run(tmp_path / "runs" / "small", tree, skill=1.0, **SMALL)
    first, second = lines(tables_of(tmp_path / "runs")["caches"])
    assert first == {
        "method": "flat (tree) 224 px",
        "top-1 %": first["top-1 %"],
        "ms an image": "500.0",
        "bytes an image": "64",  # 16 features of 2 views, 2 bytes each
        "px": "224",
        "pool": "mean",
        "stored as": "float16",
    }
    assert (second["ms an image"], second["bytes an image"]) == ("unknown", "128")
    assert (second["px"], second["pool"], second["stored as"]) == ("96", "max", "float32")
    assert float(first["top-1 %"]) > float(second["top-1 %"])


@pytest.mark.parametrize(
    "provenance",
    [
        {},
        {"seconds": 4.0, "updates": [{"kept": 4, "encoded": 4}]},
        {"seconds": 4.0, "retries": [{"rows": 1}]},
        {"seconds": 4.0, "dataset": {}},
    ],
)
def test_seconds_that_are_not_of_all_images_are_unknown(provenance: dict[str, object], tmp_path: Path) -> None:
    key = made_cache(tmp_path / "c.h5", 8, **provenance)
    assert caches.seconds_an_image(tmp_path / "c.h5", key) is None


def test_seconds_of_another_cache_or_of_none_are_unknown(tmp_path: Path) -> None:
    key = made_cache(tmp_path / "c.h5", 8, seconds=2.0)
    assert caches.seconds_an_image(tmp_path / "c.h5", key) == 0.25
    assert caches.seconds_an_image(tmp_path / "c.h5", "0" * 64) is None
    assert caches.seconds_an_image(tmp_path / "none.h5", key) is None


def test_rows_on_one_cache_have_no_such_tables(place: Path) -> None:
    assert tables_of(place / "runs") == {}
    assert "Which features" not in (place / "report" / "report.html").read_text("utf-8")


def test_a_row_is_paired_with_those_that_differ_in_features_labels_or_tree_alone(tmp_path: Path) -> None:
    tree, other = tree_of(tmp_path / "one.csv"), tree_of(tmp_path / "two.csv", TREE.replace("Hat,hats", "Hat,tops"))
    write_run(tmp_path / "runs" / "a", tree, skill=4.0, cache__key_fields=KEY)
    write_run(tmp_path / "runs" / "b", other, skill=3.0, cache__key_fields=KEY)
    write_run(tmp_path / "runs" / "c", tree, skill=2.0, **SMALL)
    write_run(tmp_path / "runs" / "d", tree, skill=2.0, **SMALL | {"changed": {"width": 9}, "config__width": 9})
    write_run(tmp_path / "runs" / "e", tree, method="levels", skill=2.0, **SMALL)
    assert [(line["method"], line["what changes"]) for line in lines(tables_of(tmp_path / "runs")["matched"])] == [
        ("flat (one) 224 px", "px 224 → 96, pool mean → max, stored as float16 → float32"),
        ("flat (one) 224 px", "tree one → two"),
    ]
    lines_of = check([outcome.row for outcome in board_of(tmp_path / "runs").outcomes], [])
    assert [line.state for line in lines_of if "see Which features" in line.text] == ["mind"]


def test_features_that_differ_in_nothing_that_can_be_named_must_not_be_compared(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    write_run(tmp_path / "runs" / "a", tree)
    write_run(tmp_path / "runs" / "b", tree, method="levels", cache__features_sha256="0" * 64)
    rows = [outcome.row for outcome in board_of(tmp_path / "runs").outcomes]
    assert not caches.are_several(rows)
    (wrong,) = [line.text for line in check(rows, []) if line.state == "wrong"]
    assert wrong.startswith("Rows differ in their features:")


def test_a_comparison_matches_rows_under_other_trees_and_on_other_features(tmp_path: Path) -> None:
    tree, other = tree_of(tmp_path / "one.csv"), tree_of(tmp_path / "two.csv", TREE.replace("Hat,hats", "Hat,tops"))
    for method in ("flat", "levels"):
        write_run(tmp_path / "a" / method, tree, method=method, cache__key_fields=KEY)
    write_run(tmp_path / "b" / "flat", other, method="flat", cache__key_fields=KEY)
    write_run(tmp_path / "b" / "levels", tree, method="levels", **SMALL)
    compared = compare.compare(tmp_path / "a", tmp_path / "b")
    assert {pair.label for pair in compared.pairs} == {"levels (one)", "flat (one) → flat (two)"}
    assert compared.only == ((), ())
    metrics = compare.document(compared).sections[0].blocks[0]
    assert isinstance(metrics, Table)
    assert {line["method"]: line["what differs"] for line in lines(metrics)} == {
        "levels (one)": "px 224 → 96, pool mean → max, stored as float16 → float32",
        "flat (one) → flat (two)": "tree one → two",
    }
    assert "tree one → two" in compare.plain(compared, compare.document(compared))


def test_the_page_has_a_section_of_features(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    write_run(tmp_path / "runs" / "large", tree, skill=3.0, cache__key_fields=KEY)
    write_run(tmp_path / "runs" / "small", tree, skill=1.0, **SMALL)
    summary = write_report([tmp_path / "runs"], tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "<h2>Which features</h2>" in page
    assert "Do not compare" not in page
    assert "✗" not in summary.table
