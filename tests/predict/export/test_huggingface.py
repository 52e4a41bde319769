"""A run as a folder in Hugging Face layout, which answers as the run does."""

import json
import shutil
from pathlib import Path

import pytest

from hfc import Classifier
from hfc.datasets import manifest
from hfc.errors import RunError
from hfc.predict.export import export_hf
from hfc.predict.head import load_trained
from hfc.runs import Run
from tests.support.trained import LEAVES, rewrite_result


@pytest.mark.parametrize("with_backbone", [False, True])
def test_a_hugging_face_folder_is_read_back(
    with_backbone: bool, trained: tuple[Run, Path], place: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(trained[0].folder, tmp_path / "run"))
    export_hf(moved, tmp_path / "hf", with_backbone=with_backbone)
    export_hf(moved, tmp_path / "hf", with_backbone=with_backbone)  # an earlier one is replaced
    shutil.rmtree(moved)
    head = ["head.safetensors"] if with_backbone else []
    files = ["README.md", "config.json", *head, "hierarchy.csv", "model.safetensors"]
    assert sorted(file.name for file in (tmp_path / "hf").iterdir()) == files
    weights = {} if with_backbone else {"weights": str(place / "backbone.pth")}
    regions = manifest.read(place / "m.csv")
    mine = list(Classifier.load(tmp_path / "hf", **weights).stream(regions))
    assert mine == list(Classifier.load(trained[0].folder).stream(regions))

    text = (tmp_path / "hf" / "config.json").read_text()
    assert str(place) not in text + (tmp_path / "hf" / "README.md").read_text()
    config = json.loads(text)
    assert list(config["id2label"].values()) == list(config["label2id"]) == sorted(LEAVES)
    if not with_backbone:
        with pytest.raises(RunError, match=r"weights backbone.pth: no such file; .*--weights PATH"):
            Classifier.load(tmp_path / "hf")
    (tmp_path / "hf" / "config.json").write_text("{}")
    with pytest.raises(RunError, match=r"config.json: not what hfc export writes: KeyError\('run'\)"):
        Classifier.load(tmp_path / "hf")


def test_an_export_with_and_without_a_backbone_takes_the_others_place(
    trained: tuple[Run, Path], place: Path, tmp_path: Path
) -> None:
    wanted = Classifier.load(trained[0].folder)(place / "img" / "01.jpg")
    for with_backbone in (True, False, True):
        export_hf(trained[0].folder, tmp_path / "hf", with_backbone=with_backbone)
        assert (tmp_path / "hf" / "head.safetensors").is_file() == with_backbone
        weights = {} if with_backbone else {"weights": str(place / "backbone.pth")}
        assert Classifier.load(tmp_path / "hf", **weights)(place / "img" / "01.jpg") == wanted


def test_the_layout_of_earlier_versions_is_read(trained: tuple[Run, Path], place: Path, tmp_path: Path) -> None:
    """They had the head in model.safetensors, and the backbone beside it."""
    folder = tmp_path / "hf"
    export_hf(trained[0].folder, folder, with_backbone=True)
    (folder / "model.safetensors").rename(folder / "backbone.safetensors")
    (folder / "head.safetensors").rename(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"run": config["run"]}))
    file = place / "img" / "01.jpg"
    assert Classifier.load(folder)(file) == Classifier.load(trained[0].folder)(file)


def test_what_an_older_version_did_not_record_is_not_made_up(run: Path, tmp_path: Path) -> None:
    rewrite_result(run, lambda result: result["cache"].pop("labels"))
    export_hf(run, tmp_path / "hf")
    exported = json.loads((tmp_path / "hf" / "config.json").read_text())["run"]
    recorded = json.loads((run / "result.json").read_text())
    for part, name in (("cache", "path"), ("cache", "weights"), ("config", "hierarchy")):
        assert exported[part].pop(name) == Path(recorded[part].pop(name)).name
    assert exported == recorded
    assert load_trained(tmp_path / "hf").run.result.key == recorded["key"]


def test_what_cannot_be_a_folder_says_why(trained: tuple[Run, Path], tmp_path: Path) -> None:
    folder = trained[0].folder
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    for out, message in (
        ("full", "full: exists and was not written by hfc export"),
        ("file", "file: exists and was not written by hfc export"),
    ):
        with pytest.raises(RunError, match=message):
            export_hf(folder, tmp_path / out)
    with pytest.raises(RunError, match="where with --weights PATH"):
        export_hf(folder, tmp_path / "x", with_backbone=True, weights=str(tmp_path / "no.pth"))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "full", "thesis.txt"]
