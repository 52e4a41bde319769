"""A run's head is loaded whole or refused, and predicts what the run was tested with."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from hfc import Classifier
from hfc.config import METHODS
from hfc.errors import RunError
from hfc.predict.head import load_trained
from hfc.predict.within import below
from hfc.runs import Run
from hfc.store import FeatureStore, read_predictions
from tests.support.temperatures import powers
from tests.support.trained import rewrite_result, train_on


@pytest.mark.parametrize("method", {preset["head"]: method for method, preset in METHODS.items()}.values())
def test_every_head_predicts_what_it_was_tested_with(method: str, trained: tuple[Run, Path]) -> None:
    run = train_on(trained[1], {"method": method, "seed": 3})
    cache = trained[1]
    loaded = load_trained(run.folder)
    wanted = read_predictions(run.folder / "predictions.h5")
    with FeatureStore(cache) as store:
        rows = [store.table().regions.id.tolist().index(name) for name in wanted.id]
        features = store.features()[rows]
    final = loaded.predict(features).final.numpy()
    if loaded.config.decode == "leaf":
        temperature = run.result.calibrated_by  # at 1 nothing changes, nor is it divided by a sum
        calibrated = final if temperature == 1 else powers(final, temperature)
        np.testing.assert_allclose(calibrated, wanted.final, atol=1e-6)
    for answer, row in zip(loaded.answers(features, wanted.id.tolist(), 1, 0.0), wanted.final, strict=True):
        assert answer.probabilities[-1] == pytest.approx(row.max() / row.sum(dtype=np.float64), abs=1e-6)
    leaves, node = loaded.hierarchy.leaves, below(loaded.hierarchy, "tops, of all > kinds")
    inside = [leaf for leaf in range(len(leaves)) if loaded.hierarchy.path(leaf)[0] == "tops, of all > kinds"]
    for answer, row in zip(loaded.answers(features, wanted.id.tolist(), 9, 0.0, node), wanted.final, strict=True):
        shares = row[inside] / row[inside].sum(dtype=np.float64)
        chances = {leaf.path[-1]: leaf.probability for leaf in answer.top}
        assert chances == pytest.approx({leaves[leaf]: p for leaf, p in zip(inside, shares, strict=True)}, abs=1e-6)
        assert answer.path == ("tops, of all > kinds", leaves[inside[int(shares.argmax())]])


def other_head(run: Path) -> None:
    save_file(load_file(run / "head.safetensors"), run / "head.safetensors", metadata={"key": "f" * 64})


def cut_head(run: Path) -> None:
    (run / "head.safetensors").write_bytes((run / "head.safetensors").read_bytes()[:-8])


def other_tree(run: Path) -> None:
    (run / "hierarchy.csv").write_text((run / "hierarchy.csv").read_text().replace("Tee", "Tea"))


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "result gone": (lambda r: (r / "result.json").unlink(), "run: holds no finished runs"),
    "result damaged": (
        lambda r: (r / "result.json").write_text("{"),
        "run/result.json: expected JSON, found JSONDecodeError",
    ),
    "head gone": (
        lambda r: (r / "head.safetensors").unlink(),
        "head.safetensors: cannot read the head: .*No such file",
    ),
    "head damaged": (cut_head, "head.safetensors: cannot read the head"),
    "head of another run": (
        other_head,
        r"head.safetensors: the head of another run: expected key \w{12}…, found f{12}…",
    ),
    "other tree": (other_tree, "hierarchy.csv: not the hierarchy the run was trained with"),
    "other settings": (
        lambda r: rewrite_result(r, lambda result: result["config"].update(reduced=17)),
        r"the head does not fit what the run records \(Error\(s\) in loading state_dict",
    ),
    "settings of another version": (
        lambda r: rewrite_result(r, lambda result: result["config"].update(depth=17)),
        r"does not fit what the run records \(unknown setting 'depth'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_run_that_is_not_whole_is_refused(case: str, run: Path) -> None:
    damage, message = REFUSED[case]
    damage(run)
    with pytest.raises(RunError, match=message):
        Classifier.load(run)


def test_a_folder_of_one_run_is_that_run_and_of_several_is_refused(run: Path, place: Path, tmp_path: Path) -> None:
    assert Classifier.load(tmp_path).trained.run.folder == run
    shutil.copytree(run, tmp_path / "second")
    with pytest.raises(RunError, match="holds 2 runs; name one of them, or give --best: run, second"):
        Classifier.load(tmp_path)
    with pytest.raises(RunError, match="none: no such run"):
        Classifier.load(tmp_path / "none")


def test_a_run_of_a_method_that_is_no_more_is_still_read(run: Path) -> None:
    settings = load_trained(run).config
    rewrite_result(run, lambda result: result["config"].update(method="gone"))
    assert load_trained(run).config == replace(settings, method=load_trained(run).config.method)


def test_loading_leaves_the_callers_random_numbers_alone(trained: tuple[Run, Path]) -> None:
    torch.manual_seed(7)
    wanted = torch.rand(1)
    torch.manual_seed(7)
    Classifier.load(trained[0].folder)
    assert torch.rand(1) == wanted
