"""Heads against naive NumPy transcriptions of their papers' equations, with the same weights."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hfc.config import METHODS, TrainConfig, resolve
from hfc.train.heads import Head
from hfc.train.heads.layers import Block, Dropout, Output, Standardise
from hfc.train.losses import log_softmax_among_siblings
from hfc.train.settings import head_class, takes

Floats = NDArray[np.float64]

# Three levels: 2 > 3 > 5 leaves.
ANCESTORS = torch.tensor([[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3], [1, 2, 4]])
TARGET = torch.tensor([[0, 0, 1], [1, 2, 3], [0, 1, 2], [1, 2, 4]])
DIM = 6


def build(method: str, **changes: object) -> Head:
    config = resolve(TrainConfig, {"method": method, "reduced": 8, "width": 8, **changes})
    kind = head_class(config)
    torch.manual_seed(0)
    head = kind(DIM, ANCESTORS, **{name: getattr(config, name) for name in takes(kind)})
    generator = torch.Generator().manual_seed(1)
    for name, tensor in head.state_dict().items():
        if tensor.is_floating_point():  # no weight, bias or statistic may hide by being 0 or 1
            value = 0.3 * torch.randn(tensor.shape, generator=generator)
            tensor.data.copy_(value.abs() + 0.5 if "var" in name or "std" in name else value)
    return head.double().eval()


def features() -> torch.Tensor:
    return torch.randn(4, DIM, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def sigmoid(z: Floats) -> Floats:
    return 1 / (1 + np.exp(-z))


def softmax(z: Floats) -> Floats:
    return np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)


class Naive:
    """The equations, one row at a time; dropout is the identity in evaluation."""

    def __init__(self, head: Head) -> None:
        self.w: Mapping[str, Floats] = {k: v.numpy() for k, v in head.state_dict().items()}

    def standardise(self, row: Floats) -> Floats:
        return (row - self.w["standardise.mean"]) / self.w["standardise.std"]

    def linear(self, name: str, z: Floats) -> Floats:
        return (
            np.array([self.w[f"{name}.weight"][i] @ z for i in range(len(self.w[f"{name}.bias"]))])
            + (self.w[f"{name}.bias"])
        )

    def block(self, name: str, z: Floats, residual: Floats | None) -> Floats:
        hidden = np.maximum(self.linear(f"{name}.linear", z), 0)
        normal = (hidden - self.w[f"{name}.norm.running_mean"]) / np.sqrt(self.w[f"{name}.norm.running_var"] + 1e-5)
        out = normal * self.w[f"{name}.norm.weight"] + self.w[f"{name}.norm.bias"]
        return out if residual is None or len(residual) != len(out) else out + residual

    def flows(self, x: Floats, levels: int, residual: bool) -> tuple[list[Floats], Floats]:
        """A_G^h from [A_G^{h-1}; x], A_L^h from A_G^h; residuals stay inside their flow."""
        local: list[Floats] = []
        states: list[Floats] = []
        branches: list[Floats] = []
        for h in range(levels):
            inputs = np.concatenate([states[-1], x]) if states else x
            states.append(self.block(f"flows.global_flow.{h}", inputs, states[-1] if states and residual else None))
            branches.append(
                self.block(f"flows.local_flow.{h}", states[-1], branches[-1] if branches and residual else None)
            )
            local.append(self.linear(f"flows.local_out.{h}", branches[-1]))
        return local, states[-1]


@pytest.mark.parametrize(
    ("residual", "skip", "blend", "loss"),
    [
        (True, True, "probability", "bce"),
        (False, True, "probability", "softmax"),
        (True, False, "logit", "bce"),
        (False, False, "logit", "softmax"),
    ],
)
def test_hmcnf_equals_the_equations(residual: bool, skip: bool, blend: str, loss: str) -> None:
    head = build("hmcn-f", residual=residual, global_input_skip=skip, blend=blend, loss=loss)
    naive, beta = Naive(head), 0.7
    local: list[list[Floats]] = [[], [], []]
    leaf: list[Floats] = []
    for row in features().numpy():
        x = naive.block("reduce", naive.standardise(row), None)
        levels, last = naive.flows(x, 3, residual)
        for h in range(3):
            local[h].append(levels[h])
        leaf.append(naive.linear("global_out", np.concatenate([last, x]) if skip else last))
    act = sigmoid if loss == "bce" else softmax
    z_local, z_leaf = [np.array(level) for level in local], np.array(leaf)
    if blend == "probability":
        final = beta * act(z_local[-1]) + (1 - beta) * act(z_leaf)
    else:
        final = act(beta * z_local[-1] + (1 - beta) * z_leaf)
    prediction = head.predict(head(features()), beta)
    for h in range(3):
        np.testing.assert_allclose(prediction.levels[h].detach().numpy(), act(z_local[h]), rtol=1e-5)
    np.testing.assert_allclose(prediction.final.detach().numpy(), final, rtol=1e-5)


def bce(p: Floats, y: Floats) -> float:
    return float(-(y * np.log(p) + (1 - y) * np.log(1 - p)).mean())


def test_hmcnf_losses_equal_the_equations() -> None:
    head = build("hmcn-f")
    logits = head(features())
    losses = head.losses(logits, TARGET)
    one_hot = [np.eye(size)[TARGET[:, h]] for h, size in enumerate((2, 3, 5))]
    for h in range(3):
        local = bce(sigmoid(logits.local[h].detach().numpy()), one_hot[h])
        assert losses[f"local/{h + 1}"].mean().item() == pytest.approx(local, rel=1e-5)
    assert losses["global"].mean().item() == pytest.approx(
        bce(sigmoid(logits.leaf.detach().numpy()), one_hot[2]), rel=1e-5
    )


def test_original_hmcnf_equals_the_equations() -> None:
    head = build("hmcn-f-original", violation_weight=0.1, beta=0.5)
    naive = Naive(head)
    rows = [naive.flows(naive.standardise(row), 3, True) for row in features().numpy()]
    local = np.array([np.concatenate(levels) for levels, _ in rows])
    nodes = np.array([naive.linear("global_out", last) for _, last in rows])
    blended = 0.5 * sigmoid(local) + 0.5 * sigmoid(nodes)
    logits = head(features())
    prediction = head.predict(logits, 0.5)
    np.testing.assert_allclose(torch.cat(prediction.levels, dim=1).detach().numpy(), blended, rtol=1e-5)
    np.testing.assert_allclose(prediction.final.detach().numpy(), blended[:, 5:], rtol=1e-5)

    truth = np.zeros((4, 10))
    for row, (a, b, c) in enumerate(TARGET.tolist()):
        truth[row, [a, 2 + b, 5 + c]] = 1
    # nodes: 0 1 | 2 3 4 | 5 6 7 8 9
    parent = {2: 0, 3: 0, 4: 1, 5: 2, 6: 2, 7: 3, 8: 4, 9: 4}
    violation = sum(max(0.0, blended[r, c] - blended[r, p]) ** 2 for r in range(4) for c, p in parent.items()) / 4
    losses = head.losses(logits, TARGET)
    assert losses["violation"].mean().item() == pytest.approx(0.1 * violation, rel=1e-4)
    assert losses["global"].mean().item() == pytest.approx(bce(sigmoid(nodes), truth), rel=1e-5)
    levels = [local[:, :2], local[:, 2:5], local[:, 5:]]
    starts = [truth[:, :2], truth[:, 2:5], truth[:, 5:]]
    for h in range(3):
        assert losses[f"local/{h + 1}"].mean().item() == pytest.approx(bce(sigmoid(levels[h]), starts[h]), rel=1e-5)


def test_original_hmcnf_has_the_layers_of_neuralclassifier() -> None:
    # Tencent/NeuralNLP-NeuralClassifier (commit 3d4ddff, model/classification/hmcn.py), dropout left out: a layer is
    # Linear, ReLU, BatchNorm; a local flow ends in another Linear; the document joins every global layer but the last.
    head = build("hmcn-f-original", residual=False)
    x = head.standardise(features())
    weights = head.state_dict()

    def loaded(layer: torch.nn.Module, name: str) -> torch.nn.Module:
        layer.load_state_dict({key: weights[f"{name}.{key}"] for key in layer.state_dict()})
        return layer.double().eval()

    def stage(name: str, inputs: int) -> torch.nn.Sequential:
        linear, norm = torch.nn.Linear(inputs, 8), torch.nn.BatchNorm1d(8)
        return torch.nn.Sequential(loaded(linear, f"{name}.linear"), torch.nn.ReLU(), loaded(norm, f"{name}.norm"))

    document, local = x, []
    for h, size in enumerate((2, 3, 5)):
        state = stage(f"flows.global_flow.{h}", x.shape[1])(x)
        branch = stage(f"flows.local_flow.{h}", 8)(state)
        local.append(loaded(torch.nn.Linear(8, size), f"flows.local_out.{h}")(branch))
        x = state if h == 2 else torch.cat([state, document], dim=1)
    nodes = loaded(torch.nn.Linear(8, 10), "global_out")(x)
    logits = head(features())
    torch.testing.assert_close(torch.cat(logits.local, dim=1), torch.cat(local, dim=1))
    torch.testing.assert_close(logits.nodes, nodes)


def test_violations_are_summed_over_edges_and_averaged_over_the_batch() -> None:
    # A public HMCNLoss takes relu(child - parent)^2, sums the edges, averages the batch and then weighs; here on P_F.
    head = build("hmcn-f-original", violation_weight=0.25, beta=0.5)
    logits = head(features())
    blended = (0.5 * torch.cat(logits.local, dim=1).sigmoid() + 0.5 * logits.nodes.sigmoid()).detach().numpy()
    children, parents = [2, 3, 4, 5, 6, 7, 8, 9], [0, 0, 1, 2, 2, 3, 4, 4]
    want = 0.25 * np.square(np.maximum(blended[:, children] - blended[:, parents], 0)).sum(axis=1).mean()
    assert want > 0
    assert head.losses(logits, TARGET)["violation"].mean().item() == pytest.approx(want, rel=1e-5)


def test_flat_sums_leaves_into_their_ancestors() -> None:
    head = build("flat")
    naive = Naive(head)
    z = np.array([naive.linear("leaf", naive.block("reduce", naive.standardise(r), None)) for r in features().numpy()])
    p = softmax(z)
    prediction = head.predict(head(features()), 0.7)
    np.testing.assert_allclose(prediction.final.detach().numpy(), p, rtol=1e-5)
    groups = np.stack([p[:, :3].sum(axis=1), p[:, 3:].sum(axis=1)], axis=1)
    middle = np.stack([p[:, :2].sum(axis=1), p[:, 2], p[:, 3:].sum(axis=1)], axis=1)
    np.testing.assert_allclose(prediction.levels[0].detach().numpy(), groups, rtol=1e-5)
    np.testing.assert_allclose(prediction.levels[1].detach().numpy(), middle, rtol=1e-5)


def reduced(naive: Naive) -> list[Floats]:
    return [naive.block("reduce", naive.standardise(row), None) for row in features().numpy()]


@pytest.mark.parametrize("loss", ["bce", "softmax"])
def test_levels_have_a_classifier_each_on_one_trunk(loss: str) -> None:
    head = build("levels", loss=loss)
    naive = Naive(head)
    act = sigmoid if loss == "bce" else softmax
    logits = head(features())
    prediction = head.predict(logits, 0.0)
    losses = head.losses(logits, TARGET)
    for h in range(3):
        z = np.array([naive.linear(f"outputs.{h}", x) for x in reduced(naive)])
        np.testing.assert_allclose(prediction.levels[h].detach().numpy(), act(z), rtol=1e-5)
        truth = np.eye(z.shape[1])[TARGET[:, h]]
        want = bce(sigmoid(z), truth) if loss == "bce" else -np.log((softmax(z) * truth).sum(axis=1)).mean()
        assert losses[f"local/{h + 1}"].mean().item() == pytest.approx(want, rel=1e-5)
    assert prediction.final is prediction.levels[-1]
    # Down the tree by hand: groups {0, 1} and {2} under the first kind; leaves {0, 1}, {2} and {3, 4} under the groups.
    kinds, groups, leaves = (level.detach().numpy() for level in prediction.levels)
    for row, final in enumerate(head.predict(logits, 0.4).final.detach().numpy()):
        a, b = kinds[row] / kinds[row].sum()
        first = a * groups[row, 0] / groups[row, :2].sum()
        second = a * groups[row, 1] / groups[row, :2].sum()
        down = np.array([first, first, second, b, b])
        for family in ([0, 1], [2], [3, 4]):
            down[family] *= leaves[row, family] / leaves[row, family].sum()
        np.testing.assert_allclose(final, 0.4 * down + 0.6 * leaves[row] / leaves[row].sum(), rtol=1e-5)


def test_conditional_multiplies_choices_among_siblings() -> None:
    head = build("conditional")
    naive = Naive(head)
    logits = head(features())
    prediction = head.predict(logits, 0.7)
    losses = head.losses(logits, TARGET)
    # Families by hand: the root has kinds 0 1; kind 0 has groups 0 1, kind 1 group 2; leaves 0 1 | 2 | 3 4.
    families = [[[0, 1]], [[0, 1], [2]], [[0, 1], [2], [3, 4]]]
    parents = [[], [0, 0, 1], [0, 0, 1, 2, 2]]
    for row, x in enumerate(reduced(naive)):
        above = np.ones(1)
        for h in range(3):
            z = naive.linear(f"outputs.{h}", x)
            given = np.empty(len(z))
            for family in families[h]:
                given[family] = np.exp(z[family]) / np.exp(z[family]).sum()
            above = given if h == 0 else given * above[parents[h]]
            np.testing.assert_allclose(prediction.levels[h][row].detach().numpy(), above, rtol=1e-5)
            assert above.sum() == pytest.approx(1)
        np.testing.assert_allclose(prediction.final[row].detach().numpy(), above, rtol=1e-5)
    # The losses of the levels add up to that of the leaf.
    leaves = prediction.final.gather(1, TARGET[:, 2:]).log().mean()
    assert sum(loss.mean().item() for loss in losses.values()) == pytest.approx(-leaves.item(), rel=1e-6)


def test_a_softmax_among_siblings_does_not_overflow() -> None:
    logits = torch.tensor([[1000.0, 0.0, -1000.0, 5.0, 5.0]], requires_grad=True)
    found = log_softmax_among_siblings(logits, torch.tensor([0, 0, 1, 2, 2]), 3)
    torch.testing.assert_close(found, torch.tensor([[0.0, -1000.0, 0.0, -np.log(2), -np.log(2)]], dtype=torch.float32))
    (grad,) = torch.autograd.grad(found[0, 1], logits)
    torch.testing.assert_close(grad, torch.tensor([[-1.0, 1.0, 0.0, 0.0, 0.0]]))


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


@pytest.mark.parametrize("method", METHODS)
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


def test_dropout_acts_after_the_residual() -> None:
    block = Block(4, 4, dropout=0.9).train()
    out = block(torch.randn(64, 4), torch.full((64, 4), 100.0))
    assert (out == 0).float().mean() > 0.8


def test_a_residual_of_another_width_is_left_out() -> None:
    block = Block(4, 3, dropout=0.5).eval()
    inputs = torch.randn(2, 4)
    torch.testing.assert_close(block(inputs, torch.randn(2, 5)), block(inputs))


def test_a_feature_that_never_varies_is_only_centred() -> None:
    layer = Standardise(2)
    layer.set(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 2.0]))
    torch.testing.assert_close(layer(torch.tensor([[1.0, 6.0]])), torch.tensor([[0.0, 2.0]]))


@pytest.mark.parametrize("p", [0.7, 0.1, 0.999, 1e-6])
def test_dropout_zeroes_as_often_as_asked_and_keeps_the_mean(p: float) -> None:
    torch.manual_seed(0)
    dropout = Dropout(p)
    inputs = torch.ones(1000, 1001, requires_grad=True)
    out = dropout(inputs)
    kept = out != 0
    count = kept.numel()
    assert kept.sum().item() == pytest.approx(count * (1 - p), abs=5 * np.sqrt(count * p * (1 - p)) + count / 2**15)
    assert out.unique().numel() <= 2
    assert out.mean().item() == pytest.approx(1, abs=0.05)
    # Neighbours in a row and in a column are independent of each other, also where they share a random word.
    for other in (kept[:, 1:], kept[1:]):
        mine = kept[: other.shape[0], : other.shape[1]]
        both = (mine & other).float().mean().item()
        assert both == pytest.approx((1 - p) ** 2, abs=0.003)
    out.sum().backward()
    assert inputs.grad is not None
    torch.testing.assert_close(inputs.grad, out.detach())
    assert dropout.eval()(inputs) is inputs


@pytest.mark.parametrize("method", METHODS)
def test_a_head_says_whether_beta_changes_its_answers(method: str) -> None:
    head = build(method)
    logits = head(features())
    few, many = (head.predict(logits, beta).final for beta in (0.1, 0.9))
    assert head.blends != torch.equal(few, many)
