"""Runs on nested shares of the training images."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from cli.main import main
from hfc.config import resolve
from hfc.errors import ConfigError
from hfc.train import cache as reading
from hfc.train.cache import Cache, load_cache
from hfc.train.curve import halvings, points
from hfc.train.data import BEYOND, prepare
from hfc.train.estimator import HierarchicalClassifier
from hfc.train.stage import train, train_all
from tests.support.made_up import small_cache, write_cache, write_tree_csv
from tests.support.training import quick


def hfc(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cache, str]:
    """240 rows in 80 groups of three, and their tree."""
    folder = tmp_path_factory.mktemp("grouped")
    labels = [["Tee", "Tank", "Coat", "Jeans", "Chinos", "Shorts"][i // 3 % 6] for i in range(240)]
    splits = [("train", "train", "train", "val", "test")[i // 18 % 5] for i in range(240)]
    groups = [f"item {i // 3}" if i % 4 else "" for i in range(240)]
    path = write_cache(folder / "c.h5", labels, splits, groups=groups)
    return load_cache(path, device="cpu"), str(write_tree_csv(folder / "tree.csv"))


def test_smaller_shares_are_parts_of_larger_ones_and_leave_the_other_splits_alone(grouped: tuple[Cache, str]) -> None:
    cache, tree = grouped
    whole = prepare(cache, tree)
    larger: set[int] = set(whole.rows["train"].tolist())
    for share in (0.8, 0.5, 0.2, 0.01):
        data = prepare(cache, tree, train_share=share, seed=3)
        rows = set(data.rows["train"].tolist())
        assert rows < larger
        assert data.unused[BEYOND] == len(whole.rows["train"]) - len(rows)
        assert set(data.leaf("train").tolist()) == set(range(6))
        names = set(cache.table.regions.group[sorted(rows)].tolist()) - {""}
        left = set(whole.rows["train"].tolist()) - rows
        assert not names & set(cache.table.regions.group[sorted(left)].tolist())
        for split in ("val", "test"):
            np.testing.assert_array_equal(data.rows[split], whole.rows[split])
        larger = rows
    assert BEYOND not in whole.unused
    others = [prepare(cache, tree, train_share=0.5, seed=seed).rows["train"].tolist() for seed in range(3)]
    assert len(set(map(tuple, others))) == 3


def test_the_share_and_the_seed_that_draws_are_in_the_key(place: Path, cache: Cache, tmp_path: Path) -> None:
    runs = [
        train(cache, quick(place, method="linear", epochs=1, **changes), tmp_path)[0]
        for changes in ({}, {"train_share": 0.5}, {"train_share": 0.5, "seed": 1}, {"train_share": 0.25})
    ]
    assert len({run.result.key for run in runs}) == 4
    assert [run.folder.name.split("--")[2] for run in runs] == ["seed0", "share0.5", "share0.5", "share0.25"]
    assert runs[1].result.changed["train_share"] == 0.5
    assert runs[1].result.rows.unused[BEYOND] > 0
    assert runs[0].result.changed.get("train_share") is None
    assert runs[0].result.rows.unused.keys() == {"without features", "without label", "without split"}


@pytest.mark.slow
def test_stacked_runs_have_the_rows_of_their_own_seed(place: Path, cache: Cache, tmp_path: Path) -> None:
    for step in ("single", "stacked"):
        words = ("train", place / "cache.h5", "--hierarchy", place / "tree.csv", "--method", "flat", "--seeds", "0-1")
        more = ("--set", f"step={step}", "--set", "train_share=0.3", "--epochs", 2, "--set", "precision=fp32")
        assert hfc(*words, *more, "--batch-size", 16, "--out", tmp_path / step).exit_code == 0
    for seed in (0, 1):
        (one,), (other,) = (
            [json.loads(file.read_text()) for file in (tmp_path / step).glob(f"*--seed{seed}-*/result.json")]
            for step in ("single", "stacked")
        )
        assert one["rows"] == other["rows"]
        assert one["selected"]["val"]["nll"] == pytest.approx(other["selected"]["val"]["nll"], rel=1e-4)


def test_shares_are_halved_down_to_two_a_class() -> None:
    assert halvings(2830, 17) == [1, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64]
    assert halvings(96, 6) == [1, 1 / 2, 1 / 4, 1 / 8]
    assert halvings(12, 6) == [1, 1 / 2, 1 / 4]


def test_the_runs_of_a_curve_begin_with_the_fewest_images(place: Path) -> None:
    configs = [quick(place, method="linear", seed=seed) for seed in (0, 1)]
    listed = points(place / "cache.h5", configs, (1, 0.25, 0.5, 0.25))
    assert [(one.train_share, one.seed) for one in listed] == [(s, seed) for s in (0.25, 0.5, 1) for seed in (0, 1)]
    assert {one.train_share for one in points(place / "cache.h5", configs)} == set(halvings(216, 6))
    with pytest.raises(ConfigError, match=r"a curve needs two shares at least, such as 0.25,0.5,1"):
        points(place / "cache.h5", configs, (0.5, 0.5))
    with pytest.raises(ConfigError, match="train_share: is what hfc curve varies; leave it out, or give --shares"):
        points(place / "cache.h5", [quick(place, train_share=0.5)])


def test_a_share_that_cannot_be_is_refused(place: Path) -> None:
    with pytest.raises(ConfigError, match=r"train_share: expected 0.001 to 1, found 1.5"):
        resolve(type(quick(place)), {"train_share": 1.5})
    with pytest.raises(ConfigError, match="settings: train_share: give fit the rows to train on"):
        HierarchicalClassifier(settings={"train_share": 0.5}).fit(np.ones((8, 3)), list("abababab"))


def test_the_command_draws_a_curve_and_a_second_call_trains_nothing(tmp_path: Path) -> None:
    small_cache(tmp_path / "c.h5")
    write_tree_csv(tmp_path / "tree.csv")
    words = ("curve", tmp_path / "c.h5", "--hierarchy", tmp_path / "tree.csv", "--method", "linear", "--seeds", "0-1")
    settings = ("--set", "epochs=2", "--shares", "0.1,0.4,1", "--out", tmp_path / "curve")
    done = hfc(*words, *settings)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    start = lines.index("linear (tree) epochs=2: top-1 against training images")
    assert lines[start + 1].split("  ")[0] == "images a class"
    rows = [line.split() for line in lines[start + 2 : start + 5]]
    assert [(row[0], *row[-3:]) for row in rows] == [
        ("4.0", "24", "0.1", "2"),
        ("15.0", "90", "0.4", "2"),
        ("36.0", "216", "1", "2"),
    ]
    assert lines[-1].startswith("linear (tree) epochs=2: twice as many training images, 72 a class, would bring +")
    made = sorted(path.stat().st_mtime_ns for path in (tmp_path / "curve").rglob("result.json"))
    content = json.loads(hfc(*words, *settings, "--json").stdout)
    assert made == sorted(path.stat().st_mtime_ns for path in (tmp_path / "curve").rglob("result.json"))
    (curve,) = content["curves"]
    assert (len(content["runs"]), [point["share"] for point in curve["points"]]) == (6, [0.1, 0.4, 1.0])
    assert set(curve["doubling"]) == {"n", "gain", "low", "high", "top1"}


@pytest.mark.parametrize(("shares", "code"), [("0,1", 1), ("half", 1), ("0.5", 1), ("2", 1)])
def test_shares_that_are_none_end_with_1(shares: str, code: int, tmp_path: Path) -> None:
    small_cache(tmp_path / "c.h5")
    write_tree_csv(tmp_path / "tree.csv")
    words = ("curve", tmp_path / "c.h5", "--hierarchy", tmp_path / "tree.csv", "--shares", shares)
    done = hfc(*words, "--out", tmp_path / "curve")
    assert (done.exit_code, len(done.stderr.splitlines())) == (code, 1), done.output
    assert not (tmp_path / "curve").exists()


@pytest.mark.parametrize("jobs", [0, 1])
def test_a_curve_reads_its_cache_once(jobs: int, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[object] = []

    def counted(**words: object) -> Cache:
        read.append(words)
        return load_cache(**words)  # type: ignore[arg-type]

    monkeypatch.setattr(reading, "load_cache", counted)
    reading.open_cache.cache_clear()
    listed = points(place / "cache.h5", [quick(place, method="linear", epochs=1)], jobs=jobs)
    assert len(list(train_all(place / "cache.h5", listed, tmp_path / "runs", jobs=jobs))) == len(listed)
    assert len(read) == 1
