"""Tables from made-up runs with known numbers."""

import copy
import csv
import io
from pathlib import Path
from typing import Any

import pytest

from hfc.report import tables
from hfc.runs import Run

RESULT: dict[str, Any] = {
    "run": "r",
    "key": "k",
    "method": "flat",
    "seed": 0,
    "changed": {},
    "config": {},
    "cache": {
        "path": "c.h5",
        "feature_key": "f" * 64,
        "features_sha256": "s" * 64,
        "origin": "DeepFashion",
        "backbone": "b5",
        "image_size": 224,
        "weights": "hub",
        "weights_digest": "w" * 64,
        "random_weights": False,
    },
    "hierarchy": {"name": "deepfashion-5", "digest": "d" * 64, "levels": ["group", "category"], "sizes": [5, 50]},
    "rows": {"train": 209222, "val": 40000, "test": 40000, "unused": {"without features": 0}},
    "selected": {"epoch": 1, "metric": "top1", "val": {"top1": 0.5}},
    "test": {"top1": 0.7, "top3": 0.9, "top5": 0.95, "hF": 0.8, "level_accuracy": {"group": 0.9, "category": 0.7}},
    "code": {"commit": "a" * 40, "digest": "e" * 64},
    "created": "2026-01-01T00:00:00+00:00",
}


def run(**changes: Any) -> Run:
    """A run whose result differs from RESULT; `cache__path="x"` reaches inside."""
    result = copy.deepcopy(RESULT)
    for name, value in changes.items():
        *outer, last = name.split("__")
        place = result
        for part in outer:
            place = place[part]
        place[last] = value
    epochs = [{"epoch": 1, "loss": {"global": 1.0, "total": 1.0}, "weights": {"global": 1.0}, "val": {"top1": 0.5}}]
    return Run(Path("r"), result, epochs)


def test_seeds_become_one_row_with_mean_and_sample_deviation() -> None:
    (row,) = tables.summarise([run(seed=1, test__top3=0.92), run(), run(seed=2, test__top3=0.91)])
    assert (row.seeds, row.label) == ([0, 1, 2], "flat (deepfashion-5)")
    assert tables.spread(row.values("top3")) == "91.00 ± 1.00"
    assert tables.spread([0.5]) == "50.00"
    assert tables.spread([]) == "–"


@pytest.mark.parametrize(
    "change",
    [
        {"method": "hmcn-f"},
        {"hierarchy__digest": "0"},
        {"cache__features_sha256": "0"},
        {"changed": {"beta": 0.5}},
        {"rows__train": 7},
    ],
)
def test_runs_that_differ_in_more_than_their_seed_are_kept_apart(change: dict[str, Any]) -> None:
    assert len(tables.summarise([run(), run(seed=1, **change)])) == 2


def test_a_seed_that_was_run_twice_counts_once_and_the_latest_counts() -> None:
    later = run(test__top3=0.5, created="2026-02-01T00:00:00+00:00")
    (row,) = tables.summarise([later, run()])
    assert row.values("top3") == [0.5]


def test_cited_rows_stand_beside_measured_ones_and_are_told_apart() -> None:
    text = tables.markdown(tables.summarise([run()]))
    assert "| flat (deepfashion-5) | 90.00 | 95.00 | no | 1 | measured |" in text
    line = "| effi+HMCN-F(10)+MTL | 91.24 | 95.68 | no | – | cited: Cho et al., ICCV-W 2019, Table 1 |"
    assert line in text
    rows = list(csv.DictReader(io.StringIO(tables.results_csv(tables.summarise([run()])))))
    assert [row["kind"] for row in rows] == ["measured"] + ["cited"] * 12
    assert float(rows[7]["top3_mean"]) == pytest.approx(0.9124)


def test_only_deepfashions_whole_test_split_may_be_compared() -> None:
    def warned(**changes: Any) -> bool:
        return "must not be compared" in " ".join(tables.caveats(tables.summarise([run(**changes)])))

    assert not warned()
    assert warned(rows__test=39999)
    assert warned(cache__origin="CSV manifest m.csv")


def test_random_weights_are_marked_wherever_the_row_stands() -> None:
    rows = tables.summarise([run(cache__random_weights=True)])
    for text in (tables.plain_text(rows), tables.results_csv(rows), tables.latex(rows)):
        assert "RANDOM" in text
    assert "RANDOM WEIGHTS" in tables.markdown(rows)
    assert any("untrained" in note for note in tables.caveats(rows))


def test_names_are_escaped() -> None:
    rows = tables.summarise([run(hierarchy__name="a_b|<i>&50%")])
    assert r"flat (a\_b\|\<i\>&50%)" in tables.markdown(rows)
    assert r"flat (a\_b|<i>\&50\%)" in tables.latex(rows)


def test_changed_settings_stand_in_the_label() -> None:
    (row,) = tables.summarise([run(changed={"beta": 0.5, "width": 64})])
    assert row.label == "flat (deepfashion-5) beta=0.5, width=64"


def test_versions_of_the_code_that_differ_are_pointed_out() -> None:
    rows = tables.summarise([run(), run(seed=1, code__commit="b" * 40 + "+")])
    assert rows[0].commit == f"{'a' * 12}, {'b' * 12}+"
    assert any("different versions of the code" in note for note in tables.caveats(rows))


def beta_run(seed: int, validation: list[float], test: list[float], best: float) -> Run:
    curves = {
        split: [{"beta": beta, "top1": top1} for beta, top1 in zip((0.0, 0.5, 0.7), scores, strict=True)]
        for split, scores in (("validation", validation), ("test", test))
    }
    return run(seed=seed, method="hmcn-f", config={"beta": 0.7}, beta={**curves, "best_on_validation": best})


def test_beta_after_training_is_tabulated_for_the_runs_that_have_it() -> None:
    blends = [beta_run(0, [0.1, 0.6, 0.5], [0.2, 0.4, 0.5], 0.5), beta_run(1, [0.1, 0.6, 0.7], [0.2, 0.4, 0.6], 0.7)]
    older = run(seed=2, method="hmcn-f", config={"beta": 0.7})
    text = tables.markdown(tables.summarise([*blends, older, run()]))
    section = text.partition("### β after training")[2].partition("## Training")[0]
    assert [line for line in section.splitlines() if line.startswith("|")][2:] == [
        "| hmcn-f (deepfashion-5) | 0.7 | 60.00 ± 14.14 | 55.00 ± 7.07 | 0.5, 0.7 | 65.00 ± 7.07 | 50.00 ± 14.14 |"
    ]
    assert "| hmcn-f (deepfashion-5) | 90.00 ± 0.00 | 95.00 ± 0.00 | no | 3 | measured |" in text


def test_without_runs_that_blend_nothing_is_said_of_beta() -> None:
    assert "β after training" not in tables.markdown(tables.summarise([run()]))
