"""The table of shapes: its names exist, and its ranges are ranges."""

from dataclasses import fields

import pytest

from hfc.sample.details import DETAILS
from hfc.sample.shapes import NECKS, SHAPES
from hfc.sample.trims import TRIMS
from tests.support.deepfashion_tree import categories


def test_shapes_are_deepfashions_categories() -> None:
    assert set(SHAPES) <= {name.strip() for name, _ in categories()}
    assert len(SHAPES) > 25  # some thirty of fifty


@pytest.mark.parametrize("category", sorted(SHAPES))
def test_every_part_of_a_shape_exists(category: str) -> None:
    shape = SHAPES[category]
    assert set(shape.necks) <= set(NECKS)
    assert set(shape.fronts) | set(shape.details) <= set(DETAILS) | {""}
    assert 0 <= shape.denim <= 1
    pairs = [value for f in fields(shape) if isinstance(value := getattr(shape, f.name), tuple) and len(value) == 2]
    ranges = [value for value in pairs if isinstance(value[0], float | int)]
    assert ranges
    assert all(low <= high for low, high in ranges)


def test_every_trim_of_a_neckline_exists() -> None:
    assert {neck.trim for neck in NECKS.values()} - {""} <= set(TRIMS)
