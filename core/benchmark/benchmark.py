"""A loaded benchmark: requests, and scores from their responses, as lm-evaluation-harness (0.4.13) would make them.

Its task side (YAML format, few-shot, filters, metrics, aggregation) is used as it is; what runs the model is ours.
"""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from core.benchmark.aggregate import aggregate
from core.benchmark.cell import digest, task_settings
from core.benchmark.code_metrics import loads_code_eval, runs_in_sandbox
from core.benchmark.datasets.call import LoadedDataset
from core.benchmark.datasets.made import Making, Tokenizer, make_docs
from core.benchmark.datasets.route import Route
from core.benchmark.doc_faults import counted, doc_faults
from core.benchmark.find import find, leaves_of, scope_of
from core.benchmark.groups import group_scores
from core.benchmark.heard import Heard, hearing
from core.benchmark.images import hold_images, images_of, in_parts, task_asks_images
from core.benchmark.load import drawn_shots, load_tasks, show_first_shots
from core.benchmark.loading import LOADING
from core.benchmark.metadata import check_metadata
from core.benchmark.sampling import sampling_of
from core.benchmark.scoring import (
    ScoredDocs,
    primary_key,
    read_scores,
    recall,
    request_ids,
    score_docs,
    whole_answer,
)
from core.benchmark.seen import watched
from core.benchmark.targets import (
    count_in_whole_numbers,
    faults_in_words,
    refuse_hopeless,
    targets_of,
    targets_unread,
)
from core.campaign import BenchmarkSpec, DatasetsSpec, benchmark_label
from core.errors import SteelyardError, UserError, reason_of
from core.request import Generate, Loglikelihood, LoglikelihoodRolling, Request, Response
from core.sample import NOT_SCORED, Sample, Score, Scoring
from core.scoring.headline import headline
from core.scoring.reasoning import cut, split_reasoning
from core.scoring.sandbox.sandbox import choose_jail, unsafe_code_allowed
from core.scoring.statistics import spread


@dataclass(frozen=True)
class Chat:
    """How prompts become chat turns. ``render(messages, add_generation_prompt=True)`` applies the checkpoint's template."""

    render: Callable[..., str]
    tokenizer_name: str
    system_prompt: str | None = None
    fewshot_as_multiturn: bool = True


@dataclass(frozen=True)
class Found:
    """What is held against a benchmark before it is answered: the harness's warnings, and faults of docs by task and doc id."""

    loading: tuple[str, ...] = ()
    building: tuple[str, ...] = ()
    faults: Mapping[str, Mapping[int, tuple[str, ...]]] = field(default_factory=dict)


def check_benchmark(spec: BenchmarkSpec, *, allow_unsafe_code: bool = False) -> None:
    """Find the benchmark without loading its dataset. Raises `core.errors.UserError` where it is not there or cannot run here."""
    find(spec.name)
    leaves = leaves_of(spec.name) if spec.adaptive or spec.metadata or not allow_unsafe_code else []
    check_metadata(spec, leaves)
    if spec.adaptive and len(leaves) > 1:
        raise UserError(
            f"benchmark {spec.name!r} has {len(leaves)} tasks, whose scores are not one mean over docs: drop its adaptive, or "
            "list the tasks as benchmarks of their own"
        )
    for leaf in [] if allow_unsafe_code else leaves:
        config = leaf.config or {}
        if (config.get("metadata") or {}).get("runs_code") or loads_code_eval(config):
            choose_jail()
        elif config.get("unsafe_code"):
            raise _unsafe(leaf.name)


def _unsafe(name: str) -> UserError:
    return UserError(
        f"benchmark {name!r} runs model-written code in the harness itself, outside any sandbox: "
        "use one whose metric is code_eval, as humaneval and mbpp, or set allow_unsafe_code: true"
    )


def load_benchmark(
    spec: BenchmarkSpec,
    *,
    chat: Chat | None,
    seed: int,
    allow_unsafe_code: bool = False,
    think_end_token: str | None = None,
    image_token: Callable[[], str] | None = None,
    datasets: DatasetsSpec | None = None,
    tokenizer: Tokenizer | None = None,
) -> Benchmark:
    """Load datasets and build every prompt of a benchmark.

    Few-shot numbers follow lm-eval: a task whose own config says 0 stays at 0. With ``think_end_token`` the task's own stop strings
    end the answer, not the reasoning before it. ``image_token`` gives what marks an image in a prompt without chat template; None
    says that the model takes no images. ``datasets`` says where rows come from, ``tokenizer`` which one docs are made for where a
    task's code makes them. Raises `core.errors.UserError` where the benchmark cannot be loaded.
    """
    check_benchmark(spec, allow_unsafe_code=allow_unsafe_code)
    making = Making(tokenizer, seed, spec.metadata, datasets or DatasetsSpec(), spec.dataset_revision)
    made, origins = make_docs(spec.name, leaves_of(spec.name), making)
    loading, building = Heard(), Heard()
    with unsafe_code_allowed(allow_unsafe_code), hearing(loading):  # code_eval tries itself when it is loaded
        route = Route(datasets, spec.dataset_revision)
        tasks, groups = load_tasks(spec.name, route, spec.metadata, made)
    for task in tasks.values():
        count_in_whole_numbers(task)
    if spec.fewshot_sampler is not None:
        for name, task in tasks.items():
            show_first_shots(spec, name, task)
    shots = {name: drawn_shots(task) for name, task in tasks.items()}
    faults = {}
    for name, task in tasks.items():
        if task.get_config("unsafe_code") and not (allow_unsafe_code or runs_in_sandbox(task)):
            raise _unsafe(name)
        if spec.num_fewshot is not None and task.get_config("num_fewshot") != 0:
            task.set_config(key="num_fewshot", value=spec.num_fewshot)
        elif task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        if spec.repeats is not None:
            task.set_config(key="repeats", value=spec.repeats)
        task.set_fewshot_seed(seed=seed)
        images = task_asks_images(name, task, takes_images=image_token is not None)
        try:
            with LOADING, hearing(building), targets_unread(task), watched(task) as seen:
                # Some tasks draw from the module's generator while they build prompts.
                random.seed(seed)
                task.build_all_requests(
                    limit=spec.limit,
                    system_instruction=chat.system_prompt if chat else None,
                    apply_chat_template=chat is not None,
                    fewshot_as_multiturn=bool(chat and chat.fewshot_as_multiturn),
                    chat_template=in_parts(chat.render) if chat and images else chat and chat.render,
                    tokenizer_name=chat.tokenizer_name if chat else "",
                )
        except UserError as error:  # of the chat template
            raise UserError(f"benchmark {spec.name!r}: prompts of {name!r} cannot be built: {error}") from error
        except Exception as error:  # a task's own templates and functions raise anything
            raise UserError(
                f"benchmark {spec.name!r}: prompts of {name!r} cannot be built: {reason_of(error)}"
            ) from error
        if images:
            hold_images(task.instances, image_token() if image_token and not chat else None)
        faults[name] = doc_faults(task, seen, chat.system_prompt if chat else None, chat=chat is not None)
    found = Found(loading.lines, building.lines, faults)
    return Benchmark(
        spec, tasks, groups, chat, seed, allow_unsafe_code, think_end_token, shots, (*origins, *route.loaded), found
    )


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
        think_end_token: str | None,
        shots: Mapping[str, Mapping[int, Any]],
        datasets: tuple[LoadedDataset, ...],
        found: Found,
    ) -> None:
        self.label = benchmark_label(spec)
        self._name = scope_of(spec.name)[0]  # of the task, group or tag that it is
        self.datasets = datasets
        self._spec, self._tasks, self._groups = spec, tasks, groups
        self._allow_unsafe_code, self._think_end_token = allow_unsafe_code, think_end_token
        self._found = found
        self._scoring = threading.Lock()  # lm-eval keeps responses on its instances
        self.docs = sum(len({instance.doc_id for instance in task.instances}) for task in tasks.values())
        self._targets = {name: targets_of(task) for name, task in tasks.items()}
        for name, task in tasks.items():
            refuse_hopeless(spec.name, name, task, self._targets[name])
        self.settings: dict[str, Any] = {
            "tasks": {
                name: task_settings(
                    task,
                    self._requests_of(name, task),
                    shots[name].values(),
                    self._stops(task),
                    [target.text for target in self._targets[name].values()],
                )
                for name, task in sorted(tasks.items())
            },
            "groups": digest({name: group.to_dict() for name, group in groups.items()}) if groups else None,
            "limit": spec.limit,
            "seed": seed,
            "sampling": spec.sampling.model_dump(exclude_none=True),
            "system_prompt": chat.system_prompt if chat else None,
            # Named where it is set, so that no other fingerprint changes.
            **({"fewshot_sampler": spec.fewshot_sampler} if spec.fewshot_sampler else {}),
        }

    @property
    def remarks(self) -> list[str]:
        """What makes scores worth less, known before anything is answered: a line each."""
        faults = [faults for of_task in self._found.faults.values() for faults in of_task.values()]
        return [*self._found.loading, *self._found.building, *counted(faults, self.docs)]

    def requests(self) -> list[Request]:
        """Return every request, ids ``<task>/<doc>/<request of the doc>/<repeat>``, in the benchmark's order."""
        return [request for name, task in self._tasks.items() for request in self._requests_of(name, task)]

    def recall(self, samples: Iterable[Sample]) -> dict[str, Response]:
        """Return the responses that stored samples were made from, by request id; those of docs not answered are missing."""
        by_task: dict[str, list[Sample]] = defaultdict(list)
        for sample in samples:
            by_task[sample.task].append(sample)
        found: dict[str, Response] = {}
        for name, task in self._tasks.items():
            found |= recall(name, task, by_task[name], self._think_end_token)
        return found

    def score(self, responses: Mapping[str, Response]) -> Scoring:
        """Return samples, task scores and group scores of responses by request id.

        A doc that was not answered, or that cannot be scored, is a sample with its error and counts in no score; a metric that has
        no aggregate costs that metric. Raises `core.errors.SteelyardError` where a task has no doc or no metric left.
        """
        split = self._split if self._think_end_token else whole_answer
        scored: dict[str, ScoredDocs] = {}
        heard = Heard()
        with self._scoring, unsafe_code_allowed(self._allow_unsafe_code), hearing(heard):
            for name, task in self._tasks.items():
                scored[name] = score_docs(name, task, responses, split, self._targets[name])
                if not scored[name].raw:
                    raise self._unscored(name, scored[name])
            found = aggregate(self._tasks, self._groups, scored)
        samples = [replace(each, faults=self._found.faults[each.task].get(each.doc_id, ())) for each in found.samples]
        scores = list(self._task_scores(found.raw, found.metrics))
        scores += group_scores(self._groups, found.metrics, scores)
        head, remark = headline(self._name, scores)
        if head not in scores:
            scores.append(head)
        answers = [each for docs in scored.values() for each in docs.answers]
        warnings = tuple(dict.fromkeys([*self._found.building, *heard.lines]))
        return Scoring(tuple(samples), tuple(scores), head, spread(answers), remark, warnings, found.lost)

    def _unscored(self, name: str, docs: ScoredDocs) -> SteelyardError:
        first = next((sample.error for sample in docs.samples if sample.error), "it has no metric")
        where = name if name == self.label else f"{self.label}: {name}"
        return SteelyardError(f"{where}: no doc could be scored; the first said: {first.removeprefix(NOT_SCORED)}")

    @property
    def doubts(self) -> list[str]:
        """What is wrong with the targets of docs, ``doc <id> of <task>: …``."""
        return [line for name, targets in self._targets.items() for line in faults_in_words(name, targets)]

    def _task_scores(
        self, values: Mapping[str, dict[tuple[str, str], list[Any]]], metrics: Mapping[str, Any]
    ) -> Iterable[Score]:
        for name, task in self._tasks.items():
            raw = values[name]
            counts = {f"{metric},{filter_}": len(values) for (metric, filter_), values in raw.items()}
            better = task.higher_is_better() or {}
            yield from read_scores(name, metrics[name], counts, better, primary_key(task, raw))

    def _requests_of(self, name: str, task: Any) -> Iterable[Request]:
        for instance in task.instances:
            for repeat, key in enumerate(request_ids(name, instance)):
                yield self._request(key, instance, repeat)

    def _request(self, key: str, instance: Any, repeat: int) -> Request:
        arguments = instance.args
        if instance.request_type == "generate_until":
            sampling = sampling_of(arguments[1], self._spec.sampling)
            if repeat and sampling.seed is not None:  # or every repeat would be the same
                sampling = replace(sampling, seed=sampling.seed + repeat)
            if self._think_end_token:  # they may well stand in the reasoning; `_split` applies them to the answer
                sampling = replace(sampling, until=())
            return Generate(key, arguments[0], sampling, tuple(image.png for image in images_of(instance)))
        if instance.request_type == "loglikelihood":
            return Loglikelihood(key, arguments[0], arguments[1])
        return LoglikelihoodRolling(key, arguments[0])

    def _stops(self, task: Any) -> list[tuple[str, ...]] | None:
        """Return the stop strings of a task's generations where no request has them, which is so with reasoning."""
        if not self._think_end_token:
            return None
        generations = (instance for instance in task.instances if instance.request_type == "generate_until")
        return [sampling_of(instance.args[1], self._spec.sampling).until for instance in generations]

    def _split(self, instance: Any, text: str) -> tuple[str, str]:
        reasoning, answer = split_reasoning(text, self._think_end_token or "")
        return reasoning, cut(answer, sampling_of(instance.args[1], self._spec.sampling).until)
