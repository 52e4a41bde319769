"""A run's folder is there whole or not at all, and takes nothing of others away."""

from pathlib import Path

import numpy as np
import pytest

from hfc import runs
from hfc.errors import RunError
from hfc.runs import Epoch
from hfc.train.folder import writing
from tests.support.made_runs import tree_of, write_run
from tests.test_provenance import stop_at


def test_a_run_gets_its_name_when_it_is_whole(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "r"
    with writing(folder) as writer:
        writer.config("seed = 0\n")
        writer.hierarchy("leaf,group\n")
        writer.head({"weight": np.ones((2, 3), dtype=np.float32).T}, "key")
        assert not folder.exists()
    assert sorted(path.name for path in folder.iterdir()) == ["config.toml", "head.safetensors", "hierarchy.csv"]
    assert [path.name for path in folder.parent.iterdir()] == ["r"]


def test_nothing_is_left_of_a_run_that_fails(tmp_path: Path) -> None:
    with pytest.raises(KeyError), writing(tmp_path / "r") as writer:
        writer.config("seed = 0\n")
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_every_epoch_is_a_line(tmp_path: Path) -> None:
    epochs = [
        Epoch(number=n, learning_rate=0.1, loss={"total": 1.0}, weights={}, val={"top1": n / 4}, seconds=0.5)
        for n in (1, 2)
    ]
    with writing(tmp_path / "r") as writer:
        writer.epochs(epochs)
    lines = (tmp_path / "r" / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    assert [Epoch.from_json(line, "metrics.jsonl") for line in lines] == epochs
    assert lines[0] == (
        b'{"epoch": 1, "learning_rate": 0.1, "loss": {"total": 1.0}, "weights": {}, "val": {"top1": 0.25}, '
        b'"seconds": 0.5}\n'
    )


@pytest.mark.parametrize("name", ["config.toml", "head.safetensors", "result.json"])
def test_a_file_of_others_is_not_replaced(name: str, tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / name).write_text("{}")
    with pytest.raises(RunError) as caught, writing(tmp_path / "r"):
        raise AssertionError
    assert str(caught.value) == (
        f"{tmp_path / 'r' / name}: is in the way: hfc did not write it, or it was changed since; move it away or name "
        "another place"
    )
    assert (tmp_path / "r" / name).read_text() == "{}"
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


@pytest.mark.parametrize("number", range(1, 6))
def test_a_run_that_is_half_replaced_is_no_run_and_can_be_trained_again(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, folder = tree_of(tmp_path / "tree.csv"), tmp_path / "runs" / "r"
    made = write_run(tmp_path / "other", tree, seed=1)
    content = {name: (made / name).read_bytes() for name in runs.FILES if (made / name).exists()}
    content["head.safetensors"] = b""

    def write() -> None:
        with writing(folder) as writer:
            for name, text in content.items():
                (writer.folder / name).write_bytes(text)
            writer.head({}, "key")

    write()
    (folder / "notes.txt").write_text("mine")
    with monkeypatch.context() as context:
        stop_at(number, context)
        with pytest.raises(KeyboardInterrupt):
            write()
    assert not (folder / "result.json").exists()
    write()
    assert runs.find([tmp_path / "runs"])[0].result.to_json() == content["result.json"]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*content, "notes.txt"])
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["r"]
