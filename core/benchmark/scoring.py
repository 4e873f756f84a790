"""Responses of one task → samples and per-doc values, by lm-eval's own filters and metrics (0.4.13)."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from core.benchmark.images import images_of, in_words
from core.benchmark.placeholders import leave_out_placeholders
from core.benchmark.repeats import answer_values
from core.campaign import SamplingSpec
from core.request import Generated, Response, Sampling, Scored
from core.sample import Sample, Score
from core.scoring.reasoning import whole_texts

# (lm-eval instance, generated text) → (reasoning, answer)
Split = Callable[[Any, str], tuple[str, str]]


def whole_answer(_instance: Any, text: str) -> tuple[str, str]:
    """Return no reasoning, and all of a text as the answer."""
    return "", text


def request_ids(name: str, instance: Any) -> list[str]:
    """Return the ids of an instance's requests, one for each repeat: ``<task>/<doc>/<request of the doc>/<repeat>``."""
    return [f"{name}/{instance.doc_id}/{instance.idx}/{repeat}" for repeat in range(instance.repeats or 1)]


def score_docs(
    name: str, task: Any, responses: Mapping[str, Response], split: Split = whole_answer
) -> tuple[list[Sample], dict[tuple[str, str], list[Any]], list[list[float]]]:
    """Score one task doc by doc. Returns its samples and (metric, filter) → per-doc values, as lm-eval accumulates them.

    A doc with a response missing or failed is a sample with its error and has no values. With several answers per doc, the third
    value has what each alone would score (`core.benchmark.repeats.answer_values`).
    """
    by_doc = _by_doc(task)
    answered: dict[int, list[Response]] = {}
    errors: dict[int, str] = {}
    for doc_id, instances in by_doc.items():
        found = [responses.get(key) for instance in instances for key in request_ids(name, instance)]
        answered[doc_id] = [response for response in found if response is not None]
        faults = [r.error if r else "no response" for r in found if r is None or r.error is not None]
        if faults:
            errors[doc_id] = faults[0] or "failed"
    everything = task.instances
    scorable = [instance for instance in everything if instance.doc_id not in errors]
    raw: dict[tuple[str, str], list[Any]] = defaultdict(list)
    values: dict[int, dict[str, Any]] = defaultdict(dict)
    filtered: dict[int, dict[str, str]] = defaultdict(dict)
    if scorable:
        for instance in scorable:
            instance.filtered_resps = {}
            instance.resps = [_answer(instance, responses[key], split) for key in request_ids(name, instance)]
        task._instances = scorable
        try:
            task.apply_filters()
        finally:
            task._instances = everything
        for filter_ in scorable[0].filtered_resps:
            for doc_id, instances in by_doc.items():
                if doc_id in errors:
                    continue
                answers = [instance.filtered_resps[filter_] for instance in instances]
                for metric, value in task.process_results(instances[0].doc, answers).items():
                    raw[metric, filter_].append(value)
                    values[doc_id][f"{metric},{filter_}"] = value
                if instances[0].request_type == "generate_until":
                    filtered[doc_id][filter_] = answers[0] if isinstance(answers[0], str) else _json(answers[0])
    leave_out_placeholders(task.aggregation(), raw, values)
    primary = primary_key(task, raw) if raw else ""
    samples = [
        replace(
            _sample(name, task, instances, answered[doc_id], split),
            filtered=filtered[doc_id],
            values=(numbers := _numbers(values[doc_id])),
            value=numbers.get(primary),
            error=errors.get(doc_id),
        )
        for doc_id, instances in by_doc.items()
    ]
    single = {sample.doc_id: sample.value for sample in samples if sample.value is not None}
    return samples, dict(raw), answer_values(name, task, by_doc, primary, single) if single else []


def recall(name: str, task: Any, samples: Iterable[Sample], think_end_token: str | None) -> dict[str, Response]:
    """Rebuild the responses of one task's stored samples, by request id; those of samples that failed are missing.

    Token counts are a sample's, given to the first of its responses.
    """
    kept = {sample.doc_id: sample for sample in samples if sample.error is None}
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


def _sample(name: str, task: Any, instances: list[Any], responses: list[Response], split: Split) -> Sample:
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
        target=str(task.doc_to_target(first.doc)),
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
    """Return the values that are numbers, of Python or of NumPy."""
    kinds = (bool, int, float, np.number, np.bool_)
    return {key: float(value) for key, value in values.items() if isinstance(value, kinds)}


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
    *,
    group: bool = False,
) -> list[Score]:
    """Read lm-eval's flat ``"metric,filter"`` results of one task or group."""
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
                higher_is_better=bool(higher_is_better.get(metric, True)),
                primary=key == primary,
                group=group,
            )
        )
    return scores


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=in_words)


DEFAULT_MAX_TOKENS = 256  # of lm-eval's backends
MAX_TOKEN_NAMES = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


def sampling_of(generation: Mapping[str, Any], override: SamplingSpec) -> Sampling:
    """Translate a task's ``generation_kwargs`` as lm-eval's backends do, then apply the campaign's overrides."""
    given = dict(generation)
    until = given.pop("until", None) or []
    limits = [given.pop(name, None) for name in MAX_TOKEN_NAMES]
    do_sample = given.pop("do_sample", None)
    temperature = float(given.pop("temperature", None) or 0.0)
    if do_sample is False:
        temperature = 0.0
    elif do_sample and not temperature:
        temperature = 1.0
    values: dict[str, Any] = {
        "until": tuple([until] if isinstance(until, str) else until),
        "max_tokens": int(next((limit for limit in limits if limit is not None), DEFAULT_MAX_TOKENS)),
        "temperature": temperature,
        **{name: given.pop(name) for name in ("top_p", "top_k", "min_p", "seed") if given.get(name) is not None},
    }
    chosen = override.model_dump(exclude_none=True)
    if "until" in chosen:
        chosen["until"] = tuple(chosen["until"])
    return Sampling(**{**values, **chosen}, extra=given)
