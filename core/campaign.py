"""The spec of a campaign, as YAML, JSON, Python or the UI's form, and its reader."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, PositiveFloat, ValidationError, field_validator, model_validator

from core.errors import UserError, nearest
from core.redact import secrets_in
from core.spec.fleet import FleetSpec, PolicySpec, ScheduleSpec
from core.spec.parts import BenchmarkSpec, DatasetsSpec, ModelSpec, SamplingSpec, benchmark_label
from core.spec.suite import expanded, is_folder, is_path
from core.strict import Location, Seed, Strict, check_name, check_uri, fault_lines, safe_name, short_for
from core.yaml_file import read_yaml

__all__ = [
    "BenchmarkSpec",
    "CampaignSpec",
    "DatasetsSpec",
    "FleetSpec",
    "ModelSpec",
    "PolicySpec",
    "SamplingSpec",
    "ScheduleSpec",
    "benchmark_label",
    "load_spec",
    "safe_name",
]


SpecPart = TypeVar("SpecPart", bound=Strict)


class CampaignSpec(Strict):
    """Models × benchmarks, on a fleet, into one results store."""

    name: str
    """Name of the campaign; runs of one name share its history."""
    models: list[Annotated[ModelSpec, short_for("model")]] = Field(min_length=1)
    """Models to evaluate; a string stands for ``{model: …}``."""
    benchmarks: list[Annotated[BenchmarkSpec, short_for("name")]] = Field(min_length=1)
    """Benchmarks that every model runs; a string stands for ``{name: …}``, a suite or a folder for its members."""
    datasets: DatasetsSpec = DatasetsSpec()
    """Mirror and offline mode of the benchmarks' datasets."""
    fleet: FleetSpec | None = None
    """Nodes × GPUs × memory; detected when left out."""
    policy: PolicySpec = PolicySpec()
    """Routing policy."""
    results: Location = "results"
    """Where results go: s3://bucket/prefix or a local directory."""
    dispatch: Literal["auto", "embedded", "work_pools"] = "auto"
    """Where models are evaluated: in the campaign's own process, or by the workers of the pools ``gpu`` and ``ray``. ``auto``
    takes the pools where ``steelyard deploy`` has registered them with the configured Prefect server."""
    schedules: list[ScheduleSpec] = Field(default_factory=list)
    """When ``steelyard deploy`` has the campaign start by itself."""
    monitor_seconds: PositiveFloat = 5
    """Seconds between two readings of GPUs, host and engines while models run."""
    prometheus_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Serves the latest readings on this port of loopback for Prometheus, in each process that evaluates models."""
    canary: bool = True
    """Where models run on both engines: compare the engines on one small model and a canary set, once for each version."""
    seed: Seed = 1234
    """Seed of few-shot sampling and of the engines."""
    allow_unsafe_code: bool = False
    """Run model-written code without a sandbox where none works here."""

    @model_validator(mode="before")
    @classmethod
    def _no_secrets(cls, data: Any) -> Any:
        for where, what in secrets_in(data):
            raise ValueError(
                f"{where} holds {what}: a spec is stored with the results, so secrets come from the environment"
            )
        return data

    @field_validator("name")
    @classmethod
    def _safe_name(cls, value: str) -> str:
        return check_name(value)

    @field_validator("benchmarks")
    @classmethod
    def _expanded(cls, value: list[BenchmarkSpec]) -> list[BenchmarkSpec]:
        return expanded(value)

    @field_validator("results")
    @classmethod
    def _results_uri(cls, value: str) -> str:
        return check_uri(value, ("", "s3", "file"), "a local path")

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

    @model_validator(mode="after")
    def _judges_are_models(self) -> CampaignSpec:
        names = [model.name for model in self.models]
        for index, benchmark in enumerate(self.benchmarks):
            if benchmark.judge and benchmark.judge.model not in names:
                wrong = benchmark.judge.model
                raise ValueError(
                    f"benchmarks[{index}].judge.model = {wrong!r}: the judge is one of the campaign's models{nearest(wrong, names)}"
                )
        return self

    @property
    def compared_with(self) -> frozenset[str]:
        """Names of the models that adaptive benchmarks compare others with."""
        return frozenset(name for each in self.benchmarks if each.adaptive for name in each.adaptive.against)


def load_spec(source: CampaignSpec | Mapping[str, Any] | str | Path) -> CampaignSpec:
    """Read a spec from a YAML or JSON file, a mapping, or return one that is already a spec.

    Paths of task YAMLs and folders, and of models and the mirror where they start with ``.``, are relative to the spec's file.
    Raises `core.errors.UserError` with one line per wrong field: where, what value, and the nearest valid name.
    """
    if isinstance(source, CampaignSpec):
        return source
    if isinstance(source, Mapping):
        return _validated(dict(source), "spec")
    path = Path(source)
    return _validated(_anchored(read_spec_file(path), path.parent), str(path))


def _anchored(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    def place(name: str) -> str:
        return str(folder / name) if name.startswith(("./", "../")) else name

    def benchmark(name: str) -> str:
        if is_path(name):
            return str(folder / name)
        return f"{folder / name}/" if is_folder(name) else name

    def entry(value: Any, field: str, anchor: Callable[[str], str]) -> Any:
        if isinstance(value, str):
            return anchor(value)
        if isinstance(value, dict) and isinstance(value.get(field), str):
            return {**value, field: anchor(value[field])}
        return value

    anchored = dict(data)
    if isinstance(data.get("datasets"), dict):
        anchored["datasets"] = entry(data["datasets"], "mirror", place)
    for part, field, anchor in (("benchmarks", "name", benchmark), ("models", "model", place)):
        if isinstance(data.get(part), list):
            anchored[part] = [entry(each, field, anchor) for each in data[part]]
    return anchored


def _validated(data: dict[str, Any], origin: str) -> CampaignSpec:
    try:
        return CampaignSpec.model_validate(data)
    except ValidationError as error:
        raise UserError(f"{origin}: " + "; ".join(fault_lines(error))) from error


def read_spec_file(path: Path) -> dict[str, Any]:
    """Read the fields of a spec. Raises `core.errors.UserError` with the line where it is no YAML mapping."""
    data = read_yaml(path, "spec")
    if not isinstance(data, dict):
        raise UserError(f"spec {str(path)!r} is not a mapping of fields: it needs at least name, models and benchmarks")
    return data


def absolute_paths(spec: CampaignSpec) -> CampaignSpec:
    """Return ``spec`` with local paths of models, task YAMLs, the mirror and results made absolute; it names and means the same.

    Hub ids and URIs stay as they are; `core.model.files.open_files` tells a hub id from a path the same way.
    """
    update: dict[str, Any] = {
        "models": [_absolute(each, "model", _is_local(each.model)) for each in spec.models],
        "benchmarks": [_absolute(each, "name", is_path(each.name)) for each in spec.benchmarks],
        "datasets": _absolute(spec.datasets, "mirror", spec.datasets.mirror is not None),
    }
    return _absolute(spec.model_copy(update=update), "results", True)


def _is_local(source: str) -> bool:
    return source.startswith((".", "/", "~")) or source.count("/") != 1 or Path(source).is_dir()


def _absolute(part: SpecPart, field: str, local: bool) -> SpecPart:
    path = getattr(part, field)
    if not local or "://" in path:
        return part
    # Not resolve(): a link such as runs/latest is meant to move.
    return part.model_copy(update={field: str(Path(path).expanduser().absolute())})
