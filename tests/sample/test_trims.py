"""Every one of the trims can be drawn on every garment that may have it, and stays near it."""

import numpy as np
import pytest

from hfc.sample.cut import Cut
from hfc.sample.shapes import NECKS, SHAPES
from hfc.sample.trims import TRIMS

WEARERS = [
    (trim, category)
    for trim in sorted(TRIMS)
    for category, shape in SHAPES.items()
    if any(NECKS[neck].trim == trim for neck in shape.necks)
]


@pytest.mark.parametrize(("trim", "category"), WEARERS)
def test_a_trim_lies_about_the_neckline(trim: str, category: str) -> None:
    for seed in range(3):
        cut = Cut(SHAPES[category], np.random.default_rng(seed))
        points = np.concatenate([stroke.points for stroke in TRIMS[trim](cut)])
        assert np.isfinite(points).all()
        assert np.abs(points[:, 0]).max() < 1.0
        assert -1.2 < points[:, 1].min() < cut.depth + 0.2
