"""What twins do to accuracies, counted again from the runs' own files."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from hfc.errors import RunError
from hfc.report import write_report
from hfc.report.twin_page import write_twins
from hfc.store.twins import find_twins
from tests.support.made_runs import tree_of
from tests.support.twins import TESTED, runs_of, twin_cache


def place(folder: Path, shared: int, **changes: Any) -> Path:
    cache = twin_cache(folder / "c.h5", shared)
    runs_of(cache, folder / "runs", tree_of(folder / "tree.csv"), **changes)
    write_twins(find_twins(cache, 0.9), folder / "twins")
    return folder


def report(folder: Path) -> tuple[str, list[tuple[str, str]]]:
    """The report's Markdown, and what it says of twins in its checks."""
    write_report([folder / "runs"], folder / "report", twins=folder / "twins")
    checks = json.loads((folder / "report" / "results.json").read_text("utf-8"))["checks"]
    twins = [(check["state"], check["text"]) for check in checks if "twin" in check["text"]]
    return (folder / "report" / "report.md").read_text("utf-8"), twins


def by_hand(folder: Path, method: str, k: int) -> list[str]:
    """Accuracy of all, without twins and of twins alone, in percent over three seeds: from predictions.h5."""
    scores: list[list[float]] = [[], [], []]
    for seed in range(3):
        with h5py.File(folder / "runs" / f"{method}-{seed}" / "predictions.h5") as file:
            names = [name.decode() for name in file["id"][:]]
            final, target = file["final"][:], file["target"][:]
        with (folder / "twins" / "twins.csv").open(newline="") as lines:
            rows = list(csv.DictReader(lines))
        split = {row["id"]: row["split"] for row in rows}
        sets: dict[str, list[str]] = {}
        for row in rows:
            sets.setdefault(row["set"], []).append(row["id"])
        leaked = {name for part in sets.values() for name in part if any(split[other] == "train" for other in part)}
        right = [int(target[i]) in np.argsort(-final[i], kind="stable")[:k] for i in range(len(names))]
        for chosen, kept in zip(scores, (None, False, True), strict=True):
            part = [r for r, name in zip(right, names, strict=True) if kept is None or (name in leaked) == kept]
            chosen.append(100 * sum(part) / len(part))
    return [f"{np.mean(part):.2f} ± {np.std(part, ddof=1):.2f}" for part in scores]


def test_each_accuracy_stands_with_and_without_twins(tmp_path: Path) -> None:
    text, _ = report(place(tmp_path, 15))
    (table,) = re.findall(r"### Accuracy with and without twins\n\n(.*?)\n\n(\|.*?)\n\n", text, re.DOTALL)
    assert table[0].startswith("With all 60 test images, without the 15 that have a twin in training")
    header, _, *lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1].splitlines()]
    assert header == [
        "method",
        *(f"top-{k}{part} %" for k in (1, 3, 5) for part in ("", " without", " of twins alone")),
    ]
    shown = {line[0].replace("\\", "").partition(" ")[0]: line[1:] for line in lines}
    for method in ("flat", "hmcn-f"):
        assert shown[method] == [cell for k in (1, 3, 5) for cell in by_hand(tmp_path, method, k)]


@pytest.mark.parametrize(
    ("shared", "state", "words"),
    [
        (0, "ok", "0 of 60 test images (0.00%) have a twin in training, at a cosine of 0.9 or more."),
        (
            1,
            "wrong",
            "1 of 60 test images (1.67%) have a twin in training, at a cosine of 0.9 or more: accuracies on all of "
            "them say too much; see Twins.",
        ),
    ],
)
def test_how_many_test_images_have_a_twin_in_training(shared: int, state: str, words: str, tmp_path: Path) -> None:
    text, checks = report(place(tmp_path, shared))
    assert checks == [(state, words)]
    page = (tmp_path / "report" / "report.html").read_text("utf-8")
    assert ('class="wrong" role="alert"' in page) == (state == "wrong")
    if not shared:
        assert "| – |" in text  # no twins alone


def test_up_to_one_percent_is_no_red_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hfc.report.twins.MOST_SHARED", 1 / TESTED)
    assert [state for state, _ in report(place(tmp_path, 1))[1]] == ["mind"]
    monkeypatch.setattr("hfc.report.twins.MOST_SHARED", 1 / TESTED - 1e-9)
    assert [state for state, _ in report(tmp_path)[1]] == ["wrong"]


def test_without_twins_a_report_says_how_to_look_for_them(tmp_path: Path) -> None:
    place(tmp_path, 3)
    write_report([tmp_path / "runs"], tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text("utf-8").replace("\\", "")
    section = text.partition("## Twins\n")[2].partition("\n## ")[0]
    assert section.strip().startswith("Not looked for.")
    assert "hfc report --twins DIR counts without them." in section
    assert "twin" not in text.replace(section, "").replace("## Twins", "")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cache__features_sha256": "e" * 64}, r"expected the twins of the features of .*, eeeeeeeeeeee…, found "),
        ({"cache__labels_digest": "e" * 64}, r"expected the twins of the labels and splits of .*, eeeeeeeeeeee…, "),
        (
            {"cache__labels_digest": "e" * 64, "cache__labels_sha256": "1" * 64},
            r"make them with hfc inspect cache/made-up.h5 --labels FILE --twins DIR",
        ),
        (
            {"cache__labels_digest": None, "cache__labels_sha256": "1" * 64},
            "does not record its labels and splits; train it again to give --twins",
        ),
    ],
)
def test_twins_of_something_else_are_refused(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    place(tmp_path, 3)
    for file in (tmp_path / "runs").glob("flat-1/result.json"):
        result = json.loads(file.read_text("utf-8"))
        for name, value in changes.items():
            result["cache"][name.removeprefix("cache__")] = value
        result["cache"] = {key: value for key, value in result["cache"].items() if value is not None}
        file.write_text(json.dumps(result), "utf-8")
    with pytest.raises(RunError, match=words):
        report(tmp_path)
    assert not (tmp_path / "report").exists()


def test_a_run_of_the_caches_own_labels_from_before_they_were_recorded_is_taken(tmp_path: Path) -> None:
    place(tmp_path, 3)
    for file in (tmp_path / "runs").rglob("result.json"):
        result = json.loads(file.read_text("utf-8"))
        del result["cache"]["labels_digest"]
        file.write_text(json.dumps(result), "utf-8")
    assert report(tmp_path)[1][0][1].startswith("3 of 60 ")


def test_a_list_that_was_changed_or_is_of_another_search_is_refused(tmp_path: Path) -> None:
    place(tmp_path, 3)
    file = tmp_path / "twins" / "twins.csv"
    file.write_text(file.read_text("utf-8").replace("0000.jpg", "0009.jpg"), "utf-8")
    with pytest.raises(RunError, match=r"twins.csv: is not the file that twins.json lists; run hfc inspect --twins"):
        report(tmp_path)
    file.unlink()
    with pytest.raises(RunError, match=r"cannot read the twins: .*No such file.*; run hfc inspect --twins again"):
        report(tmp_path)


def test_a_list_that_its_record_is_about_to_replace_is_refused(tmp_path: Path) -> None:
    """As a call leaves it that is killed between the record and the list."""
    place(tmp_path, 3)
    mark = tmp_path / "twins" / "twins.json"
    record = json.loads(mark.read_text("utf-8"))
    replaced = {**record, "hfc_files": {"twins.csv": "0" * 64}, "hfc_replaced": record["hfc_files"]}
    mark.write_text(json.dumps(replaced), "utf-8")
    with pytest.raises(RunError, match=r"twins.csv: is not the file that twins.json lists; run hfc inspect --twins"):
        report(tmp_path)


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    place(tmp_path, 3)
    mark = tmp_path / "twins" / "twins.json"
    mark.write_text(json.dumps({**json.loads(mark.read_text("utf-8")), "pairs": "4"}), "utf-8")
    with pytest.raises(RunError, match=r"twins.json: pairs: expected an integer, found '4'; run hfc inspect --twins"):
        report(tmp_path)


def test_runs_of_outer_folds_have_no_twins_of_the_caches_splits(tmp_path: Path) -> None:
    outer = {"number": 0, "folds": 2, "row": "flat", "search": "", "searched": []}
    with pytest.raises(RunError) as caught:
        report(place(tmp_path, 3, outer=outer))
    assert str(caught.value) == (
        f"--twins {tmp_path / 'twins'}: {tmp_path / 'runs' / 'flat-0'} is of an outer fold, whose training images are "
        "others than those of the cache's own splits; leave --twins out, and keep twins together by groups"
    )
