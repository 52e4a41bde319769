"""Figures of a report: each has words and numbers, and labels stand in full."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from hfc.report import write_report
from tests.support.made_runs import tree_of, write_run
from tests.support.reports import SVG, rows_of


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
