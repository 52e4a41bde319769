"""`hfc predict` and `hfc export` as a user types them."""

import csv
import io
import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.main import main
from hfc import Classifier
from tests.support.server import Reply, serving
from tests.support.trained import TOP_DOWN, prove, train_run, write_pictures
from tests.support.watching import Watcher


def hfc(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, and a run in the folder `run`; `random` is one on random weights."""
    folder = write_pictures(tmp_path_factory.mktemp("predict")).parent
    for name, weights in (("run", {}), ("random", {"weights": "random"})):
        run, _ = train_run(folder, weights, TOP_DOWN)
        run.folder.rename(folder / name)
    return folder


def test_a_table_names_the_path_and_the_next_best(place: Path) -> None:
    file = place / "img" / "01.jpg"
    answer = Classifier.load(place / "run")(file)
    result = hfc("predict", place / "run", file, "--top", 2)
    first, second, end = result.stdout.split("\n")
    names = [" > ".join(leaf.path).replace("\u2028", "\\u2028") for leaf in answer.top]
    assert first == f"{file}: {names[0]} {answer.top[0].probability:.2f}"
    assert second == f"    {names[1]} {answer.top[1].probability:.2f}"
    assert (end, result.exit_code) == ("", 0)
    result = hfc("predict", place / "run", file, "--top", 1, "--min-confidence", 1)
    assert result.stdout.split("\n")[0] == f"{file}: not certain of any node"
    assert result.stdout.split("\n")[1] == f"    {names[0]} {answer.top[0].probability:.2f}"


def test_a_target_precision_says_what_is_promised(place: Path, tmp_path: Path) -> None:
    run, file = tmp_path / "run", place / "img" / "01.jpg"
    shutil.copytree(place / "run", run)
    prove(run, 0.4)
    result = hfc("predict", run, file, "--target-precision", 0.9)
    assert (result.exit_code, result.stdout) == (0, hfc("predict", run, file, "--min-confidence", 0.4).stdout)
    assert result.stderr.splitlines()[0] == (
        "answers have a probability of 0.4000 at least: with 95% confidence 90% of those below the root are right, as "
        "200 rows set aside prove"
    )
    both = hfc("predict", run, file, "--target-precision", 0.9, "--min-confidence", 0.4)
    assert (both.exit_code, both.stdout) == (1, "")
    assert both.stderr == (
        "Error: target_precision with min_confidence: each chooses how deep an answer goes, the first by a threshold "
        "of its own; give one of them\n"
    )


def test_json_is_an_object_a_line_in_the_order_of_the_images(place: Path) -> None:
    files = [place / "img" / name for name in ("03.jpg", "07.jpg", "none.jpg", "01.jpg", "03.jpg")]
    result = hfc("predict", place / "run", *files, "--format", "json", "--top", 9)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["id"] for line in lines] == [str(file) for file in files]
    assert lines[1] == {"id": str(files[1]), "error": "the file is empty"}
    assert lines[2] == {"id": str(files[2]), "error": "cannot read the file: No such file or directory"}
    assert lines[0] == lines[4]
    answer = Classifier.load(place / "run")(files[0])
    assert lines[0]["path"] == list(answer.path)
    assert lines[0]["probabilities"] == pytest.approx(answer.probabilities, abs=1e-6)
    assert [one["path"] for one in lines[0]["top"]] == [list(leaf.path) for leaf in answer.top]
    assert sum(one["probability"] for one in lines[0]["top"]) == pytest.approx(1, abs=1e-5)
    assert result.exit_code == 3
    assert result.stderr.endswith("2 of 5 images could not be read\n")


def test_csv_is_a_row_an_image(place: Path) -> None:
    result = hfc("predict", place / "run", "--manifest", place / "m.csv", "--format", "csv", "--top", 2)
    rows = list(csv.reader(io.StringIO(result.stdout), strict=True))
    levels = ["the group", "leaf", "the group probability", "leaf probability"]
    assert rows[0] == ["id", *levels, "top1", "top1 probability", "top2", "top2 probability", "error"]
    assert [row[0] for row in rows[1:]] == [f"row {i}" for i in range(50)]
    assert {len(row) for row in rows} == {10}
    assert rows[8] == ["row 7", *[""] * 8, "the file is empty"]
    assert all(row[2] == row[5] and row[4] == row[6] and row[9] == "" for row in rows[1:] if row[0] != "row 7")
    boxed = Classifier.load(place / "run")(place / "img" / "01.jpg", box=(1, 2, 41.5, 70))
    assert rows[2][1:4] == [*boxed.path, f"{boxed.probabilities[0]:.6f}"]
    assert result.exit_code == 3


def test_answers_may_lie_below_one_node(place: Path) -> None:
    file, node = place / "img" / "01.jpg", "tops, of all > kinds"
    names = ['Tank "Top"', "Mantel\u2028länger", "Tee"]
    words = ("predict", place / "run", file, place / "img" / "07.jpg", "--within", node)
    result = hfc(*words, "--format", "json")
    answer, failed = map(json.loads, result.stdout.splitlines())
    assert (answer["within"], failed) == (
        [node],
        {"id": str(place / "img" / "07.jpg"), "within": [node], "error": "the file is empty"},
    )
    assert sorted(leaf["path"] for leaf in answer["top"]) == sorted([node, name] for name in names)
    assert sum(leaf["probability"] for leaf in answer["top"]) == pytest.approx(1, abs=1e-5)
    whole = {leaf.path[-1]: leaf.probability for leaf in Classifier.load(place / "run")(file).top}
    total = sum(whole[name] for name in names)
    for leaf in answer["top"]:
        assert leaf["probability"] == pytest.approx(whole[leaf["path"][-1]] / total, abs=1e-5)
    in_python = Classifier.load(place / "run", within=node)(file)
    assert [list(leaf.path) for leaf in in_python.top] == [leaf["path"] for leaf in answer["top"]]

    rows = list(csv.reader(io.StringIO(hfc(*words, "--format", "csv").stdout), strict=True))
    assert rows[0][5:] == [f"top{k}{more}" for k in (1, 2, 3) for more in ("", " probability")] + ["within", "error"]
    assert [row[-2:] for row in rows[1:]] == [[node, ""], [node, "the file is empty"]]
    assert rows[1][1:3] == answer["path"]

    result = hfc(*words[:3], "--within", node, "--min-confidence", 1)
    assert result.stdout.splitlines()[0] == f"{file}: {node} 1.00"
    result = hfc(*words[:3], "--within", "Jeans", "--min-confidence", 1)
    assert (result.stdout, result.exit_code) == (f"{file}: <script> > Jeans 1.00\n", 0)


def test_a_box_is_used(place: Path) -> None:
    file = place / "img" / "01.jpg"
    by_hand = Classifier.load(place / "run")(file, box=(1, 2, 41.5, 70))
    result = hfc("predict", place / "run", file, "--box", "1,2,41.5,70", "--format", "json")
    assert json.loads(result.stdout)["probabilities"] == pytest.approx(by_hand.probabilities, abs=1e-6)
    result = hfc("predict", place / "run", file, "--box", "100,2,410.5,70", "--format", "json")
    assert "lies outside the image of 60 x 80 pixels" in json.loads(result.stdout)["error"]
    assert result.exit_code == 3


def test_random_weights_are_marked_in_every_format(place: Path) -> None:
    for form in ("table", "json", "csv"):
        result = hfc("predict", place / "random", place / "img" / "01.jpg", "--format", form)
        assert result.exit_code == 0
        if form == "json":
            assert json.loads(result.stdout)["random_weights"] is True
        elif form == "csv":
            assert [row[-1] for row in csv.reader(io.StringIO(result.stdout))] == ["random_weights", "true"]
        else:
            assert result.stdout.startswith("RANDOM WEIGHTS: for benchmarks only\n")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("01.jpg", "--manifest", "m.csv"), 2, "give IMAGE, perhaps with --box, or --manifest, not both"),
        (("--manifest", "m.csv", "--box", "0,0,1,1"), 2, "not both"),
        (
            ("https://example.com/1.jpg",),
            2,
            "https:/example.com/1.jpg: images on the network are named in a --manifest",
        ),
        ((), 2, "no images: give files or folders, or --manifest FILE"),
        (("01.jpg", "--box", "1,2,3"), 1, "expected four numbers x1,y1,x2,y2 in pixels, found '1,2,3'"),
        (("01.jpg", "--box", "a,b,c,d"), 1, "expected four numbers"),
        (("01.jpg", "--box", "nan,0,1,1"), 1, "expected four numbers"),
        (("01.jpg", "--box", "5,0,1,1"), 1, "expected x1 < x2 and y1 < y2, found '5,0,1,1'"),
        (("01.jpg", "--format", "xml"), 1, "unknown format 'xml'; known: csv, json, table"),
    ],
)
def test_wrong_usage_ends_with_2_and_a_wrong_value_with_1(words: tuple[str, ...], code: int, message: str) -> None:
    result = hfc("predict", "run", *words)
    assert result.exit_code == code
    assert message in " ".join(result.stderr.split())


def test_what_is_wrong_is_said_in_one_line(place: Path, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("path\n../a.jpg\n")
    (tmp_path / "bad.csv").write_text("image\na.jpg\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    shutil.copy(place / "run" / "result.json", tmp_path / "damaged")
    file = place / "img" / "01.jpg"
    for words, message in (
        ((tmp_path / "no", file), "no: no such run; name the folder of one"),
        ((tmp_path / "damaged", file), "damaged run"),
        ((tmp_path / "empty", file), "holds no finished runs"),
        ((place / "run", tmp_path / "empty"), "expected images in or below this folder"),
        ((place / "run", "--manifest", tmp_path / "no.csv"), "no.csv: cannot read the manifest"),
        ((place / "run", "--manifest", tmp_path / "bad.csv"), "row 1: expected the columns path and optionally"),
        ((place / "run", "--manifest", tmp_path / "m.csv"), "row 2: expected a path inside the data set's folder"),
        ((place / "run", file, "--weights", tmp_path / "no.pth"), "no such file; .*where with --weights PATH"),
        ((place / "run", file, "--weights", "random"), "are not those the run was trained on: expected digest"),
        ((place / "run", file, "--device", "cuda:77"), "device cuda:77 cannot be used here"),
        ((place / "run", file, "--min-confidence", 7), "min_confidence: expected 0 to 1"),
        (
            (place / "run", file, "--target-precision", 0.9),
            "has no rows that prove one; train it with --set promise_sh",
        ),
        ((place / "run", file, "--within", "Jean"), "within: hierarchy tree has no node 'Jean'; did you mean Jeans.$"),
    ):
        result = hfc("predict", *words)
        assert (result.exit_code, result.stdout) == (1, ""), message
        errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
        assert len(errors) == 1
        assert re.search(message, errors[0]), errors


def test_export_writes_graphs_folders_and_cards(place: Path, tmp_path: Path) -> None:
    result = hfc("export", place / "run", "--onnx", tmp_path / "x.onnx", "--hf", tmp_path / "hf", "--with-backbone")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf", "x.md", "x.onnx"]
    assert "greatest difference to the run in onnxruntime" in result.stdout
    words = ("predict", place / "img" / "01.jpg", "--format", "json")
    mine, theirs = (hfc(words[0], run, *words[1:]) for run in (tmp_path / "hf", place / "run"))
    assert mine.stdout == theirs.stdout
    assert hfc("export", place / "run").exit_code == 2


def test_how_far_a_prediction_is_can_be_watched(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = Watcher()
    monkeypatch.setattr("cli.main.watch", watcher)
    hfc("predict", place / "run", "--manifest", place / "m.csv", "--format", "csv")
    (shown,) = [shown for shown in watcher.bars if shown.what == "predict"]
    assert (shown.done, shown.total, shown.closed) == (50, 50, True)


def test_a_manifest_names_images_on_the_network(place: Path, tmp_path: Path) -> None:
    """They get the answers of the files, and are asked for with --remote alone."""
    names = ("01.jpg", "03.jpg")
    with serving({f"/{name}": Reply((place / "img" / name).read_bytes()) for name in names}) as server:
        urls = [f"{server.url}/{name}" for name in (*names, "none.jpg")]
        (tmp_path / "m.csv").write_text("\n".join(["path", *urls]))
        words = ("predict", place / "run", "--manifest", tmp_path / "m.csv", "--json")
        refused = hfc(*words)
        assert (refused.exit_code, server.requests.total()) == (1, 0)
        assert "row 2: the image is on the network" in refused.stderr
        result = hfc(*words, "--remote")
        assert result.exit_code == 3
        lines = [json.loads(line) for line in result.stdout.splitlines()]
        assert server.requests == {f"GET {url.removeprefix(server.url)}": 1 for url in urls}
    files = hfc("predict", place / "run", *(place / "img" / name for name in names), "--json").stdout.splitlines()
    assert [{**line, "id": ""} for line in lines[:2]] == [{**json.loads(line), "id": ""} for line in files]
    assert lines[2] == {"id": urls[2], "error": "HTTP 404 Not Found"}


def test_an_archive_gets_the_answers_of_the_folder(place: Path, tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "img"), "zip", place / "img")
    there, packed = (hfc("predict", place / "run", path, "--json") for path in (place / "img", tmp_path / "img.zip"))
    assert there.exit_code == packed.exit_code == 3  # one picture is empty
    assert packed.stdout.replace(str(tmp_path / "img.zip"), str(place / "img")) == there.stdout
    assert len(packed.stdout.splitlines()) == 50
    (tmp_path / "img.zip").write_bytes(b"no archive")
    result = hfc("predict", place / "run", tmp_path / "img.zip")
    assert result.exit_code == 1
    assert (
        "img.zip: cannot be read as a ZIP archive: File is not a zip file; pack or download it again" in result.stderr
    )
