"""A renamed run gives the same numbers with other names."""

import csv
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.main import main
from hfc.errors import HierarchyError
from hfc.hierarchy import Hierarchy
from hfc.hierarchy.tree import from_paths
from hfc.predict.rename import rename
from tests.support.trained import LEAVES

# The leaves Tee and Jeans change places; a group and a name with a comma are written anew.
NAMES = {"Tee": "Jeans", "Jeans": "Tee", "<script>": "trousers, long", "=1+1": "Été"}


def hfc(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


def names_file(folder: Path, rows: object = tuple(NAMES.items()), header: str = "old,new") -> Path:
    with (folder / "names.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header.split(","), *rows])  # type: ignore[misc]
    return folder / "names.csv"


def test_answers_are_the_same_with_other_names(run: Path, place: Path, tmp_path: Path) -> None:
    out = tmp_path / "renamed"
    done = hfc("rename", run, names_file(tmp_path), "--out", out)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == (
        "Tee -> Jeans\nJeans -> Tee\n<script> -> trousers, long\n=1+1 -> Été\n"
        f"{out}: {run} with 4 other names; next: hfc predict {out} IMAGE\n"
    )
    before, after = (
        [json.loads(line) for line in hfc("predict", folder, place / "img", "--json").stdout.splitlines()]
        for folder in (run, out)
    )
    assert {tuple(answer.get("path", ())) for answer in before} != {tuple(answer.get("path", ())) for answer in after}
    for old, new in zip(before, after, strict=True):
        for answer in (old, *old.get("top", ())):
            if "path" in answer:
                answer["path"] = [NAMES.get(name, name) for name in answer["path"]]
        assert new == old


def test_the_run_stays_what_it_was_but_for_its_names(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "renamed"
    hfc("rename", run, names_file(tmp_path), "--out", out, "--json")
    same = ("config.toml", "metrics.jsonl", "head.safetensors", "predictions.h5")
    assert {p.name for p in out.iterdir()} == {*same, "hierarchy.csv", "result.json"}
    assert all((out / name).read_bytes() == (run / name).read_bytes() for name in same)
    old, new = (json.loads((folder / "result.json").read_text()) for folder in (run, out))
    assert (new.pop("renamed"), new.pop("run")) == (NAMES, "renamed")
    assert new["hierarchy"].pop("digest") != old["hierarchy"].pop("digest")
    assert old.pop("run") != "renamed"
    assert new == old
    with (run / "hierarchy.csv").open(newline="") as first, (out / "hierarchy.csv").open(newline="") as second:
        rows = list(csv.reader(first))
        assert list(csv.reader(second)) == [rows[0], *([NAMES.get(name, name) for name in row] for row in rows[1:])]


def test_a_report_and_an_export_have_the_new_names_and_the_same_numbers(run: Path, tmp_path: Path) -> None:
    hfc("rename", run, names_file(tmp_path), "--out", tmp_path / "renamed")
    tables = []
    for folder in (run, tmp_path / "renamed"):
        done = hfc("report", folder, "--out", tmp_path / f"report-{folder.name}", "--json")
        assert done.exit_code == 0, done.output
        tables.append([row["metrics"] for row in json.loads(done.stdout)["table"]])
    assert tables[0] == tables[1]
    assert hfc("export", tmp_path / "renamed", "--hf", tmp_path / "hf").exit_code == 0
    labels = json.loads((tmp_path / "hf" / "config.json").read_text())["id2label"].values()
    assert set(labels) == {NAMES.get(leaf, leaf) for leaf in LEAVES}


def test_renamed_back_it_is_the_run_again(run: Path, tmp_path: Path) -> None:
    hfc("rename", run, names_file(tmp_path), "--out", tmp_path / "there")
    back = names_file(tmp_path, [(new, old) for old, new in NAMES.items()])
    assert hfc("rename", tmp_path / "there", back, "--out", tmp_path / "back").exit_code == 0
    assert (tmp_path / "back" / "hierarchy.csv").read_bytes() == (run / "hierarchy.csv").read_bytes()


REFUSED = {
    "unknown": ([("Teee", "Shirt")], r"names.csv: hierarchy tree has no node 'Teee'; did you mean Tee\?"),
    "collision": (
        [("Tee", "Jeans")],
        "Jeans and Tee would all be named Jeans, so that no answer could tell them apart",
    ),
    "to one name": ([("Tee", "A"), ("Jeans", " A ")], "Jeans and Tee would all be named A"),
    "leaf and group": ([("<script>", "Tee")], "would all be named Tee"),
    "twice": ([("Tee", "A"), ("Tee", "B")], "names.csv: row 3: Tee was listed before; list each node once"),
    "one node": ([("Tee", "A"), ("> tops, of all > kinds > Tee", "B")], "are one node; list it once"),
    "blank": ([("Tee", " ")], "names.csv: row 2: expected an old and a new name, found 'Tee,'"),
    "nothing": ([], "names.csv: expected a row for each node to rename, found only the header"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_names_that_cannot_be_are_refused(case: str, run: Path, tmp_path: Path) -> None:
    rows, message = REFUSED[case]
    done = hfc("rename", run, names_file(tmp_path, rows), "--out", tmp_path / "renamed")
    assert done.exit_code == 1, done.output
    assert re.search(message, done.stderr), done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "renamed").exists()


def test_other_columns_the_run_itself_and_no_file_are_refused(run: Path, tmp_path: Path) -> None:
    file = names_file(tmp_path, header="from,to")
    assert (
        "row 1: expected the columns old,new, found 'from,to'"
        in hfc("rename", run, file, "--out", tmp_path / "r").stderr
    )
    assert "is the run itself; name another folder" in hfc("rename", run, names_file(tmp_path), "--out", run).stderr
    nothing = hfc("rename", tmp_path, names_file(tmp_path), "--out", tmp_path / "r")
    assert nothing.stderr == f"Error: {tmp_path}: no run; name the folder of one, as hfc train prints it\n"
    assert hfc("rename", run, tmp_path / "no.csv", "--out", tmp_path / "r").exit_code == 1


def test_a_name_that_the_file_of_a_tree_would_change_is_refused() -> None:
    tree = from_paths("t", ("leaf",), [("a",), ("b",)])
    for name in (" c", "c\rd"):
        with pytest.raises(HierarchyError, match="here: a name that the file of a tree cannot hold"):
            rename(tree, {"a": name}, "here")
    assert rename(tree, {"a": "c\u2028d"}, "here").leaves == ("c\u2028d", "b")


LETTERS = st.sampled_from("abcdefgh")


@given(
    paths=st.lists(st.lists(LETTERS, min_size=1, max_size=3).map(tuple), min_size=1, max_size=8),
    names=st.dictionaries(LETTERS, st.sampled_from("abcdefghuvwxyz"), max_size=4),
)
@settings(max_examples=60, deadline=None)
def test_a_renamed_tree_is_the_same_tree(paths: list[tuple[str, ...]], names: dict[str, str]) -> None:
    tree = from_paths("t", ("1", "2", "3")[: max(map(len, paths))], paths)
    nodes = {(h, i): name for h, level in enumerate(tree.nodes) for i, name in enumerate(level)}
    try:
        renamed: Hierarchy = rename(tree, names, "here")
    except HierarchyError:
        return
    assert renamed.ancestors is tree.ancestors
    for (h, i), name in nodes.items():
        new = renamed.nodes[h][i]
        assert new == name or new == names[name]
    after = [(name, renamed.nodes[h][i]) for (h, i), name in nodes.items()]
    for old, new in after:  # names that were different stay so
        assert all(other == old for other, same in after if same == new)
