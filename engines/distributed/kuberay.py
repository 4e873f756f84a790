"""A Ray cluster on Kubernetes, by the KubeRay operator: made for a placement, renewed while in use, deleted after.

``python -m engines.distributed.kuberay NAMESPACE`` deletes clusters whose flows have crashed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Any

from core.errors import EngineDiedError, SteelyardError, UserError
from core.model.placement import Placement
from core.redact import redact
from core.spec.fleet import KubeRaySpec
from engines.distributed.kube_api import ConflictError, KubeApi, NotFoundError, connect
from engines.distributed.kuberay_manifest import cluster_name, head_address, is_expired, owner_of, render, shape

HOLDER = "steelyard/holder"  # annotation that tells our cluster from another of the same name
WATCH_SECONDS = 60.0  # a watch is renewed so often; one whose connection died unnoticed costs little more
PAUSE_SECONDS = 1.0
DELETE_SECONDS = 120.0
RENEWALS = 4  # within idle_seconds: three may fail
RENEW_SECONDS = 30.0  # at most between two
STARTING = ("ContainerCreating", "PodInitializing")

log = logging.getLogger("steelyard.kuberay")


def reap(api: KubeApi, now: datetime) -> list[str]:
    """Delete our clusters whose expiry has passed: their flows have crashed. Returns their names, and does not wait.

    One that is renewed at this moment stays.
    """
    gone = []
    for cluster in api.ours():
        found = cluster["metadata"]
        if is_expired(cluster, now) and "deletionTimestamp" not in found:
            with suppress(NotFoundError, ConflictError):
                api.delete(found["name"], found["uid"], found["resourceVersion"])
                gone.append(found["name"])
                log.warning("RayCluster %s: expired, deleted", found["name"])
    return gone


@contextmanager
def provision(
    spec: KubeRaySpec,
    placement: Placement,
    gpus_per_node: int,
    *,
    campaign: str,
    model: str,
    run: str,
) -> Iterator[str]:
    """Yield host:port of the head of a cluster made for ``placement`` on nodes of ``gpus_per_node``; it is deleted on every exit.

    Expired clusters of crashed flows are deleted first. Raises `core.errors.UserError` for what a person can mend and
    `core.errors.EngineDiedError`, with what its pods say, for a cluster that is not up after ``spec.start_seconds``.
    """
    nodes, gpus = shape(placement, gpus_per_node)
    name = cluster_name(campaign, model, run)
    labels = {"steelyard/campaign": campaign, "steelyard/model": model, "steelyard/run": run}
    owner = owner_of(os.environ, spec.namespace)
    api = connect(spec.namespace)
    reap(api, datetime.now(UTC))
    manifest = render(spec, name, gpus, nodes, owner, labels, _expiry(spec), ray_version=version("ray"))
    holder = secrets.token_hex(8)
    manifest["metadata"]["annotations"][HOLDER] = holder
    ended = threading.Event()
    renewing = threading.Thread(target=_renew, args=(api, spec, name, ended), name="steelyard-renew", daemon=True)
    try:
        _create(api, name, manifest)
        renewing.start()
        await_ready(api, name, nodes, spec.start_seconds)
        yield head_address(name, spec.namespace)
    finally:
        ended.set()
        if renewing.ident is not None:
            renewing.join()
        _remove(api, name, holder)


class Entered:
    """A context such as `provision`, entered and left on threads. Left while it is being entered, it ends as soon as it is in."""

    def __init__(self, context: AbstractContextManager[str]) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._inside, self._left = False, False

    async def enter(self) -> str:
        """Enter, and return what the context yields."""
        return await asyncio.to_thread(self._enter)

    async def leave(self) -> None:
        """Leave what was entered."""
        with self._lock:
            inside, self._inside, self._left = self._inside, False, True
        if inside:
            await asyncio.shield(asyncio.to_thread(self._context.__exit__, None, None, None))

    def _enter(self) -> str:
        yielded = self._context.__enter__()
        with self._lock:
            self._inside = not self._left
            if self._inside:
                return yielded
        self._context.__exit__(None, None, None)
        return yielded


def await_ready(api: KubeApi, name: str, nodes: int, seconds: float) -> None:
    """Return when the cluster and its ``nodes`` workers are up.

    Raises `core.errors.EngineDiedError` with what its pods say after ``seconds``, `core.errors.UserError` where a quota is why.
    """
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        began = time.monotonic()
        try:
            found = api.get(name)
            if _is_ready(found, nodes):
                return
            for event, changed in api.watch(name, found["metadata"]["resourceVersion"], min(left, WATCH_SECONDS)):
                if event == "DELETED":
                    raise NotFoundError(name)
                if event == "ERROR":  # the version is too old: read it anew
                    break
                if _is_ready(changed, nodes):
                    return
                if time.monotonic() > deadline:
                    break
        except NotFoundError:
            raise EngineDiedError(f"RayCluster {name}: deleted by somebody while it started") from None
        except EngineDiedError as error:
            log.warning("RayCluster %s: %s; trying again", name, error)
        # A server that ends every watch at once is not to be flooded.
        time.sleep(max(0.0, min(PAUSE_SECONDS - (time.monotonic() - began), deadline - time.monotonic())))
    raise _not_up(api, name, seconds)


def cluster_problems(cluster: Mapping[str, Any]) -> list[str]:
    """Return the operator's complaints about a RayCluster: pods it could not create."""
    status = cluster.get("status") or {}
    said = [status.get("reason") or ""]
    said += [
        f"{each.get('reason', '')}: {each.get('message', '')}"
        for each in status.get("conditions") or []
        if each.get("type") == "ReplicaFailure" and each.get("status") == "True"
    ]
    return [text for text in said if text.strip(": ")]


def pod_problems(pods: list[dict[str, Any]]) -> list[str]:
    """Return why pods are not running, one line each: pod, reason, message."""
    lines = []
    for pod in pods:
        status = pod.get("status") or {}
        reasons = [
            (each.get("reason"), each.get("message"))
            for each in status.get("conditions") or []
            if each.get("type") == "PodScheduled" and each.get("status") == "False"
        ]
        for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
            state = container.get("state") or {}
            waiting = state.get("waiting") or {}
            ended = state.get("terminated") or (container.get("lastState") or {}).get("terminated") or {}
            if waiting and waiting.get("reason") not in STARTING:
                reasons.append((waiting.get("reason"), waiting.get("message")))
            if ended.get("exitCode"):
                reasons.append((ended.get("reason"), ended.get("message") or f"exit code {ended['exitCode']}"))
        reasons = reasons or ([(status.get("phase"), "still starting")] if status.get("phase") == "Pending" else [])
        lines += [f"pod {pod['metadata']['name']}: {reason}: {message}" for reason, message in reasons]
    return lines


def _create(api: KubeApi, name: str, manifest: Mapping[str, Any]) -> None:
    """Create the cluster; one of this name that is just going is waited for."""
    deadline = time.monotonic() + DELETE_SECONDS
    while True:
        try:
            return api.create(manifest)
        except ConflictError:
            with suppress(NotFoundError):
                found = api.get(name)["metadata"]
                if "deletionTimestamp" not in found or time.monotonic() > deadline:
                    raise UserError(
                        f"RayCluster {name}: exists already in namespace {api.namespace}: another flow runs this model in the "
                        "same run, or one crashed less than idle_seconds ago; wait for it, or "
                        f"`kubectl delete raycluster {name} -n {api.namespace}`"
                    ) from None
                _await_gone(api, found, deadline)


def _is_ready(cluster: Mapping[str, Any], nodes: int) -> bool:
    """Operators before 1.2 called a cluster ready once, pods or no pods; the count of workers tells."""
    status = cluster.get("status") or {}
    workers = status.get("readyWorkerReplicas", status.get("availableWorkerReplicas", 0))
    return status.get("state") == "ready" and workers >= nodes


def _not_up(api: KubeApi, name: str, seconds: float) -> SteelyardError:
    try:
        pods = api.pods(name)
        said = cluster_problems(api.get(name)) + pod_problems(pods)
        if not pods:
            said.append("it has no pods; does the KubeRay operator run, and watch this namespace?")
    except SteelyardError as error:
        said = [f"and why cannot be read: {error}"]
    text = redact("; ".join(said)) or "its pods run, but the operator does not call it ready"
    if "exceeded quota" in text:
        return UserError(f"RayCluster {name}: {text}: ask for less, or for a larger quota in namespace {api.namespace}")
    return EngineDiedError(f"RayCluster {name} is not up after {seconds:g} s: {text}")


def _expiry(spec: KubeRaySpec) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=spec.idle_seconds)


def _renew(api: KubeApi, spec: KubeRaySpec, name: str, ended: threading.Event) -> None:
    """Move the expiry ahead until ``ended``."""
    while not ended.wait(min(spec.idle_seconds / RENEWALS, RENEW_SECONDS)):
        try:
            api.renew(name, _expiry(spec))
        except NotFoundError:
            return  # its user fails with it
        except SteelyardError as error:
            log.warning("RayCluster %s: not renewed: %s", name, error)


def _remove(api: KubeApi, name: str, holder: str) -> None:
    """Delete the cluster if it is ours, and wait until it and its pods are gone. Never raises: its expiry is the second way."""
    deadline = time.monotonic() + DELETE_SECONDS
    why = f"still there {DELETE_SECONDS:g} s after its deletion began"
    while time.monotonic() < deadline:
        try:
            found = api.get(name)["metadata"]
            if (found.get("annotations") or {}).get(HOLDER) != holder:
                return
            if "deletionTimestamp" not in found:
                api.delete(name, found["uid"])
            if _await_gone(api, found, deadline):
                return
        except NotFoundError:
            return
        except UserError as error:
            why = str(error)
            break
        except SteelyardError as error:
            why = str(error)
            time.sleep(PAUSE_SECONDS)
    log.warning("RayCluster %s: not deleted: %s", name, why)


def _await_gone(api: KubeApi, found: Mapping[str, Any], deadline: float) -> bool:
    """Whether the cluster with metadata ``found`` went while it was watched, for a while at most."""
    left = max(0.0, deadline - time.monotonic())
    for event, _ in api.watch(found["name"], found["resourceVersion"], min(left, WATCH_SECONDS)):
        if event == "DELETED":
            return True
        if event == "ERROR" or time.monotonic() > deadline:
            break
    time.sleep(PAUSE_SECONDS)  # a server that ends every watch at once is not to be flooded
    return False


def main() -> None:
    """Delete the expired clusters of the namespace given as the only argument, and print their names."""
    try:
        for name in reap(connect(sys.argv[1]), datetime.now(UTC)):
            print(name)  # noqa: T201 - for its CronJob's log
    except (SteelyardError, IndexError) as error:
        sys.exit(str(error) if isinstance(error, SteelyardError) else "which namespace?")


if __name__ == "__main__":
    main()
