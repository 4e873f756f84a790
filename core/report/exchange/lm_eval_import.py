"""lm-evaluation-harness's results and samples files → cells, so that old runs stand in the same leaderboard. Pure."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeGuard

from core.benchmark.cell import fingerprint
from core.errors import UserError
from core.report.exchange.lm_eval_export import HARNESS
from core.sample import Cell, Sample, Score, Scoring
from core.scoring.headline import headline
from core.strict import safe_name

ENGINE = "lm-eval"
# Of a results file, what is said of all tasks together, and kept as it is; the environment's description is not.
KEPT = (
    "config",
    "git_hash",
    "date",
    "transformers_version",
    "lm_eval_version",
    "model_source",
    "model_name",
    "model_name_sanitized",
    "system_instruction",
    "system_instruction_sha",
    "fewshot_as_multiturn",
    "chat_template",
    "chat_template_sha",
    "total_evaluation_time_seconds",
)
LINE_FIELDS = frozenset(
    {
        "doc_id",
        "doc",
        "target",
        "arguments",
        "resps",
        "filtered_resps",
        "filter",
        "metrics",
        "doc_hash",
        "prompt_hash",
        "target_hash",
        "reasoning",
    }
)

log = logging.getLogger("steelyard.results")

# The lines of a task's samples file, None where there is none.
Lines = Callable[[str], Iterable[Mapping[str, Any]] | None]


def import_results(found: Mapping[str, Any], lines: Lines, name: str | None = None) -> Iterator[tuple[Cell, Scoring]]:
    """Yield a cell for each task of a results file, or group of tasks, that is in no other group.

    ``name`` is the model's in our results; the last part of the harness's if left out. Raises `ValueError` where it is no results
    file of the harness.
    """
    if not isinstance(found, dict) or not isinstance(found.get("results"), dict) or "configs" not in found:
        raise ValueError("no results file of lm-evaluation-harness: it has no 'results' and 'configs'")
    model = name or safe_name(str(found.get("model_name") or _model_of(found)))
    children = {group: tasks for group, tasks in (found.get("group_subtasks") or {}).items() if tasks}
    below = {task for tasks in children.values() for task in tasks}
    for benchmark in [each for each in found["results"] if each not in below]:
        tree = list(dict.fromkeys(_tree(benchmark, children)))
        tasks = [each for each in tree if each not in children]
        groups = [each for each in found.get("groups") or {} if each in tree]
        if any(task in found["configs"] for task in tasks):
            yield _cell(found, model, benchmark, [task for task in tasks if task in found["results"]], groups, lines)


def _model_of(found: Mapping[str, Any]) -> str:
    arguments = (found.get("config") or {}).get("model_args") or "imported"
    if isinstance(arguments, str):
        arguments = dict(each.split("=", 1) for each in arguments.split(",") if "=" in each)
    return str(arguments.get("pretrained") or arguments.get("model") or "imported")


def _tree(name: str, children: Mapping[str, Sequence[str]]) -> Iterator[str]:
    yield name
    for child in children.get(name, ()):
        yield from _tree(child, children)


def _cell(
    found: Mapping[str, Any], model: str, benchmark: str, tasks: Sequence[str], groups: Sequence[str], lines: Lines
) -> tuple[Cell, Scoring]:
    samples: list[Sample] = []
    scores: list[Score] = []
    described: dict[str, Any] = {}
    for task in tasks:
        own = _scores(found, task, found["results"][task], group=False)
        read = list(lines(task) or ())
        primary = next((f"{score.metric},{score.filter}" for score in own if score.primary), "")
        answered, extra = _samples(task, read, primary)
        samples += answered
        scores += own
        described[task] = {
            "version": (found.get("versions") or {}).get(task),
            "num_fewshot": (found.get("n-shot") or {}).get(task),
            "harness": found.get("lm_eval_version"),
            "config": found["configs"].get(task),
            **extra,
        }
    for group in groups:
        scores += _scores(found, group, found["groups"][group], group=True)
    if not scores:
        raise ValueError(f"{benchmark!r} has no score")
    config = found.get("config") or {}
    settings: dict[str, Any] = {
        "imported": ENGINE,
        "checkpoint": config.get("model_sha") or None,
        "dtype": config.get("model_dtype"),
        "chat_template": bool(found.get("chat_template")),
        "system_prompt": found.get("system_instruction"),
        "fewshot_as_multiturn": bool(found.get("fewshot_as_multiturn")),
        "benchmark": {"tasks": described, "groups": list(groups) or None, "limit": config.get("limit")},
        HARNESS: {key: found[key] for key in KEPT if key in found},
    }
    content = [[score.task, score.metric, score.filter, repr(score.value)] for score in scores]
    answers = [[s.task, s.doc_id, s.prompt, s.target, s.texts, s.logprobs, s.filtered] for s in samples]
    digest = fingerprint({"settings": settings, "scores": content, "samples": answers})
    source = {"source": found.get("model_name") or _model_of(found), "revision": config.get("model_revision") or None}
    head, remark = headline(benchmark, scores)
    scoring = Scoring(tuple(samples), tuple(scores), head, remark=remark)
    return Cell(digest, model, benchmark, {**settings, **source}), scoring


def _scores(found: Mapping[str, Any], task: str, metrics: Mapping[str, Any], *, group: bool) -> list[Score]:
    config = found["configs"].get(task) or {}
    better = (found.get("higher_is_better") or {}).get(task) or {}
    keys = [key for key, value in metrics.items() if "," in key and "_stderr," not in key and _is_number(value)]
    listed = [entry.get("metric") for entry in config.get("metric_list") or [] if isinstance(entry, dict)]
    primary = next((key for name in listed for key in keys if key.rsplit(",", 1)[0] == name), next(iter(keys), ""))
    counts = ((found.get("n-samples") or {}).get(task) or {}).get("effective", 0)
    scores = []
    for key in keys:
        metric, filter_ = key.rsplit(",", 1)
        stderr = metrics.get(f"{metric}_stderr,{filter_}")
        higher = better.get(metric)
        score = Score(
            task=task,
            metric=metric,
            filter=filter_,
            value=float(metrics[key]),
            stderr=float(stderr) if _is_number(stderr) else None,
            docs=int((metrics.get("sample_count") or {}).get(key) or metrics.get("sample_len") or counts),
            higher_is_better=True if higher is None else bool(higher),
            primary=key == primary,
            group=group,
        )
        scores.append(score)
    return scores


def _samples(task: str, lines: Iterable[Mapping[str, Any]], primary: str) -> tuple[list[Sample], dict[str, Any]]:
    """Return a task's samples, and the arguments that all its requests share."""
    samples: dict[int, Sample] = {}
    given: list[Any] = []
    left_out: set[str] = set()
    for line in lines:
        filter_ = str(line.get("filter", "none"))
        doc_id = int(line["doc_id"])
        sample = samples.get(doc_id)
        if sample is None:
            sample = _first(task, doc_id, line, given)
        values = dict(sample.values)
        for metric in line.get("metrics") or [key for key in line if key not in LINE_FIELDS]:
            numbers = dict(_numbers(metric, filter_, line.get(metric)))
            values |= numbers
            if not numbers:
                left_out.add(metric)
        filtered = dict(sample.filtered)
        if sample.texts:
            answer = line["filtered_resps"][0] if line.get("filtered_resps") else ""
            filtered[filter_] = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
        samples[doc_id] = replace(sample, values=values, filtered=filtered, value=values.get(primary))
    if left_out:
        log.warning("%s: values per doc of %s are no numbers and are left out", task, ", ".join(sorted(left_out)))
    return list(samples.values()), {"gen_kwargs": given[0]} if given else {}


def _first(task: str, doc_id: int, line: Mapping[str, Any], given: list[Any]) -> Sample:
    calls = _calls(line.get("arguments"))
    resps = line["resps"]
    sample = Sample(
        task=task,
        doc_id=doc_id,
        doc=json.dumps(line.get("doc"), ensure_ascii=False),
        prompt=calls[0][0] if calls and isinstance(calls[0][0], str) else json.dumps(calls[:1]),
        choices=(),
        target=str(line.get("target")),
        reasoning=tuple(line.get("reasoning", ())),
    )
    if calls and len(calls[0]) > 1 and isinstance(calls[0][1], dict):
        if not given:
            given.append(calls[0][1])
        return replace(sample, texts=tuple(str(text) for each in resps for text in each))
    if calls and len(calls[0]) > 1:
        pairs = [each[0] for each in resps]
        return replace(
            sample,
            choices=tuple(str(call[1]) for call in calls),
            logprobs=tuple(float(pair[0]) for pair in pairs),
            is_greedy=tuple(str(pair[1]) == "True" for pair in pairs),
        )
    return replace(sample, logprobs=tuple(float(each[0]) for each in resps))


def _calls(arguments: Any) -> list[list[Any]]:
    """Return the arguments of each request, from either of the forms that the harness has written."""
    if isinstance(arguments, dict):
        return [list(call.values()) for call in arguments.values()]
    return [list(call) for call in arguments or []]


def _numbers(metric: str, filter_: str, value: Any) -> Iterator[tuple[str, float]]:
    """Yield a metric's number of one doc, or each of several, ``metric[0]`` and so on."""
    if _is_number(value):
        yield f"{metric},{filter_}", float(value)
    elif isinstance(value, list) and value and all(_is_number(each) for each in value):
        for place, each in enumerate(value):
            yield f"{metric}[{place}],{filter_}", float(each)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not (isinstance(value, float) and math.isnan(value))


def check_format(format: str) -> None:
    """Raise `core.errors.UserError` for a format there is not."""
    if format != ENGINE:
        raise UserError(f"{format!r}: the format there is, is '{ENGINE}'")
