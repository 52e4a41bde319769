"""A web server on this machine for tests: files in memory, and answers that go wrong."""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Reply:
    """What the server answers."""

    content: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    announced: int | None = None
    """Content-Length, where it is not that of the content."""
    pause_s: float = 0.0
    """Before the answer, or with `drips` between its bytes."""
    drips: bool = False


class Server(ThreadingHTTPServer):
    """It counts the requests, by method and path."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, replies: Mapping[str, Reply], fail_every: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.replies = dict(replies)
        self.fail_every = fail_every
        """Of so many files one is answered with status 503 at first; 0: none. So one more try always helps."""
        self.requests: Counter[str] = Counter()
        self.most = 0
        """How many were answered at once."""
        self.now = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that went away are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        server = self.server
        with server.lock:
            request = f"{self.command} {self.path}"
            first = request not in server.requests
            server.requests[request] += 1
            fails = server.fail_every and first and len(server.requests) % server.fail_every == 0
            server.now += 1
            server.most = max(server.most, server.now)
        self._send(Reply(status=503) if fails else server.replies.get(self.path, Reply(status=404)))
        with server.lock:
            server.now -= 1

    do_HEAD = do_GET  # noqa: N815

    def _send(self, reply: Reply) -> None:
        if not reply.drips:
            time.sleep(reply.pause_s)
        self.send_response(reply.status, "a phrase of the server's own")
        for name, value in reply.headers.items():
            self.send_header(name, value)
        announced = len(reply.content) if reply.announced is None else reply.announced
        if announced >= 0:
            self.send_header("Content-Length", str(announced))
        self.end_headers()
        if self.command == "GET":
            with suppress(OSError):
                for part in (
                    [reply.content[i : i + 1] for i in range(len(reply.content))] if reply.drips else [reply.content]
                ):
                    self.wfile.write(part)
                    time.sleep(reply.pause_s * reply.drips)
        self.close_connection = announced != len(reply.content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is logged."""


@contextmanager
def serving(replies: Mapping[str, Reply], fail_every: int = 0) -> Iterator[Server]:
    """A server that answers meanwhile."""
    with Server(replies, fail_every) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
