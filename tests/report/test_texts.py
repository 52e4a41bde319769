"""A report as Markdown, CSV and JSON."""

import html
import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hfc import store
from hfc.regions import strings
from hfc.report import write_comparison, write_report
from hfc.report.rows import read_leaderboards
from hfc.report.statistics import all_pairs
from hfc.runs import find
from tests.report.test_gallery import picture
from tests.support.made_runs import tree_of, write_run
from tests.support.reports import rows_of


def test_markdown_and_csv_repeat_the_runs_numbers(place: Path) -> None:
    found = {f"{r.result.method}{r.result.seed}": r.result.test for r in find([place / "runs"])}
    text = (place / "report" / "report.md").read_text("utf-8")
    rows = rows_of(place / "report" / "results.csv")
    assert [row["kind"] for row in rows] == ["measured"] * 2 + ["cited"] * 12
    for row in rows[:2]:
        for metric in ("top1", "top3", "hF", "ece", "mistake_severity"):
            values = [found[f"{row['method']}{seed}"][metric] for seed in range(3)]
            assert float(row[f"{metric}_mean"]) == pytest.approx(np.mean(values))
            assert float(row[f"{metric}_sd"]) == pytest.approx(np.std(values, ddof=1))
        top3, top5 = (
            f"{100 * float(row[f'{m}_mean']):.2f} ± {100 * float(row[f'{m}_sd']):.2f}" for m in ("top3", "top5")
        )
        assert f"| {row['method']} (tree) | {top3} | {top5} | no | 3 | measured |" in text
    assert "| effi+HMCN-F(10)+MTL | 91.24 | 95.68 | no | – | cited: Cho et al., ICCV-W 2019, Table 1 |" in text
    assert float(rows[8]["top3_mean"]) == pytest.approx(0.9124)


def test_the_differences_are_in_every_form(place: Path) -> None:
    (pair,) = all_pairs(read_leaderboards(find([place / "runs"]))[0].outcomes)
    rows = rows_of(place / "report" / "differences.csv")
    assert [row["metric"] for row in rows] == ["top1", "top3", "top5", "hF"]
    assert float(rows[0]["low"]) == pair.intervals["top1"].low
    assert float(rows[0]["p_corrected"]) == pair.p
    result = json.loads((place / "report" / "results.json").read_text("utf-8"))
    assert result["differences"][0]["significant"] is True
    assert result["verdicts"][0].endswith("significant.")
    page = (place / "report" / "report.html").read_text("utf-8")
    assert result["verdicts"][0] in html.unescape(page)
    assert f"{pair.test.only_first}\u00a0:\u00a0{pair.test.only_second}" in page


def test_names_that_no_file_of_text_can_hold_are_escaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    odd = "caf\udce9 \x01"
    target = np.zeros(60, dtype=np.int64)
    for seed in range(2):
        folder = write_run(tmp_path / "runs" / str(seed), tree, seed=seed, skill=-3.0, target=target)
        result = json.loads((folder / "result.json").read_text("utf-8"))
        result["cache"]["path"] = result["cache"]["origin"] = result["hierarchy"]["name"] = odd
        (folder / "result.json").write_text(json.dumps(result))
    read = store.read_predictions

    def with_odd_ids(path: Path) -> store.Predictions:
        found = read(path)
        return replace(found, id=strings([f"{odd}/{name}" for name in found.id]))

    monkeypatch.setattr("hfc.report.seeds.read_predictions", with_odd_ids)
    (tmp_path / odd / "images").mkdir(parents=True)
    for i in range(60):
        picture(tmp_path / odd / "images" / f"{i:04d}.jpg", (i, i, i))
    summary = write_report([tmp_path / "runs"], tmp_path / "out", images=tmp_path)
    shown = "caf\\udce9 \\x01"
    assert f"flat ({shown}) has the highest top-1" in summary.table
    for name in ("report.html", "results.csv"):
        assert f"flat ({shown})" in (tmp_path / "out" / name).read_text("utf-8")
    assert f'title="{shown}/images/' in (tmp_path / "out" / "report.html").read_text("utf-8")
    assert json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))["rows"][0]["label"] == f"flat ({odd})"
    for file in (tmp_path / "out" / "figures").glob("*.svg"):
        ElementTree.parse(file)
    summary = write_comparison(tmp_path / "runs", tmp_path / "runs", tmp_path / "out")
    assert f"flat ({shown})" in summary.table
