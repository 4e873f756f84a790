"""A Ray cluster on Kubernetes as a person asks for it: the fields of ``fleet.kuberay``."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, field_validator

from core.redact import is_secret_name
from core.strict import Strict

NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi)?")


def _name(value: str) -> str:
    if not NAME.fullmatch(value):
        raise ValueError("use a name of Kubernetes: lower case letters, digits, '-' and '.'")
    return value


def _name_or_none(value: str) -> str:
    return value and _name(value)


def _quantity(value: str) -> str:
    if not QUANTITY.fullmatch(value):
        raise ValueError("use a quantity of Kubernetes, say '8', '500m' or '64Gi'")
    return value


def _no_space(value: str) -> str:
    if not value or not value.isprintable() or " " in value:
        raise ValueError("use a name without spaces")
    return value


def _absolute(value: str) -> str:
    if not value.startswith("/") or not value.isprintable() or ".." in value.split("/"):
        raise ValueError("use an absolute path, say '/models'")
    return value


KubeName = Annotated[str, AfterValidator(_name)]
Quantity = Annotated[str, AfterValidator(_quantity)]


class VolumeClaim(Strict):
    """A PersistentVolumeClaim of the namespace, mounted in every pod: weights, caches."""

    name: KubeName
    """Of the claim."""
    path: Annotated[str, AfterValidator(_absolute)]
    """Where the pods see it."""
    read_only: bool = False
    """Mounted read-only."""


class KubeRaySpec(Strict):
    """Where and how the pods of a cluster run, by the KubeRay operator. Quantities are Kubernetes' (``8``, ``500m``, ``64Gi``)."""

    image: Annotated[str, AfterValidator(_no_space)]
    """Image of all pods: Steelyard and vLLM, with this environment's versions of Ray and Python."""
    namespace: KubeName = "steelyard"
    """Namespace, which must exist."""
    gpu_resource: Annotated[str, AfterValidator(_no_space)] = "nvidia.com/gpu"
    """What Kubernetes calls a GPU."""
    worker_cpu: Quantity = "8"
    """CPUs of a worker pod."""
    worker_memory: Quantity = "64Gi"
    """Memory of a worker pod."""
    head_cpu: Quantity = "2"
    """CPUs of the head pod, which has no GPU."""
    head_memory: Quantity = "8Gi"
    """Memory of the head pod."""
    shared_memory: Quantity = "16Gi"
    """``/dev/shm`` of a worker; counts as its memory."""
    service_account: Annotated[str, AfterValidator(_name_or_none)] = ""
    """Of the Ray pods; the namespace's own when left out. Its token is not mounted."""
    user: PositiveInt = 1000
    """User id and file group of the pods; not root."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels of the nodes that workers run on."""
    tolerations: list[dict[str, Any]] = Field(default_factory=list)
    """Tolerations of all pods, as in Kubernetes."""
    env: dict[str, str] = Field(default_factory=dict)
    """Environment variables of all pods; no secrets."""
    env_from_secrets: list[KubeName] = Field(default_factory=list)
    """Secrets by name: each key becomes a variable."""
    image_pull_secrets: list[KubeName] = Field(default_factory=list)
    """Secrets by name, for the image."""
    token_secret: Annotated[str, AfterValidator(_name_or_none)] = ""
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
            if is_secret_name(name):
                raise ValueError(
                    f"{name} looks like a secret; put it into a Kubernetes Secret and name that in env_from_secrets"
                )
        return value
