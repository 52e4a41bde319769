"""Labels that name a node."""

import pytest
from hypothesis import given

from hfc.errors import HierarchyError
from hfc.hierarchy import from_paths, load_hierarchy, parse_hierarchy
from tests.support.trees import named_trees

CAFE, CAFE_NFD = "Caf\u00e9", "Cafe\u0301"


@pytest.mark.parametrize(
    ("leaf", "label"), [(CAFE, CAFE_NFD), (CAFE_NFD, CAFE), ("Pants", "\u00a0Pants "), (CAFE, CAFE)]
)
def test_a_label_may_be_written_in_another_form_than_its_leaf(leaf: str, label: str) -> None:
    tree = parse_hierarchy("mine", "mine.csv", ["leaf,group", "Coat,g", f" {leaf}  ,g"])
    assert tree.leaves == ("Coat", leaf)
    assert tree.index([label, "Coat", leaf], "c.h5").tolist() == [1, 0, 1]


def test_a_label_is_any_node_by_its_name_or_its_path() -> None:
    paths = [("Hat",), ("Cloth", "Tops", "Tee"), ("Cloth", "Other"), ("Shoes", "Other"), ("Cloth", "Tops", "Polo")]
    tree = from_paths("mine", ["one", "two", "three"], paths)
    meant = {
        "Hat": [0, -1, -1],
        "Tops": [1, 0, -1],
        " Tee": [1, 0, 0],
        "Cloth > Other": [1, 1, -1],
        "Shoes>Other": [2, 2, -1],
        "Tops > Tee": [1, 0, 0],
        "> Cloth": [1, -1, -1],
    }
    assert tree.find(list(meant), "c.h5").tolist() == list(meant.values())
    with pytest.raises(HierarchyError) as caught:
        tree.find(["Hat", "Other"], "c.h5")
    places = "> Cloth > Other, > Shoes > Other"
    assert str(caught.value) == f"c.h5: hierarchy mine has 'Other' at several places; name one of them: {places}"
    with pytest.raises(
        HierarchyError, match=r"^hierarchy mine does not fit c.h5: it has no leaf for Tops, an inner node$"
    ):
        tree.index(["Hat", "Tops"], "c.h5")


def test_a_name_may_hold_the_sign_of_a_path() -> None:
    paths = [("size", ">30"), ("size", "10 > 20"), ("10", "20"), ("10", "x")]
    tree = from_paths("mine", ["one", "two"], paths)
    labels = [">30", "size > >30", "> size > >30", " 10 > 20", "size > 10 > 20", "> 10 > 20", "10 > x"]
    assert tree.index(labels, "c.h5").tolist() == [0, 0, 0, 1, 1, 2, 3]
    tree = from_paths("mine", ["one", "two"], [("a", "b"), ("c", "b"), ("d", "a > b")])
    assert tree.leaves == ("> a > b", "c > b", "a > b")
    assert tree.index(tree.leaves, "c.h5").tolist() == [0, 1, 2]


def test_unknown_labels_are_named() -> None:
    tree = load_hierarchy("deepfashion-5")
    with pytest.raises(
        HierarchyError, match=r"deepfashion-5 does not fit c.h5: it has no node for Hat, Tie; its leaves"
    ):
        tree.index(["Tee", "Tie", "Hat"], "c.h5")
    with pytest.raises(HierarchyError, match=r"it has no node for Legings; is Legings meant to be Leggings\?$"):
        tree.index(["Tee", "Legings"], "c.h5")
    with pytest.raises(
        HierarchyError, match=r"no node for lower > Legings; is lower > Legings meant to be Leggings\?$"
    ):
        tree.find(["lower > Legings"], "c.h5")


@given(paths=named_trees())
def test_a_node_is_found_by_every_text_that_means_it_alone(paths: list[tuple[str, ...]]) -> None:
    """The oracle compares each text with the paths of all nodes."""
    tree = from_paths("mine", [f"level {h}" for h in range(max(map(len, paths)))], paths)
    nodes = {path[:h] for path in paths for h in range(1, len(path) + 1)}
    assert tree.find(tree.leaves, "c.h5").tolist() == tree.ancestors.tolist()
    for node in nodes:
        assert tree.names(tree.lookup.only(f"> {' > '.join(node)}", "c.h5")) == node
        for words in (node[h:] for h in range(len(node))):
            ends = [other for other in nodes if other[-len(words) :] == words]
            leaves = [other for other in ends if other in paths]
            whole = [other for other in ends if other == words]
            for leaf_first in (True, False):
                best = (leaves if leaf_first else []) or ends if len(words) == 1 else whole or ends
                below = [{leaf for leaf in paths if leaf[: len(other)] == other} for other in best]
                if all(leaves == below[0] for leaves in below):
                    best = [max(best, key=len)]
                found = tree.lookup.find(">".join(words), leaf_first=leaf_first)
                assert sorted(map(tree.names, found)) == sorted(best)


def test_a_leaf_on_the_first_level_is_told_from_others_of_its_name() -> None:
    tree = from_paths("mine", ["one", "two"], [("Hat",), ("men", "Hat"), ("Shoes", "Shoes")])
    assert tree.leaves == ("> Hat", "men > Hat", "Shoes")
    with pytest.raises(HierarchyError, match=r"has 'Hat' at several places; name one of them: > Hat, > men > Hat$"):
        tree.index(["Hat"], "c.h5")
    # What nothing parts is one node, so that a leaf's name may be repeated above it.
    assert tree.find(["Shoes", "> Shoes"], "c.h5").tolist() == [[2, 1], [2, -1]]
    assert tree.names(tree.lookup.only("Shoes", "within", leaf_first=False)) == ("Shoes", "Shoes")
