"""Every one of the details can be drawn on every garment that may have it, and stays near it."""

import numpy as np
import pytest

from hfc.sample.cut import Cut
from hfc.sample.details import DETAILS
from hfc.sample.shapes import SHAPES

WEARERS = [
    (name, category)
    for name in sorted(DETAILS)
    for category, shape in SHAPES.items()
    if name in (*shape.fronts, *shape.details)
]


def test_every_detail_is_worn() -> None:
    assert {name for name, _ in WEARERS} == set(DETAILS)


@pytest.mark.parametrize(("name", "category"), WEARERS)
def test_a_detail_lies_on_its_garment(name: str, category: str) -> None:
    for seed in range(3):
        cut = Cut(SHAPES[category], np.random.default_rng(seed))
        points = np.concatenate([stroke.points for stroke in DETAILS[name](cut)])
        assert np.isfinite(points).all()
        assert -0.8 < points[:, 1].min() <= points[:, 1].max() < 4.2
        assert np.abs(points[:, 0]).max() < 2.5
