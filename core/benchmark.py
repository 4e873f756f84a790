"""Dataset manager: a benchmark gives requests and turns responses into scores, as lm-evaluation-harness would.

Its task side (YAML format, few-shot, filters, metrics, aggregation) is used as it is; what runs the model is ours. This file and
`core.catalogue` alone know its API (0.4.13).
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from core import catalogue
from core.campaign import BenchmarkSpec, SamplingSpec, benchmark_label
from core.errors import SteelyardError, UserError
from core.request import Generate, Generated, Loglikelihood, LoglikelihoodRolling, Request, Response, Sampling, Scored
from core.sample import Sample, Score, Scoring
from core.sandbox import check_sandbox, unsafe_code_allowed

BOOTSTRAP_ITERATIONS = 100_000  # lm-eval's default; only medians, F1 and the like are bootstrapped
DEFAULT_MAX_TOKENS = 256  # of lm-eval's backends
MAX_TOKEN_NAMES = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
# Where rows come from; which rows they were is in the digest.
PLACE_FIELDS = (
    "custom_dataset",
    "dataset_path",
    "dataset_name",
    "dataset_kwargs",
    "generation_kwargs",
    "num_fewshot",
    "repeats",
)


@dataclass(frozen=True)
class Chat:
    """How prompts become chat turns. ``render(messages, add_generation_prompt=True)`` applies the checkpoint's template."""

    render: Callable[..., str]
    tokenizer_name: str
    system_prompt: str | None = None
    fewshot_as_multiturn: bool = True


def check_benchmark(spec: BenchmarkSpec, *, allow_unsafe_code: bool = False) -> None:
    """Find the benchmark without loading its dataset. Raises `core.errors.UserError` where it is not there or cannot run here."""
    config = catalogue.find(spec.name)
    if (config.get("metadata") or {}).get("runs_code"):
        if not allow_unsafe_code:
            check_sandbox()
    elif config.get("unsafe_code") and not allow_unsafe_code:
        raise UserError(
            f"benchmark {spec.name!r} runs model-written code with the harness's own metric, outside any sandbox: "
            "use the bundled 'humaneval', or set allow_unsafe_code: true"
        )


def load_benchmark(spec: BenchmarkSpec, *, chat: Chat | None, seed: int, allow_unsafe_code: bool = False) -> Benchmark:
    """Load datasets and build every prompt of a benchmark.

    Few-shot numbers follow lm-eval: a task whose own config says 0 stays at 0. Raises `core.errors.UserError` where the benchmark
    cannot be loaded.
    """
    check_benchmark(spec, allow_unsafe_code=allow_unsafe_code)
    tasks, groups = catalogue.load_tasks(spec.name)
    for name, task in tasks.items():
        if spec.num_fewshot is not None and task.get_config("num_fewshot") != 0:
            task.set_config(key="num_fewshot", value=spec.num_fewshot)
        elif task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        if spec.repeats is not None:
            task.set_config(key="repeats", value=spec.repeats)
        task.set_fewshot_seed(seed=seed)
        try:
            with catalogue.LOADING:
                # Some tasks draw from the module's generator while they build prompts.
                random.seed(seed)
                task.build_all_requests(
                    limit=spec.limit,
                    system_instruction=chat.system_prompt if chat else None,
                    apply_chat_template=chat is not None,
                    fewshot_as_multiturn=bool(chat and chat.fewshot_as_multiturn),
                    chat_template=chat.render if chat else None,
                    tokenizer_name=chat.tokenizer_name if chat else "",
                )
        except Exception as error:  # whatever a task's own templates and functions raise
            reason = next(iter(str(error).splitlines()), "")
            raise UserError(
                f"benchmark {spec.name!r}: prompts of {name!r} cannot be built: {type(error).__name__}: {reason}"
            ) from error
    return Benchmark(spec, tasks, groups, chat, seed, allow_unsafe_code)


class Benchmark:
    """A loaded benchmark: one or more lm-eval tasks with their prompts."""

    def __init__(
        self,
        spec: BenchmarkSpec,
        tasks: dict[str, Any],
        groups: dict[str, Any],
        chat: Chat | None,
        seed: int,
        allow_unsafe_code: bool,
    ) -> None:
        self.label = benchmark_label(spec)
        self._spec, self._tasks, self._groups = spec, tasks, groups
        self._allow_unsafe_code = allow_unsafe_code
        self._scoring = threading.Lock()  # lm-eval keeps responses on its instances
        self.docs = sum(len({instance.doc_id for instance in task.instances}) for task in tasks.values())
        self.settings: dict[str, Any] = {
            "tasks": {name: self._task_settings(name, task) for name, task in sorted(tasks.items())},
            "groups": _digest({name: group.to_dict() for name, group in groups.items()}) if groups else None,
            "limit": spec.limit,
            "seed": seed,
            "sampling": spec.sampling.model_dump(exclude_none=True),
            "system_prompt": chat.system_prompt if chat else None,
        }

    def requests(self) -> list[Request]:
        """Return every request, ids ``<task>/<doc>/<request of the doc>/<repeat>``, in the benchmark's order."""
        return [request for name, task in self._tasks.items() for request in self._requests_of(name, task)]

    def score(self, responses: Mapping[str, Response]) -> Scoring:
        """Turn responses by request id into samples, task scores and group scores.

        A doc with a response missing or failed is a sample with its error and counts in no score. Raises
        `core.errors.SteelyardError` where a task has no doc left to score.
        """
        from lm_eval.evaluator_utils import _process_results

        samples: list[Sample] = []
        accumulated: dict[str, Any] = {}
        with self._scoring, unsafe_code_allowed(self._allow_unsafe_code):
            for name, task in self._tasks.items():
                scored, raw = _score_docs(name, task, responses)
                samples += scored
                if not raw:
                    raise SteelyardError(f"{name}: no doc could be scored; the first said: {scored[0].error}")
                accumulated[name] = {"task": task, "raw_metrics": raw, "logged_samples": []}
            results = _process_results(accumulated, self._groups, BOOTSTRAP_ITERATIONS)
        scores: list[Score] = []
        primary: dict[str, Score] = {}
        for name, acc in accumulated.items():
            better = acc["task"].higher_is_better() or {}
            counts = {f"{metric},{filter_}": len(values) for (metric, filter_), values in acc["raw_metrics"].items()}
            found = _scores(name, results.metrics[name], counts, better, _primary_key(acc["task"], acc["raw_metrics"]))
            scores += found
            primary[name] = next(score for score in found if score.primary)
        for name, group in self._groups.items():
            metrics = results.metrics.get(name, {})
            keys = [key for key in metrics if "," in key and "_stderr," not in key]
            if not group.has_aggregation or not keys:
                continue
            counts = dict.fromkeys(keys, metrics.get("sample_len", 0))
            better = next(iter(accumulated.values()))["task"].higher_is_better() or {}
            found = _scores(name, metrics, counts, better, keys[0], group=True)
            scores += found
            primary[name] = next(score for score in found if score.primary)
        headline = self._headline(primary)
        if headline not in scores:
            scores.append(headline)
        return Scoring(tuple(samples), tuple(scores), headline)

    def _headline(self, primary: dict[str, Score]) -> Score:
        for name in (self._spec.name, *self._groups):
            if name in primary:
                return primary[name]
        leaves = [primary[name] for name in self._tasks]
        if len(leaves) == 1:
            return leaves[0]
        return Score(
            task=self.label,
            metric=f"mean of {leaves[0].metric}",
            filter=leaves[0].filter,
            value=sum(score.value for score in leaves) / len(leaves),
            stderr=None,
            docs=sum(score.docs for score in leaves),
            higher_is_better=leaves[0].higher_is_better,
            primary=True,
            group=True,
        )

    def _requests_of(self, name: str, task: Any) -> Iterable[Request]:
        for instance in task.instances:
            for repeat in range(instance.repeats or 1):
                yield _request(_request_id(name, instance, repeat), instance, self._spec.sampling, repeat)

    def _task_settings(self, name: str, task: Any) -> dict[str, Any]:
        """Everything of one task that changes outputs or scores; the digest covers each prompt and target as built."""
        from importlib.metadata import version

        config = {key: value for key, value in task.dump_config().items() if key not in PLACE_FIELDS}
        docs: dict[int, Any] = {instance.doc_id: instance.doc for instance in task.instances}
        return {
            "version": task.VERSION,
            "num_fewshot": task.get_config("num_fewshot"),
            "repeats": task.get_config("repeats"),
            "config": _digest(config),
            "prompts": _digest([asdict(request) for request in self._requests_of(name, task)]),
            "targets": _digest([str(task.doc_to_target(doc)) for doc in docs.values()]),
            "harness": version("lm-eval"),
        }


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


def _request_id(name: str, instance: Any, repeat: int) -> str:
    return f"{name}/{instance.doc_id}/{instance.idx}/{repeat}"


def _request(key: str, instance: Any, override: SamplingSpec, repeat: int) -> Request:
    arguments = instance.args
    if len(arguments) > (1 if instance.request_type == "loglikelihood_rolling" else 2):
        raise UserError(f"{instance.task_name}: image and audio inputs are not supported")
    if instance.request_type == "generate_until":
        sampling = sampling_of(arguments[1], override)
        if repeat and sampling.seed is not None:
            sampling = Sampling(
                **{**asdict(sampling), "seed": sampling.seed + repeat}
            )  # or every repeat would be the same
        return Generate(key, arguments[0], sampling)
    if instance.request_type == "loglikelihood":
        return Loglikelihood(key, arguments[0], arguments[1])
    return LoglikelihoodRolling(key, arguments[0])


def _score_docs(
    name: str, task: Any, responses: Mapping[str, Response]
) -> tuple[list[Sample], dict[tuple[str, str], list[Any]]]:
    """Score one task doc by doc. Returns its samples and (metric, filter) → per-doc values, as lm-eval accumulates them."""
    by_doc: dict[int, list[Any]] = defaultdict(list)
    for instance in task.instances:
        by_doc[instance.doc_id].append(instance)
    answered: dict[int, list[Response]] = {}
    errors: dict[int, str] = {}
    for doc_id, instances in by_doc.items():
        instances.sort(key=lambda instance: instance.idx)
        keys = [_request_id(name, i, repeat) for i in instances for repeat in range(i.repeats or 1)]
        found = [responses.get(key) for key in keys]
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
            instance.resps = [
                _answer(instance, responses[_request_id(name, instance, repeat)])
                for repeat in range(instance.repeats or 1)
            ]
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
    primary = _primary_key(task, raw) if raw else ""
    samples = [
        _sample(
            name, task, by_doc[doc_id], answered[doc_id], filtered[doc_id], values[doc_id], primary, errors.get(doc_id)
        )
        for doc_id in by_doc
    ]
    return samples, dict(raw)


def _answer(instance: Any, response: Response) -> Any:
    """Return a response as lm-eval's backends do."""
    if isinstance(response, Generated):
        return response.text
    return (
        response.logprob if instance.request_type == "loglikelihood_rolling" else (response.logprob, response.is_greedy)
    )


def _sample(
    name: str,
    task: Any,
    instances: list[Any],
    responses: list[Response],
    filtered: dict[str, str],
    values: dict[str, Any],
    primary: str,
    error: str | None,
) -> Sample:
    first = instances[0]
    scored = [response for response in responses if isinstance(response, Scored)]
    generated = [response for response in responses if isinstance(response, Generated)]
    numbers = {
        key: float(value) for key, value in values.items() if isinstance(value, bool | int | float) or _is_scalar(value)
    }
    return Sample(
        task=name,
        doc_id=first.doc_id,
        doc=_json(first.doc),
        prompt=first.args[0],
        choices=tuple(i.args[1] for i in instances) if first.request_type == "loglikelihood" else (),
        target=str(task.doc_to_target(first.doc)),
        texts=tuple(response.text for response in generated),
        logprobs=tuple(response.logprob for response in scored),
        is_greedy=tuple(response.is_greedy for response in scored),
        filtered=filtered,
        values=numbers,
        value=numbers.get(primary),
        prompt_tokens=sum(response.prompt_tokens for response in responses),
        completion_tokens=sum(response.completion_tokens for response in generated),
        cached_tokens=sum(response.cached_tokens for response in responses),
        truncated=any(r.finish_reason == "length" for r in generated) or any(r.truncated for r in scored),
        error=error,
    )


def _is_scalar(value: Any) -> bool:
    import numpy as np

    return isinstance(value, np.number | np.bool_)


def _primary_key(task: Any, raw: Mapping[tuple[str, str], Any]) -> str:
    """Name the number that stands for a task: the first metric it lists, under its first filter."""
    listed = [
        entry.get("metric") for entry in task.get_config("metric_list") or [] if isinstance(entry.get("metric"), str)
    ]
    metric, filter_ = next((key for name in listed for key in raw if key[0] == name), next(iter(raw)))
    return f"{metric},{filter_}"


def _scores(
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
    return json.dumps(value, ensure_ascii=False, default=str)


def _digest(value: Any) -> str:
    """Hash JSON-like values; where an object prints its address, the address is left out."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", text).encode()).hexdigest()
