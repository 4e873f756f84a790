"""Answers of reasoning models, the reasoning before the answer split from it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from core.sample import Sample


def split_reasoning(text: str, think_end_token: str) -> tuple[str, str]:
    """Split an answer as lm-evaluation-harness does: ``(reasoning, answer)``, cut at the last ``think_end_token``.

    An answer without the token is all answer: the model did not reason, or ran out of tokens while it did.
    """
    reasoning, found, answer = text.rpartition(think_end_token)
    return (reasoning, answer.lstrip()) if found else ("", text.lstrip())


def whole_texts(sample: Sample, think_end_token: str | None) -> list[str]:
    """Return a stored sample's texts as generated, reasoning included."""
    pairs = zip_longest(sample.texts, sample.reasoning, fillvalue="")
    return [f"{reasoning}{think_end_token or ''}{text}" if reasoning else text for text, reasoning in pairs]


def cut(text: str, until: Sequence[str]) -> str:
    """Return ``text`` before the first of ``until``; empty strings stop nothing."""
    for end in until:
        if end:
            text = text.split(end, 1)[0]
    return text
