"""What a run's result says is what its stored predictions are worth."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from hfc import metrics
from hfc.errors import ConfigError
from hfc.report import write_report
from hfc.store import Kept, read_predictions
from hfc.train.cache import Cache, load_cache
from hfc.train.data import prepare
from hfc.train.settings import build_head
from hfc.train.stage import train
from tests.support.made_up import small_cache, write_cache
from tests.support.temperatures import powers
from tests.support.training import quick


def test_the_selected_epoch_is_the_best_on_validation_and_its_head_was_tested(
    place: Path, cache: Cache, tmp_path: Path
) -> None:
    run, _ = train(cache, quick(place), tmp_path)
    scores = [line.val["top1"] for line in run.epochs]
    chosen = run.result.selected
    assert chosen.epoch == 1 + scores.index(max(scores))
    assert chosen.val == run.epochs[chosen.epoch - 1].val
    data = prepare(cache, str(place / "tree.csv"))
    stored = read_predictions(run.folder / "predictions.h5")
    assert stored.id.tolist() == cache.table.regions.id[cache.table.regions.split == "test"].tolist()
    again = metrics.evaluate(
        stored.levels,
        stored.final,
        data.path("test"),
        stored.target,
        tree=data.hierarchy,
        topk=(1, 3, 5),
    )
    assert again == run.result.test
    # The stored weights give the stored predictions.
    from safetensors.torch import load_file

    head = build_head(quick(place, transform="none"), data.hierarchy, 16)
    head.load_state_dict(load_file(run.folder / "head.safetensors"))
    with torch.inference_mode():
        final = head.eval().predict(head(cache.features.tensor[data.rows["test"], 0].float()), 0.7).final
    np.testing.assert_allclose(powers(final, run.result.calibrated_by), stored.final, rtol=1e-5)


def test_test_predictions_carry_the_group_of_each_row(place: Path, tmp_path: Path) -> None:
    groups = [f"product {i // 3}" if i % 2 else "" for i in range(360)]
    cache = load_cache(small_cache(tmp_path / "c.h5", groups=groups), device="cpu")
    run, _ = train(cache, quick(place, method="flat", epochs=1), tmp_path / "runs")
    stored = read_predictions(run.folder / "predictions.h5")
    assert stored.group is not None
    by_id = dict(zip(cache.table.regions.id, groups, strict=True))
    assert stored.group.tolist() == [by_id[name] for name in stored.id]
    plain = load_cache(small_cache(tmp_path / "plain.h5"), device="cpu")
    other, again = train(plain, quick(place, method="flat", epochs=1), tmp_path / "runs")
    assert again  # it is another run, though its numbers are the same
    without = read_predictions(other.folder / "predictions.h5")
    assert without.group is None
    np.testing.assert_array_equal(without.final, stored.final)


def test_a_tree_of_few_leaves_is_ranked_as_far_as_it_goes(tmp_path: Path) -> None:
    write_cache(tmp_path / "c.h5", ["Tee", "Tank", "Jeans"] * 60, ["train", "train", "val", "test"] * 45)
    (tmp_path / "tree.csv").write_text("leaf,group\nTee,tops\nTank,tops\nJeans,trousers\n")
    cache = load_cache(tmp_path / "c.h5")
    run, _ = train(cache, quick(tmp_path), tmp_path / "runs")
    assert run.result.config["topk"] == [1, 3]
    assert "topk" not in run.result.changed
    assert run.result.test["top3"] == 1
    with pytest.raises(ConfigError, match="top-5 of 3 classes does not exist"):
        train(cache, quick(tmp_path, topk=[1, 5]), tmp_path / "runs")


@pytest.mark.parametrize("decode", ["path", "consistent", "least-cost"])
def test_a_decoding_is_applied_to_what_is_measured_and_stored(
    decode: str, place: Path, cache: Cache, tmp_path: Path
) -> None:
    run, _ = train(cache, quick(place, decode=decode, epochs=2), tmp_path)
    tree = prepare(cache, str(place / "tree.csv")).hierarchy
    stored = read_predictions(run.folder / "predictions.h5")
    path = tree.ancestors[stored.target]
    again = metrics.evaluate(stored.levels, stored.final, path, stored.target, tree=tree, topk=(1, 3, 5))
    assert again == run.result.test
    if decode == "consistent":
        assert run.result.test["inconsistency"] == 0


def test_conditional_is_consistent_in_its_probabilities(place: Path, cache: Cache, tmp_path: Path) -> None:
    run, _ = train(cache, quick(place, method="conditional"), tmp_path)
    stored = read_predictions(run.folder / "predictions.h5")
    ancestors = prepare(cache, str(place / "tree.csv")).hierarchy.ancestors
    for h, level in enumerate(stored.levels):
        for node in range(level.shape[1]):
            below = stored.final[:, ancestors[:, h] == node].sum(axis=1)
            np.testing.assert_allclose(level[:, node], below, rtol=1e-5)


def test_of_many_leaves_the_best_alone_are_stored_and_reported(
    place: Path, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = train(cache, quick(place), tmp_path / "whole")
    monkeypatch.setattr("hfc.store.predictions.MOST_LEAVES", 5)
    monkeypatch.setattr("hfc.store.predictions.KEPT", 3)
    short, _ = train(cache, quick(place), tmp_path / "short")
    assert short.result.test == whole.result.test
    stored, every = (read_predictions(run.folder / "predictions.h5") for run in (short, whole))
    assert isinstance(stored.final, Kept)
    assert not isinstance(every.final, Kept)
    assert stored.final.node.tolist() == metrics.top(every.final, 3).tolist()
    assert stored.final.total.tolist() == every.final.sum(axis=1).tolist()
    for kept, probabilities in zip(stored.levels, every.levels, strict=True):
        assert isinstance(kept, Kept)
        assert kept.probability[:, 0].tolist() == np.asarray(probabilities).max(axis=1).tolist()
    for name in ("whole", "short"):
        write_report([tmp_path / name], tmp_path / f"report {name}")
    pages = [(tmp_path / f"report {name}" / "differences.csv").read_text() for name in ("whole", "short")]
    pages += [
        # What is left does not show how sure the others were before the temperature.
        re.sub(r"(?m)^.*,no,.*\n", "", (tmp_path / f"report {name}" / "figures" / file).read_text())
        for file in ("categories.csv", "reliability.csv", "rejection.csv")
        for name in ("whole", "short")
    ]
    assert pages[0::2] == pages[1::2]
