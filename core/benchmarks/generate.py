"""Writes the data of the bundled benchmarks: ``python -m core.benchmarks.generate``. Same code, same bytes."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from core.benchmarks.facts import OPPOSITES, TABLES
from core.benchmarks.prose import PASSAGES

SEED = 20261123
ARITHMETIC_DOCS = 240
FEWSHOT_DOCS = 8
CHOICES = 4

NAMES = ["Ana", "Ben", "Chloe", "David", "Emma", "Felix", "Grace", "Hugo", "Iris", "Jonas"]
THINGS = ["apples", "books", "coins", "eggs", "pencils", "stamps", "shells", "buttons"]


def arithmetic() -> list[dict[str, Any]]:
    """Return word problems and sums of small numbers: question, answer (an integer as text)."""
    rng = random.Random(SEED)
    docs: dict[str, str] = {}
    while len(docs) < ARITHMETIC_DOCS + FEWSHOT_DOCS:
        first, second, third = rng.randint(2, 20), rng.randint(2, 12), rng.randint(1, 9)
        name, other = rng.sample(NAMES, 2)
        thing = rng.choice(THINGS)
        problems = [
            (f"What is {first} + {second}?", first + second),
            (f"What is {first + second} - {second}?", first),
            (
                f"{name} has {first} {thing} and {other} gives {name} {second} more. How many {thing} does {name} have?",
                first + second,
            ),
            (f"{name} has {first + third} {thing} and loses {third}. How many {thing} are left?", first),
            (f"There are {second} boxes with {third} {thing} each. How many {thing} are there?", second * third),
            (f"What is {first} + {second} + {third}?", first + second + third),
        ]
        question, answer = problems[len(docs) % len(problems)]
        docs.setdefault(question, str(answer))
    return [{"question": question, "answer": answer} for question, answer in docs.items()]


def facts() -> list[dict[str, Any]]:
    """Return questions with four choices of one kind: question, choices, answer (index of the right one)."""
    rng = random.Random(SEED + 1)
    docs = []
    for question, table in TABLES:
        values = sorted(set(table.values()))
        for subject, right in table.items():
            wrong = rng.sample([value for value in values if value != right], CHOICES - 1)
            docs.append(_choice(rng, question.format(subject), right, wrong))
    words = [word for pair in OPPOSITES for word in pair]
    for first, second in OPPOSITES:
        wrong = rng.sample([word for word in words if word not in (first, second)], CHOICES - 1)
        docs.append(_choice(rng, f"What is the opposite of {first}?", second, wrong))
    rng.shuffle(docs)
    return docs


def _choice(rng: random.Random, question: str, right: str, wrong: list[str]) -> dict[str, Any]:
    answer = rng.randrange(CHOICES)
    return {"question": question, "choices": [*wrong[:answer], right, *wrong[answer:]], "answer": answer}


def files() -> dict[str, str]:
    """Return file name → content of everything that is generated."""
    sums, questions = arithmetic(), facts()
    return {
        "arithmetic_train.jsonl": _lines(sums[:FEWSHOT_DOCS]),
        "arithmetic.jsonl": _lines(sums[FEWSHOT_DOCS:]),
        "facts_train.jsonl": _lines(questions[:FEWSHOT_DOCS]),
        "facts.jsonl": _lines(questions[FEWSHOT_DOCS:]),
        "prose.jsonl": _lines({"text": text} for text in PASSAGES),
    }


def _lines(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


if __name__ == "__main__":
    for name, content in files().items():
        (Path(__file__).parent / name).write_text(content, encoding="utf-8")
