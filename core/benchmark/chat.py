"""Chat templates: the checkpoint's own, rendered by its tokenizer; and what marks an image where there is none."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from core.benchmark.load import LOADING
from core.errors import UserError


def chat_renderer(
    directory: Path, *, trust_remote_code: bool = False, variables: Mapping[str, Any] | None = None
) -> Callable[..., str]:
    """Return ``render(messages, add_generation_prompt=True) -> str`` for the checkpoint in ``directory``.

    ``variables`` go to the template beside the messages. Without a generation prompt the last message is left open for the model to
    continue, as lm-evaluation-harness does. Messages in content parts (`core.benchmark.images.in_parts`) get the processor's
    template where
    it has one of its own. Raises `core.errors.UserError` where there is no chat template, or no tokenizer to apply it.
    """
    with (
        LOADING
    ):  # models are prepared side by side, and transformers' lazy modules do not stand two first imports at once
        from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=trust_remote_code)
    except Exception as error:  # whatever a tokenizer's files make its class raise
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise UserError(f"chat_template: the tokenizer in {str(directory)!r} cannot be loaded: {reason}") from error
    processors = _processors_template(directory)
    if not (tokenizer.chat_template or processors):
        raise UserError(f"chat_template: the tokenizer in {str(directory)!r} has none; set chat_template: false")

    def render(messages: list[dict[str, Any]], add_generation_prompt: bool = True) -> str:
        parts = any(not isinstance(message["content"], str) for message in messages)
        return str(
            tokenizer.apply_chat_template(
                messages,
                chat_template=processors if parts or not tokenizer.chat_template else None,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
                **(variables or {}),
            )
        )

    return render


def _processors_template(directory: Path) -> str | None:
    """Read the template that older processors keep for themselves; ``chat_template.jinja`` is the tokenizer's too."""
    file = directory / "chat_template.json"
    if not file.is_file() or (directory / "chat_template.jinja").is_file():
        return None
    try:
        template = json.loads(file.read_text(encoding="utf-8"))["chat_template"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"chat_template: {str(file)!r} holds none; fetch the file again") from error
    return str(template)


@cache
def image_token(directory: Path, *, trust_remote_code: bool = False) -> str:
    """Return the text that stands for an image in a prompt of the checkpoint in ``directory``, for prompts without chat template.

    It is what lm-evaluation-harness's ``hf-multimodal`` backend writes. Raises `core.errors.UserError` where the config names none.
    """
    with LOADING:
        from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.from_pretrained(directory, trust_remote_code=trust_remote_code)
    number = getattr(config, "image_token_id", None) or getattr(config, "image_token_index", None)
    if number is None:
        raise UserError(
            f"images: config.json in {str(directory)!r} has no image_token_id, which prompts without chat template need; "
            "set chat_template: true"
        )
    tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=trust_remote_code)
    return str(tokenizer.decode([number], skip_special_tokens=False))
