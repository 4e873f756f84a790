"""Pages that a task's code reads with ``requests``: from the mirror, the network or this machine's copy."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from core.benchmark.datasets.mirror import Mirror
from core.benchmark.datasets.web import keep_pages
from core.errors import UserError


class Page(BaseHTTPRequestHandler):
    asked = 0

    def do_GET(self) -> None:
        Page.asked += 1
        body = b'{"page": 1}' if self.path.startswith("/page") else b"gone"
        self.send_response(200 if self.path.startswith("/page") else 404)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    """A web server; what is patched is put back."""
    monkeypatch.setenv("STEELYARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(requests.Session, "request", requests.Session.request)
    Page.asked = 0
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield served
        served.shutdown()


def test_a_page_is_there_when_the_network_is_not(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{server.server_port}/page"
    mirror = Mirror(str(tmp_path / "mirror"))
    plain = requests.Session.request
    keep_pages([mirror], save=True, offline=False)
    assert requests.get(url, timeout=5).json() == {"page": 1}
    assert requests.get(url, params={"a": 1}, timeout=5).json() == {"page": 1}
    assert Page.asked == 2  # another URL is another page
    assert requests.get(url, timeout=5).json() == {"page": 1}
    assert Page.asked == 2  # from the mirror
    server.shutdown()
    server.server_close()
    for mirrors, offline in (([], False), ([], True), ([mirror], True)):
        requests.Session.request = plain  # type: ignore[method-assign]
        keep_pages(mirrors, save=False, offline=offline)
        response = requests.get(url, timeout=5)
        response.raise_for_status()
        assert response.json() == {"page": 1}


def test_what_is_no_page_is_not_kept_and_what_is_missing_says_why(server: ThreadingHTTPServer) -> None:
    url = f"http://127.0.0.1:{server.server_port}"
    keep_pages([], save=False, offline=False)
    assert requests.get(f"{url}/gone", timeout=5).status_code == 404
    server.shutdown()
    server.server_close()
    with pytest.raises(
        UserError, match=r"/gone: it does not answer \(ConnectionError\), and no copy of it is here: run 'steelyard"
    ):
        requests.get(f"{url}/gone", timeout=5)
    keep_pages([], save=False, offline=True)
    with pytest.raises(UserError, match="/page: datasets.offline is set, and no copy of it is here"):
        requests.get(f"{url}/page", timeout=5)
