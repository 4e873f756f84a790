"""The base of the models that a person fills in, in a file or a form; checks of names and paths; faults as lines."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Container, Iterator
from operator import is_
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import ComputedFieldInfo, FieldInfo
from pydantic_core import ErrorDetails

from core.errors import nearest

SPELLINGS = {
    "gpu": "GPU",
    "gpus": "GPUs",
    "gb": "GB",
    "vllm": "vLLM",
    "kv": "KV",
    "kuberay": "KubeRay",
    "rrule": "RRule",
    "cpu": "CPU",
}
LONGEST_PATH, LONGEST_PART = 4000, 255  # what file systems take
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
CUT_URI = re.compile(r"(s3|file|gs|hf|https?):/(?!/)")
LONGEST_VALUE = 80  # characters of a value in a message
# By pydantic's names of what can be wrong; the fields are those of its context.
FIXES = {
    "bool_parsing": "use true or false",
    "bool_type": "use true or false",
    "dict_type": "use a mapping of names to values",
    "finite_number": "use a finite number",
    "float_parsing": "use a number",
    "float_type": "use a number",
    "greater_than": "use a number greater than {gt}",
    "greater_than_equal": "use {ge} or more",
    "int_from_float": "use a whole number",
    "int_parsing": "use a whole number",
    "int_parsing_size": "use a smaller number",
    "int_type": "use a whole number",
    "less_than": "use a number less than {lt}",
    "less_than_equal": "use {le} or less",
    "list_type": "use a list",
    "model_type": "use a mapping of its fields",
    "string_sub_type": "use text",
    "string_too_short": "use at least {min_length} character",
    "string_type": "use text, in quotes where YAML would read a number, a date or true",
    "string_unicode": "use text",
    "too_short": "list at least {min_length}",
}


def field_title(name: str, _: FieldInfo | ComputedFieldInfo) -> str:
    """Turn a field's name into the form's label."""
    words = [SPELLINGS.get(word, word) for word in name.split("_")]
    return " ".join([words[0] if words[0] in SPELLINGS.values() else words[0].capitalize(), *words[1:]])


def for_the_form(schema: dict[str, Any]) -> None:
    """Write descriptions as the form shows them, markdown on one line, and number the fields: PostgreSQL keeps no order in JSON."""
    for position, field in enumerate(schema.get("properties", {}).values()):
        field["position"] = position
        if "description" in field:
            field["description"] = " ".join(field["description"].replace("``", "`").split())


class Strict(BaseModel):
    """Refuses unknown fields with the nearest known one; frozen."""

    model_config = ConfigDict(
        allow_inf_nan=False,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        field_title_generator=field_title,
        json_schema_extra=for_the_form,
    )

    @model_validator(mode="before")
    @classmethod
    def _known_fields(cls, data: Any) -> Any:
        """Refuse fields that there are not; of what is given, take a path for its text."""
        if isinstance(data, dict):
            unknown = [str(key) for key in data if key not in cls.model_fields]
            if unknown:
                known = cls.model_fields
                raise ValueError(
                    ", ".join(f"unknown field {key!r}{nearest(key, known) or _one_of(known)}" for key in unknown)
                )
        return paths_as_text(data)

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse what pydantic would take for 0 and 1; YAML reads ``yes`` and ``off`` so."""
        kinds = _kinds(cls.model_fields[info.field_name or ""].annotation)
        if isinstance(value, bool) and not kinds.isdisjoint({int, float}) and bool not in kinds:
            raise ValueError("use a number")
        return value


def _kinds(annotation: Any) -> set[Any]:
    """Return the plain types that an annotation allows."""
    inner = get_args(annotation)
    return {kind for each in inner for kind in _kinds(each)} if inner else {annotation}


def _one_of(known: Collection[str]) -> str:
    return f": use one of {', '.join(known)}"


def short_for(field: str) -> BeforeValidator:
    """Return the validator by which a string, or a path, stands for a mapping of ``field`` alone."""
    return BeforeValidator(lambda value: {field: value} if isinstance(value, str | os.PathLike) else value)


def paths_as_text(value: Any, above: tuple[int, ...] = ()) -> Any:
    """Return plain values with `pathlib.Path` and its like as their text, however deep they stand."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if id(value) in above:  # a YAML's anchor may hold itself
        return value
    inside = (*above, id(value))
    if isinstance(value, dict):
        texts = {key: paths_as_text(each, inside) for key, each in value.items()}
        return value if all(texts[key] is value[key] for key in texts) else texts
    if type(value) in (list, tuple):
        listed = [paths_as_text(each, inside) for each in value]
        return value if all(map(is_, listed, value)) else type(value)(listed)
    return value


def safe_name(text: str) -> str:
    """Turn a path or hub id into a name that is safe as one path segment: its last part, odd characters as ``-``."""
    last = text.rstrip("/").rsplit("/", 1)[-1]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-.")[:128] or "model"


def check_name(value: str) -> str:
    """Return ``value`` if it can stand in paths and run names. Raises `ValueError` with the rule."""
    if not NAME.fullmatch(value):
        raise ValueError("use letters, digits, '.', '_' and '-', starting with a letter or digit (at most 128)")
    return value


def check_location(value: str) -> str:
    """Return ``value`` if it can be a path, a URI or a name on the hub. Raises `ValueError` with the rule."""
    if not value or not value.isprintable() or value != value.strip():
        raise ValueError("use printable characters, with no space at either end")
    if len(value) > LONGEST_PATH or any(len(part.encode()) > LONGEST_PART for part in value.split("/")):
        raise ValueError(f"it is too long: use at most {LONGEST_PATH} characters, {LONGEST_PART} between two '/'")
    try:
        Path(value).expanduser()
    except RuntimeError as error:
        raise ValueError("there is no such user: write the directory itself") from error
    return value


def check_uri(value: str, schemes: Container[str], otherwise: str) -> str:
    """Return a URI of one of ``schemes`` ("" for none) without a slash at its end. Raises `ValueError` with the rule."""
    if CUT_URI.match(value):
        raise ValueError(
            f"'{value.partition(':')[0]}:' wants two slashes: write a URI as text, pathlib.Path takes one away"
        )
    scheme, _, rest = value.rpartition("://")
    if scheme not in schemes:
        raise ValueError(f"use s3://bucket/prefix or {otherwise}")
    if scheme == "s3" and not rest.strip("/"):
        raise ValueError("s3:// needs a bucket: s3://bucket/prefix")
    if scheme == "s3" and "" in rest.rstrip("/").split("/"):
        raise ValueError("there is nothing between two of its '/': use one '/' there")
    if scheme and ".." in rest.split("/"):
        raise ValueError("'..' cannot stand in a URI")
    return value.rstrip("/") or value


Location = Annotated[str, AfterValidator(check_location)]
Seed = Annotated[int, Field(ge=0, lt=1 << 32)]  # numpy takes no other


class Fault(NamedTuple):
    """A fault of one field, and its fix. ``keys`` leads to the field; what is missing may have no place."""

    keys: tuple[int | str, ...]
    message: str


def fault_lines(error: ValidationError) -> Iterator[str]:
    """Return one line per fault: field, value, fix."""
    return (fault.message for fault in faults(error))


def faults(error: ValidationError, above: tuple[int | str, ...] = ()) -> Iterator[Fault]:
    """Return each fault with its place; ``above`` is the place of what was checked."""
    for item in error.errors(include_url=False):
        loc = (*above, *item["loc"])
        where = where_of(loc)
        if item["type"] == "missing":
            yield Fault(loc, f"{where} is missing: add it")
        elif not loc:
            yield Fault(loc, _fix(item))
        elif isinstance(item["input"], dict) and item["type"] == "value_error":  # of several fields, which it names
            yield Fault(loc, f"{where}: {_fix(item)}")
        else:
            yield Fault(loc, f"{where} = {shown(item['input'])}: {_fix(item)}")


def where_of(loc: tuple[int | str, ...]) -> str:
    """Write a field's place as ``models[0].name``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")


def shown(value: Any) -> str:
    """Write a value on one line, shortened."""
    text = repr(value) if isinstance(value, str | int | float | list | tuple | dict | None) else repr(str(value))
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"


def _fix(item: ErrorDetails) -> str:
    context = item.get("ctx", {})
    if item["type"] == "literal_error":
        known = str(context["expected"])
        return f"use one of {known}{nearest(str(item['input']), re.findall(r'[a-z_0-9]+', known))}"
    if item["type"] in FIXES:
        return FIXES[item["type"]].format_map({k: f"{v:g}" if isinstance(v, float) else v for k, v in context.items()})
    message = " ".join(item["msg"].removeprefix("Value error, ").split())
    return message if item["type"] == "value_error" else f"{message[:1].lower()}{message[1:]}"
