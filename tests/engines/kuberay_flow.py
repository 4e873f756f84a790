"""What tests of RayClusters share: a spec, a placement, a flow that provisions, and a world it runs in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from core.model.placement import Placement
from core.spec.fleet import KubeRaySpec
from engines.distributed.kuberay import provision
from engines.distributed.kuberay_manifest import cluster_name
from tests.engines.fake_kubernetes import TOKEN, FakeKubernetes, kubeconfig, served

SPEC = KubeRaySpec(image="registry/steelyard:1", namespace="evals", idle_seconds=3.0, start_seconds=20.0)
SLOW = KubeRaySpec(image="registry/steelyard:1", namespace="evals", idle_seconds=3.0, start_seconds=1.5)
PLACEMENT = Placement("distributed", 4, 2, 1, 8192, "bfloat16", 10**11, "asked for.")
NAME = cluster_name("nightly", "llama", "r1")


@contextmanager
def a_world(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[FakeKubernetes]:
    """A server, a kubeconfig that leads to it, and a look at the log: it never holds the token."""
    world = FakeKubernetes()
    with served(world) as url, caplog.at_level("DEBUG"):
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig(folder / "config", url, {"token": TOKEN})))
        yield world
        assert TOKEN not in caplog.text


def provisioned(spec: KubeRaySpec = SPEC, run: str = "r1") -> AbstractContextManager[str]:
    """The cluster of a flow."""
    return provision(spec, PLACEMENT, 4, campaign="nightly", model="llama", run=run)


def message(expected: type[Exception], act: Callable[[], Any]) -> str:
    """What ``act`` fails with: exactly ``expected``, without the token."""
    with pytest.raises(expected) as caught:
        act()
    assert TOKEN not in str(caught.value)
    assert type(caught.value) is expected
    return str(caught.value)


def enter(spec: KubeRaySpec = SPEC) -> None:
    """Provision a cluster that is not to come up."""
    with provisioned(spec):
        pytest.fail("it came up")
