"""Requests of http: limits, tries, redirects, and reasons that hold no secrets."""

import asyncio
import contextlib
import re
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from hfc.datasets import web
from hfc.datasets.web import UNKNOWN, get, head, version
from hfc.errors import AwayError, ConfigError, ImageError
from tests.support.server import Reply, Server, serving

REPLIES = {
    "/ok": Reply(b"an image", headers={"ETag": '"1"'}),
    "/ok?key=secret": Reply(b"a signed image"),
    "/a%2Fb+c": Reply(b"quoted"),
    "/plain": Reply(b"no version"),
    "/dated": Reply(b"dated", headers={"Last-Modified": "Thu, 01 Oct 2026 10:00:00 GMT"}),
    "/unannounced": Reply(b"until the end", announced=-1),
    "/more": Reply(b"an image and more", announced=8),
    "/fewer": Reply(b"an im", announced=8),
    "/huge": Reply(b"x", announced=10**12),
    "/endless": Reply(b"x" * 100_000, announced=-1),
    "/slow": Reply(b"slow", pause_s=3),
    "/drips": Reply(b"x" * 40, drips=True, pause_s=0.1),
    "/gone": Reply(status=410),
    "/away": Reply(status=503),
    "/wait": Reply(status=429, headers={"Retry-After": "7"}),
    "/moved": Reply(status=302, headers={"Location": "ok"}),
    "/loop": Reply(status=301, headers={"Location": "/loop"}),
    "/local": Reply(status=302, headers={"Location": "file:///etc/passwd"}),
    "/nowhere": Reply(status=302),
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(REPLIES) as server:
        yield server


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "PAUSE_S", 0.01)
    monkeypatch.setattr(web, "REQUEST_S", 0.4)
    monkeypatch.setattr(web, "LARGEST", 50_000)


def requests(server: Server, path: str) -> int:
    return server.requests[f"GET {path}"]


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/ok", b"an image"),
        ("/ok?key=secret", b"a signed image"),
        ("/ok#part", b"an image"),
        ("/a%2Fb+c", b"quoted"),  # as it is written, or a signature would not fit
        ("/unannounced", b"until the end"),
        ("/moved", b"an image"),
    ],
)
def test_an_image_is_downloaded(path: str, content: bytes, server: Server) -> None:
    assert get(server.url + path).content == content


def test_no_more_is_taken_than_is_announced(server: Server) -> None:
    """What follows is no answer to a request: where it comes at once, the connection is given up."""
    for _ in range(5):
        with contextlib.suppress(AwayError):
            assert get(f"{server.url}/more").content == b"an image"
    assert get(f"{server.url}/ok").content == b"an image"


def test_a_version_is_what_the_server_tells() -> None:
    with serving({"/1": Reply(b"a", headers={"ETag": '"1"'}), "/2": Reply(b"b")}) as server:
        first = get(f"{server.url}/1")
        assert (first.size, first.modified) == (1, version('"1"'))
        assert (head(f"{server.url}/1").size, head(f"{server.url}/1").modified) == (1, first.modified)
        assert head(f"{server.url}/1").content == b""
        server.replies["/1"] = Reply(b"c", headers={"ETag": '"2"'})
        assert head(f"{server.url}/1").modified == version('"2"') != first.modified
        assert get(f"{server.url}/2").modified == UNKNOWN
    assert 0 <= version("a") < 1 << 60
    assert (version(), version(None, "")) == (UNKNOWN, UNKNOWN)


@pytest.mark.parametrize(
    ("path", "reason", "tries"),
    [
        ("/none", "HTTP 404 Not Found", 1),
        ("/gone", "HTTP 410 Gone", 1),
        ("/away", "HTTP 503 Service Unavailable, 4 times", 4),
        ("/fewer", "the connection to SERVER broke off, 4 times", 4),
        ("/slow", "SERVER did not answer in time, 4 times", 4),
        ("/drips", "SERVER did not answer in time, 4 times", 4),
        ("/huge", "more than 50000 bytes", 1),
        ("/endless", "more than 50000 bytes", 1),
        ("/loop", "more than 5 redirects", 6),
        ("/local", "redirected from http to file", 1),
        ("/nowhere", "HTTP 302 Found", 1),
    ],
)
def test_what_cannot_be_had_has_a_reason(path: str, reason: str, tries: int, server: Server) -> None:
    before = requests(server, path)
    with pytest.raises(ImageError, match=f"^{re.escape(reason.replace('SERVER', server.url[7:]))}$"):
        get(server.url + path)
    assert requests(server, path) - before == tries


def test_threads_download_side_by_side() -> None:
    with serving({f"/{i}": Reply(bytes([i]), pause_s=0.2) for i in range(16)}) as server:
        started = time.perf_counter()
        with ThreadPoolExecutor(16) as pool:
            contents = [answer.content for answer in pool.map(get, (f"{server.url}/{i}" for i in range(16)))]
        assert contents == [bytes([i]) for i in range(16)]
        assert server.most > 4
        assert time.perf_counter() - started < 16 * 0.2


def test_every_third_image_may_fail_at_first() -> None:
    with serving({f"/{i}": Reply(bytes([i])) for i in range(12)}, fail_every=3) as server:
        assert [get(f"{server.url}/{i}").content for i in range(12)] == [bytes([i]) for i in range(12)]
        assert server.requests.total() == 12 + 4


def test_a_server_may_ask_for_patience(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(ImageError, match=r"^HTTP 429 Too Many Requests, 4 times$"):
        get(f"{server.url}/wait")
    with pytest.raises(ImageError, match=r"^HTTP 503"):
        get(f"{server.url}/away")
    assert pauses == [7, 7, 7, 0.01, 0.02, 0.04]


def test_all_tries_together_have_a_limit(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "TOTAL_S", 0.3)
    monkeypatch.setattr(web, "PAUSE_S", 5)
    with pytest.raises(ImageError, match=r"^not downloaded within 0\.3 s, after HTTP 503 Service Unavailable$"):
        get(f"{server.url}/away")
    with pytest.raises(ImageError, match=r"^not downloaded within 0\.3 s$"):
        get(f"{server.url}/slow")


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_a_server_that_is_away_is_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "GIVEN_UP", 2)
    server = f"127.0.0.1:{closed_port()}"
    reasons = []
    for _ in range(3):
        with pytest.raises(ImageError) as caught:
            get(f"http://{server}/1")
        reasons.append(str(caught.value))
    refused = f"cannot connect to {server}: Connection refused, 4 times"
    assert reasons == [refused, refused, f"{server} did not answer for 2 images in a row, and was not asked"]
    monkeypatch.setattr(web, "REST_S", 0)
    with pytest.raises(ImageError, match=re.escape(refused)):
        get(f"http://{server}/1")


@pytest.mark.parametrize(
    ("before", "target", "reason"),
    [
        ("http://example.com/1", "http://example.com/2", ""),
        ("http://example.com/1", "https://example.org/2", ""),
        ("http://example.com/1", "http://10.0.0.7/", "redirected to an address in a private network"),
        ("http://example.com/1", "http://169.254.169.254/latest", "redirected to an address in a private network"),
        ("http://example.com/1", "http://[::1]:80/", "redirected to an address in a private network"),
        ("http://example.com/1", "http://inside.test/", "redirected to an address in a private network"),
        ("http://127.0.0.1/1", "http://10.0.0.7/", ""),  # the manifest itself leads into the private network
        ("https://example.com/1", "http://example.com/1", "redirected from https to http"),
        ("http://example.com/1", "data:image/png,1", "redirected from http to data"),
    ],
)
def test_redirects_lead_neither_inside_nor_to_less_protection(
    before: str, target: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = {"example.com": "93.184.215.14", "example.org": "93.184.215.15", "inside.test": "192.168.1.1"}

    async def check() -> None:
        async def resolve(host: str, port: None) -> list[tuple[object, ...]]:
            return [(2, 1, 6, "", (addresses.get(host, host), 0))]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve, raising=False)
        await web._check_redirect(before, target)

    if not reason:
        asyncio.run(check())
        return
    with pytest.raises(ImageError, match=f"^{re.escape(reason)}$"):
        asyncio.run(check())


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999/x", "http:///x"])
def test_a_url_that_is_none_says_so(url: str) -> None:
    with pytest.raises(ImageError, match=r"^the URL is not valid$"):
        get(url)


def test_without_aiohttp_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    message = 'URLs are read by aiohttp, which cannot be imported: python -m pip install "hfc[remote]"'
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        web.import_aiohttp()
