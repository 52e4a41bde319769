"""How a message shows the name of a file, and how what the operating system refuses becomes an error."""

import errno
import html
import logging
import os
import re
from pathlib import Path

import pytest

from hfc.errors import RunError, explained, is_utf8, markdown, nearest, printable, warn_once


@pytest.mark.parametrize(
    ("name", "shown", "readable"),
    [
        (b"Tee/a.jpg", "Tee/a.jpg", True),
        ("größe/ü.jpg".encode(), "größe/ü.jpg", True),
        (b"f\xe4h.jpg", "f\\xe4h.jpg", False),
        (b"\xff\xfe", "\\xff\\xfe", False),
        (b"", "", True),
    ],
)
def test_a_name_is_shown_as_it_is_or_with_escapes(name: bytes, shown: str, readable: bool) -> None:
    decoded = os.fsdecode(name)
    assert (printable(decoded), is_utf8(decoded)) == (shown, readable)
    printable(decoded).encode("utf-8")


def test_what_the_system_refuses_is_an_error_of_the_file() -> None:
    with pytest.raises(RunError) as caught, explained(Path("place"), "the graph"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "place")
    assert str(caught.value) == "place: the graph cannot be written: No space left on device"


def test_a_missing_temporary_folder_is_no_error_of_the_file() -> None:
    with pytest.raises(FileNotFoundError), explained(Path("place"), "the graph"):
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("flta", "did you mean Flat?"),
        ("LEVELS", "did you mean levels?"),
        ("zzz", "known: Flat, hmcn-f, levels"),
    ],
)
def test_a_mistyped_name_gets_the_nearest_or_all(name: str, suggestion: str) -> None:
    assert nearest(name, ["levels", "hmcn-f", "Flat"]) == suggestion


def test_a_warning_comes_once_a_logger(caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a", "b", "a"):
        for message in ("full %s", "slow"):
            warn_once(logging.getLogger(name), message)
    assert [(r.name, r.getMessage()) for r in caplog.records] == [(n, m) for n in "ab" for m in ("full %s", "slow")]


@pytest.mark.parametrize(
    "text",
    [
        "a_b *c* **d** `e`",
        "<script>&lt; R&D &#35;</script>",
        "[x](y) | ~z~ #1 $2$",
        "\\ \\* back",
        "# heading",
        "a  b\nc",
    ],
)
def test_markdown_shows_an_escaped_text_as_it_is(text: str) -> None:
    """CommonMark by another hand: a backslash before punctuation is that character, and an entity needs a bare `&`."""
    written = markdown(text)
    assert re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", written) == " ".join(text.split())
    bare = re.sub(r"\\[!-/:-@\[-`{-~]", "", written)
    assert not set(bare) & set("\\`*_[]<>|~#$\n")
    assert html.unescape(bare) == bare
