"""The report's files from made-up runs with known numbers."""

import csv
import html
import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hfc import store
from hfc.errors import RunError
from hfc.progress import watched_by
from hfc.regions import strings
from hfc.report import svg, write_comparison, write_report
from hfc.report.contents import verdict
from hfc.report.rows import read_groups
from hfc.report.statistics import all_pairs
from hfc.report.training import CROWDED
from hfc.runs import find
from tests.report.test_gallery import picture
from tests.support.made_runs import TREE, tree_of, two_methods, write_run
from tests.support.watching import Watcher

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = '<script>document.title="run"</script>'


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods, three seeds each, and their report."""
    folder = tmp_path_factory.mktemp("report")
    two_methods(folder / "runs", tree_of(folder / "tree.csv"))
    write_report([folder / "runs"], folder / "report")
    return folder


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_file_that_is_promised_is_there_and_nothing_else(place: Path) -> None:
    summary = write_report([place / "runs"], place / "again")
    found = sorted(path for path in (place / "again").rglob("*") if path.is_file())
    assert found == sorted(summary.files)
    assert {path.name for path in found if path.parent == place / "again"} == {
        "report.html",
        "report.md",
        "table1.tex",
        "results.csv",
        "results.json",
        "differences.csv",
    }
    for file in summary.files:
        assert file.read_bytes() == (place / "report" / file.relative_to(place / "again")).read_bytes(), file


def test_every_picture_has_words_and_numbers(place: Path) -> None:
    page = (place / "report" / "report.html").read_text("utf-8")
    drawn = sorted((place / "report" / "figures").glob("*.svg"))
    names = {re.sub(r"-\d.*", "", path.stem) for path in drawn}
    assert names == {
        *("behind-the-best", "severity", "reliability", "beta", "stopping", "rejection", "categories", "tree"),
        *("confusion", "validation", "loss", "weights"),
    }
    for file in drawn:
        root = ElementTree.parse(file).getroot()
        assert root.tag == f"{SVG}svg"
        words = root.get("aria-label") or ""
        assert len(words) > 30
        assert re.search(r"\d", words), words  # it names numbers, not only the subject
        assert root.find(f"{SVG}style") is not None
        assert len(rows_of(file.with_suffix(".csv"))) > 0
        assert f'href="figures/{file.stem}.csv"' in page
        assert root.findall(f".//{SVG}title")  # marks say their values
    assert page.count("<svg") == len(drawn)


def test_the_page_asks_nobody_for_anything(place: Path) -> None:
    page = (place / "report" / "report.html").read_text("utf-8")
    assert "default-src 'none'" in page
    outside = re.findall(r"(?:src|href|action)\s*=\s*[\"'](?!#|figures/|data:)[^\"']*", page)
    assert outside == []
    assert set(re.findall(r"https?://[^\"' ]*", page)) == {"http://www.w3.org/2000/svg"}
    assert "@import" not in page
    assert "url(" not in page


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
    (pair,) = all_pairs(read_groups(find([place / "runs"]))[0].outcomes)
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


def test_confusion_counts_what_was_said(place: Path) -> None:
    (group,) = read_groups(find([place / "runs"]))
    best, tree = group.best, group.best.tree
    for i, parent in enumerate([None, 0, 1]):  # hats have one child, and so no matrix
        (file,) = (place / "report" / "figures").glob(f"confusion-1-flat-tree-{i}.csv")
        rows = rows_of(file)
        names = {row["truth"] for row in rows}
        assert len(rows) == len({(row["truth"], row["answer"]) for row in rows})
        assert all(float(row["images"]) for row in rows)  # what is empty is left out, and nothing else:
        images = sum(10 * (SIZES if parent is None else ONE)[name] for name in names)
        assert sum(float(row["images"]) for row in rows) == pytest.approx(images)
        for row in rows:
            level = 0 if parent is None else 1
            names = tree.nodes[level]
            counts = 0
            for seed in range(3):
                for truth, said in zip(best.target, best.predicted[seed], strict=True):
                    named = names[tree.ancestors[said, level]]
                    if parent is not None and tree.ancestors[said, 0] != parent:
                        named = "elsewhere"
                    counts += names[tree.ancestors[truth, level]] == row["truth"] and named == row["answer"]
            assert float(row["images"]) == pytest.approx(counts / 3), row
            assert float(row["share"]) == pytest.approx(counts / 3 / 10 / (1 if level else SIZES[row["truth"]]))


SIZES = {"tops": 2, "trousers": 3, "hats": 1}  # leaves of ten test images each
ONE = dict.fromkeys(("Tee", "Tank", "Jeans", "Chinos", "Shorts"), 1)


def test_severity_rejection_and_reliability_are_those_of_the_answers(place: Path) -> None:
    (group,) = read_groups(find([place / "runs"]))
    figures = place / "report" / "figures"
    by_label = {outcome.label: outcome for outcome in group.outcomes}
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
    for outcome in group.outcomes:
        points = [row for row in rows_of(figures / "reliability.csv") if row["method"] == outcome.label]
        bins: dict[int, list[tuple[float, bool]]] = {}
        for sure, right in zip(outcome.confidence.ravel(), outcome.correct.ravel(), strict=True):
            place_of = next(b for b in range(15) if b / 15 < sure <= (b + 1) / 15)
            bins.setdefault(place_of, []).append((float(sure), bool(right)))
        assert len(points) == len(bins)
        assert sum(int(row["answers"]) for row in points) == outcome.correct.size
        for row, b in zip(points, sorted(bins), strict=True):
            assert float(row["mean_confidence"]) == pytest.approx(np.mean([sure for sure, _ in bins[b]]))
            assert float(row["share_right"]) == pytest.approx(np.mean([right for _, right in bins[b]]))


def test_losses_of_any_task_names_are_drawn_and_weights_only_where_they_were_learned(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    write_run(tmp_path / "runs", tree, tasks=("local/1", "local/2", "global"))
    write_report([tmp_path / "runs"], tmp_path / "out")
    losses = rows_of(tmp_path / "out" / "figures" / "loss-1-flat-tree.csv")
    assert [(row["task"], row["epoch"], float(row["loss"])) for row in losses[:4]] == [
        ("local/1", "1.0", 1.0),
        ("local/1", "2.0", 0.5),
        ("local/1", "3.0", 1 / 3),
        ("local/2", "1.0", 2.0),
    ]
    assert {row["task"] for row in losses} == {"local/1", "local/2", "global"}
    assert (tmp_path / "out" / "figures" / "weights-1-flat-tree.csv").is_file()
    lines = (tmp_path / "runs" / "metrics.jsonl").read_text().splitlines()
    fixed = [json.dumps({**json.loads(line), "weights": {"local/1": 1.0}}) for line in lines]
    (tmp_path / "runs" / "metrics.jsonl").write_text("\n".join(fixed) + "\n")
    write_report([tmp_path / "runs"], tmp_path / "fixed")
    assert not list((tmp_path / "fixed" / "figures").glob("weights*"))


def drawn_lines(figure: Path) -> tuple[list[list[float]], list[list[float]]]:
    """The y of every point of a drawing's thick lines and of its thin ones; legends left out."""
    lines = ElementTree.parse(figure).getroot().findall(f".//{SVG}polyline")
    thick, thin = [], []
    for line in lines:
        points = [float(point.split(",")[1]) for point in (line.get("points") or "").split()]
        if len(points) == 3:
            (thin if "thin" in (line.get("class") or "").split() else thick).append(points)
    return thick, thin


def test_every_seed_is_drawn_beside_their_mean_and_is_in_the_data(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    top1 = {4: [0.2, 0.4, 0.9], 7: [0.6, 0.6, 0.3]}
    for seed, scores in top1.items():
        selected = {"epoch": int(np.argmax(scores)) + 1, "metric": "top1", "val": {"top1": max(scores)}}
        run = write_run(tmp_path / "runs" / str(seed), tree, seed=seed, selected=selected)
        epochs = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for epoch, score in zip(epochs, scores, strict=True):
            epoch["val"]["top1"] = score
            epoch["loss"]["local"] *= seed
        (run / "metrics.jsonl").write_text("".join(json.dumps(epoch) + "\n" for epoch in epochs))
    write_report([tmp_path / "runs"], tmp_path / "out")
    figures = tmp_path / "out" / "figures"
    rows = rows_of(figures / "validation.csv")
    assert [(row["seed"], row["epoch"], float(row["validation"])) for row in rows] == [
        (str(seed), str(float(epoch)), score) for seed in (4, 7) for epoch, score in enumerate(top1[seed], 1)
    ]
    losses = [(row["task"], row["seed"], float(row["loss"])) for row in rows_of(figures / "loss-1-flat-tree.csv")]
    assert losses[:6] == [("local", str(seed), pytest.approx(seed / epoch)) for seed in (4, 7) for epoch in (1, 2, 3)]

    (mean,), (first, second) = drawn_lines(figures / "validation.svg")
    assert mean == pytest.approx(np.mean([first, second], axis=0), abs=0.1)  # y is linear
    assert first[2] < second[2] < first[0]  # 0.9 stands above 0.3, and that above 0.2
    drawing = ElementTree.parse(figures / "validation.svg").getroot()
    said = {title.text for title in drawing.iter(f"{SVG}title")}
    assert "flat (tree), epoch 3: 60.00%, seeds 30.00% to 90.00%" in said
    assert "flat (tree), seed 7: epoch 1 chosen, 60.00%" in said
    assert (drawing.get("aria-label") or "").endswith("flat (tree) chose epoch 3, 1 at 90.0, 60.0%.")
    loss = ElementTree.parse(figures / "loss-1-flat-tree.svg").getroot()
    assert "flat (tree), mean over seeds 4, 7: local from 5.5 to 1.83, global from 2 to 1.33" in str(loss.attrib)
    text = (tmp_path / "out" / "report.md").read_text()
    assert "Thick: mean over seeds; thin: each seed. Large points: the epochs that were chosen" in text


def test_the_page_says_that_its_code_was_changed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = {"version": "9", "commit": "c" * 40 + "+", "digest": "d" * 64}
    monkeypatch.setattr("hfc.provenance.code", lambda: code)
    write_report([place / "runs"], place / "changed")
    assert f"Made by hfc 9, commit {'c' * 12}+." in (place / "changed" / "report.html").read_text("utf-8")
    monkeypatch.setattr("hfc.provenance.code", lambda: code | {"commit": ""})
    write_report([place / "runs"], place / "changed")
    assert f"Made by hfc 9, code {'d' * 12}." in (place / "changed" / "report.html").read_text("utf-8")


def test_one_seed_is_drawn_once(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    write_run(tmp_path / "runs", tree)
    write_report([tmp_path / "runs"], tmp_path / "out")
    for name, lines in (("validation", 1), ("loss-1-flat-tree", 2)):
        thick, thin = drawn_lines(tmp_path / "out" / "figures" / f"{name}.svg")
        assert (len(thick), thin) == (lines, [])
    assert "mean over seeds; thin" not in (tmp_path / "out" / "report.md").read_text()


def test_of_many_methods_the_means_alone_are_drawn_and_every_seed_is_in_the_data(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    for i in range(CROWDED + 1):
        for seed in (0, 1):
            write_run(tmp_path / "runs" / f"{i}-{seed}", tree, method=f"method{i}", seed=seed)
    write_report([tmp_path / "runs"], tmp_path / "out")
    figures = tmp_path / "out" / "figures"
    thick, thin = drawn_lines(figures / "validation.svg")
    assert (len(thick), thin) == (CROWDED + 1, [])
    assert len(rows_of(figures / "validation.csv")) == (CROWDED + 1) * 2 * 3
    text = (tmp_path / "out" / "report.md").read_text()
    assert "Mean over seeds. Large points: the epochs that were chosen" in text


def test_a_report_says_how_far_it_is(place: Path) -> None:
    watcher = Watcher()
    with watched_by(watcher):
        write_report([place / "runs"], place / "watched")
    assert all(shown.total in (None, shown.done) and shown.closed for shown in watcher.bars)
    assert [shown.what for shown in watcher.bars] == [
        *("reading runs", "reading predictions", "comparing methods"),
        *("drawing", "drawing trees", "writing the report"),
    ]


def test_a_cell_without_a_number_stands_where_the_numbers_stand(place: Path) -> None:
    page = (place / "report" / "report.html").read_text("utf-8")
    table = page.partition('aria-labelledby="table-table1"')[2].partition("</table>")[0]
    kinds = re.findall(r"<(?:th scope=\"col\"|td)( class=\"number)?[^>]*>([^<]*)<", table)
    assert len(kinds) == 6 + 5 * 14
    by_name = {name: {bool(number) for number, _ in kinds[6 + i :: 5]} for i, (_, name) in enumerate(kinds[1:6])}
    assert by_name == {"top-3 %": {True}, "top-5 %": {True}, "landmarks": {False}, "seeds": {True}, "origin": {False}}
    assert "–" in [text for _, text in kinds[6 + 3 :: 5]]


def test_names_above_a_matrix_end_inside_the_drawing() -> None:
    names = [*"abcdefgh", "the-longest-name", "j"]
    drawing = ElementTree.fromstring(str(svg.heat(names, names, [[1.0] * 10] * 10, [[""] * 10] * 10, "alt")))
    for text in drawing.findall(f"{SVG}text"):
        if text.get("transform"):
            width = len(text.text or "") * svg.CHARACTER
            across = float(text.get("x") or 0) + width * np.cos(np.radians(svg.HEAT_ANGLE))
            assert across <= svg.WIDTH + 1e-9


def test_beta_after_training_is_tabulated_and_drawn_for_runs_that_have_it(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    for seed, (validation, test, best) in enumerate(
        [([0.1, 0.6, 0.5], [0.2, 0.4, 0.5], 0.5), ([0.1, 0.6, 0.7], [0.2, 0.4, 0.6], 0.7)]
    ):
        curves = {
            split: [{"beta": b, "top1": y} for b, y in zip((0.0, 0.5, 0.7), scores, strict=True)]
            for split, scores in (("validation", validation), ("test", test))
        }
        beta = {**curves, "best_on_validation": best}
        write_run(tmp_path / "runs" / str(seed), tree, method="hmcn-f", seed=seed, beta=beta)
    flat = write_run(tmp_path / "runs" / "flat", tree)
    result = json.loads((flat / "result.json").read_text())
    del result["beta"], result["stopping"]
    (flat / "result.json").write_text(json.dumps(result))
    write_report([tmp_path / "runs"], tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    section = text.partition("## The balance β")[2].partition("\n## ")[0]
    assert [line for line in section.splitlines() if line.startswith("|")][2:] == [
        "| hmcn-f (tree) | 0.7 | 60.00 ± 14.14 | 55.00 ± 7.07 | 0.5, 0.7 | 65.00 ± 7.07 | 50.00 ± 14.14 |"
    ]
    drawn = rows_of(tmp_path / "out" / "figures" / "beta.csv")
    assert [float(row["test_top1"]) for row in drawn] == pytest.approx([0.2, 0.4, 0.55])
    write_report([tmp_path / "runs" / "flat"], tmp_path / "flat")
    assert "balance β" not in (tmp_path / "flat" / "report.md").read_text()
    assert not list((tmp_path / "flat" / "figures").glob("beta*"))


def test_the_verdict_says_who_is_best_by_how_much_and_whether_that_is_sure(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    target = np.arange(60) % 6
    right = np.eye(6, dtype=np.float32)[target]
    nearly, bad = right.copy(), np.roll(right, 1, axis=1)
    nearly[0] = np.roll(nearly[0], 1)

    def said(**finals: np.ndarray) -> str:
        folder = tmp_path / "-".join(finals)
        for method, final in finals.items():
            write_run(folder / method, tree, method=method, final=final, target=target)
        (group,) = read_groups(find([folder]))
        return verdict(group, all_pairs(group.outcomes))

    alone = "flat (tree) has the highest top-1: 100.00% (1 seed, 60 test images)."
    assert said(flat=right) == f"{alone} There is no other row to compare it with."
    close = said(flat=right, levels=nearly)
    assert "It is 1.67 points above levels (tree) (95% interval +0.00 to +5.00, corrected p 1.000)" in close
    assert close.endswith("not significant, so these test images do not tell the two apart.")
    three = said(flat=right, levels=nearly, conditional=bad)
    assert three.endswith("Significantly worse: 1 of the 2 others (conditional (tree)).")
    assert "corrected p < 0.001): significant." in said(flat=right, conditional=bad)


def test_random_weights_and_mixed_caches_are_a_red_line_everywhere(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    write_run(tmp_path / "runs" / "a", tree)
    write_run(tmp_path / "runs" / "b", tree, method="levels", cache__random_weights=True, cache__features_sha256="0")
    summary = write_report([tmp_path / "runs"], tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    red = re.findall(r'<p class="wrong" role="alert">(.*?)</p>', page)
    assert len(red) == 2
    for words in ("RANDOM WEIGHTS", "Rows differ in their features"):
        assert words in summary.table
        assert any(words in line for line in red)
        assert words in (tmp_path / "out" / "report.md").read_text("utf-8").replace("\\", "")
        assert words in (tmp_path / "out" / "table1.tex").read_text("utf-8")
    assert "RANDOM" in (tmp_path / "out" / "results.csv").read_text("utf-8")


def test_rows_on_other_images_are_reported_apart(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    write_run(tmp_path / "runs" / "a", tree)
    write_run(tmp_path / "runs" / "b", tree, method="levels", ids=[f"x{i}" for i in range(60)])
    write_report([tmp_path / "runs"], tmp_path / "out")
    names = {path.name for path in (tmp_path / "out" / "figures").iterdir()}
    assert {"1-severity.svg", "2-severity.svg", "1-tree-1-flat-tree.svg", "2-tree-1-levels-tree.svg"} <= names
    assert rows_of(tmp_path / "out" / "differences.csv") == []
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert page.count('class="verdict"') == 2
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids))


def test_only_what_may_be_compared_is_marked_as_the_best(tmp_path: Path) -> None:
    trees = [tree_of(tmp_path / "one.csv"), tree_of(tmp_path / "two.csv", TREE.replace("Hat,hats", "Hat,tops"))]
    for tree, skill in zip(trees, (1.0, 3.0), strict=True):
        write_run(tmp_path / "runs" / tree.name, tree, skill=skill)
    write_report([tmp_path / "runs" / "one"], tmp_path / "alone")
    assert "**" not in (tmp_path / "alone" / "report.md").read_text("utf-8")
    write_report([tmp_path / "runs"], tmp_path / "out")
    lines = (tmp_path / "out" / "report.md").read_text("utf-8").partition("## In the tree")[2].splitlines()
    header = next(line for line in lines if line.startswith("| method")).split(" | ")
    better = next(line for line in lines if line.startswith("| flat (two)")).split(" | ")
    marked = [name for name, cell in zip(header, better, strict=True) if cell.startswith("**")]
    assert marked == ["top-1 %", "macro top-1 %"]  # the others depend on the tree
    assert "Rows have different trees" in (tmp_path / "out" / "report.md").read_text("utf-8")


def test_provenance_says_once_what_rows_share_and_whose_it_is_where_they_differ(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    write_run(tmp_path / "runs" / "a", tree)
    write_run(tmp_path / "runs" / "b", tree, method="levels", machine__device="cuda:0", seed=4)
    write_report([tmp_path / "runs"], tmp_path / "out")
    section = (tmp_path / "out" / "report.md").read_text("utf-8").partition("## Provenance")[2]
    lines = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")][2:]
    assert [line[1:] for line in lines if line[0] == "weights"] == [["hub (bbbbbbbbbbbb)", "all"]]
    assert [line[1:] for line in lines if line[0] == "commit"] == [["c" * 12, "all"]]
    assert [line[2] for line in lines if line[1].startswith("cuda:0, fp32")] == ["levels (tree)"]
    assert {tuple(line[1:]) for line in lines if line[0] == "seeds"} == {("0", "flat (tree)"), ("4", "levels (tree)")}
    assert {line[0] for line in lines} >= {"cache", "data", "hierarchy", "feature key", "labels", "machine"}


def test_hostile_names_are_text_in_every_file(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "a&b <i>.csv", f"leaf,group\n{HOSTILE},a|b\n'\"&,a|b\n*c*,_d_\n</svg>,_d_\n$x^2,_d_\n")
    for seed in range(2):
        write_run(tmp_path / "runs" / str(seed), tree, seed=seed, cache__origin="<img src=x onerror=alert(1)>")
    write_report([tmp_path / "runs"], tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert HOSTILE not in page
    assert page.count("<script>") == 1
    assert "<img" not in page
    assert "a&amp;b &lt;i&gt;" in page
    for file in (tmp_path / "out" / "figures").glob("*.svg"):
        ElementTree.parse(file)  # well-formed whatever the names
        assert "<script" not in file.read_text("utf-8")
    assert {row["category"] for row in rows_of(tmp_path / "out" / "figures" / "categories.csv")} == set(tree.leaves)
    text = (tmp_path / "out" / "report.md").read_text("utf-8")
    assert "\\<script\\>" in text
    assert "<script>" not in text.replace("\\<", "")


def test_labels_that_differ_at_their_end_stand_in_full_in_every_picture(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    for weight, skill in ((0.001, 0.0), (0.002, 3.0), (0.003, 0.0)):
        settings = {"learning_rate": 0.0003, "label_smoothing": 0.1, "averaging": 0.999, "weight_decay": weight}
        write_run(tmp_path / "runs" / str(weight), tree, skill=skill, changed=settings)
    write_report([tmp_path / "runs"], tmp_path / "out")
    labels = [row["label"] for row in rows_of(tmp_path / "out" / "results.csv")[:3]]
    assert [label[-5:] for label in labels] == ["0.002", "0.001", "0.003"]
    for name in (
        "behind-the-best",
        "severity",
        "reliability",
        "rejection",
        "stopping",
        "beta",
        "validation",
        "categories",
    ):
        drawing = ElementTree.parse(tmp_path / "out" / "figures" / f"{name}.svg").getroot()
        words = " ".join(text.text or "" for text in drawing.iter(f"{SVG}text"))
        assert all(words.count(label) == 1 for label in labels[name == "behind-the-best" :]), name
        height = float((drawing.get("viewBox") or "").split()[3])
        assert all(float(text.get("y", 0)) < height for text in drawing.iter(f"{SVG}text"))


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

    monkeypatch.setattr("hfc.report.rows.read_predictions", with_odd_ids)
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


LEVELS = ("id", "error", "probability", "leaf", "method", "path", "level", "test images", "test_images", "accuracy")


@pytest.mark.parametrize("start", range(len(LEVELS)))
def test_whatever_levels_and_nodes_are_called_columns_and_rows_stay_apart(start: int, tmp_path: Path) -> None:
    names = [LEVELS[(start + i) % len(LEVELS)] for i in range(3)]
    nodes = ("elsewhere", "others", "(elsewhere)", "method", "id", "truth")
    lines = [",".join(names), *(f"{node},{'elsewhere' if i < 3 else 'id'},all" for i, node in enumerate(nodes))]
    tree = tree_of(tmp_path / "tree.csv", "\n".join(lines) + "\n")
    two_methods(tmp_path / "runs", tree)
    write_report([tmp_path / "runs"], tmp_path / "out")
    for file in (tmp_path / "out").rglob("*.csv"):
        with file.open(encoding="utf-8", newline="") as stream:
            header = next(csv.reader(stream))
        assert len(header) == len(set(header)), file
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    for line in re.findall(r"<thead>(.*?)</thead>", page, re.DOTALL):
        columns = re.findall(r"<th [^>]*>(.*?)</th>", line)
        assert len(columns) == len(set(columns))
    for row in (1, 2):
        seen = []
        for file in (tmp_path / "out" / "figures").glob(f"confusion-{row}-*.csv"):
            cells = [(line["where"], line["truth"], line["answer"]) for line in rows_of(file)]
            assert len(cells) == len(set(cells))
            seen.append(cells[0][0])
        assert sorted(seen) == ["Confusion inside all", "Confusion inside all > elsewhere", "Confusion inside all > id"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    write_run(tmp_path / "runs", tree)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"report\.html: the report cannot be written: (Not a directory|File exists)"):
        write_report([tmp_path / "runs"], tmp_path / "file")


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        (svg.Scale(0, 1, 0, 100), [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (svg.Scale(-3, 7.1, 100, 0), [-2.5, 0, 2.5, 5]),
        (svg.Scale(0.78, 0.83, 0, 1), [0.78, 0.79, 0.8, 0.81, 0.82, 0.83]),
        (svg.Scale(0.02, 4, 0, 1, log=True), [0.1, 1]),
        (svg.Scale(0.15, 2.1, 0, 1, log=True), [0.2, 0.5, 1, 2]),
    ],
)
def test_ticks_are_round_and_inside(scale: svg.Scale, expected: list[float]) -> None:
    assert scale.ticks == pytest.approx(expected)
    positions = [scale(tick) for tick in scale.ticks]
    assert positions == sorted(positions, reverse=scale.end < scale.start)
    assert (scale(scale.low), scale(scale.high)) == (scale.start, scale.end)
