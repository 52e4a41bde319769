"""Answers below one node, against naive loops over the leaves."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from hfc.config import TrainConfig, resolve
from hfc.errors import HierarchyError
from hfc.hierarchy import Hierarchy, from_paths, parse_hierarchy
from hfc.predict.answers import Answer
from hfc.predict.head import Trained
from hfc.predict.within import below
from hfc.train.decoding import DECODINGS
from hfc.train.heads.layers import Prediction
from tests.support.trees import Heights, named, named_trees, trees

ROWS = 6


class Says(Trained):
    """A run whose head says what it was given."""

    said: Prediction

    def predict(self, features: NDArray[np.floating]) -> Prediction:
        return self.said


def trained(tree: Hierarchy, decode: str, said: Prediction) -> Says:
    config = resolve(TrainConfig, {"method": "flat", "decode": decode})
    run = Says(SimpleNamespace(), tree, config, torch.nn.Identity())  # type: ignore[arg-type]
    object.__setattr__(run, "said", said)
    return run


def uneven(paths: list[tuple[str, ...]]) -> Hierarchy:
    return from_paths("tree", [f"level {h}" for h in range(max(map(len, paths)))], paths)


def answers(run: Says, node: str, confidence: float = 0.0, top: int = 10**6) -> list[Answer]:
    ids = [str(row) for row in range(ROWS)]
    return list(run.answers(np.zeros((ROWS, 1, 1)), ids, top, confidence, below(run.hierarchy, node)))


def random_prediction(tree: Hierarchy, seed: int) -> Prediction:
    generator = torch.Generator().manual_seed(seed)
    levels = tuple(torch.rand(ROWS, size, generator=generator) ** 3 for size in tree.sizes)
    return Prediction(levels, torch.rand(ROWS, len(tree.leaves), generator=generator) ** 3)


def naive_costs(tree: Hierarchy, chances: dict[tuple[str, ...], float]) -> dict[tuple[str, ...], float]:
    """Expected height to climb to from each leaf."""
    heights = Heights(tree)
    return {guess: sum(p * heights.between(guess, true) for true, p in chances.items()) for guess in chances}


def naive_chances(run: Says, row: int, path: tuple[str, ...]) -> dict[tuple[str, ...], float]:
    """The probability of each leaf below a node, by its path."""
    tree, chances = run.hierarchy, {}
    for leaf in range(len(tree.leaves)):
        if tree.path(leaf)[: len(path)] == path:
            chances[tree.path(leaf)] = float(run.said.final[row, leaf])
            if run.config.decode == "consistent":
                for h, node in enumerate(tree.ancestors[leaf, :-1].tolist()):
                    inner = h < len(tree.path(leaf)) - 1  # the leaf stands for itself and for all levels below
                    chances[tree.path(leaf)] *= float(
                        run.said.levels[h][row, node] if inner else run.said.final[row, leaf]
                    )
    total = sum(chances.values())
    return {leaf: chance / total for leaf, chance in chances.items()}


@pytest.mark.parametrize("decode", DECODINGS)
@given(
    tree=trees().map(named) | named_trees().map(uneven),
    seed=st.integers(0, 2**32 - 1),
    confidence=st.sampled_from([0.0, 0.4, 0.8, 1.0]),
    data=st.data(),
)
def test_answers_below_a_node_equal_a_naive_loop(
    decode: str, tree: Hierarchy, seed: int, confidence: float, data: st.DataObject
) -> None:
    run = trained(tree, decode, random_prediction(tree, seed))
    whole = tree.path(data.draw(st.integers(0, len(tree.leaves) - 1)))
    depth = data.draw(st.integers(1, len(whole)))
    path = whole[:depth]
    confidence = 0.0 if decode == "least-cost" else confidence
    given_answers = answers(run, " > ".join(("", *path)), confidence)
    for row, answer in enumerate(given_answers):
        chances = naive_chances(run, row, path)
        assert (answer.within, {one.path for one in answer.top}) == (path, set(chances))
        assert [one.probability for one in answer.top] == pytest.approx(
            [chances[one.path] for one in answer.top], abs=1e-5
        )
        order = [chances[one.path] for one in answer.top]
        if decode == "least-cost":  # first what is expected to cost least
            costs = naive_costs(tree, chances)
            assert costs[answer.top[0].path] == pytest.approx(min(costs.values()), abs=1e-5)
            order = order[1:]
        assert order == pytest.approx(sorted(order, reverse=True), abs=1e-5)
        best = answer.top[0].path
        along = [sum(p for leaf, p in chances.items() if leaf[:h] == best[:h]) for h in range(1, len(best) + 1)]
        assert answer.probabilities == pytest.approx(along[: len(answer.path)], abs=1e-5)
        assert answer.path == best[: len(answer.path)]
        assert len(answer.path) >= depth
        if len(answer.path) > depth:
            assert along[len(answer.path) - 1] >= confidence - 1e-6
        if len(answer.path) < len(best):
            assert along[len(answer.path)] < confidence + 1e-6


def test_a_leaf_is_the_only_answer_below_itself() -> None:
    tree = parse_hierarchy("tree", "tree.csv", ["leaf,group", "a,x", "b,x", "c,y"])
    run = trained(tree, "leaf", random_prediction(tree, 0))
    for answer in answers(run, "b", confidence=1.0):
        assert (answer.path, answer.probabilities) == (("x", "b"), (1.0, 1.0))
        assert [(leaf.path, leaf.probability) for leaf in answer.top] == [(("x", "b"), 1.0)]


@pytest.mark.parametrize("decode", DECODINGS)
@pytest.mark.parametrize(
    ("chances", "shares"),
    [((0.0, 0.0, 1.0), [("a", 0.5), ("b", 0.5)]), ((1e-30, 3e-30, 1.0), [("b", 0.75), ("a", 0.25)])],
)
def test_leaves_below_an_improbable_node_share_all_probability(
    chances: tuple[float, ...], shares: list[tuple[str, float]], decode: str
) -> None:
    tree = parse_hierarchy("tree", "tree.csv", ["leaf,group", "a,x", "b,x", "c,y"])
    final = torch.tensor([chances] * ROWS)
    run = trained(tree, decode, Prediction((torch.tensor([[0.0, 1.0]] * ROWS), final), final))
    for answer in answers(run, "x"):
        assert (answer.path, answer.probabilities) == (("x", shares[0][0]), pytest.approx((1.0, shares[0][1])))
        assert [(leaf.path[-1], leaf.probability) for leaf in answer.top] == [(n, pytest.approx(p)) for n, p in shares]
    for answer in answers(run, "x", confidence=0.9) if decode != "least-cost" else []:
        assert (answer.path, answer.probabilities) == (("x",), (pytest.approx(1.0),))


@pytest.mark.parametrize("decode", DECODINGS)
def test_improbable_leaves_of_one_depth_keep_their_ratio_beside_deeper_ones(decode: str) -> None:
    tree = uneven([("x", "a"), ("x", "b"), ("c",), ("x", "e", "f")])
    final = torch.tensor([[1e-33, 3e-33, 1.0, 0.0]] * ROWS)
    said = Prediction((torch.tensor([[0.0, 1.0]] * ROWS), torch.zeros(ROWS, 3), torch.zeros(ROWS, 1)), final)
    ratio = 9 if decode == "consistent" else 3  # in a product a leaf stands for the level below it too
    for answer in answers(trained(tree, decode, said), "x"):
        assert [leaf.path[1] for leaf in answer.top] == ["b", "a", "e"]
        assert [leaf.probability for leaf in answer.top[:2]] == pytest.approx([ratio / (ratio + 1), 1 / (ratio + 1)])


def test_without_a_node_the_whole_tree_is_answered() -> None:
    tree = parse_hierarchy("tree", "tree.csv", ["leaf,group", "a,x", "b,x", "c,y"])
    run = trained(tree, "leaf", random_prediction(tree, 0))
    whole = list(run.answers(np.zeros((ROWS, 1, 1)), [str(row) for row in range(ROWS)], 9, 0.5))
    assert answers(run, "", 0.5) == whole
    assert {answer.within for answer in whole} == {()}
    assert list(run.answers(np.zeros((0, 1, 1)), [], 9, 0.5, below(tree, "x"))) == []


# Names that stand at several places, that hold the sign of a path, and that repeat down to the leaf.
TREE = [
    "article,sub,master",
    "Tee,Tops,Apparel",
    "Blouse,Tops,Apparel",
    "Other,Tops,Apparel",
    "Tops,Outlet,Sale",
    "men > Shirts,men > Tall,Apparel",
    "Café,Shoes,Shoes",
    "Boot,Shoes,Shoes",
    "Hat,Hat,Hat",
]
NODES = {
    "Sale": ("Sale",),
    "Tee": ("Apparel", "Tops", "Tee"),
    " Tee ": ("Apparel", "Tops", "Tee"),
    "Cafe\u0301": ("Shoes", "Shoes", "Café"),
    "Apparel > Tops": ("Apparel", "Tops"),
    "Apparel>Tops": ("Apparel", "Tops"),
    "> Apparel > Tops": ("Apparel", "Tops"),
    "Tops > Tee": ("Apparel", "Tops", "Tee"),
    "Outlet > Tops": ("Sale", "Outlet", "Tops"),
    "men > Shirts": ("Apparel", "men > Tall", "men > Shirts"),
    "Apparel > men > Tall": ("Apparel", "men > Tall"),
    "Hat": ("Hat", "Hat", "Hat"),
    "Shoes": ("Shoes", "Shoes"),
    "> Hat > Hat": ("Hat", "Hat"),
}


@pytest.mark.parametrize("node", NODES)
def test_a_node_is_found_by_its_name_or_path(node: str) -> None:
    tree = parse_hierarchy("tree", "tree.csv", TREE)
    part = below(tree, node)
    assert part.path == NODES[node]
    leaves = [leaf for leaf in range(len(tree.leaves)) if tree.path(leaf)[: len(part.path)] == part.path]
    assert part.leaves.tolist() == leaves


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ("Tee shirt", "has no node 'Tee shirt'; it has Apparel, Sale, Shoes, Hat, Tops and 8 more"),
        ("Topps", "has no node 'Topps'; did you mean Tops?"),
        ("> Tops", "has no node '> Tops'; did you mean Tops?"),
        ("Sale > Tees", "has no node 'Sale > Tees'; did you mean Tee?"),
        (" ", "has no node ' '; it has Apparel, Sale, Shoes, Hat, Tops and 8 more"),
        ("Tops", "has 'Tops' at several places; name one of them: > Apparel > Tops, > Sale > Outlet > Tops"),
    ],
)
def test_an_unknown_or_ambiguous_node_is_refused(node: str, message: str) -> None:
    with pytest.raises(HierarchyError) as caught:
        below(parse_hierarchy("tree", "tree.csv", TREE), node)
    assert str(caught.value) == f"within: hierarchy tree {message}"
