"""Chat turns for templates that are particular about them: where a system message goes, and what a template refuses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from core.errors import reason_of

Messages = Sequence[Mapping[str, Any]]

MEND = "set system_as_user: true, which has system_prompt and a benchmark's description open the first user turn, or leave both out"
BETWEEN = "\n\n"  # a system message and the turn it opens, as templates do that make one of the two themselves


def opened_by_system(messages: Messages) -> list[dict[str, Any]]:
    """Return messages without a system message: it opens the first user turn, whether that is text or content parts."""
    turns = [dict(message) for message in messages]
    if not turns or turns[0]["role"] != "system":
        return turns
    system, *rest = turns
    if not rest or rest[0]["role"] != "user":
        return [{**system, "role": "user"}, *rest]
    return [{**rest[0], "content": _joined(system["content"], rest[0]["content"])}, *rest[1:]]


def _joined(system: Any, content: Any) -> Any:
    from lm_eval.api.utils import maybe_delimit

    if isinstance(system, str) and isinstance(content, str):
        return maybe_delimit(system, content, BETWEEN)
    *before, last = _parts(system)
    first, *after = _parts(content)
    if last["type"] == first["type"] == "text":
        return [*before, {**last, "text": maybe_delimit(last["text"], first["text"], BETWEEN)}, *after]
    return [*before, last, first, *after]


def _parts(content: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def refusal(messages: Messages, error: Exception, render: Callable[[Messages], str]) -> str:
    """Return why a chat template's ``render`` raised ``error`` for ``messages``, with the mend, found by what it does take."""
    from jinja2 import UndefinedError

    what = reason_of(error)
    if messages[0]["role"] == "system" and _renders(render, opened_by_system(messages)):
        return f"it takes no system message ({what}): {MEND}"
    if sum(message["role"] == "user" for message in messages) > 1 and _renders(render, _last_turns(messages)):
        return f"it takes no few-shot examples as turns ({what}): set fewshot_as_multiturn: false"
    if isinstance(error, UndefinedError):
        return f"it lacks a variable ({what}): give it in chat_template_args"
    roles = ", ".join(message["role"] for message in messages)
    return f"it does not take the turns {roles} ({what}): correct it, or set chat_template: false"


def _last_turns(messages: Messages) -> Messages:
    """Return what an example would not be part of: a system message, the last question and what opens its answer."""
    system = [message for message in messages[:1] if message["role"] == "system"]
    start = max(index for index, message in enumerate(messages) if message["role"] == "user")
    return [*system, *messages[start:]]


def _renders(render: Callable[[Messages], str], messages: Messages) -> bool:
    try:
        return bool(render(messages))
    except Exception:  # a template raises anything
        return False
