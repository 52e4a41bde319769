"""A wall of its colour, now and then with something before it."""

import numpy as np

from hfc.sample.background import draw_background
from hfc.sample.colours import as_colour


def test_the_wall_has_its_colour_and_is_never_quite_even() -> None:
    wall = as_colour(0.2, 0.5, 0.8)
    scenes = [draw_background(90, 60, wall, np.random.default_rng(seed)) for seed in range(60)]
    assert {scene.shape for scene in scenes} == {(3, 60, 90)}
    assert all(np.ptp(scene) > 0 for scene in scenes)
    middle = np.median([np.median(scene, axis=(1, 2)) for scene in scenes], axis=0)
    np.testing.assert_allclose(middle, wall.ravel(), atol=0.08)
    empty = [np.ptp(np.median(scene, axis=2), axis=1).max() < 0.35 for scene in scenes]
    assert 0 < sum(empty) < len(scenes)
