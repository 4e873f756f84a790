"""A server on loopback that speaks as much of the Hugging Face hub's HTTP interface as reading datasets and models takes."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@dataclass
class Hub:
    """Repositories of datasets and models: id → commit → path → bytes; the last commit is the newest. ``gated`` ids are refused."""

    repositories: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def push(self, repository: str, files: dict[str, bytes]) -> str:
        """Add a commit; returns its id."""
        commits = self.repositories.setdefault(repository, {})
        commit = hashlib.sha1(f"{repository} {len(commits)}".encode()).hexdigest()
        commits[commit] = files
        return commit


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

        def do_HEAD(self) -> None:
            self._answer(head=True)

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            self._answer(body=body)

        def _answer(self, head: bool = False, body: str = "") -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(f"{self.command} {path}")
            parts = path.strip("/").split("/")
            api = parts[:1] == ["api"]
            parts = parts[1:] if api else parts
            if parts[2:3] == ["resolve"]:  # a model's file
                parts = ["models", *parts]
            if parts[:1] not in (["datasets"], ["models"]) or len(parts) < 3:
                self._send(200, b"{}", head=head)
                return
            repository, rest = "/".join(parts[1:3]), parts[3:]
            commits = hub.repositories.get(repository)
            if commits is None or repository in hub.gated:
                code, error = (403, "GatedRepo") if commits else (401, "RepoNotFound")
                self._send(code, b"{}", head=head, error=error)
                return
            revision = rest[1] if len(rest) > 1 else "main"
            commit = list(commits)[-1] if revision in ("main", "HEAD") else revision
            files = commits.get(commit)
            if files is None:
                self._send(404, b"{}", head=head, error="RevisionNotFound")
            elif not api:
                self._file(files, commit, "/".join(rest[2:]), head)
            elif rest[:1] == ["tree"]:
                self._json(self._tree(files, "/".join(rest[2:])), commit)
            elif rest[:1] == ["paths-info"]:
                self._json(self._info(files, body), commit)
            else:
                siblings = [{"rfilename": name} for name in files]
                self._json({"id": repository, "sha": commit, "siblings": siblings, "private": False}, commit)

        def _tree(self, files: dict[str, bytes], folder: str) -> list[dict[str, object]]:
            below = [name for name in files if not folder or name.startswith(f"{folder}/")]
            recursive = "recursive=true" in self.path.lower()
            found: dict[str, dict[str, object]] = {}
            for name in below:
                inner = name[len(folder) + 1 :] if folder else name
                if "/" in inner:
                    top = f"{folder}/{inner.split('/')[0]}".strip("/")
                    found[top] = {"type": "directory", "path": top, "oid": "0" * 40, "size": 0}
                if "/" not in inner or recursive:
                    found[name] = self._entry(name, files[name])
            return list(found.values())

        def _info(self, files: dict[str, bytes], body: str) -> list[dict[str, object]]:
            wanted = json.loads(body)["paths"] if body.startswith("{") else [p.split("=")[1] for p in body.split("&")]
            wanted = [unquote(path) for path in ([wanted] if isinstance(wanted, str) else wanted)]
            found = [self._entry(name, files[name]) for name in wanted if name in files]
            for path in wanted:
                if path not in files and any(name.startswith(f"{path}/") for name in files):
                    found.append({"type": "directory", "path": path, "oid": "0" * 40, "size": 0})
            return found

        def _entry(self, name: str, content: bytes) -> dict[str, object]:
            return {"type": "file", "path": name, "oid": hashlib.sha1(content).hexdigest(), "size": len(content)}

        def _file(self, files: dict[str, bytes], commit: str, name: str, head: bool) -> None:
            content = files.get(name)
            if content is None:
                self._send(404, b"", head=head, error="EntryNotFound", commit=commit)
                return
            etag = hashlib.sha1(content).hexdigest()
            if part := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
                content = content[int(part[1]) : int(part[2]) + 1 if part[2] else None]
            self._send(206 if part else 200, content, head=head, commit=commit, etag=etag)

        def _json(self, value: object, commit: str) -> None:
            self._send(200, json.dumps(value).encode(), commit=commit)

        def _send(
            self, code: int, content: bytes, *, head: bool = False, error: str = "", commit: str = "", etag: str = ""
        ) -> None:
            self.send_response(code)
            self.send_header("Content-Length", str(len(content)))
            for name, value in (
                ("X-Error-Code", error),
                ("X-Repo-Commit", commit),
                ("ETag", f'"{etag}"' if etag else ""),
            ):
                if value:
                    self.send_header(name, value)
            self.end_headers()
            if not head:
                self.wfile.write(content)

    return Handler


@contextmanager
def hub_server() -> Iterator[Hub]:
    """Serve an empty hub until the block ends."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
