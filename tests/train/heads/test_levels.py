"""A classifier for each level, against its equations."""

import numpy as np
import pytest

from tests.support.equations import TARGET, Naive, bce, build, features, reduced, sigmoid, softmax


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
        truth = np.eye(z.shape[1])[TARGET.path[:, h]]
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
