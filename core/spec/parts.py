"""What a campaign evaluates, as a person writes it: models, benchmarks and datasets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from core.catalogue.generation import MinP, Temperature, TopK, TopP
from core.scoring.judge_spec import JudgeSpec
from core.strict import Location, Seed, Strict, check_name, check_uri, paths_as_text, safe_name, short_for

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

# What a task's YAML says of the task itself, in ``metadata``.
OWN_METADATA = frozenset({"cluster", "config_source", "runs_code", "version"})


class ModelSpec(Strict):
    """One model of the campaign."""

    model: Location
    """Hub id, local directory or s3:// URI of the checkpoint."""
    name: str = ""
    """Name in results; the last part of ``model`` when left out."""
    revision: Location | None = None
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
    system_as_user: bool = False
    """``system_prompt`` and a benchmark's description open the first user turn, for a chat template without a system message."""
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
        source = paths_as_text(data.get("model")) if isinstance(data, dict) else None
        if isinstance(source, str) and data.get("name") in (None, ""):
            return {**data, "name": safe_name(source)}
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
        if str(value.get("load_format")).lower() == "dummy":  # as vLLM reads it
            raise ValueError(
                "load_format 'dummy' makes random weights, whose scores would pass for the checkpoint's: leave it out"
            )
        return value

    @model_validator(mode="after")
    def _consistent(self) -> ModelSpec:
        for field in ("system_prompt", "chat_template_args", "system_as_user"):
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

    temperature: Temperature | None = None
    """0 is greedy."""
    top_p: TopP | None = None
    """Nucleus sampling."""
    top_k: TopK | None = None
    """Most likely tokens to sample from; 0 or -1 for all."""
    min_p: MinP | None = None
    """Smallest probability, relative to the most likely token's."""
    max_tokens: PositiveInt | None = None
    """Longest answer in tokens."""
    until: list[str] | None = None
    """Strings that end an answer."""
    seed: Seed | None = None
    """Seed of each request."""


class AdaptiveSpec(Strict):
    """Ends a benchmark for a model once it is told apart from models that have answered it."""

    against: Annotated[list[str], Field(min_length=1)]
    """Names of those models, from this campaign or in the results store; they answer all docs themselves."""
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Scores that differ by no more than this may stand either way."""
    alpha: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    """Probability, at most, that any of a model's verdicts is wrong, however often one has looked."""


class BenchmarkSpec(Strict):
    """One benchmark of the campaign."""

    name: Location
    """Task, group or tag of the catalogue, a bundled benchmark, a suite, or the path of a task YAML or of a folder of them."""
    label: str = ""
    """Name in results, so that one benchmark can stand twice under other settings; the benchmark's own when left out."""
    metadata: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the code that makes a task's docs, by the names it reads, as lm-eval's ``--metadata``: say
    ``max_seq_lengths: [4096]`` of RULER's tasks. The tokenizer is the model's."""
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
    judge: Annotated[JudgeSpec | None, short_for("model")] = None
    """Model of the campaign that scores the answers besides the benchmark's own metrics; a string stands for ``{model: …}``."""
    timeout_seconds: PositiveFloat | None = None
    """Longest time of one model on this benchmark, from its first request; what is answered by then stays stored."""
    adaptive: AdaptiveSpec | None = None
    """Answer docs in random order, and no more of them than it takes to tell the model from others; all when left out."""
    dataset_revision: Location | None = None
    """Revision of the hub dataset: branch, tag or commit; what the task says, or the newest, when left out."""
    suite: str | None = None
    """Suite and version that the entry comes from; written where a suite's name is replaced by its members."""

    @field_validator("label")
    @classmethod
    def _safe_label(cls, value: str) -> str:
        return check_name(value) if value else value

    @field_validator("metadata")
    @classmethod
    def _plain_metadata(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in OWN_METADATA.intersection(value):
            raise ValueError(f"{name} is the task's own: leave it out here")
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"use texts, numbers, true, false, lists and mappings of them ({error})") from error
        return value

    @model_validator(mode="after")
    def _judged_whole(self) -> BenchmarkSpec:
        if self.adaptive and self.judge:
            raise ValueError("give one of adaptive and judge: verdicts are compared once all answers are there")
        return self


class DatasetsSpec(Strict):
    """Where datasets come from before the hub is asked."""

    mirror: Location | None = None
    """Mirror of hub datasets: s3://bucket/prefix or a local directory, as ``steelyard datasets fetch --to`` writes it."""
    offline: bool = False
    """Never ask the hub: what neither the mirror nor the cache of this machine holds is refused before anything starts."""

    @field_validator("mirror")
    @classmethod
    def _mirror_uri(cls, value: str | None) -> str | None:
        return None if value is None else check_uri(value, ("", "s3", "file"), "a local directory")


def benchmark_label(benchmark: BenchmarkSpec) -> str:
    """Name of a benchmark in results: its label, the task's name, or a task YAML's file name without its ending."""
    if benchmark.label:
        return benchmark.label
    if benchmark.name.endswith((".yaml", ".yml")):
        return safe_name(Path(benchmark.name).stem)
    return benchmark.name


def lengths_of(benchmark: BenchmarkSpec) -> list[int]:
    """Return the tokens that docs are to have, from ``metadata``'s ``max_seq_lengths`` as RULER's tasks take them; none without."""
    lengths = benchmark.metadata.get("max_seq_lengths")
    return [each for each in lengths if isinstance(each, int)] if isinstance(lengths, list) else []
