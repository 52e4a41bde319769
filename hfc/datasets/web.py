"""Read what http and https URLs name, with limits of time and size. Only here is aiohttp used.

One thread waits for all servers; any number of threads asks it. Nothing but GET and HEAD is sent.
"""

import asyncio
import atexit
import functools
import hashlib
import ipaddress
import os
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

from hfc import __version__
from hfc.datasets.archives import LARGEST
from hfc.errors import AwayError, ImageError, missing_extra

CONNECT_S, SILENT_S, REQUEST_S = 10.0, 20.0, 60.0  # to connect, without a byte, and of one request
TOTAL_S = 180.0  # of all tries of one URL
TRIES = 4
PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0  # before the second try, doubled before every other; and where the server asks
REDIRECTS = 5
# A server that is away would cost a minute for each of its images. After so many in a row it is left alone for a while.
GIVEN_UP, REST_S = 50, 60.0
AGAIN = (408, 425, 429, 500, 502, 503, 504)  # status of an answer that may be another one next time
MOVED = (301, 302, 303, 307, 308)
UNKNOWN = -1

Result = TypeVar("Result")


@dataclass(frozen=True)
class Answer:
    """What a server sent."""

    content: bytes
    size: int
    """In bytes, as announced; -1 = unknown."""
    modified: int
    """A number for what the server tells of the file's version; -1 = nothing."""


class _AgainError(Exception):
    """A failure that may pass."""

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.pause = pause
        """Seconds that the server asks for."""


def get(url: str) -> Answer:
    """Download what a URL names.

    Raises:
        ImageError: why it cannot be had: the status of the answer, a limit, or the network.
    """
    return _run(lambda client: client.ask("GET", url, TRIES))


def head(url: str) -> Answer:
    """Ask once for size and version of what a URL names.

    Raises:
        ImageError: as `get`.
    """
    return _run(lambda client: client.ask("HEAD", url, 1))


def version(*marks: object) -> int:
    """Return a number of 60 bits for what tells versions of a file apart; -1 where nothing does.

    Taken for nanoseconds since 1970 it is long ago: no file that was written just now.
    """
    known = [str(mark) for mark in marks if mark]
    return int.from_bytes(hashlib.sha256("\0".join(known).encode()).digest()[:8]) >> 4 if known else UNKNOWN


def import_aiohttp() -> Any:
    """Import aiohttp, which is an extra.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import aiohttp
    except ImportError as error:
        raise missing_extra("URLs", "aiohttp", "remote") from error
    return aiohttp


class _Client:
    """The connections of this process, and the thread that waits for them."""

    def __init__(self) -> None:
        self._aiohttp = import_aiohttp()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="downloads", daemon=True)
        self._thread.start()
        self._session = self.run(_Client._open)
        self._away: dict[str, tuple[int, float]] = {}
        """How many images in a row a server did not answer for, and when it last did not."""
        self._process = os.getpid()
        atexit.register(self._close)

    def run(self, work: Callable[["_Client"], Coroutine[Any, Any, Result]]) -> Result:
        """Do some work in the thread of the connections, and wait for it."""
        return asyncio.run_coroutine_threadsafe(work(self), self._loop).result()

    def _close(self) -> None:
        """Close all connections, as Python ends."""
        if os.getpid() != self._process:  # a fork, where nobody waits for them
            return
        self.run(lambda client: client._session.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _open(self) -> Any:
        http = self._aiohttp
        return http.ClientSession(
            connector=http.TCPConnector(limit=0),  # as many as threads ask
            headers={"User-Agent": f"hfc/{__version__}", "Accept-Encoding": "identity"},
            cookie_jar=http.DummyCookieJar(),
            trust_env=True,  # proxies, and the passwords of ~/.netrc
        )

    async def ask(self, method: str, url: str, tries: int) -> Answer:
        """Send a request, several times if need be."""
        failures: list[str] = []
        pause = PAUSE_S
        try:
            async with asyncio.timeout(TOTAL_S):
                while len(failures) < tries:
                    self._refuse_away(_server(url))
                    try:
                        return await self._follow(method, url)
                    except _AgainError as error:
                        failures.append(str(error))
                        if len(failures) < tries:
                            await asyncio.sleep(min(max(pause, error.pause), LONGEST_PAUSE_S))
                        pause *= 2
        except TimeoutError:
            raise AwayError(f"not downloaded within {TOTAL_S:g} s{_after(failures)}") from None
        count, _ = self._away.get(_server(url), (0, 0.0))
        self._away[_server(url)] = count + 1, time.monotonic()
        raise AwayError(f"{failures[-1]}, {tries} times" if tries > 1 else failures[-1])

    def _refuse_away(self, server: str) -> None:
        count, last = self._away.get(server, (0, 0.0))
        if count >= GIVEN_UP and time.monotonic() - last < REST_S:
            raise AwayError(f"{server} did not answer for {count} images in a row, and was not asked")

    async def _follow(self, method: str, url: str) -> Answer:
        """Send a request, and again to where the answer leads."""
        http = self._aiohttp
        limits = http.ClientTimeout(total=REQUEST_S, sock_connect=CONNECT_S, sock_read=SILENT_S)
        for _ in range(REDIRECTS + 1):
            try:
                request = self._session.request(method, _encoded(url), allow_redirects=False, timeout=limits)
                async with request as response:
                    self._away.pop(_server(url), None)
                    target = response.headers.get("Location", "")
                    if response.status not in MOVED or not target:
                        return await _answer(response, method)
                target = urljoin(url, target)
                await _check_redirect(url, target)
                url = target
            except (http.ClientError, TimeoutError, OSError, ValueError) as error:
                raise self._explained(url, error) from error
        raise ImageError(f"more than {REDIRECTS} redirects")

    def _explained(self, url: str, error: Exception) -> Exception:
        """Make the error for what the network did. Its own text may hold the URL with its secrets."""
        http, server = self._aiohttp, _server(url)
        if isinstance(error, http.ClientSSLError | http.ClientConnectorCertificateError):
            return ImageError(f"{server} has no valid certificate")
        if isinstance(error, http.InvalidURL | ValueError):
            return ImageError("the URL is not valid")
        if isinstance(error, http.ClientConnectorError):
            number = error.os_error.errno or 0
            reason = os.strerror(number) if number > 0 else error.os_error.strerror or "no such server"
            return _AgainError(f"cannot connect to {server}: {reason}")
        if isinstance(error, TimeoutError):
            return _AgainError(f"{server} did not answer in time")
        return _AgainError(f"the connection to {server} broke off")


_opening = threading.Lock()


def _run(work: Callable[[_Client], Coroutine[Any, Any, Result]]) -> Result:
    with _opening:  # or every thread would open connections in the beginning
        client = _client(os.getpid())
    return client.run(work)


@functools.cache
def _client(process: int) -> _Client:
    """Open the connections of a process: a fork has no thread that waits."""
    return _Client()


async def _answer(response: Any, method: str) -> Answer:
    """Read an answer. No more of it comes into memory than an image may have."""
    if response.status != HTTPStatus.OK:
        reason = f"HTTP {response.status} {_phrase(response.status)}".strip()
        asked = response.headers.get("Retry-After", "")
        if response.status in AGAIN:
            raise _AgainError(reason, float(asked) if asked.isdecimal() and len(asked) < 6 else 0.0)
        raise ImageError(reason)
    announced = response.content_length
    parts: list[bytes] = []
    size = announced or 0
    if method == "GET":
        size = 0 if announced is None or announced <= LARGEST else announced
        while size <= LARGEST and (part := await response.content.readany()):
            parts.append(part)
            size += len(part)
        if size > LARGEST:
            response.close()
            raise ImageError(f"more than {LARGEST} bytes")
    modified = version(response.headers.get("ETag"), response.headers.get("Last-Modified"))
    return Answer(b"".join(parts), UNKNOWN if announced is None else announced, modified)


async def _check_redirect(url: str, target: str) -> None:
    """Raise an ImageError if a redirect leads where the URL itself could have led, but did not.

    To another protocol, to one without encryption, or from the internet into a private network.
    """
    schemes = urlsplit(url).scheme.lower(), urlsplit(target).scheme.lower()
    if schemes[1] not in ("http", "https") or schemes == ("https", "http"):
        raise ImageError(f"redirected from {schemes[0]} to {schemes[1]}")
    if await _is_private(target) and not await _is_private(url):
        raise ImageError("redirected to an address in a private network")


async def _is_private(url: str) -> bool:
    """Return whether a server has an address that is not of the internet."""
    try:
        places = await asyncio.get_running_loop().getaddrinfo(urlsplit(url).hostname, None)
        return not all(ipaddress.ip_address(str(place[4][0]).partition("%")[0]).is_global for place in places)
    except OSError:  # unknown here: behind a proxy, or nowhere
        return False


def _server(url: str) -> str:
    """Return host and port, without a user's name and password."""
    return urlsplit(url).netloc.rpartition("@")[2]


def _encoded(url: str) -> Any:
    """Take a URL as it is where it can be: to quote it again would break a signature in it."""
    from yarl import URL  # comes with aiohttp

    return URL(url, encoded=url.isascii() and " " not in url)


def _phrase(status: int) -> str:
    """Return the standard's words for a status, not the server's."""
    return HTTPStatus(status).phrase if status in set(HTTPStatus) else ""


def _after(failures: list[str]) -> str:
    return f", after {failures[-1]}" if failures else ""
