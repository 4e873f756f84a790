"""A judge's requests from stored answers, and scores from its verdicts."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace
from typing import Any

import pytest

from core.benchmark.cell import asked
from core.campaign import load_spec
from core.errors import SteelyardError, UserError
from core.request import Generate, Generated, Response
from core.sample import Cell, Sample
from core.scoring.judge import Judging, parse_verdict
from core.scoring.judge_spec import JudgeSpec

SPEC = JudgeSpec(model="wise")
ANSWERS = tuple(
    Sample("essay", n, json.dumps({"topic": f"t{n}"}), f"Write about t{n}.", (), "", texts=(f"Essay {n}",))
    for n in range(4)
)


def judging(samples: tuple[Sample, ...] = ANSWERS, **fields: Any) -> Judging:
    return Judging(**{"spec": SPEC, "benchmark": "essay", "samples": samples, **fields})


def verdicts(of: Judging, texts: list[str]) -> dict[str, Response]:
    return {
        request.id: Generated(request.id, text, "stop", 50, 9)
        for request, text in zip(of.requests(), texts, strict=True)
    }


def test_the_judge_sees_request_answer_and_scale() -> None:
    first = judging().requests()[0]
    assert isinstance(first, Generate)
    assert first.id == "essay/0/0/0"
    assert first.sampling.max_tokens == SPEC.max_tokens
    for part in ("Write about t0.", "Essay 0", "from 1 (useless) to 10"):
        assert part in first.prompt
    assert "Reference" not in first.prompt
    with_target = judging((replace(ANSWERS[0], target="the truth"),)).requests()[0]
    assert isinstance(with_target, Generate)
    assert "[Reference answer]\nthe truth" in with_target.prompt


def test_an_answer_is_never_a_template_and_a_template_reaches_nothing() -> None:
    (request,) = judging((replace(ANSWERS[0], texts=("{{ doc }}{% raise %}",)),)).requests()
    assert isinstance(request, Generate)
    assert "{{ doc }}{% raise %}" in request.prompt
    with pytest.raises(ValueError, match="no Jinja2 template"):
        JudgeSpec(model="wise", prompt="{{ answer.__class__.__mro__[1].__subclasses__() }}")


def test_a_chat_template_gets_the_prompt_as_a_user_s_turn() -> None:
    turns = judging(render_chat=json.dumps, system_prompt="Be fair.").requests()[0]
    assert isinstance(turns, Generate)
    system, user = json.loads(turns.prompt)
    assert (system, user["role"]) == ({"role": "system", "content": "Be fair."}, "user")
    assert "Essay 0" in user["content"]


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ("Good. Rating: 7", 7.0),
        ("**Rating:** 7.5", 7.5),
        ("Rating: **8**", 8.0),
        ("Rating: 3 … no, Rating: 4", 4.0),
        ("Rating: 11", None),
        ("Rating: -1", None),
        ("a fine essay", None),
        ("", None),
    ],
)
def test_a_verdict_is_the_last_rating_on_the_scale(text: str, rating: float | None) -> None:
    assert parse_verdict(text, SPEC) == rating


def test_the_score_is_the_mean_rating_of_what_was_judged() -> None:
    work = judging()
    scoring = work.score(verdicts(work, ["Rating: 4", "Rating: 8", "I refuse", "Rating: 6"]))
    assert [sample.value for sample in scoring.samples] == [4.0, 8.0, None, 6.0]
    assert scoring.samples[2].error == "no rating from 1 to 10 in the verdict"
    head = scoring.headline
    assert (head.task, head.metric, head.value, head.docs) == ("essay@wise", "judge", 6.0, 3)
    assert head.stderr == pytest.approx(statistics.stdev([4, 8, 6]) / 3**0.5)


def test_each_of_several_answers_is_judged_and_counts_alike() -> None:
    work = judging((replace(ANSWERS[0], texts=("a", "b")),))
    assert [request.id for request in work.requests()] == ["essay/0/0/0", "essay/0/0/1"]
    (sample,) = work.score(verdicts(work, ["Rating: 2", "Rating: 6"])).samples
    assert (sample.value, sample.texts) == (4.0, ("Rating: 2", "Rating: 6"))


def test_what_was_not_answered_is_not_judged() -> None:
    work = judging((ANSWERS[0], replace(ANSWERS[1], texts=(), error="too long")))
    assert len(work.requests()) == 1
    assert work.score(verdicts(work, ["Rating: 2"])).samples[1].error == "not judged, it was not answered: too long"


def test_a_judge_that_gives_no_rating_at_all_is_a_failure() -> None:
    work = judging()
    with pytest.raises(SteelyardError, match="essay@wise: no verdict could be read; the first said: no rating"):
        work.score(verdicts(work, ["?"] * 4))


def test_a_judge_s_reasoning_is_no_verdict() -> None:
    work = judging(ANSWERS[:1], think_end_token="</think>")
    (sample,) = work.score(verdicts(work, ["Rating: 1? no</think>Rating: 9"])).samples
    assert (sample.value, sample.reasoning, sample.texts) == (9.0, ("Rating: 1? no",), ("Rating: 9",))
    assert work.score(work.recall((sample,))).samples[0].value == 9.0


def test_only_a_changed_verdict_pattern_can_score_stored_verdicts_again() -> None:
    def asks(**fields: Any) -> dict[str, Any]:
        spec = JudgeSpec(model="wise", **fields)
        return asked(Cell("a" * 64, "m", "b", {"checkpoint": "c", "benchmark": judging(spec=spec).settings}).settings)

    assert asks(verdict=r"Score (\d)") == asks()
    assert asks(prompt="{{answer}}?") != asks()
    assert judging(ANSWERS[:3]).settings != judging().settings


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        ({"model": "wize"}, "judge.model = 'wize': the judge is one of the campaign's models — did you mean 'wise'"),
        ({"model": "wise", "prompt": "no answer"}, "judge.prompt = 'no answer': the judge would not see the answer"),
        ({"model": "wise", "prompt": "{{answer"}, "no Jinja2 template"),
        ({"model": "wise", "verdict": "("}, "judge.verdict = '(': no regular expression"),
        ({"model": "wise", "verdict": "x"}, "it needs one group around the number, and has 0"),
        ({"model": "wise", "low": 5, "high": 5}, "low = 5 must be less than high = 5"),
        ({"model": "wise", "promt": "x"}, "did you mean 'prompt'"),
    ],
)
def test_a_judge_that_cannot_work_is_refused(judge: dict[str, Any], message: str) -> None:
    spec = {"name": "c", "models": [{"model": "/m", "name": "wise"}], "benchmarks": [{"name": "essay", "judge": judge}]}
    with pytest.raises(UserError) as caught:
        load_spec(spec)
    assert message in str(caught.value)


def test_a_string_stands_for_a_judge() -> None:
    spec = load_spec({"name": "c", "models": ["/wise"], "benchmarks": [{"name": "essay", "judge": "wise"}]})
    assert spec.benchmarks[0].judge == SPEC
