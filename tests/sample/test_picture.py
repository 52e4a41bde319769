"""Pictures: they stay what they were, and shape carries the category."""

import numpy as np
import pytest

from hfc.sample import draw_picture
from hfc.sample.shapes import SHAPES

# Box, mean and deviation of the red, green and blue pixels of pictures drawn from seed 7.
DRAWN = {
    ("Blazer", "Striped"): ((78, 21, 283, 184), [195.61, 183.0, 161.15], [36.69, 38.69, 50.11]),
    ("Hoodie", "Knit"): ((14, 12, 228, 263), [121.28, 107.71, 85.31], [76.02, 63.8, 39.65]),
    ("Poncho", "Checked"): ((15, 34, 243, 278), [112.87, 105.64, 102.56], [55.71, 47.77, 61.19]),
    ("Jeans", "Denim"): ((39, 23, 149, 256), [105.39, 80.87, 126.41], [43.97, 28.55, 37.94]),
    ("Skirt", "Printed"): ((34, 2, 243, 233), [145.05, 119.1, 101.39], [75.68, 69.5, 46.1]),
    ("Kimono", "Dotted"): ((24, 2, 260, 226), [156.08, 135.49, 115.46], [79.77, 77.83, 45.08]),
    ("Romper", "Plain"): ((11, 13, 201, 283), [149.45, 160.77, 159.57], [33.42, 40.84, 44.26]),
}


@pytest.mark.parametrize(("category", "fabric"), DRAWN)
def test_the_pictures_stay_what_they_were(category: str, fabric: str) -> None:
    # Pixels before JPEG, which libraries write differently; within what another processor's sine may round.
    picture = draw_picture(category, fabric, np.random.default_rng(7))
    pixels = np.asarray(picture.image, dtype=np.float64)
    box, mean, deviation = DRAWN[category, fabric]
    assert picture.box == box
    np.testing.assert_allclose(pixels.mean(axis=(0, 1)), mean, atol=0.05)
    np.testing.assert_allclose(pixels.std(axis=(0, 1)), deviation, atol=0.05)


def test_the_shape_carries_the_category() -> None:
    def mask(category: str, seed: int) -> np.ndarray:  # type: ignore[type-arg]
        picture = draw_picture(category, "Plain", np.random.default_rng(seed))
        cover = picture.cover.crop(picture.box).resize((16, 16))
        return np.asarray(cover, dtype=np.float64).ravel()

    names = ["Jeans", "Shorts", "Skirt", "Coat", "Tank"]
    assert set(names) <= set(SHAPES)
    centres = [np.mean([mask(name, seed) for seed in range(12)], axis=0) for name in names]
    right = [
        int(np.argmin([np.abs(mask(name, seed) - centre).sum() for centre in centres])) == i
        for i, name in enumerate(names)
        for seed in range(100, 108)
    ]
    assert np.mean(right) > 0.6  # chance is 0.2


def test_the_box_is_tight() -> None:
    picture = draw_picture("Dress", "Plain", np.random.default_rng(1))
    x1, y1, x2, y2 = picture.box
    inside = np.asarray(picture.cover)[y1:y2, x1:x2] > 127
    assert np.count_nonzero(np.asarray(picture.cover) > 127) == inside.sum()
    assert inside.any(axis=0)[[1, -2]].all()
    assert inside.any(axis=1)[[1, -2]].all()


def test_two_legs_leave_a_gap_and_a_skirt_none() -> None:
    def parted(category: str) -> float:
        """The share of pictures with background between two parts of the garment, near its hem."""
        gaps = []
        for seed in range(20):
            picture = draw_picture(category, "Plain", np.random.default_rng(seed))
            inside = np.asarray(picture.cover.crop(picture.box)) > 127
            rows = inside[int(0.85 * len(inside)) : int(0.95 * len(inside))]
            gaps.append(any(np.count_nonzero(np.diff(row.astype(int)) == 1) + row[0] > 1 for row in rows))
        return float(np.mean(gaps))

    assert parted("Skirt") < 0.2
    assert parted("Culottes") > 0.7
    assert parted("Shorts") > 0.7
