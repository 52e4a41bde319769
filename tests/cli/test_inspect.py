"""`hfc inspect` and `hfc verify` on caches that are whole, damaged and unfinished."""

import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result

from cli.main import main
from hfc import __version__, store
from hfc.config import ExtractConfig, resolve
from hfc.errors import DatasetError
from hfc.extract.stage import extract
from tests.support.caches import KEY, fingerprints, put, regions
from tests.support.deepfashion_tree import write_images
from tests.support.made_up import small_cache, write_cache, write_tree_csv

TINY = {"backbone": "test_efficientnet", "weights": "random", "image_size": 32, "precision": "fp32", "shard_size": 4}

MADE = Path(__file__).parents[1] / "made_before"


def hfc(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Ten images, the third and the fifth the same, the last one missing."""
    names = [f"{i}.jpg" for i in range(9)]
    write_images(tmp_path, names)
    (tmp_path / "4.jpg").write_bytes((tmp_path / "2.jpg").read_bytes())
    rows = [f"{i}.jpg,L{i % 2},{split}" for i, split in enumerate(["train"] * 8 + ["val", "test"])]
    (tmp_path / "m.csv").write_text("\n".join(["path,label,split", *rows]))
    extract(tmp_path / "m.csv", tmp_path / "c.h5", resolve(ExtractConfig, TINY))
    return tmp_path / "c.h5"


def test_inspect_says_what_is_there(cache: Path) -> None:
    result = hfc("inspect", cache)
    assert result.exit_code == 0
    lines = [" ".join(line.split()) for line in result.output.splitlines()]
    for line in (
        "backbone test_efficientnet RANDOM WEIGHTS: for benchmarks only",
        "splits test 1, train 8, val 1",
        "labels 2: L0 5, L1 5",
        "crops image_size 32, resize squash, roi_margin 0.0, pool mean, views identity",
        "duplicates 2 rows in 1 sets of equal features",
        "2.jpg = 4.jpg",
        "failures 1",
        "9.jpg: cannot read the file: No such file or directory",
    ):
        assert line in lines
    with store.FeatureStore(cache) as opened:
        assert f"key {opened.key}" in lines
        features = opened.features()[:9, 0].astype(np.float64)
    found = json.loads(hfc("inspect", cache, "--json").output)
    assert found["norms"]["greatest"] == pytest.approx(np.linalg.norm(features, axis=1).max())
    assert (found["shape"], found["duplicates"]) == ([10, 1, 256], [["2.jpg", "4.jpg"]])


def test_inspect_says_which_images_are_there_twice_and_what_groups_cross(tmp_path: Path) -> None:
    rows = regions(5)
    rows.split[:], rows.label[:] = ["train", "test", "train", "train", "val"], ["Tee", "Tee", "Tie", "Tee", "Tee"]
    prints = fingerprints(5)
    prints.sha256[3] = prints.sha256[2]
    features = np.random.default_rng(0).normal(size=(5, 1, 8)).astype(np.float32)
    put(tmp_path / "c.h5", rows, features, key_fields=KEY, prints=prints)
    lines = [" ".join(line.split()) for line in hfc("inspect", tmp_path / "c.h5").output.splitlines()]
    place = lines.index("copies 2 rows in 1 sets of equal bytes: 0 across splits, 1 of several labels")
    assert lines[place + 1 : place + 3] == ["röw 2 = röw 3", "groups none"]
    rows.group[:] = ["a", "a", "", "b", "a"]
    put(tmp_path / "c.h5", rows, features, key_fields=KEY)
    result = hfc("inspect", tmp_path / "c.h5")
    lines = [" ".join(line.split()) for line in result.output.splitlines()]
    assert "copies 0 rows in 0 sets of equal bytes" in lines
    assert "groups 4 rows in 2 groups: 1 across splits, 0 of several labels" in lines
    shown = json.loads(hfc("inspect", tmp_path / "c.h5", "--json").output)
    assert shown["groups"] == {"sets": 2, "rows": 4, "across_splits": 1, "of_several_labels": 0}
    assert (shown["copies"], shown["copies_crossing"]["sets"]) == ([], 0)
    old = [" ".join(line.split()) for line in hfc("inspect", MADE / "cache.h5").output.splitlines()]
    assert "copies unknown: made by an earlier version, which did not keep its images' digests" in old


def test_a_name_of_several_lines_or_with_orders_for_the_terminal_takes_one_harmless_line(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text('path,label,split\n"two\nlines\x1b[31m ü.jpg","T\nee",train\n')
    flags = [word for key, value in TINY.items() for word in (f"--{key.replace('_', '-')}", value)]
    result = CliRunner().invoke(
        main, ["extract", str(tmp_path / "m.csv"), *map(str, flags), "--out", str(tmp_path / "c.h5")], color=True
    )
    assert result.exit_code == 3
    name = r"two\nlines\x1b[31m ü.jpg"
    assert f"    {name}: cannot read the file: No such file or directory" in result.output.splitlines()
    shown = CliRunner().invoke(main, ["inspect", str(tmp_path / "c.h5")], color=True).output.splitlines()
    assert f"{'':15}{name}: cannot read the file: No such file or directory" in shown
    assert r"  labels       1: T\nee 1" in shown


def test_inspect_says_how_many_labels_are_inner_nodes(tmp_path: Path) -> None:
    labels = ["Tee", "tops", "upper > outer", "tops", "", "Coat", "lower"]
    cache, tree = write_cache(tmp_path / "c.h5", labels, ["train"] * 7), write_tree_csv(tmp_path / "tree.csv")
    assert "inner labels" not in hfc("inspect", cache).output
    assert json.loads(hfc("inspect", cache, "--json").output)["inner_labels"] is None
    line = f"inner labels 4 rows have an inner node of {tree}: tops 2, upper > outer 1, lower 1"
    words = ("inspect", cache, "--hierarchy", tree)
    assert line in [" ".join(shown.split()) for shown in hfc(*words).output.splitlines()]
    counts = {"tops": 2, "upper > outer": 1, "lower": 1}
    found = json.loads(hfc(*words, "--json").output)["inner_labels"]
    assert found == {"hierarchy": str(tree), "labels": counts, "problem": ""}
    (tmp_path / "l.csv").write_text("id,label\n" + "".join(f"{i:05d}.jpg,Tee\n" for i in range(7)))
    assert f"inner labels none under {tree}" in " ".join(hfc(*words, "--labels", tmp_path / "l.csv").output.split())


def test_inspect_takes_the_tree_beside_a_cache_and_says_where_it_does_not_fit(tmp_path: Path) -> None:
    cache = write_cache(tmp_path / "c.h5", ["Tee", "tops", "Coat"], ["train"] * 3)
    tree = write_tree_csv(tmp_path / "c.tree.csv")
    assert f"  inner labels 1 rows have an inner node of {tree}: tops 1" in hfc("inspect", cache).output.splitlines()
    tree.write_text("leaf,group\nTee,tops\nHat,hats\n")
    result, named = hfc("inspect", cache), hfc("inspect", cache, "--hierarchy", tree)
    problem = f"hierarchy c.tree does not fit {cache}: it has no node for Coat; its leaves are Hat, Tee"
    assert (result.exit_code, f"  inner labels {problem}" in result.output.splitlines()) == (0, True)
    assert (named.exit_code, named.stderr) == (1, f"Error: {problem}\n")


def test_inspect_says_which_rows_are_twins(cache: Path) -> None:
    lines = [" ".join(line.split()) for line in hfc("inspect", cache, "--min-cosine", "0.999").output.splitlines()]
    place = lines.index("twins 2 rows in 1 sets of a cosine of 0.999 or more")
    assert lines[place + 1 :] == [
        "0 sets across splits, 0 of several labels",
        "0 of 0 test rows have a twin in training",  # the one test row has no features
        "2.jpg ~ 4.jpg",
    ]
    twins = json.loads(hfc("inspect", cache, "--min-cosine", "0.999", "--json").output)["twins"]
    assert (twins["rows"], twins["sets"], twins["pairs"], twins["min_cosine"]) == (2, 1, 1, 0.999)
    assert json.loads(hfc("inspect", cache, "--json").output)["twins"]["min_cosine"] == 0.88


def test_twins_of_a_large_cache_are_looked_for_where_they_are_asked_for(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.inspect.SEARCHED_ROWS", 9)
    result = hfc("inspect", cache)
    assert "  twins        not looked for in more than 9 rows; give --twins DIR" in result.output.splitlines()
    assert json.loads(hfc("inspect", cache, "--json").output)["twins"] is None
    result = hfc("inspect", cache, "--twins", tmp_path / "t", "--images", tmp_path, "--min-cosine", "0.999")
    files = [tmp_path / "t" / name for name in ("twins.csv", "twins.json", "twins.html")]
    assert result.output.splitlines()[-1] == f"twins: {', '.join(map(str, files))}"
    assert all(file.is_file() for file in files)


def test_twins_go_by_the_labels_and_splits_of_a_run_into_its_report(tmp_path: Path) -> None:
    cache, tree = small_cache(tmp_path / "c.h5"), write_tree_csv(tmp_path / "tree.csv")
    with store.FeatureStore(cache) as opened:
        regions = opened.table().regions
    swap = {"train": "test", "test": "train", "val": "val"}
    columns = zip(regions.id, regions.label, regions.split, strict=True)
    rows = [f"{name},{label},{swap[split]}" for name, label, split in columns]
    (tmp_path / "other.csv").write_text("\n".join(["id,label,split", *rows]))
    labels = ("--labels", tmp_path / "other.csv")
    small = ("--hierarchy", tree, "--method", "flat", "--set", "epochs=1")
    assert hfc("train", cache, *small, *labels, "--out", tmp_path / "runs").exit_code == 0
    assert hfc("inspect", cache, "--twins", tmp_path / "own", "--min-cosine", "0.7").exit_code == 0
    assert hfc("inspect", cache, "--twins", tmp_path / "t", "--min-cosine", "0.7", *labels).exit_code == 0
    result = hfc("report", tmp_path / "runs", "--twins", tmp_path / "own", "--out", tmp_path / "report")
    assert result.exit_code == 1
    assert "expected the twins of the labels and splits of" in result.output
    result = hfc("report", tmp_path / "runs", "--twins", tmp_path / "t", "--out", tmp_path / "report")
    assert result.exit_code == 0
    record = json.loads((tmp_path / "t" / "twins.json").read_text())
    count = record["test_rows_with_twin_in_training"]
    assert record["test_rows"] == 216
    assert count > 3
    assert f"{count} of 216 test images ({count / 216:.2%}) have a twin in training" in result.output


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--images", "."), 2, "--images shows twins: give --twins DIR as well, the folder of their page"),
        (("--min-cosine", "0"), 1, "0.0 is not in the range 0<x<=1"),
        (("--min-cosine", "1.5"), 1, "1.5 is not in the range 0<x<=1"),
    ],
)
def test_wrong_words_about_twins_are_named(words: tuple[str, ...], code: int, message: str, cache: Path) -> None:
    result = hfc("inspect", cache, *words)
    assert result.exit_code == code
    assert message in " ".join(result.output.replace("│", " ").split())


def test_verify_lists_every_damage(cache: Path) -> None:
    result = hfc("verify", cache)
    assert (result.exit_code, result.output) == (0, f"{cache}: every checksum is right\n")
    with h5py.File(cache, "r+") as file:
        place = file["features"].id.get_chunk_info(0).byte_offset + 20
        file["label"][0] = "L1"
    content = bytearray(cache.read_bytes())
    content[place] ^= 1
    cache.write_bytes(content)
    result = hfc("verify", cache)
    assert result.exit_code == 1
    assert "its rows do not match their checksum" in result.output
    assert "damaged feature cache, rows 0 to 10: " in result.output
    assert "(2 problems in all)" in result.output
    assert hfc("inspect", cache).exit_code == 1


def test_verify_says_when_extraction_did_not_finish(cache: Path) -> None:
    out = cache.with_name("d.h5")
    picture = cache.parent / "6.jpg"
    picture.write_bytes(picture.read_bytes()[:400])  # cannot be decoded, by when one shard is there
    with pytest.raises(DatasetError, match="stopped"):
        extract(cache.with_name("m.csv"), out, resolve(ExtractConfig, TINY | {"max_failures": "1", "batch_size": 1}))
    result = hfc("verify", out)
    assert (result.exit_code, "extraction did not finish" in result.output) == (1, True)
    assert hfc("verify", cache.with_name("none.h5")).exit_code == 1


def test_verify_compares_every_image_with_its_row(cache: Path) -> None:
    folder = cache.parent
    result = hfc("verify", cache, "--images")
    assert (result.exit_code, result.output.splitlines()) == (
        0,
        [f"{cache}: every checksum is right", f"{cache}: every image is the one that its row was made of"],
    )
    stamp = (folder / "1.jpg").stat()
    content = bytearray((folder / "1.jpg").read_bytes())
    content[-20] ^= 1
    (folder / "1.jpg").write_bytes(content)
    os.utime(folder / "1.jpg", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # the same size and time: its bytes tell
    (folder / "3.jpg").unlink()
    changed = [["1.jpg", "has other bytes"], ["3.jpg", "cannot read the file: No such file or directory"]]
    (folder / "moved").mkdir()
    for root in ((), (str(folder),)):
        result = hfc("verify", cache, "--images", *root)
        assert result.exit_code == 1
        assert "  1.jpg: has other bytes\n  3.jpg: cannot read the file: No such file or directory\n" in result.output
        assert "2 images are not those that it was made of; hfc extract brings it up to date" in result.output
        found = hfc("verify", cache, "--images", *root, "--json")
        assert found.exit_code == 1
        assert json.loads(found.stdout) == {"path": str(cache), "problems": [], "changed": changed}
    assert "9 images are not" in hfc("verify", cache, "--images", folder / "moved").output
    result = hfc("verify", cache, "--images", folder / "none")
    assert result.exit_code == 1
    assert (
        f"{folder / 'none'}: no such folder, in which the images of {cache} were; give --images ROOT" in result.output
    )
    assert hfc("verify", cache).exit_code == 0


def test_verify_says_which_cache_does_not_know_its_images() -> None:
    result = hfc("verify", MADE / "cache.h5", "--images", MADE / "photos")
    assert result.exit_code == 1
    assert (
        "made by an earlier version of hfc, which did not keep what tells whether an image has changed" in result.output
    )


def test_inspect_shows_updates(cache: Path) -> None:
    write_images(cache.parent, ["9.jpg", "0.jpg"], first=30)
    extract(cache.parent / "m.csv", cache, resolve(ExtractConfig, TINY))
    with store.FeatureStore(cache) as opened:
        (update,) = opened.provenance["updates"]
    assert (update["kept"], update["encoded"], update["gone"]) == (8, 2, 0)
    line = next(line for line in hfc("inspect", cache).output.splitlines() if line.startswith("  updated"))
    assert line.split()[1:] == [f"{update['created']}:", *f"8 kept, 2 encoded, 0 gone, by hfc {__version__}".split()]


def test_extract_says_what_an_update_does_and_would_do(cache: Path) -> None:
    words = ("--backbone", "test_efficientnet", "--weights", "random", "--image-size", "32", "--precision", "fp32")
    command = ("extract", cache.parent / "m.csv", "--out", cache, *words)
    assert f"{cache}: already complete, 10 regions\n" in hfc(*command).output
    (cache.parent / "9.jpg").write_bytes((cache.parent / "0.jpg").read_bytes())
    write_images(cache.parent, ["0.jpg"], first=30)
    lines = (cache.parent / "m.csv").read_text().splitlines()
    (cache.parent / "m.csv").write_text("\n".join([*lines[:8], "new.jpg,L1,test", lines[-1]]))
    write_images(cache.parent, ["new.jpg"], first=40)
    before = cache.read_bytes()
    result = hfc(*command, "--dry-run")
    assert result.exit_code == 0
    assert f"{cache}: dry run; would extract 2 of 9 regions in 1 shards\n" in result.output
    # 9.jpg has the pixels that 0.jpg had: it is another picture now, but is not encoded.
    counts = "9 regions: 6 kept, 1 new, 2 changed, 2 gone"
    assert f"  update     {counts}\n" in result.output
    assert cache.read_bytes() == before
    found = json.loads(hfc(*command, "--dry-run", "--json").output)
    assert {name: found[name] for name in ("kept", "new", "changed", "gone", "encoded", "resumed", "failures")} == {
        **{"kept": 6, "new": 1, "changed": 2, "gone": 2, "encoded": 2, "resumed": 0, "failures": []}
    }
    result = hfc(*command)
    assert f"{cache}: 2 of 9 regions in " in result.output
    assert f"  update     {counts}\n" in result.output
    (cache.parent / "m.csv").write_text((cache.parent / "m.csv").read_text().replace("L1", "L2"))
    line = "nothing to encode; {} 9 regions anew, with other labels\n"
    assert line.format("would write") in hfc(*command, "--dry-run").output
    assert line.format("wrote") in hfc(*command).output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--trust-files", "--overwrite"),
            "--trust-files keeps features without looking at files; leave --overwrite out",
        ),
        (
            ("--trust-files", "--check", "content"),
            "--trust-files keeps features without looking at files; leave --check content out",
        ),
        (
            ("--overwrite", "--check", "content"),
            "--overwrite makes the cache anew, so that there is nothing to --check",
        ),
    ],
)
def test_options_of_updates_that_contradict_each_other_are_refused(
    words: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    result = hfc("extract", tmp_path, "--out", tmp_path / "c.h5", *words)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
