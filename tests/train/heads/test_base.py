"""A head is a module and a line in HEADS: a new one is trained and stored like those that ship."""

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from hfc.config import METHODS, TrainConfig, resolve
from hfc.errors import ConfigError
from hfc.store import read_predictions
from hfc.train.cache import Cache
from hfc.train.heads import HEADS, Head
from hfc.train.heads.layers import Output, Prediction, Standardise, Target
from hfc.train.prepared import prepare_run
from hfc.train.settings import head_class, takes
from hfc.train.stage import train
from tests.support.equations import ANCESTORS, DIM, TARGET, build, features
from tests.support.temperatures import powers


class Regression(nn.Module):
    """Softmax regression; a node above the leaves has the sum of its leaves' probabilities."""

    blends: ClassVar[bool] = False
    convex: ClassVar[bool] = False
    sums: ClassVar[bool] = True
    deepens: ClassVar[bool] = False
    task_flows: ClassVar[tuple[str, ...]] = ("global",)
    tasks: tuple[str, ...] = ("global",)

    def __init__(self, dim: int, ancestors: Tensor, *, dropout: float) -> None:
        super().__init__()
        self.ancestors = ancestors
        self.standardise, self.dropout, self.leaf = Standardise(dim), nn.Dropout(dropout), Output(dim, len(ancestors))

    @property
    def shared(self) -> Tensor:
        return self.leaf.weight

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.leaf(self.dropout(self.standardise(features)))
        return logits

    def losses(self, logits: Tensor, target: Target) -> dict[str, Tensor]:
        return {"global": F.cross_entropy(logits.float(), target.leaf, reduction="none")}

    def predict(self, logits: Tensor, beta: float) -> Prediction:
        final = logits.float().softmax(dim=1)
        return Prediction(tuple(final @ F.one_hot(column).float() for column in self.ancestors.T), final)


@pytest.fixture
def config(place: Path, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    """A run of the new head."""
    head: type[Head] = Regression  # mypy holds it against the protocol
    monkeypatch.setitem(HEADS, "regression", head)  # type: ignore[arg-type]
    tree = str(place / "tree.csv")
    settings = {"method": "flat", "hierarchy": tree, "epochs": 8, "batch_size": 32, "learning_rate": 0.01}
    settings |= {"transform": "none"}
    return replace(resolve(TrainConfig, settings), head="regression", dropout=0.1)


def test_a_new_head_is_trained_and_tested_like_any_other(config: TrainConfig, cache: Cache, tmp_path: Path) -> None:
    run, _ = train(cache, config, tmp_path)
    assert run.result.test["top1"] > 0.8
    assert run.result.loss_weights == {"global": 1.0}
    # By hand: softmax regression with the stored weights.
    weights = load_file(run.folder / "head.safetensors")
    rows = cache.table.regions.split == "test"
    features = (cache.features.tensor[rows, 0].double() - weights["standardise.mean"]) / weights["standardise.std"]  # type: ignore[union-attr]
    final = (features @ weights["leaf.weight"].double().T + weights["leaf.bias"]).softmax(dim=1)
    stored = read_predictions(run.folder / "predictions.h5")
    np.testing.assert_allclose(stored.final, powers(final, run.result.calibrated_by), atol=1e-5)


def test_settings_of_a_new_head_are_those_of_its_constructor(config: TrainConfig, cache: Cache) -> None:
    run = prepare_run(cache, config)
    assert run.key != prepare_run(cache, replace(config, dropout=0.2)).key
    with pytest.raises(
        ConfigError, match=r"reduced=9 with method flat: head regression does not take it; it takes dropout; "
    ):
        prepare_run(cache, replace(config, reduced=9))


@pytest.mark.parametrize("name", HEADS)
def test_every_head_is_a_module_with_the_parts_of_the_protocol(name: str) -> None:
    head = HEADS[name]
    assert issubclass(head, nn.Module)
    assert isinstance(head.blends, bool)
    assert isinstance(head.convex, bool)
    assert isinstance(head.deepens, bool)
    assert head.task_flows
    for method in ("forward", "losses", "predict"):
        assert callable(getattr(head, method))


@pytest.mark.parametrize("method", METHODS)
def test_gradients_reach_every_parameter(method: str) -> None:
    head = build(method, dropout=0.0).train()
    for name, parameter in head.named_parameters():
        if name.endswith("linear.weight"):
            parameter.data.abs_()  # no ReLU is dead by chance
        if name.endswith("linear.bias"):
            parameter.data.fill_(9.0)
    losses = head.losses(head(features()), TARGET)
    assert set(losses) == set(head.tasks)
    sum(losses.values(), torch.zeros(())).sum().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


# ps-softmax adds up along the path, see test_ps_softmax.py
@pytest.mark.parametrize("method", [method for method in METHODS if method not in ("ps-softmax", "flat+ps")])
def test_outputs_start_at_the_rate_of_one_class_in_many(method: str) -> None:
    config = resolve(TrainConfig, {"method": method})
    kind = head_class(config)
    head = kind(DIM, ANCESTORS, **{name: getattr(config, name) for name in takes(kind)})
    outputs = [module for module in head.modules() if isinstance(module, Output)]
    assert outputs
    for output in outputs:
        classes = len(output.bias)
        np.testing.assert_allclose(output.bias.sigmoid().detach().numpy(), np.full(classes, 1 / classes), rtol=1e-6)
        assert 0 < output.weight.std() < 0.02


@pytest.mark.parametrize("method", METHODS)
def test_a_head_says_whether_beta_changes_its_answers(method: str) -> None:
    head = build(method)
    logits = head(features())
    few, many = (head.predict(logits, beta).final for beta in (0.1, 0.9))
    assert head.blends != torch.equal(few, many)
