"""Files of an earlier version are read as before, with the same numbers; made_before/README.md says what they are."""

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from hfc import runs
from hfc.config import TrainConfig, resolve
from hfc.predict import Classifier
from hfc.report import write_report
from hfc.report.rows import read_leaderboards
from hfc.report.statistics import all_pairs
from hfc.runs import Epoch, Result
from hfc.store import FeatureStore, read_predictions
from hfc.train.cache import load_cache
from hfc.train.stage import train

MADE = Path(__file__).parent / "made_before"
RUNS = sorted(path.parent.name for path in MADE.glob("runs/*/result.json"))
ANSWERED = {  # by the file of the answers
    "flat": "flat--deepfashion-5--seed0--ceaf7199",
    "hmcn-f": "hmcn-f--deepfashion-10--seed0--969e5c1b",
    "hmcn-f+mtl": "hmcn-f+mtl--deepfashion-5--seed0--7e5730a1",
    "levels": "levels--deepfashion-5--seed0--9739d31a",
    "levels+path": "levels+path--deepfashion-5--seed0--c23bf936",
}


def test_the_files_are_all_there() -> None:
    assert len(RUNS) == 9
    assert set(ANSWERED.values()) < set(RUNS)


@pytest.mark.parametrize("name", RUNS)
def test_json_is_written_byte_for_byte_as_it_was_read(name: str) -> None:
    folder = MADE / "runs" / name
    content = (folder / "result.json").read_bytes()
    result = Result.from_json(content, "result.json")
    assert (result.run, result.others) == (name, {})
    assert result.to_json() == content
    lines = (folder / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    epochs = [Epoch.from_json(line, "metrics.jsonl") for line in lines]
    assert [epoch.number for epoch in epochs] == [1, 2, 3]
    assert [epoch.to_json() for epoch in epochs] == lines
    assert runs.read(folder) == runs.Run(folder, result, tuple(epochs))


@pytest.mark.parametrize("name", RUNS)
def test_a_result_holds_what_json_says(name: str) -> None:
    """Read by another hand: every number of the file is in the field of its name."""
    folder = MADE / "runs" / name
    content = json.loads((folder / "result.json").read_text("utf-8"))
    result = runs.read(folder).result
    by_level = content["test"].pop("level_accuracy")
    assert result.test == content["test"] | {f"level_accuracy/{level}": share for level, share in by_level.items()}
    assert (result.seed, result.method, result.changed) == (content["seed"], content["method"], content["changed"])
    assert result.config == content["config"]
    assert result.settings.topk == tuple(content["config"]["topk"])
    assert (result.beta is None) == ("beta" not in content)
    assert [reading.correct for reading in result.climb or ()] == [point["correct"] for point in content["stopping"]]
    assert result.selected.val["top1"] == content["selected"]["val"]["top1"]
    assert result.rows.unused == content["rows"]["unused"]


@pytest.mark.parametrize("name", RUNS)
def test_predictions_and_trees_are_read(name: str) -> None:
    run = runs.read(MADE / "runs" / name)
    predictions = read_predictions(run.folder / "predictions.h5")
    right = predictions.final.argmax(axis=1) == predictions.target
    assert (predictions.key, float(right.mean())) == (run.result.key, run.result.test["top1"])
    tree = runs.hierarchy(run)
    assert (tree.sizes, tree.levels) == (run.result.hierarchy.sizes, run.result.hierarchy.levels)


def test_the_cache_is_read_whole() -> None:
    result = runs.read(MADE / "runs" / RUNS[0]).result
    with FeatureStore(MADE / "cache.h5") as store:
        assert (store.key, store.features_sha256) == (result.cache.feature_key, result.cache.features_sha256)
        assert store.key_fields == result.cache.key_fields
        assert store.features().shape == (result.cache.rows, result.cache.views, result.cache.dim)
        table = store.table()
    splits, counts = np.unique(table.regions.split, return_counts=True)
    rows = result.rows
    assert dict(zip(splits.tolist(), counts.tolist(), strict=True)) == {
        "train": rows.train,
        "val": rows.val,
        "test": rows.test,
    }


@pytest.mark.parametrize("method", ANSWERED)
def test_answers_are_the_same(method: str) -> None:
    lines = (MADE / f"answers-{method}.json").read_text("utf-8").splitlines()
    classifier = Classifier.load(MADE / "runs" / ANSWERED[method], device="cpu")
    answers = classifier([MADE / json.loads(line)["id"] for line in lines])
    for line, answer in zip(lines, answers, strict=True):
        expected = json.loads(line)
        assert list(answer.path) == expected["path"]
        assert answer.probabilities == pytest.approx(expected["probabilities"], abs=1e-5)
        assert [list(leaf.path) for leaf in answer.top] == [leaf["path"] for leaf in expected["top"]]
        chances = [leaf["probability"] for leaf in expected["top"]]
        assert [leaf.probability for leaf in answer.top] == pytest.approx(chances, abs=1e-5)


OF_TESTS = ("right alone", "p", "p corrected", "only_first_right", "only_second_right", "p_corrected", "significant")


def tables(markdown: Path) -> list[list[str]]:
    """The lines of a report's tables, without the columns of tests: a majority of the seeds was tested, now all are."""
    rows, header = [], None
    for line in markdown.read_text("utf-8").splitlines():
        cells = line.strip("| ").split(" | ") if line.startswith("|") else None
        header = (header or cells) if cells else None
        if cells and header:
            rows.append([cell for cell, title in zip(cells, header, strict=True) if title not in OF_TESTS])
    return rows


def first_columns(table: Path, count: int) -> list[list[str]]:
    """The columns that were there before; later ones follow them."""
    with table.open(encoding="utf-8", newline="") as lines:
        return [row[:count] for row in csv.reader(lines)]


def test_the_report_has_the_same_tables_and_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(MADE)
    monkeypatch.setattr("hfc.report.rows.Row.of_deepfashion", True)  # the paper's table stood beside all data
    write_report([Path("runs")], tmp_path)
    before = MADE / "report"
    for name in ("results.csv", "table1.tex"):
        assert (tmp_path / name).read_text("utf-8") == (before / name).read_text("utf-8"), name
    assert first_columns(tmp_path / "differences.csv", 6) == first_columns(before / "differences.csv", 6)
    assert len(tables(before / "report.md")) > 100
    rows = Counter(map(tuple, tables(tmp_path / "report.md")))
    assert Counter(map(tuple, tables(before / "report.md"))) - rows == Counter()  # there are tables beside them by now
    found, expected = (json.loads((folder / "results.json").read_text("utf-8")) for folder in (tmp_path, before))
    for pair in found["differences"]:  # by which test a difference was judged, and on how many images and groups
        assert (pair.pop("test"), pair.pop("images"), pair.pop("groups")) in (
            ("exact sign-flip test", 50, 50),
            ("McNemar's exact test", 50, 50),
        )
    for pair, older in zip(found["differences"], expected["differences"], strict=True):
        assert pair.pop("p_of_seeds") == pytest.approx(older.pop("p_of_seeds"))
        for name in OF_TESTS:
            pair.pop(name, None), older.pop(name, None)
    assert {name: found[name] for name in ("rows", "differences", "runs", "published", "verdicts")} == {
        name: expected[name] for name in ("rows", "differences", "runs", "published", "verdicts")
    }


def test_a_report_takes_its_tree_and_that_of_a_new_run_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The older run keeps the order of the rows in the tree's file, a new one the order of names."""
    monkeypatch.chdir(MADE)
    config = resolve(TrainConfig, {"method": "levels+path", "hierarchy": "deepfashion-5", "epochs": 3, "device": "cpu"})
    new, _ = train(load_cache(Path("cache.h5"), device="cpu"), config, tmp_path)
    old = runs.read(MADE / "runs" / ANSWERED["levels+path"])
    trees = [runs.hierarchy(run) for run in (old, new)]
    assert trees[0].leaves != trees[1].leaves
    assert sorted(trees[0].leaves) == list(trees[1].leaves)
    (board,) = read_leaderboards([old, new])
    assert len({outcome.row.first.hierarchy.digest for outcome in board.outcomes}) == 1
    (difference,) = all_pairs(board.outcomes)
    shares = {}
    for run, tree in zip((old, new), trees, strict=True):  # hF by hand, in names
        stored = read_predictions(run.folder / "predictions.h5")
        pairs = zip(stored.final.argmax(axis=1).tolist(), stored.target.tolist(), strict=True)
        same = [[a == b for a, b in zip(tree.path(x), tree.path(y), strict=True)] for x, y in pairs]
        shares[run.folder] = float(np.mean(same))
    first, second = (shares[outcome.row.runs[0].folder] for outcome in (difference.first, difference.second))
    assert difference.intervals["hF"].difference == pytest.approx(first - second)
