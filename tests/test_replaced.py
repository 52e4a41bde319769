"""Files that are replaced or written to while they are in use: what was opened counts, or the call ends and says so."""

import json
import os
import pickle
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from hfc import store
from hfc.config import TrainConfig, resolve
from hfc.errors import ConfigError, EncoderError, RunError, StoreError
from hfc.extract.backbone import plain_weights
from hfc.extract.encoder import load_encoder
from hfc.parallel import Crew
from hfc.runs import Epoch, find
from hfc.store import assembly, read_predictions, write_predictions
from hfc.train.cache import CacheSource, load_cache, open_cache, same_cache
from hfc.train.plan import parse_sweep
from hfc.train.stage import train, train_all
from hfc.train.sweep import sweep
from tests.support.backbones import TINY
from tests.support.made_up import small_cache, write_tree_csv
from tests.support.trained import write_weights

CHANGED = "was changed or replaced by another file while it was in use; run the command again"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A cache, another of the same shape whose labels are others, and a tree."""
    small_cache(tmp_path / "c.h5")
    (tmp_path / "other").mkdir()
    small_cache(tmp_path / "other" / "c.h5", seed=1)
    with store.FeatureStore(tmp_path / "c.h5") as one, store.FeatureStore(tmp_path / "other" / "c.h5") as two:
        assert (one.shape, one.key) == (two.shape, two.key)
        assert one.features_sha256 != two.features_sha256
    write_tree_csv(tmp_path / "tree.csv")
    return tmp_path


def config(place: Path) -> TrainConfig:
    settings = {"hierarchy": str(place / "tree.csv"), "method": "flat", "epochs": 4, "batch_size": 32}
    return resolve(TrainConfig, settings)


def renamed(place: Path) -> None:
    (place / "other" / "c.h5").replace(place / "c.h5")


def written_over(place: Path) -> None:
    """As cp does: the same file, with other content."""
    shutil.copyfile(place / "other" / "c.h5", place / "c.h5")


def at_the_first_epoch(act: Callable[[], None]) -> Callable[[TrainConfig, Epoch], None]:
    def on_epoch(config: TrainConfig, epoch: Epoch) -> None:
        if epoch.number == 1:
            act()

    return on_epoch


@pytest.mark.parametrize("stream", [True, False])
def test_a_cache_that_is_replaced_while_training_is_trained_on_as_it_was(stream: bool, place: Path) -> None:
    wanted, _ = train(load_cache(place / "c.h5", stream=stream), config(place), place / "undisturbed")
    cache = load_cache(place / "c.h5", stream=stream)
    found, _ = train(cache, config(place), place / "runs", on_epoch=at_the_first_epoch(lambda: renamed(place)))
    assert found.result.test == wanted.result.test
    assert found.result.cache.features_sha256 == wanted.result.cache.features_sha256
    assert [line.loss for line in found.epochs] == [line.loss for line in wanted.epochs]


def test_a_cache_that_is_written_over_while_training_ends_it(place: Path) -> None:
    cache = load_cache(place / "c.h5", stream=True)
    with pytest.raises(StoreError, match=f"^{re.escape(str(place / 'c.h5'))}: {CHANGED}$"):
        train(cache, config(place), place / "runs", on_epoch=at_the_first_epoch(lambda: written_over(place)))
    assert list((place / "runs").iterdir()) == []


@pytest.mark.parametrize("replaced", [False, True])
def test_a_process_that_was_forked_opens_the_cache_itself_and_looks_whether_it_is_the_same(
    replaced: bool, place: Path
) -> None:
    with store.FeatureStore(place / "c.h5") as cache:
        wanted = cache.block(0)
        if replaced:
            renamed(place)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:  # whatever happens here, the child must not go on with pytest's own work
            try:
                same = np.array_equal(cache.block(0), wanted)
                os.write(writing, f"{same} {cache._process == os.getpid()}".encode())
            except StoreError as error:
                os.write(writing, str(error).encode())
            finally:
                os._exit(0)
        os.close(writing)
        os.waitpid(child, 0)
        said = os.read(reading, 4096).decode()
        os.close(reading)
        assert said == (f"{place / 'c.h5'}: {CHANGED}" if replaced else "True True")
        assert np.array_equal(cache.block(0), wanted)


def test_a_cache_that_is_sent_to_another_process_is_the_same_there_or_refused(place: Path) -> None:
    cache = load_cache(place / "c.h5", stream=True)
    sent = pickle.dumps(cache.features)
    there = pickle.loads(sent)
    assert np.array_equal(there.store.block(0), cache.features.store.block(0))  # type: ignore[union-attr]
    renamed(place)
    with pytest.raises(StoreError, match=CHANGED):
        pickle.loads(sent)


@pytest.mark.parametrize("order", [np.arange(360), np.arange(360)[::-1]], ids=["whole", "rows"])
@pytest.mark.parametrize("act", [renamed, written_over])
def test_a_cache_that_is_replaced_while_another_is_made_of_it_is_left_as_it_is(
    act: Callable[[Path], None], order: NDArray[np.int64], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = (place / "other" / "c.h5").read_bytes()
    with store.FeatureStore(place / "c.h5") as cache:
        table, fields = cache.table(), cache.key_fields
    assert table.fingerprints is not None
    table = store.Table(table.regions.take(order), table.ok[order], [], table.fingerprints.take(order))
    real = assembly.put_table

    def put_table(file: h5py.File, table: store.Table) -> None:
        act(place)
        real(file, table)

    monkeypatch.setattr(assembly, "put_table", put_table)
    with pytest.raises(StoreError, match=f"^{re.escape(str(place / 'c.h5'))}: {CHANGED}$"):
        store.assemble(
            place / "c.h5",
            table,
            [place / "c.h5"],
            np.zeros(360),
            order,
            key_fields=fields,
            config={},
            provenance={},
        )
    assert (place / "c.h5").read_bytes() == content
    assert not list(place.glob("*.part"))


def test_other_processes_train_on_the_device_that_was_planned_for(place: Path) -> None:
    known = load_cache(place / "c.h5", device="cpu").meta
    with pytest.raises(ConfigError) as caught:
        same_cache(CacheSource(place / "c.h5", "cuda:77"), known)
    assert re.fullmatch(
        "device cuda:77 cannot be used here: .*; every process needs the device of the one that started them: "
        "set device to cpu, or take machines with one kind of device",
        str(caught.value),
    )
    open_cache.cache_clear()


def test_other_processes_train_on_the_cache_that_was_looked_at(place: Path) -> None:
    known = load_cache(place / "c.h5", device="cpu").meta
    assert same_cache(CacheSource(place / "c.h5", "cpu"), known).meta == known
    renamed(place)
    open_cache.cache_clear()
    with pytest.raises(StoreError, match=re.escape(f"{place / 'c.h5'}: was changed or replaced while it was in use")):
        same_cache(CacheSource(place / "c.h5", "cpu"), known)
    open_cache.cache_clear()


def test_labels_that_change_between_two_processes_are_noticed(place: Path) -> None:
    labels = place / "labels.csv"
    text = "id,label\n" + "".join(f"{i:05d}.jpg,{('Tee', 'Coat')[i % 2]}\n" for i in range(360))
    labels.write_text(text)
    known = load_cache(place / "c.h5", labels=labels).meta
    labels.write_text(text.replace("00007.jpg,Coat", "00007.jpg,Tee"))
    with pytest.raises(StoreError, match=re.escape(f"{labels}: was changed or replaced while it was in use")):
        same_cache(CacheSource(place / "c.h5", "cpu", labels), known)
    open_cache.cache_clear()


def in_another_process(monkeypatch: pytest.MonkeyPatch, before: Callable[[], object]) -> None:
    """Calls are sent to a process that has nothing open yet, after something happened."""

    def run(calls: Sequence[object], crew: Crew, *, ordered: bool) -> Iterator[object]:
        before()
        for call in calls:
            function, positional, named = pickle.loads(pickle.dumps(call))
            open_cache.cache_clear()
            yield function(*positional, **named)

    monkeypatch.setattr("hfc.parallel.run", run)


def searched(place: Path, out: str) -> list[dict[str, object]]:
    """The lines of a search, which times nothing."""
    grid = {"hierarchy": str(place / "tree.csv"), "epochs": 1, "method": "hmcn-f", "grid": {"dropout": [0.1, 0.2]}}
    sweep(place / "c.h5", parse_sweep(place / "g.toml", grid), place / out)
    return [json.loads(line) for line in (place / out / "trials.jsonl").read_text().splitlines()]


def test_a_sweep_scores_nothing_under_the_key_of_another_cache(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_another_process(monkeypatch, lambda: renamed(place))
    with pytest.raises(StoreError, match=r"c\.h5: was changed or replaced"):
        searched(place, "out")
    assert (place / "out" / "trials.jsonl").read_text() == ""


def test_a_sweep_scores_on_the_tree_that_is_in_its_keys(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = searched(place, "undisturbed")
    tree = place / "tree.csv"
    text = tree.read_text()
    other = text.replace("Coat,outer,upper", "Coat,outer,lower")
    in_another_process(monkeypatch, lambda: tree.write_text(other))
    assert searched(place, "disturbed") == wanted
    assert tree.read_text() == other != text
    monkeypatch.undo()
    assert not {line["key"] for line in searched(place, "other")} & {line["key"] for line in wanted}


def test_predictions_of_another_run_are_not_reported(place: Path) -> None:
    from hfc.report import write_report

    first, second = (
        run for run, _ in train_all(place / "c.h5", [config(place), replace(config(place), seed=1)], place)
    )
    assert read_predictions(first.folder / "predictions.h5").key == first.result.key
    shutil.copy(second.folder / "predictions.h5", first.folder / "predictions.h5")
    with pytest.raises(RunError) as caught:
        write_report([first.folder], place / "report")
    assert str(caught.value) == (
        f"{first.folder / 'predictions.h5'}: the predictions of another run: expected key {first.result.key[:12]}…, "
        f"found {second.result.key[:12]}…; train the run again"
    )
    # A run of before, whose predictions do not say whose they are, is reported as ever.
    write_predictions(
        second.folder / "predictions.h5", replace(read_predictions(second.folder / "predictions.h5"), key="")
    )
    assert write_report([find([second.folder])[0].folder], place / "report").runs == 1


def test_weights_that_change_between_two_readings_are_refused(tmp_path: Path) -> None:
    file = write_weights(tmp_path / "w.pth")
    settings = {"weights": str(file), "pool": "mean"}
    encoder = load_encoder(TINY, image_size=32, precision="fp32", device="cpu", **settings)
    assert plain_weights(TINY, str(file), "mean", 32, encoder.weights_digest)
    write_weights(file, seed=2)
    with pytest.raises(
        EncoderError, match=rf"^weights {re.escape(str(file))}: changed while they were in use: expected"
    ):
        plain_weights(TINY, str(file), "mean", 32, encoder.weights_digest)
