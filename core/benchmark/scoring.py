"""Responses of one task → samples and per-doc values, by lm-eval's own filters and metrics (0.4.13)."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from core.benchmark.filtering import apply_filters, filter_names
from core.benchmark.images import images_of, in_words
from core.benchmark.placeholders import leave_out_placeholders
from core.benchmark.repeats import answer_values
from core.benchmark.targets import Target, targets_of
from core.errors import SteelyardError, reason_of
from core.request import Generated, Response, Scored
from core.sample import NOT_SCORED, Sample, Score
from core.scoring.reasoning import whole_texts

# (lm-eval instance, generated text) → (reasoning, answer)
Split = Callable[[Any, str], tuple[str, str]]
Targets = Mapping[int, Target]  # by doc id
# Values by (metric, filter) and whose they are; by doc, its values, its answers after each filter, and why it has none.
_Values = tuple[
    dict[tuple[str, str], list[Any]],
    dict[tuple[str, str], list[int]],
    Mapping[int, dict[str, Any]],
    Mapping[int, dict[str, str]],
    dict[int, str],
]


def whole_answer(_instance: Any, text: str) -> tuple[str, str]:
    """Return no reasoning, and all of a text as the answer."""
    return "", text


def request_ids(name: str, instance: Any) -> list[str]:
    """Return the ids of an instance's requests, one for each repeat: ``<task>/<doc>/<request of the doc>/<repeat>``."""
    return [f"{name}/{instance.doc_id}/{instance.idx}/{repeat}" for repeat in range(instance.repeats or 1)]


@dataclass(frozen=True)
class ScoredDocs:
    """One task, scored doc by doc: per-doc values by (metric, filter), as lm-eval accumulates them, and the docs they are of.

    ``answers`` has what each of several answers per doc alone would score (`core.benchmark.repeats.answer_values`).
    """

    samples: list[Sample]
    raw: dict[tuple[str, str], list[Any]]
    docs: dict[tuple[str, str], list[int]]
    answers: list[list[float]]


def score_docs(
    name: str, task: Any, responses: Mapping[str, Response], split: Split = whole_answer, targets: Targets | None = None
) -> ScoredDocs:
    """Score one task doc by doc; ``targets`` are those of its docs, where they are known.

    A doc with a response missing or failed is a sample with its error and has no values. One that a filter or a metric cannot score
    is one too; it has the values of the other filters. Raises `core.errors.SteelyardError` where scoring cannot work here at all.
    """
    by_doc, targets = _by_doc(task), targets or targets_of(task)
    answered: dict[int, list[Response]] = {}
    errors: dict[int, str] = {}
    for doc_id, instances in by_doc.items():
        found = [responses.get(key) for instance in instances for key in request_ids(name, instance)]
        answered[doc_id] = [response for response in found if response is not None]
        faults = [r.error if r else "no response" for r in found if r is None or r.error is not None]
        if faults:
            errors[doc_id] = faults[0] or "failed"
    scorable = {doc_id: instances for doc_id, instances in by_doc.items() if doc_id not in errors}
    for instance in (each for instances in scorable.values() for each in instances):
        instance.resps = [_answer(instance, responses[key], split) for key in request_ids(name, instance)]
    raw, docs, values, filtered, faulty = _values(task, scorable, targets)
    leave_out_placeholders(task.aggregation(), raw, docs, values)
    errors |= {doc_id: f"{NOT_SCORED}doc {doc_id} of {name}: {what}" for doc_id, what in faulty.items()}
    primary = primary_key(task, raw) if raw else ""
    samples = [
        replace(
            _sample(name, instances, answered[doc_id], split, targets[doc_id].text),
            filtered=filtered[doc_id],
            values=(numbers := _numbers(values[doc_id])),
            value=numbers.get(primary),
            error=errors.get(doc_id),
        )
        for doc_id, instances in by_doc.items()
    ]
    single = {sample.doc_id: sample.value for sample in samples if sample.value is not None}
    return ScoredDocs(samples, raw, docs, answer_values(name, task, by_doc, primary, single) if single else [])


def _values(task: Any, scorable: Mapping[int, list[Any]], targets: Targets) -> _Values:
    """Filter the answers of docs and score each doc by each filter; a doc that cannot be scored has the first reason why."""
    raw: dict[tuple[str, str], list[Any]] = defaultdict(list)
    docs: dict[tuple[str, str], list[int]] = defaultdict(list)
    values: dict[int, dict[str, Any]] = defaultdict(dict)
    filtered: dict[int, dict[str, str]] = defaultdict(dict)
    faults: dict[int, str] = {}
    refused = apply_filters(task, scorable)
    for (doc_id, filter_), error in refused.items():
        faults.setdefault(
            doc_id, f"filter {filter_!r}: {reason_of(error)}" if filter_ else f"its filters: {reason_of(error)}"
        )
    for filter_ in filter_names(task, scorable):
        for doc_id, instances in scorable.items():
            if any(filter_ not in instance.filtered_resps for instance in instances):
                faults.setdefault(doc_id, f"filter {filter_!r} gave no answer")
                continue
            answers = [instance.filtered_resps[filter_] for instance in instances]
            try:
                found = dict(task.process_results(instances[0].doc, answers).items())
            except SteelyardError:
                raise
            except Exception as error:  # a task's own functions raise anything
                why = targets[doc_id].fault or f"its metrics, after filter {filter_!r}: {reason_of(error)}"
                faults.setdefault(doc_id, why)
                continue
            for metric, value in found.items():
                raw[metric, filter_].append(value)
                docs[metric, filter_].append(doc_id)
                values[doc_id][f"{metric},{filter_}"] = value
            if instances[0].request_type == "generate_until":
                filtered[doc_id][filter_] = answers[0] if isinstance(answers[0], str) else _json(answers[0])
    return dict(raw), dict(docs), values, filtered, faults


def recall(name: str, task: Any, samples: Iterable[Sample], think_end_token: str | None) -> dict[str, Response]:
    """Rebuild the responses of one task's stored samples, by request id; those of docs that were not answered are missing.

    Token counts are a sample's, given to the first of its responses.
    """
    kept = {sample.doc_id: sample for sample in samples if sample.is_answered}
    found: dict[str, Response] = {}
    for doc_id, instances in _by_doc(task).items():
        sample = kept.get(doc_id)
        if sample is None:
            continue
        keys = [key for instance in instances for key in request_ids(name, instance)]
        counts: dict[str, Any] = {
            "prompt_tokens": sample.prompt_tokens,
            "cached_tokens": sample.cached_tokens,
            "truncated": sample.dropped_tokens,
        }
        answers: list[Response]
        if sample.texts:
            reason, counts["completion_tokens"] = "length" if sample.truncated else "stop", sample.completion_tokens
            answers = [
                Generated(key, text, reason, 0, 0)
                for key, text in zip(keys, whole_texts(sample, think_end_token), strict=True)
            ]
        else:
            scores = zip(keys, sample.logprobs, sample.is_greedy, strict=True)
            answers = [Scored(key, logprob, greedy, 0, 0) for key, logprob, greedy in scores]
        answers[0] = replace(answers[0], **counts)
        found |= {answer.id: answer for answer in answers}
    return found


def _by_doc(task: Any) -> dict[int, list[Any]]:
    """Return a task's instances by doc id, in the order of its requests."""
    by_doc: dict[int, list[Any]] = defaultdict(list)
    for instance in sorted(task.instances, key=lambda instance: instance.idx):
        by_doc[instance.doc_id].append(instance)
    return {doc_id: by_doc[doc_id] for doc_id in dict.fromkeys(instance.doc_id for instance in task.instances)}


def _answer(instance: Any, response: Response, split: Split) -> Any:
    """Return a response as lm-eval's backends do."""
    if isinstance(response, Generated):
        return split(instance, response.text)[1]
    return (
        response.logprob if instance.request_type == "loglikelihood_rolling" else (response.logprob, response.is_greedy)
    )


def _sample(name: str, instances: list[Any], responses: list[Response], split: Split, target: str) -> Sample:
    """Return a doc's sample but for what filters and metrics make of it."""
    first = instances[0]
    scored = [response for response in responses if isinstance(response, Scored)]
    generated = [response for response in responses if isinstance(response, Generated)]
    parts = [split(first, response.text) for response in generated]
    return Sample(
        task=name,
        doc_id=first.doc_id,
        doc=_json(first.doc),
        prompt=first.args[0],
        images=tuple(image.sha256 for image in images_of(first)),
        choices=tuple(i.args[1] for i in instances) if first.request_type == "loglikelihood" else (),
        target=target,
        texts=tuple(answer for _, answer in parts),
        reasoning=tuple(reasoning for reasoning, _ in parts) if any(reasoning for reasoning, _ in parts) else (),
        logprobs=tuple(response.logprob for response in scored),
        is_greedy=tuple(response.is_greedy for response in scored),
        prompt_tokens=sum(response.prompt_tokens for response in responses),
        completion_tokens=sum(response.completion_tokens for response in generated),
        cached_tokens=sum(response.cached_tokens for response in responses),
        truncated=any(r.finish_reason == "length" for r in generated),
        dropped_tokens=sum(response.truncated for response in responses),
    )


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the values that are numbers."""
    return {key: float(value) for key, value in values.items() if is_number(value)}


def is_number(value: Any) -> bool:
    """Whether ``value`` is a number of Python or of NumPy."""
    return isinstance(value, bool | int | float | np.number | np.bool_)


def primary_key(task: Any, raw: Mapping[tuple[str, str], Any]) -> str:
    """Return the key of the number that stands for a task: the first metric it lists, under its first filter."""
    listed = [entry.get("metric") for entry in task.get_config("metric_list") or []]
    metric, filter_ = next((key for name in listed for key in raw if key[0] == name), next(iter(raw)))
    return f"{metric},{filter_}"


def read_scores(
    name: str,
    metrics: Mapping[str, Any],
    docs: Mapping[str, int],
    higher_is_better: Mapping[str, bool],
    primary: str,
) -> list[Score]:
    """Read lm-eval's flat ``"metric,filter"`` results of one task; higher is better where it does not know."""
    scores = []
    for key, count in docs.items():
        metric, filter_ = key.rsplit(",", 1)
        stderr = metrics.get(f"{metric}_stderr,{filter_}")
        scores.append(
            Score(
                task=name,
                metric=metric,
                filter=filter_,
                value=float(metrics[key]),
                stderr=float(stderr) if isinstance(stderr, int | float) else None,
                docs=count,
                higher_is_better=higher_is_better.get(metric) is not False,
                primary=key == primary,
            )
        )
    return scores


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=in_words)
