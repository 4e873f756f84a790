"""What a campaign runs on and when, as a person writes it: the fleet, Ray on Kubernetes, the policy and schedules."""

from __future__ import annotations

import re
from functools import cache
from typing import Annotated, Any, Literal
from zoneinfo import available_timezones

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, field_validator, model_validator

from core.errors import nearest
from core.redact import is_secret_name
from core.strict import Location, Strict

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


class FleetSpec(Strict):
    """What there is to run on."""

    nodes: PositiveInt = 1
    """Machines."""
    gpus: PositiveInt = 1
    """GPUs per machine. On a machine without GPUs: logical devices."""
    gpu_memory_gb: PositiveFloat = 80
    """Memory of one GPU in GB (10⁹ bytes). Without GPUs: RAM that one logical device may use."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """What the devices are; ``auto`` looks at this machine."""
    gpu_kind: str | None = Field(default=None, min_length=1)
    """Model of the GPUs, say ``H100``, for estimates of time; this machine's own when left out."""
    price_per_gpu_hour: Annotated[float, Field(ge=0)] | None = None
    """What an hour of one GPU costs, in whatever money; ``steelyard plan`` then says what the campaign will cost."""
    ray_address: str | None = None
    """Existing Ray cluster (host:port). A local one is started when a model needs it and none is named."""
    kuberay: KubeRaySpec | None = None
    """Makes a Ray cluster on Kubernetes for each distributed model instead, and deletes it after."""

    @field_validator("ray_address")
    @classmethod
    def _host_and_port(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"\S+:\d{1,5}", value):
            raise ValueError("use host:port of a running Ray cluster, or leave it out for a local one")
        return value

    @model_validator(mode="after")
    def _one_cluster(self) -> FleetSpec:
        if self.ray_address is not None and self.kuberay is not None:
            raise ValueError("give one of ray_address and kuberay")
        return self


class PolicySpec(Strict):
    """Numbers of the routing policy, and what is done while the results store is away."""

    lightweight_max_weight_gb: PositiveFloat = 30
    """Weights up to this many GB (10⁹ bytes) run lightweight."""
    long_context_tokens: PositiveInt = 64_000
    """A model marked ``long_context`` with a larger window runs distributed where the fleet has more than one GPU."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of a GPU's memory that an engine may use."""
    activation_headroom_gb: Annotated[float, Field(ge=0)] = 2.0
    """Memory per GPU kept for activations, logits and the runtime, in GB."""
    min_kv_sequences: PositiveFloat = 1.0
    """Sequences of full ``max_model_len`` whose KV cache must fit."""
    priority: int = 0
    """Where several campaigns wait for the same devices, those of a higher priority get them first."""
    replicas_max: PositiveInt = 8
    """Most engines that one lightweight model gets on devices nobody waits for; 1 turns replicas off."""
    docs_per_replica: PositiveInt = 500
    """Each further replica takes this many docs more to be answered; fewer are done before it is loaded."""
    compile_tokens: Annotated[int, Field(ge=0)] = 500_000
    """A lightweight model on a GPU is compiled where at least this many tokens may have to be generated (one for each request that
    is only scored); with fewer it starts eagerly, which is faster. ``vllm: {enforce_eager: …}`` of a model wins."""
    service_idle_seconds: Annotated[float, Field(ge=0)] = 300
    """How long a distributed model stays loaded, and its Ray cluster up, after its last request; 0 ends it with the campaign."""
    store_patience_seconds: Annotated[float, Field(ge=0)] = 600
    """How long a results store on S3 that does not answer any more is waited for before a campaign ends."""
    spool: Location | None = None
    """Local folder that takes answers while S3 does not; ``~/.cache/steelyard/spool`` when left out."""
    spool_gb: PositiveFloat = 10
    """Most that one model's answers may take there, in GB (10⁹ bytes); with more, generation waits for S3."""
    engine_restarts: Annotated[int, Field(ge=0)] = 3
    """How often a model's engine is started again after it died, in one run; only unfinished requests are repeated. As often is a
    model handed to its work pool again whose machine was lost."""
    stall_minutes: PositiveFloat = 10
    """An engine that has requests and makes no token for so long is ended, and counts as one that died."""
    poison_requests: Annotated[int, Field(ge=0)] = 8
    """So many requests that end the engine each time are left out, marked as errors; with more, the model fails."""


@cache
def _timezones() -> frozenset[str]:
    return frozenset(available_timezones())


class ScheduleSpec(Strict):
    """When `steelyard deploy` has the campaign start by itself; one of ``cron``, ``interval_seconds`` and ``rrule``."""

    cron: str | None = None
    """Five fields of cron, say ``0 2 * * *``."""
    interval_seconds: PositiveFloat | None = None
    """Seconds from one start to the next."""
    rrule: str | None = None
    """Recurrence rule of RFC 5545, say ``FREQ=DAILY;BYHOUR=2``."""
    timezone: str = "UTC"
    """IANA name of the time zone that ``cron`` and ``rrule`` are meant in, say ``Europe/Berlin``."""
    active: bool = True
    """Whether it is in force."""

    @field_validator("timezone")
    @classmethod
    def _known_timezone(cls, value: str) -> str:
        if value not in _timezones():
            raise ValueError(
                f"no such time zone{nearest(value, _timezones()) or ': use a name of IANA, say Europe/Berlin'}"
            )
        return value

    @model_validator(mode="after")
    def _one_rule(self) -> ScheduleSpec:
        if sum(rule is not None for rule in (self.cron, self.interval_seconds, self.rrule)) != 1:
            raise ValueError("give one of cron, interval_seconds and rrule")
        return self
