"""Every category can be cut, whatever is drawn, and differs where the category differs."""

import numpy as np
import pytest

from hfc.sample.cut import ANKLE
from hfc.sample.garments import cut_garment
from hfc.sample.shapes import SHAPES


@pytest.mark.parametrize("category", sorted(SHAPES))
def test_a_category_is_cut_from_its_own_measures(category: str) -> None:
    shape = SHAPES[category]
    for seed in range(5):
        garment = cut_garment(category, np.random.default_rng(seed))
        points = np.concatenate([stroke.points for stroke in garment.strokes])
        assert np.isfinite(points).all()
        assert (points[:, 1].min() < 0.5) == shape.top
        low, high = shape.hem
        assert low - 0.2 < points[:, 1].max() < max(high, ANKLE) + 0.5
        assert bool(garment.inside) == shape.top
        assert all(0 < stroke.light < 1.5 for stroke in garment.strokes)
        assert len(garment.wearer) > 5


def test_the_same_draw_gives_the_same_garment() -> None:
    first, second, other = (cut_garment("Coat", np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert [stroke.points.tolist() for stroke in first.strokes] == [stroke.points.tolist() for stroke in second.strokes]
    assert [stroke.points.tolist() for stroke in first.strokes] != [stroke.points.tolist() for stroke in other.strokes]
