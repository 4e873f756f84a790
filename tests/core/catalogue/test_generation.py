"""Generation settings of a task: what vLLM takes is taken, the rest refused with file, line and field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.catalogue import generation
from core.catalogue.generation import generation_faults, read_generation
from core.catalogue.task_yaml import check_yaml
from core.errors import UserError

TASK = "task: own\ndataset_path: json\ntest_split: test\ndoc_to_text: a\ndoc_to_target: b\ngeneration_kwargs:\n  "


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("num_beams: 2", "num_beams = 2: vLLM searches no beams: use 1, or leave it out"),
        ("num_beams: true", "num_beams = True: vLLM searches no beams"),
        ("length_penalty: 0.5", "length_penalty = 0.5: vLLM has no such setting"),
        ("num_return_sequences: 1", "num_return_sequences = 1: vLLM has no such setting"),
        ("temprature: 1", "temprature = 1: vLLM has no such setting — did you mean 'temperature'?"),
        ("untli: a", "untli = 'a': vLLM has no such setting — did you mean 'until'?"),
        ("stop: [a]", "stop = ['a']: lm-eval names it until"),
        ("structured_outputs: {regex: a}", "structured_outputs = {'regex': 'a'}: a YAML cannot say it"),
        ("temperature: hot", "temperature = 'hot': use a number"),
        ("temperature: -1", "temperature = -1: use 0 or more"),
        ("temperature: null", "temperature = None: use a number, or leave it out"),
        ("top_p: 2", "top_p = 2: use 1 or less"),
        ("top_p: 0.0", "top_p = 0.0: use a number greater than 0"),
        ("top_k: true", "top_k = True: use a whole number"),
        ("max_new_tokens: 0", "max_new_tokens = 0: use 1 or more"),
        ("max_completion_tokens: many", "max_completion_tokens = 'many': use a whole number"),
        ("repetition_penalty: high", "repetition_penalty = 'high': use a number"),
        ("bad_words: a", "bad_words = 'a': use a list"),
        ("until: no", "until = False: use a list"),
        ("until: [no]", "until[0] = False: use text, in quotes"),
    ],
)
def test_what_vllm_does_not_take_is_refused_with_its_line(tmp_path: Path, written: str, message: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(f"{TASK}{written}\n")
    with pytest.raises(UserError) as caught:
        check_yaml(path)
    assert f"own.yaml': line 7: generation_kwargs.{message}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        {"num_beams": 1, "early_stopping": True, "do_sample": False},
        {"num_beams": None, "early_stopping": "never"},
        {"temperature": "0.7", "top_p": 1, "top_k": -1, "min_p": 0, "seed": None},
        {"max_gen_toks": 5, "max_new_tokens": 7},
        {"repetition_penalty": 1.2, "ignore_eos": True, "bad_words": ["a"], "n": 1, "skip_special_tokens": True},
        {"until": "a"},
        {"until": ["a", "b"], "temperature": 0},
    ],
)
def test_what_vllm_takes_is_taken(given: dict[str, Any]) -> None:
    assert list(generation_faults(given)) == []


def test_beams_of_a_task_that_generates_nothing_say_nothing(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(f"{TASK}num_beams: 4\noutput_type: loglikelihood\n")
    check_yaml(path)


def test_the_longest_answer_is_lm_eval_s_choice_among_its_names() -> None:
    assert read_generation({"max_tokens": 7, "max_gen_toks": 5})["max_gen_toks"] == 5
    assert read_generation({"max_new_tokens": 7}) == {"do_sample": False, "until": [], "max_gen_toks": 7}
    assert "num_beams" not in read_generation({"num_beams": 1, "early_stopping": True})


def test_without_vllm_any_name_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "declared_fields", lambda *_: {})
    generation._kinds.cache_clear()
    try:
        assert list(generation_faults({"length_penalty": 1.0})) == []
        assert list(generation_faults({"num_beams": 2}))
    finally:
        generation._kinds.cache_clear()
