"""Photographs, trees and CSV files as people have them, through the commands that read them."""

import csv
import io
import json
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.main import main
from hfc.store import FeatureStore
from tests.support.deepfashion_tree import ITEMS, write_images, write_tree

TINY = ("--backbone", "test_efficientnet", "--weights", "random", "--image-size", "32")
QUICK = ("--method", "flat", "--set", "epochs=1", "--set", "topk=1")


def hfc(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


def photographs(root: Path, *folders: str, each: int = 6) -> Path:
    write_images(root, [f"{folder}/{i}.jpg" for folder in folders for i in range(each)])
    return root


def test_folders_of_groups_are_trained_on_with_their_own_tree(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = photographs(tmp_path / "shop", "men/Shirts", "women/Shirts", "women/Skirts")
    cache, tree = tmp_path / "c.h5", tmp_path / "c.tree.csv"
    dry = hfc("extract", root, *TINY, "--out", cache, "--dry-run")
    assert (dry.exit_code, tree.exists()) == (0, False), dry.output
    assert f"  tree       {tree}, of the folders (not written)\n" in dry.stdout
    result = hfc("extract", root, *TINY, "--out", cache)
    assert result.exit_code == 0, result.output
    assert f"hfc train {cache} --hierarchy {tree} --out RUNS" in result.stdout
    assert tree.read_text() == "category,group\nmen > Shirts,men\nwomen > Shirts,women\nSkirts,women\n"
    trained = hfc("train", cache, "--hierarchy", tree, *QUICK, "--out", tmp_path / "runs")
    assert trained.exit_code == 0, trained.output
    # A tree that somebody has worked on stays.
    own = "category,group\nmen > Shirts,shirts\nwomen > Shirts,shirts\nSkirts,skirts\n"
    tree.write_text(own)
    again = hfc("extract", root, *TINY, "--out", cache, "--overwrite", "--json")
    assert f"{tree}: is not the tree of the folders, and stays; remove it to have that written" in caplog.messages
    assert (tree.read_text(), json.loads(again.stdout)["tree"]) == (own, str(tree))
    tree.unlink()
    hfc("extract", root, *TINY, "--out", cache)
    assert tree.read_text().splitlines()[1] == "men > Shirts,men"


def test_folders_nested_unevenly_are_trained_on_and_predicted(tmp_path: Path) -> None:
    root = photographs(tmp_path / "shop", "Hat", "men", "men/Shirts", "women/Shirts", "women/outer/Coat")
    cache, tree = tmp_path / "c.h5", tmp_path / "c.tree.csv"
    assert hfc("extract", root, *TINY, "--out", cache).exit_code == 0
    assert tree.read_text() == "category,group 2,group 1\nHat,,\nShirts,,men\nShirts,,women\nCoat,outer,women\n"
    trained = hfc("train", cache, "--hierarchy", tree, *QUICK, "--out", tmp_path / "runs")
    assert trained.exit_code == 0, trained.output
    (run,) = (tmp_path / "runs").iterdir()
    rows = json.loads((run / "result.json").read_text())["rows"]
    assert sum(rows["inner"].values()) == 6  # those of men itself
    leaves = {("Hat",), ("men", "Shirts"), ("women", "Shirts"), ("women", "outer", "Coat")}
    answered = hfc("predict", run, root / "Hat" / "0.jpg", "--top", 4, "--json")
    (answer,) = [json.loads(line) for line in answered.stdout.splitlines()]
    assert {tuple(leaf["path"]) for leaf in answer["top"]} == leaves
    assert tuple(answer["path"]) in leaves
    within = json.loads(hfc("predict", run, root / "Hat" / "0.jpg", "--within", "women", "--json").stdout)
    assert {tuple(leaf["path"]) for leaf in within["top"]} == {path for path in leaves if path[0] == "women"}


def test_what_is_left_out_is_counted_and_what_cannot_be_read_is_listed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = photographs(tmp_path / "shop", "Tee", "Skirt", "@eaDir", ".ipynb_checkpoints")
    (root / "Tee" / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0")
    (root / "Tee" / "0.jpg").rename(root / "Tee" / "0.jfif")
    (root / "Tee" / "photo.cr2").touch()
    (tmp_path / "tree.csv").write_text("leaf,group\nTee,tops\nSkirt,legs\n")
    left_out = f"{root}: left out files that are no images by their names: 1 .cr2"
    result = hfc("extract", root, *TINY, "--out", tmp_path / "c.h5", "--json")
    summary = json.loads(result.stdout)
    reasons = (
        "HEIC photographs, as telephones take them, are read by pillow_heif",
        "damaged image: no whole HEIC file",
    )
    ((name, found),) = summary["failures"]
    assert (result.exit_code, summary["rows"], name) == (3, 13, "Tee/photo.heic")
    assert found.startswith(reasons)
    assert left_out in caplog.messages
    caplog.clear()
    with FeatureStore(tmp_path / "c.h5") as store:
        assert set(store.table().regions.label) == {"Tee", "Skirt"}
    trained = hfc("train", tmp_path / "c.h5", "--hierarchy", tmp_path / "tree.csv", *QUICK, "--out", tmp_path / "runs")
    assert trained.exit_code == 0, trained.output
    (run,) = (tmp_path / "runs").iterdir()
    answered = hfc("predict", run, root, "--json")
    answers = [json.loads(line) for line in answered.stdout.splitlines()]
    assert (answered.exit_code, len(answers)) == (3, 13)
    assert [answer["id"] for answer in answers if "error" in answer] == [str(root / "Tee" / "photo.heic")]
    assert left_out in caplog.messages


CAFE, CAFE_NFD = "Caf\u00e9", "Cafe\u0301"


@pytest.mark.parametrize(("written", "there"), [(CAFE, CAFE_NFD), (CAFE_NFD, CAFE)])
def test_labels_trees_paths_and_ids_meet_in_whatever_form_they_are_written(
    written: str, there: str, tmp_path: Path
) -> None:
    root = photographs(tmp_path / "shop", there, " Pants ")
    (tmp_path / "tree.csv").write_text(f"leaf,group\n{written},a\nPants,b\n")
    (tmp_path / "labels.csv").write_text(
        "\n".join(["id,label", *(f"{label}/{i}.jpg,{label}" for label in (written, "Pants") for i in range(6))])
    )
    splits = ("train", "train", "train", "train", "val", "test")
    rows = [rf"{written}\{i}.jpg,{written} ,{split}" for i, split in enumerate(splits)]
    rows += [f'" Pants /{i}.jpg",Pants,train' for i in range(2)]
    (root / "m.csv").write_text("\n".join(["path,label,split", *rows, "none.jpg,Pants,train"]))
    for source, failed in ((root, 0), (root / "m.csv", 1)):
        cache = tmp_path / f"{source.name}.h5"
        result = hfc("extract", source, *TINY, "--out", cache, "--json")
        assert len(json.loads(result.stdout)["failures"]) == failed, result.output
        trained = hfc("train", cache, "--hierarchy", tmp_path / "tree.csv", *QUICK, "--out", tmp_path / "runs")
        assert trained.exit_code == 0, trained.output
    words = ("--labels", tmp_path / "labels.csv", "--hierarchy", tmp_path / "tree.csv", "--out", tmp_path / "joined")
    trained = hfc("train", tmp_path / "shop.h5", *QUICK, *words, "--json")
    assert trained.exit_code == 0, trained.output
    (result_file,) = (tmp_path / "joined").rglob("result.json")
    assert json.loads(result_file.read_text())["rows"]["unused"]["without label"] == 0


PATHS = ("tops > Other", "hats > Other", "Tee", "tops", "hats")  # leaves by path and by name, and inner nodes


@pytest.mark.parametrize("source", ["m.csv", "shards.tar"])
def test_labels_that_are_paths_go_through_the_cache_as_they_are(source: str, tmp_path: Path) -> None:
    write_images(tmp_path, [f"{i:02d}.jpg" for i in range(60)])
    labels = {f"{i:02d}.jpg": PATHS[i % 5] for i in range(60)}
    (tmp_path / "m.csv").write_text("\n".join(["path,label", *(f"{name},{label}" for name, label in labels.items())]))
    with tarfile.open(tmp_path / "shards.tar", "w") as archive:
        for name, label in labels.items():
            archive.add(tmp_path / name, name)
            content = (label if int(name[:2]) % 2 else json.dumps({"label": label})).encode()
            entry = tarfile.TarInfo(name[:3] + ("cls" if int(name[:2]) % 2 else "json"))
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    cache, tree = tmp_path / "c.h5", tmp_path / "tree.txt"
    tree.write_text("tops > Tee\ntops > Other\nhats > Other\nhats > Cap\n")
    assert hfc("extract", tmp_path / source, *TINY, "--out", cache).exit_code == 0
    with FeatureStore(cache) as store:
        regions = store.table().regions
    assert {name[-6:]: label for name, label in zip(regions.id, regions.label, strict=True)} == labels
    # Splits are drawn by the label as it is written: each has rows in each of them.
    assert {(label, split) for label, split in zip(regions.label, regions.split, strict=True)} == {
        (label, split) for label in PATHS for split in ("train", "val", "test")
    }
    trained = hfc("train", cache, "--hierarchy", tree, *QUICK, "--out", tmp_path / "runs", "--json")
    (run,) = json.loads(trained.stdout)["runs"]
    inner = [
        sum(label in ("tops", "hats") for label in regions.label[regions.split == s]) for s in run["rows"]["inner"]
    ]
    assert (list(run["rows"]["inner"].values()), sum(inner)) == (inner, 24)
    # Other labels, joined by id; a label of the cache that is missing there is no label.
    joined = {name: {"tops": "Tee", "hats": "> hats > Other"}.get(label, label) for name, label in labels.items()}
    rows = [f"{name},{joined[name[-6:]]}" for name in regions.id[:50]]
    (tmp_path / "labels.csv").write_text("\n".join(["id,label", *rows]))
    words = ("--labels", tmp_path / "labels.csv", "--hierarchy", tree, *QUICK, "--out", tmp_path / "joined", "--json")
    (run,) = json.loads(hfc("train", cache, *words).stdout)["runs"]
    assert ("inner" in run["rows"], run["rows"]["unused"]["without label"]) == (False, 10)
    (tmp_path / "labels.csv").write_text("\n".join(["id,label", *rows[::3]]))
    refused = hfc("train", cache, *words)
    assert (refused.exit_code, "most rows of a split have no label in it" in refused.stderr) == (1, True)


def test_a_folder_of_another_encoding_is_carried_through_all_commands(tmp_path: Path) -> None:
    """Bytes that are not UTF-8, in the names of the data set, the cache, the labels, the runs and the report."""
    odd = "f\udce4h"
    root = photographs(tmp_path / odd, "Tee", "Skirt")
    (tmp_path / "tree.csv").write_text("leaf,group\nTee,tops\nSkirt,legs\n")
    labels = tmp_path / f"{odd}.csv"
    labels.write_text(
        "\n".join(["id,label", *(f"{label}/{i}.jpg,{label}" for label in ("Tee", "Skirt") for i in range(6))])
    )
    extracted = hfc("extract", root, *TINY, "--out", tmp_path / f"{odd}.h5", "--json")
    assert (extracted.exit_code, json.loads(extracted.stdout)["path"]) == (0, str(tmp_path / f"{odd}.h5"))
    runs = tmp_path / f"{odd} runs"
    words = ("--labels", labels, "--hierarchy", tmp_path / "tree.csv", *QUICK, "--out", runs)
    trained = hfc("train", tmp_path / f"{odd}.h5", *words)
    assert trained.exit_code == 0, trained.output
    reported = hfc("report", runs, "--images", root, "--out", tmp_path / f"{odd} report")
    assert reported.exit_code == 0, reported.output
    (run,) = runs.iterdir()
    for form in ("table", "json", "csv"):
        answered = hfc("predict", run, root, "--format", form)
        assert answered.exit_code == 0, answered.output


def test_missing_images_of_deepfashion_are_failures_of_their_rows(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "df")
    for name, *_ in ITEMS[:2]:
        (root / "Img" / name).unlink()
    result = hfc("extract", root, *TINY, "--out", tmp_path / "c.h5", "--json")
    assert result.exit_code == 3
    reason = "cannot read the file: No such file or directory"
    assert json.loads(result.stdout)["failures"] == [[name, reason] for name, *_ in ITEMS[:2]]


def test_levels_may_be_called_like_columns(tmp_path: Path) -> None:
    root = photographs(tmp_path / "shop", "Tee", "Skirt")
    (tmp_path / "tree.csv").write_text("id,error,top1\nTee,tops,all\nSkirt,legs,all\n")
    hfc("extract", root, *TINY, "--out", tmp_path / "c.h5")
    trained = hfc("train", tmp_path / "c.h5", "--hierarchy", tmp_path / "tree.csv", *QUICK, "--out", tmp_path / "runs")
    assert trained.exit_code == 0, trained.output
    (run,) = (tmp_path / "runs").iterdir()
    answered = hfc("predict", run, root / "Tee" / "0.jpg", "--format", "csv", "--top", 1)
    header, row = csv.reader(answered.stdout.splitlines())
    levels = ["top1 level", "error level", "id level"]
    chances = [f"{level} probability" for level in levels]
    assert header == ["id", *levels, *chances, "top1", "top1 probability", "error", "random_weights"]
    cells = dict(zip(header, row, strict=True))
    assert (cells["id"], cells["top1 level"]) == (str(root / "Tee" / "0.jpg"), "all")
    assert cells["id level"] == cells["top1"] in ("Tee", "Skirt")
    assert (cells["error"], cells["random_weights"]) == ("", "true")


@pytest.mark.parametrize("wrong", ["manifest", "labels", "tree"])
def test_a_nul_character_is_refused_before_any_work(wrong: str, tmp_path: Path) -> None:
    write_images(tmp_path, ["a.jpg", "b.jpg", "c.jpg"])
    rows = ["a.jpg,Tee,train", "b.jpg,Tee,val", "c.jpg,Skirt,test"]
    texts = {"manifest": ["path,label,split", *rows], "labels": ["id,label", "a.jpg,Tee"]}
    texts["tree"] = ["leaf,group", "Tee,tops", "Skirt,legs"]
    for name, lines in texts.items():
        (tmp_path / f"{name}.csv").write_text("\n".join(lines))
    cache = tmp_path / "c.h5"
    words: list[object] = ["extract", tmp_path / "manifest.csv", *TINY, "--out", cache, "--dry-run"]
    if wrong != "manifest":
        assert hfc(*words[:-1]).exit_code == 0
        words = ["train", cache, "--labels", tmp_path / "labels.csv", "--hierarchy", tmp_path / "tree.csv", *QUICK]
        words += ["--out", tmp_path / "runs"]
    file = tmp_path / f"{wrong}.csv"
    file.write_text(file.read_text().replace("Tee", "Tee\0", 1))
    result = hfc(*words)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"Error: {file}: row 2: expected text, found a NUL character; take it out\n"
    assert not (tmp_path / "runs").exists()


def test_names_of_several_lines_meet_in_files_of_other_line_ends(tmp_path: Path) -> None:
    root = photographs(tmp_path / "shop", "Tee", "Skirt")
    (tmp_path / "tree.csv").write_bytes(b'leaf,group\r\n"T\r\nShirt","of\rall"\r\nSkirt,legs\r\n')
    rows = [f'{label}/{i}.jpg,"{label}"' for label in ("Tee", "Skirt") for i in range(6)]
    (tmp_path / "labels.csv").write_text("\n".join(["id,label", *rows]).replace('"Tee"', '"T\nShirt"'))
    hfc("extract", root, *TINY, "--out", tmp_path / "c.h5")
    words = ("--labels", tmp_path / "labels.csv", "--hierarchy", tmp_path / "tree.csv", "--out", tmp_path / "runs")
    trained = hfc("train", tmp_path / "c.h5", *QUICK, *words)
    assert trained.exit_code == 0, trained.output
    (run,) = (tmp_path / "runs").iterdir()
    answered = hfc("predict", run, root / "Tee" / "0.jpg", "--json")
    assert sorted(leaf["path"] for leaf in json.loads(answered.stdout)["top"]) == [
        ["legs", "Skirt"],
        ["of\nall", "T\nShirt"],
    ]
