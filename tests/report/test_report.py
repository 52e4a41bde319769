"""The report's files from made-up runs with known numbers."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.main import main
from hfc.errors import ConfigError, RunError
from hfc.progress import watched_by
from hfc.report import report, write_report
from hfc.runs import find
from tests.support.made_runs import tree_of, write_run
from tests.support.reports import rows_of
from tests.support.watching import Watcher

HOSTILE = '<script>document.title="run"</script>'


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


def test_one_call_takes_folders_as_text_and_runs_themselves(place: Path) -> None:
    wanted = (place / "report" / "results.json").read_bytes()
    for number, runs in enumerate((str(place / "runs"), [place / "runs"], find([place / "runs"]))):
        summary = report(runs, out=str(place / f"called{number}"))
        assert (summary.folder / "results.json").read_bytes() == wanted
    assert report(find([place / "runs"])[0], place / "one").runs == 1
    compared = report(place / "runs", place / "based", baseline="flat")
    assert compared == write_report([place / "runs"], place / "based", baseline="flat")


def test_a_wrong_keyword_of_a_report_gets_a_suggestion(place: Path) -> None:
    with pytest.raises(ConfigError, match=r"^unknown setting 'image'; did you mean images\?$"):
        report(place / "runs", place / "no", image="photos")
    assert not (place / "no").exists()


def test_a_report_says_how_far_it_is(place: Path) -> None:
    watcher = Watcher()
    with watched_by(watcher):
        write_report([place / "runs"], place / "watched")
    assert all(shown.total in (None, shown.done) and shown.closed for shown in watcher.bars)
    assert [shown.what for shown in watcher.bars] == [
        *("reading runs", "reading predictions", "comparing methods"),
        *("drawing", "drawing trees", "writing the report"),
    ]


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


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    write_run(tmp_path / "runs", tree)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"report\.html: the report cannot be written: (Not a directory|File exists)"):
        write_report([tmp_path / "runs"], tmp_path / "file")


def test_pictures_come_from_a_folder_or_an_archive(tmp_path: Path) -> None:
    (tmp_path / "photos.txt").touch()
    (tmp_path / "photos.zip").write_bytes(b"no archive")
    write_run(tmp_path / "runs" / "a", tree_of(tmp_path / "tree.csv"))
    for name, code, message in (
        ("photos.txt", 1, "expected a folder, a ZIP or a TAR archive, found the file"),
        ("none.zip", 1, "does not exist"),
        ("photos.zip", 1, "cannot be read as a ZIP archive: File is not a zip file; pack or download it again"),
    ):
        words = ["report", tmp_path / "runs", "--images", tmp_path / name, "--out", tmp_path / "report"]
        result = CliRunner().invoke(main, list(map(str, words)))
        assert (result.exit_code, message in result.stderr) == (code, True), result.output
        assert not (tmp_path / "report").exists()
