"""Outlines: circles are round, bands as wide as they should be, and sides are each other's mirror."""

import numpy as np
import pytest

from hfc.sample.cut import ANKLE, ARM, Cut, ellipse, leg_outline, line, tube
from hfc.sample.shapes import SHAPES


def cut(category: str, seed: int = 0) -> Cut:
    return Cut(SHAPES[category], np.random.default_rng(seed))


def area(outline: np.ndarray) -> float:  # type: ignore[type-arg]
    x, y = outline.T
    return abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2


def test_an_ellipse_lies_about_its_point() -> None:
    outline = ellipse(2, 3, 0.5, 0.25)
    np.testing.assert_allclose(((outline - (2, 3)) / (0.5, 0.25)) ** 2 @ (1, 1), 1)
    assert area(outline) == pytest.approx(np.pi * 0.5 * 0.25, rel=0.02)


def test_a_band_is_as_wide_as_asked() -> None:
    outline = tube(np.array([(0.0, 0.0), (1.0, 0.0), (2.0, 0.0)]), 0.1)
    assert area(outline) == pytest.approx(2 * 0.2)
    assert sorted({round(float(y), 9) for y in outline[:, 1]}) == [-0.1, 0.1]


def test_a_line_is_drawn_and_not_filled() -> None:
    assert line((0, 0), (1, 1)).width > 0
    assert line((0, 0), (1, 1), width=0.5).width == 0.5


@pytest.mark.parametrize("category", sorted(SHAPES))
def test_measures_lie_in_the_ranges_of_the_shape(category: str) -> None:
    shape = SHAPES[category]
    for seed in range(10):
        garment = cut(category, seed)
        assert shape.hem[0] <= garment.hem <= shape.hem[1]
        assert shape.fit[0] <= garment.fit <= shape.fit[1]
        assert (garment.start == 0) == shape.top
        assert garment.hemline()[[0, -1], 1].tolist() == [garment.end] * 2


def test_sides_and_legs_are_left_and_right() -> None:
    jeans = cut("Jeans")
    assert jeans.side(-1, 1.0, 1.6)[:, 0].max() < 0 < jeans.side(1, 1.0, 1.6)[:, 0].min()
    left, right = (leg_outline(jeans, side, ANKLE, 0.1) for side in (0, 1))
    assert left[:, 0].mean() < 0 < right[:, 0].mean()
    assert left[:, 1].max() == pytest.approx(ANKLE)


def test_an_arm_has_its_length() -> None:
    points = cut("Coat").arm(0)(np.array([0.0, 0.5, 1.0]))
    assert np.linalg.norm(np.diff(points, axis=0), axis=1).sum() == pytest.approx(ARM)
