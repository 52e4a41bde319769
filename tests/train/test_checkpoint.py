"""What a checkpoint of a training holds, and that one which is no use leaves nothing behind."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hfc.config import TrainConfig, resolve
from hfc.runs import Epoch
from hfc.train.cache import Cache
from hfc.train.checkpoint import Checkpoint
from hfc.train.fit import fit
from hfc.train.prepared import PreparedRun, prepare_run
from hfc.train.stage import train
from tests.support.training import quick

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run(place: Path, cache: Cache) -> PreparedRun:
    settings = {"method": "flat", "epochs": 4, "batch_size": 32, "reduced": 16}
    return prepare_run(cache, resolve(TrainConfig, {"hierarchy": str(place / "tree.csv"), **settings}))


def test_a_state_comes_back_to_its_own_run_alone(tmp_path: Path) -> None:
    own = Checkpoint(tmp_path / "c", "k", 0.0)
    assert own.load(CPU) is None
    own.save({"order": torch.arange(3), "epochs": [{"epoch": 1}]})
    assert [path.name for path in tmp_path.iterdir()] == ["c"]  # nothing half written is left
    state = own.load(CPU)
    assert state is not None
    assert (state["key"], state["order"].tolist(), state["epochs"]) == ("k", [0, 1, 2], [{"epoch": 1}])
    assert Checkpoint(tmp_path / "c", "another", 0.0).load(CPU) is None
    own.discard()
    own.discard()
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_saved_leaves_the_state_before_it(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "c", "k", 0.0)
    checkpoint.save({"epochs": [1]})
    with pytest.raises(AttributeError, match="local object"):
        checkpoint.save({"epochs": lambda: None})
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
    assert checkpoint.load(CPU) == {"key": "k", "epochs": [1]}


def stopped_half_way(run: PreparedRun, cache: Cache, file: Path) -> dict[str, Any]:
    """A checkpoint after two of four epochs, as it is read back."""

    class Killed(BaseException):
        pass

    def kill(config: TrainConfig, epoch: Epoch) -> None:
        if epoch.number == 3:
            raise Killed

    with pytest.raises(Killed):
        fit(cache.features, run.data, run.config, kill, Checkpoint(file, "k", 0.0))
    state: dict[str, Any] = torch.load(file, weights_only=True)
    return state


def test_a_checkpoint_holds_no_state_of_any_gpu(
    run: PreparedRun, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: object) -> None:
        raise AssertionError("a GPU's generator was asked for")

    for name in ("get_rng_state", "get_rng_state_all", "set_rng_state", "set_rng_state_all"):
        monkeypatch.setattr(torch.cuda, name, refuse)
    state = stopped_half_way(run, cache, tmp_path / "c")
    assert set(state) == {"key", "epochs", "best", "best_state", "modules", "order", "random"}
    whole = fit(cache.features, run.data, run.config)
    again = fit(cache.features, run.data, run.config, checkpoint=Checkpoint(tmp_path / "c", "k", 99.0))
    assert all(torch.equal(a, b) for a, b in zip(*(states(f.head) for f in (whole, again)), strict=True))


def states(head: torch.nn.Module) -> list[torch.Tensor]:
    return list(head.state_dict().values())


@pytest.mark.parametrize("part", ["optimiser", "order", "random"])
def test_a_checkpoint_that_cannot_be_restored_leaves_nothing_behind(
    part: str, run: PreparedRun, cache: Cache, tmp_path: Path
) -> None:
    state = stopped_half_way(run, cache, tmp_path / "c")
    if part == "optimiser":
        del state["modules"]["optimiser"]["mean"][0]
    else:
        state[part] = torch.zeros(3, dtype=torch.uint8)
    torch.save(state, tmp_path / "c")
    lines: list[int] = []
    whole = fit(cache.features, run.data, run.config)
    again = fit(
        cache.features,
        run.data,
        run.config,
        lambda _, epoch: lines.append(epoch.number),
        Checkpoint(tmp_path / "c", "k", 99.0),
    )
    assert lines == [1, 2, 3, 4]
    assert all(torch.equal(a, b) for a, b in zip(*(states(f.head) for f in (whole, again)), strict=True))


@pytest.mark.parametrize(
    ("method", "weighting", "members"),
    [*(("hmcn-f+mtl", name, 1) for name in ("uncertainty", "dwa", "gradnorm", "random")), ("levels", "dwa", 2)],
)
def test_a_killed_training_goes_on_and_ends_with_the_same_bits(
    method: str, weighting: str, members: int, place: Path, cache: Cache, tmp_path: Path
) -> None:
    changes = {"method": method, "weighting": weighting, "members": members, "epochs": 7, "checkpoint_seconds": 0.0}
    config = quick(place, tasks="levels", **changes)
    whole, _ = train(cache, config, tmp_path / "whole")
    assert [path.name for path in (tmp_path / "whole").iterdir()] == [whole.folder.name]  # no checkpoint is left

    class Killed(BaseException):
        pass

    def kill(config: TrainConfig, epoch: Epoch) -> None:
        if epoch.number == 5:
            raise Killed

    with pytest.raises(Killed):
        train(cache, config, tmp_path / "killed", on_epoch=kill)
    assert [path.name for path in (tmp_path / "killed").iterdir()] == [f".{whole.folder.name}.checkpoint"]
    lines: list[int] = []
    again, _ = train(cache, config, tmp_path / "killed", on_epoch=lambda _, epoch: lines.append(epoch.number))
    assert lines == list(range(1, 8))
    assert (again.folder / "head.safetensors").read_bytes() == (whole.folder / "head.safetensors").read_bytes()
    assert again.result.test == whole.result.test
    timeless = [[replace(epoch, seconds=0.0, train_seconds=0.0) for epoch in run.epochs] for run in (whole, again)]
    assert timeless[0] == timeless[1]
    assert [path.name for path in (tmp_path / "killed").iterdir()] == [again.folder.name]


def test_a_training_whose_length_is_left_to_the_data_goes_on_too(
    place: Path, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hfc.train.settling.fitting_epochs", lambda rows: 4)
    first, second, by_number = (
        prepare_run(cache, quick(place, method="flat", epochs=epochs, batch_size=64)) for epochs in (0, 0, 4)
    )
    stopped_half_way(first, cache, tmp_path / "c")
    lines: list[int] = []
    again = fit(
        cache.features,
        second.data,
        second.config,
        lambda config, epoch: lines.append(epoch.number),
        Checkpoint(tmp_path / "c", "k", 99.0),
    )
    assert first.key == second.key == by_number.key
    assert lines == [1, 2, 3, 4]
    whole = fit(cache.features, by_number.data, by_number.config)
    assert all(torch.equal(a, b) for a, b in zip(*(states(f.head) for f in (whole, again)), strict=True))


@pytest.mark.parametrize("damage", ["empty", "cut", "other"])
def test_a_checkpoint_that_is_no_use_is_passed_over(damage: str, place: Path, cache: Cache, tmp_path: Path) -> None:
    config = quick(place, method="flat", epochs=2)
    whole, _ = train(cache, config, tmp_path / "whole")
    spoiled = tmp_path / "spoiled"
    spoiled.mkdir()
    file = spoiled / f".{whole.folder.name}.checkpoint"
    run = prepare_run(cache, config)
    fit(cache.features, run.data, run.config, checkpoint=Checkpoint(file, "of another run", 0.0))
    content = file.read_bytes()
    file.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "other": content}[damage])
    again, _ = train(cache, config, spoiled)
    assert again.result.test == whole.result.test
