"""One order for all requests of a client: long generations first, and together what begins alike."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.request import Generate, Loglikelihood, LoglikelihoodRolling, Request, Sampling
from engines.session import order
from engines.session.order import RequestQueue, key_of, take_next
from engines.session.tokens import tokens_key


def generate(prompt: str, max_tokens: int) -> Generate:
    return Generate("", prompt, Sampling(max_tokens=max_tokens))


def choices(context: str, count: int = 4) -> list[Request]:
    return [Loglikelihood("", context, f" {n}") for n in range(count)]


def all_of(runs: list[list[Request]], most: int) -> list[list[list[Request]]]:
    """All portions of ``runs``, to the end."""
    lines = [RequestQueue(requests) for requests in runs]
    portions = []
    while any(line.peek() is not None for line in lines):
        portions.append(take_next(lines, most))
    return portions


def stream(runs: list[list[Request]]) -> list[Request]:
    """The requests of ``runs`` one by one."""
    return [request for taken in all_of(runs, 1) for line in taken for request in line]


def test_long_generations_go_first_and_scores_last() -> None:
    short, long = generate("b", 16), generate("z", 512)
    scores: list[Request] = [Loglikelihood("", "a", " b"), LoglikelihoodRolling("", "c")]
    assert stream([[*scores, short, long]]) == [long, short, *scores]


def test_generations_of_one_length_that_begin_alike_are_neighbours() -> None:
    prompts = ["header one: x", "header two: x", "header one: y", "header two: y"]
    found = [key_of(request)[1] for request in stream([[generate(prompt, 9) for prompt in prompts]])]
    assert found == sorted(prompts)


def test_benchmarks_with_one_header_meet() -> None:
    """Whatever came between them, and in whichever order they came."""
    runs: list[list[Request]] = [
        [Loglikelihood("", f"{header} question {name}{n}", " yes") for n in range(3)]
        for name, header in (("a", "Header one:"), ("b", "Header two:"), ("c", "Header one:"))
    ]
    headers = [key_of(request)[1][:11] for request in stream(runs)]
    assert headers == ["Header one:"] * 6 + ["Header two:"] * 3


def test_longer_generations_of_another_run_go_first() -> None:
    runs: list[list[Request]] = [[generate("a", 10), generate("b", 5)], [generate("c", 20), generate("d", 7)]]
    assert [request.sampling.max_tokens for request in stream(runs) if isinstance(request, Generate)] == [20, 10, 7, 5]


def test_the_continuations_of_a_context_stay_in_one_portion() -> None:
    (first, second) = all_of([[*choices("a"), *choices("b"), *choices("c")]], 6)
    assert first == [[*choices("a"), *choices("b")]]
    assert second == [choices("c")]


def test_a_context_with_endless_continuations_is_cut() -> None:
    assert [len(line) for taken in all_of([choices("a", 50)], 10) for line in taken] == [20, 20, 10]


def test_a_portion_of_long_texts_holds_few_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "PORTION_CHARACTERS", 100)
    texts: list[Request] = [LoglikelihoodRolling("", f"{n}" * 30) for n in range(9)]
    assert [len(line) for taken in all_of([texts], 50) for line in taken] == [4, 4, 1]
    huge: list[Request] = [LoglikelihoodRolling("", f"{n}" * 1000) for n in range(2)]
    assert [len(line) for taken in all_of([huge], 50) for line in taken] == [1, 1]


def test_a_run_too_large_to_sort_at_once_comes_sorted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "SORTED_AT_ONCE", 3)
    found = [key_of(request)[1] for request in stream([[generate(text, 9) for text in "fedcba"]])]
    assert "".join(found) == "defabc"


def test_a_line_that_is_empty_gives_nothing() -> None:
    assert RequestQueue([]).peek() is None
    assert take_next([RequestQueue([])], 5) == [[]]
    with pytest.raises(IndexError, match="taken"):
        RequestQueue([]).take()


REQUESTS = st.lists(
    st.one_of(
        st.builds(generate, st.text("ab", max_size=3), st.integers(1, 3)),
        st.builds(Loglikelihood, st.text("xy", max_size=2), st.text("ab", max_size=2), st.just(" c")),
        st.builds(LoglikelihoodRolling, st.text("xy", max_size=2), st.text("ab", max_size=2)),
    ),
    max_size=12,
)


@settings(max_examples=100)
@given(st.lists(REQUESTS, max_size=4), st.integers(1, 5))
def test_every_request_is_taken_once_and_in_order(runs: list[list[Request]], most: int) -> None:
    taken: list[list[Request]] = [[] for _ in runs]
    bounds = []
    for portions in all_of(runs, most):
        assert 1 <= sum(map(len, portions)) <= 2 * most
        keys = [key_of(request) for line in portions for request in line]
        bounds.append((min(keys), max(keys)))
        for line, requests in zip(taken, portions, strict=True):
            line += requests
    for requests, line in zip(runs, taken, strict=True):
        assert line == sorted(requests, key=key_of)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(bounds))


def test_tokens_that_begin_alike_are_neighbours() -> None:
    tokens = [[1, 2, 300], [7], [1, 2, 4], [7, 70000], [1, 2]]
    firsts = [each[0] for each in sorted(tokens, key=tokens_key)]
    assert firsts in ([1, 1, 1, 7, 7], [7, 7, 1, 1, 1])
