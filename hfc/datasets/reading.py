"""Read the bytes of an image, whether a file or a member of an archive."""

import os
import stat
from pathlib import Path

from hfc.datasets.archives import open_archive, split
from hfc.errors import ImageError
from hfc.regions import locate


def read_bytes(root: Path, path: str) -> bytes:
    """Read what a path names. It may lead into an archive, as may the root that it is relative to.

    Raises:
        ImageError: it is no file, or a member that cannot be read.
        OSError: there is none, or it may not be read.
    """
    try:
        return read_file(root / path)
    except FileNotFoundError:
        return read_file(_respelled(root, path))


def read_file(file: Path) -> bytes:
    """Read a file or a member of an archive, under this very name.

    Raises:
        ImageError, OSError: as `read_bytes`.
    """
    try:
        kind = file.stat().st_mode
    except NotADirectoryError:
        place = split(file)
        if place is None:
            raise
        archive, name = place
        return open_archive(archive).read(name)
    if not stat.S_ISREG(kind):  # reading a pipe would wait for ever
        raise ImageError("not a file")
    return file.read_bytes()


def holds(root: Path, path: str) -> bool:
    """Return whether a path names a file or a member of an archive."""
    file = _respelled(root, path)
    try:
        if file.is_file():
            return True
        place = split(file)
        return place is not None and open_archive(place[0]).find(place[1]) is not None
    except (OSError, ImageError):  # a name too long, a folder that may not be entered, or a damaged archive
        return False


def _respelled(root: Path, path: str) -> Path:
    """Find a file under another spelling. A path that leads into an archive has slashes after it."""
    file = locate(root, path)
    slashed = root / path.replace("\\", "/")
    return slashed if file != slashed and not os.path.lexists(file) else file
