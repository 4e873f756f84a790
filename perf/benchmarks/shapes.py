"""Functions of the tasks of this folder that have shapes of their own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any


def contexts(doc: dict[str, Any]) -> list[str]:
    """Return one context for each choice, as winogrande's."""
    return [f"{doc['question'].strip()} The right answer is: {choice}" for choice in doc["choices"]]


def right_context(doc: dict[str, Any]) -> int:
    """Return the right one's position."""
    return int(doc["answer"])


def same_ending(doc: dict[str, Any]) -> str:
    """Return the continuation that each context is scored by."""
    return f"That is {'true' if doc['answer'] % 2 else 'so'}, as everyone knows."


def options(docs: Any) -> Any:
    """Add the options of BBH's questions as a list, and the right one's letter."""

    def split(doc: dict[str, Any]) -> dict[str, Any]:
        question, _, listed = doc["input"].partition("\nOptions:\n")
        return {
            **doc,
            "question": question,
            "options": re.findall(r"\(\w\) (.*)", listed),
            "letter": doc["target"].strip("()"),
        }

    return docs.map(split)


def letter_and_length(doc: dict[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """Score an answer by its first letter, and keep its length for an aggregation of our own."""
    found = re.search(r"[A-Z]", results[0])
    return {
        "letter": float(found is not None and found[0] == doc["letter"]),
        "length": (len(results[0]), len(doc["target"])),
    }


def ratio(lengths: Sequence[tuple[int, int]]) -> float:
    """Return the length of all answers over that of all targets."""
    return sum(answer for answer, _ in lengths) / sum(target for _, target in lengths)


def last_numbers(resps: Sequence[Sequence[str]], docs: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Keep the last number of each answer, and the question's first word where it has none."""
    return [
        [(re.findall(r"\d+", answer) or [doc["question"].split()[0]])[-1] for answer in answers]
        for answers, doc in zip(resps, docs, strict=True)
    ]


def both_ways(doc: dict[str, Any]) -> list[str]:
    """Return an answer as GSM8K writes it, and the bare number."""
    number = doc["answer"].rpartition("#### ")[2]
    return [f"#### {number}", number]
