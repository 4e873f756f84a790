"""What the harness made of each doc while it built prompts: question, choices, target and few-shot examples, as they were used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

PARTS = {"doc_to_text": "question", "doc_to_choice": "choices", "doc_to_target": "target"}


@dataclass
class Turn:
    """A row as the harness rendered it, whether as a doc or as an example; None where it did not ask for that part."""

    row: Any
    question: Any = None
    choices: Any = None
    target: Any = None

    @property
    def text(self) -> str:
        """The question; of several that one choice each completes, the right one, and none where there is no such choice."""
        found = _chosen(self.choices, self.question)
        return found if isinstance(found, str) else ""

    @property
    def answer(self) -> str | None:
        """The answer as an example shows it; None where a target is none of the choices."""
        target = self.target[0] if isinstance(self.target, list) and self.target else self.target
        found = target if isinstance(self.question, int) else _chosen(self.choices, target)
        return found if isinstance(found, str) else None


def _chosen(choices: Any, which: Any) -> Any:
    """Return the choice that a number names, and what is no number as it is."""
    if not isinstance(which, int) or not isinstance(choices, list):
        return which
    return choices[which] if 0 <= which < len(choices) else None


class Seen:
    """Turns of rows, and of each doc the examples that its prompt shows."""

    def __init__(self) -> None:
        self._turns: dict[int, Turn] = {}  # which keep their rows, so that no other gets the id of one
        self._shots: dict[int, list[Turn]] = {}

    def turn(self, row: Any) -> Turn:
        """Return the turn of a row, the same object each time."""
        return self._turns.setdefault(id(row), Turn(row))

    def show(self, doc: Any, shots: list[Any]) -> None:
        """Keep which examples a doc's prompt shows."""
        self.turn(doc)
        self._shots[id(doc)] = [self.turn(shot) for shot in shots]

    def shots(self, doc: Any) -> list[Turn]:
        """Return the examples that a doc's prompt shows."""
        return self._shots.get(id(doc), [])


@contextmanager
def watched(task: Any) -> Iterator[Seen]:
    """Keep what an lm-eval task makes of its docs for the length of the block."""
    seen, drawn = Seen(), list[Any]()
    context, sampler = task.fewshot_context, getattr(task, "sampler", None)

    def noting(method: Callable[..., Any], part: str) -> Callable[..., Any]:
        def note(row: Any, *args: Any, **kwargs: Any) -> Any:
            made = method(row, *args, **kwargs)
            setattr(seen.turn(row), part, made)
            return made

        return note

    def drawing(*args: Any, **kwargs: Any) -> Any:
        shots = draw(*args, **kwargs)
        drawn.extend(shots)
        return shots

    def showing(doc: Any, *args: Any, **kwargs: Any) -> Any:
        drawn.clear()
        prompt = context(doc, *args, **kwargs)
        seen.show(doc, drawn)
        return prompt

    with ExitStack() as stack:
        for method, part in PARTS.items():
            stack.enter_context(_replaced(task, method, noting(getattr(task, method), part)))
        stack.enter_context(_replaced(task, "fewshot_context", showing))
        if sampler is not None:
            draw = sampler.sample
            stack.enter_context(_replaced(sampler, "sample", drawing))
        yield seen


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    own = vars(owner)
    before = {name: own[name]} if name in own else {}
    setattr(owner, name, value)
    try:
        yield
    finally:
        delattr(owner, name)
        own.update(before)
