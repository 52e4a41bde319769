"""Outer folds: each labelled row is tested once, and what tests it never saw it."""

import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from cli.main import main
from hfc import runs
from hfc.errors import ConfigError, RunError
from hfc.regions import strings
from hfc.report import ReportSummary
from hfc.train import cache as cache_module
from hfc.train.ablation import Ablation, ablation, read_ablation
from hfc.train.cache import Cache, load_cache
from hfc.train.features import Resident
from hfc.train.outer import OuterFold, warn_of_rare
from hfc.train.prepared import prepare_run
from hfc.train.stage import train_all
from tests.support.made_up import small_cache, write_cache
from tests.support.training import quick

LEAVES = ["Tee", "Tank", "Coat", "Jeans", "Chinos", "Shorts"]
PLAN = """
folds = 2
search_seeds = [0]
seeds = [1]
epochs = 2
[rows.net]
method = "flat"
batch_size = 128
reduced = 16
learning_rate = 0.03
[rows.refitted]
method = "linear"
refit = "train+val"
l2_last = 0.01
[grid]
transform = ["none", "sqrt"]
"""


def splits_of(path: Path, folds: int) -> list[list[str]]:
    """The split of each row, fold by fold."""
    return [load_cache(path, outer=OuterFold(k, folds)).table.regions.split.tolist() for k in range(folds)]


def test_each_labelled_row_is_tested_once_and_every_label_gives_each_part_its_share(place: Path) -> None:
    dealt = splits_of(place / "cache.h5", 5)
    labels = load_cache(place / "cache.h5").table.regions.label.tolist()
    assert all(sum(split[row] == "test" for split in dealt) == 1 for row in range(360))
    for split in dealt:
        assert Counter(split) == {"train": 252, "val": 36, "test": 72}
        counts = Counter(zip(labels, split, strict=True))
        assert {counts[label, "test"] for label in LEAVES} == {12}
        assert {counts[label, "val"] for label in LEAVES} == {6}
    assert dealt == splits_of(place / "cache.h5", 5)


def test_what_no_head_can_use_stays_where_it_is(tmp_path: Path) -> None:
    labels, splits = [*["Tee", "Coat"] * 20, "", "Tee", "Coat"], [*["train", "test"] * 20, "train", "", "val"]
    path = write_cache(tmp_path / "c.h5", labels, splits, failed=[42])
    for split in splits_of(path, 4):
        assert split[40:] == ["train", "", "val"]
        assert Counter(split[:40])["test"] == 10


def test_groups_stay_together(tmp_path: Path) -> None:
    groups = [f"g{i // 6 % 30}" for i in range(360)]  # two of each six labels
    dealt = splits_of(small_cache(tmp_path / "c.h5", groups=groups), 3)
    for split in dealt:
        assert len(set(zip(groups, split, strict=True))) == 30
        assert 100 <= Counter(split)["test"] <= 140
    assert all(sum(split[row] == "test" for split in dealt) == 1 for row in range(360))


@pytest.mark.parametrize("count", [1, -1])
def test_a_number_of_folds_that_there_cannot_be_is_refused(count: int, place: Path) -> None:
    message = f"--outer-folds: expected two or more, or 0 for the cache's own splits, found {count}"
    with pytest.raises(ConfigError) as caught:
        read_ablation("methods", str(place / "tree.csv"), count)
    assert str(caught.value) == message
    with pytest.raises(ConfigError) as caught:
        load_cache(place / "cache.h5", outer=OuterFold(0, count))
    assert str(caught.value) == message


def test_the_command_takes_the_number_and_counts_its_trainings(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["ablation", str(place / "cache.h5"), "--hierarchy", str(place / "tree.csv"), "--out", str(tmp_path)]
    refused = CliRunner().invoke(main, [*words, "--outer-folds", "1"])
    assert (refused.exit_code, refused.stderr) == (
        1,
        "Error: --outer-folds: expected two or more, or 0 for the cache's own splits, found 1\n",
    )
    done: list[Ablation] = []
    monkeypatch.setattr("hfc.train.ablation.ablation", lambda cache, plan, out, **how: done.append(plan))
    monkeypatch.setattr("hfc.report.write_report", lambda roots, out: ReportSummary(out, 1, "a table", ()))
    (tmp_path / "plan.toml").write_text(PLAN)
    said = CliRunner().invoke(main, [*words, "--plan", str(tmp_path / "plan.toml"), "--outer-folds", "3"])
    assert said.exit_code == 0
    assert [plan.outer_folds for plan in done] == [3]
    told = f"settings chosen without the images of the outer fold; report: {tmp_path / 'report'}"
    assert said.stdout == f"a table\n\n30 trainings; {told}\n"


@pytest.mark.parametrize(
    ("groups", "words"), [((), "rows, and three at least; found 6"), (["a", "b"] * 3, "groups of rows, .*; found 2")]
)
def test_fewer_rows_or_groups_than_folds_are_refused(groups: list[str], words: str, tmp_path: Path) -> None:
    path = write_cache(tmp_path / "c.h5", ["Tee", "Coat"] * 3, ["train", "val", "test"] * 2, groups=groups)
    with pytest.raises(RunError, match=f"{path}: 7 outer folds need as many labelled {words}"):
        load_cache(path, outer=OuterFold(0, 7))


@pytest.mark.parametrize(("groups", "what"), [((), "rows"), ([f"g{i}" for i in range(22)], "groups of rows")])
def test_labels_rarer_than_folds_are_named(
    groups: list[str], what: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_cache(tmp_path / "c.h5", ["Tee", "Coat"] * 10 + ["Hat"] * 2, ["train", "test"] * 11, groups=groups)
    for folds in (2, 3):
        outer = OuterFold(0, folds)
        with caplog.at_level(logging.WARNING):
            warn_of_rare(outer, load_cache(path, outer=outer).table, path)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: 1 of 3 labels have fewer {what} than the 3 outer folds, so that some folds test none of them: Hat"
    ]


def test_the_fold_and_the_row_it_is_for_are_in_the_key_and_the_name(place: Path, cache: Cache) -> None:
    config, path = quick(place), place / "cache.h5"
    folds = [OuterFold(0, 5, "a"), OuterFold(1, 5, "a"), OuterFold(0, 4, "a"), OuterFold(0, 5, "b")]
    prepared = [prepare_run(load_cache(path, outer=outer), config) for outer in folds]
    own = prepare_run(cache, config)
    assert len({run.key for run in (own, *prepared)}) == 5
    assert prepared[1].name == f"hmcn-f+mtl--tree--fold1--seed0--{prepared[1].key[:8]}"
    assert own.name == f"hmcn-f+mtl--tree--seed0--{own.key[:8]}"


def scrambled(cache: Cache) -> Cache:
    """The same cache, but that the rows of the test split have other features and each other's labels."""
    regions, rng = cache.table.regions, np.random.default_rng(7)
    test = np.flatnonzero(regions.split == "test")
    assert isinstance(cache.features, Resident)
    features = cache.features.tensor.clone()
    features[test] = torch.from_numpy(rng.normal(size=(len(test), 1, 16)) * 50).to(features.dtype)
    label = np.array(regions.label.tolist(), dtype=object)
    label[test] = rng.permutation(label[test])
    table = replace(cache.table, regions=replace(regions, label=strings(label.tolist())))
    return replace(cache, features=Resident(features), table=table)


ONE_ROW = PLAN[: PLAN.index("[rows.refitted]")] + '[grid]\ntransform = ["none", "sqrt"]\n'


@pytest.mark.parametrize("text", [PLAN, ONE_ROW.replace("folds = 2", "folds = 0")])
def test_nothing_of_a_fold_reaches_what_is_tested_on_it(
    text: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plan.toml").write_text(text)
    plan = read_ablation(str(tmp_path / "plan.toml"), str(place / "tree.csv"), 2)
    plain = ablation(place / "cache.h5", plan, tmp_path / "plain")
    monkeypatch.setattr(cache_module, "load_cache", lambda path, **how: scrambled(load_cache(path, **how)))
    other = ablation(place / "cache.h5", plan, tmp_path / "other")
    searched = sorted(path.relative_to(tmp_path / "plain") for path in tmp_path.glob("plain/search/*/*/*"))
    assert len(searched) == len(plan.searches) * 2 * 2  # the trials and the best point of each row, on each fold
    for file in searched:
        assert (tmp_path / "plain" / file).read_bytes() == (tmp_path / "other" / file).read_bytes()
    assert len(plain) == len(plan.searches) * 2
    for one, two in zip(plain, other, strict=True):
        assert (one.folder / "head.safetensors").read_bytes() == (two.folder / "head.safetensors").read_bytes()
        a, b = one.result, two.result
        assert (a.run, a.key, a.config, a.selected, a.outer) == (b.run, b.key, b.config, b.selected, b.outer)
        assert a.temperature is not None
        assert b.temperature is not None
        assert a.temperature.value == b.temperature.value
        assert a.temperature.validation == b.temperature.validation
        assert a.test["top1"] > b.test["top1"] + 0.2  # so it is the test rows that were changed


def test_a_row_has_a_run_for_each_fold_and_seed_and_all_rows_of_the_cache_are_tested(
    place: Path, tmp_path: Path
) -> None:
    # Two rows that search the same, and so choose the same: each has its own runs.
    again = PLAN[PLAN.index("[rows.refitted]") : PLAN.index("[grid]")].replace("refitted", "again")
    again += '[instead.again]\ntransform = ["sqrt", "none"]\n[grid]'
    (tmp_path / "plan.toml").write_text(PLAN.replace("s = [1]", "s = [1, 2]").replace("[grid]", again))
    plan = read_ablation(str(tmp_path / "plan.toml"), str(place / "tree.csv"), 2)
    tested = ablation(place / "cache.h5", plan, tmp_path)
    assert len(tested) == 3 * 2 * 2
    lines = [line for file in tmp_path.glob("search/*/*/trials.jsonl") for line in file.read_text().splitlines()]
    assert plan.trainings == len(lines) + len(tested) == 2 * (3 * 2 * 2 + 3 * 2)
    by_row: dict[tuple[str, int], list[runs.Run]] = {}
    for run in tested:
        assert run.result.outer is not None
        assert (run.result.outer.folds, run.result.outer.searched) == (2, ("transform",))
        by_row.setdefault((run.result.outer.row, run.result.seed), []).append(run)
    assert sorted(by_row) == [(row, seed) for row in ("again", "net", "refitted") for seed in (1, 2)]
    for folds in by_row.values():
        assert [run.result.rows.test for run in folds] == [180, 180]
        assert len({run.folder for run in folds}) == 2


def test_what_was_interrupted_goes_on_and_gives_the_same(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plan.toml").write_text(ONE_ROW)
    plan = read_ablation(str(tmp_path / "plan.toml"), str(place / "tree.csv"), 2)
    whole = ablation(place / "cache.h5", plan, tmp_path / "whole")
    calls: list[str] = []

    def killed(*arguments: object, **named: object) -> object:
        calls.append("call")
        if len(calls) == 2:
            raise KeyboardInterrupt
        return train_all(*arguments, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("hfc.train.ablation.train_all", killed)
        ablation(place / "cache.h5", plan, tmp_path / "again")
    before = {file: file.stat().st_mtime_ns for file in tmp_path.glob("again/runs/*/result.json")}
    assert len(before) == 1
    again = ablation(place / "cache.h5", plan, tmp_path / "again")
    assert {file: file.stat().st_mtime_ns for file in before} == before
    for one, two in zip(whole, again, strict=True):
        assert one.result.key == two.result.key
        assert one.result.test == two.result.test
        assert (one.folder / "head.safetensors").read_bytes() == (two.folder / "head.safetensors").read_bytes()
