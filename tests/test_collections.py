"""A collection that lives: photographs come, change, move and are saved again, and the cache follows.

The story is told twice: on drawn pictures with a tiny network, and on photographs with a real one.
"""

import csv
import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

from cli.main import main
from hfc import store
from hfc.extract.encoder import Encoder
from hfc.train.cache import load_cache
from hfc.train.data import fold_data, prepare
from tests.support.clothing import CLOTHING, needs_clothing
from tests.support.deepfashion_tree import write_images

FOLDERS, CHANGED, COPIES = 15, 5, 24
SHOE, TROUSERS = "Shoes", "Pants"  # what is photographed under a shoe's name
TINY = ("--backbone", "test_efficientnet", "--weights", "random", "--image-size", "64")
LITE = ("--backbone", "tf_efficientnet_lite0", "--weights", "wheel")


def hfc(*words: object, code: int = 0) -> str:
    """What a command prints. It must end with a code."""
    result = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout


@dataclass
class Row:
    """What a cache has of an image."""

    label: str
    split: str
    group: str
    features: bytes


def rows(cache: Path) -> dict[str, Row]:
    """The rows of a cache by id. Every checksum must be right."""
    with store.FeatureStore(cache) as opened:
        opened.verify()
        regions, features = opened.table().regions, opened.features()
        columns = zip(regions.id, regions.label, regions.split, regions.group, features, strict=True)
        return {name: Row(label, split, group, array.tobytes()) for name, label, split, group, array in columns}


@dataclass
class Told:
    """What happened at a point of the story."""

    answer: dict[str, Any]
    """What `hfc extract --json` printed."""
    encoded: int
    """Images that the network was given."""
    rows: dict[str, Row] = field(default_factory=dict)


@dataclass
class Collection:
    """A folder of photographs that changes, and its cache."""

    place: Path
    many: int
    """Images in a folder at first."""
    more: int
    """Images that come."""
    settings: tuple[str, ...]
    encoded: list[int]
    """How many images the network was given, batch by batch."""

    @property
    def photos(self) -> Path:
        return self.place / "photos"

    @property
    def cache(self) -> Path:
        return self.place / "c.h5"

    def extract(self, *words: object, out: Path | None = None) -> Told:
        self.encoded.clear()
        answer = json.loads(hfc("extract", self.photos, *self.settings, "--out", out or self.cache, "--json", *words))
        return Told(answer, sum(self.encoded), rows(out or self.cache))


def draw(folder: Path) -> dict[str, list[Path]]:
    """Pictures of fifteen labels."""
    labels = [SHOE, TROUSERS, *(f"label {i:02d}" for i in range(2, FOLDERS))]
    names = [f"{label}/{i}.jpg" for label in labels for i in range(12)]
    write_images(folder, names, (64, 64))
    return {label: sorted((folder / label).iterdir()) for label in labels}


def photographs(folder: Path) -> dict[str, list[Path]]:
    """Those of the fifteen categories of which there are most."""
    by_label = defaultdict(list)
    with (CLOTHING / "labels.csv").open() as file:
        for line in csv.DictReader(file):
            by_label[line["label"]].append(CLOTHING / line["path"])
    largest = sorted(by_label, key=lambda label: -len(by_label[label]))[:FOLDERS]
    return {label: by_label[label] for label in largest}


SOURCES = [
    pytest.param((draw, 6, 15, TINY), id="drawn"),
    pytest.param((photographs, 27, 40, LITE), id="photographs", marks=[pytest.mark.slow, needs_clothing]),
]


@dataclass
class Story:
    """The chapters of a story, in their order."""

    collection: Collection
    first: Told
    damaged: list[str]
    """What `hfc verify --images` printed, a line each."""
    planned: Told
    updated: Told
    again: Told
    renamed: Told
    fresh: dict[str, Row]
    """What a new cache of the same files has before the folder was renamed."""


@pytest.fixture(scope="module", params=SOURCES)
def story(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    source, many, more, settings = request.param
    place = tmp_path_factory.mktemp("collection")
    counts: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        submit = Encoder.submit

        def counting(encoder: Encoder, crops: NDArray[np.uint8]) -> Callable[[], NDArray[np.float32]]:
            counts.append(len(crops))
            return submit(encoder, crops)

        patch.setattr(Encoder, "submit", counting)
        yield tell(Collection(place, many, more, settings, counts), source(place / "more"))


def tell(collection: Collection, pictures: dict[str, list[Path]]) -> Story:
    for label, files in pictures.items():
        for number, file in enumerate(files[: collection.many]):
            copy(file, collection.photos / label / f"{number:03d}.jpg")
    first = collection.extract()
    for number in range(CHANGED):
        copy(pictures[TROUSERS][-1 - number], collection.photos / SHOE / f"{number:03d}.jpg")
    damaged = hfc("verify", collection.cache, "--images", code=1).splitlines()
    for number in range(collection.more):
        label = list(pictures)[number % FOLDERS]
        copy(pictures[label][collection.many + number // FOLDERS], collection.photos / label / f"new-{number:03d}.jpg")
    planned = collection.extract("--dry-run")
    updated = collection.extract()
    again = collection.extract()
    fresh = collection.extract(out=collection.place / "fresh.h5").rows
    (collection.photos / SHOE).rename(collection.photos / "Footwear")
    return Story(collection, first, damaged, planned, updated, again, collection.extract(), fresh)


def copy(file: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, place)  # of now, as a file that was saved again


COUNTS = ("rows", "encoded", "kept", "new", "changed", "gone")


def counts(told: Told) -> tuple[int, ...]:
    return tuple(told.answer[name] for name in COUNTS)


def test_only_new_and_changed_images_are_encoded(story: Story) -> None:
    old, more = FOLDERS * story.collection.many, story.collection.more
    assert (counts(story.first), story.first.encoded) == ((old, old, 0, old, 0, 0), old)
    plan = (old + more, CHANGED + more, old - CHANGED, more, CHANGED, 0)
    assert (counts(story.planned), story.planned.encoded) == (plan, 0)
    assert story.planned.rows == story.first.rows  # nothing is written yet
    assert (counts(story.updated), story.updated.encoded) == (plan, CHANGED + more)
    assert (counts(story.again), story.again.encoded) == ((old + more, 0, old + more, 0, 0, 0), 0)
    assert [told.answer["written"] for told in (story.first, story.planned, story.updated, story.again)] == [
        True,
        False,
        True,
        False,
    ]


def test_no_image_that_was_there_changes_its_split(story: Story) -> None:
    before = {name: row.split for name, row in story.first.rows.items()}
    assert {name: story.updated.rows[name].split for name in before} == before
    by_label = defaultdict(set)
    for row in story.first.rows.values():
        by_label[row.label].add(row.split)
    assert set(map(frozenset, by_label.values())) == {frozenset(("train", "val", "test"))}
    assert all(row.split for row in story.updated.rows.values())


def test_a_file_that_holds_another_image_is_noticed(story: Story) -> None:
    names = [f"{SHOE}/{number:03d}.jpg" for number in range(CHANGED)]
    assert [line for name in names for line in story.damaged if name in line] != []
    assert not [line for line in story.damaged if ".jpg" in line and not any(name in line for name in names)]
    before, after = story.first.rows, story.updated.rows
    assert sorted(name for name in before if before[name].features != after[name].features) == names
    assert {after[name].label for name in names} == {SHOE}  # what it is called is for people to say


def test_an_updated_cache_has_the_features_of_a_fresh_one_bit_for_bit(story: Story) -> None:
    assert {name: row.features for name, row in story.updated.rows.items()} == {
        name: row.features for name, row in story.fresh.items()
    }


def test_a_folder_that_is_renamed_costs_nothing_and_keeps_its_splits(story: Story) -> None:
    total = len(story.updated.rows)
    assert (counts(story.renamed), story.renamed.encoded) == ((total, 0, total, 0, 0, 0), 0)
    assert story.renamed.answer["written"]
    expected = {name.replace(SHOE, "Footwear"): row for name, row in story.updated.rows.items()}
    after = story.renamed.rows
    assert {name: (row.split, row.features) for name, row in after.items()} == {
        name: (row.split, row.features) for name, row in expected.items()
    }
    assert {row.label for name, row in after.items() if name.startswith("Footwear/")} == {"Footwear"}


@pytest.mark.slow
@needs_clothing
def test_photographs_that_were_saved_again_smaller_are_twins(tmp_path: Path) -> None:
    names = []
    for label, files in photographs(tmp_path).items():
        for number, file in enumerate(files[:27]):
            names.append(f"{label}/{number:03d}")
            copy(file, tmp_path / "photos" / f"{names[-1]}.jpg")
    names = names[:: len(names) // COPIES][:COPIES]
    for name in names:
        picture = Image.open(tmp_path / "photos" / f"{name}.jpg")
        smaller = picture.resize((round(picture.width * 0.9), round(picture.height * 0.9)), Image.Resampling.BICUBIC)
        smaller.save(tmp_path / "photos" / f"{name} again.jpg", quality=90)
    hfc("extract", tmp_path / "photos", *LITE, "--out", tmp_path / "c.h5")
    hfc("inspect", tmp_path / "c.h5", "--twins", tmp_path / "twins")
    sets = defaultdict(set)
    with (tmp_path / "twins" / "twins.csv").open() as file:
        for line in csv.DictReader(file):
            sets[line["set"]].add(line["id"])
    expected = {frozenset((f"{name}.jpg", f"{name} again.jpg")) for name in names}
    assert expected == set(map(frozenset, sets.values()))


VIEWS = ("front", "back", "detail")


def shop(folder: Path, products: range, views: tuple[str, ...], label: Callable[[int], str]) -> list[tuple[str, ...]]:
    """Pictures of products from several sides, as lines of a manifest: path, label, group."""
    lines = [(f"p{number:03d}_{view}.jpg", label(number), f"p{number:03d}") for number in products for view in views]
    for number, (name, *_) in enumerate(lines):
        pixels = np.random.default_rng([products.start, len(views), number]).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).resize((64, 64)).save(folder / name)
    return lines


def write_manifest(file: Path, lines: list[tuple[str, ...]]) -> None:
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", "label", "group"), *lines])


def splits_of_groups(cache: Path) -> dict[str, set[str]]:
    found = defaultdict(set)
    for row in rows(cache).values():
        found[row.group].add(row.split)
    return found


def test_views_of_a_product_stay_together_from_stage_1_to_the_report(tmp_path: Path) -> None:
    """Thirty products from three sides; then forty more, and a fourth side of the first ones."""
    folder, cache = tmp_path / "shop", tmp_path / "c.h5"

    def label(number: int) -> str:
        return ("Tee", "Skirt", "Hat")[number % 3]

    lines = shop(folder, range(30), VIEWS, label)
    write_manifest(folder / "m.csv", lines)
    hfc("extract", folder / "m.csv", *TINY, "--out", cache)
    before = splits_of_groups(cache)
    assert sorted(before) == [f"p{number:03d}" for number in range(30)]
    assert {len(splits) for splits in before.values()} == {1}
    assert set.union(*before.values()) == {"train", "val", "test"}

    lines += shop(folder, range(30), ("worn",), label) + shop(folder, range(30, 70), VIEWS, label)
    write_manifest(folder / "m.csv", lines)
    answer = json.loads(hfc("extract", folder / "m.csv", *TINY, "--out", cache, "--json"))
    assert (answer["kept"], answer["encoded"], answer["gone"]) == (90, 150, 0)
    after = splits_of_groups(cache)
    assert {len(splits) for splits in after.values()} == {1}
    assert {name: after[name] for name in before} == before

    tree = tmp_path / "tree.csv"
    tree.write_text("category,group\nTee,clothes\nSkirt,clothes\nHat,accessories\n")
    names = [row.group for row in rows(cache).values()]
    data = prepare(load_cache(cache, device="cpu"), str(tree))
    for fold in fold_data(data, 3):
        train, val = ({names[row] for row in fold.rows[split].tolist()} for split in ("train", "val"))
        assert train
        assert val
        assert not train & val

    words = ("--method", "flat", "--method", "levels", "--set", "epochs=2", "--out", tmp_path / "runs")
    hfc("train", cache, "--hierarchy", tree, *words)
    hfc("report", tmp_path / "runs", "--out", tmp_path / "report")
    tested = [name for name, row in zip(names, rows(cache).values(), strict=True) if row.split == "test"]
    expected = f"tested on the same {len(tested)} images in {len(set(tested))} groups with the same labels"
    assert expected in (tmp_path / "report" / "report.md").read_text()


def test_folders_name_their_groups_by_a_pattern(tmp_path: Path) -> None:
    for name in ("Tee", "Hat"):
        shop(tmp_path / "photos" / name, range(12), VIEWS, str)
    pattern = ("--group", r"(\w+/[^/_]+)_\w+\.jpg$")
    hfc("extract", tmp_path / "photos", *TINY, *pattern, "--out", tmp_path / "c.h5")
    found = splits_of_groups(tmp_path / "c.h5")
    assert len(found) == 24
    assert {len(splits) for splits in found.values()} == {1}
