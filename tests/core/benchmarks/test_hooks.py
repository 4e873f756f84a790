"""What YAMLs call for code problems."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.benchmark.benchmark import load_benchmark
from core.benchmarks.hooks import assertion_program, code_of, humaneval_rows, pass_at_k_results, run_assertions
from core.campaign import BenchmarkSpec
from core.errors import UserError
from core.request import Generated

DOC: dict[str, Any] = {
    "text": "Write a function to add two numbers.",
    "test_list": ["assert add(1, 2) == 3", "assert add(3, 4) == 7"],
    "test_setup_code": "",
}
YAML = """
task: own_mbpp
custom_dataset: !function core.benchmarks.hooks.rows
output_type: generate_until
test_split: test
doc_to_text: "{{text}}\\n"
doc_to_target: "{{test_list[0]}}"
repeats: 4
filter_list:
  - name: run
    filter:
      - function: custom
        filter_fn: !function core.benchmarks.hooks.run_assertions
process_results: !function core.benchmarks.hooks.pass_at_k_results
metric_list:
  - metric: pass@1
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
  runs_code: true
  pass_at: [1, 3, 8]
"""


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("def f(): pass", "def f(): pass"),
        ("[BEGIN]\ndef f(): pass\n[DONE]\nmore", "\ndef f(): pass\n"),
        ("Here:\n```python\ndef f(): pass\n```\nand\n```\nother\n```", "def f(): pass\n"),
        ("```\ndef f(): pass", "def f(): pass"),
    ],
)
def test_the_code_of_an_answer(answer: str, code: str) -> None:
    assert code_of(answer) == code


def test_setup_runs_before_the_assertions_and_may_use_the_program() -> None:
    doc = {
        "test_list": ["assert height(root) == math.floor(2.5)"],
        "test_setup_code": "root = Node(1)\nroot.left = Node(2)",
        "test_imports": ["import math"],
    }
    node = "class Node:\n    left = None\n    def __init__(self, v): self.v = v\n"
    right = f"{node}def height(n): return 0 if n is None else 1 + height(n.left)"
    wrong = f"{node}def height(n): return 1"
    assert [one["passed"] for one in run_assertions([[right, wrong]], [doc])[0]] == [True, False]


def test_an_entry_point_is_all_that_is_the_answer_s() -> None:
    doc = {**DOC, "entry_point": "add", "test_list": ["assert helper(add(1, 2))"]}
    assert assertion_program(doc, "x").names == ("add",)
    (outcomes,) = run_assertions([["def add(a, b): return a + b\ndef helper(x): return True"]], [doc])
    assert outcomes == [
        {"passed": False, "reason": "NameError: name 'helper' is not defined in: assert helper(add(1, 2))"}
    ]


def test_pass_at_k_for_the_k_that_there_are_samples_for() -> None:
    outcomes = [{"passed": True, "reason": ""}] + [{"passed": False, "reason": ""}] * 3
    assert pass_at_k_results({"pass_at": [1, 2, 8]}, [outcomes]) == {"pass@1": 0.25, "pass@2": 0.5}
    assert pass_at_k_results({}, [outcomes * 3]).keys() == {"pass@1", "pass@10"}


@pytest.mark.parametrize("pass_at", [[0], ["1"], 5, [True]])
def test_a_wrong_pass_at_is_named(pass_at: Any) -> None:
    with pytest.raises(UserError, match=r"metadata pass_at = .*: write a list of positive integers"):
        humaneval_rows(pass_at=pass_at)


def test_a_yaml_of_one_s_own_runs_assertions(tmp_path: Path) -> None:
    (tmp_path / "mbpp.jsonl").write_text("".join(json.dumps({**DOC, "task_id": n}) + "\n" for n in range(2)))
    path = tmp_path / "own.yaml"
    path.write_text(f"{YAML}  files: {{test: {tmp_path / 'mbpp.jsonl'}}}\n")
    benchmark = load_benchmark(BenchmarkSpec(name=str(path)), chat=None, seed=0)
    texts = [
        "def add(a, b): return a + b",
        "def add(a, b): return 3",
        "```python\ndef add(a, b):\n    return b + a\n```",
        "no",
    ]
    responses = {r.id: Generated(r.id, texts[int(r.id.split("/")[3])], "stop", 1, 1) for r in benchmark.requests()}
    scores = {score.metric: score.value for score in benchmark.score(responses).scores}
    assert scores == {"pass@1": 0.5, "pass@3": 1.0}
