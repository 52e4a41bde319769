"""Heads on trees whose leaves lie anywhere, and labels that are any nodes, against loops over paths."""

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hfc.train.heads import Head
from hfc.train.heads.layers import Output, Target
from hfc.train.heads.tree import Tree
from tests.support.equations import DIM, build
from tests.support.oracle import Oracle, activated
from tests.support.trees import Node, ancestors_of, nodes_of, path_to, uneven_trees

BETA = 0.3
Answer = tuple[dict[Node, float], dict[Node, float], list[float]]
"""What an oracle says of a row: its nodes' probabilities, its leaves', and its losses."""


def numbers(nodes: Sequence[Node], row: Tensor) -> dict[Node, float]:
    return dict(zip(nodes, row.tolist(), strict=True))


def flat(tree: Oracle, logits: Any, row: int, label: Node, loss: str, **given: float) -> Answer:
    z = numbers(tree.paths, logits.leaf[row])
    final = activated(z, "bce" if loss == "bce" else "softmax")
    shares = {path: p / sum(final.values()) for path, p in final.items()}
    nodes = tree.sums(shares) | {path: final[path] for path in tree.paths if len(path) == len(tree.levels)}
    losses: Mapping[str, Callable[[], float]] = {
        "hxe": lambda: tree.hxe(z, label, given["hxe_alpha"]),
        "soft-labels": lambda: tree.soft_labels(z, label, given["soft_label_beta"]),
    }
    return nodes, final, [losses.get(loss, lambda: tree.leaf_loss(z, label, loss))()]


def shared(tree: Oracle, logits: Any, row: int, label: Node, inner_scale: float, label_share: float) -> Answer:
    scores = numbers(tree.nodes, logits.nodes[row])
    z = {path: scores[path] + inner_scale * sum(scores[path[:h]] for h in range(1, len(path))) for path in tree.paths}
    final = activated(z, "softmax")
    return tree.sums(final), final, [tree.path_loss(z, label, label_share)]


def levels(tree: Oracle, logits: Any, row: int, label: Node, loss: str, beta: float = BETA) -> Answer:
    z = {k: v for h, nodes in enumerate(tree.levels) for k, v in numbers(nodes, logits.levels[h][row]).items()}
    own = tree.of_levels(z, loss)
    nodes, walked = tree.reached(own), tree.products(tree.among_siblings(own))
    total = sum(nodes[path] for path in tree.paths)
    final = {path: beta * walked[path] + (1 - beta) * nodes[path] / total for path in tree.paths}
    return nodes, final, tree.level_losses(z, label, loss)


def conditional(tree: Oracle, logits: Any, row: int, label: Node) -> Answer:
    z = {k: v for h, nodes in enumerate(tree.levels) for k, v in numbers(nodes, logits.levels[h][row]).items()}
    own = tree.among_siblings({node: np.exp(value) for node, value in z.items()})
    nodes = tree.products(own)
    losses = [-np.log(own[label[:h]]) if len(label) >= h else 0.0 for h in range(1, len(tree.levels) + 1)]
    return nodes, {path: nodes[path] for path in tree.paths}, losses


def hmcnf(tree: Oracle, logits: Any, row: int, label: Node, loss: str, blend: str) -> Answer:
    z = {k: v for h, nodes in enumerate(tree.levels) for k, v in numbers(nodes, logits.local[h][row]).items()}
    leaf = numbers(tree.paths, logits.leaf[row])
    nodes, own = tree.reached(tree.of_levels(z, loss)), activated(leaf, loss)
    if blend == "probability":
        final = {path: BETA * nodes[path] + (1 - BETA) * own[path] for path in tree.paths}
    else:
        odds = {path: nodes[path] / (1 - nodes[path] if loss == "bce" else 1) for path in tree.paths}
        final = activated({path: BETA * np.log(odds[path]) + (1 - BETA) * leaf[path] for path in tree.paths}, loss)
    return nodes, final, [*tree.level_losses(z, label, loss), tree.leaf_loss(leaf, label, loss)]


def original(tree: Oracle, logits: Any, row: int, label: Node, violation_weight: float) -> Answer:
    z = {k: v for h, nodes in enumerate(tree.levels) for k, v in numbers(nodes, logits.local[h][row]).items()}
    over_all = numbers(tree.nodes, logits.nodes[row])
    local, own = tree.reached(tree.of_levels(z, "bce")), activated(over_all, "bce")
    nodes = {node: BETA * local[node] + (1 - BETA) * own[node] for node in tree.nodes}
    losses = [*tree.level_losses(z, label, "bce"), tree.nodes_loss(over_all, label)]
    return nodes, {path: nodes[path] for path in tree.paths}, [*losses, violation_weight * tree.violation(nodes)]


VARIANTS: Mapping[str, tuple[str, dict[str, Any], Callable[..., Answer], tuple[str, ...]]] = {
    "flat": ("flat", {"loss": "softmax"}, flat, ("loss",)),
    "flat bce": ("flat", {"loss": "bce"}, flat, ("loss",)),
    "hxe": ("flat+hxe", {"loss": "hxe", "hxe_alpha": 0.4}, flat, ("loss", "hxe_alpha")),
    "hxe 0": ("flat+hxe", {"loss": "hxe", "hxe_alpha": 0.0}, flat, ("loss", "hxe_alpha")),
    "soft labels": (
        "flat+soft-labels",
        {"loss": "soft-labels", "soft_label_beta": 4.0},
        flat,
        ("loss", "soft_label_beta"),
    ),
    "levels": ("levels", {"loss": "softmax"}, levels, ("loss",)),
    "levels bce": ("levels", {"loss": "bce"}, levels, ("loss",)),
    "conditional": ("conditional", {}, conditional, ()),
    "ps-softmax": ("ps-softmax", {"inner_scale": 0.25, "label_share": 0.7}, shared, ("inner_scale", "label_share")),
    "ps-softmax 1": ("ps-softmax", {"inner_scale": 1.0, "label_share": 1.0}, shared, ("inner_scale", "label_share")),
    **{
        f"hmcn-f {loss} {blend}": ("hmcn-f", {"loss": loss, "blend": blend}, hmcnf, ("loss", "blend"))
        for loss in ("softmax", "bce")
        for blend in ("probability", "logit")
    },
    "hmcn-f-original": ("hmcn-f-original", {"violation_weight": 0.2, "beta": BETA}, original, ("violation_weight",)),
}


def made(name: str, paths: list[Node]) -> tuple[Head, Any, Any]:
    """A head on a tree, its logits of three rows, and those that the equations begin with."""
    method, changes, _, _ = VARIANTS[name]
    head: Any = build(method, torch.from_numpy(ancestors_of(paths)), **changes)
    x = torch.randn(3, DIM, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    logits = head(x)
    if method == "conditional":
        reduced = head.reduce(head.standardise(x))
        return head, logits, SimpleNamespace(levels=[output(reduced) for output in head.outputs])
    if method == "ps-softmax":
        return head, logits, SimpleNamespace(nodes=head.nodes(head.reduce(head.standardise(x))))
    return head, logits, logits


def target_of(labels: Sequence[Node], paths: list[Node], *, inner: bool = True) -> Target:
    """The labels as heads take them."""
    nodes = nodes_of(paths)
    path = torch.tensor([path_to(label, nodes) for label in labels])
    leaf = torch.tensor([paths.index(label) if label in paths else -1 for label in labels])
    below = torch.tensor([[path[: len(label)] == label for path in paths] for label in labels])
    return Target(path, leaf, below if inner else None)


@pytest.mark.parametrize("name", VARIANTS)
@settings(max_examples=15)
@given(paths=uneven_trees(), seed=st.integers(0, 2**32 - 1))
def test_a_head_on_any_tree_equals_loops_over_its_paths(name: str, paths: list[Node], seed: int) -> None:
    tree, rng = Oracle(paths), np.random.default_rng(seed)
    _, changes, oracle, taken = VARIANTS[name]
    head, logits, first = made(name, paths)
    prediction = head.predict(logits, BETA)
    assert [level.shape[1] for level in prediction.levels] == [len(level) for level in tree.levels]
    for labels in (paths, tree.nodes):
        labels = [labels[i] for i in rng.integers(len(labels), size=3)]
        losses = head.losses(logits, target_of(labels, paths, inner=not {*labels} <= {*paths}))
        assert tuple(losses) == head.tasks
        for row, label in enumerate(labels):
            nodes, leaves, want = oracle(tree, first, row, label, **{key: changes[key] for key in taken})
            got = np.concatenate([level[row].detach().numpy() for level in prediction.levels])
            np.testing.assert_allclose(got, [nodes[node] for node in tree.nodes], rtol=1e-9)
            final = prediction.final[row].detach().numpy()
            np.testing.assert_allclose(final, [leaves[path] for path in paths], rtol=1e-9)
            found = [loss[row].item() for loss in losses.values()]
            np.testing.assert_allclose(found, want, rtol=1e-5 if name == "soft labels" else 1e-9, atol=1e-12)
            if "bce" not in name and name != "hmcn-f-original":
                assert final.sum() == pytest.approx(1, rel=1e-9)


# A leaf beside the root's other children, a single child twice in a row, leaves on four levels.
SHAPE: list[Node] = [(0,), (1, 0), (1, 1, 0), (1, 1, 1), (2, 0, 0, 0), (2, 0, 0, 1), (3, 0, 0)]
ANY: list[Node] = [(0,), (1,), (1, 1), (2, 0), (2, 0, 0, 1), (3,)]


@pytest.mark.parametrize("name", VARIANTS)
def test_losses_and_gradients_stay_finite_where_outputs_saturate(name: str) -> None:
    method, changes, _, _ = VARIANTS[name]
    head: Any = build(method, torch.from_numpy(ancestors_of(SHAPE)), **changes).float().train()
    for module in head.modules():
        if isinstance(module, Output):
            module.weight.data.mul_(3000)
    logits = head(torch.randn(len(ANY), DIM, generator=torch.Generator().manual_seed(0)))
    losses = torch.stack(list(head.losses(logits, target_of(ANY, SHAPE)).values()))
    assert losses.isfinite().all()
    assert losses.max() > 100
    losses.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in head.parameters())
    for beta in (0.0, BETA, 1.0):
        prediction = head.predict(logits, beta)
        for probabilities in (*prediction.levels, prediction.final):
            assert ((probabilities >= 0) & (probabilities <= 1 + 1e-5)).all()


def pad(node: Node) -> Node:
    """A leaf repeated down to the last level; an inner node as it is."""
    return (*node, *[0] * (max(map(len, SHAPE)) - len(node))) if node in SHAPE else node


def padded(head: Head, name: str) -> Head:
    """The same head on the even tree that repeats each early leaf down to the last level."""
    method, changes, _, _ = VARIANTS[name]
    paths = [pad(path) for path in SHAPE]
    other = build(method, torch.from_numpy(ancestors_of(paths)), **changes)
    state = other.state_dict()
    for key, tensor in head.state_dict().items():
        number = key.removeprefix("outputs.").split(".")[0]
        if number.isdecimal():  # the nodes of a level: those of the padded tree hold more
            places = [nodes_of(paths)[int(number)].index(node) for node in nodes_of(SHAPE)[int(number)]]
            state[key][places] = tensor
        else:
            state[key] = tensor
    other.load_state_dict(state)
    return other


@pytest.mark.parametrize("name", ["flat", "flat bce", "hxe", "hxe 0", "levels", "levels bce", "conditional"])
def test_single_children_that_pad_a_tree_change_nothing(name: str) -> None:
    head, logits, _ = made(name, SHAPE)
    other = padded(head, name)
    x = torch.randn(3, DIM, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    beta = 1.0 if "levels" in name else BETA  # top-down: a level's own output is another with other nodes beside it
    torch.testing.assert_close(other.predict(other(x), beta).final, head.predict(logits, beta).final)
    for labels in ([SHAPE[1], SHAPE[3], SHAPE[0]], [(1,), (2, 0), (2,)]):
        if "levels" not in name:
            target = target_of(labels, SHAPE)
            path = torch.tensor([path_to(pad(label), nodes_of([pad(path) for path in SHAPE])) for label in labels])
            got = torch.stack(list(other.losses(other(x), target._replace(path=path)).values())).sum(dim=0)
            torch.testing.assert_close(got, torch.stack(list(head.losses(logits, target).values())).sum(dim=0))


@pytest.mark.parametrize("name", ["flat", "flat bce", "hxe 0"])
def test_levels_above_the_leaves_change_nothing_of_the_flat_head(name: str) -> None:
    method, changes, _, _ = VARIANTS[name]
    head, logits, _ = made(name, SHAPE)
    alone = build(method, torch.arange(len(SHAPE))[:, None], **changes)
    alone.load_state_dict(head.state_dict())
    x = torch.randn(3, DIM, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    assert torch.equal(alone.predict(alone(x), BETA).final, head.predict(logits, BETA).final)
    leaf = torch.tensor([2, 0, 4])
    target = target_of([SHAPE[i] for i in leaf], SHAPE, inner=False)
    (got,), (want,) = (
        alone.losses(alone(x), Target(leaf[:, None], leaf)).values(),
        head.losses(logits, target).values(),
    )
    torch.testing.assert_close(got, want)


def test_a_tree_of_one_leaf_is_always_right() -> None:
    for name in VARIANTS:
        head, logits, _ = made(name, [(0, 0)])
        if "bce" not in name and name != "hmcn-f-original":
            assert head.predict(logits, BETA).final.tolist() == [[1.0]] * 3
            losses = head.losses(logits, target_of([(0, 0), (0,), (0,)], [(0, 0)]))
            assert torch.stack(list(losses.values())).abs().max() < 1e-12


def test_numbers_of_leaves_and_nodes_by_hand() -> None:
    tree = Tree(torch.from_numpy(ancestors_of(SHAPE)))
    assert (tree.even, tree.sizes, tree.ends) == (False, [4, 4, 4, 2], [True, True, True, True])
    leaves = torch.tensor([[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]])
    assert [tree.sums(leaves, h).tolist() for h in range(4)] == [
        [[1.0, 14.0, 48.0, 64.0]],
        [[2.0, 12.0, 48.0, 64.0]],
        [[4.0, 8.0, 48.0, 64.0]],
        [[16.0, 32.0]],
    ]
    for h, level in enumerate(tree.log_sums(leaves.log())):
        torch.testing.assert_close(level.exp(), tree.sums(leaves, h))
    assert tree.on_last(leaves).tolist() == [[16.0, 32.0]]
    levels = [torch.tensor([[1.0, 0, 0, 0]]), torch.tensor([[2.0, 0, 0, 0]]), torch.tensor([[4.0, 8, 0, 64]])]
    assert tree.of_leaves([*levels, torch.tensor([[16.0, 32.0]])]).tolist() == leaves.tolist()
    labels = torch.tensor([tree.ancestors[3].tolist(), [1, -1, -1, -1]])  # a leaf, and the node above its parent
    values = torch.tensor([[9.0, 1, 2, 3, 4], [9.0, 5, 6, 7, 8]])
    assert tree.shared(labels, values).tolist() == [[9.0, 1, 2, 3, 9, 9, 9], [9.0, 5, 5, 5, 9, 9, 9]]
    # Three of four nodes of level 1 go on, then two of four, then one of four.
    quarters = [torch.full((1, 4), 0.25)] * 3 + [torch.full((1, 2), 0.5)]
    assert tree.reach(quarters)[0] is None
    assert [reach.item() for reach in tree.reach(quarters)[1:] if reach is not None] == [3 / 4, 9 / 16, 9 / 64]
    nothing = tree.reached([torch.zeros_like(level) for level in quarters])  # as sigmoids that underflow
    assert torch.cat(nothing, dim=1).tolist() == [[0.0] * 14]
    even = Tree(torch.tensor([[0, 0], [0, 1], [1, 2]]))
    assert (even.even, even.ends, even.reach([torch.ones(1, 2), torch.ones(1, 3)])) == (
        True,
        [False, True],
        [None, None],
    )
