"""What is wrong with a spec, as a person reads it: one entry per field, with its value and what to write instead."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

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


def fault_lines(error: ValidationError) -> Iterator[str]:
    """Give one line per fault: field, value, fix."""
    for item in error.errors(include_url=False):
        where = where_of(item["loc"])
        if item["type"] == "missing":
            yield f"{where} is missing: add it"
        elif not item["loc"]:
            yield _fix(item)
        elif isinstance(item["input"], dict) and item["type"] == "value_error":  # of several fields, which it names
            yield f"{where}: {_fix(item)}"
        else:
            yield f"{where} = {shown(item['input'])}: {_fix(item)}"


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
