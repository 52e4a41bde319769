"""Drawings: what is drawn stays inside, and ticks are round."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from hfc.report import svg
from tests.support.reports import SVG


def test_names_above_a_matrix_end_inside_the_drawing() -> None:
    names = [*"abcdefgh", "the-longest-name", "j"]
    drawing = ElementTree.fromstring(str(svg.heat(names, names, [[1.0] * 10] * 10, [[""] * 10] * 10, "alt")))
    for text in drawing.findall(f"{SVG}text"):
        if text.get("transform"):
            width = len(text.text or "") * svg.CHARACTER
            across = float(text.get("x") or 0) + width * np.cos(np.radians(svg.HEAT_ANGLE))
            assert across <= svg.WIDTH + 1e-9


def test_a_text_is_shortened_at_its_end_or_at_its_front() -> None:
    width = 7 * svg.CHARACTER
    assert [svg.shorten("tops > Other", width, at_front=front) for front in (False, True)] == ["tops >…", "… Other"]
    assert [svg.shorten("seven 7", width, at_front=front) for front in (False, True)] == ["seven 7"] * 2


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        (svg.Scale(0, 1, 0, 100), [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (svg.Scale(-3, 7.1, 100, 0), [-2.5, 0, 2.5, 5]),
        (svg.Scale(0.78, 0.83, 0, 1), [0.78, 0.79, 0.8, 0.81, 0.82, 0.83]),
        (svg.Scale(0.02, 4, 0, 1, log=True), [0.1, 1]),
        (svg.Scale(0.15, 2.1, 0, 1, log=True), [0.2, 0.5, 1, 2]),
    ],
)
def test_ticks_are_round_and_inside(scale: svg.Scale, expected: list[float]) -> None:
    assert scale.ticks == pytest.approx(expected)
    positions = [scale(tick) for tick in scale.ticks]
    assert positions == sorted(positions, reverse=scale.end < scale.start)
    assert (scale(scale.low), scale(scale.high)) == (scale.start, scale.end)
