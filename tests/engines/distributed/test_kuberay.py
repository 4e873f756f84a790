"""RayClusters made, renewed, reaped and deleted, against a real HTTP server on loopback."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from core.errors import EngineDiedError, UserError
from engines.distributed.kube_api import connect
from engines.distributed.kuberay import Entered, reap
from engines.distributed.kuberay_manifest import cluster_name
from tests.engines.distributed.test_kuberay_manifest import check
from tests.engines.fake_kubernetes import FakeKubernetes, role_rules
from tests.engines.kuberay_flow import NAME, SLOW, SPEC, enter, message, provisioned

LATER = timedelta(days=1)

CRASHING = """
import sys, time
from tests.engines.kuberay_flow import provisioned
with provisioned(run="crashed"):
    print("up", flush=True)
    time.sleep(600)
"""


def expired(name: str, labels: dict[str, str]) -> dict[str, Any]:
    metadata = {"name": name, "labels": labels, "annotations": {"steelyard/expires": "2020-01-01T00:00:00Z"}}
    return {"metadata": metadata, "spec": {"workerGroupSpecs": [{"replicas": 1}]}}


def pod(name: str, **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "status": {"phase": "Pending", **status}}


def waiting(reason: str, text: str) -> list[dict[str, Any]]:
    return [{"name": "ray-worker", "state": {"waiting": {"reason": reason, "message": text}}}]


def test_it_comes_up_and_is_gone_after_the_block(world: FakeKubernetes) -> None:
    with provisioned() as address:
        assert address == f"{NAME}-head-svc.evals.svc:6379"
        assert world.clusters[NAME]["status"]["state"] == "ready"
    assert world.clusters == {}
    (manifest,) = world.created
    assert manifest["metadata"].pop("uid")
    check(manifest)
    assert manifest["spec"]["rayVersion"] == "2.60.0"
    assert manifest["spec"]["workerGroupSpecs"][0]["replicas"] == 2


def test_it_comes_up_after_a_watch_that_ended_midway(world: FakeKubernetes) -> None:
    world.ready_after, world.watch_lengths = 1.5, [0.2, 0.1]
    with provisioned():
        assert world.used.count(("rayclusters", "watch")) >= 2


def test_it_comes_up_through_a_failing_server_and_a_forgotten_version(world: FakeKubernetes) -> None:
    world.ready_after, world.forgets_versions = 2.5, True
    world.failures = [("get", 503), ("watch", 500)]
    with provisioned():
        assert world.failures == []


def test_ready_without_its_workers_is_not_up(world: FakeKubernetes) -> None:
    world.workers_ready = False  # as operators before 1.2 say it
    assert "not up after 1.5 s" in message(EngineDiedError, lambda: enter(SLOW))


@pytest.mark.parametrize(
    ("pods", "told"),
    [
        (
            [
                pod(
                    "w-1",
                    containerStatuses=waiting("ImagePullBackOff", 'Back-off pulling image "registry/steelyard:1"'),
                )
            ],
            'pod w-1: ImagePullBackOff: Back-off pulling image "registry/steelyard:1"',
        ),
        (
            [
                pod("h", phase="Running"),
                pod(
                    "w-2",
                    conditions=[
                        {
                            "type": "PodScheduled",
                            "status": "False",
                            "reason": "Unschedulable",
                            "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
                        }
                    ],
                ),
            ],
            "pod w-2: Unschedulable: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
        ),
        (
            [pod("w-3", containerStatuses=[{"state": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}])],
            "pod w-3: OOMKilled: exit code 137",
        ),
        ([pod("w-4", containerStatuses=waiting("ContainerCreating", ""))], "pod w-4: Pending: still starting"),
        ([], "it has no pods; does the KubeRay operator run"),
    ],
)
def test_a_cluster_that_does_not_come_up_says_why_and_is_deleted(
    world: FakeKubernetes, pods: list[dict[str, Any]], told: str
) -> None:
    world.ready_after, world.pods = None, pods
    text = message(EngineDiedError, lambda: enter(SLOW))
    assert text.startswith(f"RayCluster {NAME} is not up after 1.5 s: ")
    assert told in text
    assert world.deleted == [NAME]


def test_a_quota_that_stops_the_pods_is_the_user_s_to_mend(world: FakeKubernetes) -> None:
    said = "pods is forbidden: exceeded quota: gpus, requested: requests.nvidia.com/gpu=4, used: 8, limited: 8"
    status = {"conditions": [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": said}]}
    world.become_ready = lambda name: world.put("MODIFIED", {**world.clusters[name], "status": status})  # type: ignore[method-assign]
    text = message(UserError, lambda: enter(SLOW))
    assert said in text
    assert "larger quota in namespace evals" in text
    assert world.clusters == {}


def test_a_quota_that_stops_the_cluster_is_the_user_s_to_mend(world: FakeKubernetes) -> None:
    world.quota = "exceeded quota: objects, requested: count/rayclusters.ray.io=1, used: 2, limited: 2"
    assert message(UserError, enter).startswith(world.quota)


def test_an_exception_in_the_block_deletes_it(world: FakeKubernetes) -> None:
    with pytest.raises(ZeroDivisionError), provisioned():
        _ = 1 / 0
    assert world.deleted == [NAME]


def test_an_interrupt_while_it_starts_deletes_it(world: FakeKubernetes, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("engines.distributed.kuberay.await_ready", interrupted)
    with pytest.raises(KeyboardInterrupt), provisioned():
        pass
    assert world.deleted == [NAME]


def test_a_deletion_that_fails_at_first_is_tried_again(world: FakeKubernetes) -> None:
    with provisioned():
        world.failures = [("delete", 500), ("get", 502)]
    assert world.clusters == {}


def test_a_forbidden_deletion_does_not_hide_the_error_of_the_block(
    world: FakeKubernetes, caplog: pytest.LogCaptureFixture
) -> None:
    world.allowed -= {("rayclusters", "delete")}
    with pytest.raises(ZeroDivisionError), provisioned():
        _ = 1 / 0
    assert "not deleted: Kubernetes forbids to delete" in caplog.text


def test_it_is_renewed_while_in_use(world: FakeKubernetes) -> None:
    with provisioned():
        time.sleep(4.5)  # longer than its idle time
        assert reap(connect("evals"), datetime.now(UTC)) == []
        world.failures = [("patch", 503)]
        time.sleep(2.0)
        assert reap(connect("evals"), datetime.now(UTC)) == []
        assert world.failures == []
    assert world.used.count(("rayclusters", "patch")) >= 6


def test_a_cluster_of_a_crashed_flow_is_reaped_by_the_next_and_a_living_one_is_not(world: FakeKubernetes) -> None:
    crashed = cluster_name("nightly", "llama", "crashed")
    with (
        provisioned(run="living"),
        subprocess.Popen([sys.executable, "-c", CRASHING], stdout=subprocess.PIPE, text=True) as flow,
    ):
        assert flow.stdout is not None
        assert flow.stdout.readline() == "up\n"
        flow.send_signal(signal.SIGKILL)
        flow.wait()
        assert crashed in world.clusters
        time.sleep(SPEC.idle_seconds + 1.5)
        world.ready_after = 1.0  # deletion takes less
        with provisioned():
            assert world.deleted == [crashed]
            assert set(world.clusters) == {cluster_name("nightly", "llama", "living"), NAME}


def test_the_command_line_reaps(world: FakeKubernetes) -> None:
    world.add(expired(NAME, {"app.kubernetes.io/managed-by": "steelyard"}))
    command = [sys.executable, "-m", "engines.distributed.kuberay", "evals"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"{NAME}\n"


def test_clusters_of_others_are_never_reaped(world: FakeKubernetes) -> None:
    world.add(expired("theirs", {}))
    assert reap(connect("evals"), datetime.now(UTC) + LATER) == []
    assert "theirs" in world.clusters


def test_a_cluster_renewed_at_the_moment_of_reaping_stays(
    world: FakeKubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with provisioned():
        api = connect("evals")
        stale = api.ours()
        api.renew(NAME, datetime.now(UTC) + LATER)
        monkeypatch.setattr(api, "ours", lambda: stale)
        assert reap(api, datetime.now(UTC) + timedelta(hours=1)) == []
        assert world.deleted == []


def test_one_that_exists_already_is_refused_and_left_alone(world: FakeKubernetes) -> None:
    with provisioned():
        text = message(UserError, enter)
        assert text.startswith(f"RayCluster {NAME}: exists already in namespace evals: ")
        assert world.deleted == []
        assert NAME in world.clusters


def test_one_that_expired_makes_room_for_its_own_name(world: FakeKubernetes) -> None:
    world.add(expired(NAME, {"app.kubernetes.io/managed-by": "steelyard"}))
    with provisioned():
        assert world.deleted == [NAME]
        assert world.clusters[NAME]["metadata"]["uid"] == "uid-1"


def test_one_deleted_while_it_starts(world: FakeKubernetes) -> None:
    world.become_ready = lambda name: world.put("DELETED", world.clusters[name])  # type: ignore[method-assign]
    assert "deleted by somebody while it started" in message(EngineDiedError, enter)


def test_the_role_grants_exactly_what_is_used(world: FakeKubernetes) -> None:
    with provisioned():
        time.sleep(1.2)
    world.ready_after = None
    message(EngineDiedError, lambda: enter(SLOW))
    assert set(world.used) == role_rules()


class Slow:
    def __init__(self) -> None:
        self.entering, self.go, self.left = (threading.Event() for _ in range(3))

    @contextmanager
    def context(self) -> Iterator[str]:
        self.entering.set()
        assert self.go.wait(30)
        try:
            yield "head:6379"
        finally:
            self.left.set()


def test_what_is_entered_is_left_once() -> None:
    slow = Slow()
    slow.go.set()

    async def main() -> str:
        entered = Entered(slow.context())
        address = await entered.enter()
        assert not slow.left.is_set()
        await entered.leave()
        await entered.leave()
        return address

    assert asyncio.run(main()) == "head:6379"
    assert slow.left.is_set()


def test_what_is_left_while_it_is_entered_does_not_stay() -> None:
    slow = Slow()

    async def main() -> None:
        entered = Entered(slow.context())
        entering = asyncio.create_task(entered.enter())
        await asyncio.to_thread(slow.entering.wait, 30)
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entering
        await entered.leave()
        slow.go.set()
        assert await asyncio.to_thread(slow.left.wait, 30)

    asyncio.run(main())
