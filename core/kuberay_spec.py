"""A Ray cluster on Kubernetes as a person asks for it: the fields of ``fleet.kuberay``."""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from core.strict import Strict

SECRET = re.compile(r"(^|_)(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)(_|$)", re.IGNORECASE)


class VolumeClaim(Strict):
    """A PersistentVolumeClaim of the namespace, mounted in every pod: weights, caches."""

    name: str
    """Of the claim."""
    path: str
    """Where the pods see it."""
    read_only: bool = False
    """Mounted read-only."""


class KubeRaySpec(Strict):
    """Where and how the pods of a cluster run, by the KubeRay operator. Quantities are Kubernetes' (``8``, ``500m``, ``64Gi``)."""

    image: str = Field(min_length=1)
    """Image of all pods: Steelyard and vLLM, with this environment's versions of Ray and Python."""
    namespace: str = "steelyard"
    """Namespace, which must exist."""
    gpu_resource: str = "nvidia.com/gpu"
    """What Kubernetes calls a GPU."""
    worker_cpu: str = "8"
    """CPUs of a worker pod."""
    worker_memory: str = "64Gi"
    """Memory of a worker pod."""
    head_cpu: str = "2"
    """CPUs of the head pod, which has no GPU."""
    head_memory: str = "8Gi"
    """Memory of the head pod."""
    shared_memory: str = "16Gi"
    """``/dev/shm`` of a worker; counts as its memory."""
    service_account: str = ""
    """Of the Ray pods; the namespace's own when left out. Its token is not mounted."""
    user: PositiveInt = 1000
    """User id and file group of the pods; not root."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels of the nodes that workers run on."""
    tolerations: list[dict[str, Any]] = Field(default_factory=list)
    """Tolerations of all pods, as in Kubernetes."""
    env: dict[str, str] = Field(default_factory=dict)
    """Environment variables of all pods; no secrets."""
    env_from_secrets: list[str] = Field(default_factory=list)
    """Secrets by name: each key becomes a variable."""
    image_pull_secrets: list[str] = Field(default_factory=list)
    """Secrets by name, for the image."""
    token_secret: str = ""
    """Secret with the key ``auth_token``: Ray then asks every client for it."""
    claims: list[VolumeClaim] = Field(default_factory=list)
    """Volumes of all pods."""
    idle_seconds: PositiveFloat = 300.0
    """How long a cluster that no flow renews may live on."""
    start_seconds: PositiveFloat = 900.0
    """How long a cluster may take to come up."""

    @field_validator("env")
    @classmethod
    def _no_secrets(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if SECRET.search(name) and not name.upper().endswith(("_PATH", "_FILE")):
                raise ValueError(
                    f"{name} looks like a secret; put it into a Kubernetes Secret and name that in env_from_secrets"
                )
        return value
