"""Cloth: its pattern repeats, denim has its own colour, and light lies on the garment."""

import numpy as np
import pytest
from PIL import Image

from hfc.sample.colours import as_colour
from hfc.sample.fabrics import FABRICS, folds, weave

BLACK_AND_WHITE = np.stack([as_colour(0, 0, 0), as_colour(1, 1, 1)])


def cloth(fabric: str, seed: int = 0) -> np.ndarray:  # type: ignore[type-arg]
    return weave(fabric, 120, 90, 60.0, BLACK_AND_WHITE, np.random.default_rng(seed))


@pytest.mark.parametrize("fabric", ["Striped", "Checked", "Dotted", "Printed"])
def test_a_pattern_has_both_colours(fabric: str) -> None:
    woven = cloth(fabric)
    assert woven.shape == (3, 90, 120)
    assert woven.min() < 0.1
    assert woven.max() > 0.9


def test_plain_cloth_has_its_first_colour_alone() -> None:
    assert np.ptp(weave("Plain", 120, 90, 60.0, BLACK_AND_WHITE[::-1], np.random.default_rng(0))) == 0


def test_denim_is_blue_whatever_the_colours() -> None:
    for seed in range(10):
        red, green, blue = cloth("Denim", seed).mean(axis=(1, 2))
        assert red < green < blue


def test_stripes_repeat() -> None:
    row = cloth("Striped", 3)[0]
    line = row[45] if np.ptp(row[45]) > np.ptp(row[:, 60]) else row[:, 60]
    spectrum = np.abs(np.fft.rfft(line - line.mean()))
    assert spectrum.max() > 4 * np.median(spectrum)


def test_every_fabric_is_drawn() -> None:
    assert len(set(FABRICS)) == len(FABRICS) == 6
    assert len({cloth(fabric).tobytes() for fabric in (*FABRICS, "Denim")}) == 7


def test_light_is_brighter_inside_a_garment_than_at_its_edge() -> None:
    cover = Image.new("L", (80, 80))
    cover.paste(255, (20, 20, 60, 60))
    light = np.mean([folds(cover, np.random.default_rng(seed)) for seed in range(20)], axis=0)
    assert light.shape == (80, 80)
    assert light[35:45, 35:45].mean() > light[20:60, 20:60].mean() > light[:10, :10].mean()
