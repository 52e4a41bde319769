"""Which columns are taken for images and labels."""

import re

import pytest

from hfc.datasets.columns import IMAGE, NUMBER, OTHER, TEXT, Column, image_column, label_column
from hfc.errors import ImageError

KINDS = {IMAGE: "binary", TEXT: "string", NUMBER: "int64", OTHER: "double"}


def columns(**kinds: str) -> list[Column]:
    """Columns by their names: a kind, after a slash what `datasets` notes."""
    parted = {name: kind.partition("/") for name, kind in kinds.items()}
    return [Column(name, kind, KINDS[kind], feature) for name, (kind, _, feature) in parted.items()]


@pytest.mark.parametrize(
    ("kinds", "chosen"),
    [
        ({"a": "image"}, "a"),
        ({"a": "image", "b": "image/Image"}, "b"),  # what the writer notes goes first
        ({"image": "image", "b": "image/Image"}, "b"),
        ({"a": "image/Image", "IMG": "image/Image"}, "IMG"),
        ({"a": "image", "jpg": "image"}, "jpg"),
        ({"image": "text", "a": "image"}, "a"),  # an address, not an image
    ],
)
def test_images_are_chosen_by_note_then_by_name(kinds: dict[str, str], chosen: str) -> None:
    assert image_column("f", columns(**kinds)).name == chosen


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ({"a": "image", "b": "image"}, "f: expected one column of images, found a, b; rename the one to read to image"),
        (
            {"img": "image", "image": "image"},
            "f: expected one column of images, found img, image; rename the one to read to image",
        ),
        (
            {"image": "text", "n": "number"},
            "f: expected a column of images, bytes or a struct with bytes, found image (string), n (int64); write the "
            "images themselves into the file",
        ),
        (
            {},
            "f: expected a column of images, bytes or a struct with bytes, found no columns; write the images "
            "themselves into the file",
        ),
    ],
)
def test_no_image_column_or_several_are_an_error(kinds: dict[str, str], message: str) -> None:
    with pytest.raises(ImageError, match=f"^{re.escape(message)}$"):
        image_column("f", columns(**kinds))


@pytest.mark.parametrize(
    ("kinds", "name", "chosen"),
    [
        ({"a": "number/ClassLabel", "b": "text"}, "", "a"),
        ({"a": "number/ClassLabel", "label": "text"}, "", "a"),
        ({"a": "number/ClassLabel", "label": "number/ClassLabel"}, "", "label"),
        ({"a": "text", "Category": "text"}, "", "Category"),
        ({"class": "number", "b": "text"}, "", "class"),
        ({"a": "text", "label": "text"}, "a", "a"),
    ],
)
def test_labels_are_chosen_by_note_then_by_name(kinds: dict[str, str], name: str, chosen: str) -> None:
    assert label_column("f", columns(**kinds), name).name == chosen


@pytest.mark.parametrize(
    ("kinds", "name", "message"),
    [
        (
            {"fine": "number/ClassLabel", "coarse": "number/ClassLabel"},
            "",
            "expected one column of labels, named label, category or class, found fine, coarse",
        ),
        (
            {"label": "text", "class": "text"},
            "",
            "expected one column of labels, named label, category or class, found",
        ),
        ({"kind": "text"}, "", "expected one column of labels, named label, category or class, found kind (string)"),
        ({"label": "text"}, "kind", "expected the column kind, found label (string); name it with --label-column"),
        (
            {"label": "other"},
            "",
            "expected texts or whole numbers in the column label, found double; name another with --label-column",
        ),
    ],
)
def test_no_label_column_or_several_are_an_error(kinds: dict[str, str], name: str, message: str) -> None:
    with pytest.raises(ImageError, match=rf"^f: {re.escape(message)}"):
        label_column("f", columns(**kinds), name)
