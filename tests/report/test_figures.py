"""Figures that compare methods."""

from pathlib import Path

import numpy as np
import pytest

from hfc import metrics
from hfc.report import write_report
from hfc.report.rows import read_leaderboards
from hfc.runs import find
from tests.support.made_runs import tree_of, write_run
from tests.support.reports import rows_of


def test_severity_rejection_and_reliability_are_those_of_the_answers(place: Path) -> None:
    (board,) = read_leaderboards(find([place / "runs"]))
    figures = place / "report" / "figures"
    by_label = {outcome.label: outcome for outcome in board.outcomes}
    for row in rows_of(figures / "severity.csv"):
        heights = by_label[row["method"]].height.ravel().tolist()
        assert float(row["share_of_test_images"]) == pytest.approx(heights.count(int(row["lca_height"])) / len(heights))
    for row in rows_of(figures / "rejection.csv"):
        outcome, kept = by_label[row["method"]], round(float(row["share_answered"]) * 60)
        hits = 0
        for seed in range(3):
            surest = sorted(range(60), key=lambda i: -outcome.confidence[seed, i])[:kept]
            hits += sum(bool(outcome.correct[seed, i]) for i in surest)
        assert float(row["top1"]) == pytest.approx(hits / 3 / kept)
    for outcome in board.outcomes:
        points = [row for row in rows_of(figures / "reliability.csv") if row["method"] == outcome.label]
        assert {row["calibrated"] for row in points} == {"yes"}  # no run has a temperature
        bins: dict[int, list[tuple[float, bool]]] = {}
        for sure, right in zip(outcome.confidence.ravel(), outcome.correct.ravel(), strict=True):
            place_of = next(b for b in range(15) if b / 15 < sure <= (b + 1) / 15)
            bins.setdefault(place_of, []).append((float(sure), bool(right)))
        assert len(points) == len(bins)
        assert sum(int(row["answers"]) for row in points) == outcome.correct.size
        for row, b in zip(points, sorted(bins), strict=True):
            assert float(row["mean_confidence"]) == pytest.approx(np.mean([sure for sure, _ in bins[b]]))
            assert float(row["share_right"]) == pytest.approx(np.mean([right for _, right in bins[b]]))


def test_reliability_before_the_temperature_is_a_thin_line(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    rng = np.random.default_rng(4)
    target = np.arange(60) % 6
    before = np.exp(rng.normal(size=(60, 6)) + 2 * np.eye(6)[target])
    before /= before.sum(axis=1, keepdims=True)
    after = before**2 / (before**2).sum(axis=1, keepdims=True)
    write_run(tmp_path / "runs" / "a", tree, final=after.astype(np.float32), temperature={"value": 0.5})
    write_report([tmp_path / "runs"], tmp_path / "out")
    rows = rows_of(tmp_path / "out" / "figures" / "reliability.csv")
    for calibrated, shares in (("yes", after), ("no", before)):
        points = [row for row in rows if row["calibrated"] == calibrated]
        error = sum(
            abs(float(row["mean_confidence"]) - float(row["share_right"])) * int(row["answers"]) / 60 for row in points
        )
        assert error == pytest.approx(metrics.calibration_error(shares, target), abs=1e-6)
    drawing = (tmp_path / "out" / "figures" / "reliability.svg").read_text()
    assert drawing.count("thin") - drawing.count(".thin") == 1
