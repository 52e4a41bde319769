"""The paper's head against a naive NumPy transcription of its equations, with the same weights."""

import numpy as np
import pytest

from tests.support.equations import TARGET, Floats, Naive, bce, build, features, sigmoid, softmax


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


def test_hmcnf_losses_equal_the_equations() -> None:
    head = build("hmcn-f")
    logits = head(features())
    losses = head.losses(logits, TARGET)
    one_hot = [np.eye(size)[TARGET.path[:, h]] for h, size in enumerate((2, 3, 5))]
    for h in range(3):
        local = bce(sigmoid(logits.local[h].detach().numpy()), one_hot[h])
        assert losses[f"local/{h + 1}"].mean().item() == pytest.approx(local, rel=1e-5)
    assert losses["global"].mean().item() == pytest.approx(
        bce(sigmoid(logits.leaf.detach().numpy()), one_hot[2]), rel=1e-5
    )
