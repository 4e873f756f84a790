"""A system message opens the first user turn, whatever turns are made of."""

from __future__ import annotations

from typing import Any

import pytest

from core.benchmark.chat import opened_by_system

SYSTEM = {"role": "system", "content": "Be brief."}
PICTURE = {"type": "image"}


def text(content: str) -> dict[str, str]:
    return {"type": "text", "text": content}


@pytest.mark.parametrize(
    ("system", "question", "opened"),
    [
        ("Be brief.", "Hi?", "Be brief.\n\nHi?"),
        ("Be brief.\n", "Hi?", "Be brief.\nHi?"),
        ("Be brief.", "", "Be brief."),
        ([text("Be brief.")], [text("Hi?"), PICTURE], [text("Be brief.\n\nHi?"), PICTURE]),
        ([text("Be brief.")], [PICTURE, text("Hi?")], [text("Be brief."), PICTURE, text("Hi?")]),
        ("Be brief.", [text("Hi?")], [text("Be brief.\n\nHi?")]),
    ],
)
def test_it_stands_before_the_question(system: Any, question: Any, opened: Any) -> None:
    answer = {"role": "assistant", "content": "So"}
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question}, answer]
    assert opened_by_system(messages) == [{"role": "user", "content": opened}, answer]


def test_turns_without_one_stay_and_one_alone_is_the_user_s() -> None:
    turns = [{"role": "user", "content": "Hi?"}]
    assert opened_by_system(turns) == turns
    assert opened_by_system([SYSTEM]) == [{"role": "user", "content": "Be brief."}]
