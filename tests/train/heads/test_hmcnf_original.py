"""HMCN-F as its authors published it, against equations and public code."""

from typing import cast

import numpy as np
import pytest
import torch

from hfc.train import wide
from hfc.train.heads.hmcnf_original import Logits, OriginalHMCNF
from tests.support.equations import ANCESTORS, INNER, TARGET, UNEVEN, Naive, bce, build, features, sigmoid


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
    for row, (a, b, c) in enumerate(TARGET.path.tolist()):
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


def test_slopes_by_hand_are_those_of_autograd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wide, "WIDE", 1)
    head = cast(OriginalHMCNF, build("hmcn-f-original", violation_weight=0.3, beta=0.4))
    generator = torch.Generator().manual_seed(5)
    z = [3 * torch.randn(4, size, generator=generator, dtype=torch.float64) for size in (2, 3, 5, 10)]
    logits = Logits(tuple(part.requires_grad_() for part in z[:3]), z[3].requires_grad_())
    losses = head.losses(logits, TARGET)
    assert (losses["violation"] > 0).all()
    own = head.sloped(logits, TARGET)
    assert own
    for k, (task, loss) in enumerate(losses.items()):
        torch.testing.assert_close(own.losses[k], loss.detach(), rtol=1e-10, atol=1e-13, msg=task)
        for got, want in zip(own.slopes[k], torch.autograd.grad(loss.sum(), z, allow_unused=True), strict=False):
            if want is None:
                assert got is None
            else:
                torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-13, msg=task)


def test_slopes_by_hand_are_for_many_classes_even_trees_and_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    even, uneven = (cast(OriginalHMCNF, build("hmcn-f-original", tree)) for tree in (ANCESTORS, UNEVEN))
    assert even.sloped(even(features()), TARGET) is None
    monkeypatch.setattr(wide, "WIDE", 1)
    assert even.sloped(even(features()), TARGET)
    assert even.sloped(even(features()), TARGET._replace(below=torch.eye(5, dtype=torch.bool)[TARGET.leaf])) is None
    assert uneven.sloped(uneven(features()), INNER._replace(below=None)) is None
