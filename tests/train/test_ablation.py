"""Every method tuned alike on validation and tested with seeds of its own, on made-up features."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.main import main
from hfc import runs
from hfc.config import METHODS, TrainConfig, read_toml, resolve
from hfc.errors import FORMER_METHODS, ConfigError, DivergedError, RunError
from hfc.train.ablation import SHIPPED, ablation, read_ablation
from hfc.train.plan import read_sweep
from hfc.train.stage import train_all
from hfc.train.sweep import sweep
from hfc.train.weightings import WEIGHTINGS

PLAN = """
methods = ["flat", "levels+path"]
search_seeds = [0]
seeds = [1, 2]
epochs = 3
batch_size = 64
reduced = 16
[grid]
learning_rate = [1e-6, 0.01]
"""


LINEAR = ("linear", "linear+ps")


@pytest.fixture(scope="module")
def place(place: Path) -> Path:
    (place / "plan.toml").write_text(PLAN)
    return place


def run(place: Path, out: Path, *more: str) -> Result:
    words = ["ablation", str(place / "cache.h5"), "--hierarchy", str(place / "tree.csv"), "--out", str(out), *more]
    return CliRunner().invoke(main, [*words, "--plan", str(place / "plan.toml")], catch_exceptions=False)


def test_one_command_searches_tests_and_reports(place: Path, tmp_path: Path) -> None:
    done = run(place, tmp_path / "a")
    assert done.exit_code == 0
    found = runs.find([tmp_path / "a" / "runs"])
    assert sorted((r.result.method, r.result.seed) for r in found) == [
        ("flat", 1),
        ("flat", 2),
        ("levels+path", 1),
        ("levels+path", 2),
    ]
    # The same search by hand: the tested runs have its best settings, and what the plan fixes.
    (tmp_path / "grid.toml").write_text(
        f"method = 'flat'\nhierarchy = '{place / 'tree.csv'}'\nepochs = 3\nbatch_size = 64\nreduced = 16\n"
        "[grid]\nlearning_rate = [1e-6, 0.01]\n"
    )
    best = sweep(place / "cache.h5", read_sweep(tmp_path / "grid.toml"), tmp_path / "s")[0]
    assert best.settings == {"learning_rate": 0.01}
    for result in (r.result for r in found if r.result.method == "flat"):
        assert result.changed == {"learning_rate": 0.01, "reduced": 16, "epochs": 3}
    assert read_toml(tmp_path / "a" / "search" / "flat" / "best.toml")["learning_rate"] == 0.01
    assert "levels+path (tree)" in done.stdout
    assert "8 trainings; settings chosen without the test split" in done.stdout
    assert (tmp_path / "a" / "report" / "report.md").is_file()


def test_a_length_left_to_the_rows_is_searched_and_tested_as_such(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hfc.train.settling.fitting_epochs", lambda rows: 2)
    text = 'methods = ["flat", "linear"]\nsearch_seeds = [0]\nseeds = [1]\nepochs = 0\n[grid]\nclass_balance = [0.0]\n'
    (tmp_path / "plan.toml").write_text(text)
    plan = read_ablation(str(tmp_path / "plan.toml"), str(place / "tree.csv"))
    tested = ablation(place / "cache.h5", plan, tmp_path / "out")
    assert [(run.result.method, run.result.settings.epochs, len(run.epochs)) for run in tested] == [
        ("flat", 2, 2),
        ("linear", 13, 13),
    ]
    assert [run.result.changed for run in tested] == [{}, {}]
    for method in ("flat", "linear"):
        assert read_toml(tmp_path / "out" / "search" / method / "best.toml")["epochs"] == 0


def test_a_row_is_a_method_with_settings_of_its_own(place: Path, tmp_path: Path) -> None:
    text = PLAN.replace('methods = ["flat", "levels+path"]', 'methods = ["hmcn-f"]').replace(
        "reduced = 16", "reduced = 8"
    )
    rows = '[rows.dwa]\nmethod = "hmcn-f"\nweighting = "dwa"\n[own.dwa]\ntemperature = [1.0]\n'
    (tmp_path / "plan.toml").write_text(text + rows)
    words = ["ablation", place / "cache.h5", "--hierarchy", place / "tree.csv", "--plan", tmp_path / "plan.toml"]
    done = CliRunner().invoke(main, [*map(str, words), "--out", str(tmp_path / "a")], catch_exceptions=False)
    assert done.exit_code == 0
    assert sorted(path.name for path in (tmp_path / "a" / "search").iterdir()) == ["dwa", "hmcn-f"]
    results = [run.result for run in runs.find([tmp_path / "a" / "runs"])]
    assert sorted((r.method, r.config["weighting"], r.config["temperature"], r.seed) for r in results) == [
        ("hmcn-f", "dwa", 1.0, 1),
        ("hmcn-f", "dwa", 1.0, 2),
        ("hmcn-f", "sum", 2.0, 1),
        ("hmcn-f", "sum", 2.0, 2),
    ]
    assert len({r.run for r in results}) == 4
    assert re.search(r"hmcn-f \(tree\) weighting=dwa, temperature=1.0, reduced=8, ", done.stdout)
    assert re.search(r"hmcn-f \(tree\) reduced=8, ", done.stdout)


ROW = '[rows."hmcn-f+dwa"]\nmethod = "hmcn-f"\nweighting = "dwa"\n'


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('method = "hmcn-f"\n', ""), f'[rows."hmcn-f+dwa"]: method: expected one of {", ".join(METHODS)}, found none'),
        (('"hmcn-f"', '"hmcn"'), "[rows.\"hmcn-f+dwa\"]: unknown method 'hmcn'; did you mean hmcn-f?"),
        (('= "dwa"', '= "dwaa"'), "[rows.\"hmcn-f+dwa\"]: unknown weighting 'dwaa'; did you mean dwa?"),
        (('= "dwa"', "= 3"), '[rows."hmcn-f+dwa"]: weighting: expected text, found 3'),
        (
            ("weighting", "weihgting"),
            '[rows."hmcn-f+dwa"]: weihgting is no setting in which rows may differ; see hfc train --help',
        ),
        (
            ('weighting = "dwa"', "seed = 3"),
            '[rows."hmcn-f+dwa"]: seed is no setting in which rows may differ; see hfc train --help',
        ),
        (
            ('weighting = "dwa"', "learning_rate = 0.1"),
            '[rows."hmcn-f+dwa"]: learning_rate is searched as well; leave it out here or there',
        ),
        (
            ('"hmcn-f+dwa"', '"a/b"'),
            '[rows."a/b"]: a folder gets this name; make it of letters, digits and _ + - = . alone',
        ),
        (
            ('"hmcn-f+dwa"', "flat"),
            '[rows."flat"]: a method has this name; list it under methods, or give the row another name',
        ),
        (
            (ROW, f"{ROW}{ROW.replace('+dwa', '2')}"),
            '[rows."hmcn-f2"]: is the same as the row hmcn-f+dwa; leave out one of them',
        ),
        ((ROW, "rows = 3\n"), 'rows: expected tables like [rows."hmcn-f+dwa"], found 3'),
        ((ROW, "[rows]\na = 3\n"), '[rows."a"]: expected a table, found 3'),
        (
            (ROW, 'methods = ["flat", "hmcn-f+mtl-levels"]\n'),
            'methods: hmcn-f+mtl-levels is a row now: give a table [rows."hmcn-f+mtl-levels"] of '
            'method = "hmcn-f+mtl", tasks = "levels"',
        ),
    ],
)
def test_a_row_that_says_nothing_clear_is_refused(change: tuple[str, str], message: str, tmp_path: Path) -> None:
    head, _, grid = PLAN.partition("[grid]")
    file = tmp_path / "plan.toml"
    top = head.replace('methods = ["flat", "levels+path"]\n', "")
    file.write_text(f"{top}{ROW.replace(*change, 1)}[grid]{grid}")
    with pytest.raises(ConfigError) as caught:
        read_ablation(str(file), "deepfashion-5")
    assert str(caught.value) == f"{file}: {message}"


@pytest.mark.slow
def test_what_is_there_is_not_done_again(place: Path, tmp_path: Path) -> None:
    run(place, tmp_path, "--jobs", "2")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json*")}
    assert len(before) == 4 * 2 + 2 + 1  # results and epochs, trials, the report
    run(place, tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.json*")} == before


def test_the_plans_in_the_package_compare_every_method_and_weighting_and_tune_all_alike() -> None:
    plans = {name: read_ablation(name, "deepfashion-5") for name in SHIPPED}
    assert set(plans["methods"].searches) == set(METHODS) | {"hmcn-f+mtl-levels"}
    nested = plans.pop("nested")
    both = {"linear", "linear+ps", "flat", "flat+ps"}
    assert set(nested.searches) == both | {"flat-members", "ps-softmax", "levels+path", "hmcn-f", "hmcn-f+mtl"}
    points = {name: search.points for name, search in nested.searches.items()}
    assert [points.pop(name) for name in LINEAR] == [({"transform": "none"}, {"transform": "sqrt"})] * 2
    assert all(own == points["flat"] for own in points.values())
    assert replace(nested, outer_folds=5).trainings == 5 * (7 * (4 + 2) + 2 * (2 + 2))
    assert set(plans["weightings"].searches) == {"hmcn-f", "hmcn-f+mtl", *FORMER_METHODS}
    rows = {name: search.fixed for plan in plans.values() for name, search in plan.searches.items()}
    for name, settings in FORMER_METHODS.items():
        assert rows[name].items() >= settings.items()
    weightings = {resolve(TrainConfig, search.fixed).weighting for search in plans["weightings"].searches.values()}
    assert weightings == set(WEIGHTINGS)
    for plan in plans.values():
        assert len(plan.seeds) >= 5
        shared = {str(point) for point in next(s for n, s in plan.searches.items() if n not in LINEAR).points}
        for name, search in plan.searches.items():
            if name in LINEAR:  # it chooses its L2 strength within each training, and has neither axis
                assert search.points == ({"standardise": True}, {"standardise": False})
                continue
            own = {name for point in search.points for name in point} - {"learning_rate", "dropout"}
            assert {str({k: v for k, v in point.items() if k not in own}) for point in search.points} == shared
            assert len(own) <= 1
            assert len(search.seeds) * search.folds >= 5


def test_a_setting_of_its_own_is_searched_for_one_method_alone(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(PLAN + "[own.flat]\nclass_balance = [0.0, 0.9]\n")
    searches = read_ablation(str(tmp_path / "plan.toml"), "deepfashion-5").searches
    assert searches["levels+path"].points == ({"learning_rate": 1e-6}, {"learning_rate": 0.01})
    assert searches["flat"].points == (
        {"learning_rate": 1e-6, "class_balance": 0.0},
        {"learning_rate": 1e-6, "class_balance": 0.9},
        {"learning_rate": 0.01, "class_balance": 0.0},
        {"learning_rate": 0.01, "class_balance": 0.9},
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("methods", "methods_"), r"plan.toml: methods: expected a list out of flat, .*; found None"),
        (('"flat"', '"flatt"'), r"methods: expected a list out of .*; found \['flatt', 'levels\+path'\]"),
        (("seeds = [1, 2]", "seeds = [0, 1]"), r"seeds: a seed that is tested must not be one of search_seeds"),
        (("search_seeds = [0]", ""), r"search_seeds: expected a list of integers, found None"),
        (("[grid]", "[gird]"), r"plan.toml: expected a table \[grid\] or \[random\]"),
        (("epochs", "epoch"), r"epoch is no setting that can be searched or fixed"),
        (("[grid]", "[own.levels]\ndropout = [0.5]\n[grid]"), r"own: levels is none of the rows flat, levels\+path"),
        (("[grid]", "[own]\nflat = 3\n[grid]"), r"own: expected a table for each row, .* found \{'flat': 3\}"),
    ],
)
def test_a_plan_that_says_nothing_clear_is_refused(change: tuple[str, str], message: str, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(PLAN.replace(*change, 1))
    with pytest.raises(ConfigError, match=message):
        read_ablation(str(tmp_path / "plan.toml"), "deepfashion-5")


def test_a_method_that_fails_everywhere_is_named_and_the_others_are_done(place: Path, tmp_path: Path) -> None:
    text = PLAN.replace("learning_rate = [1e-6, 0.01]", "dropout = [0.1, 0.2]")
    diverging = "[own.flat]\nlearning_rate = [1e25]\n"
    (tmp_path / "plan.toml").write_text(text + diverging)
    words = ["ablation", place / "cache.h5", "--hierarchy", place / "tree.csv", "--out", tmp_path / "a"]
    done = CliRunner().invoke(main, [*map(str, words), "--plan", str(tmp_path / "plan.toml")])
    assert done.exit_code == 1
    assert re.fullmatch(
        rf"Error: {tmp_path / 'a'}: no result for flat, so nothing is compared. flat: {tmp_path / 'a'}/search/flat: "
        r"all 2 points failed; the first one: flat, seed 0: the loss is (nan|inf) in epoch \d; try a smaller --set "
        r"learning_rate or --set precision=fp32\n",
        done.stderr,
    )
    assert {run.result.method for run in runs.find([tmp_path / "a" / "runs"])} == {"levels+path"}


def test_a_point_that_diverges_is_not_the_one_that_is_tested(place: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(PLAN.replace("[1e-6, 0.01]", "[1e25, 0.01]"))
    found = ablation(place / "cache.h5", read_ablation(str(tmp_path / "plan.toml"), str(place / "tree.csv")), tmp_path)
    assert [run.result.config["learning_rate"] for run in found] == [0.01] * 4


def test_a_tested_run_that_diverges_is_named_with_its_method(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(cache: Path, configs: list[TrainConfig], out: Path, **more: object) -> Iterator[tuple[runs.Run, bool]]:
        if configs[0].method == "flat":
            raise DivergedError("flat, seed 1: made to fail")
        return train_all(cache, configs, out, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("hfc.train.ablation.train_all", fail)
    with pytest.raises(RunError) as caught:
        ablation(place / "cache.h5", read_ablation(str(place / "plan.toml"), str(place / "tree.csv")), tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: no result for flat, so nothing is compared. flat: flat, seed 1: made to fail"
    )
    assert {run.result.method for run in runs.find([tmp_path / "runs"])} == {"levels+path"}
