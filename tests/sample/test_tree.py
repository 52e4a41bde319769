"""The drawn data set: DeepFashion's layout, and every byte by its seed."""

import hashlib
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from hfc.datasets import read_regions
from hfc.errors import DatasetError
from hfc.progress import watched_by
from hfc.sample import draw_sample
from tests.support.deepfashion_tree import categories
from tests.support.watching import Shown, Watcher

IMAGES = 80


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
    regions = read_regions(root, outside_root=False)
    assert regions.origin == f"drawn sample ({IMAGES} pictures, seed 5)"
    assert len(regions) == IMAGES


def test_the_seed_decides_every_byte(root: Path, tmp_path: Path) -> None:
    draw_sample(tmp_path / "same", images=IMAGES, seed=5)
    assert files(tmp_path / "same") == files(root)
    draw_sample(tmp_path / "other", images=IMAGES, seed=6)
    assert files(tmp_path / "other") != files(root)


def test_a_category_of_four_images_is_in_every_split(root: Path) -> None:
    rows = [line.split() for line in (root / "Eval" / "list_eval_partition.txt").read_text().splitlines()[2:]]
    splits: dict[str, list[str]] = {}
    for name, split in rows:
        splits.setdefault(name.split("/")[1].partition("_")[2], []).append(split)
    large = [found for found in splits.values() if len(found) >= 4]
    assert large
    assert all(set(found) == {"train", "val", "test"} for found in large)


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
