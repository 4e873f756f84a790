"""Benchmarks over lm-eval's task side: the same requests and scores as the harness itself gives, on real data."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import pytest

from core.benchmark import find as catalogue
from core.benchmark.benchmark import Chat, check_benchmark, load_benchmark
from core.campaign import BenchmarkSpec, SamplingSpec
from core.errors import SteelyardError, UserError
from core.request import (
    Generate,
    Generated,
    Loglikelihood,
    LoglikelihoodRolling,
    Request,
    Response,
    Scored,
    strings_of,
)
from tests.core.tasks.rows import DATA

TASKS = Path(__file__).parents[1] / "tasks"
SEED = 3
LIMIT = 40
LOCAL = ["gsm8k_local", "bbh_boolean_expressions", "bbh_snarks", "mmlu_local", "gsm8k_prose"]

real_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no benchmark files at {DATA}; set STEELYARD_TEST_DATA")


def local(name: str, **fields: Any) -> BenchmarkSpec:
    return BenchmarkSpec(name=str(TASKS / f"{name}.yaml"), **{"limit": LIMIT, **fields})


def number(*texts: str) -> float:
    """A number in [0, 1) that only the texts decide."""
    return int.from_bytes(hashlib.sha256("\0".join(texts).encode()).digest()[:6], "big") / 2**48


def text_of(prompt: str) -> str:
    """An answer that now and then is right: digits, truth values or a letter."""
    if "Answer:" in prompt:
        return f"It is #### {int(number(prompt) * 30)}."
    return ["True", "False", "(A)", "(B)"][int(number(prompt) * 4)]


def answer(request: Request) -> Response:
    match request:
        case Generate(id=key, prompt=prompt):
            return Generated(key, text_of(prompt), "stop", 7, 3)
        case Loglikelihood(id=key, context=context, continuation=continuation):
            return Scored(key, -9 * number(context, continuation), number(continuation) > 0.5, 1, 7)
        case LoglikelihoodRolling(id=key, text=text):
            return Scored(key, -len(text) * (1 + number(text)), False, 9, 9)


class Harness:
    """lm-eval's own evaluation over a model that answers as `answer` does, remembering what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def evaluate(self, name: str) -> dict[str, Any]:
        from lm_eval.api.model import LM
        from lm_eval.evaluator import evaluate
        from lm_eval.tasks import TaskManager

        asked = self.asked

        class Model(LM):
            def loglikelihood(self, requests: Any) -> list[tuple[float, bool]]:
                asked.extend(request.args for request in requests)
                found = [answer(Loglikelihood("", *request.args)) for request in requests]
                return [(scored.logprob, scored.is_greedy) for scored in found if isinstance(scored, Scored)]

            def loglikelihood_rolling(self, requests: Any) -> list[float]:
                asked.extend(request.args for request in requests)
                found = [answer(LoglikelihoodRolling("", request.args[0])) for request in requests]
                return [scored.logprob for scored in found if isinstance(scored, Scored)]

            def generate_until(self, requests: Any) -> list[str]:
                asked.extend(request.args[:1] for request in requests)
                return [text_of(request.args[0]) for request in requests]

        loaded = TaskManager(include_path=str(TASKS), include_defaults=False).load(name)
        for task in loaded["tasks"].values():
            task.set_fewshot_seed(seed=SEED)
        result: dict[str, Any] = evaluate(Model(), loaded, limit=LIMIT, bootstrap_iters=1000)
        return result


@real_data
@pytest.mark.parametrize("name", LOCAL)
def test_requests_and_scores_are_the_harness_s(name: str) -> None:
    harness = Harness()
    theirs = harness.evaluate(name)
    benchmark = load_benchmark(local(name), chat=None, seed=SEED)
    requests = benchmark.requests()
    assert sorted(map(strings_of, requests)) == sorted(harness.asked)

    scoring = benchmark.score({request.id: answer(request) for request in requests})
    compared = 0
    for score in scoring.scores:
        results = theirs["groups" if score.group else "results"][score.task]
        assert score.value == results[f"{score.metric},{score.filter}"]
        stderr = results.get(f"{score.metric}_stderr,{score.filter}")
        if isinstance(stderr, float) and not math.isnan(stderr) and "perplexity" not in score.metric:
            assert score.stderr == pytest.approx(stderr)
        compared += 1
    assert compared >= (3 if name == "mmlu_local" else 1)
    values = {sample.logprobs if name == "gsm8k_prose" else sample.value for sample in scoring.samples}
    assert len(values) > 1, "a score that no answer moves shows nothing"


@real_data
def test_a_group_s_headline_is_its_weighted_mean() -> None:
    benchmark = load_benchmark(local("mmlu_local"), chat=None, seed=SEED)
    scoring = benchmark.score({request.id: answer(request) for request in benchmark.requests()})
    assert scoring.headline.task == "mmlu_local"
    assert scoring.headline.group
    assert scoring.headline.value == pytest.approx(sum(s.value or 0 for s in scoring.samples) / len(scoring.samples))


@real_data
def test_a_doc_that_failed_counts_in_no_score() -> None:
    benchmark = load_benchmark(local("bbh_snarks", limit=4), chat=None, seed=SEED)
    responses = {request.id: answer(request) for request in benchmark.requests()}
    first, second = list(responses)[:2]
    responses[first] = Generated(first, "", "error", 0, 0, error="longer than the window")
    del responses[second]
    scoring = benchmark.score(responses)
    assert [sample.error for sample in scoring.samples] == ["longer than the window", "no response", None, None]
    assert scoring.headline.docs == 2
    with pytest.raises(SteelyardError, match="no doc could be scored; the first said: no response"):
        benchmark.score({})


@real_data
def test_few_shot_examples_become_turns() -> None:
    def render(messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return "|".join(f"{message['role']}:{message['content'][:12]}" for message in messages)

    chat = Chat(render, "none", system_prompt="Be brief.", fewshot_as_multiturn=True)
    (first, *_) = load_benchmark(local("gsm8k_local"), chat=chat, seed=SEED).requests()
    assert isinstance(first, Generate)
    roles = [turn.split(":")[0] for turn in first.prompt.split("|")]
    assert roles == ["system"] + ["user", "assistant"] * 3 + ["user"]


@real_data
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_fewshot", 2),
        ("fewshot_sampler", "first_n"),
        ("limit", 7),
        ("sampling", SamplingSpec(max_tokens=9)),
        ("repeats", 2),
    ],
)
def test_whatever_changes_outputs_changes_the_settings(field: str, value: Any) -> None:
    def settings(**fields: Any) -> dict[str, Any]:
        return load_benchmark(local("gsm8k_local", **fields), chat=None, seed=SEED).settings

    assert settings() == settings()
    assert settings() != settings(**{field: value})


@real_data
def test_another_seed_draws_other_examples() -> None:
    one, other = (load_benchmark(local("gsm8k_local"), chat=None, seed=seed) for seed in (1, 2))
    assert one.requests() != other.requests()
    assert one.settings != other.settings


@real_data
def test_the_first_examples_are_those_of_a_task_that_asks_for_them(tmp_path: Path) -> None:
    """And every doc has the same."""
    asking = tmp_path / "gsm8k_local.yaml"
    asking.write_text((TASKS / asking.name).read_text() + "fewshot_config: {sampler: first_n}\n")
    (tmp_path / "rows.py").write_text("from tests.core.tasks.rows import gsm8k\n")
    theirs = load_benchmark(BenchmarkSpec(name=str(asking), limit=LIMIT), chat=None, seed=SEED)
    ours = load_benchmark(local("gsm8k_local", fewshot_sampler="first_n"), chat=None, seed=SEED)
    prompts = [request.prompt for request in ours.requests() if isinstance(request, Generate)]
    assert prompts == [request.prompt for request in theirs.requests() if isinstance(request, Generate)]
    (header,) = {prompt.rpartition("Question:")[0] for prompt in prompts}
    assert header.count("Question:") == 3
    assert ours.settings["fewshot_sampler"] == "first_n"
    assert "fewshot_sampler" not in theirs.settings


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UserError, match="benchmark 'gms8k' is not known — did you mean 'gsm8k'"):
        check_benchmark(BenchmarkSpec(name="gms8k"))


def test_a_missing_file_gets_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("task: mine\n")
    with pytest.raises(UserError, match=r"miine.yaml': no such file — did you mean 'mine.yaml'"):
        check_benchmark(BenchmarkSpec(name=str(tmp_path / "miine.yaml")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: [\n", "line 2, column 1"),
        ("- a\n- b\n", "a list, not a mapping of fields; it needs at least"),
        ("dataset_path: x\n", "field 'task' is missing"),
        ("task: x\ndataset_pth: y\n", "line 2: unknown field 'dataset_pth' — did you mean 'dataset_path'"),
        ("task: x\noutput_type: multiple-choice\n", "line 2: output_type = 'multiple-choice': use one of"),
        ("task: x\ninclude: gone.yaml\n", "cannot read .*gone.yaml"),
    ],
)
def test_a_broken_yaml_names_line_and_field(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        check_benchmark(BenchmarkSpec(name=str(path)))


def test_a_dataset_that_cannot_be_had_is_named(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("task: own\ndataset_path: no/such-dataset\ntest_split: test\ndoc_to_text: a\ndoc_to_target: b\n")
    with pytest.raises(UserError, match="own.yaml' cannot be loaded: .*no/such-dataset"):
        load_benchmark(BenchmarkSpec(name=str(path)), chat=None, seed=SEED)


def test_code_outside_the_sandbox_is_refused_unless_allowed() -> None:
    with pytest.raises(UserError, match="'cruxeval_input' runs model-written code .* outside any sandbox"):
        check_benchmark(BenchmarkSpec(name="cruxeval_input"))
    check_benchmark(BenchmarkSpec(name="cruxeval_input"), allow_unsafe_code=True)


def test_bundled_names_win_and_the_catalogue_is_there() -> None:
    names = set(catalogue.names())
    assert {"steelyard_facts", "gsm8k", "mmlu", "hellaswag"} <= names
    assert catalogue.find("humaneval")["metadata"]["runs_code"]
