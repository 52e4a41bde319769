"""Read the bytes of an image: of a file, in an archive or Parquet file, or on the network."""

import os
import stat
from pathlib import Path

from hfc.datasets.archives import enter, open_archive, split
from hfc.datasets.parquet_file import open_parquet, split_row
from hfc.datasets.remote import is_url, shown
from hfc.errors import ImageError
from hfc.regions import Remote, locate

UNREADABLE = (ImageError, OSError, ValueError)  # what reading raises where there are no bytes; ValueError: a NUL
UNKNOWN = -1  # a size or a time


def read_bytes(root: Path, path: str, remote: Remote | None = None) -> bytes:
    """Read what a path names. It may lead into an archive, as may the root that it is relative to.

    Args:
        root: the folder that the path is relative to.
        path: of the image, or its URL.
        remote: reads URLs; without it nothing is asked of the network.

    Raises:
        ImageError: it is no file, or a member that cannot be read.
        OSError: there is none, or it may not be read.
    """
    if is_url(path):
        if remote is None:
            raise ImageError("it is on the network, where only hfc extract and hfc predict read, with --remote")
        return remote.look(path)[0]
    try:
        return read_file(root / path)
    except FileNotFoundError:
        return read_file(_respelled(root, path))


def read_file(file: Path) -> bytes:
    """Read a file, or what lies in an archive or Parquet file, under this name.

    Raises:
        ImageError, OSError: as `read_bytes`.
    """
    if place := enter(file):
        archive, name = place
        return archive.read(name)
    try:
        kind = file.stat().st_mode
    except NotADirectoryError:
        if cell := split_row(file):
            table, row = cell
            return open_parquet(table).read(row)
        raise
    if not stat.S_ISREG(kind):  # reading a pipe would wait for ever
        raise ImageError("not a file")
    return file.read_bytes()


def reason(error: Exception) -> str:
    """Say why a path gives no image, as a row's failure has it."""
    if isinstance(error, ImageError):
        return str(error)
    return f"cannot read the file: {getattr(error, 'strerror', None) or error}"


def named(root: Path, path: str) -> str:
    """Return what a message calls an image: where it lies, or its URL without what may be secret."""
    return shown(path) if is_url(path) else str(root / path)


def stamp(root: Path, path: str, remote: Remote | None = None) -> tuple[int, int]:
    """Look what tells, without reading it, whether a file has changed.

    Returns:
        Its size in bytes, and the time of its last change in nanoseconds since 1970; of a member of an archive the
        archive's time. Of a row of a Parquet file, size and time of that file; of a URL, what its server tells, the
        version as a number. UNKNOWN where nobody can tell, or where there is no such file.
    """
    if is_url(path):
        return remote.stamp(path) if remote else (UNKNOWN, UNKNOWN)
    try:
        try:
            return _stamp(root / path)
        except FileNotFoundError:
            return _stamp(_respelled(root, path))
    except UNREADABLE:
        return UNKNOWN, UNKNOWN


def _stamp(file: Path) -> tuple[int, int]:
    try:
        status = file.stat()
    except NotADirectoryError:
        if place := split(file):
            member = open_archive(place[0]).find(place[1])
            return (member.size, place[0].stat().st_mtime_ns) if member else (UNKNOWN, UNKNOWN)
        cell = split_row(file)
        if not cell or not open_parquet(cell[0]).keeps(cell[1]):
            return UNKNOWN, UNKNOWN
        status = cell[0].stat()
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else (UNKNOWN, UNKNOWN)


def is_part(file: Path) -> bool:
    """Return whether a path leads into an archive or a Parquet file."""
    return bool(split(file) or split_row(file))


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
