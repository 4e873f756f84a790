"""What is wrong with a file of fields, as a person reads it: one entry per field, with its value and what to write instead."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from core.errors import nearest

LONGEST = 80
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


class Fault(NamedTuple):
    """What is wrong with one field, and its fix. ``keys`` leads to the field; what is missing may have no place."""

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
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _fix(item: ErrorDetails) -> str:
    context = item.get("ctx", {})
    if item["type"] == "literal_error":
        known = str(context["expected"])
        return f"use one of {known}{nearest(str(item['input']), re.findall(r'[a-z_0-9]+', known))}"
    if item["type"] in FIXES:
        return FIXES[item["type"]].format_map({k: f"{v:g}" if isinstance(v, float) else v for k, v in context.items()})
    message = " ".join(item["msg"].removeprefix("Value error, ").split())
    return message if item["type"] == "value_error" else f"{message[:1].lower()}{message[1:]}"
