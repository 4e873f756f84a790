"""Multiple-choice questions over real text, for measurements: contexts and continuations, as benchmarks ask them.

Letters are MMLU's (six subjects, five shots each). Texts are word problems of GSM8K to be completed: their last sentence
against those of three others, some 40 and 20 tokens, the shape of HellaSwag.
"""

from __future__ import annotations

import csv
import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path

from core.request import Loglikelihood
from tests.core.tasks.rows import DATA

ENDINGS = 4


def letters(questions: int) -> list[Loglikelihood]:
    """MMLU, five shots, the choices' letters: ``questions`` of them, taken from its subjects in equal parts."""
    subjects = sorted(path.name.removesuffix("_test.csv") for path in (DATA / "mmlu" / "test").glob("*.csv"))
    prompts = list(itertools.islice(_in_turns([list(_mmlu(subject)) for subject in subjects]), questions))
    return _asked((prompt, [f" {letter}" for letter in "ABCD"]) for prompt in prompts)


def texts(questions: int, *, shots: int, header_each: bool = False) -> list[Loglikelihood]:
    """Completions with ``shots`` examples before them, the same for all questions or drawn anew for each."""
    problems = _problems()
    asked, examples = problems[:questions], problems[questions:]
    fixed = random.Random(0).sample(examples, shots)
    generator = random.Random(1)

    def prompts() -> Iterator[tuple[str, list[str]]]:
        for index, (story, ending) in enumerate(asked):
            header = generator.sample(examples, shots) if header_each else fixed
            others = [asked[(index + step) % len(asked)][1] for step in range(1, ENDINGS)]
            before = "".join(f"{shown} {end}\n\n" for shown, end in header)
            yield before + story, [f" {end}" for end in (ending, *others)]

    return _asked(prompts())


def many_choices(choices: int) -> list[Loglikelihood]:
    """One question with ``choices`` texts to choose from."""
    problems = _problems()
    return _asked([(problems[0][0], [f" {ending}" for _, ending in problems[:choices]])])


def _asked(prompts: Iterator[tuple[str, list[str]]] | list[tuple[str, list[str]]]) -> list[Loglikelihood]:
    return [
        Loglikelihood(f"{number}/{choice}", context, continuation)
        for number, (context, continuations) in enumerate(prompts)
        for choice, continuation in enumerate(continuations)
    ]


def _mmlu(subject: str) -> Iterator[str]:
    def read(split: str) -> list[list[str]]:
        with (DATA / "mmlu" / split / f"{subject}_{split}.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.reader(file))

    def shown(question: str, *choices: str) -> str:
        listed = "".join(f"{letter}. {choice}\n" for letter, choice in zip("ABCD", choices, strict=True))
        return f"{question.strip()}\n{listed}Answer:"

    title = subject.replace("_", " ")
    header = f"The following are multiple choice questions (with answers) about {title}.\n\n"
    header += "".join(f"{shown(*row)} {letter}\n\n" for *row, letter in read("dev"))
    for *row, _ in read("test"):
        yield header + shown(*row)


def _problems() -> list[tuple[str, str]]:
    """Return (all but the last sentence, last sentence) of word problems with more than one, each ending once."""
    found: dict[str, str] = {}
    for line in (DATA / "gsm8k_test.jsonl").read_text(encoding="utf-8").splitlines():
        story, stop, ending = json.loads(line)["question"].rpartition(". ")
        if stop:
            found.setdefault(ending.strip(), story + ".")
    return [(story, ending) for ending, story in found.items()]


def _in_turns(lists: list[list[str]]) -> Iterator[str]:
    for row in itertools.zip_longest(*lists):
        yield from (each for each in row if each is not None)


def available() -> bool:
    """Whether the files are there."""
    return Path(DATA).is_dir()
