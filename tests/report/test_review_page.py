"""The folder that doubtful labels are written to, and the way back into training."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from hfc.errors import RunError
from hfc.hierarchy import load_hierarchy
from hfc.regions import Regions, strings
from hfc.report.review_page import ReviewRecord, write_review
from hfc.store import FeatureStore, HeldOut
from hfc.train.labels import join_labels
from tests.support.made_up import write_cache
from tests.support.reports import rows_of
from tests.support.reviews import held_of

HOSTILE = "<script>alert(1)</script>"
TREE = f"leaf,group\nTee,tops\nTank,tops\nJeans,legs & co\n{HOSTILE},legs & co\n"
LABELS = ["Tee", "Tank", "Jeans", HOSTILE] * 10
DOUBTFUL = {4: "Tank", 8: "Jeans", 2: HOSTILE, 3: "Tee"}  # the last is the most doubtful
RANKED = [3, 2, 8, 4]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    (tmp_path / "tree.csv").write_text(TREE)
    return write_cache(tmp_path / "c.h5", LABELS, ["train", "val", "test", ""] * 10)


def judged(cache: Path, doubtful: dict[int, str] | None = None, regions: Regions | None = None) -> HeldOut:
    tree = load_hierarchy(str(cache.with_name("tree.csv")))
    return held_of(cache, tree, DOUBTFUL if doubtful is None else doubtful, regions=regions)


def stored(cache: Path) -> Regions:
    with FeatureStore(cache) as store:
        return store.table().regions


def name(row: int) -> str:
    return f"{row:05d}.jpg"


def put_pictures(root: Path, rows: list[int]) -> Path:
    root.mkdir(parents=True)
    for row in rows:
        Image.new("RGB", (40, 20), "red").save(root / name(row))
    return root


def test_the_list_has_the_doubtful_rows_the_worst_first(cache: Path, tmp_path: Path) -> None:
    record, files = write_review(judged(cache), cache, tmp_path / "out")
    assert [file.name for file in files] == ["review.csv", "review.json"]
    assert files[0].read_text("utf-8") == (
        "id,label,suggested,p_label,p_suggested\n"
        f"00003.jpg,{HOSTILE},Tee,0.0700,0.8300\n"
        f"00002.jpg,Jeans,{HOSTILE},0.0800,0.8200\n"
        "00008.jpg,Tee,Jeans,0.0900,0.8100\n"
        "00004.jpg,Tee,Tank,0.1000,0.8000\n"
    )
    content = json.loads(files[1].read_text("utf-8"))
    assert [row["siblings"] for row in content["rows"]] == [False, True, False, True]
    expected = {"judged": 40, "folds": 5, "lone": [], "doubtful": 4, "doubtful_siblings": 2, "doubtful_strangers": 2}
    assert content | expected == content
    assert content["settings"] == {"method": "flat", "seed": 0}
    # Each label has ten rows, all of them sure: the estimate is the count.
    assert (content["estimated_errors"], content["estimated_error_rate"]) == (4.0, 0.1)
    pairs = {(pair["label"], pair["suggested"]): pair for pair in content["pairs"]}
    assert len(pairs) == 4
    one = {"label": "Tee", "suggested": "Jeans", "siblings": False, "listed": 1, "confident": 1, "estimated": 1.0}
    assert pairs["Tee", "Jeans"] == one
    assert ReviewRecord.from_json(files[1].read_bytes(), "review.json").rows == record.rows
    assert content["hfc_files"].keys() == {"review.csv"}


def test_no_more_rows_are_listed_than_asked_for(cache: Path, tmp_path: Path) -> None:
    record, files = write_review(judged(cache), cache, tmp_path / "out", most=2)
    assert [row["id"] for row in rows_of(files[0])] == [name(row) for row in RANKED[:2]]
    assert (record.doubtful, len(record.rows)) == (4, 2)


def test_without_doubts_the_list_is_empty(cache: Path, tmp_path: Path) -> None:
    root = put_pictures(tmp_path / "photos", [])
    record, files = write_review(judged(cache, {}), cache, tmp_path / "out", images=root)
    assert (rows_of(files[0]), record.estimated_error_rate) == ([], 0.0)
    assert "0 of 40 labels are doubtful" in files[1].read_text("utf-8")


def test_the_list_changes_what_was_edited_and_nothing_else(cache: Path, tmp_path: Path) -> None:
    _, (file, _) = write_review(judged(cache), cache, tmp_path / "out")
    before = stored(cache)
    assert join_labels(before, file)[0].label.tolist() == LABELS  # as it is, it changes nothing
    with file.open(newline="") as stream:
        header, *rows = csv.reader(stream)
    rows[0][1] = rows[0][2]  # the suggestion is right
    rows[1][1] = ""  # belongs to no category
    del rows[3]  # its label is right
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    joined, _ = join_labels(before, file)
    assert {row: label for row, label in enumerate(joined.label) if label != LABELS[row]} == {3: "Tee", 2: ""}
    assert joined.split.tolist() == before.split.tolist()


def test_a_second_review_keeps_what_the_first_one_corrected(cache: Path, tmp_path: Path) -> None:
    own = stored(cache)
    label, split = own.label.copy(), own.split.copy()
    label[10], label[11], split[11], split[12] = "Tank", "", "val", "test"
    used = replace(own, label=label, split=split)
    _, (file, _) = write_review(judged(cache, {3: "Tee"}, used), cache, tmp_path / "out")
    assert rows_of(file) == [
        {
            "id": name(3),
            "label": HOSTILE,
            "suggested": "Tee",
            "p_label": "0.1000",
            "p_suggested": "0.8000",
            "split": own.split[3],
        },
        *(
            {"id": name(row), "label": label[row], "suggested": "", "p_label": "", "p_suggested": "", "split": part}
            for row, part in ((10, own.split[10]), (11, "val"), (12, "test"))
        ),
    ]
    joined, _ = join_labels(own, file)
    assert joined.label.tolist() == label.tolist()
    assert joined.split.tolist() == split.tolist()


def test_ids_of_any_kind_come_back(tmp_path: Path) -> None:
    names = ["a, b.jpg", 'c "d".jpg', "é/ü.jpg", "=1+1.jpg", "-x", "e\nf", *(name(row) for row in range(34))]
    (tmp_path / "tree.csv").write_text(TREE)
    cache = write_cache(tmp_path / "c.h5", LABELS, ["train"] * 40)
    own = replace(stored(cache), id=strings(names))
    everything = {row: "Tee" for row in range(6) if LABELS[row] != "Tee"} | {0: "Tank", 4: "Tank"}
    held = judged(cache, everything, own)
    _, (file, _) = write_review(held, cache, tmp_path / "out")
    assert {row["id"] for row in rows_of(file)} == set(names[:6])
    file.write_text(file.read_text().replace("Jeans,Tee", "Tee,Tee"))
    assert join_labels(own, file)[0].label.tolist() == [*LABELS[:2], "Tee", *LABELS[3:]]


def test_pictures_stand_beside_what_is_known_of_them_strangers_first(cache: Path, tmp_path: Path) -> None:
    root = put_pictures(tmp_path / "moved", [3, 2, 4])
    _, files = write_review(judged(cache), cache, tmp_path / "out", images=root)
    assert [file.name for file in files] == ["review.csv", "review.html", "review.json"]
    text = files[1].read_text("utf-8")
    sections = re.findall(r"<h2>(\w+): 2</h2>(.*?)</section>", text, re.DOTALL)
    assert [title for title, _ in sections] == ["Strangers", "Siblings"]
    ids = [re.findall(r'class="id">(.*?)<', body) for _, body in sections]
    assert ids == [[name(3), name(8)], [name(2), name(4)]]
    assert [body.count('src="data:image/jpeg;base64,') for _, body in sections] == [1, 2]
    assert "No such file or directory" in sections[0][1]
    assert "<dd>tops &gt; Tee (0.090)</dd>" in sections[0][1]
    assert '<dd class="answer">legs &amp; co &gt; Jeans (0.810)</dd>' in sections[0][1]
    assert re.findall(r"<dt>rank</dt><dd>(\d)<", text) == ["1", "3", "2", "4"]
    words = " ".join(text.split())
    assert "4 of 40 labels are doubtful: for 2 a leaf with another parent is more probable, for 2 a sibling." in words
    assert "What this list is: each image was judged by a head (method flat) that saw neither it nor another" in words
    assert "What it is not: a list of mistakes." in words
    assert "By estimate 10.0% of the labels are wrong." in words
    assert HOSTILE not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_of_very_many_rows_the_first_are_shown(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hfc.report.review_page.MOST_SHOWN", 1)
    root = put_pictures(tmp_path / "photos", [3])
    _, files = write_review(judged(cache), cache, tmp_path / "out", images=root)
    text = files[1].read_text("utf-8")
    assert (text.count("<h2>S"), text.count("<li>"), text.count("The first 1 are shown.")) == (2, 2, 2)


def test_rows_that_nobody_can_judge_are_counted(cache: Path, tmp_path: Path) -> None:
    held = replace(judged(cache), lone=strings(["x.jpg"]), inner=7)
    root = put_pictures(tmp_path / "photos", [3])
    record, files = write_review(held, cache, tmp_path / "out", images=root)
    assert (record.lone, record.inner, record.plain()["inner"]) == (("x.jpg",), 7, 7)
    text = " ".join(files[1].read_text().split())
    assert "1 images cannot be judged, as no image outside their fold" in text
    assert "7 images have an inner node of the tree as a label, and are not judged." in text


def test_no_picture_at_all_is_an_error_and_nothing_is_written(cache: Path, tmp_path: Path) -> None:
    root = put_pictures(tmp_path / "empty", [])
    with pytest.raises(RunError, match=r"none of the 4 pictures to show can be read, such as .*00003\.jpg"):
        write_review(judged(cache), cache, tmp_path / "out", images=root)
    assert not (tmp_path / "out").exists()


def test_only_what_a_review_wrote_is_replaced(cache: Path, tmp_path: Path) -> None:
    out, root = tmp_path / "out", put_pictures(tmp_path / "photos", [3])
    write_review(judged(cache), cache, out, images=root)
    (out / "notes.txt").write_text("mine")
    write_review(judged(cache), cache, out)
    assert sorted(file.name for file in out.iterdir()) == ["notes.txt", "review.csv", "review.json"]
    (out / "review.csv").write_text("edited")  # an afternoon's work
    with pytest.raises(RunError, match=r"review\.csv: is in the way: hfc did not write it, or it was changed since"):
        write_review(judged(cache), cache, out)
    assert (out / "review.csv").read_text() == "edited"


def test_on_an_uneven_tree_a_suggestion_names_its_leaf_and_siblings_have_one_parent(tmp_path: Path) -> None:
    text = "leaf,kind,group\nHat,,\nTee,tops,\nOther,tops,\nJeans,long,legs\nOther,long,legs\n"
    (tmp_path / "tree.csv").write_text(text)
    labels = ["Hat", "Tee", "tops > Other", "Jeans", "legs > long > Other"]
    cache = write_cache(tmp_path / "c.h5", labels * 6, ["train"] * 30)
    seems = {5: "Tee", 6: "tops > Other", 7: "legs > long > Other", 8: "Hat"}
    root = put_pictures(tmp_path / "photos", list(seems))
    record, files = write_review(judged(cache, seems), cache, tmp_path / "out", images=root)
    assert {row.id: row.suggested for row in record.rows} == {name(row): leaf for row, leaf in seems.items()}
    assert {row.id for row in record.rows if row.siblings} == {name(6)}
    tree = load_hierarchy(str(tmp_path / "tree.csv"))
    suggested = tree.index([row["suggested"] for row in rows_of(files[0])], "the list")  # which hfc train takes back
    assert [tree.leaves[leaf] for leaf in suggested] == [row.suggested for row in record.rows]
    text = files[1].read_text("utf-8")
    for words in ("<dd>tops &gt; Other (", '<dd class="answer">legs &gt; long &gt; Other (', "<dd>Hat ("):
        assert words in text
