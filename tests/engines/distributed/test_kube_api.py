"""Finding Kubernetes, logging in to it, and what its refusals are told as."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import yaml

from core.errors import EngineDiedError, UserError
from tests.engines.fake_kubernetes import TOKEN, FakeKubernetes, kubeconfig, served
from tests.engines.kuberay_flow import NAME, SLOW, enter, message, provisioned


@pytest.mark.parametrize("verb", ["list", "create", "get", "watch"])
def test_forbidden_names_the_verb_that_the_role_lacks(world: FakeKubernetes, verb: str) -> None:
    world.allowed -= {("rayclusters", verb)}
    text = message(UserError, enter)
    assert f"lacks the verb {verb!r} on rayclusters.ray.io" in text
    assert "deployments/kubernetes/rbac.yaml" in text


def test_pods_that_may_not_be_read_are_said_to_be_so(world: FakeKubernetes) -> None:
    world.ready_after = None
    world.allowed -= {("pods", "list")}
    assert "lacks the verb 'list' on pods" in message(EngineDiedError, lambda: enter(SLOW))


def test_a_missing_crd(world: FakeKubernetes) -> None:
    world.has_crd = False
    assert message(UserError, enter) == (
        "Kubernetes knows no rayclusters.ray.io (ray.io/v1): install the KubeRay operator with its CRDs"
    )


def test_a_missing_namespace(world: FakeKubernetes) -> None:
    world.namespaces = set()
    assert message(UserError, enter).startswith("kuberay.namespace = 'evals': no such namespace")


def test_wrong_credentials(world: FakeKubernetes, tmp_path: Path) -> None:
    config = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
    config["users"][0]["user"]["token"] = f"{TOKEN}-of-yesterday"
    Path(os.environ["KUBECONFIG"]).write_text(yaml.safe_dump(config))
    assert "does not accept the credentials (401)" in message(UserError, enter)


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_login_by_a_plugin(world: FakeKubernetes, tmp_path: Path, version: str) -> None:
    credential = f'{{"kind": "ExecCredential", "status": {{"token": "{TOKEN}"}}}}'
    asked = f'*client.authentication.k8s.io/{version}\\"*'
    script = f"case \"$KUBERNETES_EXEC_INFO\" in {asked}) echo '{credential}' ;; *) exit 1 ;; esac"
    plugin = {"apiVersion": f"client.authentication.k8s.io/{version}", "command": "sh", "args": ["-c", script]}
    url = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())["clusters"][0]["cluster"]["server"]
    kubeconfig(Path(os.environ["KUBECONFIG"]), url, {"exec": plugin})
    with provisioned():
        assert NAME in world.clusters


@pytest.mark.parametrize("command", ["no-such-plugin", "sh"])
def test_a_failing_plugin_is_not_quoted(world: FakeKubernetes, command: str) -> None:
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": command,
        "args": ["-c", f"echo {TOKEN} >&2; exit 1"],
    }
    url = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())["clusters"][0]["cluster"]["server"]
    kubeconfig(Path(os.environ["KUBECONFIG"]), url, {"exec": plugin})
    assert message(UserError, enter).startswith(f"cannot log in to Kubernetes at {url}")


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "a: [",
        "{}",
        "clusters: []\ncontexts: []\n",
        f"users: [{{name: u, user: {{token: [{TOKEN}]}}}}]\nclusters: []\n",
    ],
)
def test_no_usable_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None) -> None:
    path = tmp_path / "config"
    monkeypatch.setenv("KUBECONFIG", str(path))
    if text is not None:
        path.write_text(text)
    told = message(UserError, enter)
    assert told.startswith("no usable Kubernetes configuration")
    assert "set KUBECONFIG" in told


def test_a_server_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(FakeKubernetes()) as url:
        pass
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "config", url, {"token": TOKEN})))
    assert (
        message(EngineDiedError, enter) == f"list rayclusters.ray.io: no answer from Kubernetes at {url} (ConnectError)"
    )


def test_without_the_library_the_install_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightkube.config.client_adapter", None)
    assert message(UserError, enter).endswith("pip install 'steelyard[kubernetes]'")
