"""What a classifier takes as an image, and what it says of anything else."""

import asyncio
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hfc import Classifier
from hfc.errors import HfcError, ImageError, ImageTypeError
from tests.support.trained import train_run, write_pictures

TAKEN = (
    "expected a path, an encoded image (bytes, or a file opened in binary mode), a Pillow image or a uint8 array "
    "(height, width, 3), or a list or tuple of these"
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
        (torch.zeros(3, 8, 8), "torch.Tensor"),
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
        (np.zeros((3, 8, 8), np.float32), "image 0: expected bytes (height, width, 3), found float32 (3, 8, 8)"),
    ]
    for image, message in cases:
        with pytest.raises(ImageError) as caught:
            classifier(image)  # type: ignore[call-overload]
        assert str(caught.value).startswith(message)
    loop.close()
