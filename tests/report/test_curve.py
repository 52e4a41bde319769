"""Learning curves: the law that fits them, what doubling brings, and their section."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import curve_fit
from scipy.stats import ttest_1samp

from hfc.report import write_report
from hfc.report.curve import Curve, fit, read_curves, without_parts
from hfc.runs import find
from tests.support.made_runs import tree_of, write_folds, write_run

SIZES = [2.0, 4.0, 8.0, 16.0, 32.0, 64.0]
SHARES = (0.125, 0.25, 0.5, 1.0)


@given(a=st.floats(0, 0.3), b=st.floats(0.05, 1.5), c=st.floats(0.1, 1.5))
@settings(max_examples=60, deadline=None)
def test_a_law_is_found_from_its_own_points(a: float, b: float, c: float) -> None:
    errors = [a + b * n**-c for n in SIZES]
    law = fit(SIZES, errors)
    assert [law(n) for n in SIZES] == pytest.approx(errors, rel=1e-4)
    assert law(128) == pytest.approx(a + b * 128**-c, rel=0.01)
    assert min(law.a, law.b) >= 0


def test_its_parameters_are_those_that_made_the_points() -> None:
    law = fit(SIZES, [0.1 + 0.6 * n**-0.5 for n in SIZES])
    assert (law.a, law.b, law.c) == pytest.approx((0.1, 0.6, 0.5), rel=1e-3)
    pure = fit(SIZES, [0.7 * n**-0.25 for n in SIZES])
    assert (pure.a, pure.b, pure.c) == (
        pytest.approx(0, abs=1e-3),
        pytest.approx(0.7, rel=1e-2),
        pytest.approx(0.25, 1e-2),
    )


@pytest.mark.parametrize("seed", range(6))
def test_of_noisy_points_no_other_law_is_nearer(seed: int) -> None:
    rng = np.random.default_rng(seed)
    errors = np.array([(0.08 + 0.6 * n**-0.4) * np.exp(rng.normal(0, 0.04)) for n in SIZES])

    def loss(values: np.ndarray) -> float:  # type: ignore[type-arg]
        return float((((values - errors) / errors) ** 2).sum())

    law = fit(SIZES, errors.tolist())
    bounds = ([0, 0, 0.01], [1, 3, 2])
    found, _ = curve_fit(
        lambda n, a, b, c: a + b * n**-c, np.array(SIZES), errors, p0=(0.05, 0.5, 0.5), sigma=errors, bounds=bounds
    )
    other = np.array([found[0] + found[1] * n ** -found[2] for n in SIZES])
    assert loss(np.array([law(n) for n in SIZES])) <= loss(other) * (1 + 1e-6)


def test_two_or_three_points_tell_no_floor() -> None:
    law = fit([10, 40], [0.4, 0.2])
    assert (law.a, law.b, law.c) == (0.0, pytest.approx(0.4 * 10**0.5), pytest.approx(0.5))
    assert fit([10, 20, 40], [0.4, 0.3, 0.28]).a == 0


def test_errors_that_do_not_fall_promise_nothing_and_no_error_is_no_crash() -> None:
    rising = fit(SIZES, [0.1, 0.11, 0.12, 0.12, 0.13, 0.13])
    assert rising(64) - rising(128) == pytest.approx(0, abs=0.002)
    assert fit(SIZES, [0.0] * 6)(128) == 0


def made(
    folder: Path, method: str = "flat", seeds: int = 3, shares: tuple[float, ...] = SHARES, **changes: object
) -> Path:
    """Runs of a curve whose errors follow a law, a little different for each seed."""
    tree = tree_of(folder / "tree.csv")
    for share in shares:
        for seed in range(seeds):
            train = round(480 * share) + seed * (share < 1)
            top1 = 1 - (0.1 + (0.6 + 0.05 * seed) * (train / 6) ** -0.5)
            write_run(
                folder / "runs" / f"{method}-{share}-{seed}",
                tree,
                method=method,
                seed=seed,
                rows__train=train,
                config__train_share=share,
                config__epochs=round(40 / share),
                changed={"dropout": 0.5} | ({"train_share": share} if share < 1 else {}),
                test__top1=top1,
                **changes,
            )
    return folder / "runs"


def only(root: Path) -> Curve:
    (curve,) = read_curves(find([root]))
    return curve


def test_runs_that_differ_in_their_share_and_seed_are_a_curve(tmp_path: Path) -> None:
    curve = only(made(tmp_path))
    assert curve.label == "flat (tree) dropout=0.5"
    assert [point.share for point in curve.points] == list(SHARES)
    assert [[run.result.seed for run in point.runs] for point in curve.points] == [[0, 1, 2]] * 4
    assert curve.points[0].sizes == [60 / 6, 61 / 6, 62 / 6]
    assert curve.points[-1].sizes == [80, 80, 80]


def test_doubling_is_the_mean_of_the_seeds_laws_with_a_t_interval(tmp_path: Path) -> None:
    doubling = only(made(tmp_path)).doubling
    gain = 0.65 * (80**-0.5 - 160**-0.5)  # of the laws of the seeds on average
    assert (doubling.n, doubling.gain) == (160, pytest.approx(gain, rel=0.01))
    assert doubling.top1 == pytest.approx(1 - (0.1 + 0.65 * 160**-0.5), abs=1e-3)
    assert doubling.low is not None
    assert doubling.high is not None
    assert doubling.low < gain < doubling.high
    single = only(made(tmp_path / "one", seeds=1)).doubling
    assert (single.low, single.high) == (None, None)


def test_the_interval_is_students(tmp_path: Path) -> None:
    curve = only(made(tmp_path))
    laws = [fit([p.sizes[s] for p in curve.points], [1 - p.top1[s] for p in curve.points]) for s in range(3)]
    gains = [law(80) - law(160) for law in laws]
    low, high = ttest_1samp(gains, 0).confidence_interval(0.95)
    assert (curve.doubling.low, curve.doubling.high) == (pytest.approx(low), pytest.approx(high))


def test_other_methods_data_and_folds_are_other_curves_or_none(tmp_path: Path) -> None:
    made(tmp_path, "flat", seeds=1)
    made(tmp_path, "linear", seeds=1)
    made(tmp_path, "hmcn-f", seeds=1, shares=(1.0,))
    write_folds(tmp_path / "runs" / "folds", tree_of(tmp_path / "tree.csv"))
    every = find([tmp_path / "runs"])
    known = read_curves(every)
    assert {curve.label for curve in known} == {f"{name} (tree) dropout=0.5" for name in ("flat", "linear")}
    left = {run.folder.name for run in without_parts(every, known)}
    assert left == {"flat-1.0-0", "linear-1.0-0", "hmcn-f-1.0-0", "flat-0-0", "flat-0-1", "flat-0-2"}


def test_the_report_has_a_section_and_its_tables_the_whole_runs_alone(tmp_path: Path) -> None:
    root = made(tmp_path)
    summary = write_report([root], tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    assert "## How many photographs are enough" in text
    curve = only(root)
    low, high = (f"{100 * edge:+.2f}".replace("-", "−") for edge in (curve.doubling.low or 0, curve.doubling.high or 0))
    sentence = (
        f"flat (tree) dropout=0.5: twice as many training images, 160 a class, would bring "
        f"+{100 * curve.doubling.gain:.2f} points of top-1 (95% interval {low} to {high} over 3 seeds), to "
        f"{100 * curve.doubling.top1:.2f}%, if the law goes on as it fits: {curve.law}."
    )
    assert summary.table.endswith(sentence)
    assert sentence in text
    assert (summary.runs, [row["seeds"] for row in summary.rows]) == (12, [[0, 1, 2]])
    results = json.loads((tmp_path / "report" / "results.json").read_text())
    assert results["curves"] == [json.loads(json.dumps(curve.to_json()))]
    points = (tmp_path / "report" / "figures" / "curve.csv").read_text().splitlines()
    assert points[0] == "method,images_a_class,top1"
    assert len(points) == 1 + 4


def test_a_report_without_shares_has_no_such_section(tmp_path: Path) -> None:
    write_report([made(tmp_path, shares=(1.0,))], tmp_path / "report")
    assert "How many photographs" not in (tmp_path / "report" / "report.md").read_text()
    assert "curves" not in json.loads((tmp_path / "report" / "results.json").read_text())
