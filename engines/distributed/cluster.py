"""The Ray cluster under a service: a local one, kept by its daemon, or an existing one by its address. Imports no Ray."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from tenacity import RetryError, Retrying, retry_if_result, stop_after_attempt

from core.errors import EngineDiedError, UserError
from engines.distributed import runtime
from engines.distributed.runtime import DaemonConnection, LocalSpec
from engines.host.folder import runtime_folder
from engines.host.slots import INHERITED, visible_names
from engines.process.engine import child_environment
from engines.session.cpu_platform import ASKED_BY

REACH_SECONDS = 5.0
TRIES = 3  # a daemon that is just ending hangs up; the next one is ours


@dataclass(frozen=True)
class ClusterSpec:
    """The devices of a placement: ``devices`` of a fleet of ``gpus`` a node on ``device`` "cuda" or "cpu".

    With ``address`` (host:port) the cluster is there already: it decides on devices, and is never stopped by us. One on
    Kubernetes is joined by a Ray node of our own without CPUs and GPUs, since a driver needs one beside it; its services run
    where ``service_resource`` is, which only the nodes with the model's GPUs have.
    """

    devices: tuple[int, ...]
    gpus: int
    device: str
    address: str | None = None
    service_resource: str | None = None


@dataclass(frozen=True)
class LocalCluster:
    """A living local cluster, as its daemon describes it."""

    key: str
    address: str
    devices: tuple[str, ...]
    clients: int
    models: tuple[str, ...]

    def __str__(self) -> str:
        users = f"{self.clients} campaigns use it" if self.clients else "unused"
        loaded = ", ".join(self.models) or "no model"
        return f"{self.key}  {self.address}  devices {', '.join(self.devices)}  {users}  {loaded}"


@dataclass(frozen=True)
class Cluster:
    """A cluster that answers at ``address``; ``daemon`` keeps a local one."""

    address: str
    daemon: DaemonConnection | None

    def leave(self, idle_seconds: float) -> None:
        """Leave the cluster. A local one without other users ends after ``idle_seconds``; at 0 it has ended on return."""
        if self.daemon is not None:
            self.daemon.send(idle_seconds=idle_seconds)
            self.daemon.leave()


def attach(spec: ClusterSpec, service: str, held: Sequence[int] = ()) -> Cluster:
    """Find the cluster, or start it on the slots ``held`` (`engines.host.slots`); until `Cluster.leave` it ends with this process.

    Raises `core.errors.UserError` for an address that does not answer, `core.errors.EngineDiedError` with the cause where a
    local cluster does not start.
    """
    if spec.address is not None:
        check_address(spec.address)
        return Cluster(spec.address, None)
    local = local_spec(spec, os.environ)
    retrying = Retrying(retry=retry_if_result(lambda joined: joined is None), stop=stop_after_attempt(TRIES))
    try:
        return cast(Cluster, retrying(_join, local, service, held))
    except RetryError:
        why = f"it ends as soon as it starts; see {_log_path(local.key)}"
        raise EngineDiedError(f"local Ray cluster {local.key}: {why}") from None


def check_address(address: str) -> None:
    """Raise `core.errors.UserError` where nothing listens at ``address`` (host:port)."""
    host, _, port = address.rpartition(":")
    mend = "name the host:port of a running cluster, or leave it out for a local one"
    if not host or not port.isdigit():
        raise UserError(f"fleet.ray_address = {address!r}: not host:port; {mend}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_SECONDS).close()
    except OSError as error:
        raise UserError(f"fleet.ray_address = {address!r}: no answer ({error.strerror or error}); {mend}") from error


def local_spec(spec: ClusterSpec, environment: Mapping[str, str]) -> LocalSpec:
    """The local cluster of a placement. Without GPUs, the nodes of a fleet are Ray nodes on this machine.

    Raises `core.errors.UserError` where GPUs of several machines are meant.
    """
    nodes = sorted({device // spec.gpus for device in spec.devices})
    if spec.device == "cpu":
        split = tuple(tuple(str(d) for d in spec.devices if d // spec.gpus == node) for node in nodes)
        return LocalSpec("cpu", split)
    if nodes != [0]:
        raise UserError("fleet.ray_address: needed where a model's GPUs are not all on this machine")
    return LocalSpec("cuda", (tuple(visible_names(spec.devices, environment)),))


def driver_environment(spec: ClusterSpec) -> dict[str, str]:
    """Return the variables that a process needs before it imports Ray to drive the cluster; its actors get them too."""
    asked = {ASKED_BY: "1"} if spec.device == "cpu" else {}
    if spec.address is not None:
        return asked
    return {**asked, **token_environment(), **local_spec(spec, os.environ).environment}


def token_environment() -> dict[str, str]:
    """Return the variables of Ray's token authentication on local clusters. Ray reads them when it is imported."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(runtime.token_file())}


def local_clusters() -> list[LocalCluster]:
    """Return all living local clusters of this user."""
    found = []
    for key, daemon in _living_daemons():
        with closing(daemon), suppress(EngineDiedError):  # it failed to start, and is about to end
            if facts := daemon.greeting():
                devices, models = tuple(facts["devices"]), tuple(facts["models"])
                found.append(LocalCluster(key, facts["address"], devices, facts["clients"], models))
    return found


def stop_all() -> int:
    """End all local clusters and return how many there were. Returns when they have ended."""
    daemons = [daemon for _, daemon in _living_daemons()]
    for daemon in daemons:
        daemon.send(stop="now")
    for daemon in daemons:
        daemon.wait()
        daemon.close()
    return len(daemons)


def _living_daemons() -> Iterator[tuple[str, DaemonConnection]]:
    for path in sorted(runtime_folder().glob("*.sock")):
        if daemon := DaemonConnection.connect(path.stem):
            yield path.stem, daemon


@contextmanager
def claimed(key: str, idle_seconds: float) -> Iterator[None]:
    """Keep a living local cluster alive within the block, and for ``idle_seconds`` after its last client."""
    with ExitStack() as stack:
        if daemon := DaemonConnection.connect(key):
            stack.enter_context(closing(daemon)).send(idle_seconds=idle_seconds)
        yield


def serving(service: str) -> LocalCluster | None:
    """Return the local cluster that has a model loaded, by the name of its service."""
    return next((cluster for cluster in local_clusters() if service in cluster.models), None)


def end_unused(device: str, names: Collection[str]) -> None:
    """End local clusters that keep models loaded for nobody on any of the devices ``names``. Returns when they have ended."""
    for cluster in local_clusters():
        shares = cluster.key.startswith(f"{device}-") and not set(cluster.devices).isdisjoint(names)
        if shares and not cluster.clients and (daemon := DaemonConnection.connect(cluster.key)):
            daemon.send(stop="unused")
            daemon.leave()


def _join(local: LocalSpec, service: str, held: Sequence[int]) -> Cluster | None:
    """Join the local cluster as a client; None where its daemon is just ending."""
    daemon = _found_or_started(local, held)
    daemon.send(idle_seconds=0, model=service)
    if (facts := daemon.greeting()) is not None:
        return Cluster(facts["address"], daemon)
    daemon.close()
    return None


def _found_or_started(local: LocalSpec, held: Sequence[int]) -> DaemonConnection:
    with runtime.starting(local.key):
        if daemon := DaemonConnection.connect(local.key):
            return daemon
        path = runtime.socket_path(local.key)
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listener, _log_path(local.key).open("wb") as log:
            listener.bind(str(path))
            listener.listen()
            arguments = [str(listener.fileno()), json.dumps(asdict(local))]
            subprocess.Popen(
                [sys.executable, "-m", "engines.distributed.cluster_daemon", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[listener.fileno(), *held],
                start_new_session=True,  # it outlives this process, and Ctrl-C is not for it
                cwd=tempfile.gettempdir(),
                env={**child_environment(os.environ), **token_environment(), INHERITED: ",".join(map(str, held))},
            )
            # Before this listener is closed, so that a daemon that fails at once is seen as one that hangs up.
            daemon = DaemonConnection.connect(local.key)
    if daemon is None:
        raise EngineDiedError(f"local Ray cluster {local.key}: its keeper cannot be reached")
    return daemon


def _log_path(key: str) -> Path:
    return runtime_folder() / f"{key}.log"
