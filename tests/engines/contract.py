"""What every engine owes, as functions of an open engine that serves SmolLM2 in float32 with a window of 512 tokens."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from core.request import Generate, Generated, Loglikelihood, LoglikelihoodRolling, Request, Response, Sampling, Scored
from engines.engine import Engine

HEADER = "Answer with one letter.\n" + "".join(
    f"Question: what is {n} + {n}?\nA. {2 * n}\nB. {n}\nC. 1{n}\nD. 0\nAnswer: A\n\n" for n in range(2, 9)
)
QUESTIONS = (
    "Which animal barks?\nA. dog\nB. cat\nC. cow\nD. hen",
    "Which is a colour?\nA. wood\nB. red\nC. ten\nD. up",
)


def answer(engine: Engine, requests: Sequence[Request]) -> dict[str, Response]:
    """All responses by id; fails where one is missing or comes twice."""
    responses = list(engine.run(requests))
    assert sorted(r.id for r in responses) == sorted(r.id for r in requests)
    return {response.id: response for response in responses}


def scores(engine: Engine, pairs: Sequence[tuple[str, str]]) -> list[Scored]:
    """Scores of (context, continuation) pairs, in their order."""
    by_id = answer(engine, [Loglikelihood(str(i), *pair) for i, pair in enumerate(pairs)])
    found = [by_id[str(i)] for i in range(len(pairs))]
    assert all(isinstance(score, Scored) for score in found)
    return found  # type: ignore[return-value]


KNOWN: dict[tuple[str, tuple[str, ...]], Any] = {}  # a kind of request and its arguments → the harness's answer


def harness_answers(harness: Any, kind: str, arguments: Sequence[tuple[str, ...]]) -> list[Any]:
    """What lm-evaluation-harness answers, asked once a session: all engines are compared with the same."""
    from lm_eval.api.instance import Instance

    new = [each for each in dict.fromkeys(arguments) if (kind, each) not in KNOWN]
    instances = [Instance(kind, {}, each, index) for index, each in enumerate(new)]
    answers = getattr(harness, kind)(instances, disable_tqdm=True) if new else []
    KNOWN.update({(kind, each): found for each, found in zip(new, answers, strict=True)})
    return [KNOWN[kind, each] for each in arguments]


def agrees_with_harness(engine: Engine, harness: Any, pairs: Sequence[tuple[str, str]]) -> list[Scored]:
    """Log-probabilities within 1e-3 of the harness's and the same greedy flags."""
    ours = scores(engine, pairs)
    theirs = harness_answers(harness, "loglikelihood", pairs)
    assert [score.logprob for score in ours] == pytest.approx([logprob for logprob, _ in theirs], abs=1e-3)
    assert [score.is_greedy for score in ours] == [is_greedy for _, is_greedy in theirs]
    assert all(score.error is None for score in ours)
    return ours


def generates_what_the_model_knows(engine: Engine) -> None:
    request = Generate("france", "The capital of France is", Sampling(max_tokens=8, until=(".",)))
    response = answer(engine, [request])["france"]
    assert isinstance(response, Generated)
    assert "Paris" in response.text
    assert "." not in response.text
    assert response.finish_reason == "stop"
    assert response.prompt_tokens == 5
    assert response.completion_tokens > 0


def stops_at_the_length_limit(engine: Engine) -> None:
    response = answer(engine, [Generate("long", "One, two, three,", Sampling(max_tokens=3))])["long"]
    assert isinstance(response, Generated)
    assert (response.finish_reason, response.completion_tokens) == ("length", 3)


def scores_single_letters(engine: Engine, harness: Any) -> None:
    """One-token choices, and that all choices of a question cost one prompt."""
    pairs = [(f"{HEADER}Question: {q}\nAnswer:", f" {letter}") for q in QUESTIONS for letter in "ABCD"]
    ours = agrees_with_harness(engine, harness, pairs)
    assert [score.tokens for score in ours] == [1] * len(pairs)
    assert sum(score.cached_tokens == score.prompt_tokens for score in ours) == 6


def scores_texts_behind_a_cached_context(engine: Engine, harness: Any) -> None:
    """Choices of several tokens, some a prefix of another, twice: the second time the context is in the cache."""
    texts = (
        " the dog",
        " the dog in the yard",
        " a cat that never barks at all",
        " the dog in the house",
        " no animal",
    )
    pairs = [(f"{HEADER}Question: {QUESTIONS[0]}\nAnswer:", text) for text in texts]
    agrees_with_harness(engine, harness, pairs)
    again = agrees_with_harness(engine, harness, pairs)
    assert sum(score.cached_tokens for score in again) > 0


def scores_again_what_the_cache_covers(engine: Engine, harness: Any) -> None:
    """A cached continuation has no log-probabilities in vLLM; the second score must be computed, not read.

    All of it where several blocks are cached; where it is one, only that.
    """
    pairs = [(HEADER, " ".join(f"item {n}" for n in range(60)))]
    agrees_with_harness(engine, harness, pairs)
    (again,) = agrees_with_harness(engine, harness, pairs)
    assert again.cached_tokens == 0
    pairs = [(HEADER, " ".join(f"thing {n}" for n in range(12))), (HEADER, " ".join(f"thing {n}" for n in range(24)))]
    agrees_with_harness(engine, harness, pairs)
    assert all(score.cached_tokens > 0 for score in agrees_with_harness(engine, harness, pairs[:1]))


def scores_more_choices_than_one_request_takes(engine: Engine, harness: Any) -> None:
    """Continuations that melt into the context's last token are left out: there is nothing of theirs to score."""
    pairs = [("The sign is", chr(code)) for code in range(33, 300)]
    agrees_with_harness(engine, harness, [pair for pair in pairs if harness._encode_pair(*pair)[1]])


def scores_without_context(engine: Engine, harness: Any) -> None:
    agrees_with_harness(engine, harness, [("", "Hello there"), ("", "<|im_start|>user"), ("Hi", " there")])


def moves_spaces_to_the_continuation(engine: Engine, harness: Any) -> None:
    agrees_with_harness(engine, harness, [("The capital of France is ", "Paris"), ("Two\n\n", "three"), ("A  ", " b")])


def drops_what_does_not_fit(engine: Engine, harness: Any) -> None:
    """A context too long for the window loses its left end, as in the harness."""
    context = " ".join(f"word{n}" for n in range(400))
    ours = agrees_with_harness(engine, harness, [(context, " and the end"), (context, " end")])
    assert all(score.truncated > 0 for score in ours)
    assert [score.prompt_tokens for score in ours] == [511, 511]


def scores_a_text_in_windows(engine: Engine, harness: Any) -> None:
    texts = ["The quick brown fox jumps over the lazy dog, number. " * 130, "Short."]
    requests: list[Request] = [LoglikelihoodRolling(str(index), text) for index, text in enumerate(texts)]
    ours = answer(engine, requests)
    theirs = harness_answers(harness, "loglikelihood_rolling", [(text,) for text in texts])
    for index, (text, expected) in enumerate(zip(texts, theirs, strict=True)):
        score = ours[str(index)]
        assert isinstance(score, Scored)
        assert score.logprob == pytest.approx(expected, abs=1e-2)
        assert score.tokens == len(harness.tok_encode(text))


def answers_what_it_cannot_serve(engine: Engine) -> None:
    """Requests that cannot be served carry an error, name their fault, and spoil nothing else."""
    requests: list[Request] = [
        Loglikelihood("too long", "a", " word" * 700),
        Loglikelihood("empty", "a", ""),
        Generate("no room", "a", Sampling(max_tokens=600)),
        Generate("unknown", "a", Sampling(extra={"no_such_field": 1})),
        Generate("too hot", "a", Sampling(temperature=9.0)),
        Generate("picture", "a", Sampling(max_tokens=4), images=(b"a PNG file",)),
        Generate("fine", "The capital of France is", Sampling(max_tokens=4)),
    ]
    responses = answer(engine, requests)
    for id, fault in {
        "too long": "700 tokens, the window 512",
        "empty": "no tokens",
        "no room": "max_tokens = 600",
        "unknown": "no_such_field",
        "too hot": "temperature",
        "picture": "the model takes none",
    }.items():
        assert fault in (responses[id].error or "")
    assert responses["fine"].error is None


def serves_two_threads(engine: Engine) -> None:
    """Each of two concurrent calls gets exactly its own ids."""
    found: dict[str, list[str]] = {}

    def work(name: str) -> None:
        requests: list[Request] = [Loglikelihood(f"{name}{n}", f"{name} {n}", " is a name") for n in range(40)]
        requests += [Generate(f"{name}g{n}", f"{name} {n}", Sampling(max_tokens=4)) for n in range(10)]
        found[name] = sorted(answer(engine, requests))

    threads = [threading.Thread(target=work, args=(name,)) for name in ("left", "right")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: len(ids) for name, ids in found.items()} == {"left": 50, "right": 50}
    assert all(id.startswith(name) for name, ids in found.items() for id in ids)


def survives_a_caller_that_stops_early(engine: Engine) -> None:
    many = [Generate(str(n), f"Number {n} is", Sampling(max_tokens=60, extra={"ignore_eos": True})) for n in range(600)]
    stream = iter(engine.run(many))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    generates_what_the_model_knows(engine)


def counts_what_it_answers(engine: Engine) -> None:
    """The second prompt is the first again, so its blocks are in the prefix cache."""
    before = settled(engine)
    sampling = Sampling(max_tokens=5, extra={"ignore_eos": True})
    answers = [answer(engine, [Generate(id, HEADER, sampling)])[id] for id in ("first", "again")]
    asked = sum(each.prompt_tokens for each in answers)
    after = awaited(engine, lambda stats: stats["generation_tokens"] - before["generation_tokens"] >= 10)
    risen = {name: after[name] - before[name] for name in after if name.endswith(("tokens", "queries", "hits"))}
    assert (risen["prompt_tokens"], risen["generation_tokens"]) == (asked, 10)
    assert risen["prefix_cache_queries"] == asked
    assert risen["prefix_cache_hits"] == sum(each.cached_tokens for each in answers) > 0


def shows_what_runs(engine: Engine) -> None:
    """Requests and their KV cache are seen while they run, and none once all are answered."""
    settled(engine)
    many = [Generate(str(n), f"Number {n} is", Sampling(max_tokens=200, extra={"ignore_eos": True})) for n in range(80)]
    thread = threading.Thread(target=answer, args=(engine, many))
    thread.start()
    working = awaited(engine, lambda stats: stats["running"] > 0)
    assert 0 < working["kv_cache_usage"] <= 1
    assert working["running"] + working["waiting"] <= len(many)
    thread.join()
    assert settled(engine)["generation_tokens"] > working["generation_tokens"]


def settled(engine: Engine) -> dict[str, float]:
    """The figures once nothing runs and they rise no more."""
    last: dict[str, float] = {}

    def is_at_rest(stats: dict[str, float]) -> bool:
        nonlocal last
        same, last = stats == last, stats
        return same and stats["running"] == stats["waiting"] == 0

    return awaited(engine, is_at_rest, pause=2.5)


def awaited(engine: Engine, is_so: Callable[[dict[str, float]], bool], pause: float = 0.1) -> dict[str, float]:
    """The first figures of which ``is_so`` holds, within a minute."""
    deadline = time.monotonic() + 60
    while not is_so(stats := engine.stats()):
        assert time.monotonic() < deadline, stats
        threading.Event().wait(pause)
    return stats
