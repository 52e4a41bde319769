"""A run's folder is read as it was written, and what is wrong with it is named with its field."""

import json
from pathlib import Path
from typing import Any

import pytest

from hfc import runs
from hfc.errors import RunError
from hfc.runs import Epoch, Result
from tests.support.made_runs import tree_of, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run's folder; nobody writes to it."""
    folder = tmp_path_factory.mktemp("runs")
    return write_run(folder / "r", tree_of(folder / "tree.csv"))


@pytest.fixture
def content(run: Path) -> dict[str, Any]:
    """What its result.json holds."""
    found: dict[str, Any] = json.loads((run / "result.json").read_text("utf-8"))
    return found


def place(content: dict[str, Any], path: str) -> tuple[Any, Any]:
    """What holds a field, and the field's key or index there."""
    *outer, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    for part in outer:
        content = content[part]
    return content, last


def test_a_result_has_every_key_of_its_file(run: Path, content: dict[str, Any]) -> None:
    result = runs.read(run).result
    assert (result.run, result.seed, result.cache.image_size) == ("r", 0, 224)
    assert result.hierarchy.levels == ("group", "leaf")
    assert result.test["top1"] == content["test"]["top1"]
    assert {name: result.test[f"level_accuracy/{name}"] for name in ("group", "leaf")} == content["test"][
        "level_accuracy"
    ]
    assert result.beta
    assert [(reading.beta, reading.top1, reading.others) for reading in result.beta.test[:2]] == [
        (0.0, 0.5, {"top3": 0.8, "top5": 0.9}),
        (0.1, 0.51, {"top3": 0.8, "top5": 0.9}),
    ]
    assert result.climb
    assert [reading.confidence for reading in result.climb] == [0.0, 0.9]
    assert (result.settings.topk, result.settings.decode) == ((1, 3, 5), "leaf")
    assert result.others == {}
    assert result.to_json() == (run / "result.json").read_bytes()


def test_a_list_of_runs_can_be_read(run: Path, content: dict[str, Any]) -> None:
    assert repr([runs.read(run)]) == f"[<{run}: test top-1 {100 * content['test']['top1']:.2f}>]"


def test_an_epoch_has_every_key_of_its_line(run: Path) -> None:
    line = (
        b'{"epoch": 3, "learning_rate": 1e-05, "loss": {"global": 1.5, "total": 1.5}, "weights": {"global": 1.0}, '
        b'"val": {"top1": 0.25, "level_accuracy": {"a/b": 0.5, "c": 1.0}, "hF": 0.75}, "seconds": 0.5, '
        b'"train_seconds": 0.25}\n'
    )
    epoch = Epoch.from_json(line, "metrics.jsonl")
    assert (epoch.number, epoch.learning_rate, epoch.seconds, epoch.train_seconds) == (3, 1e-05, 0.5, 0.25)
    assert (epoch.loss, epoch.weights) == ({"global": 1.5, "total": 1.5}, {"global": 1.0})
    assert epoch.val == {"top1": 0.25, "level_accuracy/a/b": 0.5, "level_accuracy/c": 1.0, "hF": 0.75}
    assert epoch.to_json() == line


def test_what_a_newer_version_writes_is_kept(content: dict[str, Any]) -> None:
    content["energy"] = {"joules": [1, 2]}
    content["cache"]["region"] = None
    content["selected"]["val"]["new/metric"] = 0.5
    result = Result.read(content, "r/result.json")
    assert result.others == {"energy": {"joules": [1, 2]}}
    assert result.cache.others == {"region": None}
    again = json.loads(result.to_json())
    content["selected"]["val"]["new"] = {"metric": content["selected"]["val"].pop("new/metric")}
    assert again == content


@pytest.mark.parametrize(
    "path",
    [
        "beta",
        "stopping",
        "rows/inner",
        "cache/key_fields",
        "cache/labels",
        "cache/labels_digest",
        "cache/labels_sha256",
    ],
)
def test_what_an_older_version_did_not_write_is_missed_by_nobody(path: str, content: dict[str, Any]) -> None:
    outer, last = place(content, path)
    outer.pop(last, None)
    result = Result.read(content, "r/result.json")
    assert json.loads(result.to_json()) == content
    assert result.cache.views == 1


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("test/top1", "a", "test.top1: expected a number, found 'a'"),
        ("test/top1", True, "test.top1: expected a number, found True"),
        ("test/level_accuracy/group", None, "test.level_accuracy.group: expected a number, found null"),
        ("test", [], "test: expected an object, found []"),
        ("seed", 1.5, "seed: expected an integer, found 1.5"),
        ("seed", True, "seed: expected an integer, found True"),
        ("key", 3, "key: expected a text, found 3"),
        ("cache/random_weights", 0, "cache.random_weights: expected true or false, found 0"),
        ("cache/image_size", "224", "cache.image_size: expected an integer, found '224'"),
        ("cache", "cache.h5", "cache: expected an object, found 'cache.h5'"),
        ("hierarchy/levels", "leaf", "hierarchy.levels: expected a list, found 'leaf'"),
        ("hierarchy/sizes/1", "six", "hierarchy.sizes[1]: expected an integer, found 'six'"),
        ("rows/inner", {"train": None}, "rows.inner.train: expected an integer, found null"),
        ("rows/unused/without label", "0", "rows.unused.without label: expected an integer, found '0'"),
        ("beta/test/2/top5", "b", "beta.test[2].top5: expected a number, found 'b'"),
        ("stopping/1/correct", None, "stopping[1].correct: expected a number, found null"),
        ("config/topk", 5, "config: topk: expected a list, found 5"),
        ("config/beta", "x" * 100, "config: beta: expected a number, found '" + "x" * 79),
    ],
)
def test_a_damaged_field_is_named(path: str, value: object, message: str, content: dict[str, Any]) -> None:
    outer, last = place(content, path)
    outer[last] = value
    with pytest.raises(RunError) as caught:
        Result.from_json(json.dumps(content).encode(), "runs/x/result.json")
    assert str(caught.value) == f"runs/x/result.json: {message}; train the run again"


@pytest.mark.parametrize(
    "path", ["run", "test", "created", "cache/path", "machine/threads", "selected/val", "rows/val"]
)
def test_a_missing_field_is_named(path: str, content: dict[str, Any]) -> None:
    outer, last = place(content, path)
    del outer[last]
    with pytest.raises(RunError) as caught:
        Result.read(content, "runs/x/config.json: run", "export it again")
    field = path.replace("/", ".")
    assert str(caught.value) == f"runs/x/config.json: run: {field}: missing; export it again"


def test_a_damaged_run_is_named_with_its_file_and_line(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", tree_of(tmp_path / "tree.csv"))
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    (folder / "metrics.jsonl").write_text("\n".join([lines[0], lines[1].replace("0.4}", '"much"}')]))
    with pytest.raises(RunError) as caught:
        runs.find([tmp_path])
    assert str(caught.value) == (
        f"{folder / 'metrics.jsonl'}: line 2: val.top1: expected a number, found 'much'; train the run again"
    )
    (folder / "metrics.jsonl").write_text("\n".join([*lines, "{"]))
    with pytest.raises(RunError, match=r"metrics.jsonl: line 4: expected JSON, found JSONDecodeError"):
        runs.read(folder)
    (folder / "metrics.jsonl").unlink()
    with pytest.raises(RunError, match=r"r: damaged run: FileNotFoundError\(.*\); train it again$"):
        runs.read(folder)
