"""Rules of a task or group YAML of lm-evaluation-harness: unknown fields, wrong types, missing fields, unknown names.

Which fields there are, and what each holds, is asked of lm-eval's dataclasses. A fault is what lm-eval itself would stumble over,
sooner or later; what it takes is accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model

from core.catalogue.generation import FIELD as GENERATION
from core.catalogue.generation import generation_faults
from core.catalogue.index import GROUP_FIELDS
from core.catalogue.kinds import KINDS, any_of, choice_fault, is_function, that
from core.catalogue.task_functions import HF_METRICS, filters, registered, samplers
from core.errors import nearest
from core.strict import Fault, faults, shown, where_of
from core.yaml_file import Keys

LOADER_FIELDS = ("include", "class", "group", "task_list")  # of lm-eval's loader, beside those of its TaskConfig
TEMPLATES = ("doc_to_text", "doc_to_target", "doc_to_choice", "description", "gen_prefix")
# One field of each row is needed; the first is the usual one.
NEEDED = {
    ("task",): "name the benchmark with it",
    ("dataset_path", "custom_dataset"): "name the dataset with it, or make it with custom_dataset",
    ("test_split", "validation_split"): "name the split to evaluate with it, or with validation_split",
    ("doc_to_text", "use_prompt"): "say with it how a doc becomes a prompt",
    ("doc_to_target", "use_prompt"): "say with it what its answer is",
    ("doc_to_choice", "use_prompt"): "say with it what its choices are",
}
EXAMPLES = {
    "metric_list": "{metric: acc, aggregation: mean, higher_is_better: true}",
    "filter_list": "{name: none, filter: [{function: take_first}]}",
    "aggregate_metric_list": "{metric: acc, weight_by_size: true}",
}
# What lm-eval takes in a field beside what its dataclasses say.
ALSO: dict[str, tuple[Any, ...]] = {
    "doc_to_text": (int,),
    "doc_to_target": (int, list),
    **dict.fromkeys(("doc_to_image", "doc_to_audio"), (list,)),
    "doc_to_decontamination_query": (Callable,),
    "sampler": (Callable,),
}


@dataclass(frozen=True)
class Known:
    """Names that a YAML may use beside lm-eval's own.

    ``members`` are those a group may list (None: not checked), ``registered`` those that its code registers. ``misspelt`` asks for
    fields that lm-eval passes over in silence.
    """

    members: Collection[str] | None = None
    registered: frozenset[str] = frozenset()
    misspelt: bool = True


def _part(**types: Any) -> type[BaseModel]:
    fields: dict[str, Any] = {field: (kind, None) for field, kind in types.items()}
    return create_model("Part", __config__=ConfigDict(strict=True), **fields)


def _declared(theirs: type) -> dict[str, Any]:
    """Types of the fields of a dataclass of lm-eval's."""
    hints = get_type_hints(theirs, localns={"Callable": Callable, "OutputType": str})
    kinds = {name: {get_origin(each) or each for each in (hint, *get_args(hint))} for name, hint in hints.items()}
    return {name: any_of(*each, *ALSO.get(name, ())) for name, each in kinds.items()}


@cache
def _parts() -> dict[str, type[BaseModel]]:
    """The models of a task, of a group, and of the mappings in both, by the field that holds them."""
    from lm_eval.api.instance import OutputType
    from lm_eval.config.task import FewshotConfig, TaskConfig

    text, true, called, texts = any_of(str), any_of(bool), any_of(str, Callable), any_of(str, list)
    listed = BeforeValidator(lambda each: [each] if isinstance(each, str | Mapping) else each)
    until: Any = Annotated[list[KINDS[str][1]] | None, listed]  # type: ignore[misc]
    fix = "use a mapping with 'function', say {function: take_first}"
    step: Any = Annotated[Any, that(lambda each: isinstance(each, Mapping) and each.get("function") is not None, fix)]
    mean = Annotated[Any, that(lambda how: how == "mean" or is_function(how), "use mean or a !function")]
    parts = {
        "metric_list": _part(metric=called, aggregation=called, higher_is_better=true, hf_evaluate=true),
        "filter_list": _part(name=text, filter=list[step] | None),
        "aggregate_metric_list": _part(metric=called, filter_list=texts, aggregation=mean, weight_by_size=Any),
        "fewshot_config": _part(**_declared(FewshotConfig)),
        "generation_kwargs": _part(until=until, do_sample=true),
    }
    held: dict[str, Any] = {field: part | None for field, part in parts.items()}
    for field, example in EXAMPLES.items():
        mapping = that(lambda each: isinstance(each, Mapping), f"use a mapping, say {example}")
        entry: Any = Annotated[parts[field], mapping]
        held[field] = list[entry] | None
    aggregates: Any = Annotated[held.pop("aggregate_metric_list"), listed]
    held |= {"num_fewshot": Annotated[int, Field(ge=0)] | None, "repeats": Annotated[int, Field(ge=1)] | None}
    held |= {"output_type": OutputType | None, "process_results": any_of(Callable)}
    task = _declared(TaskConfig) | held
    parts["task"] = _part(**task)
    parts["group"] = _part(**task | {"task": Any, "group": KINDS[str][1], "aggregate_metric_list": aggregates})
    return parts


def faults_of(config: Mapping[str, Any], known: Known) -> list[Fault]:
    """Return everything that is wrong with a YAML's fields."""
    if "class" in config:
        return list(_python_task(config))
    return list((_group if "group" in config else _task)(config, known))


def _python_task(config: Mapping[str, Any]) -> Iterator[Fault]:
    if not isinstance(config.get("task"), str):
        yield Fault(("task",), f"field 'task' is missing; {NEEDED['task',]}")
    if not is_function(config["class"]):
        yield Fault(("class",), f"class = {config['class']!r}: write !function module.Class")


def _task(config: Mapping[str, Any], known: Known) -> Iterator[Fault]:
    fields = _parts()["task"].model_fields
    yield from _unknown(config, [*fields, *LOADER_FIELDS])
    yield from _fields(config, (), known, "task")
    given = {field for field, value in config.items() if value is not None} | _meant(config, fields)
    for either, fix in NEEDED.items():
        if given.isdisjoint(either) and (
            "doc_to_choice" not in either or config.get("output_type") == "multiple_choice"
        ):
            yield Fault((), f"field {either[0]!r} is missing; {fix}")


def _group(config: Mapping[str, Any], known: Known) -> Iterator[Fault]:
    yield from _unknown(config, [*GROUP_FIELDS, *_parts()["task"].model_fields, *LOADER_FIELDS])
    yield from _fields(config, (), known, "group")
    listed = config.get("task")
    if isinstance(listed, str):
        yield Fault(("group",), "group: one task is no group; write 'tag' to put it under a common name")
    elif not isinstance(listed, list) or not listed:
        yield Fault(("task",), f"task = {listed!r}: list the group's tasks")
    else:
        yield from _members(listed, ("task",), known)
    for here, entry in _entries(config, "aggregate_metric_list", ()):
        yield from _lacking(entry, here, "metric")
        yield from _unknown(entry, _parts()["aggregate_metric_list"].model_fields, here)


def _members(listed: list[Any], keys: Keys, known: Known) -> Iterator[Fault]:
    for position, member in enumerate(listed):
        here = (*keys, position)
        if isinstance(member, Mapping):
            if isinstance(member.get("group"), str):
                yield from _members(member.get("task") or [], (*here, "task"), known)
            elif not isinstance(member.get("task"), str):
                yield Fault(here, f"{where_of(here)} has neither 'task' nor 'group'; name the member with one")
            else:
                yield from _fields(member, here, known, "group")
        elif not isinstance(member, str):
            yield Fault(here, f"{where_of(here)} = {member!r}: name a task, group or tag")
        elif known.members is not None and member not in known.members:
            yield Fault(here, f"{where_of(here)} = {member!r} is not known{nearest(member, known.members)}")


def _fields(config: Mapping[str, Any], keys: Keys, known: Known, part: str) -> Iterator[Fault]:
    """Check the fields of a task, or those of a group, of which most override a task's."""
    try:
        _parts()[part].model_validate(config)
    except ValidationError as error:
        yield from faults(error, keys)
    yield from _templates(config, keys)
    yield from _choices(config, keys)
    settings = config.get(GENERATION)
    if isinstance(settings, Mapping) and config.get("output_type") in (
        None,
        "generate_until",
    ):  # the others generate nothing
        yield from generation_faults(settings, keys)
    own_results = config.get("process_results") is not None or part == "group"  # which names its metrics itself
    for here, entry in _entries(config, "metric_list", keys):
        yield from _lacking(entry, here, "metric")
        yield from _metric(entry, here, known, own_results)
    for here, entry in _entries(config, "filter_list", keys):
        yield from _lacking(entry, here, "name", "filter")
        yield from _unknown(entry, _parts()["filter_list"].model_fields, here)
        for at, step in _entries(entry, "filter", here):
            yield from _named(step, "function", at, filters().keys() | known.registered, "there is no such filter")
            if (accepted := filters().get(str(step.get("function")))) is not None:
                yield from _unknown(step, ["function", *accepted], at)
    shots = config.get("fewshot_config")
    if isinstance(shots, Mapping):
        here = (*keys, "fewshot_config")
        yield from _unknown(shots, _parts()["fewshot_config"].model_fields, here)
        yield from _templates(shots, here)
        yield from _choices(shots, here)
        yield from _named(shots, "sampler", here, samplers(), "there is no such sampler")


def _entries(config: Mapping[str, Any], field: str, keys: Keys) -> Iterator[tuple[Keys, Mapping[str, Any]]]:
    """The mappings of a list, each with its place; one mapping stands for a list of it."""
    listed = config.get(field)
    for position, entry in enumerate(listed if isinstance(listed, list) else [listed]):
        if isinstance(entry, Mapping):
            yield (*keys, field, position), entry


def _lacking(entry: Mapping[str, Any], keys: Keys, *needed: str) -> Iterator[Fault]:
    listed = str(keys[-2])
    for field in needed:
        if entry.get(field) is None and field not in _meant(entry, _parts()[listed].model_fields):
            yield Fault(keys, f"{where_of(keys)} has no {field!r}; write it as {EXAMPLES[listed]}")


def _metric(entry: Mapping[str, Any], keys: Keys, known: Known, own_results: bool) -> Iterator[Fault]:
    metric, fields, unknown = entry.get("metric"), _parts()["metric_list"].model_fields, False
    called = is_function(metric)
    if not (called or own_results or entry.get("hf_evaluate") or "/" in str(metric)):
        names = registered("metric") | HF_METRICS | known.registered
        unknown = isinstance(metric, str) and metric not in names
        yield from _named(entry, "metric", keys, names, "there is no such metric")
    names = registered("aggregation") | known.registered
    yield from _named(entry, "aggregation", keys, names, "there is no such aggregation")
    meant = _meant(entry, fields) if known.misspelt else set()
    for field in entry if meant else ():
        if field not in fields and (close := nearest(str(field), meant)):
            yield Fault((*keys, field), f"unknown field {str(field)!r} in {where_of(keys)}{close}")
    name = str(metric).rpartition(".")[2] if called else metric  # lm-eval goes by the function's own name
    brings = registered("metric_agg") | known.registered
    if isinstance(name, str) and not unknown and name not in brings and "aggregation" not in {*entry, *meant}:
        yield Fault(keys, f"{where_of(keys)}: {name!r} brings no aggregation; add one, say aggregation: mean")


def _named(entry: Mapping[str, Any], field: str, keys: Keys, known: Collection[str], fault: str) -> Iterator[Fault]:
    name = entry.get(field)
    if isinstance(name, str) and not is_function(name) and name not in known:
        yield Fault((*keys, field), f"{where_of((*keys, field))} = {name!r}: {fault}{nearest(name, known)}")


def _meant(entry: Mapping[str, Any], known: Collection[str]) -> set[str]:
    """Known fields that an entry lacks and that one of its unknown fields looks like."""
    others = [str(key) for key in entry if key not in known]
    return {field for field in known if field not in entry and nearest(field, others)} if others else set()


def _unknown(entry: Mapping[str, Any], known: Collection[str], keys: Keys = ()) -> Iterator[Fault]:
    where = f" in {where_of(keys)}" if keys else ""
    for field in entry:
        if field not in known:
            yield Fault((*keys, field), f"unknown field {str(field)!r}{where}{nearest(str(field), known)}")


def _choices(config: Mapping[str, Any], keys: Keys) -> Iterator[Fault]:
    """Check the answers that a YAML lists, or those of its mapping."""
    listed, here = config.get("doc_to_choice"), (*keys, "doc_to_choice")
    if not isinstance(listed, list | dict):
        return
    if not listed:
        yield Fault(here, f"{where_of(here)} = {listed!r}: list the choices")
    for key, choice in listed.items() if isinstance(listed, dict) else enumerate(listed):
        if fix := choice_fault(choice):  # that of the first stands for all
            yield Fault((*here, key), f"{where_of((*here, key))} = {shown(choice)}: {fix}")
            return


def _templates(config: Mapping[str, Any], keys: Keys) -> Iterator[Fault]:
    for field in TEMPLATES:
        text = config.get(field)
        if isinstance(text, str) and ("{{" in text or "{%" in text) and (reason := _template_fault(str(text))):
            yield Fault((*keys, field), f"{where_of((*keys, field))}: its template does not parse: {reason}")


@lru_cache(maxsize=4096)  # thousands of tasks share their templates
def _template_fault(text: str) -> str | None:
    from jinja2 import Environment, TemplateSyntaxError

    try:
        Environment().parse(text)  # noqa: S701 - parsed, never rendered
    except TemplateSyntaxError as error:
        return error.message or "it is no template"
    return None
