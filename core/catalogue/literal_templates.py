"""Templates that are none: text of a task YAML with a field of the docs in single braces, as Python's formats have them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

TEMPLATES = ("doc_to_text", "doc_to_target", "doc_to_choice", "description", "gen_prefix")
# Not behind a word, as in LaTeX's \boxed{answer}.
NAME = re.compile(r"(?<![\w{])\{\s*([^\W\d]\w*)(?:![rsa])?\s*\}(?!\})")


def literal_names(text: str) -> list[str]:
    """Return names in single braces in what Jinja takes as text. None where the template does not parse."""
    return [name for part in _literal(text) for name in NAME.findall(part)]


def _literal(text: str) -> list[str]:
    from jinja2 import Environment, TemplateSyntaxError

    try:
        tokens = list(Environment().lex(text))  # noqa: S701 - read, never rendered
    except TemplateSyntaxError:
        return []
    before = ["", *(kind for _, kind, _ in tokens)]  # {% raw %} says that braces are meant
    return [
        value for (_, kind, value), last in zip(tokens, before, strict=False) if kind == "data" != last != "raw_begin"
    ]


def is_template(text: str) -> bool:
    """Whether Jinja has anything to fill in."""
    return "{{" in text or "{%" in text


def constant_fault(config: Mapping[str, Any]) -> str | None:
    """Return why every doc gets the same question, as far as a YAML alone shows it: names in single braces and no template."""
    text = config.get("doc_to_text")
    if not isinstance(text, str) or is_template(text) or not (names := literal_names(text)):
        return None
    return f"doc_to_text = {text!r} is no template, and every doc gets the same prompt: write {{{{{names[0]}}}}} for a field"
