"""Kinds of value that a task YAML may hold in a field, as pydantic checks them and as messages name them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Annotated, Any, Union

from pydantic import BeforeValidator, ValidationError, WrapValidator
from pydantic_core import PydanticCustomError

from core.yaml_file import FunctionName


def that(fits: Callable[[Any], bool], fix: str) -> BeforeValidator:
    """Return a check that lets pass what ``fits`` says yes to, and gives ``fix`` otherwise."""

    def check(value: Any) -> Any:
        if not fits(value):
            raise PydanticCustomError("kind", "{fix}", {"fix": fix})
        return value

    return BeforeValidator(check)


def is_function(value: Any) -> bool:
    """Whether a value is a ``!function``."""
    return isinstance(value, FunctionName)


KINDS: dict[Any, tuple[str, Any]] = {
    float: ("a number", float),
    str: ("text", Annotated[str, that(lambda value: not is_function(value), "use text")]),
    int: ("a whole number", int),
    list: ("a list", list),
    dict: ("a mapping", dict),
    Callable: ("!function module.name", Annotated[Any, that(is_function, "use !function module.name")]),
    bool: ("true or false", bool),
}


def any_of(*kinds: Any) -> Any:
    """Return the type of a field that holds a value of one of these kinds, or none; any value where no kind is known."""
    known = [KINDS[kind] for kind in KINDS if kind in kinds]
    words = " or ".join(word for word, _ in known)

    def told(value: Any, validate: Any) -> Any:
        try:
            return validate(value)
        except ValidationError:
            why = misread(value) if str in kinds else ""
            raise PydanticCustomError("kind", "use {words}{why}", {"words": words, "why": why}) from None

    either = Union[(*(kind for _, kind in known), None)] if known else Any
    return Annotated[either, WrapValidator(told)] if len(known) > 1 else either


def misread(value: Any) -> str:
    """Return the words that add, to a fix that asks for text, what YAML made of unquoted text; none for what is written so."""
    match value:
        case bool():
            return ", in quotes: YAML reads yes, no, on, off, true and false without them as a switch"
        case date():
            return ", in quotes: YAML reads it without them as a date"
        case int() | float():
            return ", in quotes: YAML reads it without them as a number"
        case None:
            return ", in quotes: YAML reads null, ~ and nothing without them as none"
    return ""


def choice_fault(value: Any) -> str | None:
    """Return the fix of an answer to choose that lm-eval cannot take: it looks at the first letter of each."""
    if not isinstance(value, str) or is_function(value):
        return f"use text{misread(value)}"
    return None if value else "use text of one character at least"
