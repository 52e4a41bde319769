"""Figures of training."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from hfc.report import write_report
from hfc.report.looks import CROWDED
from tests.support.made_runs import tree_of, write_run
from tests.support.reports import SVG, rows_of


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


def test_where_no_share_picked_the_epoch_top1_is_drawn(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    selected = {"epoch": 2, "metric": "nll", "val": {"nll": 0.5, "top1": 0.4}}
    run = write_run(tmp_path / "runs", tree, selected=selected)
    epochs = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for epoch, score in zip(epochs, [0.2, 0.4, 0.9], strict=True):
        epoch["val"] |= {"top1": score, "nll": 1.5}
    (run / "metrics.jsonl").write_text("".join(json.dumps(epoch) + "\n" for epoch in epochs))
    write_report([tmp_path / "runs"], tmp_path / "out")
    rows = rows_of(tmp_path / "out" / "figures" / "validation.csv")
    assert [float(row["validation"]) for row in rows] == [0.2, 0.4, 0.9]
    assert "validation top1, %" in (tmp_path / "out" / "figures" / "validation.svg").read_text("utf-8")
