"""ZIP and TAR archives as folders of a path: `photos.zip/Tee/1.jpg` names a member. Nothing is unpacked.

Any number of threads reads members side by side: an archive is opened and its index read once a process, and every read
says where it begins, so that threads and forked processes share the descriptor.
"""

import contextlib
import errno
import functools
import os
import posixpath
import re
import stat
import struct
import tarfile
import threading
import weakref
import zipfile
import zlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import BinaryIO
from unicodedata import normalize

from hfc.crops import MAX_PIXELS
from hfc.errors import ImageError

PLACE = re.compile(r"\.(?:zip|tar)(?=/|\Z)", re.IGNORECASE)  # where a path may go on inside an archive
LARGEST = 4 * MAX_PIXELS  # bytes of a member: the largest image that is decoded, as RGBA without compression
HEADER, SIGNATURE = struct.Struct("<4s22xHH"), b"PK\x03\x04"  # of what stands before a member's bytes in a ZIP
ENCRYPTED, UTF8 = 0x1, 0x800  # flags of a member
DAMAGED = "damaged member of the archive"
LOOKED_AT = 1 << 16  # bytes after the last member of a TAR, where another may be hidden
OPEN = 64  # archives whose index stays in memory and whose file stays open
SLACK = 64  # bytes of a ZIP member's header that the index does not tell of

_opening = threading.Lock()


@dataclass(frozen=True, slots=True)
class Member:
    """Where the bytes of a file lie in an archive."""

    name: str
    """As the archive has it."""
    offset: int
    """Where its header begins, if it has one; else its bytes."""
    packed: int
    """Bytes in the archive."""
    size: int
    """Bytes of the file, as the archive declares."""
    special: bool
    """Whether it is a link, a device or the like."""
    checksum: int | None = None
    """CRC-32 of the file; TAR has none."""
    method: int = zipfile.ZIP_STORED
    """Of compression."""
    encrypted: bool = False
    headed: bool = False
    """Whether a header of ZIP stands in front of it."""


class Archive:
    """A ZIP or TAR file with the index of its members."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._stream = file.open("rb")
        weakref.finalize(self, self._stream.close)  # when the last thread is done with it
        list_members = _tar_members if file.suffix.lower() == ".tar" else _zip_members
        self.members = {_key(member.name): member for member in list_members(file, self._stream)}
        """By names relative to the archive, without `.` and repeated slashes. Of two that are alike the last counts."""

    def find(self, name: str) -> Member | None:
        """Return the member of a name. It may be in the other Unicode form, or parted by backslashes."""
        if member := self.members.get(name):
            return member
        for spelling in dict.fromkeys((name, name.replace("\\", "/"))):
            key = _key(spelling)
            if member := self.members.get(key) or self._composed.get(normalize("NFC", key)):
                return member
        return None

    def has_folder(self, name: str) -> bool:
        """Return whether a folder of that name is there; "" is the archive itself."""
        return not name or any(key.startswith(f"{_key(name)}/") for key in self.members)

    @cached_property
    def _composed(self) -> dict[str, Member]:
        """The members by their names in Unicode's composed form."""
        return {normalize("NFC", key): member for key, member in self.members.items()}

    def read(self, name: str) -> bytes:
        """Read a member. At most the size that it declares comes into memory.

        Raises:
            ImageError: it leaves the archive, is too large, encrypted or damaged.
            OSError: there is none, or the archive cannot be read.
        """
        member = self.find(name)
        if member is None:
            raise FileNotFoundError(errno.ENOENT, f"No such member of {self.file.name}")
        _check(member)
        packed = self._packed(member)
        content = bytes(packed) if member.method == zipfile.ZIP_STORED else _inflate(packed, member.size)
        if len(content) != member.size:
            more = "more" if len(content) > member.size else "fewer"
            raise ImageError(f"{DAMAGED}: expected the {member.size} bytes that it declares, found {more}")
        if member.checksum is not None and zlib.crc32(content) != member.checksum:
            raise ImageError(f"{DAMAGED}: its checksum does not fit its bytes")
        return content

    def _packed(self, member: Member) -> memoryview:
        """Read the bytes of a member as the archive has them. The header in front of them is read with them."""
        likely = HEADER.size + len(member.name) + SLACK if member.headed else 0
        content = self._bytes(member.offset, likely + member.packed)
        start = _header_length(content) if member.headed else 0
        if start > likely:
            content, start = self._bytes(member.offset + start, member.packed), 0
        packed = memoryview(content)[start : start + member.packed]
        if len(packed) < member.packed:
            raise ImageError(f"{DAMAGED}: the archive ends before it does")
        return packed

    def _bytes(self, start: int, count: int) -> bytes:
        """Read from the file that the index was read from. There are fewer bytes at its end."""
        content = os.pread(self._stream.fileno(), count, start)
        while len(content) < count:
            more = os.pread(self._stream.fileno(), count - len(content), start + len(content))
            if not more:
                break
            content += more
        return content


def split(path: Path) -> tuple[Path, str] | None:
    """Part a path into an archive and the name of a member. None: it leads into no archive."""
    text = path.as_posix()
    for match in PLACE.finditer(text):
        archive = Path(text[: match.end()])
        if archive.is_file():
            return archive, text[match.end() + 1 :]
    return None


def open_archive(file: Path) -> Archive:
    """Open an archive. Its index is read once, and again where the file has changed.

    Raises:
        ImageError: it is damaged, or no archive.
        OSError: it cannot be read.
    """
    return _open(str(file), file.stat())


def enter(path: Path) -> tuple[Archive, str] | None:
    """Open the archive that a path leads into, and name the member. None: into none, or it is the archive itself.

    Raises:
        ImageError, OSError: as `open_archive`.
    """
    text = path.as_posix()
    for match in PLACE.finditer(text):
        file = text[: match.end()]
        try:
            state = os.stat(file)  # noqa: PTH116 (a Path for every image takes as long as the call)
        except OSError:
            continue
        if stat.S_ISREG(state.st_mode) and file != text:
            return _open(file, state), text[match.end() + 1 :]
    return None


def _open(file: str, state: os.stat_result) -> Archive:
    with _opening:  # or every thread would read the index in the beginning
        archive = _opened(file, state.st_size, state.st_mtime_ns)
    if isinstance(archive, str):
        raise ImageError(archive)
    return archive


@functools.lru_cache(maxsize=OPEN)
def _opened(file: str, size: int, changed: int) -> Archive | str:
    """Open an archive, or return why it cannot be read: every row of a damaged one asks."""
    try:
        return Archive(Path(file))
    except ImageError as error:
        return str(error)


def _zip_members(file: Path, stream: BinaryIO) -> list[Member]:
    try:
        with zipfile.ZipFile(stream) as opened:
            return [_zip_member(info) for info in opened.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
        raise ImageError(f"{file}: cannot be read as a ZIP archive: {error}; pack or download it again") from error


def _zip_member(info: zipfile.ZipInfo) -> Member:
    return Member(
        name=_name(info),
        offset=info.header_offset,
        packed=info.compress_size,
        size=info.file_size,
        special=stat.S_ISLNK(info.external_attr >> 16),
        checksum=info.CRC,
        method=info.compress_type,
        encrypted=bool(info.flag_bits & ENCRYPTED),
        headed=True,
    )


def _tar_members(file: Path, stream: BinaryIO) -> list[Member]:
    """List the members of a TAR without compression. One that may have lost some is refused."""
    try:
        with tarfile.open(fileobj=stream, mode="r:") as opened:
            members: dict[str, Member] = {}
            for info in opened:
                if not info.isdir():
                    members[info.name] = _tar_member(info, members.get(info.linkname) if info.islnk() else None)
            end = opened.offset
        _check_end(stream, end)
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise ImageError(
            f"{file}: cannot be read as a TAR archive without compression: {error}; pack or download it again"
        ) from error
    return list(members.values())


def _check_end(stream: BinaryIO, end: int) -> None:
    """Raise a ReadError unless an archive ends in zeros. Python's reader takes a damaged header for its end."""
    stream.seek(end)
    rest = stream.read(LOOKED_AT)
    if not rest:
        raise tarfile.ReadError("it has no end mark")
    if rest.strip(b"\0"):
        raise tarfile.ReadError(f"no member's header at byte {end}")


def _tar_member(info: tarfile.TarInfo, linked: Member | None) -> Member:
    """Describe a member. A hard link has the bytes of the member before it that it is `linked` to."""
    if linked:
        return replace(linked, name=info.name)
    special = not info.isreg() or info.issparse()
    return Member(info.name, offset=info.offset_data, packed=info.size, size=info.size, special=special)


def _name(info: zipfile.ZipInfo) -> str:
    """Return a member's name. Many programs write UTF-8 without the flag that says so."""
    name = info.filename
    if not name.isascii() and not info.flag_bits & UTF8:
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return name


def _key(name: str) -> str:
    """Return a name relative to the archive. One that leaves it begins with `..`, also if it is absolute."""
    return posixpath.normpath(f"../{name}" if name.startswith("/") else name)


def _check(member: Member) -> None:
    """Raise an ImageError if a member should not be read."""
    if _key(member.name).split("/")[0] == os.pardir:
        raise ImageError(f"its name leaves the archive: {member.name!r}")
    if member.encrypted:
        raise ImageError("encrypted; unpack the archive with its password")
    if member.special:
        raise ImageError("not a file: a link or the like in an archive")
    if max(member.size, member.packed) > LARGEST:
        size = max(member.size, member.packed)
        raise ImageError(f"{size} bytes, more than {LARGEST} in an archive, perhaps a decompression bomb")
    if member.method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ImageError(f"packed by ZIP's method {member.method}; expected stored or deflated; pack the archive again")


def _header_length(content: bytes) -> int:
    """Return how far behind the start of its header a ZIP member's bytes begin."""
    if len(content) < HEADER.size or not content.startswith(SIGNATURE):
        raise ImageError(f"{DAMAGED}: it does not lie where the archive says")
    _, name_length, extra_length = HEADER.unpack_from(content)
    return HEADER.size + int(name_length) + int(extra_length)


def _inflate(packed: memoryview, size: int) -> bytes:
    """Decompress at most one byte more than a declared size."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, size + 1)
    except zlib.error as error:
        raise ImageError(f"{DAMAGED}: {error}") from error
