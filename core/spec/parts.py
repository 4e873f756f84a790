"""Parts of a campaign's spec, each as a person writes it: models, benchmarks, the fleet, the policy, schedules."""

from __future__ import annotations

import re
from collections.abc import Container
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import available_timezones

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from core.errors import nearest
from core.scoring.judge_spec import JudgeSpec
from core.spec.adaptive import AdaptiveSpec
from core.spec.kuberay import KubeRaySpec
from core.strict import Strict

LONGEST_PATH, LONGEST_PART = 4000, 255  # what file systems take
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

# vLLM's arguments that have a field of their own, which results record.
OWNED = {
    "dtype": "the model's dtype",
    "hf_token": "HF_TOKEN in the environment",
    "max_model_len": "the model's max_model_len",
    "model": "the model's model",
    "model_weights": "the model's stream_weights",
    "pipeline_parallel_size": "the model's pipeline_parallel",
    "revision": "the model's revision",
    "seed": "the campaign's seed",
    "tensor_parallel_size": "the model's tensor_parallel",
    "trust_remote_code": "the model's trust_remote_code",
}


def safe_name(text: str) -> str:
    """Turn a path or hub id into a name that is safe as one path segment: its last part, odd characters as ``-``."""
    last = text.rstrip("/").rsplit("/", 1)[-1]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-.")[:128] or "model"


def check_name(value: str) -> str:
    """Return ``value`` if it can stand in paths and run names. Raises `ValueError` with the rule."""
    if not NAME.fullmatch(value):
        raise ValueError("use letters, digits, '.', '_' and '-', starting with a letter or digit (at most 128)")
    return value


def check_place(value: str) -> str:
    """Return ``value`` if it can be a path, a URI or a name on the hub. Raises `ValueError` with the rule."""
    if not value or not value.isprintable() or value != value.strip():
        raise ValueError("use printable characters, with no space at either end")
    if len(value) > LONGEST_PATH or any(len(part.encode()) > LONGEST_PART for part in value.split("/")):
        raise ValueError(f"it is too long: use at most {LONGEST_PATH} characters, {LONGEST_PART} between two '/'")
    try:
        Path(value).expanduser()
    except RuntimeError as error:
        raise ValueError("there is no such user: write the directory itself") from error
    return value


def check_uri(value: str, schemes: Container[str], otherwise: str) -> str:
    """Return a URI of one of ``schemes`` ("" for none) without a slash at its end. Raises `ValueError` with the rule."""
    scheme, _, rest = value.rpartition("://")
    if scheme not in schemes:
        raise ValueError(f"use s3://bucket/prefix or {otherwise}")
    if scheme == "s3" and not rest.strip("/"):
        raise ValueError("s3:// needs a bucket: s3://bucket/prefix")
    if scheme and ".." in rest.split("/"):
        raise ValueError("'..' cannot stand in a URI")
    return value.rstrip("/") or value


Place = Annotated[str, AfterValidator(check_place)]
Seed = Annotated[int, Field(ge=0, lt=1 << 32)]  # numpy takes no other


class ModelSpec(Strict):
    """One model of the campaign."""

    model: Place
    """Hub id, local directory or s3:// URI of the checkpoint."""
    name: str = ""
    """Name in results; the last part of ``model`` when left out."""
    revision: Place | None = None
    """Hub revision: branch, tag or commit."""
    stream_weights: bool = False
    """Of an s3:// checkpoint: read the weights from S3 into the engine, with no copy on local disk."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type the weights are computed in; ``auto`` takes the checkpoint's."""
    max_model_len: PositiveInt | None = None
    """Context window in tokens; the checkpoint's, as far as memory allows, when left out."""
    trust_remote_code: bool = False
    """Run Python code that the checkpoint brings. Recorded with every result."""
    chat_template: bool = False
    """Render prompts with the checkpoint's chat template."""
    system_prompt: str | None = None
    """System message; needs ``chat_template``."""
    fewshot_as_multiturn: bool = True
    """With a chat template: each few-shot example as a user and an assistant turn."""
    chat_template_args: dict[str, Any] = Field(default_factory=dict)
    """Further variables of the chat template, say ``enable_thinking: true``; needs ``chat_template``."""
    think_end_token: str | None = Field(default=None, min_length=1)
    """Text that ends a reasoning model's reasoning, say ``</think>``: what comes after it is the answer."""
    long_context: bool = False
    """Marks a long-context model: above the policy's window it runs distributed where the fleet has more than one GPU."""
    engine: Literal["auto", "lightweight", "distributed"] = "auto"
    """Engine override; ``auto`` lets the policy decide."""
    tensor_parallel: PositiveInt | None = None
    """GPUs that share each layer; computed from memory when left out."""
    pipeline_parallel: PositiveInt | None = None
    """Stages the layers are split into; computed when left out."""
    replicas: PositiveInt | None = None
    """Most engines of the model at once, where devices are idle. 1: never more. Left out, computed from the work for a lightweight
    model, and one for a distributed one."""
    vllm: dict[str, Any] = Field(default_factory=dict)
    """Further vLLM engine arguments, by vLLM's own names."""

    @model_validator(mode="before")
    @classmethod
    def _name_from_model(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("model"), str) and data.get("name") in (None, ""):
            return {**data, "name": safe_name(data["model"])}
        return data

    @field_validator("name")
    @classmethod
    def _safe_name(cls, value: str) -> str:
        return check_name(value)

    @field_validator("model")
    @classmethod
    def _hub_id_or_directory(cls, value: str) -> str:
        check_uri(value, ("", "s3"), "a directory, or a name on the hub")
        return value

    @field_validator("vllm")
    @classmethod
    def _left_to_vllm(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if owner := OWNED.get(name):
                raise ValueError(f"{name} is set by {owner}: leave it out here")
        if value.get("load_format") == "dummy":
            raise ValueError(
                "load_format 'dummy' makes random weights, whose scores would pass for the checkpoint's: leave it out"
            )
        return value

    @model_validator(mode="after")
    def _consistent(self) -> ModelSpec:
        for field in ("system_prompt", "chat_template_args"):
            if getattr(self, field) and not self.chat_template:
                raise ValueError(f"{field} needs chat_template: true")
        if self.stream_weights and not self.model.startswith("s3://"):
            raise ValueError(
                f"stream_weights is for checkpoints on S3, and model = {self.model!r} is none: leave it out"
            )
        if self.engine == "lightweight" and (self.tensor_parallel or 1) * (self.pipeline_parallel or 1) > 1:
            raise ValueError(
                "engine 'lightweight' uses one GPU: drop tensor_parallel/pipeline_parallel or use 'distributed'"
            )
        return self


class SamplingSpec(Strict):
    """Overrides of a benchmark's own generation settings; what is left out stays as the benchmark says."""

    temperature: Annotated[float, Field(ge=0)] | None = None
    """0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Nucleus sampling."""
    top_k: Annotated[int, Field(ge=-1)] | None = None
    """Most likely tokens to sample from; 0 or -1 for all."""
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """Smallest probability, relative to the most likely token's."""
    max_tokens: PositiveInt | None = None
    """Longest answer in tokens."""
    until: list[str] | None = None
    """Strings that end an answer."""
    seed: Seed | None = None
    """Seed of each request."""


def _judge_entry(value: Any) -> Any:
    return {"model": value} if isinstance(value, str) else value


class BenchmarkSpec(Strict):
    """One benchmark of the campaign."""

    name: Place
    """Task, group or tag of the catalogue, a bundled benchmark, a suite, or the path of a task YAML or of a folder of them."""
    num_fewshot: Annotated[int, Field(ge=0)] | None = None
    """Few-shot examples per prompt; the benchmark's own number when left out."""
    fewshot_sampler: Literal["first_n"] | None = None
    """``first_n`` shows every doc the same examples, the first of their split: read once, not for each doc, and another score than
    with the benchmark's own choice of examples, which is made when left out."""
    limit: PositiveInt | None = None
    """Docs per task, from the first; all when left out."""
    repeats: PositiveInt | None = None
    """Answers per doc; the benchmark's own number when left out."""
    sampling: SamplingSpec = SamplingSpec()
    """Overrides of the generation settings."""
    judge: Annotated[JudgeSpec | None, BeforeValidator(_judge_entry)] = None
    """Model of the campaign that scores the answers besides the benchmark's own metrics; a string stands for ``{model: …}``."""
    timeout_seconds: PositiveFloat | None = None
    """Longest time of one model on this benchmark, from its first request; what is answered by then stays stored."""
    adaptive: AdaptiveSpec | None = None
    """Answer docs in random order, and no more of them than it takes to tell the model from others; all when left out."""
    dataset_revision: Place | None = None
    """Revision of the hub dataset: branch, tag or commit; what the task says, or the newest, when left out."""
    suite: str | None = None
    """Suite and version that the entry comes from; written where a suite's name is replaced by its members."""

    @model_validator(mode="after")
    def _judged_whole(self) -> BenchmarkSpec:
        if self.adaptive and self.judge:
            raise ValueError("give one of adaptive and judge: verdicts are compared once all answers are there")
        return self


class DatasetsSpec(Strict):
    """Where datasets come from before the hub is asked."""

    mirror: Place | None = None
    """Mirror of hub datasets: s3://bucket/prefix or a local directory, as ``steelyard datasets fetch --to`` writes it."""
    offline: bool = False
    """Never ask the hub: what neither the mirror nor the cache of this machine holds is refused before anything starts."""

    @field_validator("mirror")
    @classmethod
    def _mirror_uri(cls, value: str | None) -> str | None:
        return None if value is None else check_uri(value, ("", "s3", "file"), "a local directory")


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
    spool: Place | None = None
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


def benchmark_label(benchmark: BenchmarkSpec) -> str:
    """Name of a benchmark in results: the task's name, or a task YAML's file name without its ending."""
    if benchmark.name.endswith((".yaml", ".yml")):
        return safe_name(Path(benchmark.name).stem)
    return benchmark.name
