"""The linear head against its equation."""

import numpy as np

from tests.support.equations import Naive, build, features, softmax


def test_linear_is_a_softmax_of_one_layer_whose_leaves_add_up() -> None:
    head = build("linear")
    naive = Naive(head)
    p = softmax(np.array([naive.linear("leaf", naive.standardise(row)) for row in features().numpy()]))
    prediction = head.predict(head(features()), 0.7)
    np.testing.assert_allclose(prediction.final.detach().numpy(), p, rtol=1e-5)
    groups = np.stack([p[:, :3].sum(axis=1), p[:, 3:].sum(axis=1)], axis=1)
    middle = np.stack([p[:, :2].sum(axis=1), p[:, 2], p[:, 3:].sum(axis=1)], axis=1)
    np.testing.assert_allclose(prediction.levels[0].detach().numpy(), groups, rtol=1e-5)
    np.testing.assert_allclose(prediction.levels[1].detach().numpy(), middle, rtol=1e-5)
