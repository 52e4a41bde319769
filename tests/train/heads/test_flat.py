"""The flat head against its equations."""

import numpy as np

from tests.support.equations import Naive, build, features, softmax


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
