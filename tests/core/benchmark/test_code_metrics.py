"""The catalogue's own code tasks, with their own YAMLs and metrics, run in our sandbox and fetch no metric from a hub."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from core.benchmark.benchmark import check_benchmark, load_benchmark
from core.benchmark.code_metrics import CodeEval, code_eval_in_sandbox
from core.benchmarks.hooks import humaneval_rows
from core.campaign import BenchmarkSpec
from core.catalogue.index import harness_folder
from core.errors import UserError
from core.request import Generated
from core.sample import Scoring

MBPP_ROWS = """
def rows(**_):
    from datasets import Dataset, DatasetDict
    from lm_eval.tasks.mbpp.utils import list_fewshot_samples

    kept = ("task_id", "text", "code", "test_list")
    return DatasetDict({"test": Dataset.from_list([{name: doc[name] for name in kept} for doc in list_fewshot_samples()])})
"""


def own(folder: Path, included: str, lines: str) -> BenchmarkSpec:
    """A YAML that takes a task of the catalogue and has its rows from elsewhere than a hub."""
    path = folder / "own.yaml"
    path.write_text(f"include: {harness_folder() / included}\ntask: own\n{lines}")
    return BenchmarkSpec(name=str(path))


def score(spec: BenchmarkSpec, answers: dict[int, list[str]], allow_unsafe_code: bool = False) -> Scoring:
    """Score ``answers`` by doc; a doc with fewer than its repeats repeats them."""
    benchmark = load_benchmark(spec, chat=None, seed=0, allow_unsafe_code=allow_unsafe_code)
    responses = {}
    for request in benchmark.requests():
        _task, doc, _index, repeat = request.id.split("/")
        texts = answers[int(doc)]
        responses[request.id] = Generated(request.id, texts[int(repeat) % len(texts)], "stop", 1, 1)
    return benchmark.score(responses)


def test_code_eval_answers_as_hugging_face_s() -> None:
    candidates = [
        ["def add(a,b): return a*b", "def add(a, b): return a+b"],
        ["def add(a, b): return b + a", "import os; os._exit(0)"],
    ]
    rates, results = CodeEval().compute(predictions=candidates, references=["assert add(2, 3)==5"] * 2, k=[1, 2, 3])
    assert rates == {"pass@1": 0.5, "pass@2": 1.0}
    assert [(candidate, result["passed"]) for candidate, result in results[1]] == [(0, True), (1, False)]
    assert results[0][0][1]["result"].startswith("AssertionError")
    assert results[0][0][1].keys() == {"task_id", "completion_id", "passed", "result"}


SCRIPT = """
import sys
from core.benchmark.code_metrics import CodeEval, code_eval_in_sandbox

with code_eval_in_sandbox():
    assert "evaluate" not in sys.modules, "it is imported by who asks for it"
    import evaluate
    assert isinstance(evaluate.load("code_eval"), CodeEval)
    assert isinstance(evaluate.load("evaluate-metric/code_eval"), CodeEval)
    assert evaluate.load("bleu") == "bleu"
assert evaluate.load.__module__ == "evaluate.loading"
with code_eval_in_sandbox():
    assert isinstance(evaluate.load("code_eval"), CodeEval)
assert evaluate.load.__module__ == "evaluate.loading"
assert all(type(finder).__module__ != "core.benchmark.code_metrics" for finder in sys.meta_path)
"""


def test_code_eval_is_ours_whenever_evaluate_is_imported(tmp_path: Path) -> None:
    """With a package of that name which imports at once; the tests below have the real one."""
    (tmp_path / "evaluate").mkdir()
    (tmp_path / "evaluate/__init__.py").write_text("from .loading import load\n")
    (tmp_path / "evaluate/loading.py").write_text("def load(path): return path\n")
    script = f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\n{SCRIPT}"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_humaneval_64_of_the_catalogue_runs_in_the_sandbox(tmp_path: Path) -> None:
    spec = own(
        tmp_path,
        "humaneval/humaneval_64.yaml",
        "custom_dataset: !function core.benchmarks.hooks.humaneval_rows\nrepeats: 4\n",
    )
    docs = humaneval_rows()["test"]
    answers = {n: [docs[n]["canonical_solution"], "    open('/etc/passwd')\n", "    return None\n"] for n in range(2)}
    scoring = score(spec.model_copy(update={"limit": 2}), answers)
    assert {score.metric: score.value for score in scoring.scores} == {"pass@2": pytest.approx(5 / 6)}  # 2 of 4 pass


def test_mbpp_of_the_catalogue_runs_in_the_sandbox(tmp_path: Path) -> None:
    (tmp_path / "data.py").write_text(MBPP_ROWS)
    spec = own(tmp_path, "mbpp/mbpp.yaml", "custom_dataset: !function data.rows\n")
    with code_eval_in_sandbox():
        from lm_eval.tasks.mbpp.utils import list_fewshot_samples
    docs = list_fewshot_samples()
    right = {number: [doc["code"]] for number, doc in enumerate(docs)}
    assert score(spec, right).headline.value == 1.0
    assert score(spec, right | {0: ["import sys; sys.exit(0)"]}).headline.value == pytest.approx(2 / 3)
    assert score(
        spec, right | {0: ["class Liar:\n    __eq__ = lambda *a: True\nsimilar_elements = lambda *a: Liar()"]}
    ).headline.value == pytest.approx(2 / 3)


@pytest.mark.parametrize("name", ["mbpp", "mbpp_plus", "humaneval_instruct", "humaneval_64", "humaneval_infilling"])
def test_tasks_that_load_code_eval_are_accepted(name: str) -> None:
    check_benchmark(BenchmarkSpec(name=name))


@pytest.mark.parametrize("name", ["cruxeval_input", "longproc_pseudo_to_code_2k", "longproc"])
def test_tasks_that_run_code_themselves_are_refused_unless_allowed(name: str) -> None:
    with pytest.raises(UserError, match="runs model-written code in the harness itself, outside any sandbox"):
        check_benchmark(BenchmarkSpec(name=name))
    check_benchmark(BenchmarkSpec(name=name), allow_unsafe_code=True)


def test_a_metric_that_only_names_code_eval_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "data.py").write_text(
        f"{MBPP_ROWS}\ndef load(_): return None\ndef run(doc, results):\n    load('code_eval')\n    return {{'acc': 1}}\n"
    )
    lines = "custom_dataset: !function data.rows\nprocess_results: !function data.run\n"
    with pytest.raises(UserError, match="'own' runs model-written code in the harness itself"):
        load_benchmark(own(tmp_path, "mbpp/mbpp.yaml", lines), chat=None, seed=0)
