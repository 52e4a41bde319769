"""Thousands of categories, folded: every one stands once, below the nodes of its path, with its own numbers."""

from collections.abc import Iterator

import numpy as np
import pytest

from hfc.report import page
from hfc.report.cells import Branch, Table
from hfc.report.document import Document, Section
from hfc.report.folded import FEW, MOST_ROWS, MOST_TOGETHER, fold
from hfc.report.rows import Category

HEADER = ("leaf", "test images", "a", "b")


def drawn(seed: int, count: int, most: int) -> list[Category]:
    """Categories of any depth to a most, in the order of their paths; no path begins another one."""
    rng = np.random.default_rng(seed)
    paths: set[tuple[str, ...]] = set()
    for i in range(count):
        inner = [f"n{int(node)}" for node in rng.geometric(0.4, size=rng.integers(most))]
        paths.add((*inner, f"leaf {i:05d}"))
    numbers = [(int(n), [float(rng.random()) if n else None for _ in "ab"]) for n in rng.integers(4, size=count)]
    return [Category(p[-1], p, *more) for p, more in zip(sorted(paths), numbers, strict=True)]


def lines(branch: Branch, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, str]]]:
    """Every row with the nodes that lead to it; runs of names are no nodes."""
    path = above if " … " in branch.title else (*above, *filter(None, branch.title.split(" > ")))
    for row in branch.rows:
        yield path, dict(zip(branch.header, [cell.text for cell in row], strict=True))
    for below in branch.branches:
        yield from lines(below, path)


def branches(branch: Branch) -> Iterator[Branch]:
    yield branch
    for below in branch.branches:
        yield from branches(below)


@pytest.mark.parametrize(("count", "most"), [(7, 1), (90, 3), (700, 1), (1500, 2), (3000, 7)])
def test_every_category_stands_once_below_the_nodes_of_its_path(count: int, most: int) -> None:
    categories = drawn(count, count, most)
    folded = fold(categories, HEADER, "a note")
    written = {}
    for path, line in lines(folded):
        between = line.get("path", "")
        written[(*path, *(between.split(" > ") if between else ()), line["leaf"])] = line
    assert len(list(lines(folded))) == len(written) == count
    for category in categories:
        line = written[category.path]
        assert line["test images"] == str(category.images)
        shares = ["–" if share is None else f"{100 * share:.1f}" for share in category.accuracy]
        assert [line["a"], line["b"]] == shares
    assert folded.note == "a note"
    for branch in branches(folded):
        assert len(branch.rows) <= MOST_TOGETHER
        assert not branch.branches or branch.rows or len(branch.branches) > 1 or not branch.title


def test_ten_thousand_categories_of_two_methods_are_a_page_of_three_megabytes() -> None:
    folded = fold(drawn(1, 10_000, 7), HEADER, "")
    table = Table("name", "title", HEADER, (), folded=folded)
    text = page.html(Document("title", (), (), (Section("anchor", "title", (table,)),)))
    assert text.count('<th scope="row">') == 10_000
    assert len(text.encode()) < 3e6


def test_a_small_tree_is_one_table_and_small_nodes_stay_in_it() -> None:
    assert fold(drawn(0, MOST_ROWS, 4), HEADER, "").branches == ()
    paths = [("many", f"m{i}") for i in range(MOST_ROWS)] + [("few", f"f{i}") for i in range(FEW)] + [("alone",)]
    folded = fold([Category(path[-1], path, 1, [1.0, 0.0]) for path in paths], HEADER, "")
    (many,) = folded.branches
    assert (many.title, many.header, len(many.rows)) == ("many", HEADER, MOST_ROWS)  # nothing lies between
    assert folded.header == ("leaf", "path", *HEADER[1:])
    few = [(f"f{i}", "few") for i in range(FEW)]
    assert [(row[0].text, row[1].text) for row in folded.rows] == [*few, ("alone", "")]


def test_beside_a_node_stand_its_images_and_the_share_of_them_that_is_right() -> None:
    paths = [(name, f"{name}{i}") for name in "xyz" for i in range(50)]
    numbers = {"x": (3, [0.5, 1.0]), "y": (1, [1.0, 0.0]), "z": (0, [None, None])}
    rare = Category("x0", ("x", "x0"), 53, [0.0, 1.0])
    categories = [rare if path[-1] == "x0" else Category(path[-1], path, *numbers[path[0]]) for path in paths]
    notes = {branch.title: branch.note for branch in fold(categories, HEADER, "").branches}
    assert notes == {
        "x": "50 categories, 200 images: 36.8 · 100.0%",  # 49 · 3 · 0.5 of 200
        "y": "50 categories, 50 images: 100.0 · 0.0%",
        "z": "50 categories, 0 images",
    }
