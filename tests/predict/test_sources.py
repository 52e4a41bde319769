"""What a classifier takes as an image, and what it says of anything else."""

import asyncio
import io
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hfc import Classifier
from hfc.datasets import manifest
from hfc.errors import DatasetError, HfcError, ImageError, ImageTypeError
from hfc.predict.sources import as_regions, find_images
from tests.support import parquet
from tests.support.trained import train_run, write_pictures

TAKEN = (
    "expected a path, an encoded image (bytes, or a file opened in binary mode), a Pillow image or a uint8 array "
    "(height, width, 3) or (height, width), or a list, tuple or iterator of these"
)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    folder = write_pictures(tmp_path_factory.mktemp("sources")).parent
    return Classifier.load(train_run(folder, {}, {"method": "flat"})[0].folder)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A PNG, so that all ways to it give the same pixels."""
    file = tmp_path / "a.png"
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file)
    return file


def test_every_form_of_an_image_gets_the_same_answer(classifier: Classifier, picture: Path, tmp_path: Path) -> None:
    content = picture.read_bytes()
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as packed:
        packed.write(picture, "a.png")
    reading, writing = os.pipe()
    os.write(writing, content)
    os.close(writing)
    (entry,) = (one for one in os.scandir(tmp_path) if one.name == "a.png")
    with (
        zipfile.ZipFile(tmp_path / "z.zip") as packed,
        packed.open("a.png") as member,
        os.fdopen(reading, "rb") as pipe,
        picture.open("rb") as file,
    ):
        file.read(7)  # somebody looked into it before
        forms = [
            *(picture, str(picture), entry, content, bytearray(content), memoryview(content)),
            *(io.BytesIO(content), file, member, pipe, Image.open(io.BytesIO(content))),
            np.asarray(Image.open(io.BytesIO(content))),
        ]
        answers = classifier(forms)
    assert [(answer.path, answer.probabilities) for answer in answers] == [
        (answers[0].path, answers[0].probabilities)
    ] * 12
    assert [answer.id for answer in answers] == [f"image {place}" for place in range(len(forms))]
    assert classifier(content).top == classifier(io.BytesIO(content)).top == classifier(picture).top
    assert classifier(entry).id == str(picture)
    box = (2, 3, 20, 30)
    assert classifier(content, box).top == classifier(picture, box).top != classifier(content).top


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (None, "NoneType"),
        (7, "int"),
        (torch.zeros(3, 8, 8), "torch.Tensor of torch.float32 (3, 8, 8)"),
        ({"image": b""}, "dict"),
        (range(3), "range"),
        (np.float32(1), "numpy.float32"),
        ([], "list"),
    ],
    ids=["None", "integer", "tensor", "dictionary", "range", "number", "empty"],
)
def test_what_is_no_image_is_named_with_what_is_taken(
    image: object, kind: str, classifier: Classifier, picture: Path
) -> None:
    for images, place in ((image, 0), ([picture, image], 1)):
        if isinstance(images, list) and not images:
            assert classifier(images) == []
            continue
        with pytest.raises(ImageTypeError) as caught:
            classifier(images)  # type: ignore[call-overload]
        assert str(caught.value) == f"image {place}: {TAKEN}; found {kind}"
        assert isinstance(caught.value, HfcError)
        assert isinstance(caught.value, TypeError)


def test_what_cannot_be_read_is_said(classifier: Classifier, picture: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    closed = picture.open("rb")
    closed.close()

    class Later:
        """A file that answers with something to be waited for, as those of web frameworks do."""

        def read(self) -> "asyncio.Future[bytes]":
            return asyncio.Future(loop=loop)

    loop = asyncio.new_event_loop()
    cases: list[tuple[object, str]] = [
        (b"", "image 0: the file is empty"),
        (b"no image", "image 0: not an image"),
        (io.BytesIO(b""), "image 0: the file is empty"),
        (closed, "image 0: cannot read the file: "),
        (io.StringIO("text"), "image 0: expected a file opened in binary mode, found one that gives str"),
        (Later(), "image 0: expected a file opened in binary mode, found one that gives Future"),
        ([b"", tmp_path / "none.png"], "image 0: the file is empty"),
        (
            [picture.read_bytes(), tmp_path / "none.png"],
            f"image 1: {tmp_path / 'none.png'}: cannot read the file: No such",
        ),
        (np.zeros((3, 8, 8), np.float32), f"image 0: {TAKEN}; found numpy.ndarray of float32 (3, 8, 8)"),
    ]
    for image, message in cases:
        with pytest.raises(ImageError) as caught:
            classifier(image)  # type: ignore[call-overload]
        assert str(caught.value).startswith(message)
    loop.close()


def test_images_are_found_in_and_below_folders_in_order(tmp_path: Path) -> None:
    for name in ("b/2.JPG", "b/1.png", "b/c/3.webp", "b/.hidden.jpg", "b/.git/4.jpg", "b/notes.txt", "a.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_images([tmp_path / "none.jpg", tmp_path / "b", tmp_path / "a.jpg"])
    names = [Path(path).relative_to(tmp_path).as_posix() for path in found]
    assert names == ["none.jpg", "b/1.png", "b/2.JPG", "b/c/3.webp", "a.jpg"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"empty: expected images in or below this folder, found none$"):
        find_images([tmp_path / "empty"])
    (tmp_path / "empty" / "a.txt").touch()
    with pytest.raises(DatasetError, match=r"empty: expected images in or below this folder, found only 1 \.txt$"):
        find_images([tmp_path / "empty"])
    (tmp_path / "empty" / "result.json").touch()
    with pytest.raises(DatasetError, match="empty: expected images, found a second run; a pattern for RUN must match"):
        find_images([tmp_path / "empty"])
    assert np.isnan(as_regions(found).box).all()


def test_the_rules_of_folder_trees_hold_for_folders_to_classify(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mine = ("x/a.jfif", "x/y/b.JPE", "c.avif", "d.jp2", "e.heic")
    others = ("__MACOSX/a.jpg", "x/@eaDir/b.jpg", "x/._a.jpg", ".ipynb_checkpoints/c.jpg", "Thumbs.db")
    for name in (*mine, *others, "x/a.psd", "notes.txt", "more.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert find_images([tmp_path]) == sorted(str(tmp_path / name) for name in mine)
    assert caplog.messages == [f"{tmp_path}: left out files that are no images by their names: 2 .txt, 1 .psd"]


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_is_classified_like_the_folder_that_was_packed(
    kind: str, classifier: Classifier, tmp_path: Path
) -> None:
    for i in range(3):
        noise = np.random.default_rng(i).integers(0, 256, (40, 30, 3), dtype=np.uint8)
        (tmp_path / "photos" / f"{i}").mkdir(parents=True)
        Image.fromarray(noise).save(tmp_path / "photos" / f"{i}" / "a.png")
    (tmp_path / "photos" / "b.png").write_bytes(b"no image")
    shutil.make_archive(str(tmp_path / "photos"), kind, tmp_path, "photos")
    folder, archive = find_images([tmp_path / "photos"]), find_images([tmp_path / f"photos.{kind}"])
    assert archive == [path.replace(f"{tmp_path}/", f"{tmp_path}/photos.{kind}/") for path in folder]
    there, packed = (list(classifier.stream(as_regions(paths))) for paths in (folder, archive))
    assert [(answer.top, answer.error) for answer in packed] == [(answer.top, answer.error) for answer in there]
    assert [bool(answer.error) for answer in packed] == [False, False, False, True]
    member = archive[0]
    assert find_images([Path(member)]) == [member]
    assert find_images([Path(member).parent]) == [member]
    alone, beside = classifier(member), classifier([Path(folder[1]).read_bytes(), Path(member)])[1]
    assert [leaf.path for leaf in alone.top] == [leaf.path for leaf in beside.top]
    assert alone.probabilities == pytest.approx(beside.probabilities, abs=1e-6)  # of batches of another size
    (tmp_path / f"photos.{kind}").write_bytes(b"no archive")
    with pytest.raises(DatasetError, match=rf"photos\.{kind}: cannot be read as a {kind.upper()} archive"):
        find_images([tmp_path / f"photos.{kind}"])


def test_a_parquet_file_is_classified_row_for_row(classifier: Classifier, picture: Path, tmp_path: Path) -> None:
    file = parquet.write_table(tmp_path / "own.parquet", {"image": parquet.images([picture.read_bytes(), None])})
    paths = find_images([file])
    assert paths == [f"{file}/0", f"{file}/1"]
    first, second = classifier.stream(as_regions(paths))
    assert first.top == classifier(picture).top == classifier(paths[0]).top
    assert second.error == "no image: the cell is empty"
    file.write_bytes(b"no table")
    with pytest.raises(DatasetError, match=r"own\.parquet: cannot be read as a Parquet file"):
        find_images([file])


def test_a_manifest_for_prediction_needs_paths_alone(tmp_path: Path) -> None:
    file = tmp_path / "m.csv"
    file.write_text("path\na.jpg\nb.jpg\n")
    regions = manifest.read(file, required=manifest.UNLABELLED)
    assert (regions.id.tolist(), regions.label.tolist(), regions.split.tolist()) == (
        ["a.jpg", "b.jpg"],
        ["", ""],
        ["", ""],
    )
    with pytest.raises(DatasetError, match="expected the columns path,label and optionally split,group"):
        manifest.read(file)
    file.write_text("id\na\n")
    with pytest.raises(DatasetError, match="expected the columns path and optionally"):
        manifest.read(file, required=manifest.UNLABELLED)
