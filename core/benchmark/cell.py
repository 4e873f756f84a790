"""Identity of work: digests of what a task asks and scores, what fixes a cell's outputs, and the fingerprint made of it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from core.benchmark.beside import helpers_digest
from core.benchmark.datasets.call import LoadedDataset
from core.benchmark.images import identities
from core.campaign import ModelSpec
from core.model.checkpoint import Checkpoint
from core.model.placement import Placement
from core.request import Request
from core.sample import Cell

# Fields of a task's config that say where rows come from; which rows they were is in a digest.
PLACE_FIELDS = frozenset({
    "custom_dataset", "dataset_path", "dataset_name", "dataset_kwargs", "generation_kwargs", "num_fewshot", "repeats",
})  # fmt: skip
# vLLM arguments that change speed or memory, not outputs.
SPEED_ONLY = frozenset({
    "block_size", "disable_log_stats", "distributed_executor_backend", "download_dir", "enable_chunked_prefill",
    "enable_prefix_caching", "enforce_eager", "gpu_memory_utilization", "kv_cache_memory_bytes", "limit_mm_per_prompt",
    "load_format", "max_num_batched_tokens", "max_num_seqs", "max_parallel_loading_workers", "mm_encoder_tp_mode",
    "mm_processor_cache_gb", "mm_processor_cache_type", "swap_space",
})  # fmt: skip
# Of a task's settings, those that fix what the model is asked; the others only change how its answers are scored.
ASKED = ("prompts", "until")
# Of a benchmark's settings, those that are in each task's requests already, or in no request.
IN_REQUESTS = ("tasks", "groups", "limit", "sampling", "system_prompt", "judge")
# Names for people, in no fingerprint.
NAMES = ("source", "revision", "datasets", "benchmark")
ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # as objects print theirs


def task_settings(
    task: Any,
    requests: Iterable[Request],
    shots: Iterable[Any],
    until: Sequence[tuple[str, ...]] | None,
    targets: Iterable[str],
) -> dict[str, Any]:
    """Return everything of one lm-eval task that changes outputs or scores; digests cover each prompt and target as built.

    ``until`` are the stop strings of its generations where they are in no request, ``targets`` those of its docs, as text.
    """
    config = {key: value for key, value in task.dump_config().items() if key not in PLACE_FIELDS}
    config["metadata"] = {k: v for k, v in (config.get("metadata") or {}).items() if k != "config_source"}  # a path
    docs: dict[int, Any] = {instance.doc_id: instance.doc for instance in task.instances}
    beside = helpers_digest([type(task), task.config.to_dict(keep_callable=True)])
    return {
        **({} if beside is None else {"helpers": beside}),
        **({} if until is None else {"until": digest(until)}),
        "version": task.VERSION,
        "num_fewshot": task.get_config("num_fewshot"),
        "repeats": task.get_config("repeats"),
        "config": digest(config),
        "rows": rows_digest(docs.values(), shots),
        "prompts": digest(identities(requests, task.instances)),
        "targets": digest(list(targets)),
        "harness": version("lm-eval"),
    }


def digest(value: Any) -> str:
    """Hash JSON-like values; where an object prints its address, the address is left out."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(ADDRESS.sub("", text).encode()).hexdigest()


def rows_digest(docs: Iterable[Any], shots: Iterable[Any] = ()) -> str:
    """Hash docs in their order and the distinct few-shot examples: 64 hex digits, the same wherever the rows came from."""
    hashed = [*map(row_digest, docs), *sorted(set(map(row_digest, shots)))]
    return hashlib.sha256("".join(hashed).encode()).hexdigest()


def row_digest(row: Any) -> str:
    """Hash one row: 64 hex digits."""
    text = json.dumps(row, sort_keys=True, ensure_ascii=False, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    """Return the content of a value that JSON has no word for, such as bytes, arrays and images."""
    if isinstance(value, bytes | bytearray | memoryview):
        return hashlib.sha256(value).hexdigest()
    if hasattr(value, "tobytes"):  # images of Pillow and arrays of NumPy; the shape tells apart what has the same bytes
        shape = [str(getattr(value, name, "")) for name in ("mode", "size", "shape", "dtype")]
        return [*shape, hashlib.sha256(value.tobytes()).hexdigest()]
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    return ADDRESS.sub("", str(value))


def make_cell(
    model: ModelSpec,
    checkpoint: Checkpoint,
    placement: Placement,
    benchmark: str,
    benchmark_settings: Mapping[str, Any],
    datasets: Sequence[LoadedDataset] = (),
) -> Cell:
    """Build the cell of one model and one loaded benchmark.

    Engine, tensor parallel and the names a person gave are left out of the fingerprint: the same checkpoint under the same
    settings is the same cell. ``benchmark_settings`` is `core.benchmark.benchmark.Benchmark.settings`;
    ``datasets``, where its rows came from, is described only: the rows themselves are in the settings.
    """
    settings: dict[str, Any] = {
        "checkpoint": checkpoint.identity,
        "dtype": checkpoint.dtype if model.dtype == "auto" else model.dtype,
        "max_model_len": placement.max_model_len,
        "chat_template": model.chat_template,
        "system_prompt": model.system_prompt,
        "fewshot_as_multiturn": model.chat_template and model.fewshot_as_multiturn,
        "vllm": output_arguments(model),
        "benchmark": dict(benchmark_settings),
    }
    # Named where they are set, so that a new field changes no fingerprint of those who do not use it.
    for name in ("trust_remote_code", "think_end_token", "chat_template_args", "system_as_user"):
        if value := getattr(model, name):
            settings[name] = value
    # Kept for people, outside the hash: a revision's name may change while its content does not.
    described = {**settings, "source": checkpoint.source, "revision": checkpoint.revision}
    if datasets:
        described["datasets"] = [asdict(dataset) for dataset in datasets]
    return Cell(fingerprint=fingerprint(settings), model=model.name, benchmark=benchmark, settings=described)


def output_arguments(model: ModelSpec) -> dict[str, Any]:
    """Return the vLLM arguments of a model that change outputs, sorted by name."""
    return {key: value for key, value in sorted(model.vllm.items()) if key not in SPEED_ONLY}


def fingerprint(settings: Mapping[str, Any]) -> str:
    """Hash JSON values to 64 hex digits, whatever the order of keys."""
    text = json.dumps(settings, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def asked(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return of a cell's settings what fixes its responses: the checkpoint, how it runs, and every request."""
    benchmark = settings["benchmark"]
    return {
        **{name: value for name, value in settings.items() if name not in NAMES},
        "benchmark": {name: value for name, value in benchmark.items() if name not in IN_REQUESTS},
        "judge": {name: value for name, value in benchmark.get("judge", {}).items() if name != "verdict"},
        "tasks": {
            name: {key: task[key] for key in ASKED if key in task} for name, task in benchmark.get("tasks", {}).items()
        },
    }


def asked_digest(cell: Cell) -> str:
    """Return what a cell asks as 64 hex digits: cells that differ only in how answers are scored have the same."""
    return fingerprint(asked(cell.settings))


def find_donor(cell: Cell, records: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the newest commit record whose cell was asked exactly what ``cell`` asks, or None."""
    wanted = asked(cell.settings)
    others = (record for record in records if record["fingerprint"] != cell.fingerprint)
    same = (record for record in others if asked(record["settings"]) == wanted)
    return max(same, key=lambda record: str(record["committed"]), default=None)
