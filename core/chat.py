"""Chat templates: the checkpoint's own, rendered by its tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.catalogue import LOADING
from core.errors import UserError


def chat_renderer(directory: Path, *, trust_remote_code: bool = False) -> Callable[..., str]:
    """Return ``render(messages, add_generation_prompt=True) -> str`` for the checkpoint in ``directory``.

    Without a generation prompt the last message is left open for the model to continue, as lm-evaluation-harness does.
    Raises `core.errors.UserError` where the tokenizer has no chat template.
    """
    with (
        LOADING
    ):  # models are prepared side by side, and transformers' lazy modules do not stand two first imports at once
        from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=trust_remote_code)
    if not tokenizer.chat_template:
        raise UserError(f"chat_template: the tokenizer in {str(directory)!r} has none; set chat_template: false")

    def render(messages: list[dict[str, Any]], add_generation_prompt: bool = True) -> str:
        return str(
            tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        )

    return render
