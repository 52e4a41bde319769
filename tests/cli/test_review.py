"""`hfc review`: from photographs to corrected labels in a run."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from cli.main import main
from hfc.runs import find
from hfc.train.cache import load_cache
from tests.support.made_up import small_cache, write_tree_csv
from tests.support.reports import rows_of

TINY = ("--backbone", "test_efficientnet", "--weights", "random", "--image-size", "32")
QUICK = ("--method", "flat", "--set", "epochs=20", "--set", "batch_size=8", "--set", "dropout=0", "--set", "reduced=32")
COLOURS = {"Tee": (220, 30, 30), "Tank": (30, 200, 40), "Jeans": (20, 40, 210)}
WRONG = {3: "Jeans", 22: "Tee"}  # a stranger and a sibling


def hfc(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


def write_collection(root: Path) -> list[str]:
    """60 pictures, 20 of a colour for each label, two labels wrong; gives the true labels."""
    rng = np.random.default_rng(0)
    labels = [label for label in COLOURS for _ in range(20)]
    lines = ["path,label,split"]
    (root / "photos").mkdir()
    for row, label in enumerate(labels):
        pixels = np.array(COLOURS[label]) + rng.normal(0, 25, (32, 32, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / "photos" / f"{row:02d}.jpg", quality=95)
        lines.append(f"photos/{row:02d}.jpg,{WRONG.get(row, label)},{('train', 'train', 'val', 'test')[row % 4]}")
    (root / "m.csv").write_text("\n".join(lines))
    (root / "tree.csv").write_text("leaf,group\nTee,tops\nTank,tops\nJeans,legs\n")
    return labels


def test_what_is_corrected_in_the_list_is_trained_on_and_no_other_label_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    truth = write_collection(tmp_path)
    assert hfc("extract", "m.csv", *TINY, "--out", "c.h5").exit_code == 0
    words = ("review", "c.h5", "--hierarchy", "tree.csv", *QUICK, "--folds", "4")
    result = hfc(*words, "--images", ".", "--out", "review")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0] == "60 labels judged in 4 folds"
    assert lines[1] == (
        "2 are doubtful, for 1 a sibling and for 1 a leaf of another parent is more probable; 2 are listed"
    )
    assert re.fullmatch(r"by estimate [3-5]\.\d% of the labels are wrong, or fewer where the head is weak", lines[2])
    assert sorted(lines[3:5]) == ["  Jeans for Tee: 1 listed, 1 by estimate", "  Tee for Tank: 1 listed, 1 by estimate"]
    files = "review/review.csv, review/review.html, review/review.json"
    assert lines[5:] == [
        f"review: {files}",
        "next: correct the column label of review/review.csv, then "
        "hfc train c.h5 --hierarchy tree.csv --labels review/review.csv --out RUNS",
    ]
    listed = rows_of(tmp_path / "review" / "review.csv")
    assert {row["id"]: (row["label"], row["suggested"]) for row in listed} == {
        "photos/03.jpg": ("Jeans", "Tee"),
        "photos/22.jpg": ("Tee", "Tank"),
    }
    assert (tmp_path / "review" / "review.html").read_text().count('src="data:image/jpeg;base64,') == 2
    with (tmp_path / "review" / "review.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, listed[0])
        writer.writeheader()
        writer.writerows(row | {"label": row["suggested"]} for row in listed)
    labels = ("--labels", "review/review.csv")
    trained = hfc("train", "c.h5", "--hierarchy", "tree.csv", *QUICK, *labels, "--out", "runs")
    assert trained.exit_code == 0, trained.output
    assert "rows: 30 train, 15 val, 15 test; left out: none" in trained.output
    corrected = load_cache(Path("c.h5"), labels=Path("review/review.csv"), device="cpu")
    assert corrected.table.regions.label.tolist() == truth
    (run,) = find([Path("runs")])
    assert run.result.cache.labels_digest == corrected.meta.labels_digest
    # A second review starts from what was corrected, and finds nothing more.
    again = hfc(*words, *labels, "--out", "again")
    assert again.output.splitlines()[1].startswith("0 are doubtful")
    second = load_cache(Path("c.h5"), labels=Path("again/review.csv"), device="cpu")
    assert second.table.regions.label.tolist() == truth
    # What somebody has edited is not written over.
    refused = hfc(*words, "--out", "review")
    assert refused.exit_code == 1
    assert "review/review.csv: is in the way: hfc did not write it, or it was changed since" in refused.output


def test_settings_are_those_of_training(tmp_path: Path) -> None:
    cache, tree = small_cache(tmp_path / "c.h5"), write_tree_csv(tmp_path / "tree.csv")
    (tmp_path / "s.toml").write_text(f'hierarchy = "{tree}"\nmethod = "flat"\nepochs = 1\nreduced = 16\n')
    words = ("--config", tmp_path / "s.toml", "--seed", "7", "--set", "beta=0.4", "--method", "levels")
    result = hfc("review", cache, *words, "--folds", "2", "--most", "3", "--json", "--out", tmp_path / "r")
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    expected = {"hierarchy": str(tree), "method": "levels", "seed": 7, "epochs": 1, "reduced": 16, "beta": 0.4}
    assert content["settings"] | expected == content["settings"]
    assert (content["folds"], len(content["rows"])) == (2, 3)
    assert content["doubtful"] == content["doubtful_siblings"] + content["doubtful_strangers"] > 3


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((), 2, "name a hierarchy: --hierarchy deepfashion-5, deepfashion-10 or a file"),
        (("--hierarchy", "tree.csv", "--folds", "1"), 1, "Invalid value for '--folds': 1 is not in the range x>=2"),
        (("--hierarchy", "tree.csv", "--most", "0"), 1, "Invalid value for '--most': 0 is not in the range x>=1"),
        (("--hierarchy", "tree.csv", "--method", "flatt"), 1, "unknown method 'flatt'; did you mean flat?"),
        (("--hierarchy", "tree.csv", "--images", "none"), 1, "Path 'none' does not exist"),
        (("--hierarchy", "none.csv"), 1, "none.csv"),
        (("--hierarchy", "few.csv"), 1, "hierarchy few does not fit c.h5: it has no node for Chinos, Coat"),
        (("--hierarchy", "tree.csv", "--folds", "361"), 1, "c.h5: 361 folds need as many rows"),
        (("--hierarchy", "tree.csv", "--set", "decode=least-cost"), 1, "decode=least-cost: gives scores and no prob"),
        (("--hierarchy", "tree.csv", "--labels", "none.csv"), 1, "none.csv: cannot read the labels"),
    ],
)
def test_what_cannot_be_done_is_said(
    words: tuple[str, ...], code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small_cache(tmp_path / "c.h5")
    write_tree_csv(tmp_path / "tree.csv")
    (tmp_path / "few.csv").write_text("leaf,group\nTee,tops\nTank,tops\nJeans,long\n")
    result = hfc("review", "c.h5", *words, "--out", "r")
    assert (result.exit_code, (tmp_path / "r").exists()) == (code, False)
    assert message in re.sub(r"[\s│]+", " ", result.output)


def test_a_cache_that_is_not_there_is_named(tmp_path: Path) -> None:
    tree = write_tree_csv(tmp_path / "tree.csv")
    result = hfc("review", tmp_path / "no.h5", "--hierarchy", tree, "--out", tmp_path / "r")
    assert result.exit_code == 1
    assert "no.h5" in result.output
