"""Labels that name a node."""

import pytest

from hfc.errors import HierarchyError
from hfc.hierarchy import from_paths, load_hierarchy, parse_hierarchy

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
    places = "Cloth > Other, Shoes > Other"
    assert str(caught.value) == f"c.h5: hierarchy mine has 'Other' at several places; give one: {places}"
    with pytest.raises(
        HierarchyError, match=r"^hierarchy mine does not fit c.h5: it has no leaf for Tops, an inner node$"
    ):
        tree.index(["Hat", "Tops"], "c.h5")


def test_unknown_labels_are_named() -> None:
    tree = load_hierarchy("deepfashion-5")
    with pytest.raises(
        HierarchyError, match=r"deepfashion-5 does not fit c.h5: it has no node for Hat, Tie; its leaves"
    ):
        tree.index(["Tee", "Tie", "Hat"], "c.h5")
    with pytest.raises(HierarchyError, match=r"it has no node for Legings; is Legings meant to be Leggings\?$"):
        tree.index(["Tee", "Legings"], "c.h5")
