"""Rendered RayClusters against the CRD's fields and, their pods, against Kubernetes' own schemas."""

from __future__ import annotations

import copy
import json
import re
import shlex
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from core.campaign import CampaignSpec, load_spec
from core.errors import CannotPlaceError, UserError
from core.model.placement import Placement
from core.spec.fleet import KubeRaySpec, VolumeClaim
from engines.distributed.kuberay_manifest import (
    MODEL_RESOURCE,
    Owner,
    cluster_name,
    head_address,
    is_expired,
    label_value,
    owner_of,
    render,
    shape,
    timestamp,
)

KUBERNETES = "1.33"
SCHEMA = json.loads((Path(__file__).parent / "raycluster_crd.json").read_text())
RBAC = Path(__file__).parents[3] / "deployments" / "kubernetes" / "rbac.yaml"
NOW = datetime(2026, 11, 24, 7, 0, tzinfo=UTC)
BARE = KubeRaySpec(image="registry/steelyard:1")
FULL = KubeRaySpec(
    image="registry/steelyard:1",
    namespace="evals",
    service_account="runner",
    user=1234,
    node_selector={"gpu": "h100"},
    tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    env={"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "AWS_SHARED_CREDENTIALS_FILE": "/secrets/aws"},
    env_from_secrets=["s3-keys", "hub"],
    image_pull_secrets=["registry"],
    token_secret="ray-token",
    claims=[VolumeClaim(name="weights", path="/weights", read_only=True), VolumeClaim(name="cache", path="/cache")],
)


def placement(tensor: int, pipeline: int = 1, replicas: int = 1) -> Placement:
    return Placement("distributed", tensor, pipeline, replicas, 8192, "bfloat16", 10**11, "asked for.")


def rendered(spec: KubeRaySpec, owner: Owner | None = None, nodes: int = 2, gpus: int = 8) -> dict[str, Any]:
    labels = {"steelyard/campaign": "nightly", "steelyard/model": "org/Llama 70B!", "steelyard/run": "2026-11-24"}
    return render(spec, "sy-nightly-1", gpus, nodes, owner, labels, NOW, ray_version="2.60.0")


def templates(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    spec = manifest["spec"]
    return [group["template"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]


def check(manifest: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(manifest)
    for template in templates(manifest):
        kubernetes_validate.validate({"apiVersion": "v1", "kind": "Pod", **template}, KUBERNETES, strict=True)


@pytest.mark.parametrize("spec", [BARE, FULL])
@pytest.mark.parametrize("owner", [None, Owner("flow-1", "0b3f")])
@pytest.mark.parametrize(("nodes", "gpus"), [(1, 1), (1, 8), (4, 8)])
def test_a_rendered_manifest_is_valid(spec: KubeRaySpec, owner: Owner | None, nodes: int, gpus: int) -> None:
    check(rendered(spec, owner, nodes, gpus))


def rename(path: str, name: str) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        *parents, last = path.split("/")
        at: Any = manifest
        for part in parents:
            at = at[int(part) if part.isdigit() else part]
        at[name] = at.pop(last)

    return change


POD = "spec/workerGroupSpecs/0/template/spec"


@pytest.mark.parametrize(
    "spoil",
    [
        rename("spec/rayVersion", "rayversion"),
        rename("spec/headGroupSpec/rayStartParams", "rayStartParameters"),
        rename("spec/workerGroupSpecs/0/groupName", "name"),
        rename("spec/workerGroupSpecs/0/maxReplicas", "maxreplicas"),
        rename("metadata/ownerReferences/0/uid", "uuid"),
        rename(f"{POD}/nodeSelector", "nodeSelectors"),
        rename(f"{POD}/securityContext/runAsNonRoot", "runAsNonroot"),
        rename(f"{POD}/containers/0/volumeMounts/0/mountPath", "path"),
        rename(f"{POD}/volumes/0/persistentVolumeClaim/claimName", "name"),
        rename(f"{POD}/containers/0/envFrom/0/secretRef/name", "secretName"),
    ],
)
def test_a_misspelt_field_is_refused(spoil: Callable[[dict[str, Any]], None]) -> None:
    manifest = copy.deepcopy(rendered(FULL, Owner("flow-1", "0b3f")))
    check(manifest)
    spoil(manifest)
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        check(manifest)


def test_a_number_where_ray_wants_text_is_refused() -> None:
    manifest = rendered(BARE)
    manifest["spec"]["headGroupSpec"]["rayStartParams"]["num-gpus"] = 0
    with pytest.raises(jsonschema.ValidationError):
        check(manifest)


def test_only_workers_hold_gpus_and_the_model_s_resource() -> None:
    spec = rendered(FULL, nodes=3, gpus=4)["spec"]
    head, (workers,) = spec["headGroupSpec"], spec["workerGroupSpecs"]
    assert workers["replicas"] == workers["minReplicas"] == workers["maxReplicas"] == 3
    limits = [t["spec"]["containers"][0]["resources"]["limits"] for t in templates({"spec": spec})]
    assert [each.get("nvidia.com/gpu") for each in limits] == [None, "4"]
    assert head["rayStartParams"]["num-gpus"] == "0"
    assert workers["rayStartParams"]["num-gpus"] == "4"
    # KubeRay pastes the value into a shell command line.
    assert json.loads(shlex.split(f"--resources={workers['rayStartParams']['resources']}")[0][12:]) == {
        MODEL_RESOURCE: 1
    }
    assert [template["spec"].get("nodeSelector") for template in templates({"spec": spec})] == [None, {"gpu": "h100"}]


def test_the_dashboard_is_reached_within_the_cluster_network_only() -> None:
    head = rendered(BARE)["spec"]["headGroupSpec"]
    assert (head["serviceType"], head["enableIngress"]) == ("ClusterIP", False)


def test_pods_have_no_rights() -> None:
    for template in templates(rendered(FULL)):
        pod, (container,) = template["spec"], template["spec"]["containers"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def test_secrets_are_in_the_manifest_by_name_only() -> None:
    for template in templates(rendered(FULL)):
        (container,) = template["spec"]["containers"]
        assert container["envFrom"] == [{"secretRef": {"name": "s3-keys"}}, {"secretRef": {"name": "hub"}}]
        token = next(each for each in container["env"] if each["name"] == "RAY_AUTH_TOKEN")
        assert token == {
            "name": "RAY_AUTH_TOKEN",
            "valueFrom": {"secretKeyRef": {"name": "ray-token", "key": "auth_token"}},
        }


def campaign(**fields: Any) -> CampaignSpec:
    fleet = {"kuberay": {"image": "registry/steelyard:1", **fields}}
    return load_spec({"name": "n", "models": ["m"], "benchmarks": ["b"], "fleet": fleet})


@pytest.mark.parametrize("name", ["HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "db_password", "API_KEY"])
def test_a_secret_by_value_is_refused_without_showing_it(name: str) -> None:
    with pytest.raises(UserError, match=rf"fleet.kuberay.env: {name} looks like a secret.*env_from_secrets") as caught:
        campaign(env={name: "hunter2"})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("wrong", [{"idle_seconds": 0}, {"start_seconds": -1}, {"user": 0}])
def test_a_wrong_number_is_named(wrong: dict[str, int]) -> None:
    with pytest.raises(UserError, match=rf"fleet.kuberay.{next(iter(wrong))} = {next(iter(wrong.values()))}: "):
        campaign(**wrong)


@pytest.mark.parametrize(
    ("tensor", "pipeline", "replicas", "per_node", "expected"),
    [
        (1, 1, 1, 8, (1, 1)),
        (4, 1, 1, 8, (1, 4)),
        (8, 2, 1, 8, (2, 8)),
        (2, 2, 1, 8, (1, 4)),
        (4, 3, 1, 8, (3, 4)),  # two pods of 8 would leave 4 GPUs idle
        (2, 6, 1, 8, (2, 6)),
        (4, 1, 4, 8, (2, 8)),
        (3, 2, 1, 4, (2, 3)),
    ],
)
def test_shape(tensor: int, pipeline: int, replicas: int, per_node: int, expected: tuple[int, int]) -> None:
    assert shape(placement(tensor, pipeline, replicas), per_node) == expected


@given(st.integers(1, 16), st.integers(1, 16), st.integers(1, 4), st.integers(1, 16))
def test_shape_holds_the_placement_exactly_and_splits_no_tensor_group(t: int, p: int, r: int, per_node: int) -> None:
    if t > per_node:
        with pytest.raises(CannotPlaceError, match=rf"tensor_parallel = {t}: a node of the fleet has {per_node} GPUs"):
            shape(placement(t, p, r), per_node)
        return
    nodes, gpus = shape(placement(t, p, r), per_node)
    assert nodes * gpus == placement(t, p, r).gpus
    assert gpus <= per_node
    assert gpus % t == 0


@given(st.text(max_size=200), st.text(max_size=200), st.text(max_size=80))
def test_any_name_becomes_a_kubernetes_name(campaign: str, model: str, run: str) -> None:
    name = cluster_name(campaign, model, run)
    assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name)
    assert len(name) <= 40
    assert re.fullmatch(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?", label_value(model))


def test_names_are_readable_stable_and_apart() -> None:
    name = cluster_name("nightly", "Llama-3.1_70B", "r1")
    assert name.startswith("sy-nightly-llama-3-1-70b-")
    assert name == cluster_name("nightly", "Llama-3.1_70B", "r1")
    others = [
        ("nightly", "llama-3.1-70b", "r1"),
        ("nightly", "Llama-3.1_70B", "r2"),
        ("nightly-Llama", "3.1_70B", "r1"),
    ]
    assert len({name, *(cluster_name(*each) for each in others)}) == 4
    assert head_address(name, "evals") == f"{name}-head-svc.evals.svc:6379"


def test_the_flow_s_pod_owns_the_cluster_in_its_own_namespace_only() -> None:
    environment = {"POD_NAME": "flow-1", "POD_UID": "0b3f", "POD_NAMESPACE": "evals"}
    assert owner_of(environment, "evals") == Owner("flow-1", "0b3f")
    assert owner_of(environment, "other") is None
    assert owner_of({}, "evals") is None
    (reference,) = rendered(FULL, Owner("flow-1", "0b3f"))["metadata"]["ownerReferences"]
    assert (reference["kind"], reference["name"], reference["uid"]) == ("Pod", "flow-1", "0b3f")
    assert "ownerReferences" not in rendered(FULL)["metadata"]


def test_expiry() -> None:
    manifest = rendered(BARE)
    assert manifest["metadata"]["annotations"]["steelyard/expires"] == "2026-11-24T07:00:00Z"
    assert not is_expired(manifest, NOW - timedelta(seconds=1))
    assert is_expired(manifest, NOW)
    assert timestamp(NOW.astimezone(timezone(timedelta(hours=5)))) == "2026-11-24T07:00:00Z"
    assert timestamp(NOW + timedelta(microseconds=1)) == "2026-11-24T07:00:01Z"


@pytest.mark.parametrize("text", ["", "soon", "2020-01-01T00:00:00"])
def test_a_cluster_whose_expiry_cannot_be_read_is_left_alone(text: str) -> None:
    assert not is_expired({"metadata": {"annotations": {"steelyard/expires": text}}}, NOW)
    assert not is_expired({"metadata": {}}, NOW)


def test_the_role_is_valid_and_stays_in_its_namespace() -> None:
    documents = list(yaml.safe_load_all(RBAC.read_text()))
    assert [each["kind"] for each in documents] == ["ServiceAccount", "Role", "RoleBinding"]
    for each in documents:
        kubernetes_validate.validate(each, KUBERNETES, strict=True)
