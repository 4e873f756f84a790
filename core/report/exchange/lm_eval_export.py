"""Results in lm-evaluation-harness's own files (0.4.13): one results JSON per model, one samples JSONL per task. Pure.

Its loaders, loggers and hub tools read them. What the harness has no place for is left out: docs that were not answered.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from core.sample import Sample

# A doc's number that is one of several of a metric, see core.report.exchange.lm_eval_import.
COMPONENT = re.compile(r"(.+)\[(\d+)\]")
HARNESS = "harness"  # settings of an imported cell that only the harness's own files have


@dataclass(frozen=True)
class CellResults:
    """One complete cell: its commit record, the rows of its scores table and its samples."""

    record: Mapping[str, Any]
    scores: Sequence[Mapping[str, Any]]
    samples: Sequence[Sample]


def export_model(model: str, cells: Iterable[CellResults]) -> Iterator[tuple[str, str]]:
    """Yield (path, text) of one model's files, below a folder of the harness's ``--output_path``.

    Where two benchmarks have a task in common each has a results file of its own.
    """
    folder = re.sub(r'["<>:/|\\?*\[\]]+', "__", model)
    for number, batch in enumerate(_batches(cells)):
        when = max(datetime.fromisoformat(cell.record["committed"]) for cell in batch)
        date = f"{when:%Y-%m-%dT%H-%M-%S}.{number:06}"
        by_task: dict[str, list[tuple[CellResults, Sample]]] = defaultdict(list)
        for cell in batch:
            for sample in cell.samples:
                if sample.error is None:
                    by_task[sample.task].append((cell, sample))
        lines = {task: [json.dumps(line, ensure_ascii=False) for line in _lines(own)] for task, own in by_task.items()}
        for task, own in lines.items():
            yield f"{folder}/samples_{task}_{date}.jsonl", "".join(f"{line}\n" for line in own)
        results = _results(model, folder, batch, lines, when.timestamp())
        yield f"{folder}/results_{date}.json", json.dumps(results, indent=2, ensure_ascii=False)


def _batches(cells: Iterable[CellResults]) -> list[list[CellResults]]:
    batches: list[tuple[set[str], list[CellResults]]] = []
    for cell in cells:
        tasks = {row["task"] for row in cell.scores}
        for taken, batch in batches:
            if taken.isdisjoint(tasks):
                taken |= tasks
                batch.append(cell)
                break
        else:
            batches.append((set(tasks), [cell]))
    return [batch for _, batch in batches]


def _results(
    model: str, folder: str, batch: Sequence[CellResults], lines: Mapping[str, Sequence[str]], date: float
) -> dict[str, Any]:
    kinds: dict[bool, dict[str, dict[str, Any]]] = {False: {}, True: {}}
    better: dict[str, dict[str, bool]] = defaultdict(dict)
    subtasks: dict[str, list[str]] = {}
    for cell in batch:
        tasks = sorted({row["task"] for row in cell.scores if not row["is_group"]})
        for row in cell.scores:
            if row["is_group"]:
                subtasks.setdefault(row["task"], tasks)
            own = kinds[bool(row["is_group"])].setdefault(
                row["task"], {"name": row["task"], "alias": row["task"], "sample_len": row["docs"]}
            )
            own[f"{row['metric']},{row['filter']}"] = row["value"]
            stderr = row["stderr"]
            known = stderr is not None and stderr == stderr
            own[f"{row['metric']}_stderr,{row['filter']}"] = stderr if known else "N/A"
            better[row["task"]][row["metric"]] = bool(row["higher_is_better"])
    settings = batch[0].record["settings"]
    described = {
        task: each
        for cell in batch
        for task, each in cell.record["settings"].get("benchmark", {}).get("tasks", {}).items()
    }
    tasks = list(kinds[False])
    found = {
        "results": {**kinds[False], **kinds[True]},
        **({"groups": kinds[True]} if kinds[True] else {}),
        "group_subtasks": subtasks,
        "configs": {task: _config(task, described.get(task, {}), batch) for task in tasks},
        "versions": {task: described.get(task, {}).get("version") for task in tasks},
        "n-shot": {task: described.get(task, {}).get("num_fewshot") for task in tasks},
        "higher_is_better": dict(better),
        "n-samples": {
            task: dict.fromkeys(("original", "effective"), kinds[False][task]["sample_len"]) for task in tasks
        },
        "config": _run_config(settings),
        "date": date,
        "lm_eval_version": next((each["harness"] for each in described.values() if "harness" in each), None),
        "task_hashes": {task: _task_hash(own) for task, own in lines.items()},
        "model_source": "steelyard",
        "model_name": model,
        "model_name_sanitized": folder,
        "system_instruction": settings.get("system_prompt"),
        "system_instruction_sha": None if not settings.get("system_prompt") else _sha(settings["system_prompt"]),
        "fewshot_as_multiturn": settings.get("fewshot_as_multiturn"),
        "chat_template": None,
        "chat_template_sha": None,
        "steelyard": {"fingerprints": {cell.record["benchmark"]: cell.record["fingerprint"] for cell in batch}},
    }
    return {**found, **settings.get(HARNESS, {})}


def _run_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    named = {"pretrained": "source", "revision": "revision", "dtype": "dtype", "max_model_len": "max_model_len"}
    arguments = {name: settings[key] for name, key in named.items() if settings.get(key) is not None}
    return {
        "model": "steelyard",
        "model_args": ",".join(f"{name}={value}" for name, value in arguments.items()),
        "model_revision": settings.get("revision"),
        "model_dtype": settings.get("dtype"),
        "batch_size": None,
        "limit": settings.get("benchmark", {}).get("limit"),
        "gen_kwargs": settings.get("benchmark", {}).get("sampling") or None,
    }


def _config(task: str, described: Mapping[str, Any], batch: Sequence[CellResults]) -> dict[str, Any]:
    if isinstance(described.get("config"), dict):
        return dict(described["config"])
    rows = [row for cell in batch for row in cell.scores if row["task"] == task]
    rows.sort(key=lambda row: not row["is_primary"])
    metrics = {row["metric"]: bool(row["higher_is_better"]) for row in rows}
    sample = next((each for cell in batch for each in cell.samples if each.task == task), None)
    return {
        "task": task,
        "num_fewshot": described.get("num_fewshot"),
        "repeats": described.get("repeats"),
        "output_type": None if sample is None else _output_type(sample),
        "metric_list": [{"metric": name, "higher_is_better": better} for name, better in metrics.items()],
        "metadata": {"version": described.get("version")},
    }


def _output_type(sample: Sample) -> str:
    if sample.choices:
        return "multiple_choice" if len(sample.choices) > 1 else "loglikelihood"
    return "generate_until" if sample.texts else "loglikelihood_rolling"


def _lines(samples: Sequence[tuple[CellResults, Sample]]) -> Iterator[dict[str, Any]]:
    """Yield one line per filter and doc, in the harness's order."""
    named = [key.rsplit(",", 1)[1] for _, sample in samples for key in sample.values]
    named += [name for _, sample in samples for name in sample.filtered]
    for filter_ in dict.fromkeys(named) or ["none"]:
        for cell, sample in samples:
            yield _line(cell, sample, filter_)


def _line(cell: CellResults, sample: Sample, filter_: str) -> dict[str, Any]:
    doc = json.loads(sample.doc)
    values: dict[str, Any] = {}
    for key, value in sample.values.items():
        metric, own = key.rsplit(",", 1)
        if own != filter_:
            continue
        if found := COMPONENT.fullmatch(metric):
            values.setdefault(found[1], []).append(value)
        else:
            values[metric] = value
    arguments, resps, filtered = _exchange(cell, sample, filter_)
    return {
        "doc_id": sample.doc_id,
        "doc": doc,
        "target": sample.target,
        "arguments": {
            f"gen_args_{number}": {f"arg_{place}": each for place, each in enumerate(call)}
            for number, call in enumerate(arguments)
        },
        "resps": resps,
        "filtered_resps": filtered,
        "filter": filter_,
        "metrics": list(values),
        "doc_hash": _sha(json.dumps(doc, indent=2, ensure_ascii=False)),
        "prompt_hash": _sha(sample.prompt),
        "target_hash": _sha(sample.target),
        **({"reasoning": list(sample.reasoning)} if sample.reasoning else {}),
        **values,
    }


def _exchange(cell: CellResults, sample: Sample, filter_: str) -> tuple[list[list[Any]], list[Any], list[Any]]:
    """Return the arguments of each request, the answers, and the answers after the filter."""
    if sample.texts:
        benchmark = cell.record["settings"].get("benchmark", {})
        given = benchmark.get("tasks", {}).get(sample.task, {}).get("gen_kwargs", benchmark.get("sampling", {}))
        answer: Any = sample.filtered.get(filter_, sample.texts[0])
        if len(sample.texts) > 1 and answer.startswith("["):
            with suppress(ValueError):  # a text may begin so
                answer = json.loads(answer)
        return [[sample.prompt, given]], [list(sample.texts)], [answer]
    if sample.choices:
        pairs = [[str(p), str(greedy)] for p, greedy in zip(sample.logprobs, sample.is_greedy, strict=True)]
        return [[sample.prompt, choice] for choice in sample.choices], [[pair] for pair in pairs], pairs
    logprobs = [str(logprob) for logprob in sample.logprobs]
    return [[sample.prompt]], [logprobs], logprobs[:1]


def _task_hash(lines: Iterable[str]) -> str:
    read = map(json.loads, lines)
    return _sha("".join(each["doc_hash"] + each["prompt_hash"] + each["target_hash"] for each in read))


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
