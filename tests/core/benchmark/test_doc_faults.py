"""What makes a score worthless is found in the prompts that were built, and sound tasks have nothing held against them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.benchmark.benchmark import Benchmark, Chat, load_benchmark
from core.benchmark.doc_faults import ALIKE, EMPTY, EVALUATED, ONE_QUESTION, ONE_TARGET, OUTSIDE, OWN_ANSWER, UNSAID
from core.benchmark.find import bundled
from core.campaign import BenchmarkSpec
from core.request import Generate, Generated, Loglikelihood, Response, Scored
from core.store.quality import facts_of, notes, quality_of

ROWS = [{"q": f"Question {number}?", "label": letter} for number, letter in enumerate("ABCD")]
CHOICE: dict[str, Any] = {"output_type": "multiple_choice", "doc_to_choice": ["A", "B", "C", "D"]}
TEXT: dict[str, Any] = {"output_type": "generate_until", "generation_kwargs": {"until": ["\n"]}}
METRICS = {"multiple_choice": "acc", "generate_until": "exact_match"}


def load(
    folder: Path, rows: Sequence[dict[str, Any]] = ROWS, chat: Chat | None = None, shots: Any = None, **fields: Any
) -> Benchmark:
    """A task over ``rows`` as its test split, with ``fields`` of its YAML; ``shots`` are rows of its train split."""
    files = {"test": rows, **({"train": shots} if shots else {})}
    for split, content in files.items():
        (folder / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in content))
    config: dict[str, Any] = {
        "task": "own",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {split: str(folder / f"{split}.jsonl") for split in files}},
        "test_split": "test",
        "doc_to_text": "{{q}}",
        "doc_to_target": "label",
        **fields,
    }
    metric = {"metric": METRICS[config["output_type"]], "aggregation": "mean", "higher_is_better": True}
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump({"metric_list": [metric], **config}))
    return load_benchmark(BenchmarkSpec(name=str(path)), chat=chat, seed=1)


def answers(benchmark: Benchmark) -> dict[str, Response]:
    return {
        each.id: Generated(each.id, "A", "stop", 1, 1)
        if isinstance(each, Generate)
        else Scored(each.id, -1.0, False, 1, 1)
        for each in benchmark.requests()
    }


def counts(benchmark: Benchmark) -> dict[str, int]:
    """Faults by how many samples have them, which the remarks before it ran must say, too."""
    found = dict(quality_of(benchmark.score(answers(benchmark)).samples).faults)
    said = [f"{count} of {benchmark.docs} docs: {fault}" for fault, count in found.items()]
    assert sorted(said) == sorted(line for line in benchmark.remarks if not line.startswith("lm-eval: "))
    return found


def test_targets_outside_the_choices_are_counted_and_the_harness_s_warning_comes_once(tmp_path: Path) -> None:
    benchmark = load(tmp_path, **{**CHOICE, "doc_to_choice": ["A", "B"]})
    scoring = benchmark.score(answers(benchmark))
    assert [sample.doc_id for sample in scoring.samples if OUTSIDE in sample.faults] == [2, 3]
    facts = facts_of(scoring)["quality"]
    assert facts["faults"] == {OUTSIDE: 2}
    (warning,) = facts["warnings"]
    assert warning.startswith("lm-eval: Label index was not in within range")
    assert warning.endswith("(2 times)")
    assert notes(facts) == f"2 of 4 docs: {OUTSIDE}; {warning}"


@pytest.mark.parametrize(
    ("labels", "outside"), [([0, 3, 4, 1], 1), ([0, -1, 2, 1], 1), ([[0, 1], [4], [2, 9], [1]], 2), ([0, 3, 2, 1], 0)]
)
def test_numbers_of_choices_that_there_are_not_count(tmp_path: Path, labels: list[Any], outside: int) -> None:
    rows = [{"q": f"Question {number}?", "label": label} for number, label in enumerate(labels)]
    assert load(tmp_path, rows, **CHOICE).remarks == ([f"{outside} of 4 docs: {OUTSIDE}"] if outside else [])


def test_of_questions_that_choices_complete_the_choice_s_number_counts(tmp_path: Path) -> None:
    rows = [{"options": [f"a{n}", f"b{n}"], "right": right, "end": f"so {n}"} for n, right in enumerate([0, 1, 2])]
    fields: dict[str, Any] = {**CHOICE, "doc_to_choice": "options", "doc_to_text": "right", "doc_to_target": "end"}
    assert counts(load(tmp_path, rows, **fields)) == {OUTSIDE: 1}


def test_a_task_that_scores_its_docs_itself_may_have_any_target(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def scored(doc, results):\n    return {'acc': 1.0}\n")
    load(tmp_path, [ROWS[0], *({**row, "label": "none"} for row in ROWS[1:])], **CHOICE)
    path = tmp_path / "own.yaml"
    path.write_text(path.read_text() + "process_results: !function mine.scored\n")
    assert load_benchmark(BenchmarkSpec(name=str(path)), chat=None, seed=1).remarks == []


def turns(messages: Sequence[dict[str, str]], add_generation_prompt: bool = True) -> str:
    return "".join(f"<{turn['role']}>{turn['content']}" for turn in messages)


@pytest.mark.parametrize(
    ("chat", "answered"), [(None, "{q} {label}"), (Chat(turns, "none"), "<user>{q}<assistant>{label}")]
)
def test_docs_that_are_shown_their_own_answer_are_those_whose_prompts_hold_it(
    tmp_path: Path, chat: Chat | None, answered: str
) -> None:
    rows = [{"q": f"Question {number}?", "label": f"L{number}"} for number in range(12)]
    benchmark = load(tmp_path, rows, chat=chat, num_fewshot=3, **TEXT)
    prompts = [each.prompt for each in benchmark.requests() if isinstance(each, Generate)]
    own = [
        number
        for number, (row, prompt) in enumerate(zip(rows, prompts, strict=True))
        if answered.format(**row) in prompt
    ]
    assert 0 < len(own) < 12
    scoring = benchmark.score(answers(benchmark))
    assert [sample.doc_id for sample in scoring.samples if OWN_ANSWER in sample.faults] == own
    assert all(EVALUATED in sample.faults for sample in scoring.samples)


def test_examples_of_the_evaluated_split_without_the_doc_s_own_are_told_apart(tmp_path: Path) -> None:
    assert counts(load(tmp_path, fewshot_split="test", num_fewshot=2, **TEXT)) == {EVALUATED: 4}


def test_examples_of_a_split_of_their_own_are_sound_but_for_a_copy_of_a_doc(tmp_path: Path) -> None:
    rows = [{**row, "source": "ours"} for row in ROWS]
    others = [{"q": f"Another {number}?", "label": letter, "source": "ours"} for number, letter in enumerate("ABC")]
    fields: dict[str, Any] = {"training_split": "train", "fewshot_split": "train", "num_fewshot": 3, **TEXT}
    assert counts(load(tmp_path, rows, shots=others, **fields)) == {}
    (tmp_path / "copied").mkdir()
    copied = [*others[:2], {"q": "Question 1?", "label": "B", "source": "elsewhere"}]
    assert counts(load(tmp_path / "copied", rows, shots=copied, **fields)) == {OWN_ANSWER: 1, EVALUATED: 3}


def test_examples_that_a_yaml_lists_count_too(tmp_path: Path) -> None:
    shots: dict[str, Any] = {
        "sampler": "first_n",
        "samples": [{"q": "Question 2?", "label": "C"}, {"q": "Else?", "label": "A"}],
    }
    assert counts(load(tmp_path, fewshot_config=shots, num_fewshot=2, **TEXT)) == {OWN_ANSWER: 1, EVALUATED: 3}


def test_examples_worded_otherwise_are_known_by_their_rows(tmp_path: Path) -> None:
    rows = [{**row, "why": f"because of {row['label']}"} for row in ROWS]
    worded = {"doc_to_text": "Explain: {{q}}", "doc_to_target": "why"}
    assert counts(load(tmp_path, rows, fewshot_config=worded, num_fewshot=4, **TEXT)) == {OWN_ANSWER: 4, EVALUATED: 4}


@pytest.mark.parametrize("fields", [CHOICE, TEXT])
@pytest.mark.parametrize("shown", [0, 2])
def test_a_template_in_single_braces_asks_every_doc_the_same(
    tmp_path: Path, fields: dict[str, Any], shown: int
) -> None:
    others = [{"q": f"Another {number}?", "label": f"M{number}"} for number in range(3)]
    own: dict[str, Any] = {
        "doc_to_text": "Q: {q}",
        "training_split": "train",
        "fewshot_split": "train",
        "num_fewshot": shown,
    }
    rows = [{"q": f"Question {number}?", "label": letter} for number, letter in enumerate("ABCD")]
    found = counts(load(tmp_path, rows, shots=others, **{**fields, **own}))
    assert found == {"doc_to_text: {q} is no template: write {{q}}": 4, ALIKE: 4}


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"doc_to_text": "question"}, "doc_to_text: 'question' is no field of the docs, and is taken as text"),
        (
            {"doc_to_text": "{{q}} of {label!r}", "doc_to_target": "q"},
            "doc_to_text: {label} is no template: write {{label}}",
        ),
        ({"doc_to_text": "Ask {Q}"}, "doc_to_text: {Q} is no template: write {{Q}}"),
        ({"doc_to_target": "{label}"}, "doc_to_target: {label} is no template: write {{label}}"),
        ({"doc_to_target": "lable"}, "doc_to_target: 'lable' is no field of the docs, and is taken as text"),
        ({"description": "About { q }: "}, "description: {q} is no template: write {{q}}"),
    ],
)
def test_what_was_meant_as_a_template_is_named(tmp_path: Path, fields: dict[str, Any], fault: str) -> None:
    assert counts(load(tmp_path, **{**TEXT, **fields}))[fault] == 4


@pytest.mark.parametrize(
    "text",
    ["{{q}} End with {label}.", r"{{q}} Use \boxed{q}.", "{{q}} {other}", "q", "{% raw %}{q}{% endraw %}{{q}} {"],
)
def test_braces_that_mean_themselves_are_sound(tmp_path: Path, text: str) -> None:
    assert counts(load(tmp_path, doc_to_text=text, **TEXT)) == {}


def test_docs_that_ask_the_same_twice_are_duplicates_and_others_of_one_prompt_alike(tmp_path: Path) -> None:
    rows = [*ROWS, {**ROWS[0], "label": "B"}, ROWS[1]]
    benchmark = load(tmp_path, rows, **CHOICE)
    assert counts(benchmark) == {ALIKE: 2}
    assert quality_of(benchmark.score(answers(benchmark)).samples).duplicates == 1


def test_choices_may_ask_all_there_is(tmp_path: Path) -> None:
    rows = [{"options": [f"good {number}", f"bad {number}"], "label": 0} for number in range(3)]
    fields: dict[str, Any] = {"doc_to_text": "", "doc_to_choice": "options", "output_type": "multiple_choice"}
    benchmark = load(tmp_path, rows, **fields)
    assert counts(benchmark) == {}
    assert {each.context for each in benchmark.requests() if isinstance(each, Loglikelihood)} == {""}


def test_one_question_for_all_docs_is_told_though_their_choices_differ(tmp_path: Path) -> None:
    rows = [{"options": [f"good {number}", f"bad {number}"], "label": 0} for number in range(3)]
    fields: dict[str, Any] = {"doc_to_text": "%(q)s", "doc_to_choice": "options", "output_type": "multiple_choice"}
    assert counts(load(tmp_path, rows, **fields)) == {ONE_QUESTION: 3}


def test_a_doc_without_a_question_is_counted_whatever_stands_around_it(tmp_path: Path) -> None:
    rows = [*ROWS, {"q": " ", "label": "A"}]
    assert counts(load(tmp_path, rows, description="Answer.\n", **CHOICE)) == {EMPTY: 1}
    assert counts(load(tmp_path, rows, chat=Chat(turns, "none"), **CHOICE)) == {EMPTY: 1}


@pytest.mark.parametrize("fields", [CHOICE, TEXT])
def test_one_target_for_all_docs_is_told(tmp_path: Path, fields: dict[str, Any]) -> None:
    assert counts(load(tmp_path, [{**row, "label": "A"} for row in ROWS], **fields)) == {ONE_TARGET: 4}


def test_the_first_of_choices_that_differ_is_no_one_target(tmp_path: Path) -> None:
    rows = [{"q": f"Question {number}?", "options": [f"yes {number}", "no"]} for number in range(3)]
    fields: dict[str, Any] = {"doc_to_choice": "options", "doc_to_target": 0, "output_type": "multiple_choice"}
    assert counts(load(tmp_path, rows, **fields)) == {}


def without_system(messages: Sequence[dict[str, str]], add_generation_prompt: bool = True) -> str:
    return turns([turn for turn in messages if turn["role"] != "system"])


@pytest.mark.parametrize(
    ("render", "prompt", "description", "unsaid"),
    [
        (turns, "Be brief.", "About {{q}}", 0),
        (without_system, None, "About {{q}}", 4),
        (without_system, "Be brief.", "", 4),
        (without_system, None, "", 0),
    ],
)
def test_a_system_message_that_a_template_passes_over_is_told(
    tmp_path: Path, render: Callable[..., str], prompt: str | None, description: str, unsaid: int
) -> None:
    chat = Chat(render, "none", system_prompt=prompt)
    found = counts(load(tmp_path, chat=chat, description=description, **CHOICE))
    assert found == ({UNSAID: unsaid} if unsaid else {})


@pytest.mark.parametrize("name", [name for name in bundled() if name.startswith("steelyard_")])
def test_the_bundled_benchmarks_have_nothing_against_them(name: str) -> None:
    benchmark = load_benchmark(BenchmarkSpec(name=name, limit=20), chat=None, seed=1, image_token=lambda: "<pic>")
    assert benchmark.remarks == []
