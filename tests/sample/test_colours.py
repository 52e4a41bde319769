"""Colours lie between black and white, gradients are straight, noise is smooth."""

import numpy as np

from hfc.sample.colours import as_colour, cloud, draw_colours, ramp


def test_colours_are_shares_of_light_and_some_are_vivid() -> None:
    colours = draw_colours(np.random.default_rng(0), 2000)
    assert (colours.shape, colours.dtype) == ((2000, 3, 1, 1), np.float32)
    assert 0.03 <= colours.min() <= colours.max() <= 1
    spread = np.ptp(colours, axis=1).ravel()
    assert np.mean(spread < 0.05) > 0.05
    assert np.mean(spread > 0.3) > 0.1
    for channel in range(3):  # no hue is preferred
        assert abs(float(colours[:, channel].mean()) - float(colours.mean())) < 0.02


def test_a_colour_has_its_three_shares() -> None:
    np.testing.assert_array_equal(as_colour(0.25, 0.5, 1)[:, 0, 0], [0.25, 0.5, 1])


def test_a_ramp_is_straight_and_stays_within_its_ends() -> None:
    for seed in range(20):
        values = ramp(-0.5, 2.0, 50, np.random.default_rng(seed))
        assert (values.shape, values.dtype) == ((50,), np.float32)
        assert -0.5 <= values.min() <= values.max() <= 2.0
        np.testing.assert_allclose(np.diff(values), (values[-1] - values[0]) / 49, atol=1e-6)


def test_a_cloud_is_smoother_with_fewer_cells() -> None:
    coarse, fine = (cloud(120, 80, cells, np.random.default_rng(0)) for cells in ((4, 3), (40, 30)))
    assert coarse.shape == fine.shape == (80, 120)
    assert np.abs(np.diff(coarse, axis=1)).mean() < np.abs(np.diff(fine, axis=1)).mean() / 3
