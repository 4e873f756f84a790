"""A judge as a campaign names it: the model that scores a benchmark's answers, and its prompt."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import Field, PositiveInt, field_validator, model_validator

from core.strict import Strict

DEFAULT_PROMPT = """\
Rate how well the answer below meets the request, from {{low}} (useless) to {{high}} (could not be better).
Judge correctness first, then completeness, then clarity. Length is no merit.

[Request]
{{prompt}}
{% if target %}
[Reference answer]
{{target}}
{% endif %}
[Answer]
{{answer}}

Explain in one or two sentences, then end with a line of the form "Rating: <number>".
"""


class JudgeSpec(Strict):
    """A model of the campaign that scores another's answers."""

    model: str = Field(min_length=1)
    """Name of the judge: a model of this campaign, placed and run like any other."""
    prompt: str = Field(default=DEFAULT_PROMPT, min_length=1)
    """Jinja2 template of what it is asked: ``prompt``, ``answer``, ``target``, ``doc`` (its fields), ``low`` and ``high``."""
    verdict: str = r"Rating:\s*\**\s*(-?[0-9]+(?:\.[0-9]+)?)"
    """Regular expression with one group, the number; the last match counts."""
    low: float = 1
    """The lowest rating."""
    high: float = 10
    """The highest rating."""
    max_tokens: PositiveInt = 512
    """Longest verdict in tokens."""

    @field_validator("prompt")
    @classmethod
    def _renders(cls, value: str) -> str:
        from jinja2 import TemplateError

        try:
            render(value, {"prompt": "", "answer": "", "target": "", "doc": {}, "low": 0, "high": 1})
        except TemplateError as error:
            raise ValueError(f"no Jinja2 template: {error}") from error
        if not re.search(r"\{[{%][^}]*\banswer\b", value):
            raise ValueError("the judge would not see the answer: write {{answer}} where it belongs")
        return value

    @field_validator("verdict")
    @classmethod
    def _has_one_group(cls, value: str) -> str:
        try:
            groups = re.compile(value).groups
        except re.error as error:
            raise ValueError(f"no regular expression: {error}") from error
        if groups != 1:
            raise ValueError(f"it needs one group around the number, and has {groups}")
        return value

    @model_validator(mode="after")
    def _ordered(self) -> JudgeSpec:
        if self.low >= self.high:
            raise ValueError(f"low = {self.low:g} must be less than high = {self.high:g}")
        return self

    @property
    def identity(self) -> dict[str, Any]:
        """Everything but the judge's name that decides a verdict."""
        return self.model_dump(exclude={"model"})


def render(template: str, values: Mapping[str, Any]) -> str:
    """Fill in a prompt. Answers are data and never read as a template. Raises `jinja2.TemplateError`."""
    from jinja2.sandbox import SandboxedEnvironment

    return SandboxedEnvironment().from_string(template).render(values)
