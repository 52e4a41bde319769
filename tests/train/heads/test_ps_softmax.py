"""Scores shared along the paths, against their equations; any tree and any label in tests/train/heads/test_tree.py."""

from typing import Any

import numpy as np
import pytest
import torch

from hfc.train.heads.layers import Target
from hfc.train.heads.ps_softmax import PSSoftmax
from tests.support.equations import ANCESTORS, DIM, TARGET, Naive, build, features, reduced, softmax
from tests.support.trees import ancestors_of

UNEVEN = torch.from_numpy(ancestors_of([(0,), (1, 0), (1, 1, 0), (1, 1, 1), (2, 0, 0)]))


@pytest.mark.parametrize(("share", "inner"), [(1.0, 1.0), (0.7, 0.25)])
def test_a_leafs_score_is_the_sum_along_its_path(share: float, inner: float) -> None:
    head = build("ps-softmax", label_share=share, inner_scale=inner)
    naive = Naive(head)
    # The nodes of the three levels follow each other: kinds 0 1, groups 2 3 4, leaves 5 to 9.
    scores = np.array([naive.linear("nodes", x) for x in reduced(naive)])
    paths = [(0, 2, 5), (0, 2, 6), (0, 3, 7), (1, 4, 8), (1, 4, 9)]
    p = softmax(np.stack([inner * (scores[:, a] + scores[:, b]) + scores[:, c] for a, b, c in paths], axis=1))
    logits = head(features())
    prediction = head.predict(logits, 0.7)
    np.testing.assert_allclose(prediction.final.detach().numpy(), p, rtol=1e-9)
    kinds = np.stack([p[:, :3].sum(axis=1), p[:, 3:].sum(axis=1)], axis=1)
    groups = np.stack([p[:, :2].sum(axis=1), p[:, 2], p[:, 3:].sum(axis=1)], axis=1)
    for level, wanted in zip(prediction.levels, (kinds, groups, p), strict=True):
        np.testing.assert_allclose(level.detach().numpy(), wanted, rtol=1e-9)
    (loss,) = head.losses(logits, TARGET).values()
    for row, (kind, group, leaf) in enumerate(TARGET.path.tolist()):
        logs = np.log([kinds[row, kind], groups[row, group], p[row, leaf]])
        wanted_loss = -(share * logs[2] + (1 - share) / 2 * (logs[0] + logs[1]))
        assert loss[row].item() == pytest.approx(wanted_loss, rel=1e-9)


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_on_one_level_it_is_the_flat_head(share: float) -> None:
    one_level = torch.arange(5)[:, None]
    flat, head = build("flat", one_level), build("ps-softmax", one_level, label_share=share)
    head.load_state_dict({name.replace("leaf.", "nodes."): tensor for name, tensor in flat.state_dict().items()})
    target = Target(TARGET.leaf[:, None], TARGET.leaf)
    wanted, logits = flat(features()), head(features())
    assert torch.equal(logits.leaf, wanted.leaf)
    assert torch.equal(head.predict(logits, 0.7).final, flat.predict(wanted, 0.7).final)
    (loss,), (of_flat,) = head.losses(logits, target).values(), flat.losses(wanted, target).values()
    torch.testing.assert_close(loss, of_flat, rtol=1e-12, atol=0)


def test_a_node_learns_from_every_leaf_below_it() -> None:
    head: Any = build("ps-softmax", UNEVEN, inner_scale=0.25)
    (loss,) = head.losses(head(features()), Target(UNEVEN[[2, 3, 1, 4]], torch.tensor([2, 3, 1, 4]))).values()
    loss.sum().backward()
    # The nodes: 0 1 2 on the first level, 3 4 5 on the second, 6 7 8 on the third.
    leaf, inner = head.nodes.weight.grad[[0, 3, 6, 7, 8]], head.nodes.weight.grad[[1, 4]]
    torch.testing.assert_close(inner, 0.25 * torch.stack([leaf[1] + leaf[2] + leaf[3], leaf[2] + leaf[3]]))


@pytest.mark.parametrize("ancestors", [ANCESTORS, UNEVEN])
def test_it_starts_by_giving_every_leaf_as_much_however_deep(ancestors: torch.Tensor) -> None:
    torch.manual_seed(0)
    head = PSSoftmax(DIM, ancestors, reduced=16, dropout=0.0, label_share=1.0, inner_scale=1.0).eval()
    final = head.predict(head(features().float()), 0.0).final
    torch.testing.assert_close(final, torch.full((4, 5), 0.2), rtol=0.2, atol=0)
