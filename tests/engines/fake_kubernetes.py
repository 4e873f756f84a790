"""A real HTTP server that speaks the few Kubernetes API calls used: RayClusters, their watch, the list of pods.

It allows what the role in deployments/kubernetes/rbac.yaml allows, to whoever has its token.
"""

from __future__ import annotations

import copy
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

RBAC = Path(__file__).parents[2] / "deployments" / "kubernetes" / "rbac.yaml"
TOKEN = "tok-5ecret-of-the-flow"
VERBS = {"POST": "create", "PATCH": "patch", "DELETE": "delete"}
DELETE_SECONDS = 0.3


def role_rules() -> set[tuple[str, str]]:
    """(resource, verb) pairs of the role."""
    (role,) = [each for each in yaml.safe_load_all(RBAC.read_text()) if each["kind"] == "Role"]
    return {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}


class FakeKubernetes:
    """State of the server, and how it and its operator behave. Times are in seconds."""

    def __init__(self) -> None:
        self.allowed = role_rules()
        self.has_crd = True
        self.namespaces = {"evals"}
        self.quota = ""  # message of a quota that refuses every cluster
        self.ready_after: float | None = 0.2
        self.workers_ready = True
        self.watch_lengths: list[float] = []  # of the next watches; then as asked for
        self.failures: list[tuple[str, int]] = []  # (verb, status) of calls that fail once
        self.forgets_versions = False  # answers watches with 410 events
        self.pods: list[dict[str, Any]] = []
        self.clusters: dict[str, dict[str, Any]] = {}
        self.used: list[tuple[str, str]] = []  # (resource, verb)
        self.created: list[dict[str, Any]] = []
        self.deleted: list[str] = []
        self._version = 0
        self._events: list[tuple[int, str, dict[str, Any]]] = []
        self.changed = threading.Condition()

    def put(self, kind: str, cluster: dict[str, Any]) -> None:
        """Note a change of a cluster."""
        with self.changed:
            self._version += 1
            cluster["metadata"]["resourceVersion"] = str(self._version)
            name = cluster["metadata"]["name"]
            if kind == "DELETED":
                self.clusters.pop(name, None)
                self.deleted.append(name)
            else:
                self.clusters[name] = cluster
            self._events.append((self._version, kind, copy.deepcopy(cluster)))
            self.changed.notify_all()

    def events(self, name: str, since: int, seconds: float) -> Iterator[dict[str, Any]]:
        """Events after version ``since`` as they come, for ``seconds``."""
        end = time.monotonic() + seconds
        while True:
            with self.changed:
                new = [e for e in self._events if e[0] > since and e[2]["metadata"]["name"] == name]
                if not new:
                    if not self.changed.wait(max(0.0, end - time.monotonic())) and time.monotonic() >= end:
                        return
                    continue
            for version, kind, cluster in new:
                since = version
                yield {"type": kind, "object": cluster}

    def become_ready(self, name: str) -> None:
        """What the operator does once all pods run."""
        if cluster := self.clusters.get(name):
            workers = cluster["spec"]["workerGroupSpecs"][0]["replicas"] if self.workers_ready else 0
            cluster["status"] = {"state": "ready", "desiredWorkerReplicas": workers, "readyWorkerReplicas": workers}
            self.put("MODIFIED", cluster)

    def add(self, cluster: dict[str, Any]) -> None:
        """Take a new cluster; the operator gets to work."""
        cluster["metadata"]["uid"] = f"uid-{len(self.created)}"
        self.created.append(copy.deepcopy(cluster))
        self.put("ADDED", cluster)
        if self.ready_after is not None:
            after(self.ready_after, self.become_ready, cluster["metadata"]["name"])

    def delete(self, cluster: dict[str, Any]) -> None:
        """Foreground deletion: gone once its pods are."""
        cluster["metadata"]["deletionTimestamp"] = "2026-11-24T07:00:00Z"
        self.put("MODIFIED", cluster)
        after(DELETE_SECONDS, self.put, "DELETED", cluster)


def after(seconds: float, call: Any, *arguments: Any) -> None:
    timer = threading.Timer(seconds, call, arguments)
    timer.daemon = True
    timer.start()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    world: FakeKubernetes

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, body: Any, status: int = 200, content_type: str = "application/json") -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, status: int, reason: str, message: str, **details: str) -> None:
        body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message}
        self.answer({**body, "code": status, "details": details}, status)

    def handle_call(self) -> None:
        world = self.world
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        resource, name, namespace = self.target(url.path)
        reading = "watch" if query.get("watch") == "true" else "get" if name else "list"
        verb = VERBS.get(self.command, reading)
        world.used.append((resource, verb))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.refuse(401, "Unauthorized", "Unauthorized")
        if failure := next((each for each in world.failures if each[0] == verb), None):
            world.failures.remove(failure)
            return self.refuse(failure[1], "ServiceUnavailable", "the server is busy")
        if (resource, verb) not in world.allowed:
            return self.refuse(403, "Forbidden", f'rayclusters.ray.io is forbidden: User "flow" cannot {verb} resource')
        if resource == "pods":
            return self.answer({"items": world.pods})
        if not world.has_crd:
            return self.answer("404 page not found\n", 404, "text/plain; charset=utf-8")
        found = world.clusters.get(name)
        if name and found is None:
            return self.refuse(404, "NotFound", f'rayclusters.ray.io "{name}" not found', kind="rayclusters")
        if verb == "create":
            return self.create(json.loads(body), namespace)
        if verb == "watch":
            return self.stream(query)
        if verb == "list":
            labels = dict(each.split("=") for each in query["labelSelector"].split(","))
            ours = [c for c in world.clusters.values() if labels.items() <= c["metadata"].get("labels", {}).items()]
            return self.answer({"items": ours})
        assert found is not None
        if verb == "patch":
            assert self.headers["Content-Type"] == "application/merge-patch+json"
            found["metadata"]["annotations"] |= json.loads(body)["metadata"]["annotations"]
            world.put("MODIFIED", found)
        elif verb == "delete":
            options = json.loads(body)
            assert options["propagationPolicy"] == "Foreground"
            if any(found["metadata"][key] != value for key, value in options["preconditions"].items()):
                return self.refuse(409, "Conflict", "Precondition failed")
            world.delete(found)
        return self.answer(found)

    def target(self, path: str) -> tuple[str, str, str]:
        parts = path.strip("/").split("/")
        prefix, rest = (parts[:2], parts[2:]) if parts[0] == "api" else (parts[:3], parts[3:])
        assert "/".join(prefix) in ("api/v1", "apis/ray.io/v1"), path
        assert rest[0] == "namespaces", path
        return rest[2], rest[3] if len(rest) > 3 else "", rest[1]

    def create(self, cluster: dict[str, Any], namespace: str) -> None:
        name = cluster["metadata"]["name"]
        if namespace not in self.world.namespaces:
            return self.refuse(404, "NotFound", f'namespaces "{namespace}" not found', kind="namespaces")
        if self.world.quota:
            return self.refuse(403, "Forbidden", self.world.quota)
        if name in self.world.clusters:
            return self.refuse(409, "AlreadyExists", f'rayclusters.ray.io "{name}" already exists')
        self.world.add(cluster)
        return self.answer(cluster, 201)

    def stream(self, query: dict[str, str]) -> None:
        name = query["fieldSelector"].removeprefix("metadata.name=")
        lengths = self.world.watch_lengths
        seconds = lengths.pop(0) if lengths else float(query["timeoutSeconds"])
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if self.world.forgets_versions:
            self.world.forgets_versions = False
            gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
            self.chunk(json.dumps({"type": "ERROR", "object": gone}) + "\n")
        else:
            for event in self.world.events(name, int(query["resourceVersion"]), seconds):
                self.chunk(json.dumps(event) + "\n")
        self.chunk("")

    def chunk(self, text: str) -> None:
        self.wfile.write(f"{len(text.encode()):x}\r\n{text}\r\n".encode())

    def do(self) -> None:
        try:
            self.handle_call()
        except (BrokenPipeError, ConnectionResetError):  # a client that left its watch
            self.close_connection = True

    do_GET = do_POST = do_PATCH = do_DELETE = do


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False


@contextmanager
def served(world: FakeKubernetes) -> Iterator[str]:
    """Serve ``world`` on loopback; yields the URL."""
    server = Server(("127.0.0.1", 0), type("Bound", (Handler,), {"world": world}))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def kubeconfig(path: Path, url: str, user: dict[str, Any]) -> Path:
    """Write a kubeconfig for ``url``."""
    entries = {
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    }
    path.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", "current-context": "x", **entries}))
    return path
