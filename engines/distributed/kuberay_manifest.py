"""A `ray.io/v1` RayCluster rendered from a placement: names, shape, pods, expiry. Pure; the clock is the caller's."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from core.errors import CannotPlaceError
from core.model.placement import Placement
from core.spec.fleet import KubeRaySpec

API_VERSION = "ray.io/v1"
MANAGED = {"app.kubernetes.io/managed-by": "steelyard"}
EXPIRES = "steelyard/expires"
MODEL_RESOURCE = "steelyard_model"  # Ray resource that only nodes with the model's GPUs have
TOKEN_KEY = "auth_token"  # noqa: S105 # the key KubeRay uses in such a Secret, not a token
NAME_LENGTH = 40  # KubeRay appends to it, and cuts names of services at 50
LABEL_LENGTH = 63
PORTS = {"gcs": 6379, "client": 10001, "dashboard": 8265, "metrics": 8080}


@dataclass(frozen=True)
class Owner:
    """The pod of the flow. Kubernetes' garbage collector takes the cluster when this pod is gone."""

    name: str
    uid: str


def shape(placement: Placement, gpus_per_node: int) -> tuple[int, int]:
    """(worker pods, GPUs of each) for ``placement`` on a fleet of ``gpus_per_node``: the fewest pods with no idle GPU.

    A tensor-parallel group never leaves a pod; pipeline stages and replicas may. Raises `core.errors.CannotPlaceError` where a
    group is larger than a node.
    """
    tensor = placement.tensor_parallel
    if tensor > gpus_per_node:
        raise CannotPlaceError(f"tensor_parallel = {tensor}: a node of the fleet has {gpus_per_node} GPUs")
    groups = placement.pipeline_parallel * placement.replicas
    per_pod = max(n for n in range(1, gpus_per_node // tensor + 1) if groups % n == 0)
    return groups // per_pod, per_pod * tensor


def cluster_name(campaign: str, model: str, run: str) -> str:
    """Name for the cluster of one model in one run: RFC 1035 (so 1123 too), at most 40 characters, never shared by two."""
    digest = hashlib.sha256(json.dumps([campaign, model, run]).encode()).hexdigest()[:10]
    readable = re.sub(r"[^a-z0-9]+", "-", f"sy-{campaign}-{model}".lower())
    return f"{readable[: NAME_LENGTH - 11].strip('-')}-{digest}"


def label_value(text: str) -> str:
    """``text`` as the value of a Kubernetes label; may be empty, and not unique."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:LABEL_LENGTH].strip("._-")


def head_address(name: str, namespace: str) -> str:
    """host:port of the head's service, as seen from inside the Kubernetes cluster."""
    return f"{name}-head-svc.{namespace}.svc:{PORTS['gcs']}"


def owner_of(environment: Mapping[str, str], namespace: str) -> Owner | None:
    """The pod this process runs in, by POD_NAME, POD_UID and POD_NAMESPACE of the downward API.

    None outside Kubernetes and in another namespace: garbage collection takes an object whose owner it cannot see there.
    """
    name, uid = environment.get("POD_NAME"), environment.get("POD_UID")
    if not name or not uid or environment.get("POD_NAMESPACE") != namespace:
        return None
    return Owner(name, uid)


def timestamp(when: datetime) -> str:
    """``when`` as RFC 3339 in UTC, rounded up to the second."""
    return (when.astimezone(UTC) + timedelta(microseconds=999_999)).strftime("%Y-%m-%dT%H:%M:%SZ")


def is_expired(manifest: Mapping[str, Any], now: datetime) -> bool:
    """Whether a cluster's expiry has passed. One without an expiry that can be read is left alone."""
    text = (manifest.get("metadata", {}).get("annotations") or {}).get(EXPIRES, "")
    try:
        expires = datetime.fromisoformat(text)
    except ValueError:
        return False
    return expires.tzinfo is not None and expires <= now


def render(
    spec: KubeRaySpec,
    name: str,
    gpus_per_node: int,
    nodes: int,
    owner: Owner | None,
    labels: Mapping[str, str],
    expires: datetime,
    *,
    ray_version: str,
) -> dict[str, Any]:
    """RayCluster manifest: a head without GPUs and ``nodes`` workers of ``gpus_per_node``. ``expires`` has a time zone.

    The head holds none even where one node is enough: it then starts without waiting for a GPU node, outlives a worker that
    runs out of memory and can say so, and no model process competes with it. Ray puts actors that ask for no GPU on such nodes
    by preference, and vLLM must start beside its GPUs: its actor has to ask for a little `MODEL_RESOURCE`.
    """
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": spec.namespace,
        "labels": {**{key: label_value(value) for key, value in labels.items()}, **MANAGED},
        "annotations": {EXPIRES: timestamp(expires)},
    }
    if owner is not None:
        reference = {"apiVersion": "v1", "kind": "Pod", "name": owner.name, "uid": owner.uid}
        metadata["ownerReferences"] = [{**reference, "controller": False, "blockOwnerDeletion": False}]
    # KubeRay puts the value into a shell command as it is.
    custom = json.dumps(json.dumps({MODEL_RESOURCE: 1}))
    return {
        "apiVersion": API_VERSION,
        "kind": "RayCluster",
        "metadata": metadata,
        "spec": {
            "rayVersion": ray_version,
            "headGroupSpec": {
                "serviceType": "ClusterIP",
                "enableIngress": False,
                # 0.0.0.0 is the pod's own network: nothing but the ClusterIP service leads there.
                "rayStartParams": {"num-cpus": "0", "num-gpus": "0", "dashboard-host": "0.0.0.0"},  # noqa: S104
                "template": _pod(spec, metadata["labels"], head=True, gpus=0),
            },
            "workerGroupSpecs": [
                {
                    "groupName": "gpu",
                    "replicas": nodes,
                    "minReplicas": nodes,
                    "maxReplicas": nodes,
                    "rayStartParams": {"num-gpus": str(gpus_per_node), "resources": custom},
                    "template": _pod(spec, metadata["labels"], head=False, gpus=gpus_per_node),
                }
            ],
        },
    }


def _pod(spec: KubeRaySpec, labels: Mapping[str, str], *, head: bool, gpus: int) -> dict[str, Any]:
    resources = {
        "cpu": spec.head_cpu if head else spec.worker_cpu,
        "memory": spec.head_memory if head else spec.worker_memory,
        **({spec.gpu_resource: str(gpus)} if gpus else {}),
    }
    container: dict[str, Any] = {
        "name": "ray-head" if head else "ray-worker",
        "image": spec.image,
        "env": _environment(spec, head),
        "envFrom": [{"secretRef": {"name": name}} for name in spec.env_from_secrets],
        "resources": {"requests": dict(resources), "limits": dict(resources)},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [
            {"name": f"claim-{number}", "mountPath": claim.path, "readOnly": claim.read_only}
            for number, claim in enumerate(spec.claims)
        ],
    }
    volumes: list[dict[str, Any]] = [
        {"name": f"claim-{number}", "persistentVolumeClaim": {"claimName": claim.name, "readOnly": claim.read_only}}
        for number, claim in enumerate(spec.claims)
    ]
    if head:
        container["ports"] = [{"name": name, "containerPort": port} for name, port in PORTS.items()]
    else:
        container["volumeMounts"].append({"name": "shm", "mountPath": "/dev/shm"})  # noqa: S108 # the pod's own
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": spec.shared_memory}})
    pod: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": spec.user,
            "fsGroup": spec.user,
            "fsGroupChangePolicy": "OnRootMismatch",  # a claim full of weights takes minutes otherwise
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "tolerations": [dict(each) for each in spec.tolerations],
        "imagePullSecrets": [{"name": name} for name in spec.image_pull_secrets],
        "containers": [container],
        "volumes": volumes,
    }
    if spec.service_account:
        pod["serviceAccountName"] = spec.service_account
    if spec.node_selector and not head:
        pod["nodeSelector"] = dict(spec.node_selector)
    return {"metadata": {"labels": dict(labels)}, "spec": pod}


def _environment(spec: KubeRaySpec, head: bool) -> list[dict[str, Any]]:
    variables: list[dict[str, Any]] = [{"name": name, "value": str(value)} for name, value in spec.env.items()]
    if head:  # CUDA images ask for all GPUs of the machine by themselves
        variables.append({"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"})
    if spec.token_secret:
        reference = {"secretKeyRef": {"name": spec.token_secret, "key": TOKEN_KEY}}
        variables += [{"name": "RAY_AUTH_MODE", "value": "token"}, {"name": "RAY_AUTH_TOKEN", "valueFrom": reference}]
    return variables
