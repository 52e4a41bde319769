"""Read images that URLs name, with permission only: http and https here, others, such as s3, through fsspec.

What is downloaded lies in a folder beside the cache until that is whole, so that nothing is downloaded twice.
"""

import contextlib
import functools
import hashlib
import os
import re
import struct
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hfc.datasets import web
from hfc.datasets.archives import LARGEST
from hfc.errors import AwayError, ConfigError, DatasetError, ImageError, StoreError, missing_extra

WEB = ("http", "https")
# Storage that fsspec reads, and the package that does it. None of them is a file of this machine.
STORAGE = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs", "hf": "huggingface_hub"}
FOLDER = ".downloads"  # beside the cache, after its name
URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
NAME = re.compile(r"[0-9a-f]{64}(\.\d+-\d+\.part)?")
HEADER = struct.Struct("<qq")  # of what is kept: version and size
VERSIONS = ("ETag", "etag", "LastModified", "last_modified", "generation", "md5Hash", "blob_id", "mtime")


@dataclass(frozen=True)
class Downloads:
    """The permission to read URLs, and the folder of what was read. It can be sent to another process."""

    folder: Path | None = None
    """None: nothing is kept."""

    def read(self, url: str) -> bytes:
        """Return the bytes that a URL names, downloaded before or now.

        Raises:
            ImageError: they cannot be had.
            StoreError: there is no room for them.
        """
        return self.look(url)[0]

    def look(self, url: str) -> tuple[bytes, int]:
        """Return the bytes that a URL names, and a number of their version; -1 = unknown.

        Raises:
            ImageError, StoreError: as `read`.
        """
        kept = _kept(self._file(url))
        if kept is None:
            answer = web.get(url) if _scheme(url) in WEB else _from_storage(url)
            kept = answer.content, answer.modified
            self._keep(url, *kept)
        return kept

    def stamp(self, url: str) -> tuple[int, int]:
        """Ask for size and version of what a URL names, without downloading it; -1 = unknown."""
        try:
            answer = web.head(url) if _scheme(url) in WEB else _of_storage(url)
        except ImageError:  # many servers answer nothing but GET
            return web.UNKNOWN, web.UNKNOWN
        return answer.size, answer.modified

    def remove(self) -> None:
        """Remove what is kept. Files of others stay."""
        if self.folder is None or not self.folder.is_dir():
            return
        for file in self.folder.iterdir():
            if NAME.fullmatch(file.name):
                file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty
            self.folder.rmdir()

    def _file(self, url: str) -> Path | None:
        return self.folder / hashlib.sha256(url.encode()).hexdigest() if self.folder else None

    def _keep(self, url: str, content: bytes, modified: int) -> None:
        file = self._file(url)
        if file is None:
            return
        part = file.with_name(f"{file.name}.{os.getpid()}-{threading.get_ident()}.part")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(HEADER.pack(modified, len(content)) + content)
            part.replace(file)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise StoreError(
                f"{file.parent}: a download cannot be kept: {error.strerror}; make room and run again"
            ) from error


def is_url(path: str) -> bool:
    """Return whether a path is a URL. The drive of `C:/1.jpg` makes none."""
    return "://" in path and URL.match(path) is not None


def beside(out: Path) -> Downloads:
    """Return the downloads of a cache."""
    return Downloads(out.with_name(out.name + FOLDER))


def check_urls(file: Path, numbers: Iterable[int], urls: Iterable[str], *, allowed: bool) -> None:
    """Check some URLs before any request.

    Raises:
        DatasetError: one is not allowed, or of a kind that is not read; the message names file and row.
        ConfigError: a package is missing.
    """
    schemes = set()
    for number, url in zip(numbers, urls, strict=True):
        if problem := _problem(url, allowed):
            raise DatasetError(f"{file}: row {number}: {problem}")
        schemes.add(_scheme(url))
    for scheme in sorted(schemes):
        _check_packages(scheme)


def _problem(url: str, allowed: bool) -> str:
    """Return what is wrong with a URL; "" = nothing."""
    scheme = _scheme(url)
    if scheme not in (*WEB, *STORAGE):
        known = ", ".join((*WEB, *STORAGE))
        return f"expected a path or a URL of {known}, found one of {scheme}; for a file of this machine give its path"
    if not allowed:
        return f"the image is on the network, {shown(url)}; give --remote to download it, or name a file"
    try:
        parts = urlsplit(url)
        named, secret = parts.hostname, parts.password is not None or (scheme in WEB and parts.username is not None)
    except ValueError:
        named, secret = None, False
    if not named:
        return f"expected a URL with a host, found {shown(url)}"
    if secret:
        return (
            f"expected a URL without user name and password, found those in {shown(url)}, where they would be kept in "
            "the cache; write them into ~/.netrc"
        )
    return ""


def shown(url: str) -> str:
    """Return a URL without what may be secret: user, password and what follows a question mark."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return f"{_scheme(url)}://…"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" + ("?…" if parts.query else "")


def _scheme(url: str) -> str:
    return url.partition("://")[0].lower()


def _check_packages(scheme: str) -> None:
    if scheme in WEB:
        web.import_aiohttp()
        return
    _fsspec()
    if not find_spec(package := STORAGE[scheme]):
        raise ConfigError(f"{scheme}:// is read by {package}, which is not installed: python -m pip install {package}")


def _kept(file: Path | None) -> tuple[bytes, int] | None:
    """Read what was downloaded; None where it is not there, or not whole."""
    try:
        content = file.read_bytes() if file else b""
    except FileNotFoundError:
        return None
    if len(content) < HEADER.size:
        return None
    modified, size = HEADER.unpack_from(content)
    return (content[HEADER.size :], modified) if len(content) == HEADER.size + size else None


def _fsspec() -> Any:
    try:
        import fsspec
    except ImportError as error:
        raise missing_extra("URLs of storage", "fsspec", "remote") from error
    return fsspec


@functools.lru_cache
def _filesystem(scheme: str, process: int) -> Any:
    return _fsspec().filesystem(scheme)


def _from_storage(url: str) -> web.Answer:
    """Read what a URL of storage names, with the credentials of the environment. fsspec tries again by itself."""
    answer = _of_storage(url)
    if answer.size > LARGEST:
        raise ImageError(f"more than {LARGEST} bytes")
    try:
        content = _filesystem(_scheme(url), os.getpid()).cat_file(url)
    except Exception as error:  # each kind of storage has errors of its own
        raise _explained(url, error) from error
    return web.Answer(content, len(content), answer.modified)


def _of_storage(url: str) -> web.Answer:
    try:
        info = _filesystem(_scheme(url), os.getpid()).info(url)
    except Exception as error:
        raise _explained(url, error) from error
    size = info.get("size")
    return web.Answer(b"", web.UNKNOWN if size is None else size, web.version(*(info.get(mark) for mark in VERSIONS)))


def _explained(url: str, error: Exception) -> ImageError:
    """Make the error for what storage refuses. Its own text may hold the URL with its secrets, or many lines."""
    known = {FileNotFoundError: "no such file", PermissionError: "no permission", TimeoutError: "no answer in time"}
    reason = next((text for kind, text in known.items() if isinstance(error, kind)), type(error).__name__)
    kind = ImageError if isinstance(error, FileNotFoundError | PermissionError) else AwayError
    return kind(f"cannot be read from {_scheme(url)}: {reason}")
