"""Labels joined onto a cache's rows, against a join by hand."""

import hashlib
import json
import os
import threading
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from cli.main import main
from hfc.errors import DatasetError
from hfc.provenance import digest
from hfc.regions import Regions, strings
from hfc.train.cache import load_cache
from hfc.train.labels import join_labels
from tests.support.made_up import small_cache, write_tree_csv

NAMES = ["a.jpg", "b c.jpg", "d,e.jpg", "f"]


def regions() -> Regions:
    names = strings(NAMES)
    box = np.full((4, 4), np.nan, dtype=np.float32)
    return Regions(
        Path("/r"), "o", names, names, box, strings(["A", "B", "C", ""]), strings(["train", "val", "", "test"])
    )


def joined(folder: Path, text: str) -> tuple[list[str], list[str]]:
    content = text.encode("utf-8", "surrogateescape")
    (folder / "l.csv").write_bytes(content)
    got, sha256 = join_labels(regions(), folder / "l.csv")
    assert sha256 == hashlib.sha256(content).hexdigest()
    assert (got.id.tolist(), got.root) == (NAMES, Path("/r"))
    return got.label.tolist(), got.split.tolist()


def test_ids_are_joined_in_whatever_form_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mine = ["Caf\u00e9/a.jpg", "Gro\u0308\u00dfe/b.jpg", " Tee /c.jpg", "x/d.jpg"]
    monkeypatch.setattr("tests.train.test_labels.NAMES", mine)
    text = "id,label\nCafe\u0301/a.jpg,A\nGr\u00f6\u00dfe/b.jpg,B\nTee\\c.jpg ,C\nx/d.jpg,D\n"
    assert joined(tmp_path, text)[0] == ["A", "B", "C", "D"]
    assert caplog.messages == []
    # An id that is there to the letter is meant; what could be two is not guessed.
    monkeypatch.setattr("tests.train.test_labels.NAMES", ["Caf\u00e9", "Cafe\u0301", " y", "y "])
    assert joined(tmp_path, "id,label\nCafe\u0301,A\ny,B\n")[0] == ["", "A", "", ""]


def test_labels_that_are_one_class_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = "id,label\na.jpg,Caf\u00e9\nb c.jpg,Cafe\u0301\nf,X\n"
    assert joined(tmp_path, text)[0] == ["Caf\u00e9", "Cafe\u0301", "", "X"]
    expected = r"one class in several spellings: 'Cafe\u0301', 'Caf\xe9'"
    assert f"{tmp_path / 'l.csv'}: {expected}" in caplog.messages


def test_labels_are_joined_by_id_and_splits_stay(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = 'label,note,id\nX,1,"d,e.jpg"\nY,,a.jpg\nZ,,b c.jpg\nW,,f\n'
    assert joined(tmp_path, text) == (["Y", "Z", "X", "W"], ["train", "val", "", "test"])
    assert not caplog.text


def test_splits_are_taken_where_the_file_has_them(tmp_path: Path) -> None:
    text = 'path,label,split,x1\na.jpg,Y,test,\n"d,e.jpg",X,train,\nf,,val,\nb c.jpg,Z,val,\n'
    assert joined(tmp_path, text) == (["Y", "Z", "X", ""], ["test", "val", "train", "val"])


def test_a_blank_split_leaves_the_caches_own(tmp_path: Path) -> None:
    text = 'id,label,split\na.jpg,Y,\nb c.jpg,Z,test\n"d,e.jpg",X, \nf,W,\n'
    assert joined(tmp_path, text) == (["Y", "Z", "X", "W"], ["train", "test", "", "test"])


def test_groups_are_taken_where_the_file_has_them_and_a_blank_one_leaves_the_caches_own(tmp_path: Path) -> None:
    mine = replace(regions(), group=strings(["dress", "dress", "", "hat"]))
    (tmp_path / "l.csv").write_text('group,id,label\n coat ,a.jpg,A\n,b c.jpg,B\nhat,"d,e.jpg",C\n')
    got, _ = join_labels(mine, tmp_path / "l.csv")
    assert got.group.tolist() == ["coat", "dress", "hat", "hat"]
    (tmp_path / "l.csv").write_text("id,label,group\na.jpg,A,x\nf,B\n")
    with pytest.raises(DatasetError) as caught:
        join_labels(mine, tmp_path / "l.csv")
    assert str(caught.value) == f"{tmp_path / 'l.csv'}: row 3: expected 3 cells, found 2"


def test_groups_change_what_runs_record_of_labels_and_nothing_else_does(tmp_path: Path) -> None:
    cache = small_cache(tmp_path / "c.h5")
    plain = load_cache(cache, device="cpu").meta.labels_digest
    regions_ = load_cache(cache, device="cpu").table.regions
    assert plain == digest([regions_.id.tolist(), regions_.label.tolist(), regions_.split.tolist()])
    rows = list(zip(regions_.id, regions_.label, strict=True))
    digests = []
    for groups in ([""] * 360, ["one"] * 2 + [""] * 358, ["two"] * 2 + [""] * 358):
        lines = [f"{name},{label},{group}" for (name, label), group in zip(rows, groups, strict=True)]
        (tmp_path / "l.csv").write_text("\n".join(["id,label,group", *lines]))
        digests.append(load_cache(cache, device="cpu", labels=tmp_path / "l.csv").meta.labels_digest)
    assert digests[0] == plain
    assert len(set(digests)) == 3


def test_labels_are_read_from_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "l.csv")
    threading.Thread(target=(tmp_path / "l.csv").write_text, args=("id,label\nf,Y\n",)).start()
    got, sha256 = join_labels(regions(), tmp_path / "l.csv")
    assert got.label.tolist() == ["", "", "", "Y"]
    assert sha256 == hashlib.sha256(b"id,label\nf,Y\n").hexdigest()


def test_rows_without_a_partner_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert joined(tmp_path, "id,label\nf,Y\nnew,Z\nnewer,Z\n") == (["", "", "", "Y"], ["train", "val", "", "test"])
    assert "3 rows of the cache are not in it and have no label; 2 of its rows are not in the cache" in caplog.text


def test_rows_that_a_list_of_a_review_does_not_name_keep_their_labels(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    text = "id,label,suggested,p_label,p_suggested\nb c.jpg,X,X,0.1,0.8\nnew,Z,,,\n"
    assert joined(tmp_path, text) == (["A", "X", "C", ""], ["train", "val", "", "test"])
    file = tmp_path / "l.csv"
    assert caplog.messages[1:] == [
        f"{file}: 0 rows of the cache are not in it and have no label; 1 of its rows are not in the cache",
        f"{file}: gives 1 rows another label than the cache's; all others keep theirs",
    ]
    # As a spreadsheet program may leave it: other columns as well, in another order; a blank label takes one away.
    text = "p_suggested;p_label;note;label;id;suggested;split\n;;;;a.jpg;;test\n;;;Y;d,e.jpg;;\n"
    assert joined(tmp_path, text) == (["", "B", "Y", ""], ["test", "val", "", "test"])
    # A list without doubtful rows changes nothing.
    assert joined(tmp_path, "id,label,suggested,p_label,p_suggested\n")[0] == ["A", "B", "C", ""]
    # Without one of its columns it is any file.
    text = "id,label,suggested,p_label\nb c.jpg,X,X,0.1\n"
    assert joined(tmp_path, text)[0] == ["", "X", "", ""]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,label\nx,Y\n", r"l.csv: none of its 1 ids, such as 'x', is among the 4 of the cache, such as 'a.jpg'"),
        ("id,label\n", "l.csv: expected a row for each id, found only the header"),
        ("id,label\nf,Y\nf,Z\n", "l.csv: row 3: id f was listed before, in row 2; list each once"),
        ("id,label\n\nf,Y\n,X\n", "l.csv: row 4: expected an id, found nothing"),
        ('path,label\nf,Y\n"  ",X\n', "l.csv: row 3: expected a path, found nothing"),
        ("id,label,split\nf,Y,trian\n", "l.csv: row 2: expected the split .* found 'trian'; did you mean train"),
        (
            "id,name\nf,Y\n",
            "l.csv: row 1: expected the columns id,label .* split and group, found 'id,name'",
        ),
        ("id,label\nf\n", "l.csv: row 2: expected 2 cells, found 1"),
        ('id,label\n"f,Y\n', "l.csv: cannot read the labels"),
        ("id,label\nf,\udce4\n", "l.csv: row 2: expected UTF-8, found the byte 0xe4; save it in UTF-8"),
        ("", "l.csv: row 1: expected the columns"),
    ],
)
def test_labels_that_cannot_be_joined_are_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=message):
        joined(tmp_path, text)


def test_training_takes_other_labels_and_leaves_the_cache_alone(tmp_path: Path) -> None:
    small_cache(tmp_path / "c.h5")
    before = (tmp_path / "c.h5").read_bytes()
    write_tree_csv(tmp_path / "tree.csv")
    (tmp_path / "two.csv").write_text("leaf,group\nUp,all\nDown,all\n")
    # The six leaves of the cache, in turn, become two.
    rows = [f"{i:05d}.jpg,{'Up' if i % 6 < 3 else 'Down'}" for i in range(360)]
    (tmp_path / "l.csv").write_text("\n".join(["id,label", *rows]))
    words = ["train", tmp_path / "c.h5", "--method", "flat", "--out", tmp_path / "runs", "--set", "topk=1"]
    quick = ["--set", "epochs=8", "--set", "batch_size=32", "--set", "reduced=32"]
    plain = CliRunner().invoke(main, [*map(str, words), *quick, "--hierarchy", str(tmp_path / "two.csv")])
    # The cache's own labels are not in this tree.
    assert plain.exit_code == 1
    assert f"hierarchy two does not fit {tmp_path / 'c.h5'}: it has no node for Chinos, Coat" in plain.stderr
    (tmp_path / "wrong.csv").write_text((tmp_path / "l.csv").read_text().replace("Down", "Don", 1))
    words_wrong = [*words, *quick, "--hierarchy", tmp_path / "two.csv", "--labels", tmp_path / "wrong.csv"]
    wrong = CliRunner().invoke(main, list(map(str, words_wrong)))
    expected = f"hierarchy two does not fit {tmp_path / 'wrong.csv'}: it has no node for Don; is Don meant to be Down?"
    assert (wrong.exit_code, f"Error: {expected}\n" in wrong.stderr) == (1, True), wrong.stderr
    other = CliRunner().invoke(
        main, [*map(str, words), *quick, "--hierarchy", str(tmp_path / "two.csv"), "--labels", str(tmp_path / "l.csv")]
    )
    assert other.exit_code == 0, other.output
    (result,) = (json.loads(path.read_text()) for path in (tmp_path / "runs").rglob("result.json"))
    assert result["hierarchy"]["sizes"] == [1, 2]
    assert result["cache"]["labels"] == str(tmp_path / "l.csv")
    assert result["cache"]["labels_sha256"] == hashlib.sha256((tmp_path / "l.csv").read_bytes()).hexdigest()
    assert load_cache(tmp_path / "c.h5").meta.labels_sha256 == ""
    assert result["test"]["top1"] > 0.8
    assert (tmp_path / "c.h5").read_bytes() == before


def labelled(folder: Path, rows: Iterable[int]) -> list[str]:
    """The words of a training with a file that labels some of 360 rows, 18 train, 6 val, 6 test and so on again."""
    small_cache(folder / "c.h5", failed=[0])
    write_tree_csv(folder / "tree.csv")
    leaves = ["Tee", "Tank", "Coat", "Jeans", "Chinos", "Shorts"]
    lines = [f"{i:05d}.jpg,{leaves[i % 6]}" for i in rows]
    (folder / "l.csv").write_text("\n".join(["id,label", *lines]))
    words = ["train", folder / "c.h5", "--hierarchy", folder / "tree.csv", "--method", "flat", "--out", folder / "runs"]
    return [*map(str, words), "--labels", str(folder / "l.csv"), "--set", "epochs=1", "--set", "reduced=8"]


def test_labels_that_leave_most_rows_without_one_are_refused_unless_asked_for(tmp_path: Path) -> None:
    words = labelled(tmp_path, (i for i in range(360) if i % 30 < 8 or i in (18, 24)))
    refused = CliRunner().invoke(main, words)
    assert refused.exit_code == 1
    assert refused.stderr.splitlines()[-1] == (
        f"Error: {tmp_path / 'l.csv'}: most rows of a split have no label in it: it labels 95 of 215 train rows, "
        "1 of 72 val rows, 1 of 72 test rows, and not '00008.jpg', for one; give --allow-unlabelled to leave them out"
    )
    assert not (tmp_path / "runs").exists()
    (tmp_path / "grid.toml").write_text(
        f"method = 'flat'\nhierarchy = '{tmp_path / 'tree.csv'}'\n[grid]\ndropout = [0.1]\n"
    )
    search = ["sweep", str(tmp_path / "c.h5"), "--grid", str(tmp_path / "grid.toml"), "--out", str(tmp_path / "s")]
    again = CliRunner().invoke(main, [*search, "--labels", str(tmp_path / "l.csv")])
    assert (again.exit_code, again.stderr.splitlines()[-1]) == (1, refused.stderr.splitlines()[-1])
    assert CliRunner().invoke(main, [*words, "--allow-unlabelled"]).exit_code == 0


def test_labels_that_leave_a_split_without_any_are_refused_in_any_case(tmp_path: Path) -> None:
    words = labelled(tmp_path, (i for i in range(360) if i % 30 < 8))
    for more in ([], ["--allow-unlabelled"]):
        refused = CliRunner().invoke(main, [*words, *more])
        assert refused.exit_code == 1
        assert refused.stderr.splitlines()[-1] == (
            f"Error: {tmp_path / 'c.h5'}: the val split is empty: its 72 rows are left out, 0 without features, "
            "72 without label; train, val (to select the epoch) and test rows are needed"
        )


def test_a_few_rows_of_every_split_train_where_that_is_asked_for(tmp_path: Path) -> None:
    words = labelled(tmp_path, range(60))
    assert CliRunner().invoke(main, words).exit_code == 1
    done = CliRunner().invoke(main, [*words, "--allow-unlabelled"])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[0] == (
        "rows: 35 train, 12 val, 12 test; left out: 1 without features, 300 without label"
    )
    answer = json.loads(CliRunner().invoke(main, [*words, "--allow-unlabelled", "--json"]).stdout)
    assert answer["runs"][0]["rows"] == {
        "train": 35,
        "val": 12,
        "test": 12,
        "unused": {"without features": 1, "without label": 300, "without split": 0},
    }
