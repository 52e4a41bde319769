"""The drawn data set: layout, determinism, and that shape carries the category."""

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hfc.datasets import read_regions
from hfc.errors import DatasetError
from hfc.progress import watched_by
from hfc.sample import draw_picture, draw_sample
from hfc.sample.shapes import SHAPES
from tests.support.deepfashion_tree import categories
from tests.support.watching import Shown, Watcher

IMAGES = 80
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


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "drawn"
    draw_sample(folder, images=IMAGES, seed=5)
    return folder


def files(root: Path) -> dict[str, str]:
    found = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def test_the_layout_is_deepfashions(root: Path) -> None:
    tables = {}
    for name in ("Anno/list_category_img.txt", "Anno/list_bbox.txt", "Eval/list_eval_partition.txt"):
        lines = (root / name).read_text().splitlines()
        assert lines[0] == str(IMAGES)
        assert lines[1].startswith("image_name")
        tables[name] = [line.split() for line in lines[2:]]
        assert len(tables[name]) == IMAGES
    lines = (root / "Anno" / "list_category_cloth.txt").read_text().splitlines()
    assert lines[0] == "50"
    assert [tuple(line.rsplit(maxsplit=1)) for line in lines[2:]] == [(n.strip(), t) for n, t in categories()]
    assert len({row[1] for row in tables["Anno/list_category_img.txt"]}) >= 20
    assert set(Counter(row[1] for row in tables["Eval/list_eval_partition.txt"])) == {"train", "val", "test"}
    for name, *box in tables["Anno/list_bbox.txt"]:
        with Image.open(root / "Img" / name) as image:
            assert (image.format, image.mode, max(image.size)) == ("JPEG", "RGB", 300)
            x1, y1, x2, y2 = map(int, box)
            assert all(len(edge) == 3 for edge in box)
            assert 0 <= x1 < x2 <= image.width
            assert 0 <= y1 < y2 <= image.height


def test_the_reader_knows_that_it_is_drawn(root: Path) -> None:
    regions = read_regions(root, outside_root=False, split_seed=0, val_fraction=0.1, test_fraction=0.2)
    assert regions.origin == f"drawn sample ({IMAGES} pictures, seed 5)"
    assert len(regions) == IMAGES


def test_the_seed_decides_every_byte(root: Path, tmp_path: Path) -> None:
    draw_sample(tmp_path / "same", images=IMAGES, seed=5)
    assert files(tmp_path / "same") == files(root)
    draw_sample(tmp_path / "other", images=IMAGES, seed=6)
    assert files(tmp_path / "other") != files(root)


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


def test_a_category_of_four_images_is_in_every_split(root: Path) -> None:
    rows = [line.split() for line in (root / "Eval" / "list_eval_partition.txt").read_text().splitlines()[2:]]
    splits: dict[str, list[str]] = {}
    for name, split in rows:
        splits.setdefault(name.split("/")[1].partition("_")[2], []).append(split)
    large = [found for found in splits.values() if len(found) >= 4]
    assert large
    assert all(set(found) == {"train", "val", "test"} for found in large)


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


def test_a_folder_in_use_is_left_alone(root: Path) -> None:
    before = files(root)
    with pytest.raises(DatasetError, match="exists and is not an empty folder; name a new folder for the sample"):
        draw_sample(root, images=40, seed=0)
    assert files(root) == before


def test_too_few_images_a_bad_seed_and_a_place_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="a sample needs at least 40 images to fill its splits, found 39"):
        draw_sample(tmp_path / "few", images=39, seed=0)
    with pytest.raises(DatasetError, match="a sample's seed must be 0 or more, found -1"):
        draw_sample(tmp_path / "seed", images=40, seed=-1)
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match="cannot write the sample"):
        draw_sample(tmp_path / "file" / "sample", images=40, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_drawing_that_is_broken_off_leaves_nothing(tmp_path: Path) -> None:
    def stop(shown: Shown) -> None:
        assert (shown.what, shown.total, shown.unit) == ("draw", 40, "img")
        if shown.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), watched_by(Watcher(stop)):
        draw_sample(tmp_path / "sample", images=40, seed=0)
    assert not list(tmp_path.iterdir())
