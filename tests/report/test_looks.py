"""Many rows in one picture: colour by method, a panel for each tree, names beside the lines."""

import re
import xml.etree.ElementTree as ElementTree
from importlib import resources
from itertools import pairwise
from pathlib import Path

import pytest

from hfc import runs
from hfc.report import svg, write_report
from hfc.report.looks import COLOURED, CROWDED, looks
from hfc.report.plots import Looks
from hfc.report.rows import Row, read_leaderboards
from tests.support.made_runs import TREE, tree_of, write_run
from tests.support.reports import SVG

METHODS = ("flat", "levels", "linear", "hmcn-f", "flat+ps", "ps-softmax")
CURVES = ("validation", "rejection", "reliability", "stopping", "beta")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of six methods, two of them under a second tree and one on a second cache, and their report."""
    folder = tmp_path_factory.mktemp("many")
    trees = [tree_of(folder / "one.csv"), tree_of(folder / "two.csv", TREE.replace("Hat,hats", "Hat,tops"))]
    for i, method in enumerate(METHODS):
        for tree in trees[: 2 if i < 2 else 1]:
            write_run(folder / "runs" / f"{method}-{tree.name}", tree, method=method, skill=3.0 - i / 3)
    small = {"cache__features_sha256": "1" * 64, "cache__image_size": 96}
    write_run(folder / "runs" / "small", trees[0], method=METHODS[0], skill=0.1, **small)
    write_report([folder / "runs"], folder / "out")
    return folder


def rows_of(folder: Path) -> list[Row]:
    (board,) = read_leaderboards(runs.find([folder / "runs"]))
    return [outcome.row for outcome in board.outcomes]


def drawing(folder: Path, name: str) -> ElementTree.Element:
    return ElementTree.parse(folder / "out" / "figures" / f"{name}.svg").getroot()


def texts(root: ElementTree.Element) -> list[str]:
    return [text.text or "" for text in root.iter(f"{SVG}text")]


def chosen(folder: Path) -> Looks:
    own = looks(rows_of(folder))
    assert own
    return own


def test_few_rows_have_a_colour_each(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    for i in range(CROWDED + 1):
        write_run(tmp_path / "runs" / str(i), tree, method=f"m{i}")
    rows = rows_of(tmp_path)
    assert looks(rows[:CROWDED]) is None
    assert looks(rows)


def test_a_method_has_one_colour_a_tree_one_panel_and_a_second_cache_other_dashes(many: Path) -> None:
    rows, own = rows_of(many), chosen(many)
    assert sorted(own.panels) == ["one", "two"]
    best = list(dict.fromkeys(row.first.method for row in rows))[:COLOURED]
    assert [name for _, name in own.methods] == best
    assert own.grey
    for row, look in zip(rows, own.rows, strict=True):
        method, tree = row.first.method, row.first.hierarchy.name
        assert own.panels[look.panel] == tree
        if method not in best:
            assert look.series == svg.GREY
            continue
        assert look.series % svg.COLOURS == best.index(method)
        assert (look.series >= svg.COLOURS) == (row.first.cache.image_size == 96)
        twice = method == METHODS[0] and tree == "one"
        assert look.name == (f"{method} {row.first.cache.image_size} px" if twice else method)


@pytest.mark.parametrize("name", CURVES)
def test_names_stand_beside_the_lines_once_in_each_panel_and_there_is_no_legend(name: str, many: Path) -> None:
    own, words = chosen(many), texts(drawing(many, name))
    for panel in range(2):
        beside = [look.name for look in own.rows if look.panel == panel and look.series != svg.GREY]
        assert all(name in words for name in beside)
    beside = [look.name for look in own.rows if look.series != svg.GREY]
    assert {name: words.count(name) for name in beside} == {name: beside.count(name) for name in beside}
    assert not any("(one)" in word or "(two)" in word for word in words)
    assert [words.count(tree) for tree in ("one", "two")] == [1, 1]


def test_names_beside_lines_cover_no_other(many: Path) -> None:
    for name in CURVES:
        root, own = drawing(many, name), chosen(many)
        known = {look.name for look in own.rows}
        heights = sorted(float(text.get("y", 0)) for text in root.iter(f"{SVG}text") if text.text in known)
        assert min(b - a for a, b in pairwise(heights)) > 9


def test_a_picture_of_bars_has_one_legend_of_methods(many: Path) -> None:
    words = texts(drawing(many, "severity"))
    for _, method in chosen(many).methods:
        assert words.count(method) == 1
    assert words.count("the other methods") == 1
    words = texts(drawing(many, "categories"))
    assert words.count("the other rows") == 1


def frames(root: ElementTree.Element) -> list[tuple[float, float, float, float]]:
    """Left, top, right and bottom of each panel, by the path of its axes."""
    found = (
        re.fullmatch(r"M([\d.]+) ([\d.]+)V([\d.]+)H([\d.]+)", path.get("d", "")) for path in root.iter(f"{SVG}path")
    )
    return [(float(m[1]), float(m[2]), float(m[4]), float(m[3])) for m in found if m]


@pytest.mark.parametrize("name", ["validation", "stopping", "beta", "rejection"])
def test_every_point_is_drawn_inside_its_axes(name: str, many: Path, place: Path) -> None:
    few = ElementTree.parse(place / "report" / "figures" / f"{name}.svg").getroot()
    for root, panels in ((drawing(many, name), 2), (few, 1)):
        boxes = frames(root)
        assert len(boxes) == panels
        circles = list(root.iter(f"{SVG}circle"))
        assert circles
        for circle in circles:
            x, y, r = (float(circle.get(key, 0)) for key in ("cx", "cy", "r"))
            assert any(a <= x - r and x + r <= c and b <= y - r and y + r <= d for a, b, c, d in boxes), (x, y, r)


def test_orange_marks_a_warning_and_nothing_else() -> None:
    style = (resources.files("hfc.report") / "templates" / "figure.css").read_text("utf-8").lower()
    assert not re.search("#d55e00|#e69f00", style)
    colours = re.findall(r"svg \.(s\d) \{ --c: ", style)
    assert sorted(set(colours)) == [f"s{i}" for i in range(svg.COLOURS)]
