"""`CampaignSpec`: what a person writes, as YAML, JSON, Python or in the UI's form."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from core.errors import UserError, nearest

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _known_fields(cls, data: Any) -> Any:
        if isinstance(data, dict):
            unknown = [str(key) for key in data if key not in cls.model_fields]
            if unknown:
                raise ValueError(", ".join(f"unknown field {key!r}{nearest(key, cls.model_fields)}" for key in unknown))
        return data


def safe_name(text: str) -> str:
    """Turn a path or hub id into a name that is safe as one path segment: its last part, odd characters as ``-``."""
    last = text.rstrip("/").rsplit("/", 1)[-1]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-.")[:128] or "model"


def _check_name(value: str) -> str:
    if not NAME.fullmatch(value):
        raise ValueError("use letters, digits, '.', '_' and '-', starting with a letter or digit (at most 128)")
    return value


class ModelSpec(_Strict):
    """One model of the campaign."""

    model: str = Field(min_length=1)
    """Hub id, local directory or s3:// URI of the checkpoint."""
    name: str = ""
    """Name in results; the last part of ``model`` when left out."""
    revision: str | None = None
    """Hub revision: branch, tag or commit."""
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
    long_context: bool = False
    """Marks a long-context model: above the policy's window it runs distributed where more than one GPU is free."""
    engine: Literal["auto", "lightweight", "distributed"] = "auto"
    """Engine override; ``auto`` lets the policy decide."""
    tensor_parallel: PositiveInt | None = None
    """GPUs that share each layer; computed from memory when left out."""
    pipeline_parallel: PositiveInt | None = None
    """Stages the layers are split into; computed when left out."""
    vllm: dict[str, Any] = Field(default_factory=dict)
    """Further vLLM engine arguments, by vLLM's own names."""

    @model_validator(mode="before")
    @classmethod
    def _name_from_model(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("model"), str) and not data.get("name"):
            return {**data, "name": safe_name(data["model"])}
        return data

    @field_validator("name")
    @classmethod
    def _safe_name(cls, value: str) -> str:
        return _check_name(value)

    @model_validator(mode="after")
    def _consistent(self) -> ModelSpec:
        if self.system_prompt is not None and not self.chat_template:
            raise ValueError("system_prompt needs chat_template: true")
        if self.engine == "lightweight" and (self.tensor_parallel or 1) * (self.pipeline_parallel or 1) > 1:
            raise ValueError(
                "engine 'lightweight' uses one GPU: drop tensor_parallel/pipeline_parallel or use 'distributed'"
            )
        return self


class SamplingSpec(_Strict):
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
    seed: int | None = None
    """Seed of each request."""


class BenchmarkSpec(_Strict):
    """One benchmark of the campaign."""

    name: str = Field(min_length=1)
    """Task or group name of the catalogue, a bundled benchmark, or the path of a task YAML."""
    num_fewshot: Annotated[int, Field(ge=0)] | None = None
    """Few-shot examples per prompt; the benchmark's own number when left out."""
    limit: PositiveInt | None = None
    """Docs per task, from the first; all when left out."""
    repeats: PositiveInt | None = None
    """Answers per doc; the benchmark's own number when left out."""
    sampling: SamplingSpec = SamplingSpec()
    """Overrides of the generation settings."""


class FleetSpec(_Strict):
    """What there is to run on."""

    nodes: PositiveInt = 1
    """Machines."""
    gpus: PositiveInt = 1
    """GPUs per machine. On a machine without GPUs: logical devices."""
    gpu_memory_gb: PositiveFloat = 80
    """Memory of one GPU in GB (10⁹ bytes). Without GPUs: RAM that one logical device may use."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """What the devices are; ``auto`` looks at this machine."""
    ray_address: str | None = None
    """Existing Ray cluster (host:port). A local one is started when a model needs it and none is named."""


class PolicySpec(_Strict):
    """Numbers of the routing policy."""

    lightweight_max_weight_gb: PositiveFloat = 30
    """Weights up to this many GB (10⁹ bytes) run lightweight."""
    long_context_tokens: PositiveInt = 64_000
    """A model marked ``long_context`` with a larger window runs distributed where more than one GPU is free."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of a GPU's memory that an engine may use."""
    activation_headroom_gb: Annotated[float, Field(ge=0)] = 2.0
    """Memory per GPU kept for activations, logits and the runtime, in GB."""
    min_kv_sequences: PositiveFloat = 1.0
    """Sequences of full ``max_model_len`` whose KV cache must fit."""
    service_idle_seconds: Annotated[float, Field(ge=0)] = 300
    """How long a distributed model stays loaded, and its Ray cluster up, after its last request; 0 ends it with the campaign."""


def _model_entry(value: Any) -> Any:
    return {"model": value} if isinstance(value, str) else value


def _benchmark_entry(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class CampaignSpec(_Strict):
    """Models × benchmarks, on a fleet, into one results store."""

    name: str
    """Name of the campaign; runs of one name share its history."""
    models: list[Annotated[ModelSpec, BeforeValidator(_model_entry)]] = Field(min_length=1)
    """Models to evaluate; a string stands for ``{model: …}``."""
    benchmarks: list[Annotated[BenchmarkSpec, BeforeValidator(_benchmark_entry)]] = Field(min_length=1)
    """Benchmarks that every model runs; a string stands for ``{name: …}``."""
    fleet: FleetSpec | None = None
    """Nodes × GPUs × memory; detected when left out."""
    policy: PolicySpec = PolicySpec()
    """Routing policy."""
    results: str = "results"
    """Where results go: s3://bucket/prefix or a local directory."""
    seed: int = 1234
    """Seed of few-shot sampling and of the engines."""
    allow_unsafe_code: bool = False
    """Run model-written code without a sandbox where none works here."""

    @field_validator("name")
    @classmethod
    def _safe_name(cls, value: str) -> str:
        return _check_name(value)

    @field_validator("results")
    @classmethod
    def _results_uri(cls, value: str) -> str:
        scheme = value.split("://", 1)[0] if "://" in value else ""
        if scheme not in ("", "s3", "file"):
            raise ValueError("use s3://bucket/prefix or a local path")
        if scheme == "s3" and not value.removeprefix("s3://").strip("/"):
            raise ValueError("s3:// needs a bucket: s3://bucket/prefix")
        if ".." in Path(value).parts and scheme:
            raise ValueError("'..' cannot stand in a results URI")
        return value.rstrip("/") or value

    @model_validator(mode="after")
    def _unique(self) -> CampaignSpec:
        for what, names in (
            ("models", [m.name for m in self.models]),
            ("benchmarks", [benchmark_label(b) for b in self.benchmarks]),
        ):
            twice = [name for name, count in Counter(names).items() if count > 1]
            if twice:
                raise ValueError(f"{what}: two entries are named {twice[0]!r}; give each its own name")
        return self


def benchmark_label(benchmark: BenchmarkSpec) -> str:
    """Name of a benchmark in results: the task's name, or a task YAML's file name without its ending."""
    if benchmark.name.endswith((".yaml", ".yml")):
        return safe_name(Path(benchmark.name).stem)
    return benchmark.name


def load_spec(source: CampaignSpec | Mapping[str, Any] | str | Path) -> CampaignSpec:
    """Read a spec from a YAML or JSON file, a mapping, or return one that is already a spec.

    Paths of task YAMLs and of models that start with ``.`` are taken relative to the spec's file.
    Raises `core.errors.UserError` with one line per wrong field: where, what value, and the nearest valid name.
    """
    if isinstance(source, CampaignSpec):
        return source
    if isinstance(source, Mapping):
        return _validated(dict(source), "spec")
    path = Path(source)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"spec {str(path)!r} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not valid YAML"
        raise UserError(f"spec {str(path)!r} is not YAML{where}: {problem}") from error
    if not isinstance(data, dict):
        raise UserError(f"spec {str(path)!r} is not a mapping of fields: it needs at least name, models and benchmarks")
    return _validated(_anchored(data, path.parent), str(path))


def _anchored(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    def benchmark(entry: Any) -> Any:
        if isinstance(entry, str) and entry.endswith((".yaml", ".yml")):
            return str(folder / entry)
        if isinstance(entry, dict) and isinstance(entry.get("name"), str):
            return {**entry, "name": benchmark(entry["name"])}
        return entry

    def model(entry: Any) -> Any:
        if isinstance(entry, str) and entry.startswith(("./", "../")):
            return str(folder / entry)
        if isinstance(entry, dict) and isinstance(entry.get("model"), str):
            return {**entry, "model": model(entry["model"])}
        return entry

    anchored = dict(data)
    if isinstance(data.get("benchmarks"), list):
        anchored["benchmarks"] = [benchmark(entry) for entry in data["benchmarks"]]
    if isinstance(data.get("models"), list):
        anchored["models"] = [model(entry) for entry in data["models"]]
    return anchored


def _validated(data: dict[str, Any], origin: str) -> CampaignSpec:
    try:
        return CampaignSpec.model_validate(data)
    except ValidationError as error:
        raise UserError(f"{origin}: " + "; ".join(_lines(error))) from error


def _lines(error: ValidationError) -> Iterator[str]:
    for item in error.errors(include_url=False):
        where = _where(item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "missing":
            yield f"{where}: missing"
        elif not item["loc"]:
            yield message
        elif item["type"] == "literal_error":
            known = str(item["ctx"]["expected"])
            yield f"{where} = {item['input']!r}: use one of {known}{nearest(str(item['input']), re.findall(r'[a-z_0-9]+', known))}"
        elif isinstance(item["input"], dict):
            yield f"{where}: {message}"
        else:
            yield f"{where} = {item['input']!r}: {message[:1].lower()}{message[1:]}"


def _where(loc: tuple[int | str, ...]) -> str:
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".")
