"""Multiple-choice questions over real text, for measurements: contexts and continuations, as benchmarks ask them.

Letters are MMLU's (six subjects, five shots each). Texts are word problems of GSM8K to be completed: their last sentence
against those of three others, some 40 and 20 tokens, the shape of HellaSwag.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence

from core.request import Loglikelihood
from tests.core.tasks.rows import DATA, gsm8k, mmlu

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
    rows = mmlu(subject)

    def shown(question: str, choices: Sequence[str]) -> str:
        listed = "".join(f"{letter}. {choice}\n" for letter, choice in zip("ABCD", choices, strict=True))
        return f"{question.strip()}\n{listed}Answer:"

    title = subject.replace("_", " ")
    header = f"The following are multiple choice questions (with answers) about {title}.\n\n"
    header += "".join(f"{shown(row['question'], row['choices'])} {'ABCD'[row['answer']]}\n\n" for row in rows["dev"])
    for row in rows["test"]:
        yield header + shown(row["question"], row["choices"])


def _problems() -> list[tuple[str, str]]:
    """Return (all but the last sentence, last sentence) of word problems with more than one, each ending once."""
    found: dict[str, str] = {}
    for question in gsm8k()["test"]["question"]:
        story, stop, ending = question.rpartition(". ")
        if stop:
            found.setdefault(ending.strip(), story + ".")
    return [(story, ending) for ending, story in found.items()]


def _in_turns(lists: list[list[str]]) -> Iterator[str]:
    for row in itertools.zip_longest(*lists):
        yield from (each for each in row if each is not None)
