"""Rules of a task or group YAML of lm-evaluation-harness (0.4.13): unknown fields, wrong types, missing fields, unknown names.

A fault is what lm-eval itself would stumble over, sooner or later; what it takes is accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from core.catalogue.index import GROUP_FIELDS, FunctionName
from core.catalogue.task_fields import (
    AGGREGATE_TYPES,
    COUNT,
    EXAMPLES,
    FEWSHOT_TYPES,
    FILTER_TYPES,
    GENERATION_TYPES,
    HF_METRICS,
    LEAST,
    LOADER_FIELDS,
    METRIC_TYPES,
    NEEDED,
    OUTPUT_TYPES,
    TASK_TYPES,
    TEMPLATES,
    Types,
    aggregations,
    default_aggregations,
    filters,
    is_kind,
    metrics,
    samplers,
)
from core.errors import nearest

Keys = tuple[str | int, ...]


@dataclass(frozen=True)
class Fault:
    """What is wrong with one field, and its fix. ``keys`` leads to the field; what is missing has no place."""

    keys: Keys
    message: str


@dataclass(frozen=True)
class Known:
    """Names that a YAML may use beside lm-eval's own.

    ``members`` are those a group may list (None: not checked), ``registered`` those that its code registers. ``misspelt`` asks for
    fields that lm-eval passes over in silence.
    """

    members: Collection[str] | None = None
    registered: frozenset[str] = frozenset()
    misspelt: bool = True


def faults_of(config: Mapping[str, Any], known: Known) -> list[Fault]:
    """Return everything that is wrong with a YAML's fields."""
    if "class" in config:
        return list(_python_task(config))
    return list(_group(config, known) if "group" in config else _task(config, known))


def _python_task(config: Mapping[str, Any]) -> Iterator[Fault]:
    if not isinstance(config.get("task"), str):
        yield Fault(("task",), "field 'task' is missing; name the benchmark with it")
    if not isinstance(config["class"], FunctionName):
        yield Fault(("class",), f"class = {config['class']!r}: write !function module.Class")


def _task(config: Mapping[str, Any], known: Known) -> Iterator[Fault]:
    yield from _unknown(config, [*TASK_TYPES, *LOADER_FIELDS])
    yield from _fields(config, (), known)
    given = {field for field, value in config.items() if value is not None} | _meant(config, TASK_TYPES)
    if "task" not in given:
        yield Fault((), "field 'task' is missing; name the benchmark with it")
    if given.isdisjoint({"dataset_path", "custom_dataset"}):
        yield Fault((), "field 'dataset_path' is missing; name the dataset with it, or make it with custom_dataset")
    if given.isdisjoint({"test_split", "validation_split"}):
        yield Fault((), "field 'test_split' is missing; name the split to evaluate with it, or with validation_split")
    chooses = config.get("output_type") == "multiple_choice"
    for field, what in NEEDED.items() if "use_prompt" not in given else ():
        if field not in given and (chooses or field != "doc_to_choice"):
            yield Fault((), f"field {field!r} is missing; say with it {what}")


def _group(config: Mapping[str, Any], known: Known) -> Iterator[Fault]:
    yield from _unknown(config, [*GROUP_FIELDS, *TASK_TYPES, *LOADER_FIELDS])
    passed = {key: value for key, value in config.items() if key not in GROUP_FIELDS}
    yield from _fields(passed, (), known, whole=False)
    if not isinstance(config["group"], str):
        yield Fault(("group",), f"group = {config['group']!r}: use text")
    listed = config.get("task")
    if isinstance(listed, str):
        yield Fault(("group",), "group: one task is no group; write 'tag' to put it under a common name")
    elif not isinstance(listed, list) or not listed:
        yield Fault(("task",), f"task = {listed!r}: list the group's tasks")
    else:
        yield from _members(listed, ("task",), known)
    yield from _entries(config, "aggregate_metric_list", AGGREGATE_TYPES, _aggregate, ())


def _members(listed: list[Any], keys: Keys, known: Known) -> Iterator[Fault]:
    for position, member in enumerate(listed):
        here = (*keys, position)
        if isinstance(member, Mapping):
            if isinstance(member.get("group"), str):
                yield from _members(member.get("task") or [], (*here, "task"), known)
            elif not isinstance(member.get("task"), str):
                yield Fault(here, f"{name_of(here)} has neither 'task' nor 'group'; name the member with one")
            else:
                own = {key: value for key, value in member.items() if key != "task"}
                yield from _fields(own, here, known, whole=False)
        elif not isinstance(member, str):
            yield Fault(here, f"{name_of(here)} = {member!r}: name a task, group or tag")
        elif known.members is not None and member not in known.members:
            yield Fault(here, f"{name_of(here)} = {member!r} is not known{nearest(member, known.members)}")


def _aggregate(entry: Mapping[str, Any], keys: Keys) -> Iterator[Fault]:
    yield from _unknown(entry, [*AGGREGATE_TYPES, "weight_by_size"], keys)
    how = entry.get("aggregation", "mean")
    if how != "mean" and not isinstance(how, FunctionName):
        yield Fault((*keys, "aggregation"), f"{name_of((*keys, 'aggregation'))} = {how!r}: use mean or a !function")


def _fields(config: Mapping[str, Any], keys: Keys, known: Known, *, whole: bool = True) -> Iterator[Fault]:
    """Check types and nested fields, of a whole task or of what overrides one."""
    yield from _types(config, TASK_TYPES, keys)
    for field, least in LEAST.items():
        value: Any = config.get(field)
        if is_kind(value, COUNT) and value < least:
            yield Fault((*keys, field), f"{name_of((*keys, field))} = {value}: use {least} or more")
    yield from _named(config, "output_type", keys, OUTPUT_TYPES, f"use one of {', '.join(OUTPUT_TYPES)}")
    yield from _templates(config, keys)
    own_results = config.get("process_results") is not None or not whole  # which names its metrics itself
    yield from _entries(
        config, "metric_list", METRIC_TYPES, lambda entry, at: _metric(entry, at, known, own_results), keys
    )
    yield from _entries(config, "filter_list", FILTER_TYPES, lambda entry, at: _filter(entry, at, known), keys)
    generation = config.get("generation_kwargs")
    if isinstance(generation, Mapping):
        here = (*keys, "generation_kwargs")
        yield from _types(generation, GENERATION_TYPES, here)
        for position, each in enumerate(_listed(generation.get("until"))):
            if not isinstance(each, str):
                place = (*here, "until", position)
                yield Fault(place, f"{name_of(place)} = {each!r}: use text, in quotes")
    shots = config.get("fewshot_config")
    if isinstance(shots, Mapping):
        here = (*keys, "fewshot_config")
        yield from _unknown(shots, FEWSHOT_TYPES, here)
        yield from _types(shots, FEWSHOT_TYPES, here)
        yield from _templates(shots, here)
        yield from _named(shots, "sampler", here, samplers(), "there is no such sampler")


def _entries(
    config: Mapping[str, Any],
    field: str,
    types: Types,
    check: Callable[[Mapping[str, Any], Keys], Iterator[Fault]],
    keys: Keys,
) -> Iterator[Fault]:
    """Check a list of mappings, each of which needs the first field of ``types``."""
    listed = config.get(field)
    for position, entry in enumerate(_listed([listed] if isinstance(listed, Mapping) else listed)):
        here = (*keys, field, position)
        if not isinstance(entry, Mapping):
            yield Fault(here, f"{name_of(here)} = {entry!r}: use a mapping, say {EXAMPLES[field]}")
            continue
        first = next(iter(types))
        if entry.get(first) is None and first not in _meant(entry, types):
            yield Fault(here, f"{name_of(here)} has no {first!r}; write it as {EXAMPLES[field]}")
        yield from _types(entry, types, here)
        yield from check(entry, here)


def _metric(entry: Mapping[str, Any], keys: Keys, known: Known, own_results: bool) -> Iterator[Fault]:
    metric: Any = entry.get("metric")
    called = isinstance(metric, FunctionName)
    unknown: list[Fault] = []
    if (
        isinstance(metric, str)
        and not called
        and not own_results
        and not entry.get("hf_evaluate")
        and "/" not in metric
    ):
        names = metrics() | HF_METRICS | known.registered
        unknown = list(_named(entry, "metric", keys, names, "there is no such metric"))
        yield from unknown
    yield from _named(entry, "aggregation", keys, aggregations() | known.registered, "there is no such aggregation")
    meant = _meant(entry, METRIC_TYPES) if known.misspelt else set()
    for field in entry if meant else ():
        if field not in METRIC_TYPES and (close := nearest(str(field), meant)):
            yield Fault((*keys, field), f"unknown field {str(field)!r} in {name_of(keys)}{close}")
    name = metric.rpartition(".")[2] if called else metric  # lm-eval goes by the function's own name
    there = "aggregation" in entry or "aggregation" in meant or name in default_aggregations() | known.registered
    if isinstance(name, str) and not unknown and not there:
        yield Fault(keys, f"{name_of(keys)}: {name!r} brings no aggregation; add one, say aggregation: mean")


def _filter(entry: Mapping[str, Any], keys: Keys, known: Known) -> Iterator[Fault]:
    yield from _unknown(entry, FILTER_TYPES, keys)
    if entry.get("filter") is None and "filter" not in _meant(entry, FILTER_TYPES):
        yield Fault(keys, f"{name_of(keys)} has no 'filter'; write it as {EXAMPLES['filter_list']}")
    for position, step in enumerate(_listed(entry.get("filter"))):
        here = (*keys, "filter", position)
        if not isinstance(step, Mapping) or step.get("function") is None:
            yield Fault(
                here, f"{name_of(here)} = {step!r}: use a mapping with 'function', say {{function: take_first}}"
            )
            continue
        name = step["function"]
        yield from _named(step, "function", here, filters().keys() | known.registered, "there is no such filter")
        if not isinstance(name, FunctionName) and (accepted := filters().get(name)) is not None:
            yield from _unknown(step, ["function", *accepted], here)


def _named(entry: Mapping[str, Any], field: str, keys: Keys, known: Collection[str], fault: str) -> Iterator[Fault]:
    name = entry.get(field)
    if isinstance(name, str) and not isinstance(name, FunctionName) and name not in known:
        here = (*keys, field)
        yield Fault(here, f"{name_of(here)} = {name!r}: {fault}{nearest(name, known)}")


def _meant(entry: Mapping[str, Any], known: Collection[str]) -> set[str]:
    """Known fields that an entry lacks and that one of its unknown fields looks like."""
    lacking = [field for field in known if field not in entry]
    return {field for field in lacking if nearest(field, [str(key) for key in entry if key not in known])}


def _unknown(entry: Mapping[str, Any], known: Collection[str], keys: Keys = ()) -> Iterator[Fault]:
    for field in entry:
        if field not in known:
            where = f" in {name_of(keys)}" if keys else ""
            yield Fault((*keys, field), f"unknown field {str(field)!r}{where}{nearest(str(field), known)}")


def _types(entry: Mapping[str, Any], types: Types, keys: Keys) -> Iterator[Fault]:
    for field, allowed in types.items():
        value = entry.get(field)
        if value is not None and not any(is_kind(value, kind) for kind in allowed):
            here = (*keys, field)
            yield Fault(here, f"{name_of(here)} = {value!r}: use {' or '.join(allowed)}")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _templates(config: Mapping[str, Any], keys: Keys) -> Iterator[Fault]:
    from jinja2 import Environment, TemplateSyntaxError

    for field in TEMPLATES:
        text = config.get(field)
        if isinstance(text, str) and ("{{" in text or "{%" in text):
            try:
                Environment().parse(text)  # noqa: S701 - parsed, never rendered
            except TemplateSyntaxError as error:
                here = (*keys, field)
                yield Fault(here, f"{name_of(here)}: its template does not parse: {error.message}")


def name_of(keys: Keys) -> str:
    """Write a field as people do: ``metric_list[0].metric``."""
    text = ""
    for key in keys:
        text += f"[{key}]" if isinstance(key, int) else f".{key}"
    return text.lstrip(".")
