"""A door before a real S3 server: it may be slow, say now and then that it is busy, as S3 does under load, or be an old one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from deployments.local_s3 import REGION, S3Keys

BUSY = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


@dataclass
class Door:
    """``is_busy`` is asked before each request, with how many came before; ``seconds`` is how long each is held up."""

    endpoint: str
    is_busy: Callable[[int], bool] = lambda number: False
    seconds: float = 0.0
    keys: S3Keys | None = (
        None  # with which requests are signed anew without their conditions, as if the server knew none
    )
    refused: list[str] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def lets_in(self, request: str) -> bool:
        """Decide about one request."""
        self.over.wait(self.seconds)
        with self._lock:
            busy = self.is_busy(len(self.refused) + len(self.passed))
            (self.refused if busy else self.passed).append(request)
            return not busy


def without_conditions(method: str, url: str, headers: dict[str, str], keys: S3Keys) -> dict[str, str]:
    """Return the headers of a request as a client would sign it that asks no conditions."""
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    dropped = ("if-none-match", "authorization", "x-amz-date", "host")
    kept = {name: value for name, value in headers.items() if name.lower() not in dropped}
    request = AWSRequest(method, url, headers={**kept, "Host": urlsplit(url).netloc})
    SigV4Auth(Credentials(keys.access_key, keys.secret_key), "s3", REGION).add_auth(request)
    return dict(request.headers.items())


@contextmanager
def door_to(endpoint: str) -> Iterator[Door]:
    """Open a door on loopback to the server at ``endpoint``."""
    host = urlsplit(endpoint).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if not door.lets_in(f"{self.command} {self.path}"):
                self._answer(503, [("Content-Type", "application/xml")], BUSY)
                return
            server = HTTPConnection(host, timeout=60)
            try:
                server.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                headers = dict(self.headers.items())  # the host too, for it is signed
                if door.keys is not None:
                    headers = without_conditions(self.command, f"{endpoint}{self.path}", headers, door.keys)
                for name, value in headers.items():
                    server.putheader(name, value)
                server.endheaders(body)
                answer = server.getresponse()
                self._answer(answer.status, answer.getheaders(), answer.read())
            finally:
                server.close()

        def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                    self.send_header(name, value)
            length = {name.lower(): value for name, value in headers}.get("content-length")
            self.send_header("Content-Length", length if self.command == "HEAD" and length else str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    door = Door(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield door
    finally:
        door.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
