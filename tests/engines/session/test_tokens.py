"""Token arithmetic against lm-evaluation-harness's own functions."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.request import Generate, Loglikelihood, LoglikelihoodRolling, Request, Sampling, Scored
from engines.session.tokens import MAX_TARGETS, Encoder, ScoredSpan, TokenError, plan, rolling_windows, score, share

PAIRS = [
    ("The capital of France is", " Paris"),
    ("The capital of France is ", "Paris"),
    ("Tabs\t\n ", " and spaces"),
    ("   ", "only spaces before"),
    ("", "Hello there"),
    ("", "<|im_start|>user"),
    ("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "Hello"),
    ("A", "B"),
    ("un", "believable"),
    ("naïve café ", "日本語 🙂"),
    ("The number is:", "("),
    ("x" * 3000, " y"),
]


@pytest.fixture(scope="module")
def plain(smollm2: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(smollm2)


@pytest.fixture(scope="module")
def with_bos(plain: Any) -> Any:
    """The same tokenizer, made to begin every text with its BOS token, as Llama's does."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = copy.deepcopy(plain)
    bos = (tokenizer.bos_token, tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"{bos[0]} $A", special_tokens=[bos])
    assert tokenizer("a").input_ids[0] == tokenizer.bos_token_id
    return tokenizer


def harness_pairs(tokenizer: Any, pairs: list[tuple[str, str]]) -> list[tuple[list[int], list[int]]]:
    """What lm-evaluation-harness hands to its model for these pairs; no model is loaded."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    seen: list[tuple[list[int], list[int]]] = []

    class Recorder(HFLM):
        def __init__(self) -> None:
            self.tokenizer = tokenizer
            self.add_bos_token = None
            self.custom_prefix_token_id = None
            self.backend = "causal"
            self.enable_thinking = False

        def _loglikelihood_tokens(self, requests: Any, **_: Any) -> Any:
            seen.extend((list(context), list(continuation)) for _, context, continuation in requests)
            return [(0.0, False)] * len(requests)

    Recorder().loglikelihood([Instance("loglikelihood", {}, p, i) for i, p in enumerate(pairs)], disable_tqdm=True)
    return seen


@pytest.mark.parametrize("which", ["plain", "with_bos"])
def test_pairs_are_encoded_as_the_harness_does(which: str, request: pytest.FixtureRequest) -> None:
    tokenizer = request.getfixturevalue(which)
    pairs = [pair for pair in PAIRS if pair[0] != "   "]
    assert Encoder(tokenizer).encode_pairs(pairs) == harness_pairs(tokenizer, pairs)


def test_a_context_of_spaces_counts_as_empty(plain: Any) -> None:
    ((context, continuation),) = Encoder(plain).encode_pairs([("   ", "x")])
    assert (context, continuation) == ([plain.bos_token_id], plain("   x").input_ids)


def test_a_prompt_that_begins_with_bos_gets_no_second_one(with_bos: Any) -> None:
    (ids,) = Encoder(with_bos).encode([with_bos.bos_token + "user\nHi"])
    assert ids.count(with_bos.bos_token_id) == 1


def test_a_prompt_without_bos_gets_the_tokenizers_own(with_bos: Any) -> None:
    bare, prefixed = Encoder(with_bos).encode(["Hi", with_bos.bos_token + "Hi"])
    assert bare == prefixed


@given(st.integers(1, 400), st.integers(1, 60))
def test_rolling_windows_are_the_harness_windows(count: int, length: int) -> None:
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    tokens = list(range(1000, 1000 + count))
    expected = [make_disjoint_window(w) for w in get_rolling_token_windows(tokens, 7, length, 1)]
    assert [(list(a), list(b)) for a, b in rolling_windows(tokens, 7, length)] == expected


@given(st.integers(1, 50), st.integers(1, 50), st.integers(2, 40))
def test_truncation_keeps_what_the_harness_keeps(context: int, continuation: int, window: int) -> None:
    """The harness's Hugging Face backend with max_length = window - 1 keeps the last `window` tokens."""
    head, tail = list(range(context)), list(range(100, 100 + continuation))
    if continuation >= window:
        with pytest.raises(TokenError, match="window"):
            score(0, head, tail, window)
        return
    span = score(0, head, tail, window)
    assert list(span.tokens) == (head + tail)[-window:]
    assert list(span.tokens[span.start :]) == tail
    assert span.truncated == context + continuation - len(span.tokens)


@given(st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=5), max_size=40))
def test_sharing_keeps_every_span_once(token_lists: list[list[int]]) -> None:
    spans = [ScoredSpan(owner, tuple(tokens), 1) for owner, tokens in enumerate(token_lists)]
    prefills = share(spans)
    assert sorted(span.owner for prefill in prefills for span in prefill.spans) == list(range(len(spans)))
    assert all(span.tokens[:-1] == prefill.prompt for prefill in prefills for span in prefill.spans)


def test_choices_of_one_token_share_one_prompt() -> None:
    (prefill,) = share([ScoredSpan(n, (1, 2, 3, 10 + n), 3) for n in range(4)])
    assert prefill.targets == [10, 11, 12, 13]
    assert not prefill.reads_prompt


def test_no_prefill_has_more_targets_than_vllm_takes() -> None:
    prefills = share([ScoredSpan(n, (1, 2, 10 + n), 2) for n in range(300)])
    assert [len(prefill.targets) for prefill in prefills] == [MAX_TARGETS, MAX_TARGETS, 300 - 2 * MAX_TARGETS]


def test_shared_prefixes_become_neighbours() -> None:
    spans = [ScoredSpan(n, (n % 2, 5, n, 9), 2) for n in range(6)]
    assert [prefill.prompt[0] for prefill in share(spans)] == [0, 0, 0, 1, 1, 1]


def test_a_prompt_is_cut_from_the_left_to_leave_room_for_the_answer(plain: Any) -> None:
    request = Generate("g", "one two three four five six", Sampling(max_tokens=6))
    (generation,) = plan([request], Encoder(plain), 10).generations
    assert generation.prompt == plain(request.prompt).input_ids[-4:]


def test_an_empty_prompt_becomes_the_prefix_token(plain: Any) -> None:
    (generation,) = plan([Generate("g", "", Sampling())], Encoder(plain), 1000).generations
    assert generation.prompt == [plain.bos_token_id]


def test_a_continuation_without_tokens_is_refused(plain: Any) -> None:
    (response,) = plan([Loglikelihood("a", "context", "")], Encoder(plain), 100).answered
    assert isinstance(response, Scored)
    assert math.isnan(response.logprob)
    assert "no tokens" in (response.error or "")


def test_every_request_is_planned_or_answered(plain: Any) -> None:
    requests: list[Request] = [
        Generate("fine", "Hello", Sampling(max_tokens=5)),
        Generate("no room", "Hello", Sampling(max_tokens=99)),
        Loglikelihood("pair", "a", " b"),
        Loglikelihood("long", "a", " b" * 99),
        LoglikelihoodRolling("text", "some text " * 40),
        LoglikelihoodRolling("nothing", ""),
    ]
    planned = plan(requests, Encoder(plain), 50)
    assert [generation.request.id for generation in planned.generations] == ["fine"]
    assert sorted(response.id for response in planned.answered) == ["long", "no room", "nothing"]
    assert sorted(planned.spans_of) == [2, 4]
    assert sum(len(prefill.spans) for prefill in planned.prefills) == sum(planned.spans_of.values())
