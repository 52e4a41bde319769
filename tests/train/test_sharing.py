"""What sharing costs, and the minimum under that cost, against scores of nodes added up along naive paths."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import softmax

from hfc.train.fit import fit
from hfc.train.sharing import Sharing
from tests.support.trees import Node, ancestors_of, uneven_trees
from tests.train.test_lbfgs import (
    CLOSE,
    DIM,
    LEAVES,
    Floats,
    assert_alike,
    below,
    linear,
    made_up,
    objective,
    probabilities,
    standardised,
)


def on_path(paths: list[Node]) -> tuple[torch.Tensor, torch.Tensor]:
    """(C, nodes) 1 where a node is on the path to a leaf, and (nodes,) whether each node is a leaf."""
    nodes = sorted({path[:h] for path in paths for h in range(1, len(path) + 1)})
    rows = [[float(path[: len(node)] == node) for node in nodes] for path in paths]
    return torch.tensor(rows, dtype=torch.float64), torch.tensor([node in paths for node in nodes])


@settings(max_examples=40)
@given(paths=uneven_trees(), share=st.floats(0.01, 100))
def test_a_weights_price_is_that_of_its_cheapest_scores(paths: list[Node], share: float) -> None:
    design, is_leaf = on_path(paths)
    sharing = Sharing(torch.from_numpy(ancestors_of(paths)), share)
    weight = torch.randn(len(paths), 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # Least squares among all scores of nodes that add up to the weight; those of inner nodes cost 1/share as much.
    scale = np.where(is_leaf, 1, share**0.5)
    cheapest = np.linalg.lstsq(design.numpy() * scale, weight.numpy(), rcond=None)[0]
    own = sharing.leave(weight)
    assert own.square().sum().item() == pytest.approx(np.square(cheapest).sum(), rel=1e-9)
    torch.testing.assert_close(sharing.enter(own), weight, rtol=1e-9, atol=1e-9)


def test_a_slope_is_autograds() -> None:
    sharing = Sharing(torch.from_numpy(ancestors_of([(0,), (1, 0), (1, 1, 0), (1, 1, 1), (2, 0, 0)])), 0.3)
    own, direction = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    own.requires_grad_()
    (expected,) = torch.autograd.grad((sharing.enter(own) * direction).sum(), own)
    torch.testing.assert_close(sharing.slope(direction), expected)


def test_biases_and_what_is_not_shared_stay_as_they_are() -> None:
    tree = torch.from_numpy(ancestors_of([(0, 0), (0, 1), (1, 0)]))
    weight, bias = torch.randn(3, 4), torch.randn(3)
    for sharing, value in (
        (Sharing(tree, 0.0), weight),
        (Sharing(tree, 1.0), bias),
        (Sharing(tree[:, 1:], 1.0), weight),
    ):
        for turn in (sharing.enter, sharing.leave, sharing.slope):
            assert turn(value) is value


def test_it_holds_nothing_for_each_pair_of_ten_thousand_leaves() -> None:
    tree = torch.arange(10_000)[:, None] // torch.tensor([1000, 100, 10, 1])
    sharing = Sharing(tree, 0.5)
    assert sum(tensor.numel() for level in sharing.levels for tensor in vars(level).values()) < 4 * tree.numel()
    weight = torch.randn(len(tree), 2, dtype=torch.float64)
    torch.testing.assert_close(sharing.enter(sharing.leave(weight)), weight)


@pytest.mark.parametrize("inner", [1, 5])
def test_shared_scores_come_to_scipys_minimum_over_the_scores_of_all_nodes(inner: int) -> None:
    features, data = made_up(inner=True)
    rows, l2 = data.rows["train"], 0.01
    x, right = standardised(features, rows)[rows], below(data, rows)
    design, is_leaf = (part.numpy() for part in on_path([tuple(p[p >= 0]) for p in data.hierarchy.ancestors]))
    cost = np.where(is_leaf, l2, inner * l2)[:, None]

    def objective_of_nodes(flat: Floats) -> tuple[float, Floats]:
        theta, bias = flat[:-LEAVES].reshape(-1, DIM), flat[-LEAVES:]
        value, slope = objective(np.concatenate([(design @ theta).ravel(), bias]), x, right, 0.0)
        by_theta = design.T @ slope[:-LEAVES].reshape(LEAVES, DIM) + cost * theta
        return value + (cost * theta**2).sum() / 2, np.concatenate([by_theta.ravel(), slope[-LEAVES:]])

    start = np.zeros(design.shape[1] * DIM + LEAVES)
    least = minimize(objective_of_nodes, start, jac=True, tol=1e-12, method="L-BFGS-B")
    fitted = fit(features, data, linear(data, epochs=1, l2=l2, inner_l2=[inner]))
    z = x @ (design @ least.x[:-LEAVES].reshape(-1, DIM)).T + least.x[-LEAVES:]
    np.testing.assert_allclose(probabilities(fitted.head, features, rows), softmax(z, axis=1), atol=CLOSE)
    assert fitted.epochs[0].loss["total"] == pytest.approx(least.fun, abs=1e-6)
    with pytest.raises(AssertionError):
        assert_alike(fitted.head, fit(features, data, linear(data, epochs=1, l2=l2)).head)


def test_shared_scores_that_cost_too_much_leave_the_linear_head() -> None:
    features, data = made_up()
    alone, costly = (fit(features, data, linear(data, inner_l2=[inner])) for inner in (0, 10**9))
    assert_alike(alone.head, costly.head, 1e-6)
    assert [epoch.inner_l2 for epoch in (*alone.epochs, *costly.epochs)] == [None] * 5 + [10**9] * 5


@pytest.mark.parametrize("metric", ["nll", "top1"])
def test_validation_picks_the_strength_on_inner_nodes_at_each_point(metric: str) -> None:
    features, data = made_up()
    tried = (0, 1, 30)
    fitted = fit(features, data, linear(data, inner_l2=tried, select=metric, l2=3.0, epochs=9))
    picked = [epoch.inner_l2 for epoch in fitted.epochs]
    alone = {
        inner: fit(features, data, linear(data, inner_l2=[inner], select=metric, l2=3.0, epochs=9)) for inner in tried
    }
    for number, epoch in enumerate(fitted.epochs):
        scores = [alone[inner].epochs[number].val[metric] for inner in tried]
        best = min(scores) if metric == "nll" else max(scores)
        assert epoch.val[metric] == pytest.approx(best, abs=1e-4)
        assert alone[epoch.inner_l2].epochs[number].val[metric] == pytest.approx(best, abs=1e-4)
    assert len(set(picked)) > 1
    assert_alike(fitted.head, alone[picked[fitted.best.epoch - 1]].head)
